"""The cart model where the catalogue is too large for all pairs of items: two rounds instead of one.

With the sums G, n, N and d = diag(G) of `coterie.models.cart`, and R of random signs (its last column of ones):

    round 1   d, n, N and a sketch S = G R: one user's part is sum over baskets of |b|^(-1/2) x_b (R^T x_b)^T
    server    from S it estimates every entry of G, and chooses public pairs: all pairs of the most frequent items (the
              head), and for every other item its strongest partners among the items more frequent than itself
    round 2   the chosen entries of G, exactly

An off-diagonal entry is estimated from the sketches of both its items (the residual of each row from independence, its
variance as the weight), and partners are the largest estimates of G_ij / sqrt(d_j). Each item is then regressed on its
strongest measured neighbours N alone,

    B_Nj = (A + lambda diag(d_N^(1/2)))^-1 G_Nj d_j^(-c),

where A holds the summed entries of G, and for pairs that were not summed those of the Nystroem approximation
S (R^T S)^-1 S^T (Halko, Martinsson and Tropp, "Finding structure with randomness", SIAM Review 2011, algorithm 5.5).
This approaches the exact model, in which B_ij = -P_ij / P_jj is the regression of j on all others; items that never met
are no neighbours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import scipy.sparse as sp

from coterie.models.base import CLIP, LINF, ROWS, clip_factors, kept_sums, narrow_items, shares, similarity_matrix
from coterie.models.gram import FRACTION, row_matrix, row_weights
from coterie.models.kernels.gram import add_counts
from coterie.models.kernels.pairs import (
    add_pairs,
    add_sketch,
    local_regressions,
    pairs_met,
    ranked,
    sketch_norms,
    strongest_before,
    strongest_entries,
)
from coterie.models.popularity import add_row_counts, count_parts, real_counts
from coterie.models.rows import rows_of
from coterie.ring import Accumulator
from coterie.rng import stream
from coterie.types import (
    Array,
    Floats,
    Integers,
    Items,
    PartSpec,
    Pointers,
    Ragged,
    RoundSpec,
    Scores,
    State,
    Total,
    UserBlock,
)

BLOCK = 256  # items whose partners are chosen at a time
NEGLIGIBLE = 1e-8  # share of the largest eigenvalue below which a direction of the sketch is rounding noise
SUMS = ("own", "counts", "rows", "pairs")


@dataclass(frozen=True, slots=True)
class Budget:
    """What is summed: all pairs of `head` items, `partners` pairs for each other item, `sketch` numbers per item."""

    head: int
    partners: int
    sketch: int

    def pairs(self, n_items: int) -> int:
        """How many pairs are summed."""
        return int(self.sizes(n_items).sum())

    def sizes(self, n_items: int) -> Pointers:
        """Partners of each item, by rank: int64 [items]."""
        rank = np.arange(n_items, dtype=np.int64)
        return np.where(rank < self.head, rank, np.minimum(rank, self.partners))


# --- what is summed ---------------------------------------------------------------------------------------------------


def random_signs(n_items: int, columns: int, seed: int, name: str) -> Array:
    """R: int8 [items, columns], +1 or -1, the last column +1."""
    signs = stream(seed, name, "sketch").integers(0, 2, size=(n_items, columns), dtype=np.int8) * 2 - 1
    signs[:, -1] = 1
    return signs.astype(np.int8)


def next_large_round(state: State, budget: Budget, exponent: float) -> RoundSpec | None:
    """The sketch, then the pairs."""
    n, scale = int(state["n_items"]), FRACTION if exponent else 1
    linf = LINF if exponent else ROWS
    if state.round == 0:
        parts = (
            PartSpec("own", (n,), "dense", math.inf, linf, scale, 0.2, CLIP),
            PartSpec("sketch", (n, budget.sketch), "dense", math.inf, linf, scale, 0.6, CLIP),
            *count_parts(n, 0.18, 0.02),
        )
        return RoundSpec(0, "user_sum", parts)
    if state.round == 1:
        pairs = PartSpec("pairs", (budget.pairs(n),), "dense", math.inf, linf, scale, clip=CLIP)
        return RoundSpec(1, "user_sum", (pairs,))
    return None


def add_large_sums(spec: RoundSpec, state: State, users: UserBlock, exponent: float, out: Accumulator) -> None:
    """Per user: clip to the bounds of each part, truncate towards zero, add integers.

    Norms are bounded by the triangle inequality over baskets; w_b = |b|^-exponent. Of ``own`` sum_b w_b |b|^(1/2), of
    ``sketch`` sum_b w_b |b|^(1/2) ||R^T x_b||, of ``pairs`` sum_b w_b (number of chosen pairs in b)^(1/2).
    """
    row_ptr, rows = rows_of(users, "basket")
    sizes, weight = np.diff(rows.ptr).astype(np.float64), row_weights(rows, exponent)
    if spec.index == 1:
        partners = _partners(state)
        by_rank = ranked(rows, state["rank"])
        # Without a bound there is nothing to count.
        clipped = math.isfinite(spec.part("pairs").l2)
        norms = np.sqrt(pairs_met(by_rank, partners)) if clipped else np.zeros(len(rows))
        add_pairs(by_rank, _ring_weights(spec.part("pairs"), row_ptr, weight, norms, weight), partners, out["pairs"])
        return
    own, sketch, signs = spec.part("own"), spec.part("sketch"), state["signs"]
    in_ring = _ring_weights(own, row_ptr, weight, np.sqrt(sizes), weight)
    add_counts(rows, in_ring, out["own"])
    norms = sketch_norms(rows, signs) if math.isfinite(sketch.l2) else np.zeros(len(rows))
    # The column of ones has the largest entries: |b| for each item of the basket.
    add_sketch(rows, _ring_weights(sketch, row_ptr, weight, norms, weight * sizes), signs, out["sketch"])
    add_row_counts(spec, row_ptr, rows, users.n_items, out)


def apply_large(spec: RoundSpec, state: State, total: Total, budget: Budget) -> State:
    """After the first round choose the pairs, after the second keep their sums; the fit is the caller's."""
    sums = kept_sums(spec, total)
    if spec.index == 1:
        return state.updated(round=2, **sums)
    n, scale = int(state["n_items"]), float(spec.part("sketch").scale)
    sketch = sums.pop("sketch").reshape(n, budget.sketch) / scale
    del sums["sketch_scale"]
    signs = state["signs"]
    kept = {name: array for name, array in state.arrays.items() if name != "signs"}
    return prepared(State(1, {**kept, **sums}), sketch, signs, budget)


def prepared(state: State, sketch: Floats, signs: Array, budget: Budget) -> State:
    """The state between the rounds: which pairs are summed next, and the background of all others."""
    counts, rows = real_counts(state)
    own = state["own"] / float(state["own_scale"])
    order = np.argsort(-counts, kind="stable").astype(np.int32)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order), dtype=np.int32)
    partners = choose_partners(sketch[order] - own[order, None] * signs[order], signs[order], own[order], budget)
    return state.updated(
        rank=rank,
        partners_ptr=partners.ptr,
        partners=partners.item,
        background=nystroem(sketch, signs),
        popularity=shares(counts, rows),
    )


# --- what the server does with it -------------------------------------------------------------------------------------


def choose_partners(sketch: Floats, signs: Array, own: Floats, budget: Budget) -> Ragged:
    """Which pairs are summed: for each item (by rank) the ranks of its partners, all before it.

    `sketch` (float64 [items, columns]) is (G - diag(d)) R, `own` is d, both by rank.
    """
    n, columns = sketch.shape
    row_sums = sketch[:, -1]
    whole = row_sums.sum() or 1.0
    random = signs[:, :-1].astype(np.float64)
    # What independence does not explain; the diagonal of the expectation is not part of the sum either.
    residual = sketch[:, :-1] - np.outer(row_sums, row_sums @ random / whole)
    residual += (row_sums**2 / whole)[:, None] * random
    noise = np.mean(residual**2, axis=1)
    sure = 1.0 / np.maximum(noise, max(noise.max(initial=0.0) * 1e-12, 1e-300))
    scale = np.where(own > 0, np.where(own > 0, own, 1.0) ** -0.5, 0.0)
    left, right = (residual / (columns - 1)).astype(np.float32), random.astype(np.float32)
    sizes = budget.sizes(n)
    ptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    item = np.empty(ptr[-1], np.int32)
    full = int(np.searchsorted(np.arange(n) - sizes, 1))  # up to here every earlier item is a partner
    for i in range(full):
        item[ptr[i] : ptr[i + 1]] = np.arange(i)
    for start in range(full, n, BLOCK):
        stop = min(start + BLOCK, n)
        chosen = np.empty((stop - start, budget.partners), np.int32)
        mine, theirs = left[start:stop] @ right[:stop].T, right[start:stop] @ left[:stop].T
        strongest_before(start, mine, theirs, sure, row_sums / math.sqrt(abs(whole)), scale, chosen)
        item[ptr[start] : ptr[stop]] = chosen.ravel()
    return Ragged(ptr, item)


def nystroem(sketch: Floats, signs: Array) -> Scores:
    """F with F F^T = S (R^T S)^+ S^T, the part of G that the sketch S = G R sees: float32 [items, columns]."""
    core = signs.astype(np.float64).T @ sketch
    values, vectors = np.linalg.eigh((core + core.T) / 2)
    kept = values > NEGLIGIBLE * max(values[-1], 1e-300)
    root = np.where(kept, np.where(kept, values, 1.0) ** -0.5, 0.0)
    return (sketch @ (vectors * root)).astype(np.float32)


def fit_large(state: State, regularisation: float, discount: float, neighbours: int, text: float) -> State:
    """Solve the local regressions; adds ``near`` (float32: what an item of the cart adds to another) by rows."""
    counts, rows = real_counts(state)
    rank = state["rank"]
    order = np.argsort(rank)
    own = (state["own"] / float(state["own_scale"]))[order]
    pairs, partners = state["pairs"] / float(state["pairs_scale"]), _partners(state)
    near = _neighbours(partners, pairs, own, neighbours)
    ridge = regularisation * np.sqrt(own)
    weights, _ = local_regressions(near, partners, pairs, own, ridge, state["background"][order])
    weights *= np.repeat(np.where(own > 0, np.where(own > 0, own, 1.0) ** -discount, 0.0), np.diff(near.ptr))
    columns = np.repeat(order, np.diff(near.ptr))
    n = len(own)
    matrix = sp.csr_matrix((weights.astype(np.float32), (order[near.item], columns)), shape=(n, n))
    if text and "similarity" in state:
        matrix = (matrix + np.float32(text) * similarity_matrix(state)).tocsr()
    matrix.sort_indices()
    return state.updated(
        near=matrix.data.astype(np.float32),
        near_item=matrix.indices.astype(np.int32),
        near_ptr=matrix.indptr.astype(np.int64),
        popularity=shares(counts, rows),
    )


def restricted_large(state: State, items: Items) -> State:
    """The sums on the sub-catalogue `items`; ranks keep their order."""
    old = state["rank"][items]
    order = np.argsort(old)
    rank = np.empty(len(items), np.int32)
    rank[order] = np.arange(len(items), dtype=np.int32)
    place = np.full(int(state["n_items"]), -1, np.int32)
    place[old] = rank
    partners = _partners(state)
    owner = np.repeat(place, np.diff(partners.ptr))
    kept = (owner >= 0) & (place[partners.item] >= 0)
    sizes = np.bincount(owner[kept], minlength=len(items))
    scales = {name: state[name] for name in ("own_scale", "counts_scale", "rows", "rows_scale", "pairs_scale")}
    arrays = {name: state[name][items] for name in ("own", "counts", "background", "popularity")}
    pairs: dict[str, Array] = {
        "rank": rank,
        "partners_ptr": np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64),
        "partners": place[partners.item[kept]],
        "pairs": state["pairs"][kept],
    }
    return State(state.round, {**narrow_items(items, state), **scales, **arrays, **pairs})


def pooled_large(users: UserBlock, public: dict[str, Array], exponent: float, budget: Budget) -> State:
    """The sums by scipy from pooled rows, unclipped and in floating point; `public` has the signs."""
    _, rows = rows_of(users, "basket")
    matrix, weight = row_matrix(rows, users.n_items), row_weights(rows, exponent)
    weighted = (sp.diags(weight) @ matrix).tocsc()
    signs = public["signs"]
    one = np.array(1, np.int64)
    sums = {
        "own": np.asarray(weighted.sum(axis=0)).ravel(),
        "counts": np.asarray(matrix.sum(axis=0)).ravel(),
        "rows": np.array([float((weight > 0).sum())]),
        **{f"{name}_scale": one for name in SUMS},
    }
    kept = {name: array for name, array in public.items() if name != "signs"}
    state = State(2, {"n_items": np.array(users.n_items, np.int64), **kept, **sums})
    state = prepared(state, weighted.T @ (matrix @ signs.astype(np.float64)), signs, budget)
    order = np.argsort(state["rank"])
    return state.updated(
        pairs=_products(weighted[:, order].T.tocsr(), matrix.tocsc()[:, order].tocsr(), _partners(state))
    )


# --- helpers ----------------------------------------------------------------------------------------------------------


def _partners(state: State) -> Ragged:
    return Ragged(state["partners_ptr"], state["partners"])


def _ring_weights(part: PartSpec, row_ptr: Pointers, weight: Floats, norms: Floats, largest: Floats) -> Integers:
    """Integer weight of each row: truncate(scale * factor of its user * weight).

    `norms` (of a row's array, before its weight) and `largest` (of the weighted row's entries) add up over the rows of
    a user.
    """
    users = len(row_ptr) - 1
    owner = np.repeat(np.arange(users), np.diff(row_ptr))
    norm = np.bincount(owner, weights=weight * norms, minlength=users).astype(np.float64)
    most = np.bincount(owner, weights=largest, minlength=users).astype(np.float64)
    return np.floor(part.scale * clip_factors(norm, most, part)[owner] * weight).astype(np.int64)


def _neighbours(partners: Ragged, pairs: Floats, own: Floats, most: int) -> Ragged:
    """The `most` measured neighbours of each item with the largest G_ij / sqrt(d_i d_j)."""
    owner = np.repeat(np.arange(len(partners), dtype=np.int32), np.diff(partners.ptr))
    met = (pairs > 0) & (own[owner] > 0) & (own[partners.item] > 0)
    one, other = owner[met], partners.item[met]
    strength = pairs[met] / np.sqrt(own[one] * own[other])
    both = (np.concatenate([one, other]), np.concatenate([other, one]))
    matrix = sp.csr_matrix((np.concatenate([strength, strength]), both), shape=(len(partners), len(partners)))
    matrix.sort_indices()
    return strongest_entries(matrix, most)


def _products(left: sp.csr_matrix, right: sp.csr_matrix, partners: Ragged) -> Floats:
    """The entries of ``left @ right`` (items x baskets, baskets x items) at the chosen pairs, some items at a time."""
    found = np.empty(len(partners.item), np.float64)
    for start in range(0, len(partners), BLOCK):
        stop = min(start + BLOCK, len(partners))
        low, high = partners.ptr[start], partners.ptr[stop]
        if low < high:
            row = np.repeat(np.arange(stop - start), np.diff(partners.ptr[start : stop + 1]))
            product = (left[start:stop] @ right).tocsr()
            found[low:high] = np.asarray(product[row, partners.item[low:high]]).ravel()
    return found
