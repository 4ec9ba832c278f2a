"""Decayed pair counts: what follows what, in sessions and histories whose order is known.

A closed form like SLIST's (Choe et al., "Session-aware Linear Item-Item Models for Session-based Recommendation", WWW
2021), from one sum. Over all pairs of entries of a row, i before j and `gap` steps apart (0: at the same time),

    W_ij = sum |row|^-e k(gap) exp(-(t_j - t_i) / time_scale)
    k(g) = (decay^g - decay^(window + 1)) / (1 - decay^(window + 1))      for g <= window, and 0 beyond

where pairs at the same time, an item and itself included, count half in both directions. So A = W + W^T is the Gram
matrix of the rows, in which two items count the less the further apart they were. k is convex and ends at zero, so that
A is positive semi-definite (Polya's criterion); decay^g cut off at the window is not. With d = diag(A) and
T = (2 - s) W + s W^T, its diagonal set to zero, the ridge regression of "what comes later" on "what was there before",
no item allowed to predict itself, is

    P    = (A + lambda diag(d^(1/2)))^-1
    B_ij = ((P T)_ij - P_ij (P T)_jj / P_jj) d_j^(-c)
    score(j) = sum over i in the cart of cart_decay^step_i B_ij + f pf_j

step_i: how many steps ago i was taken. Where no order is known T = A - diag(d), which makes B that of the cart model.
pf_j is the user's own share of past baskets with item j; it stays where the history is.

Under noise A and the antisymmetric W - W^T are denoised (`coterie.models.denoise`), each with sqrt(2) times the noise
of W: what is known of an order fades before what is known of pairs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp
from pydantic import Field

from coterie.errors import ModelError
from coterie.models.base import CLIP, LINF, MARGIN, Effort, SumModel, Terms, clip_factors, narrow_items, shares
from coterie.models.denoise import carried, denoised_antisymmetric, denoised_gram, floor, mixed_floor
from coterie.models.gram import FRACTION, symmetric_inverse
from coterie.models.kernels.scoring import add_rows, owners
from coterie.models.kernels.sequence import Decay, OrderedRows, add_pairs, ordered_rows, pair_bounds
from coterie.models.popularity import PAIRS_SHARE, add_row_counts, count_parts, real_counts
from coterie.models.rows import RowUnit, rows_of
from coterie.ring import Accumulator
from coterie.types import Array, Floats, Items, Known, LocalStore, PartSpec, RoundSpec, Scores, State, UserBlock

HOUR = 3.6e9  # microseconds
POOLED_ROWS = 1_000  # rows whose pairs the pooled path holds at a time


class SessionPairs(SumModel):
    """What follows what: a directed item-item model of ordered rows."""

    name: ClassVar[str] = "sequence"
    max_dense_items: ClassVar[int | None] = 14_000  # the matrix has no symmetry: half as many entries would fit
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "regularisation": (3.0, 10.0, 30.0, 100.0),
        "popularity_discount": (0.0, 0.1),
        "cart_decay": (0.5, 0.7, 0.8, 0.9, 1.0),
        "history_weight": (0.0, 0.01, 0.03, 0.1, 1.0),
    }
    scoring_only: ClassVar[frozenset[str]] = frozenset(
        {"cart_decay", "history_weight", "history_decay", "next_popularity"}
    )

    decay: float = Field(0.8, gt=0, lt=1, description="Decay of a pair for each step that it is apart.")
    window: int = Field(20, ge=1, le=1000, description="Pairs further apart than this many steps do not count.")
    time_scale: float = Field(
        0.0, ge=0, description="Hours apart after which a pair counts 1/e as much; 0: only the order counts."
    )
    symmetric: float = Field(
        0.0, ge=0, le=1, description="How much what came before counts like what came after; 1: order is ignored."
    )
    cart_decay: float = Field(0.8, gt=0, le=1, description="Decay of an item of the cart for each step back from now.")
    regularisation: float = Field(5.0, gt=0, description="Ridge: larger is smoother (lambda in the formula).")
    popularity_discount: float = Field(0.1, ge=0, le=1, description="Discount for popular items (c in the formula).")
    basket_exponent: float = Field(0.5, ge=0, le=1, description="A basket of n items counts with n^-this.")
    history_weight: float = Field(0.1, ge=0, description="Weight of the user's own past baskets (f in the formula).")
    history_decay: float = Field(0.9, gt=0, le=1, description="Decay of a past basket for each later one.")
    next_popularity: float = Field(
        0.3, ge=0, description="Weight of an item's share of baskets in a next basket (empty cart, known user)."
    )
    row: RowUnit = Field("basket", description="What one row of the matrix is; without baskets, users.")

    def terms(self) -> Terms:
        return Terms(self.history_weight, self.history_decay, next_popularity=self.next_popularity)

    def parts(self, n_items: int) -> tuple[PartSpec, ...]:
        return (
            PartSpec("pairs", (n_items, n_items), "dense", math.inf, LINF, FRACTION, PAIRS_SHARE, CLIP),
            *count_parts(n_items),
        )

    def contribute(
        self, spec: RoundSpec, state: State, users: UserBlock, local: LocalStore | None, out: Accumulator
    ) -> None:
        """Per user: clip to the bounds of each part, truncate towards zero, add integers."""
        rows = ordered_rows(users, self.row)
        part, weight = spec.part("pairs"), self._row_weights(rows)
        factor = self._clip(part, rows, weight)[owners(rows.row_ptr)]
        add_pairs(rows, self._decay(), part.scale * factor * weight, users.n_items, out["pairs"])
        add_row_counts(spec, *rows_of(users, self.row), users.n_items, out)

    def fit(self, state: State) -> State:
        n = int(state["n_items"])
        pairs = state["pairs"].reshape(n, n) / float(state["pairs_scale"])
        if "pairs_noise" in state:
            return self._fit_noised(state, pairs)
        return state.updated(weights=self._solve(pairs).astype(np.float32), popularity=shares(*real_counts(state)))

    def restrict(self, state: State, items: Items) -> State:
        n = int(state["n_items"])
        if len(items) == n:
            return state
        sums = {k: state[k] for k in ("pairs_scale", "counts_scale", "rows", "rows_scale")}
        sums["pairs"] = state["pairs"].reshape(n, n)[np.ix_(items, items)].ravel()
        sums |= {"counts": state["counts"][items]} | carried(state, "pairs", "counts", "rows")
        return self.fit(State(state.round, {**narrow_items(items, state), **sums}))

    def related(self, state: State, known: Known, out: Scores) -> None:
        """Out(j) += sum over known items i of amount_i cart_decay^step_i B_ij."""
        add_rows(known.items, self._amounts(known), state["weights"], out)

    def evidence(self, state: State, known: Known, item: int) -> Floats:
        found: Floats = self._amounts(known) * state["weights"][known.items.item, item]
        return found

    def personalise(self, state: State, own: State, weight: float) -> State:
        """Scores are linear in the weights, so the mix of two states is one state."""
        mixed = {}
        for name in ("weights", "popularity"):
            mixed[name] = ((1.0 - weight) * state[name] + weight * own[name]).astype(state[name].dtype)
        return State(state.round, {"n_items": state["n_items"], **mixed, **mixed_floor(state, own, weight)})

    def effort(self, users: UserBlock) -> Effort:
        """Pairs within the window are added; a dense matrix is inverted and multiplied."""
        n, sizes = users.n_items, np.diff(users.basket_ptr).astype(np.float64)
        tied = sizes if users.time is None else np.minimum(sizes, self.window + 1)
        return Effort(float((sizes * tied).sum()), 4.0 * n**3, 36.0 * n * n)

    def pooled(self, users: UserBlock, public: Mapping[str, Array], seed: int) -> State:
        """Each row's pairs as a small dense matrix, added up by scipy, unclipped and in floating point."""
        rows, n = ordered_rows(users, self.row), users.n_items
        total = np.zeros((n, n))
        for start in range(0, len(rows.ptr) - 1, POOLED_ROWS):
            total += self._pooled_pairs(rows, range(start, min(start + POOLED_ROWS, len(rows.ptr) - 1)), n).toarray()
        lists = rows_of(users, self.row)[1]
        sums = {
            "pairs": total.ravel(),
            "counts": np.bincount(lists.item, minlength=n).astype(np.float64),
            "rows": np.array([float((np.diff(lists.ptr) > 0).sum())]),
        }
        one = {f"{name}_scale": np.array(1, np.int64) for name in sums}
        return self.fit(State(1, {"n_items": np.array(n, np.int64), **public, **sums, **one}))

    def _pooled_pairs(self, rows: OrderedRows, chosen: range, n_items: int) -> sp.csr_matrix:
        weight, found = self._row_weights(rows), list[tuple[Floats, Items, Items]]()
        for r in chosen:
            own = slice(rows.ptr[r], rows.ptr[r + 1])
            amount = weight[r] * _pair_amounts(rows.step[own], rows.time[own], self._decay())
            before, after = np.nonzero(amount)
            found.append((amount[before, after], rows.item[own][before], rows.item[own][after]))
        value, before, after = (np.concatenate(column) for column in zip(*found, strict=True))
        return sp.coo_matrix((value, (before, after)), shape=(n_items, n_items)).tocsr()

    def _fit_noised(self, state: State, pairs: Floats) -> State:
        """The model of what stands out of the noise; weights are zero, and popularity ranks, where nothing does."""
        (counts, rows), noise = real_counts(state), math.sqrt(2.0) * float(state["pairs_noise"])
        both = denoised_gram(pairs + pairs.T, noise, counts, float(state["counts_noise"]))
        weights = np.zeros(pairs.shape, np.float32)
        if both.says_more:
            head, later = both.rest.head, both.matrix() / 2
            later[np.ix_(head, head)] += denoised_antisymmetric(pairs - pairs.T, noise, head) / 2
            # Half of what noise alone could make of an eigenvalue is added to the diagonal of W + W^T.
            np.fill_diagonal(later, np.diagonal(later) + both.edge / 4)
            weights = self._solve(later).astype(np.float32)
        popularity = shares(counts, rows)
        largest = float(np.abs(weights).max(initial=0.0))
        return state.updated(weights=weights, popularity=popularity, floor=floor(popularity, largest))

    def _solve(self, pairs: Floats) -> Floats:
        """B of the formula (float64 [items, items], zero diagonal) from W; overwrites `pairs`."""
        gram = pairs + pairs.T
        own = np.diagonal(gram).copy()
        seen = own > 0
        # An item without a row gets a 1 on the diagonal: it stays invertible and its weights are zero.
        np.fill_diagonal(gram, np.where(seen, own + self.regularisation * np.sqrt(own), 1.0))
        try:
            inverse = symmetric_inverse(gram, self.name)
        except ModelError as error:  # noise in the sums, or a ridge below what their rounding costs
            raise ModelError(f"{error} or lower 'decay' ({self.decay} now, 'window' is {self.window})") from error
        later = (2.0 - self.symmetric) * pairs
        later += self.symmetric * pairs.T
        np.fill_diagonal(later, 0.0)
        weights: Floats = np.matmul(inverse, later, out=pairs)
        inverse *= np.diagonal(weights) / np.diagonal(inverse)
        weights -= inverse
        weights *= np.where(seen, own, 1.0) ** -self.popularity_discount
        np.fill_diagonal(weights, 0.0)
        return weights

    def _decay(self) -> Decay:
        return Decay(self.decay, self.window, self.time_scale * HOUR)

    def _row_weights(self, rows: OrderedRows) -> Floats:
        sizes = rows.sizes()
        return np.where(sizes > 0, np.maximum(sizes, 1.0) ** -self.basket_exponent, 0.0)

    def _clip(self, part: PartSpec, rows: OrderedRows, weight: Floats) -> Floats:
        """How much each user's pairs must shrink: float64 [users]; norms are computed where they may be too large."""
        users = len(rows.row_ptr) - 1
        # Where items are distinct no pair comes twice in a row; in a history every pair of entries may be the same one.
        most = 1.0 if rows.distinct else rows.sizes() ** 2
        largest = np.bincount(owners(rows.row_ptr), weights=weight * most, minlength=users).astype(np.float64)
        large = np.flatnonzero((largest > part.linf * MARGIN) | math.isfinite(part.l2))
        norms = np.zeros(users)
        norms[large], largest[large] = pair_bounds(rows, self._decay(), weight, part.shape[0], large)
        return clip_factors(norms, largest, part)

    def _amounts(self, known: Known) -> Floats:
        amounts = known.amounts()
        return amounts if known.step is None else amounts * self.cart_decay**known.step


def _pair_amounts(step: Array, time: Array, decay: Decay) -> Floats:
    """What each pair of a row's entries counts: float64 [entries, entries], row before column."""
    gap = step[None, :] - step[:, None]
    amount = decay.powers()[np.clip(gap, 0, decay.window)]
    if decay.time_scale:
        amount = amount * np.exp(-np.maximum(time[None, :] - time[:, None], 0) / decay.time_scale)
    return np.where((gap >= 0) & (gap <= decay.window), amount, 0.0)
