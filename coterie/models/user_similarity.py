"""User-to-user similarity: what do those have who are like me, everybody counting by how like me they are?

    score(j) = sum over all rows v of the federation of sim(q, v) x_vj

q is the asking user's set of n_q items, v a row (a user, or a basket) of n_v items, o = |q & v| what they share:

    cosine      o / (sqrt(n_q n_v) + shrinkage)
    euclidean   1 - |q - v|^2 / (|q|^2 + |v|^2) = 2 o / (n_q + n_v), with shrinkage 2 o / (n_q + n_v + shrinkage)

Nobody may look at another client's rows, so there are no nearest neighbours: the neighbourhood is everybody. What makes
that a sum is that both similarities are linear in the overlap o = sum over i in q of x_vi, so that a Gram matrix whose
rows are weighted by their size answers any query. Cosine without shrinkage is one Gram, of row weight n_v^-1/2. The
others have the form lead(q) o / (u(q) + u(v)), which is no product of a factor of the query and one of the row; but
1 / x is a short sum of exponentials (Braess and Hackbusch, IMA J. Numer. Anal. 25, 2005), and an exponential of a sum
is such a product:

    1 / (u(q) + u(v)) ~ sum over nodes k of amount_k exp(-rate_k u(q)) exp(-rate_k u(v))

So one Gram per node is summed, of row weight exp(-rate_k u(v)) in (0, 1]. Rates are public constants. Under noise each
is denoised by itself (`coterie.models.denoise`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar, Literal

import numpy as np
import scipy.sparse as sp
from pydantic import Field

from coterie.errors import ModelError
from coterie.models.base import CLIP, LINF, Effort, SumModel, clip_factors, narrow_items, shares
from coterie.models.denoise import carried, floor
from coterie.models.gram import denoised_part, row_matrix
from coterie.models.kernels.gram import add_gram, dense, gram_norms, sub_triangle
from coterie.models.kernels.scoring import add_rows, owners
from coterie.models.popularity import PAIRS_SHARE, add_row_counts, count_parts, real_counts
from coterie.models.rows import RowUnit, rows_of
from coterie.ring import Accumulator
from coterie.types import (
    Array,
    Floats,
    Integers,
    Items,
    Known,
    LocalStore,
    PartSpec,
    Pointers,
    Ragged,
    RoundSpec,
    Scores,
    State,
    UserBlock,
)

FRACTION = 1 << 24  # ring units per 1: the weights of large rows are small, and must not lose more than the nodes do
NOTHING = 1e-30  # far below a ring unit: smaller weights are zero, so that no bound is divided by a subnormal number
LARGEST = 2_000.0  # items; with "euclidean" a larger row, or query, counts as one of this size

# Minimax approximations sum_k amount_k exp(-rate_k x) of 1 / x in relative error, over 1 <= x <= 2,500.
NODES: Mapping[int, tuple[tuple[float, ...], tuple[float, ...]]] = {
    4: (
        (0.000701932, 0.00785691, 0.0707155, 0.633095),
        (0.00208733, 0.017418, 0.155215, 1.38993),
    ),
    5: (
        (0.00056801, 0.00475803, 0.028468, 0.167251, 0.982941),
        (0.00159342, 0.00871758, 0.0504638, 0.296071, 1.74508),
    ),
    6: (
        (0.000482075, 0.00344767, 0.015876, 0.0702346, 0.309881, 1.37176),
        (0.00131325, 0.00552835, 0.0236982, 0.104272, 0.459984, 2.05553),
    ),
    7: (
        (0.000420109, 0.00274136, 0.010617, 0.0384023, 0.137923, 0.495164, 1.7901),
        (0.00112548, 0.00401134, 0.0137824, 0.0491452, 0.176273, 0.633216, 2.33236),
    ),
    8: (
        (0.000372749, 0.00229898, 0.00792236, 0.0247266, 0.076088, 0.233727, 0.718277, 2.23164),
        (0.000988221, 0.0031602, 0.00918936, 0.0278627, 0.0854148, 0.262279, 0.807406, 2.58265),
    ),
}


class UserSimilarity(SumModel):
    """Everybody's items, weighted by how similar everybody is to whom asks."""

    name: ClassVar[str] = "user-similarity"
    one_sum: ClassVar[bool] = False  # the sums depend on the similarity
    max_dense_items: ClassVar[int | None] = 20_000

    similarity: Literal["cosine", "euclidean"] = Field(
        "cosine", description="How similar two users (or baskets) are: cosine, or euclidean (1 - squared distance)."
    )
    shrinkage: float = Field(
        0.0, ge=0, le=1000, description="Added to the denominator: distrusts pairs seen only a few times."
    )
    size_nodes: int = Field(
        7, ge=min(NODES), le=max(NODES), description="Gram matrices that stand for all row sizes; more are more exact."
    )
    row: RowUnit = Field("basket", description="What one row of the matrix is; without baskets, users.")

    @property
    def nodes(self) -> int:
        """How many Gram matrices are summed."""
        return 1 if self.similarity == "cosine" and not self.shrinkage else self.size_nodes

    def row_weights(self, sizes: Floats) -> Floats:
        """Weight of rows of `sizes` items at each node: float64 [nodes, rows]; 0 for empty rows."""
        size = np.maximum(sizes, 1.0)
        if self.nodes == 1:
            weight = size[None] ** -0.5
        else:
            u = np.sqrt(size) if self.similarity == "cosine" else np.minimum(size, LARGEST) / 2
            weight = np.exp(-np.outer(NODES[self.nodes][0], u))
        return np.where((sizes > 0) & (weight > NOTHING), weight, 0.0)

    def query_weights(self, sizes: Floats) -> Floats:
        """What each node counts for queries of `sizes` items: float64 [nodes, queries].

        `sizes` are squared lengths, so that a query with amounts (shares of past baskets) has its own; less than one
        item is taken as one.
        """
        size = np.maximum(sizes, 1.0)
        if self.nodes == 1:
            return np.asarray(size[None] ** -0.5)
        rates, amounts = (np.array(column) for column in NODES[self.nodes])
        if self.similarity == "cosine":
            lead = size**-0.5
            u = self.shrinkage * lead
        else:
            lead, u = np.ones_like(size), (np.minimum(size, LARGEST) + self.shrinkage) / 2
        return np.asarray(lead * amounts[:, None] * np.exp(-np.outer(rates, u)))

    def init(self, n_items: int, public: Mapping[str, Array], seed: int) -> State:
        limit = int((self.max_dense_items or 0) / math.sqrt(self.nodes))
        if n_items > limit:
            raise ModelError(
                f"model '{self.name}' with similarity = '{self.similarity}', shrinkage = {self.shrinkage:g} and "
                f"size_nodes = {self.size_nodes} holds {self.nodes} dense item matrices, and its limit is {limit:,} "
                f"items, got {n_items:,}; keep the most frequent ones with --max-items {limit}, or use cosine without "
                "shrinkage, which holds one"
            )
        return super().init(n_items, public, seed)

    def parts(self, n_items: int) -> tuple[PartSpec, ...]:
        share = PAIRS_SHARE / self.nodes
        shape = (n_items, n_items)
        return (
            *(
                PartSpec(f"gram_{k}", shape, "triangle", math.inf, LINF, FRACTION, share, clip)
                for k, clip in enumerate(self._clips(n_items))
            ),
            *count_parts(n_items),
        )

    def contribute(
        self, spec: RoundSpec, state: State, users: UserBlock, local: LocalStore | None, out: Accumulator
    ) -> None:
        """Per user and node: clip to the bounds of the part, truncate towards zero, add integers."""
        row_ptr, rows = rows_of(users, self.row)
        weights = self.row_weights(np.diff(rows.ptr).astype(np.float64))
        for k, weight in enumerate(weights):
            part = spec.part(f"gram_{k}")
            add_gram(rows, _integers(part, row_ptr, rows, weight), users.n_items, out[part.name])
        add_row_counts(spec, row_ptr, rows, users.n_items, out)

    def fit(self, state: State) -> State:
        n = int(state["n_items"])
        if "counts_noise" in state:
            return self._fit_noised(state)
        weights = np.empty((self.nodes, n, n), np.float32)
        for k in range(self.nodes):
            weights[k] = dense(state[f"gram_{k}"], n) / float(state[f"gram_{k}_scale"])
        return state.updated(weights=weights, popularity=shares(*real_counts(state)))

    def restrict(self, state: State, items: Items) -> State:
        """The same Grams on fewer items; sizes of rows stay those of the whole catalogue."""
        n = int(state["n_items"])
        if len(items) == n:
            return state
        sums = {k: state[k] for k in ("counts_scale", "rows", "rows_scale")}
        for k in range(self.nodes):
            sums[f"gram_{k}"] = sub_triangle(state[f"gram_{k}"], n, items)
            sums[f"gram_{k}_scale"] = state[f"gram_{k}_scale"]
        sums |= carried(state, "counts", "rows", *(f"gram_{k}" for k in range(self.nodes)))
        sums["counts"] = state["counts"][items]
        return self.fit(State(state.round, {**narrow_items(items, state), **sums}))

    def related(self, state: State, known: Known, out: Scores) -> None:
        """Out(j) += sum over nodes k of query_weight_k sum over known items i of amount_i Gram_k(i, j)."""
        owner = owners(known.items.ptr)
        for weight, gram in zip(self._asked(known), state["weights"], strict=True):
            add_rows(known.items, known.amounts() * weight[owner], gram, out)

    def evidence(self, state: State, known: Known, item: int) -> Floats:
        grams = state["weights"][:, known.items.item, item].astype(np.float64)
        found: Floats = known.amounts() * (self._asked(known)[:, 0] @ grams)
        return found

    def effort(self, users: UserBlock) -> Effort:
        """Pairs are added once per node; nothing is solved."""
        sizes, n = np.diff(users.basket_ptr).astype(np.float64), users.n_items
        pairs = float((sizes * (sizes + 1) / 2).sum())
        return Effort(self.nodes * pairs, 1.0 * self.nodes * n * n, self.nodes * (8.0 * n * n) + 8.0 * n * n)

    def pooled(self, users: UserBlock, public: Mapping[str, Array], seed: int) -> State:
        """All rows in one sparse matrix X; each Gram is X^T diag(weight) X by scipy, unclipped, in floating point."""
        _, rows = rows_of(users, self.row)
        sizes, n = np.diff(rows.ptr), users.n_items
        matrix = row_matrix(rows, n)
        upper = np.triu_indices(n)
        sums: dict[str, Array] = {
            f"gram_{k}": (matrix.T @ sp.diags(weight) @ matrix).toarray()[upper]
            for k, weight in enumerate(self.row_weights(sizes.astype(np.float64)))
        }
        sums["counts"] = np.asarray(matrix.sum(axis=0)).ravel()
        sums["rows"] = np.array([float((sizes > 0).sum())])
        one = {f"{name}_scale": np.array(1, np.int64) for name in sums}
        return self.fit(State(1, {"n_items": np.array(n, np.int64), **public, **sums, **one}))

    def _fit_noised(self, state: State) -> State:
        """What stands out of the noise; zeros, and popularity ranks, where nothing does."""
        n, (counts, rows) = int(state["n_items"]), real_counts(state)
        weights = np.zeros((self.nodes, n, n), np.float32)
        for k in range(self.nodes):
            found = denoised_part(state, f"gram_{k}", counts)
            if found.says_more:
                weights[k] = found.matrix()
        popularity = shares(counts, rows)
        one = self.query_weights(np.ones(1))[:, 0]
        largest = float((one * np.abs(weights).max(axis=(1, 2), initial=0.0)).sum())
        return state.updated(weights=weights, popularity=popularity, floor=floor(popularity, largest))

    def _clips(self, n_items: int) -> Floats:
        """Clip norms of the nodes: no more than the Gram of one row of any size can have: float64 [nodes]."""
        sizes = np.arange(1.0, n_items + 1)
        norms = self.row_weights(sizes) * np.sqrt(sizes * (sizes + 1) / 2)
        return np.minimum(norms.max(axis=1, initial=0.0) * (1 + 1e-9), CLIP)

    def _asked(self, known: Known) -> Floats:
        """`query_weights` of each list: float64 [nodes, lists]."""
        lengths = np.bincount(owners(known.items.ptr), weights=known.amounts() ** 2, minlength=len(known))
        return self.query_weights(lengths.astype(np.float64))


def _integers(part: PartSpec, row_ptr: Pointers, rows: Ragged, weight: Floats) -> Integers:
    """Integer weight of each row: truncate(scale * factor of its user * weight)."""
    users = len(row_ptr) - 1
    owner = owners(row_ptr)
    # A user's largest entry is at most the sum of the weights of its rows.
    largest = np.bincount(owner, weights=weight, minlength=users).astype(np.float64)
    norms = gram_norms(row_ptr, rows, weight, part.shape[0]) if math.isfinite(part.l2) else np.zeros(users)
    factor = clip_factors(norms, largest, part)
    return np.asarray(np.floor(part.scale * factor[owner] * weight), np.int64)
