"""`coterie demo`: several synthetic shops train together, and each sees what joining gives it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.text import Text

from coterie.cli.data import as_table, write_table
from coterie.cli.options import at_least
from coterie.cli.output import JsonFlag, Output
from coterie.cli.recommend import as_rows, table
from coterie.cli.train import follow, shown
from coterie.errors import ConfigError
from coterie.settings import Settings, build

if TYPE_CHECKING:
    from coterie.data.market import Truth
    from coterie.experiment.run import Run

CUSTOMERS_PER_SHOP, BASKETS_PER_SHOP, ITEMS = 500, 4000, 600
SUGGESTIONS = 10


def demo(
    shops: Annotated[
        int,
        typer.Option("--shops", parser=at_least(3), metavar="INTEGER", help="Shops that train together. Default: 6."),
    ] = 6,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="DIR", help="Folder for the log and the run; by default under runs/."),
    ] = None,
    seed: Annotated[
        int,
        typer.Option(
            "--seed", parser=at_least(0), metavar="INTEGER", help="Seed of the market and of the training. Default: 0."
        ),
    ] = 0,
    json: JsonFlag = False,
) -> None:
    """Train across several synthetic shops and show what each gains by joining."""
    from coterie.data.market import market

    out, folder = Output(json), _folder(output)
    out.note(
        f"{shops} synthetic shops train one recommender. Each keeps its orders and sends masked sums over its "
        "customers: whoever adds them up sees the total alone (secure aggregation). No noise: see coterie train "
        "--epsilon."
    )
    made = market(
        shops=shops,
        customers=CUSTOMERS_PER_SHOP * shops,
        items=ITEMS,
        baskets=BASKETS_PER_SHOP * shops,
        seed=seed,
        messy=True,
    )
    log = folder / "orders.parquet"
    write_table(as_table(made.log), log)
    done = follow(_settings(log, folder / "run", seed), out)
    basket, planted = _example(made.truth, done.run)
    rows = as_rows(done.run.recommend(basket, SUGGESTIONS, explain=True))
    found = sum(row["item"] in planted for row in rows)
    example = {"basket": basket, "recommendations": rows, "planted": planted, "planted_found": found}
    out.result(
        {**done.result, "log": log, "example": example},
        Text("An example: what completes this basket?", style="bold"),
        table(done.run, rows, basket),
        Text(
            f"{found} of the {len(planted)} items that were planted to go with this basket are among the suggestions.\n"
        ),
        *shown(done.result),
        f"the log of this demo: {log}    with your own: coterie train orders.csv",
    )


def _folder(output: Path | None) -> Path:
    """Where the demo writes; a folder with something in it is refused before any work is done."""
    folder = output or Path("runs") / f"{datetime.now(UTC):%Y%m%d-%H%M%S}-demo"
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"--output {folder}: exists and is not an empty folder; choose another")
    return folder


def _settings(log: Path, run: Path, seed: int) -> Settings:
    columns = {f"{role}_column": role for role in ("user", "item", "time", "value", "basket", "client", "title")}
    return build(
        {
            "data": {"logs": [str(log)], **columns},
            "clean": {"preset": "retail"},
            "model": {"name": "cart"},
            "plan": {"aggregation": "secure"},
            "run": {"output": str(run), "seed": seed},
        },
        "demo",
    )


def _example(truth: Truth, run: Run) -> tuple[list[str], list[str]]:
    """A basket of two popular items, and the items that were planted to go with them."""
    partners: dict[str, set[str]] = {}
    for one, other in truth.complements.tolist():
        partners.setdefault(truth.items[one], set()).add(truth.items[other])
        partners.setdefault(truth.items[other], set()).add(truth.items[one])
    popular = [truth.items[i] for i in truth.popularity.argsort()[::-1] if truth.items[i] in partners]
    known = set(run.items)
    first = next(item for item in popular if item in known)
    second = next(item for item in popular if item in known and item != first and item not in partners[first])
    return [first, second], sorted((partners[first] | partners[second]) & known)
