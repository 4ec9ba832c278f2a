"""GF-CF: a linear filter and an ideal low-pass filter on the graph of items.

Shen et al., "How Powerful is Graph Convolution for Recommendation?", CIKM 2021 (section 5). With the binary rows X,
row lengths |r|, item degrees d and R = diag(|r|)^(-1/2) X diag(d)^(-1/2), whose leading right singular vectors are the
columns of V,

    score = x (R^T R + alpha diag(d)^(-1/2) V V^T diag(d)^(1/2)).

R^T R = diag(d)^(-1/2) [sum over rows of x x^T / |r|] diag(d)^(-1/2) and its leading eigenvectors are V, so all of it is
a function of one sum. The sum is dense on its way; what is kept of it are the pairs that ever met, and the scores come
from these and from V: no dense item-item matrix is stored.

A noised sum has no zeros: what stands out of the noise are a few directions (`coterie.models.denoise`), and R^T R is
their product, scaled to a leading eigenvalue of 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import scipy.sparse as sp
from pydantic import Field

from coterie.models.base import Effort, SumModel, shares
from coterie.models.denoise import SEEN, floor
from coterie.models.gram import (
    add_gram_sums,
    eigenvector_effort,
    gram_of,
    gram_parts,
    pooled_sums,
    restricted_sums,
    row_matrix,
    row_weights,
    sparse_sums,
)
from coterie.models.kernels.subspace import add_products, gather
from coterie.models.kernels.symmetric import (
    NEGLIGIBLE,
    leading_eigenvectors,
    right_singular_vectors,
    sign_fixed,
)
from coterie.models.popularity import real_counts
from coterie.models.rows import RowUnit, rows_of
from coterie.ring import Accumulator
from coterie.rng import stream
from coterie.types import (
    Array,
    Floats,
    Items,
    Known,
    LocalStore,
    PartSpec,
    RoundSpec,
    Scores,
    State,
    Total,
    UserBlock,
)

FRACTION = 1 << 24  # ring units per 1: the weight of a row of 1,000 items is truncated by less than 1e-4 of itself


class GfCf(SumModel):
    """Graph-filter collaborative filtering (Shen et al. 2021).

    Besides the sums a state has ``factors``: float32 [factors, items], V^T diag(d)^(1/2). After a noised sum it has
    ``link`` too (float32 [directions, items]), whose product with itself is R^T R.
    """

    name: ClassVar[str] = "gfcf"
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {"factors": (64, 256), "low_pass_weight": (0.0, 0.1, 0.3, 1.0)}
    scoring_only: ClassVar[frozenset[str]] = frozenset({"low_pass_weight"})
    max_dense_items: ClassVar[int | None] = 50_000

    row: RowUnit = Field("basket", description="What one row of the matrix is; without baskets, users.")
    factors: int = Field(256, ge=1, le=4096, description="Directions that the low-pass filter keeps.")
    low_pass_weight: float = Field(0.3, ge=0, description="Weight of the low-pass filter (alpha in the formula).")

    def parts(self, n_items: int) -> tuple[PartSpec, ...]:
        return gram_parts(n_items, FRACTION)

    def contribute(
        self, spec: RoundSpec, state: State, users: UserBlock, local: LocalStore | None, out: Accumulator
    ) -> None:
        """Per user: clip to the bounds of each part, truncate towards zero, add integers."""
        add_gram_sums(spec, users, self.row, 1.0, out)

    def apply(self, spec: RoundSpec, state: State, total: Total) -> State:
        """Keep the sums without their zeros, and fit."""
        return self.fit(state.updated(round=spec.index + 1, **sparse_sums(spec, total)))

    def fit(self, state: State) -> State:
        if "low" in state:
            return self._fit_noised(state)
        counts, rows = real_counts(state)
        inverse = _inverse_roots(counts)
        scale = inverse / np.sqrt(float(state["gram_scale"]))
        _, vectors = leading_eigenvectors(gram_of(state), scale, self.factors, stream(0, self.name, "start"))
        return state.updated(factors=_filter(vectors, counts), popularity=shares(counts, rows))

    def restrict(self, state: State, items: Items) -> State:
        if len(items) == int(state["n_items"]):
            return state
        return self.fit(restricted_sums(state, items))

    def related(self, state: State, known: Known, out: Scores) -> None:
        inverse, amounts = _inverse_roots(_degrees(state)), known.amounts()
        if "link" in state:
            add_products(gather(known.items, amounts, state["link"]), state["link"], out)
        else:
            gram_of(state).add_rows(known.items, amounts / float(state["gram_scale"]), inverse, out)
        passed = self.low_pass_weight * amounts * inverse[known.items.item] ** 2
        add_products(gather(known.items, passed, state["factors"]), state["factors"], out)

    def evidence(self, state: State, known: Known, item: int) -> Floats:
        inverse, items = _inverse_roots(_degrees(state)), known.items.item
        factors = state["factors"].astype(np.float64)
        if "link" in state:
            met = state["link"][:, items].astype(np.float64).T @ state["link"][:, item].astype(np.float64)
        else:
            met = gram_of(state).column(items, item) * inverse[items] * inverse[item] / float(state["gram_scale"])
        passed = inverse[items] ** 2 * (factors[:, items].T @ factors[:, item])
        amounts: Floats = known.amounts() * (met + self.low_pass_weight * passed)
        return amounts

    def effort(self, users: UserBlock) -> Effort:
        """Pairs are added; the eigenvectors need some 25 products of the sparse Gram for each of them."""
        return eigenvector_effort(users, self.factors)

    def pooled(self, users: UserBlock, public: Mapping[str, Array], seed: int) -> State:
        """R as a sparse matrix, R^T R by scipy, V from the singular value decomposition of R itself."""
        n, (_, rows) = users.n_items, rows_of(users, self.row)
        sums = pooled_sums(rows, n, 1.0)
        counts = sums["counts"]
        normalised = sp.diags(np.sqrt(row_weights(rows, 1.0))) @ row_matrix(rows, n) @ sp.diags(_inverse_roots(counts))
        vectors = right_singular_vectors(normalised, self.factors, stream(seed, self.name, "pooled"))
        popularity = shares(counts, float(sums["rows"][0]))
        state = State(1, {"n_items": np.array(n, np.int64), **public, **sums})
        return state.updated(factors=_filter(vectors, counts), popularity=popularity)

    def _fit_noised(self, state: State) -> State:
        """R^T R and V from the directions that stand out; none, and popularity ranks, where none does."""
        counts, rows = real_counts(state)
        degrees, popularity = _degrees(state), shares(counts, rows)
        link = state["low"] * _inverse_roots(degrees)
        if state["popular_only"]:
            link = link[:0]
        _, strength, right = np.linalg.svd(link, full_matrices=False)
        kept = strength**2 > NEGLIGIBLE * strength.max(initial=0.0) ** 2
        link = (strength[:, None] * right)[kept] / strength.max(initial=1e-300)
        factors = _filter(sign_fixed(right[kept][: self.factors].T), degrees)
        largest = float((link**2).sum(axis=0).max(initial=0.0))
        return state.updated(
            link=link.astype(np.float32), factors=factors, popularity=popularity, floor=floor(popularity, largest)
        )


def _degrees(state: State) -> Floats:
    """D: float64 [items]; under noise no less than what noise could make of nothing, so that none is divided by it."""
    counts, _ = real_counts(state)
    return np.maximum(counts, SEEN * float(state["counts_noise"])) if "counts_noise" in state else counts


def _inverse_roots(counts: Floats) -> Floats:
    """d^(-1/2): float64 [items], 0 for items without a row."""
    inverse: Floats = np.where(counts > 0, np.where(counts > 0, counts, 1.0) ** -0.5, 0.0)
    return inverse


def _filter(vectors: Floats, counts: Floats) -> Scores:
    """V^T diag(d)^(1/2): float32 [factors, items]."""
    return np.ascontiguousarray((vectors * np.sqrt(counts)[:, None]).T, np.float32)
