"""`coterie data from-store`: what happened in the shop as the next training log."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from coterie.cli.data import Force, check_target
from coterie.cli.output import JsonFlag, Output
from coterie.cli.serving import ConfigOption, SinceOption, StoreOption, config_of, microseconds, opened_store, place


def from_store(
    output: Annotated[Path, typer.Option("--output", metavar="FILE", help="File to write: .parquet or .csv.")],
    store: StoreOption = None,
    config: ConfigOption = None,
    since: SinceOption = None,
    kinds: Annotated[
        str | None,
        typer.Option(
            "--kinds",
            metavar="KIND,KIND",
            help="Events to write: purchase, rating, add-to-cart, click, view, remove, impression. Default: purchase, "
            "or rating where there are no purchases.",
        ),
    ] = None,
    force: Force = False,
    json: JsonFlag = False,
) -> None:
    """Write stored events as a training log, readable by its owner alone; who has not consented is not in it."""
    from coterie.serving.exporting import export_log

    check_target(output, force)
    begun = microseconds("--since", since)
    wanted = None if kinds is None else [kind.strip() for kind in kinds.split(",") if kind.strip()]
    settings = config_of(config, store)
    with closing(opened_store(settings)) as opened:
        found = export_log(opened, output, since=begun, kinds=wanted)
    out = Output(json)
    for note in found.notes:
        out.note(note)
    left = ", ".join(f"{rows:,} of {kind}" for kind, rows in found.left_out.items())
    out.result(
        {"store": place(settings), **found.as_dict()},
        f"wrote {found.rows:,} rows of {found.users:,} users and {found.guest_rows:,} of guests to {output} "
        f"({', '.join(found.kinds)})",
        f"left out: {left or 'nothing'}; users who have not consented or were erased are not stored",
        "an erasure does not reach this file: delete it when it was trained on",
        f"next: coterie train {output} --yes",
    )
