"""Suggestions for all at once, for shops that run no server: a table of what goes with each item, or each user."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from coterie.data.blocks import EVERYONE, derive_baskets
from coterie.data.catalogue import Catalogue
from coterie.data.log import InteractionLog
from coterie.data.readers import read_log
from coterie.errors import DataError, ModelError
from coterie.evaluation.ranking import top_k
from coterie.experiment.cases import FitData, histories, known_items
from coterie.experiment.fitting import Notify, silent
from coterie.experiment.run import Run, by_popularity_where_unknown
from coterie.experiment.tablefile import growing_table
from coterie.settings import build, read_toml
from coterie.types import Items, Query, Ragged, Scores, State

SCORES_AT_ONCE = 1 << 24  # 64 MiB of them


def recommend_all(
    run: Run,
    path: str | Path,
    *,
    k: int = 10,
    client: str | None = None,
    history: InteractionLog | None = None,
    notify: Notify = silent,
) -> int:
    """Write the `k` best suggestions for each item of the catalogue, or for each user of a log; returns how many rows.

    Columns: ``item`` (or ``user``), ``rank`` from 1, ``suggestion``, ``score``, ``title``. An item's are those of a
    basket of it alone. A user's follow the past baskets in `history`, or, where it has none, leave out what the user
    has. Scores of a few thousand askers are in memory at a time, whatever their number.

    Args:
        run: what suggests.
        path: a ``.csv`` or ``.parquet`` file; it is there whole, or as it was before.
        k: how many for each.
        client: recommend as this client does: its catalogue, its mix.
        history: a log, with baskets or without.
        notify: hears ("step", text, done, total).

    Raises:
        ConfigError: the file has another ending.
        DataError: the log has no users.
        ModelError: k is below 1, or the run has no model of the client's own.
        EnvironmentFault: the file cannot be written.
    """
    if k < 1:
        raise ModelError(f"k must be at least 1, got {k}")
    served = run.served(client)
    ids = pl.Series("suggestion", run.items, dtype=pl.String).gather(served.items)
    titles = pl.Series("title", [run.catalogue.title(item) for item in ids.to_list()], dtype=pl.String)
    if history is None:
        askers = Askers(ids.alias("item"), _alone(len(ids)))
    else:
        askers = _users(history, Catalogue(tuple(ids.to_list()), by_id=False), uses_values=run.model.uses_values)
    rows, at_once = 0, max(1, SCORES_AT_ONCE // max(len(ids), 1))
    with growing_table(Path(path)) as add:
        for start in range(0, len(askers), at_once):
            notify("step", {"text": f"suggesting for each {askers.id.name}", "done": start, "total": len(askers)})
            stop = min(start + at_once, len(askers))
            part = askers.query.slice(start, stop)
            best, scores = _best(run, served.state, part, k)
            rows += add(_rows(askers.id[start:stop], best, scores, ids, titles))
    return rows


def read_as_the_run_did(run: Run, path: Path) -> InteractionLog:
    """A log with the columns and baskets of the run's own logs.

    Raises:
        DataError: it cannot be read in this way.
    """
    config = None if run.path is None else run.path / "config.toml"
    data = build({} if config is None or not config.exists() else read_toml(config), str(config)).data
    return derive_baskets(read_log([path], data), data.basket_from)


@dataclass(frozen=True)
class Askers:
    """Who is suggested to: `id` is named for what they are, `query` has a question for each."""

    id: pl.Series
    query: Query

    def __len__(self) -> int:
        return len(self.id)


def _alone(n: int) -> Query:
    """Each item as a basket of it alone."""
    return Query(Ragged(np.arange(n + 1, dtype=np.int64), np.arange(n, dtype=np.int32)), step=np.zeros(n, np.int32))


def _users(log: InteractionLog, catalogue: Catalogue, *, uses_values: bool) -> Askers:
    """The users of a log in order of their ids, whatever client holds them, with what is known of them."""
    users = log.frame["user"].drop_nulls().unique().sort()
    if not len(users):
        raise DataError(
            f"{log.source}: has no users, only guests; name the column that says who bought with --user-column"
        )
    fit = FitData.of(log.with_frame(log.frame.drop("client", strict=False)), catalogue=catalogue)
    rows = fit.index.rows(pl.Series([EVERYONE] * len(users), dtype=pl.String), users)
    if log.has("basket"):
        return Askers(users, Query(Ragged.of([[]] * len(users)), histories(fit, rows)))
    known = known_items(fit, rows)
    return Askers(users, Query(known.items, value=known.value if uses_values else None, step=known.step))


def _best(run: Run, state: State, part: Query, k: int) -> tuple[Items, Scores]:
    """The best items of each question (int32 [questions, k], -1 where there are fewer), and their scores."""
    scores = by_popularity_where_unknown(run.model.score(state, part), state)
    best = top_k(scores, part.cart, None, min(k, scores.shape[1])) if scores.shape[1] else np.empty((len(part), 0), int)
    return best, np.take_along_axis(scores, np.maximum(best, 0), axis=1)


def _rows(askers: pl.Series, best: Items, scores: Scores, ids: pl.Series, titles: pl.Series) -> pl.DataFrame:
    asker, rank = np.nonzero(best >= 0)
    chosen = best[asker, rank]
    return pl.DataFrame([
        askers.gather(asker),
        pl.Series("rank", rank + 1, dtype=pl.Int32),
        ids.gather(chosen),
        pl.Series("score", scores[asker, rank], dtype=pl.Float32),
        titles.gather(chosen),
    ])  # fmt: skip
