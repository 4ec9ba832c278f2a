"""Models that are solved from one item-item Gram matrix: a round sums it, everything else is algebra on the sum.

A row is a basket (where the log has baskets; otherwise each user is one row) or a user. Row b counts with the weight
|b|^-e, so the parts of the round are

    gram    sum_b |b|^-e x_b x_b^T      triangle
    counts  sum_b x_b                   in how many rows an item is
    rows    sum_b 1                     how many rows there are
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import scipy.sparse as sp
from pydantic import Field
from scipy.linalg import lapack

from coterie.errors import ModelError
from coterie.models.base import LINF, ROWS, Model, Terms, clip_factors, narrow_items, similarity_matrix
from coterie.models.kernels.gram import (
    add_gram,
    dense,
    gram_norms,
    mirror_lower,
    sub_triangle,
    user_rows,
)
from coterie.models.popularity import add_row_counts
from coterie.ring import Accumulator
from coterie.types import (
    Array,
    Floats,
    Items,
    LocalStore,
    PartSpec,
    Pointers,
    Ragged,
    RoundSpec,
    State,
    UserBlock,
)

FRACTION = 1 << 20  # ring units per 1 where weights are fractions: truncation costs less than 1e-6 of a row


class GramModel(Model):
    """A model that is a function of the Gram matrix; a subclass says how rows are weighted and how it is solved."""

    max_dense_items: ClassVar[int | None] = 20_000

    @property
    @abstractmethod
    def row_unit(self) -> Literal["basket", "user"]:
        """What a row is."""

    @property
    @abstractmethod
    def row_exponent(self) -> float:
        """E in the row weight |b|^-e."""

    @abstractmethod
    def solve(self, gram: Floats, counts: Floats, rows: float) -> Floats:
        """Item-item weights (float64 [items, items], zero diagonal) from real-unit sums; may overwrite `gram`."""

    def parts(self, n_items: int) -> tuple[PartSpec, ...]:
        linf, scale = (LINF, FRACTION) if self.row_exponent else (ROWS, 1)
        return (
            PartSpec("gram", (n_items, n_items), "triangle", math.inf, linf, scale, 0.8),
            PartSpec("counts", (n_items,), "dense", math.inf, ROWS, 1, 0.15),
            PartSpec("rows", (1,), "dense", ROWS, ROWS, 1, 0.05),
        )

    def contribute(
        self, spec: RoundSpec, state: State, users: UserBlock, local: LocalStore | None, out: Accumulator
    ) -> None:
        """Per user: clip to the bounds of each part, truncate towards zero, add integers."""
        row_ptr, rows = self._rows(users)
        sizes = np.diff(rows.ptr).astype(np.float64)
        owner = np.repeat(np.arange(users.n_users), np.diff(row_ptr))
        weight = np.where(sizes > 0, np.maximum(sizes, 1.0) ** -self.row_exponent, 0.0)
        add_gram(rows, self._gram_weights(spec.part("gram"), row_ptr, rows, weight, owner), users.n_items, out["gram"])
        add_row_counts(spec, row_ptr, rows, users.n_items, out)

    def fit(self, state: State) -> State:
        n = int(state["n_items"])
        gram = dense(state["gram"], n)
        gram /= float(state["gram_scale"])
        counts = state["counts"] / float(state["counts_scale"])
        rows = float(state["rows"][0]) / float(state["rows_scale"])
        weights = self.solve(gram, counts, rows).astype(np.float32)
        if self.terms().text and "similarity" in state:
            scaled = similarity_matrix(state).tocoo()
            weights[scaled.row, scaled.col] += np.float32(self.terms().text) * scaled.data
        return state.updated(weights=weights, popularity=counts / max(rows, 1.0))

    def restrict(self, state: State, items: Items) -> State:
        n = int(state["n_items"])
        if len(items) == n:
            return state
        sums = {k: state[k] for k in ("gram_scale", "counts_scale", "rows", "rows_scale")}
        sums["gram"] = sub_triangle(state["gram"], n, items)
        sums["counts"] = state["counts"][items]
        return self.fit(State(state.round, {**narrow_items(items, state), **sums}))

    def pooled(self, users: UserBlock, public: Mapping[str, Array]) -> State:
        """All rows in one sparse matrix X; the Gram is X^T diag(|b|^-e) X by scipy, unclipped and in floating point."""
        _, rows = self._rows(users)
        sizes = np.diff(rows.ptr)
        matrix = sp.csr_matrix((np.ones(len(rows.item)), rows.item, rows.ptr), shape=(len(rows), users.n_items))
        weight = np.where(sizes > 0, np.maximum(sizes, 1).astype(np.float64) ** -self.row_exponent, 0.0)
        sums = {
            "gram": _upper_triangle((matrix.T @ sp.diags(weight)).tocsr(), matrix),
            "counts": np.asarray(matrix.sum(axis=0)).ravel(),
            "rows": np.array([float((sizes > 0).sum())]),
        }
        one = {f"{name}_scale": np.array(1, np.int64) for name in sums}
        return self.fit(State(1, {"n_items": np.array(users.n_items, np.int64), **public, **sums, **one}))

    def _rows(self, users: UserBlock) -> tuple[Pointers, Ragged]:
        """Offsets of users into rows, and the rows."""
        if self.row_unit == "basket":
            return users.user_baskets(), Ragged(users.basket_ptr, users.item)
        return np.arange(users.n_users + 1, dtype=np.int64), user_rows(users.user_ptr, users.item)

    def _gram_weights(self, part: PartSpec, row_ptr: Pointers, rows: Ragged, weight: Floats, owner: Pointers) -> Any:
        """Integer weight of each row: truncate(scale * factor of its user * |b|^-e)."""
        users = len(row_ptr) - 1
        # A user's largest entry is at most the sum of the weights of its rows.
        largest = np.bincount(owner, weights=weight, minlength=users).astype(np.float64)
        clipped = math.isfinite(part.l2)
        norms = gram_norms(row_ptr, rows, weight, part.shape[0]) if clipped else np.zeros(users)
        factor = clip_factors(norms, largest, part)
        return np.floor(part.scale * factor[owner] * weight).astype(np.int64)


class BinaryGramModel(GramModel):
    """A model of the plain Gram X^T X of binary rows, which scores by item-to-item weights alone."""

    row: Literal["basket", "user"] = Field(
        "basket", description="What one row of the matrix is; without baskets, users."
    )

    @property
    def row_unit(self) -> Literal["basket", "user"]:
        return self.row

    @property
    def row_exponent(self) -> float:
        return 0.0

    def terms(self) -> Terms:
        return Terms()


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
