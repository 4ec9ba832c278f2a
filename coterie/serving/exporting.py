"""From what happened in the shop to the next training log.

Only what the store hands out gets there: events of guests, and of users who have consented (or not objected) and are
not erased. The file names people by the shop's own ids: its owner alone may read it, and an erasure does not reach it.
"""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import polars as pl

from coterie.errors import ConfigError, DataError, EnvironmentFault, closest
from coterie.serving.words import EventKind

if TYPE_CHECKING:
    from coterie.serving.store import ServingStore

KINDS: tuple[str, ...] = get_args(EventKind)
TIME_FORMAT = "%Y-%m-%dT%H:%M:%S%.6fZ"


@dataclass(frozen=True)
class Exported:
    """What was written: rows, distinct users, rows without one, and rows of other kinds that were left out, by kind."""

    output: Path
    kinds: tuple[str, ...]
    rows: int
    users: int
    guest_rows: int
    left_out: dict[str, int]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return asdict(self)


def export_log(
    store: ServingStore, output: Path, *, since: int | None = None, kinds: Collection[str] | None = None
) -> Exported:
    """Write the stored events as a log that ``coterie train OUTPUT --yes`` reads as it is; whole, or not at all.

    One row per line of an event: ``user`` (empty for guests), ``item``, ``time`` (UTC), ``value`` (the quantity; where
    nothing but ratings is written, the rating), ``basket`` (the order or cart; an event without one is its own; left
    out where nothing but ratings is written), ``kind``, ``recommended`` (it followed from an answer), and ``title``
    where the shop has given any. Memory is bounded by what the store reads at a time.

    Args:
        output: a .parquet or .csv file, readable by its owner alone.
        since: leave out what happened before (microseconds).
        kinds: of which events; by default purchases, or ratings where there are no purchases.

    Raises:
        ConfigError: no such kind of event.
        DataError: the store has no event of these kinds.
        EnvironmentFault: the store cannot be read, or the file not be written.
    """
    wanted = _checked(kinds)
    seen: Counter[str] = Counter()
    for frame in store.events_frame(since):
        seen.update(dict(frame["kind"].value_counts().iter_rows()))
    taken = wanted or (("purchase",) if seen["purchase"] else ("rating",))
    if not any(seen[kind] for kind in taken):
        raise DataError(_nothing(taken, seen))
    titles = _titles(store)
    parts = (_rows(frame, taken, titles) for frame in store.events_frame(since))
    rows, users, guests = _write(parts, output)
    left_out = {kind: rows for kind, rows in sorted(seen.items()) if kind not in taken}
    return Exported(output, tuple(taken), rows, users, guests, left_out, tuple(_notes(taken)))


def _checked(kinds: Collection[str] | None) -> tuple[str, ...]:
    for kind in kinds or ():
        if kind not in KINDS:
            raise ConfigError(f"there are no events of kind '{kind}', only {', '.join(KINDS)}{closest(kind, KINDS)}")
    return tuple(dict.fromkeys(kinds or ()))


def _nothing(taken: Collection[str], seen: Counter[str]) -> str:
    there = ", ".join(f"{rows:,} of {kind}" for kind, rows in sorted(seen.items()))
    said = f"it has {there}: name others with --kinds" if there else "it has none of any kind; send them to /v1/events"
    return f"the store has no event of kind {' or '.join(taken)} that may be used; {said}"


def _notes(taken: Collection[str]) -> Iterator[str]:
    if "rating" in taken and len(taken) > 1:
        yield "ratings stand beside quantities, so their values were left out; export them alone to learn from them"
    if {"view", "impression"} & set(taken):
        yield "what was only seen counts as much as what was bought in training; leave it out unless that is meant"


def _titles(store: ServingStore) -> pl.DataFrame | None:
    titles = [(one.id, one.title) for one in store.items() if one.title is not None]
    return pl.DataFrame(titles, schema={"item": pl.String, "title": pl.String}, orient="row") if titles else None


def _rows(frame: pl.DataFrame, kinds: tuple[str, ...], titles: pl.DataFrame | None) -> pl.DataFrame:
    """The rows of the log, of the events in `frame`."""
    ratings = kinds == ("rating",)
    quantity = pl.when(pl.col("kind") != "rating").then(pl.col("quantity").fill_null(1.0))
    columns = {
        "user": pl.col("user").cast(pl.String),
        "item": pl.col("item").cast(pl.String),
        "time": pl.from_epoch(pl.col("time"), "us").dt.replace_time_zone("UTC"),
        "value": (pl.col("value") if ratings else quantity).cast(pl.Float64),
    }
    if not ratings:
        columns["basket"] = pl.coalesce("basket", pl.concat_str(pl.lit("event:"), "event"))
    columns |= {"kind": pl.col("kind").cast(pl.String), "recommended": pl.col("recommendation").is_not_null()}
    rows = frame.filter(pl.col("kind").is_in(kinds) & pl.col("item").is_not_null()).select(**columns)
    return rows if titles is None else rows.join(titles, on="item", how="left", maintain_order="left")


def _write(parts: Iterator[pl.DataFrame], output: Path) -> tuple[int, int, int]:
    """Write the parts as one file; returns rows, distinct users, and rows without one."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as folder:  # mode 0700
            pieces = [Path(folder) / f"{at:08d}.parquet" for at, part in enumerate(parts) if _kept(part, at, folder)]
            whole, temporary = pl.scan_parquet(pieces), Path(folder) / "whole"
            if output.suffix.casefold() == ".csv":
                whole.sink_csv(temporary, datetime_format=TIME_FORMAT)
            else:
                whole.sink_parquet(temporary)
            user = pl.col("user")
            found = whole.select(pl.len(), user.drop_nulls().n_unique().alias("users"), user.null_count().alias("none"))
            rows, users, guests = found.collect().row(0)
            _finish(temporary, output)
    except (OSError, pl.exceptions.ComputeError) as error:
        raise EnvironmentFault(f"{output}: cannot be written: {getattr(error, 'strerror', None) or error}") from None
    return rows, users, guests


def _kept(part: pl.DataFrame, at: int, folder: str) -> bool:
    """Lay a part aside; the first one also where it is empty, for its columns."""
    if at and not part.height:
        return False
    part.write_parquet(Path(folder) / f"{at:08d}.parquet")
    return True


def _finish(temporary: Path, output: Path) -> None:
    """Let the owner alone read it, make it durable, and let it take its name."""
    temporary.chmod(0o600)
    with temporary.open("rb") as handle:
        os.fsync(handle.fileno())
    temporary.replace(output)
