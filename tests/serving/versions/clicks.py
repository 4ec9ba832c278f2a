"""Events of answers that were shown to users who click as the position-based model says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import polars as pl

from coterie.serving import tokens

SECRET = bytes(range(32))
THETA = np.array([1.0, 0.6, 0.4, 0.3, 0.2])
ITEMS = 40


@dataclass(frozen=True)
class Traffic:
    """So many answers of a version, each of five items; `appeal` (float64 [ITEMS]) is the gamma of each item.

    `ranked` puts the most appealing of ten drawn items first, as a model does; `explore` is the exploration share.
    """

    version: int
    arm: tokens.Arm
    answers: int
    appeal: np.ndarray
    ranked: bool = True
    explore: float = 0.0
    users: int = 500
    start: int = 0
    bought: float = 0.2

    def frame(self, seed: int) -> pl.DataFrame:
        """One row per line of an event, in the order of time, as the store gives them."""
        rng = np.random.default_rng(seed)
        rows: list[tuple[object, ...]] = []
        for n in range(self.answers):
            time, user = self.start + n, f"u{self.arm[:2]}{rng.integers(self.users)}"
            shown, explored = self._items(rng)
            answer = tokens.mint(SECRET, self.version, explored, self.arm)
            clicked = rng.random(5) < THETA * self.appeal[shown]
            for position, item in enumerate(shown, start=1):
                rows.append((f"i{self.version}-{n}", "impression", time, user, item, position, answer))
            for at in np.flatnonzero(clicked):
                rows.append((f"c{self.version}-{n}-{at}", "click", time + 1, user, shown[at], None, answer))
                if rng.random() < self.bought:
                    rows.append((f"b{self.version}-{n}-{at}", "purchase", time + 2, user, shown[at], None, answer))
        return as_frame(rows)

    def _items(self, rng: np.random.Generator) -> tuple[np.ndarray, int | None]:
        drawn = rng.choice(ITEMS, 10, replace=False)
        noisy = self.appeal[drawn] + 0.3 * self.appeal.std() * rng.standard_normal(10)
        shown = drawn[np.argsort(-noisy)[:5]] if self.ranked else drawn[:5]
        if rng.random() >= self.explore:
            return shown, None
        position = int(rng.integers(1, 6))
        shown[position - 1] = rng.choice(np.setdiff1d(np.arange(ITEMS), shown))
        return shown, position


def as_frame(rows: list[tuple[object, ...]]) -> pl.DataFrame:
    """Rows of (event, kind, time, user, item, position, recommendation)."""
    columns = {
        "event": pl.String,
        "kind": pl.String,
        "time": pl.Int64,
        "user": pl.String,
        "item": pl.String,
        "position": pl.Int64,
        "recommendation": pl.String,
    }
    told = [(e, k, t, u, f"A{i}", None if p is None else int(str(p)), r) for e, k, t, u, i, p, r in rows]
    frame = pl.DataFrame(told, schema=columns, orient="row")
    return frame.with_columns(line=pl.int_range(pl.len()).over("event", "recommendation"))


def frames_of(*frames: pl.DataFrame, rows: int = 5_000) -> Callable[[], Iterator[pl.DataFrame]]:
    """What reads these frames in pieces, any number of times."""

    def read() -> Iterator[pl.DataFrame]:
        for frame in frames:
            yield from frame.iter_slices(rows)

    return read
