"""The sums of the private subspace from pooled rows, by scipy: sparse and in floating point, nothing bounded or cut.

The comparison for `coterie.models.subspace_sums`, by another path: no row is ever made dense. With v the weighted items
of a row, b = v . m and f = 1 / |v - b m|, a sum over rows of y z^T with y = f (v - b m) is V^T (f z) - m (f b)^T z.
"""

from __future__ import annotations

import numpy as np
import scipy.sparse as sp

from coterie.models.kernels.private_subspace import PARALLEL
from coterie.models.subspace_fit import lens
from coterie.types import Floats, Ragged, State


def mass_of(rows: Ragged, n_items: int) -> tuple[Floats, float]:
    """Round 0: popularity (float64 [items]) and the number of users who have anything."""
    matrix = _matrix(rows, n_items)
    sizes = np.diff(rows.ptr)
    return np.asarray(matrix.T @ np.maximum(sizes, 1) ** -0.5), float((sizes > 0).sum())


def pairs_of(rows: Ragged, state: State, items: int) -> Floats:
    """The round of pairs: the upper triangle of the sum, flat."""
    weight, mean = lens(state["level"][:items])
    matrix = _matrix(rows, int(state["n_items"]))[:, state["head"][:items]] @ sp.diags(weight)
    along, factor = _centring(matrix, mean)
    times = factor**2 * np.sqrt(2.0 / (1.0 + factor**4 * _fourth_powers(matrix, along, mean)))
    crossed = matrix.T @ (times * along)
    gram = (matrix.T @ sp.diags(times) @ matrix).toarray()
    gram += np.outer(mean, mean) * float(times @ along**2) - np.outer(crossed, mean) - np.outer(mean, crossed)
    return np.asarray(gram[np.triu_indices(items)])


def image_of(rows: Ragged, state: State) -> Floats:
    """A round of regression: float64 [head, directions]."""
    weight, mean = lens(state["level"])
    matrix = _matrix(rows, int(state["n_items"]))[:, state["head"]] @ sp.diags(weight)
    along, factor = _centring(matrix, mean)
    where = matrix @ state["basis"]
    lengths = np.linalg.norm(where, axis=1, keepdims=True)
    where = where / np.where(lengths > 0, lengths, 1.0)
    return np.asarray(matrix.T @ (factor[:, None] * where) - np.outer(mean, (factor * along) @ where))


def _matrix(rows: Ragged, n_items: int) -> sp.csr_matrix:
    return sp.csr_matrix((np.ones(len(rows.item)), rows.item, rows.ptr), shape=(len(rows), n_items))


def _centring(matrix: sp.csr_matrix, mean: Floats) -> tuple[Floats, Floats]:
    """For each row its part along `mean`, and 1 over the length of the rest (0 where nothing is left)."""
    along = np.asarray(matrix @ mean)
    square = np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel()
    left = square - along**2
    there = left > PARALLEL**2 * square
    return along, np.where(there, 1.0 / np.sqrt(np.where(there, left, 1.0)), 0.0)


def _fourth_powers(matrix: sp.csr_matrix, along: Floats, mean: Floats) -> Floats:
    """The sum over items of (v - b m)^4 for each row: over its own items, and b^4 m^4 for all others."""
    owner = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    shadow = along[owner] * mean[matrix.indices]
    own = np.bincount(owner, (matrix.data - shadow) ** 4 - shadow**4, matrix.shape[0])
    return np.asarray(own + along**4 * (mean**4).sum())
