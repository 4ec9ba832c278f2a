"""Kernels for models of few factors: the image of a basis under X^T X as a sum over users, and scores from factors.

The image is a sum of integers: the basis is a fixed-point number, so that what a row projects to is exact; only
clipping rounds, towards zero, user by user.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

import numba
import numpy as np
from numpy.typing import NDArray

from coterie.models.kernels.transpose import rows_by_item
from coterie.types import Array, Floats, Integers, Pointers, Ragged, Scores

FixedPoint: TypeAlias = NDArray[np.int32] | NDArray[np.int64]
CHUNK = 1 << 16  # rows whose projections are held at a time (at least one user's)
NARROW = 1 << 30  # the finest scale of which an entry surely fits 32 bits
STRIP = 512  # columns of a strip of scores: a strip of the factors stays in the cache


def fixed_point(basis: Floats, scale: int) -> FixedPoint:
    """``trunc(scale * basis)``; entries are at most 1 in magnitude and `scale` at most 2^52."""
    whole = np.trunc(basis * float(scale))
    return whole.astype(np.int32) if scale <= NARROW else whole.astype(np.int64)


def add_image(row_ptr: Pointers, rows: Ragged, basis: FixedPoint, l2: float, linf: float, out: Integers) -> None:
    """Add ``trunc(c_u y_r)`` to the rows of `out` (flat int64 [items * k]) of the items of each row r.

    y_r is the sum of the rows of `basis` (int32 or int64 [items, k]) over the items of r, an exact integer. User u owns
    the rows ``row_ptr[u]:row_ptr[u + 1]``; its c_u <= 1 keeps the norm of what it adds within `l2` and the largest
    entry within `linf`, both in units of `out`. The norm is at most sum_r sqrt(|r|) ||y_r||, which is exact for users
    of one row; the largest entry is at most sum_r max |y_r|.
    """
    image = out.reshape(basis.shape)
    for start, stop in _chunks(row_ptr):
        first, last = int(row_ptr[start]), int(row_ptr[stop])
        cut, owned = rows.slice(first, last), row_ptr[start : stop + 1] - first
        moved = np.empty((len(cut), basis.shape[1]), np.int64)
        _project(owned, cut.ptr, cut.item, basis, l2, linf, moved)
        col_ptr, col_row, _ = rows_by_item(cut.ptr, cut.item, len(basis))
        _scatter(col_ptr, col_row, moved, image)


def add_to_items(rows: Ragged, moved: Integers, out: Integers) -> None:
    """Add ``moved[r]`` (int64 [rows, k]) to the rows of `out` (flat int64 [items * k]) of the items of each row r."""
    image = out.reshape(-1, moved.shape[1])
    col_ptr, col_row, _ = rows_by_item(rows.ptr, rows.item, len(image))
    _scatter(col_ptr, col_row, moved, image)


def gather(lists: Ragged, amount: Floats, factors: Array) -> Floats:
    """``sum over entries e of list q of amount[e] factors[:, item[e]]``: float64 [lists, k], for factors [k, items]."""
    out = np.zeros((len(lists), len(factors)))
    _gather(lists.ptr, lists.item, amount, factors, out)
    return out


def add_products(left: Floats, factors: Scores, out: Scores) -> None:
    """``out[q, j] += sum_f left[q, f] factors[f, j]``, added up in float32 and in a fixed order.

    No library product: its rounding depends on how many queries stand beside each other.
    """
    _add_products(left.astype(np.float32), factors, out)


def _chunks(row_ptr: Pointers) -> Iterator[tuple[int, int]]:
    """First user and end of runs of users with at most `CHUNK` rows (or one user)."""
    start, users = 0, len(row_ptr) - 1
    while start < users:
        stop = int(np.searchsorted(row_ptr, row_ptr[start] + CHUNK, side="right")) - 1
        stop = min(max(stop, start + 1), users)
        yield start, stop
        start = stop


@numba.njit(cache=True, parallel=True)
def _project(row_ptr, ptr, item, basis, l2, linf, moved):  # type: ignore[no-untyped-def]
    for u in numba.prange(len(row_ptr) - 1):
        norm, largest = 0.0, 0.0
        for row in range(row_ptr[u], row_ptr[u + 1]):
            length, most = _sum_rows(item[ptr[row] : ptr[row + 1]], basis, moved[row])
            norm += np.sqrt(ptr[row + 1] - ptr[row]) * length
            largest += most
        shrink = 1.0
        if norm > l2:
            shrink = l2 / norm
        if largest * shrink > linf:
            shrink = linf / largest
        if shrink < 1.0:
            for row in range(row_ptr[u], row_ptr[u + 1]):
                for f in range(moved.shape[1]):
                    moved[row, f] = np.int64(shrink * moved[row, f])  # a cast truncates towards zero


@numba.njit(cache=True)
def _sum_rows(items, basis, total):  # type: ignore[no-untyped-def]
    """Write the sum of some rows of `basis` to `total`; its norm and its largest entry."""
    total[:] = 0
    for i in items:
        for f in range(len(total)):
            total[f] += basis[i, f]
    square, most = 0.0, 0.0
    for f in range(len(total)):
        square += np.float64(total[f]) * np.float64(total[f])
        most = max(most, abs(np.float64(total[f])))
    return np.sqrt(square), most


@numba.njit(cache=True, parallel=True)
def _scatter(col_ptr, col_row, moved, image):  # type: ignore[no-untyped-def]
    # Thread-disjoint: item i owns image[i].
    for i in numba.prange(len(image)):
        for c in range(col_ptr[i], col_ptr[i + 1]):
            for f in range(image.shape[1]):
                image[i, f] += moved[col_row[c], f]


@numba.njit(cache=True, parallel=True)
def _gather(ptr, item, amount, factors, out):  # type: ignore[no-untyped-def]
    for q in numba.prange(len(ptr) - 1):
        for e in range(ptr[q], ptr[q + 1]):
            for f in range(len(factors)):
                out[q, f] += amount[e] * factors[f, item[e]]


@numba.njit(cache=True, parallel=True)
def _add_products(left, right, out):  # type: ignore[no-untyped-def]
    k, n = right.shape
    for strip in numba.prange((n + STRIP - 1) // STRIP):
        low, high = strip * STRIP, min(n, (strip + 1) * STRIP)
        for q in range(len(left)):
            f = 0
            while f + 4 <= k:  # four factors for each time that a score is read and written
                a, b, c, d = left[q, f], left[q, f + 1], left[q, f + 2], left[q, f + 3]
                for j in range(low, high):
                    out[q, j] += a * right[f, j] + b * right[f + 1, j] + c * right[f + 2, j] + d * right[f + 3, j]
                f += 4
            while f < k:
                for j in range(low, high):
                    out[q, j] += left[q, f] * right[f, j]
                f += 1
