"""Popularity: the share of rows that contain the item. The floor that every other model must beat.

Under noise each user counts with x_u / |x_u|: the norm is 1 whatever the user has, so that all are heard alike.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from coterie.models.base import CLIP, ROWS, SumModel, Terms, clip_factors, shares
from coterie.models.denoise import SEEN, carried
from coterie.models.kernels.gram import add_counts, count_norms
from coterie.ring import Accumulator
from coterie.types import (
    Array,
    Floats,
    Items,
    Known,
    LocalStore,
    PartSpec,
    Ragged,
    RoundSpec,
    Scores,
    State,
    UserBlock,
)

PAIRS_SHARE = 0.68  # of a round's noise budget, for what is summed beside the counts on which every model stands


class Popularity(SumModel):
    """score(j) = n_j / N: how many baskets (or users, where the log has no baskets) contain item j."""

    name: ClassVar[str] = "popularity"
    keeps_sums: ClassVar[bool] = True
    personal: ClassVar[bool] = False

    def terms(self) -> Terms:
        return Terms(popularity=1.0)

    def parts(self, n_items: int) -> tuple[PartSpec, ...]:
        return count_parts(n_items, 0.95, 0.05)

    def contribute(
        self, spec: RoundSpec, state: State, users: UserBlock, local: LocalStore | None, out: Accumulator
    ) -> None:
        """Per user: clip to the bounds of each part, truncate towards zero, add integers."""
        row_ptr, rows = users.user_baskets(), Ragged(users.basket_ptr, users.item)
        add_row_counts(spec, row_ptr, rows, users.n_items, out)

    def related(self, state: State, known: Known, out: Scores) -> None:
        """Nothing goes with anything."""

    def evidence(self, state: State, known: Known, item: int) -> Floats:
        return np.zeros(len(known.items.item))

    def fit(self, state: State) -> State:
        return state.updated(popularity=shares(*real_counts(state)))

    def restrict(self, state: State, items: Items) -> State:
        sums = {k: state[k] for k in ("counts_scale", "rows", "rows_scale")} | carried(state, "counts", "rows")
        arrays = {"n_items": np.array(len(items), np.int64), "counts": state["counts"][items], **sums}
        return self.fit(State(state.round, arrays))

    def pooled(self, users: UserBlock, public: Mapping[str, Array], seed: int) -> State:
        counts = np.bincount(users.item, minlength=users.n_items).astype(np.float64)
        sums = {"counts": counts, "rows": np.array([float((np.diff(users.basket_ptr) > 0).sum())])}
        one = {f"{name}_scale": np.array(1, np.int64) for name in sums}
        return self.fit(State(1, {"n_items": np.array(users.n_items, np.int64), **sums, **one}))


def count_parts(n_items: int, counts_share: float = 0.3, rows_share: float = 0.02) -> tuple[PartSpec, ...]:
    """The parts ``counts`` (rows per item) and ``rows`` (rows with an item), with their shares of a round's budget."""
    return (
        PartSpec("counts", (n_items,), "dense", math.inf, ROWS, 1, counts_share, CLIP),
        PartSpec("rows", (1,), "dense", ROWS, ROWS, 1, rows_share, CLIP),
    )


def real_counts(state: State) -> tuple[Floats, float]:
    """In how many rows each item is (float64 [items]), and how many rows there are.

    Noise makes neither negative, nor an item that is in more rows than there are.
    """
    counts = state["counts"] / float(state["counts_scale"])
    rows = float(state["rows"][0]) / float(state["rows_scale"])
    if "counts_noise" not in state:
        return counts, rows
    counts = np.maximum(counts, 0.0)
    return counts, max(rows, SEEN * float(state["rows_noise"]), float(counts.max(initial=0.0)))


def add_row_counts(spec: RoundSpec, row_ptr: Array, rows: Ragged, n_items: int, out: Accumulator) -> None:
    """Add the parts ``counts`` (rows per item) and ``rows`` (rows with an item), clipped and truncated per user."""
    number = np.diff(row_ptr)
    owner = np.repeat(np.arange(len(number)), number)
    counts, total = spec.part("counts"), spec.part("rows")
    norms, largest = count_norms(row_ptr, rows, n_items)
    weight = np.floor(counts.scale * clip_factors(norms, largest, counts)).astype(np.int64)
    add_counts(rows, weight[owner], out["counts"])
    real = np.bincount(owner[np.diff(rows.ptr) > 0], minlength=len(number)).astype(np.float64)
    out["rows"][0] += int(np.floor(total.scale * real * clip_factors(real, real, total)).astype(np.int64).sum())
