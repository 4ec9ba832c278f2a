"""`coterie coordinator`: whoever sums. It enrols organisations, offers them jobs, and conducts what they accept."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coterie.cli.federation import HERE, FolderOption, WatchFlag, asked_daemon, at_home, said, serve, show_status
from coterie.cli.output import JsonFlag, Output
from coterie.errors import ConfigError

if TYPE_CHECKING:
    from coterie.federation.config import FederationConfig
    from coterie.federation.identity import Identities
    from coterie.federation.members import Members

app = typer.Typer(suggest_commands=False)
Name = Annotated[str, typer.Argument(metavar="NAME", help="The node's name.")]


@app.callback(invoke_without_command=True)
def coordinator(ctx: typer.Context) -> None:
    """Be the coordinator of a federation: invite organisations, offer them jobs, sum what they send masked."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def init(
    folder: FolderOption = HERE,
    name: Annotated[
        str, typer.Option("--name", metavar="TEXT", help="What people call the federation.")
    ] = "federation",
    address: Annotated[
        str, typer.Option("--address", metavar="HOST:PORT", help="Where nodes reach this coordinator from outside.")
    ] = "localhost:9443",
    certificate: Annotated[
        Path | None,
        typer.Option("--certificate", metavar="FILE", help="Your own certificate (PEM), with --key and --ca."),
    ] = None,
    key: Annotated[Path | None, typer.Option("--key", metavar="FILE", help="Its private key (PEM).")] = None,
    ca: Annotated[
        Path | None, typer.Option("--ca", metavar="FILE", help="Certificate of the authority that signed it (PEM).")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Make a coordinator's folder: an authority, a server certificate, its identity, an annotated configuration."""
    from coterie.federation.address import check_address, split_address
    from coterie.federation.authority import make_authority, server_certificate
    from coterie.federation.config import COORDINATOR_FILE, federation_template
    from coterie.federation.identity import Identities
    from coterie.files import write_text

    path = folder / COORDINATOR_FILE
    if path.exists():
        raise ConfigError(f"{path} exists already; edit it, or name another folder with --folder")
    given = {"certificate": certificate, "key": key, "ca": ca}
    if any(given.values()) and not all(given.values()):
        raise ConfigError("--certificate, --key and --ca go together: give all three, or none")
    try:
        check_address(address)
    except ValueError as error:
        raise ConfigError(f"--{error}") from None
    at_home(folder)
    identities = Identities.open(folder, create=True)
    if not any(given.values()):
        make_authority(folder, name)
        server_certificate(folder, [split_address(address)[0], "localhost", "127.0.0.1"])
    tls = {what: str(Path(file).resolve()) for what, file in given.items() if file is not None}
    write_text(path, federation_template(name, address, tls=tls))
    Output(json).result(
        {"folder": folder, "config": path, "fingerprint": identities.fingerprint, "address": address},
        f"wrote {path}",
        f"the coordinator's fingerprint, to be told to every node by another way: {identities.fingerprint}",
        "edit it, then: coterie coordinator start, and coterie coordinator invite NAME",
    )


def start(
    file: Annotated[
        Path,
        typer.Argument(metavar="F", help="federation.toml, or the folder that it is in. Default: the present one."),
    ] = HERE,
    job: Annotated[
        list[str] | None,
        typer.Option("--job", metavar="NAME", help="Start this job, besides those that start by themselves."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Leave when no job is left to do.")] = False,
    json: JsonFlag = False,
) -> None:
    """Serve the federation: enrol nodes, offer jobs that are due, conduct them. Stop it with Ctrl-C."""
    from coterie.federation.config import COORDINATOR_FILE

    path = file / COORDINATOR_FILE if file.is_dir() else file
    at_home(path.parent)
    from coterie.experiment.coordinator import SOCKET, Coordinator

    out = Output(json)
    if job and asked_daemon(path.parent / SOCKET, {"do": "status"}) is not None:
        for name in job:
            asked_daemon(path.parent / SOCKET, {"do": "start-job", "job": name})
        out.result({"asked": job}, f"the running coordinator starts {', '.join(job)}")
        return
    daemon = Coordinator(path, tuple(job or ()), once, said(out))
    fine = serve(daemon.run, daemon.stop)
    out.result({"jobs": [_row(one) for one in daemon.journal.all()], "failed": not fine})
    if not fine:
        raise typer.Exit(1)


def status(folder: FolderOption = HERE, watch: WatchFlag = False, json: JsonFlag = False) -> None:
    """Show nodes, jobs, phase and round, what is waited for, bytes, epsilon spent, the last error."""
    at_home(folder)
    from coterie.experiment.coordinator import SOCKET
    from coterie.experiment.coordinator_status import standing
    from coterie.federation.journal import FederationJournal
    from coterie.report.federation_view import coordinator_view
    from coterie.storage import Storage

    config, identities, members = opened(folder)
    journal = FederationJournal(Storage.open(config.federation.database, "federation"))

    def now() -> dict[str, Any]:
        return asked_daemon(folder / SOCKET, {"do": "status"}) or standing(config, identities, members, journal)

    show_status(now, coordinator_view, Output(json), watch)


def invite(
    name: Name,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="File to write. Default: NAME.invitation.")
    ] = None,
    days: Annotated[
        float | None, typer.Option("--days", metavar="NUMBER", help="How long it may be used. Default: as configured.")
    ] = None,
    folder: FolderOption = HERE,
    json: JsonFlag = False,
) -> None:
    """Write an invitation: one file that holds all that one node needs to join, once."""
    at_home(folder)
    from datetime import UTC, datetime

    from coterie.experiment.coordinator_status import server_files
    from coterie.federation.invitation import Invitation

    if days is not None and not 0 < days <= 90:
        raise ConfigError(f"--days must be above 0 and at most 90, got {days:g}")
    config, identities, members = opened(folder)
    lifetime, path = timedelta(days=days or config.federation.invitation_days), output or Path(f"{name}.invitation")
    if path.exists():
        raise ConfigError(f"{path} exists already; name another file with --output")
    token = members.invite(name, lifetime)
    expires = datetime.now(UTC) + lifetime
    ca = server_files(folder, config).ca.read_text()
    settings = config.federation
    invitation = Invitation(settings.name, name, settings.address, identities.public, ca, token, expires)
    invitation.write(path, identities.identity)
    Output(json).result(
        {"invitation": path, "member": name, "expires": expires.isoformat(), "fingerprint": identities.fingerprint},
        f"wrote {path}: for {name} alone, usable once until {expires:%Y-%m-%d %H:%M} UTC",
        "send it by a way that others cannot read; whoever joins first has the place",
        f"tell {name} the coordinator's fingerprint by another way: {identities.fingerprint}",
    )


def approve(
    name: Name,
    fingerprint: Annotated[
        str | None,
        typer.Option("--fingerprint", metavar="HEX", help="The node's fingerprint, as its owner has told you."),
    ] = None,
    folder: FolderOption = HERE,
    json: JsonFlag = False,
) -> None:
    """Take a node that has enrolled into the roster, once its fingerprint is the one that its owner told you."""
    at_home(folder)
    from coterie.federation.approvals import check_fingerprint

    _, _, members = opened(folder)
    roster = members.approve(name, None if fingerprint is None else check_fingerprint(fingerprint))
    member = roster.member(name)
    compared = "" if fingerprint else "; compare it with what its owner says, and revoke it if it differs"
    Output(json).result(
        {"member": name, "fingerprint": member.fingerprint, "roster": roster.version, "members": list(roster.names)},
        f"{name} ({member.fingerprint}) is a member{compared}",
        f"roster {roster.version}: {', '.join(roster.names)}",
    )


def revoke(
    name: Name,
    reason: Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why, for the record.")] = "",
    folder: FolderOption = HERE,
    json: JsonFlag = False,
) -> None:
    """Put a node out for good: it connects no more, and its keys never come back."""
    at_home(folder)
    _, _, members = opened(folder)
    roster = members.revoke(name, reason)
    Output(json).result(
        {"revoked": name, "roster": roster.version, "members": list(roster.names)},
        f"{name} is out; roster {roster.version}: {', '.join(roster.names) or 'nobody'}",
    )


def stop(
    job: Annotated[
        str | None, typer.Option("--job", metavar="ID", help="Stop this occurrence of a job; the daemon goes on.")
    ] = None,
    folder: FolderOption = HERE,
    json: JsonFlag = False,
) -> None:
    """Stop the running coordinator, or one job of it. What was under way goes on at the next start; a job does not."""
    at_home(folder)
    from coterie.experiment.coordinator import SOCKET

    request = {"do": "stop"} if job is None else {"do": "stop-job", "job": job}
    if asked_daemon(folder / SOCKET, request) is None:
        raise ConfigError(f"no coordinator runs in {folder.resolve()}; start one with: coterie coordinator start")
    Output(json).result({"stopped": job or "coordinator"}, f"{job or 'the coordinator'} stops")


def opened(folder: Path) -> tuple[FederationConfig, Identities, Members]:
    """The configuration, keys and members of a coordinator's folder."""
    from coterie.federation.config import COORDINATOR_FILE, FederationConfig
    from coterie.federation.identity import Identities
    from coterie.federation.members import Members

    config = FederationConfig.load(folder / COORDINATOR_FILE)
    identities = Identities.open(folder)
    return config, identities, Members.open(config.federation.database, identities.fingerprint)


def _row(record: Any) -> dict[str, Any]:
    return {key: getattr(record, key) for key in ("id", "name", "state", "reason", "folder")}
