"""`coterie rollout`: which run answers, a challenger on a share of the traffic, and the way back."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coterie.cli.output import JsonFlag, Output
from coterie.cli.serving import ConfigOption, StoreOption, config_of, opened_store, place
from coterie.errors import ConfigError, closest

if TYPE_CHECKING:
    from rich.table import Table

    from coterie.serving.config import ModelSettings
    from coterie.serving.store import ServingStore

app = typer.Typer(suggest_commands=False)

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Run folder, as written by `coterie train`.")]
Trust = Annotated[
    str | None,
    typer.Option(
        "--trust",
        metavar="FINGERPRINT",
        help="Trust runs signed by this key too; the service's own settings must trust it as well.",
    ),
]
Allow = Annotated[
    list[str] | None,
    typer.Option(
        "--allow",
        metavar="unsigned|tampered|older",
        help="Take a run although this is wrong with it; the service's own settings must allow it as well.",
    ),
]
Share = Annotated[str, typer.Option("--share", metavar="NUMBER", help="Share of the traffic, from 0 to 1.")]

FAULTS = ("unsigned", "tampered", "older")


@app.callback(invoke_without_command=True)
def rollout(ctx: typer.Context) -> None:
    """Which run answers, a challenger on a share of the traffic, and the way back."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def show(store: StoreOption = None, config: ConfigOption = None, json: JsonFlag = False) -> None:
    """Show which versions answer, and every version that the store knows."""
    with _opened(store, config, json) as (opened, _, out, where):
        _told(opened, out, where)


def start(
    run: RunFolder,
    share: Share,
    store: StoreOption = None,
    config: ConfigOption = None,
    trust: Trust = None,
    allow: Allow = None,
    json: JsonFlag = False,
) -> None:
    """Let a run answer a share of the traffic, beside the one that answers now; a user stays with one of them."""
    from coterie.serving import rollout as between

    asked = _number(share)
    _changed(store, config, json, lambda opened, model: between.start(opened, model, run, asked), trust, allow)


def share(
    amount: Annotated[str, typer.Argument(metavar="SHARE", help="Share of the traffic, from 0 to 1.")],
    store: StoreOption = None,
    config: ConfigOption = None,
    json: JsonFlag = False,
) -> None:
    """Give the challenger another share of the traffic."""
    from coterie.serving import rollout as between

    asked = _number(amount)
    _changed(store, config, json, lambda opened, _: between.change_share(opened, asked))


def finish(store: StoreOption = None, config: ConfigOption = None, json: JsonFlag = False) -> None:
    """Let the challenger answer everybody."""
    from coterie.serving import rollout as between

    _changed(store, config, json, lambda opened, _: between.finish(opened))


def back(store: StoreOption = None, config: ConfigOption = None, json: JsonFlag = False) -> None:
    """Drop the challenger; where there is none, return to the run that answered before."""
    from coterie.serving import rollout as between

    _changed(store, config, json, lambda opened, _: between.back(opened))


def swap(
    run: RunFolder,
    store: StoreOption = None,
    config: ConfigOption = None,
    trust: Trust = None,
    allow: Allow = None,
    json: JsonFlag = False,
) -> None:
    """Let a run answer everybody at once."""
    from coterie.serving import rollout as between

    _changed(store, config, json, lambda opened, model: between.swap(opened, model, run), trust, allow)


def _changed(
    store: str | None,
    config: Path | None,
    json: bool,
    change: Callable[[ServingStore, ModelSettings], Any],
    trust: str | None = None,
    allow: list[str] | None = None,
) -> None:
    """Change the roll-out, and show what it is then."""
    with _opened(store, config, json) as (opened, model, out, where):
        change(opened, _allowing(model, trust, allow))
        out.note(
            "services on this store follow within a second; one that cannot serve it goes on as before, and says so"
        )
        _told(opened, out, where)


@contextmanager
def _opened(
    store: str | None, config: Path | None, json: bool
) -> Iterator[tuple[ServingStore, ModelSettings, Output, str]]:
    settings = config_of(config, store)
    with closing(opened_store(settings)) as opened:
        yield opened, settings.model, Output(json), place(settings)


def _told(store: ServingStore, out: Output, where: str) -> None:
    from coterie.serving.rollout import show as what

    found = what(store)
    shown = (
        [versions_table(found)] if found["versions"] else ["nothing is served from this store yet: coterie serve RUN"]
    )
    out.result({"store": where, **found}, *shown)


def versions_table(found: dict[str, Any]) -> Table:
    """One row per version, with what it answers."""
    from rich import box
    from rich.table import Table

    from coterie.report.printable import cell

    table = Table(title="Versions", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("version", justify="right")
    for name in ("model", "answers"):
        table.add_column(name, no_wrap=True)
    for name in ("signed (UTC)", "allowed", "run"):
        table.add_column(name, overflow="fold")
    shares = {"champion": 1 - found["share"], "challenger": found["share"]}
    for one in found["versions"]:
        role = one["role"]
        answers = f"{role}, {shares[role]:.0%}" if role in shares else role or ""
        signed = "unknown" if one["signed_at"] is None else one["signed_at"][:16].replace("T", " ")
        told = (str(one["version"]), one["model"], answers, signed, ", ".join(one["allowed"]), one["run"])
        table.add_row(*map(cell, told))
    return table


def _allowing(settings: ModelSettings, trust: str | None, allow: list[str] | None) -> ModelSettings:
    for fault in allow or ():
        if fault not in FAULTS:
            raise ConfigError(f"--allow takes {', '.join(FAULTS)}, got '{fault}'{closest(fault, FAULTS)}")
    wider = {"trust": trust or settings.trust, "allow": tuple(dict.fromkeys((*settings.allow, *(allow or ()))))}
    return settings.model_copy(update=wider)


def _number(text: str) -> float:
    """A share as it was typed; whether it is between 0 and 1 is for the roll-out to say."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value):
        raise ConfigError(f"share must be a number from 0 to 1, got '{text}'")
    return value
