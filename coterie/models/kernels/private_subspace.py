"""Kernels of the private subspace: what a user sends, one user at a time, and what follows from known items.

A user is always worked out by the same operations in the same order, whoever else is in the block: so the integers, and
the scores, depend on nobody's company. Matrices of integers are float64, so that their products are exact sums.
"""

from __future__ import annotations

import numba
import numpy as np

from coterie.models.kernels.threads import next_ticket, share
from coterie.types import Floats, Integers, Pointers, Ragged

PARALLEL = 1e-4  # of a user's length: what is left after centring and shorter than this is rounding, not taste
PIECE = 8  # lists that a thread takes at a time


def centred(rows: Ragged, place: Integers, weight: Floats, mean: Floats) -> Floats:
    """The unit vector of each row's taste: float64 [rows, items], zeros where nothing is left.

    A row is its items, item i at ``place[i]`` (-1: left out) with ``weight[place[i]]``, less its part along the unit
    vector `mean` (float64 [items]).
    """
    out = np.zeros((len(rows), len(weight)))
    _centred(rows.ptr, rows.item, place, weight, mean, out)
    return out


def whole_squares(units: Floats, length: float) -> Floats:
    """Whole numbers h (float64, like `units`) of each unit vector: the upper triangle of h h^T, with its diagonal, is
    at most `length`^2 long.

    The triangle of a unit vector u has the length sqrt((1 + sum u_i^4) / 2); h is as long as that allows.
    """
    out = np.empty_like(units)
    _whole_squares(units, length, out)
    return out


def coordinates(rows: Ragged, place: Integers, weight: Floats, basis: Floats, scale: float) -> Floats:
    """``trunc(scale z)`` for each row, where z are its coordinates in `basis` (float64 [items, d]), unit length."""
    out = np.zeros((len(rows), basis.shape[1]))
    _coordinates(rows.ptr, rows.item, place, weight, basis, scale, out)
    return out


def fold_in(lists: Ragged, amount: Floats, factors: Floats, shared: Floats) -> Floats:
    """The vector of each list: float64 [lists, d], ``w = (shared + sum_e a_e v_e v_e^T)^-1 sum_e a_e v_e``.

    `factors` holds the v of the items (float64 [items, d]), `shared` is symmetric and positive definite; a list without
    entries gets zeros.
    """
    out = np.zeros((len(lists), factors.shape[1]))
    operations = float(len(lists.item)) * factors.shape[1] ** 2 + len(lists) * factors.shape[1] ** 3 / 3.0
    share(_fold_in, _fold_some_in, operations, lists.ptr, lists.item, amount, factors, shared, out)
    return out


@numba.njit(cache=True, parallel=True)
def _centred(ptr, item, place, weight, mean, out):  # type: ignore[no-untyped-def]
    # Thread-disjoint: row r owns out[r].
    for r in numba.prange(len(ptr) - 1):
        along, square = 0.0, 0.0
        for e in range(ptr[r], ptr[r + 1]):
            at = place[item[e]]
            if at >= 0:
                out[r, at] = weight[at]
                along += weight[at] * mean[at]
                square += weight[at] * weight[at]
        left = 0.0
        for j in range(len(mean)):
            out[r, j] -= along * mean[j]
            left += out[r, j] * out[r, j]
        if left > PARALLEL * PARALLEL * square:
            root = np.sqrt(left)
            for j in range(len(mean)):
                out[r, j] /= root
        else:
            out[r, :] = 0.0


@numba.njit(cache=True, parallel=True)
def _whole_squares(units, length, out):  # type: ignore[no-untyped-def]
    for r in numba.prange(len(units)):
        fourth = 0.0
        for j in range(units.shape[1]):
            fourth += units[r, j] ** 4
        times = length * (2.0 / (1.0 + fourth)) ** 0.25
        for j in range(units.shape[1]):
            out[r, j] = np.trunc(times * units[r, j])


@numba.njit(cache=True, parallel=True)
def _coordinates(ptr, item, place, weight, basis, scale, out):  # type: ignore[no-untyped-def]
    for r in numba.prange(len(ptr) - 1):
        for e in range(ptr[r], ptr[r + 1]):
            at = place[item[e]]
            if at >= 0:
                for f in range(basis.shape[1]):
                    out[r, f] += weight[at] * basis[at, f]
        square = 0.0
        for f in range(basis.shape[1]):
            square += out[r, f] * out[r, f]
        times = scale / np.sqrt(square) if square > 0.0 else 0.0
        for f in range(basis.shape[1]):
            out[r, f] = np.trunc(times * out[r, f])


@numba.njit(cache=True, parallel=True)
def _fold_in(threads, tickets, ptr, item, amount, factors, shared, out):  # type: ignore[no-untyped-def]
    for _ in numba.prange(threads):
        _fold_some_in(tickets, ptr, item, amount, factors, shared, out)


@numba.njit(cache=True)
def _fold_some_in(tickets, ptr, item, amount, factors, shared, out):  # type: ignore[no-untyped-def]
    n_lists, d = out.shape
    lower = np.empty((d, d))
    while True:
        piece = next_ticket(tickets)
        if piece * PIECE >= n_lists:
            break
        for q in range(piece * PIECE, min(piece * PIECE + PIECE, n_lists)):
            if ptr[q] == ptr[q + 1]:
                continue
            lower[:] = shared
            for e in range(ptr[q], ptr[q + 1]):
                own, a = factors[item[e]], amount[e]
                for k in range(d):
                    times = a * own[k]
                    out[q, k] += times
                    for m in range(k + 1):
                        lower[k, m] += times * own[m]
            _solve(lower, out[q])


@numba.njit(cache=True)
def _solve(lower, x):  # type: ignore[no-untyped-def]
    """Solve in place by Cholesky; `lower` holds the lower half of the matrix, and then its factor."""
    d = len(x)
    for k in range(d):
        for m in range(k + 1):
            total = lower[k, m]
            for i in range(m):
                total -= lower[k, i] * lower[m, i]
            lower[k, m] = np.sqrt(total) if k == m else total / lower[m, m]
    for k in range(d):
        for m in range(k):
            x[k] -= lower[k, m] * x[m]
        x[k] /= lower[k, k]
    for k in range(d - 1, -1, -1):
        for m in range(k + 1, d):
            x[k] -= lower[m, k] * x[m]
        x[k] /= lower[k, k]


def user_norms(item_ptr: Pointers) -> Floats:
    """``1 / sqrt(n)`` for lists of n entries: float64 [lists], 0 for empty ones."""
    sizes = np.diff(item_ptr).astype(np.float64)
    return np.where(sizes > 0, 1.0 / np.sqrt(np.maximum(sizes, 1.0)), 0.0)
