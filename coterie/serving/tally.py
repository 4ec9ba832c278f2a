"""What became of each answer, added up over the stored events in bounded memory.

Events of one answer may lie far apart, so they are brought together by the answer's id. Where there are more than fit
into memory, the events are read several times, and each time a part of the ids (by hash) is looked at.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from coterie.serving import tokens
from coterie.serving.examination import Cells
from coterie.types import Integers

MOST_ROWS = 500_000  # of events that are held at a time: some 400 MB with what is made of them
BUNDLES = 2_000  # users are dealt into so many; a bundle is what intervals are drawn from
MOST_POSITIONS = 100  # further down counts as that
KINDS = {"click": "clicked", "add-to-cart": "carted", "purchase": "bought"}

_HELD = ("recommendation", "kind", "item", "user", "position", "time", "event", "line")
_ARM = ["version", "arm", "compared"]
Frames = Callable[[], Iterator[pl.DataFrame]]


@dataclass(frozen=True)
class Tally:
    """Sums over answers.

    `answers`: a row per version, arm, compared and bundle with how many answers were shown, and how many of them were
    clicked, carted and bought from. `lines`: the same and position, with items shown and clicked (items drawn at random
    are left out; position 0 is unknown). `cells`: by item and position. `explored`: items drawn at random by position.
    """

    answers: pl.DataFrame
    lines: pl.DataFrame
    cells: pl.DataFrame
    explored: pl.DataFrame
    strangers: int
    """Ids that were not made here."""
    unseen: int
    """Clicks, carts and purchases of items that no impression says were shown in that answer."""

    def cells_by_code(self) -> Cells:
        """Impressions and clicks by item and position, both as codes from 0; where the position is known."""
        known = self.cells.filter(pl.col("position") > 0).sort("item", "position")
        item = known["item"].rank("dense").cast(pl.Int64).to_numpy() - 1
        position = known["position"].to_numpy().astype(np.int64) - 1
        return Cells(item, position, known["shown"].to_numpy(), known["clicked"].to_numpy())

    def explored_by_position(self) -> tuple[Integers, Integers]:
        """Items drawn at random: shown and clicked, by position up to the last that was shown at all."""
        last = self.cells["position"].max()
        shown, clicked = np.zeros((2, 0 if last is None else int(str(last))), np.int64)
        at = self.explored["position"].to_numpy() - 1
        shown[at], clicked[at] = self.explored["shown"].to_numpy(), self.explored["clicked"].to_numpy()
        return shown, clicked


def tally(frames: Frames, secret: bytes, compared_since: int | None = None, most_rows: int = MOST_ROWS) -> Tally:
    """Add up what the events say; `frames` reads them from the start each time that it is called.

    Args:
        secret: that of the store, by which its own ids are known.
        compared_since: answers shown from this time on (microseconds) are `compared`.
        most_rows: events that are held at a time.
    """
    held, parts = _read(frames, 0, 1, most_rows)
    total = _tallied(held, secret, compared_since)
    for part in range(1, parts):
        held, _ = _read(frames, part, parts, None)
        total = _sum(total, _tallied(held, secret, compared_since))
    return total


def _read(frames: Frames, part: int, parts: int, most_rows: int | None) -> tuple[pl.DataFrame, int]:
    """Events of answers whose hash is `part` of `parts`; with `most_rows`, of as many parts as that takes."""
    held: list[pl.DataFrame] = []
    rows = 0
    for frame in frames():
        taken = _of_part(_narrowed(frame), part, parts)
        held.append(taken)
        rows += taken.height
        while most_rows is not None and rows > most_rows and parts < 4096:
            parts *= 2
            held = [_of_part(pl.concat(held), part, parts)]
            rows = held[0].height
    return (pl.concat(held) if held else _narrowed(None)), parts


def _narrowed(frame: pl.DataFrame | None) -> pl.DataFrame:
    """The columns and kinds of events that matter here."""
    schema = {
        "recommendation": pl.String,
        "kind": pl.String,
        "item": pl.String,
        "user": pl.String,
        "position": pl.Int64,
        "time": pl.Int64,
        "event": pl.String,
        "line": pl.Int64,
    }
    if frame is None:
        return pl.DataFrame(schema=schema)
    wanted = pl.col("recommendation").is_not_null() & pl.col("kind").is_in(["impression", *KINDS])
    return frame.filter(wanted).select(_HELD).cast(schema)  # type: ignore[arg-type]


def _of_part(frame: pl.DataFrame, part: int, parts: int) -> pl.DataFrame:
    return frame if parts == 1 else frame.filter(pl.col("recommendation").hash(7) % parts == part)


def _tallied(events: pl.DataFrame, secret: bytes, compared_since: int | None) -> Tally:
    """The sums over the answers whose events these are."""
    answers = _minted(events["recommendation"].unique(), secret)
    strangers = answers["version"].null_count()
    events = events.join(answers.drop_nulls("version"), on="recommendation", how="inner")
    lines = _shown(events, compared_since)
    acts = _acts(events)
    unseen = acts.join(lines, on=["recommendation", "item"], how="anti").height
    lines = lines.join(acts, on=["recommendation", "item"], how="left").with_columns(
        pl.col(*KINDS.values()).fill_null(value=False)
    )
    drawn = pl.col("position") == pl.col("explored")
    counts = (pl.len().cast(pl.Int64).alias("shown"), pl.col("clicked").sum().cast(pl.Int64))
    ranked = lines.filter(~drawn.fill_null(value=False))
    each = lines.group_by("recommendation", *_ARM, "bundle").agg(pl.col(*KINDS.values()).any())
    summed = each.group_by(*_ARM, "bundle").agg(
        pl.len().cast(pl.Int64).alias("shown"), pl.col(*KINDS.values()).sum().cast(pl.Int64)
    )
    return Tally(
        answers=summed,
        lines=ranked.group_by(*_ARM, "bundle", "position").agg(*counts),
        cells=lines.group_by("item", "position").agg(*counts),
        explored=lines.filter(drawn).group_by("position").agg(*counts),
        strangers=strangers,
        unseen=unseen,
    )


def _minted(ids: pl.Series, secret: bytes) -> pl.DataFrame:
    """What each id says of its answer; nulls where it was not made with the store's secret."""
    read = [tokens.read(secret, id) for id in ids.to_list()]
    return pl.DataFrame(
        {
            "recommendation": ids,
            "version": [None if one is None else one.version for one in read],
            "arm": [None if one is None else one.arm for one in read],
            "explored": [None if one is None else one.explored for one in read],
        },
        schema={"recommendation": pl.String, "version": pl.Int64, "arm": pl.String, "explored": pl.Int64},
    )


def _shown(events: pl.DataFrame, compared_since: int | None) -> pl.DataFrame:
    """One row per answer and item that was shown: where, whether it is compared, and the bundle of its user.

    An impression of several items without positions has them in their order.
    """
    shown = events.filter(pl.col("kind") == "impression")
    several = pl.len().over("recommendation", "event") > 1
    shown = shown.with_columns(pl.coalesce("position", pl.when(several).then(pl.col("line") + 1)).alias("position"))
    unit = pl.coalesce(pl.col("user").drop_nulls().first(), pl.col("recommendation").first())
    whole = shown.group_by("recommendation").agg(
        (unit.hash(11) % BUNDLES).cast(pl.Int64).alias("bundle"),
        (pl.col("time").min() >= (2**62 if compared_since is None else compared_since)).alias("compared"),
    )
    position = pl.col("position").min().fill_null(0).clip(0, MOST_POSITIONS)
    lines = shown.group_by("recommendation", "item", "version", "arm", "explored").agg(position)
    return lines.join(whole, on="recommendation", how="inner")


def _acts(events: pl.DataFrame) -> pl.DataFrame:
    """One row per answer and item on which somebody acted."""
    acted = events.filter(pl.col("kind") != "impression")
    flags = [(pl.col("kind") == kind).any().alias(name) for kind, name in KINDS.items()]
    return acted.group_by("recommendation", "item").agg(*flags)


def _sum(one: Tally, other: Tally) -> Tally:
    """Both together: their answers are different ones."""

    def added(first: pl.DataFrame, second: pl.DataFrame, *keys: str) -> pl.DataFrame:
        return pl.concat([first, second]).group_by(*keys).agg(pl.exclude(*keys).sum())

    return Tally(
        answers=added(one.answers, other.answers, *_ARM, "bundle"),
        lines=added(one.lines, other.lines, *_ARM, "bundle", "position"),
        cells=added(one.cells, other.cells, "item", "position"),
        explored=added(one.explored, other.explored, "position"),
        strangers=one.strangers + other.strangers,
        unseen=one.unseen + other.unseen,
    )
