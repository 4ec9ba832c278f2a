"""Kernels of the audit: what stands in a long, nearly empty sum."""

from __future__ import annotations

import numba
import numpy as np

from coterie.types import Integers

STRETCH = 512  # entries that are looked at together


def drained(values: Integers) -> tuple[Integers, Integers]:
    """Where `values` (int64, flat) is not zero, and what stands there; afterwards it is zero everywhere.

    >>> where, found = drained(np.array([0, 7, 0, -1]))
    >>> where.tolist(), found.tolist()
    ([1, 3], [7, -1])
    """
    where = _occupied(values)
    found = values[where]
    values[where] = 0
    return where, found


@numba.njit(cache=True)
def _occupied(values):  # type: ignore[no-untyped-def]
    """One pass over memory: a stretch of zeros is told by a single value."""
    where = np.empty(1024, np.int64)
    n = 0
    for start in range(0, len(values), STRETCH):
        stretch = values[start : start + STRETCH]
        any_bit = np.int64(0)
        for at in range(len(stretch)):
            any_bit |= stretch[at]
        if any_bit == 0:
            continue
        if n + STRETCH > len(where):
            more = np.empty(2 * len(where), np.int64)
            more[:n] = where[:n]
            where = more
        for at in range(len(stretch)):
            if stretch[at] != 0:
                where[n] = start + at
                n += 1
    return where[:n].copy()
