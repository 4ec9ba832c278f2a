"""`coterie recommend`: what completes a basket, and why."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coterie.cli.evaluate import Folder, Trust
from coterie.cli.options import at_least
from coterie.cli.output import JsonFlag, Output
from coterie.errors import ConfigError, DataError, closest

if TYPE_CHECKING:
    import polars as pl

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
            help="Items in the basket, by id or title. A name with a comma in it goes in double quotes, or in an "
            "option of its own.",
        ),
    ] = None,
    k: Annotated[
        int, typer.Option("--k", "-k", parser=at_least(1), metavar="INTEGER", help="How many suggestions. Default: 10.")
    ] = 10,
    client: Annotated[
        str | None, typer.Option("--client", help="Recommend as this client does: its catalogue, its mix.")
    ] = None,
    history: Annotated[
        Path | None,
        typer.Option(
            "--history",
            metavar="LOG",
            help="Log with what the user had before; needs --user or --all.",
        ),
    ] = None,
    user: Annotated[str | None, typer.Option("--user", help="User whose rows are taken from --history.")] = None,
    explain: Annotated[bool, typer.Option("--explain", help="Say which items led to each suggestion.")] = False,
    everything: Annotated[
        bool,
        typer.Option(
            "--all",
            help="Write suggestions for each item of the catalogue, or for each user of --history, to --output.",
        ),
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", metavar="FILE", help="Where --all writes: a .csv or .parquet file.")
    ] = None,
    trust: Trust = None,
    json: JsonFlag = False,
) -> None:
    """Suggest what completes a basket; without one, what is popular."""
    from coterie.experiment.run import load

    table_file = _table_file(everything, output, {"--basket": basket, "--user": user, "--explain": explain})
    if table_file is not None:
        _write_all(Output(json), load(run, trust), table_file, k, client, history)
        return
    if (history is None) != (user is None):
        raise ConfigError("--history and --user belong together: the log, and whose past baskets to take from it")
    out, opened = Output(json), load(run, trust)
    known, unknown = split_basket(opened, basket or [], client)
    past: list[list[str]] | None = None
    values: list[float] | None = None
    if history is not None and user is not None:
        rows = user_rows(opened, history, user)
        past, owned = past_baskets(rows), known_items(opened, rows)
        if past is None:  # nobody completes a cart here: the question is what this user has not taken yet
            known = [*owned, *(item for item in known if item not in owned)]
            values = [owned.get(item, math.nan) for item in known] if "value" in rows.columns else None
    found = opened.recommend(known, k, history=past, client=client, explain=explain, values=values)
    rates = opened.model.predicts_values(opened.state)
    fallback = None if known or past else "rating" if rates else "popularity"
    _tell(out, opened, unknown, fallback, client)
    content = {"run": run, "basket": known, "unknown": unknown, "fallback": fallback, "client": client}
    suggested = as_rows(found)
    out.result(content | {"recommendations": suggested}, table(opened, suggested, known))


def _table_file(everything: bool, output: Path | None, of_one: Mapping[str, Any]) -> Path | None:
    """Where suggestions for all go; None where there is one question. `of_one` are the options of that."""
    if not everything:
        if output is not None:
            raise ConfigError("--output belongs to --all: add --all, or leave --output out and take what is printed")
        return None
    if output is None:
        raise ConfigError("--all writes a table and needs --output: name a .csv or .parquet file")
    for option, value in of_one.items():
        if value:
            raise ConfigError(f"--all and {option} do not fit together: leave one of them out")
    return output


def _write_all(out: Output, run: Run, output: Path, k: int, client: str | None, history: Path | None) -> None:
    from coterie.cli.progress import Listener
    from coterie.experiment.recommend_all import read_as_the_run_did, recommend_all

    log = None if history is None else read_as_the_run_did(run, history)
    with Listener(out) as listener:
        rows = recommend_all(run, output, k=k, client=client, history=log, notify=listener)
    told = f"{rows:,} suggestions in {output}"
    out.result({"run": run.path, "output": output, "rows": rows, "k": k, "client": client}, told)


def split_basket(run: Run, given: Sequence[str], client: str | None = None) -> tuple[list[str], list[str]]:
    """Item ids of the catalogue, and what is unknown: each value is an item, or else several as in a line of CSV."""
    words: list[str] = []
    for value in given:
        whole = run.resolve([value])[0]
        words += [value] if whole else [part for part in _fields(value) if part.strip()]
    known, unknown = run.resolve(words, client)
    return known, [word.strip() for word in unknown]


def user_rows(run: Run, path: Path, user: str) -> pl.DataFrame:
    """The user's rows of a log that is read as the run's own logs were, oldest first.

    Raises:
        DataError: the log does not know the user.
    """
    from coterie.experiment.recommend_all import read_as_the_run_did

    log = read_as_the_run_did(run, path)
    rows = log.frame.filter(log.frame["user"] == user)
    if not len(rows):
        raise DataError(f"{path}: no row of user '{user}'{_nearest_user(log, user)}")
    if log.has("time"):
        rows = rows.sort("time", maintain_order=True)
    return rows


def _fields(line: str) -> list[str]:
    """The fields of a line of CSV; what is not quoted as CSV wants it is parted at every comma.

    >>> _fields('"Mug, large", A1'), _fields('7" plate,A1')
    (['Mug, large', 'A1'], ['7" plate', 'A1'])
    """
    try:
        return next(csv.reader([line], skipinitialspace=True, strict=True), [])
    except csv.Error:
        return line.split(",")


def past_baskets(rows: pl.DataFrame) -> list[list[str]] | None:
    """The baskets of a user's rows, in order; None where the log has no baskets."""
    if "basket" not in rows.columns:
        return None
    return rows.group_by("basket", maintain_order=True).agg("item")["item"].to_list()


def known_items(run: Run, rows: pl.DataFrame) -> dict[str, float]:
    """The items of a user's rows that the run knows, in order, with their values (NaN where there is none)."""
    values = rows["value"].fill_null(math.nan).to_list() if "value" in rows.columns else [math.nan] * len(rows)
    found: dict[str, float] = {}
    for item, value in zip(rows["item"].to_list(), values, strict=True):
        for known in run.resolve([item])[0]:
            found.pop(known, None)
            found[known] = value
    return found


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
        best = "most popular" if fallback == "popularity" else "best rated"
        out.note(f"nothing is known of the basket: these are the {best} items")


def _nearest_item(run: Run, word: str) -> str:
    if len(run.items) > SUGGEST_WITHIN:
        return ""
    return closest(word, [*run.items, *(title for title in run.catalogue.titles() if title)])


def _nearest_user(log: InteractionLog, user: str) -> str:
    users = log.frame["user"].drop_nulls().unique().sort().to_list()
    return closest(user, users) if len(users) <= SUGGEST_WITHIN else ""
