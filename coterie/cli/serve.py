"""`coterie serve`: a REST API and a dashboard for a run."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from coterie.cli.evaluate import Trust
from coterie.cli.output import JsonFlag, Output
from coterie.cli.serving import ConfigOption, StoreOption, config_of, opened_store, place
from coterie.errors import MissingExtra

if TYPE_CHECKING:
    from coterie.serving.deployment import Deployment


def serve(
    run: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN]", help="Run folder to serve to everybody. Default: what was served last."),
    ] = None,
    config: ConfigOption = None,
    host: Annotated[str | None, typer.Option("--host", help="Address to listen at. Default: 127.0.0.1.")] = None,
    port: Annotated[
        int | None,
        typer.Option("--port", metavar="INTEGER", help="Port to listen at; 0 takes a free one. Default: 8080."),
    ] = None,
    store: StoreOption = None,
    workers: Annotated[
        int | None, typer.Option("--workers", metavar="INTEGER", help="Processes that answer. Default: 1.")
    ] = None,
    tls_certificate: Annotated[
        str | None, typer.Option("--tls-certificate", metavar="FILE", help="Certificate chain for HTTPS (PEM).")
    ] = None,
    tls_key: Annotated[str | None, typer.Option("--tls-key", metavar="FILE", help="Its private key (PEM).")] = None,
    allow: Annotated[
        list[str] | None,
        typer.Option(
            "--allow", metavar="unsigned|tampered|older", help="Serve a run although it is that; may be repeated."
        ),
    ] = None,
    coordinator: Annotated[
        str | None,
        typer.Option(
            "--coordinator", metavar="FOLDER", help="Show the federation of this coordinator on the dashboard."
        ),
    ] = None,
    trust: Trust = None,
    json: JsonFlag = False,
) -> None:
    """Serve a run: recommendations, items and events over HTTP, and a dashboard. Stop it with Ctrl-C."""
    flags = {
        ("server", "host"): host,
        ("server", "port"): port,
        ("server", "workers"): workers,
        ("server", "tls_certificate"): tls_certificate,
        ("server", "tls_key"): tls_key,
        ("model", "allow"): tuple(allow) if allow else None,
        ("model", "trust"): trust,
        ("federation", "coordinator"): coordinator,
    }
    settings, out = config_of(config, store, flags), Output(json)
    try:
        from coterie.serving.server import serve as run_server
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == "coterie":
            raise
        raise MissingExtra("coterie serve", "serve") from None
    if run is None:
        opened_store(settings).close()  # who names no run means a store that is there
    run_server(settings, run, lambda deployment, address: _say(out, deployment, address, run))


def _say(out: Output, deployment: Deployment, address: str, asked: Path | None) -> None:
    version = deployment.versions.current().version
    content = {
        "address": address,
        "dashboard": f"{address}/dashboard/",
        "run": version.run,
        "model": version.model,
        "version": version.id,
        "keys": "none needed" if deployment.open_access else "needed",
        "store": place(deployment.config),
    }
    run = Path(version.run)
    shown = run.relative_to(Path.cwd()) if run.is_relative_to(Path.cwd()) else run
    lines = [
        f"serving {shown} ({version.model}, version {version.id}) at {address}",
        f"dashboard: {address}/dashboard/",
    ]
    if deployment.open_access:
        lines.append("no key is asked for on this machine, until the first is made: coterie keys create")
    out.result(content, *lines)
    if asked is not None and asked.resolve() != run.resolve():
        out.warn(
            f"{asked} was served before, and the roll-out has gone on to {shown}; to go back: "
            f"coterie rollout swap {asked} --store {place(deployment.config)}"
        )
