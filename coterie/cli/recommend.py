"""`coterie recommend`: what completes a basket, and why."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coterie.cli.evaluate import Folder, Trust
from coterie.cli.options import at_least
from coterie.cli.output import JsonFlag, Output
from coterie.errors import ConfigError, DataError, closest

if TYPE_CHECKING:
    from coterie.data.log import InteractionLog
    from coterie.experiment.run import Recommendation, Run

SUGGEST_WITHIN = 20_000  # looking for the nearest spelling among more items takes seconds


def recommend(
    run: Folder,
    basket: Annotated[
        list[str] | None,
        typer.Option(
            "--basket",
            "-b",
            metavar="A,B",
            help="Items in the basket, by id or title. A name with a comma in it may have an option of its own.",
        ),
    ] = None,
    k: Annotated[
        int, typer.Option("--k", "-k", parser=at_least(1), metavar="INTEGER", help="How many suggestions. Default: 10.")
    ] = 10,
    client: Annotated[
        str | None, typer.Option("--client", help="Recommend as this client does: its catalogue, its mix.")
    ] = None,
    history: Annotated[
        Path | None, typer.Option("--history", metavar="LOG", help="Log with the user's past baskets; needs --user.")
    ] = None,
    user: Annotated[
        str | None, typer.Option("--user", help="User whose past baskets are taken from --history.")
    ] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say which items led to each suggestion.")] = False,
    trust: Trust = None,
    json: JsonFlag = False,
) -> None:
    """Suggest what completes a basket; without one, what is popular."""
    from coterie.experiment.run import load

    if (history is None) != (user is None):
        raise ConfigError("--history and --user belong together: the log, and whose past baskets to take from it")
    out, opened = Output(json), load(run, trust)
    known, unknown = split_basket(opened, basket or [], client)
    past = None if history is None or user is None else past_baskets(opened, history, user)
    found = opened.recommend(known, k, history=past, client=client, explain=explain)
    fallback = None if known or past else "popularity"
    _tell(out, opened, unknown, fallback, client)
    content = {"run": run, "basket": known, "unknown": unknown, "fallback": fallback, "client": client}
    rows = as_rows(found)
    out.result(content | {"recommendations": rows}, table(opened, rows, known))


def split_basket(run: Run, given: Sequence[str], client: str | None = None) -> tuple[list[str], list[str]]:
    """Item ids of the catalogue, and what is unknown: each value is an item, or else several with commas between."""
    words: list[str] = []
    for value in given:
        whole = run.resolve([value])[0]
        words += [value] if whole else [part for part in value.split(",") if part.strip()]
    known, unknown = run.resolve(words, client)
    return known, [word.strip() for word in unknown]


def past_baskets(run: Run, path: Path, user: str) -> list[list[str]]:
    """The user's baskets in a log that is read as the run's own logs were, oldest first.

    Raises:
        DataError: the log does not know the user.
    """
    from coterie.data.blocks import derive_baskets
    from coterie.data.readers import read_log
    from coterie.settings import build, read_toml

    config = None if run.path is None else run.path / "config.toml"
    data = build({} if config is None or not config.exists() else read_toml(config), str(config)).data
    log = derive_baskets(read_log([path], data), data.basket_from)
    rows = log.frame.filter(log.frame["user"] == user)
    if not len(rows):
        raise DataError(f"{path}: no row of user '{user}'{_nearest_user(log, user)}")
    if log.has("time"):
        rows = rows.sort("time", maintain_order=True)
    if not log.has("basket"):
        return [rows["item"].to_list()]
    return rows.group_by("basket", maintain_order=True).agg("item")["item"].to_list()


def as_rows(found: Sequence[Recommendation]) -> list[dict[str, Any]]:
    """Suggestions as plain values, with their rank and the reasons by name."""
    return [
        {
            "rank": rank,
            "item": one.item,
            "title": one.title,
            "score": one.score,
            "because": [{"term": term, "item": item, "share": share} for term, item, share in one.because],
        }
        for rank, one in enumerate(found, start=1)
    ]


def table(run: Run, rows: Sequence[dict[str, Any]], basket: Sequence[str]) -> Any:
    """The suggestions as a table, the basket above them in titles."""
    from rich.console import Group
    from rich.text import Text

    from coterie.report.tables import recommendation_table

    titles = ", ".join(f"{run.catalogue.title(item)} ({item})" for item in basket)
    reasons = [[(one["term"], one["item"], one["share"]) for one in row["because"]] for row in rows]
    shown = [{**row, "because": because} for row, because in zip(rows, reasons, strict=True)]
    return Group(*([Text(f"basket: {titles}")] if titles else []), recommendation_table(shown))


def _tell(out: Output, run: Run, unknown: Sequence[str], fallback: str | None, client: str | None) -> None:
    for word in unknown:
        if client is not None and run.resolve([word])[0]:
            out.warn(f"'{word}' is not in the catalogue of client '{client}' and is left out")
        else:
            out.warn(f"'{word}' is not in the catalogue and is left out{_nearest_item(run, word)}")
    if fallback is not None:
        out.note("nothing is known of the basket: these are the most popular items")


def _nearest_item(run: Run, word: str) -> str:
    if len(run.items) > SUGGEST_WITHIN:
        return ""
    return closest(word, [*run.items, *(title for title in run.catalogue.titles() if title)])


def _nearest_user(log: InteractionLog, user: str) -> str:
    users = log.frame["user"].drop_nulls().unique().sort().to_list()
    return closest(user, users) if len(users) <= SUGGEST_WITHIN else ""
