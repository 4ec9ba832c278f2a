"""`coterie compare`: what each organisation gains by joining, and what privacy takes of it, at several epsilons."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import RenderableType
from rich.text import Text

from coterie.cli.options import Flag, SettingsCommand, TrainCommand, settings_of
from coterie.cli.output import JsonFlag, Output
from coterie.cli.progress import Listener
from coterie.cli.train import Logs, with_columns

OWN = frozenset({("plan", "epsilon"), ("plan", "noise_multiplier"), ("run", "output"), ("tracking", "track")})
"""What the command has options of its own for, or no use: it makes no run folder."""


class CompareCommand(SettingsCommand):
    """Everything that `coterie train` takes, but one epsilon and a run folder."""

    @classmethod
    @functools.cache
    def flags(cls) -> tuple[Flag, ...]:
        return tuple(flag for flag in TrainCommand.flags() if (flag.section, flag.key) not in OWN)


def compare(
    ctx: typer.Context,
    logs: Logs = None,
    epsilons: Annotated[
        str,
        typer.Option(
            "--epsilons",
            metavar="EPSILON,...",
            help="Which promises to compare; none: without noise. Each number is a training that is charged. Default: "
            "none,8,4,1.",
        ),
    ] = "none,8,4,1",
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="Settings file; flags override it (`coterie init`).")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Take the proposed column mapping without asking.")] = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FOLDER", help="Write the table here, as Markdown, CSV and JSON, and a plot."),
    ] = None,
    json: JsonFlag = False,
) -> None:
    """What each organisation gains by joining, alone against together, and what privacy takes of it at each epsilon."""
    from coterie.experiment.buyers import epsilons_of, run_comparison

    out = Output(json)
    wanted = epsilons_of(epsilons)
    settings = with_columns(settings_of(config, ctx.obj, logs), accept=yes, out=out)
    with Listener(out) as listener:
        result = run_comparison(settings, wanted, folder=output, notify=listener)
    out.result(result if output is None else {**result, "folder": output}, *_shown(result, output))


def _shown(result: dict[str, Any], folder: Path | None) -> list[RenderableType]:
    """What a person reads: tables, a sentence for each epsilon, what differs, what it cost, where it is."""
    from coterie.report.buyers_table import tables

    parts: list[RenderableType] = [*tables(result)]
    parts += [Text(f"{row['sentence']}\n", style="bold") for row in result["by_epsilon"]]
    parts += [Text(text) for text in (*result["differences"], *result["caveats"])]
    if (account := result["account"]) is not None:
        limit = "no limit" if account["limit"] is None else f"limit {account['limit']:g}"
        spent = "no finite epsilon" if account["epsilon"] is None else f"epsilon {account['epsilon']:.4g}"
        sentence = f"Charged to the account '{account['name']}', which has now spent {spent} in all ({limit})."
        parts.append(Text(f"{sentence} See `coterie ledger show`."))
    if folder is not None:
        parts.append(f"table: {folder / 'table.md'}    plot: {folder / 'by-epsilon.svg'}")
    return parts
