"""Models that are solved from one item-item Gram matrix: a round sums it, everything else is algebra on the sum.

A row is a basket (where the log has baskets; otherwise each user is one row) or a user. Row b counts with the weight
|b|^-e, so the parts of the round are

    gram    sum_b |b|^-e x_b x_b^T      triangle
    counts  sum_b x_b                   in how many rows an item is
    rows    sum_b 1                     how many rows there are

Under noise each user's parts are scaled to norm 1, and the sums are denoised (`coterie.models.denoise`).
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import numpy as np
import scipy.sparse as sp
from pydantic import Field
from scipy.linalg import lapack

from coterie.errors import ModelError
from coterie.models.base import (
    CLIP,
    LINF,
    ROWS,
    Effort,
    SumModel,
    clip_factors,
    kept_sums,
    narrow_items,
    shares,
    similarity_matrix,
)
from coterie.models.denoise import Gram, candidates, carried, denoised_gram, floor, mixed_floor
from coterie.models.kernels.gram import (
    add_gram,
    dense,
    gram_norms,
    mirror_lower,
    sub_triangle,
)
from coterie.models.kernels.scoring import add_rows
from coterie.models.kernels.symmetric import SparseSymmetric
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
    Total,
    UserBlock,
)

FRACTION = 1 << 20  # ring units per 1 where weights are fractions: truncation costs less than 1e-6 of a row
ROW_NORM = 64.0  # about the norm of the Gram of a user of 90 items: clipped to 1, a sum is so many times smaller


class GramModel(SumModel):
    """A model that is a function of the Gram matrix; a subclass says how rows are weighted and how it is solved."""

    max_dense_items: ClassVar[int | None] = 20_000

    @property
    @abstractmethod
    def row_unit(self) -> RowUnit:
        """What a row is."""

    @property
    @abstractmethod
    def row_exponent(self) -> float:
        """E in the row weight |b|^-e."""

    @abstractmethod
    def solve(self, gram: Floats, counts: Floats, rows: float) -> Floats:
        """Item-item weights (float64 [items, items], zero diagonal) from real-unit sums; may overwrite `gram`."""

    def under_noise(self, edge: float, shrunk: float) -> GramModel:
        """The model with which denoised sums are solved; by default itself.

        `edge` is where the eigenvalues of pure noise end, and sums are about `shrunk` times those of users who are not
        clipped.
        """
        return self

    def parts(self, n_items: int) -> tuple[PartSpec, ...]:
        return gram_parts(n_items, FRACTION if self.row_exponent else 1)

    def contribute(
        self, spec: RoundSpec, state: State, users: UserBlock, local: LocalStore | None, out: Accumulator
    ) -> None:
        """Per user: clip to the bounds of each part, truncate towards zero, add integers."""
        add_gram_sums(spec, users, self.row_unit, self.row_exponent, out)

    def fit(self, state: State) -> State:
        if "gram_noise" in state:
            return self._fit_noised(state)
        n = int(state["n_items"])
        gram = dense(state["gram"], n)
        gram /= float(state["gram_scale"])
        counts, rows = real_counts(state)
        weights = self.solve(gram, counts, rows).astype(np.float32)
        if self.terms().text and "similarity" in state:
            scaled = similarity_matrix(state).tocoo()
            weights[scaled.row, scaled.col] += np.float32(self.terms().text) * scaled.data
        return state.updated(weights=weights, popularity=shares(counts, rows))

    def restrict(self, state: State, items: Items) -> State:
        n = int(state["n_items"])
        if len(items) == n:
            return state
        sums = {k: state[k] for k in ("gram_scale", "counts_scale", "rows", "rows_scale")}
        sums["gram"] = sub_triangle(state["gram"], n, items)
        sums |= carried(state, "gram", "counts", "rows")
        sums["counts"] = state["counts"][items]
        return self.fit(State(state.round, {**narrow_items(items, state), **sums}))

    def related(self, state: State, known: Known, out: Scores) -> None:
        """Out(j) += sum over known items i of amount_i weights_ij."""
        add_rows(known.items, known.amount, state["weights"], out)

    def evidence(self, state: State, known: Known, item: int) -> Floats:
        amounts: Floats = known.amounts() * state["weights"][known.items.item, item]
        return amounts

    def personalise(self, state: State, own: State, weight: float) -> State:
        """Scores are linear in the weights, so the mix of two states is one state."""
        mixed = {}
        for name in ("weights", "popularity"):
            mixed[name] = ((1.0 - weight) * state[name] + weight * own[name]).astype(state[name].dtype)
        public = {k: state[k] for k in ("n_items", "similarity_ptr", "similarity_item", "similarity") if k in state}
        return State(state.round, {**public, **mixed, **mixed_floor(state, own, weight)})

    def effort(self, users: UserBlock) -> Effort:
        """Pairs are added, and a dense matrix is inverted."""
        sizes, n = np.diff(users.basket_ptr).astype(np.float64), users.n_items
        # Besides the sums: the triangle in the state, one dense float64 matrix, weights, and as much again of what is
        # compared.
        return Effort(float((sizes * (sizes + 1) / 2).sum()), 2.0 * n**3, 4.0 * n * (n + 1) + 24.0 * n * n)

    def pooled(self, users: UserBlock, public: Mapping[str, Array], seed: int) -> State:
        """All rows in one sparse matrix X; the Gram is X^T diag(|b|^-e) X by scipy, unclipped and in floating point."""
        _, rows = rows_of(users, self.row_unit)
        matrix, weight = row_matrix(rows, users.n_items), row_weights(rows, self.row_exponent)
        sums = {
            "gram": _upper_triangle((matrix.T @ sp.diags(weight)).tocsr(), matrix),
            "counts": np.asarray(matrix.sum(axis=0)).ravel(),
            "rows": np.array([float((weight > 0).sum())]),
        }
        one = {f"{name}_scale": np.array(1, np.int64) for name in sums}
        return self.fit(State(1, {"n_items": np.array(users.n_items, np.int64), **public, **sums, **one}))

    def _fit_noised(self, state: State) -> State:
        """The model of what stands out of the noise; weights are zero, and popularity ranks, where nothing does."""
        counts, rows = real_counts(state)
        found = denoised_part(state, "gram", counts)
        weights = np.zeros((len(counts), len(counts)), np.float32)
        if found.says_more:
            shrunk = min(float(state["gram_bound"]) / ROW_NORM, 1.0)
            weights = self.under_noise(found.edge, shrunk).solve(found.matrix(), counts, rows).astype(np.float32)
        popularity = shares(counts, rows)
        largest = float(np.abs(weights).max(initial=0.0))
        return state.updated(weights=weights, popularity=popularity, floor=floor(popularity, largest))


class BinaryGramModel(GramModel):
    """A model of the plain Gram X^T X of binary rows, which scores by item-to-item weights alone."""

    row: RowUnit = Field("basket", description="What one row of the matrix is; without baskets, users.")

    @property
    def row_unit(self) -> RowUnit:
        return self.row

    @property
    def row_exponent(self) -> float:
        return 0.0


def eigenvector_effort(users: UserBlock, directions: int) -> Effort:
    """Pairs are added; leading eigenvectors need some 25 products of the sparse Gram for each of them."""
    sizes, n = np.diff(users.basket_ptr).astype(np.float64), users.n_items
    pairs = float((sizes * (sizes + 1) / 2).sum())
    met, width = min(2.0 * pairs, float(n) ** 2), min(directions, n)
    return Effort(pairs, 25.0 * width * (2.0 * met + 10.0 * n * width), 36.0 * met + 32.0 * n * width)


def gram_parts(n_items: int, scale: int) -> tuple[PartSpec, ...]:
    """The parts of the round; `scale` is the ring units per 1 of the Gram, 1 where rows weigh 1."""
    linf = ROWS if scale == 1 else LINF
    return (
        PartSpec("gram", (n_items, n_items), "triangle", math.inf, linf, scale, PAIRS_SHARE, CLIP),
        *count_parts(n_items),
    )


def add_gram_sums(spec: RoundSpec, users: UserBlock, unit: RowUnit, exponent: float, out: Accumulator) -> None:
    """Add the parts of `gram_parts`: per user, clip to the bounds of each part, truncate towards zero, add integers."""
    row_ptr, rows = rows_of(users, unit)
    weight = row_weights(rows, exponent)
    owner = np.repeat(np.arange(users.n_users), np.diff(row_ptr))
    add_gram(rows, _ring_weights(spec.part("gram"), row_ptr, rows, weight, owner), users.n_items, out["gram"])
    add_row_counts(spec, row_ptr, rows, users.n_items, out)


def sparse_sums(spec: RoundSpec, total: Total) -> dict[str, Array]:
    """The sums of `gram_parts` in ring units, without the zeros of the Gram: what `gram_of` reads.

    ``gram`` (int32 where it fits) holds the entries of both halves, ``gram_ptr`` and ``gram_item`` say where they are.
    A noised Gram has no zeros: of it ``low`` is kept (float32 [directions, items]), whose product with itself is what
    is known of the Gram, and ``popular_only`` says whether that is no more than popularity.
    """
    dense_part = spec.part("gram")
    sums = kept_sums(replace(spec, parts=tuple(part for part in spec.parts if part is not dense_part)), total)
    if total.noise_std["gram"]:
        state = State(0, kept_sums(spec, total))
        return sums | _low_arrays(denoised_part(state, "gram", real_counts(state)[0]))
    gram = SparseSymmetric.of_triangle(total.integers["gram"], dense_part.shape[0]).narrowed()
    return sums | sparse_arrays(gram, dense_part.scale)


def denoised_part(state: State, name: str, counts: Floats) -> Gram:
    """What stands out of the noise in a triangle of a state (`kept_sums`), with the counts beside it."""
    chosen, triangle = candidates(counts), state[name]
    if len(chosen) < len(counts):
        triangle = sub_triangle(triangle, len(counts), chosen)
    noised = dense(triangle, len(chosen)) / float(state[f"{name}_scale"])
    return denoised_gram(noised, float(state[f"{name}_noise"]), counts, float(state["counts_noise"]))


def _low_arrays(gram: Gram) -> dict[str, Array]:
    return {"low": gram.factors().astype(np.float32), "popular_only": np.array(not gram.says_more, np.int64)}


def sparse_arrays(gram: SparseSymmetric, scale: int) -> dict[str, Array]:
    """A sparse Gram as arrays of a state."""
    return {
        "gram": gram.value,
        "gram_ptr": gram.ptr,
        "gram_item": gram.item,
        "gram_scale": np.array(scale, np.int64),
    }


def restricted_sums(state: State, items: Items) -> State:
    """The sums of `sparse_sums` on the sub-catalogue `items`, with what is public."""
    sums = {k: state[k] for k in ("counts_scale", "rows", "rows_scale")} | carried(state, "counts", "rows")
    if "low" in state:
        sums |= {"low": np.ascontiguousarray(state["low"][:, items]), "popular_only": state["popular_only"]}
    else:
        sums |= sparse_arrays(gram_of(state).take(items), int(state["gram_scale"]))
    return State(state.round, {**narrow_items(items, state), **sums, "counts": state["counts"][items]})


def gram_of(state: State) -> SparseSymmetric:
    """The sparse Gram of a state, in ring units (``gram_scale`` for 1)."""
    return SparseSymmetric(state["gram_ptr"], state["gram_item"], state["gram"])


def pooled_sums(rows: Ragged, n_items: int, exponent: float) -> dict[str, Array]:
    """What `sparse_sums` keeps, by scipy from pooled rows: in real units (all scales 1), unclipped."""
    matrix, weight = row_matrix(rows, n_items), row_weights(rows, exponent)
    gram = (matrix.T @ sp.diags(weight) @ matrix).tocsr()
    gram.sort_indices()
    one = np.array(1, np.int64)
    return {
        "gram": gram.data,
        "gram_ptr": gram.indptr.astype(np.int64),
        "gram_item": gram.indices.astype(np.int32),
        "counts": np.asarray(matrix.sum(axis=0)).ravel(),
        "rows": np.array([float((weight > 0).sum())]),
        **dict.fromkeys(("gram_scale", "counts_scale", "rows_scale"), one),
    }


def row_weights(rows: Ragged, exponent: float) -> Floats:
    """|b|^-exponent for each row b: float64 [rows], 0 for empty rows."""
    sizes = np.diff(rows.ptr).astype(np.float64)
    weights: Floats = np.where(sizes > 0, np.maximum(sizes, 1.0) ** -exponent, 0.0)
    return weights


def row_matrix(rows: Ragged, n_items: int) -> sp.csr_matrix:
    """The rows as a binary scipy matrix, float64 [rows, items]: how pooled fits begin."""
    return sp.csr_matrix((np.ones(len(rows.item)), rows.item, rows.ptr), shape=(len(rows), n_items))


def _ring_weights(part: PartSpec, row_ptr: Pointers, rows: Ragged, weight: Floats, owner: Pointers) -> Integers:
    """Integer weight of each row: truncate(scale * factor of its user * |b|^-e)."""
    users = len(row_ptr) - 1
    # A user's largest entry is at most the sum of the weights of its rows.
    largest = np.bincount(owner, weights=weight, minlength=users).astype(np.float64)
    clipped = math.isfinite(part.l2)
    norms = gram_norms(row_ptr, rows, weight, part.shape[0]) if clipped else np.zeros(users)
    factor = clip_factors(norms, largest, part)
    return np.floor(part.scale * factor[owner] * weight).astype(np.int64)


def _upper_triangle(left: sp.csr_matrix, right: sp.csr_matrix, block: int = 512) -> Floats:
    """The upper triangle of ``left @ right``, some rows at a time."""
    n = left.shape[0]
    triangle, at = np.empty(n * (n + 1) // 2), 0
    for start in range(0, n, block):
        product = (left[start : start + block] @ right).toarray()
        for i, row in enumerate(product, start=start):
            triangle[at : at + n - i] = row[i:]
            at += n - i
    return triangle


def symmetric_inverse(matrix: Floats, what: str) -> Floats:
    """Inverse of a symmetric positive definite matrix by Cholesky (LAPACK potrf, potri); overwrites `matrix`.

    Raises:
        ModelError: the matrix is not positive definite.
    """
    # LAPACK works on columns: the transposed view of a symmetric matrix needs no copy, and its upper is our lower half.
    factor, info = lapack.dpotrf(matrix.T, lower=0, overwrite_a=1)
    if info == 0:
        factor, info = lapack.dpotri(factor, lower=0, overwrite_c=1)
    if info != 0:
        raise ModelError(f"{what}: the regularised Gram matrix is not positive definite; raise 'regularisation'")
    mirror_lower(factor.T)
    return np.asarray(factor.T)
