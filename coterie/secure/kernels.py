"""Compiled arithmetic: modulo 2^61 - 1 for Shamir shares, and four masks at a time in the ring.

Field elements are uint64 below the prime; products of 122 bits are split into halves, so that no wider integer is
needed.
"""

from __future__ import annotations

import numba
import numpy as np

from coterie.types import Array

PRIME = (1 << 61) - 1
_P = np.uint64(PRIME)
_LOW31 = np.uint64((1 << 31) - 1)
_LOW30 = np.uint64((1 << 30) - 1)
_SHIFT61, _SHIFT31, _SHIFT30, _ONE = np.uint64(61), np.uint64(31), np.uint64(30), np.uint64(1)


def evaluate(coefficients: Array, points: Array) -> Array:
    """Polynomials at points: uint64 [degree + 1, polynomials], uint64 [points] -> uint64 [points, polynomials]."""
    out = np.empty((len(points), coefficients.shape[1]), np.uint64)
    _evaluate(coefficients, points, out)
    return out


def lagrange_at_zero(points: Array) -> Array:
    """For each row of distinct, non-zero points the weights that give a polynomial's value at 0: uint64 [sets, t]."""
    out = np.empty_like(points)
    _lagrange(points, out)
    return out


def weighted_sums(weights: Array, row: Array, values: Array) -> Array:
    """Sum over k of ``weights[row[m], k] * values[m, k]``: uint64 [m, limbs].

    weights uint64 [sets, t], row int64 [m], values uint64 [m, t, limbs].
    """
    out = np.zeros((len(row), values.shape[2]), np.uint64)
    _weighted(weights, row, values, out)
    return out


@numba.njit(cache=True, nogil=True)
def add_four(out, a, b, c, d):  # type: ignore[no-untyped-def]
    """Add four masks to `out`, in place: it goes through the cache once instead of four times."""
    for i in range(len(out)):
        out[i] += a[i] + b[i] + c[i] + d[i]


@numba.njit(cache=True, nogil=True)
def subtract_four(out, a, b, c, d):  # type: ignore[no-untyped-def]
    """Subtract four masks from `out`, in place."""
    for i in range(len(out)):
        out[i] -= a[i] + b[i] + c[i] + d[i]


@numba.njit(cache=True, inline="always")
def _reduced(x):  # type: ignore[no-untyped-def]
    x = (x & _P) + (x >> _SHIFT61)
    return x - _P if x >= _P else x


@numba.njit(cache=True)
def _product(a, b):  # type: ignore[no-untyped-def]
    # With a = a1 2^31 + a0 and b likewise: a b = a1 b1 2^62 + (a1 b0 + a0 b1) 2^31 + a0 b0, where 2^62 = 2 (mod p).
    a1, a0 = a >> _SHIFT31, a & _LOW31
    b1, b0 = b >> _SHIFT31, b & _LOW31
    middle = a1 * b0 + a0 * b1
    high = ((a1 * b1) << _ONE) + (middle >> _SHIFT30)
    return _reduced(_reduced(high) + ((middle & _LOW30) << _SHIFT31) + a0 * b0)


@numba.njit(cache=True)
def _inverse(a):  # type: ignore[no-untyped-def]
    # Fermat: a^(p - 2), and p - 2 has ones in all its 61 bits but the second.
    power = a
    for bit in range(59, -1, -1):
        power = _product(power, power)
        if bit != 1:
            power = _product(power, a)
    return power


@numba.njit(cache=True)
def _evaluate(coefficients, points, out):  # type: ignore[no-untyped-def]
    for h in range(len(points)):
        for limb in range(coefficients.shape[1]):
            value = coefficients[-1, limb]
            for k in range(len(coefficients) - 2, -1, -1):
                value = _reduced(_product(value, points[h]) + coefficients[k, limb])
            out[h, limb] = value


@numba.njit(cache=True)
def _lagrange(points, out):  # type: ignore[no-untyped-def]
    for row in range(points.shape[0]):
        for i in range(points.shape[1]):
            above, below = np.uint64(1), np.uint64(1)
            for j in range(points.shape[1]):
                if j != i:
                    above = _product(above, points[row, j])
                    below = _product(below, _reduced(points[row, j] + _P - points[row, i]))
            out[row, i] = _product(above, _inverse(below))


@numba.njit(cache=True)
def _weighted(weights, row, values, out):  # type: ignore[no-untyped-def]
    for m in range(len(row)):
        for k in range(values.shape[1]):
            for limb in range(values.shape[2]):
                out[m, limb] = _reduced(out[m, limb] + _product(weights[row[m], k], values[m, k, limb]))
