"""The loop that draws discrete noise: fast where a decision is beyond doubt, and silent where it is not.

A try takes two words of 64 random bits: cell (9 bits), half of the cell (32) and the first 23 bits of the chance U; and
the place inside the block. Nearly always those 23 bits alone lie below what the whole block accepts. Where they do not,
a third word continues U, and its first 64 bits are compared with a floating-point value of a(x). Where the two are
within `margin` of each other, and in the tail, nothing is decided here: the caller decides in exact arithmetic.

The margin covers every error that IEEE-754 double precision can make here (u = 2^-53; only +, -, *, / and conversions
are used, in the order that is written, and no library function; fused operations would lessen it):

    energy   above that of the near end n: |x| - n, |x| + n, their product, 1 / unit and the product with it are off
             by a factor of 1 + u at most each, so the energy, below 64, by less than 64 * 5.01 u < 2^-44
    series   exp(-r), 0 <= r < 1, by 18 nested terms: the rest is below 1 / 19!, rounding below 20 u, both below 2^-48
    product  top, exp(-j) and the series, none above 1, each off by u, multiplied with two roundings: below 2^-48
    chance   U's first 64 bits as a float: below 2^-52

Together less than 2^-43, an eighth of `MARGIN`.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np

from coterie.privacy.staircase import CHANCE_BITS, DECAYS, WEIGHT_BITS
from coterie.types import Array, Floats, Integers

MARGIN = 2.0**-40

# Why the loop stopped: no words (or nothing left to fill); a try from the tail; doubt while 23 bits, or 87, are known.
SPENT, TAIL, EARLY, LATE = 0, 1, 2, 3

_HALF_AT = np.uint64(64 - CHANCE_BITS - WEIGHT_BITS)
_CHANCE_AT = np.uint64(64 - CHANCE_BITS)
_HALF_MASK = np.uint64((1 << WEIGHT_BITS) - 1)
_CHANCE = np.uint64(CHANCE_BITS)
_ONE = np.uint64(1)
_TERMS = 18


def _add_draws(
    out: Integers,
    filled: int,
    words: Array,
    at: int,
    shift: int,
    threshold: Integers,
    alias: Integers,
    sure: Integers,
    top: Floats,
    near: Integers,
    decays: Floats,
    rate: float,
    squared: bool,
    margin: float,
) -> tuple[Any, ...]:
    """Add draws to ``out[filled:]`` from ``words[at:]`` until either ends or there is something to decide.

    The tables are those of `coterie.privacy.staircase.Staircase`, `rate` is 1 / unit. Returns (filled, at, why it
    stopped, entry, x, first 23 bits of U, the word that follows them); the last four are for deciding.
    """
    cells, none = np.uint64(len(threshold) - 1), np.uint64(0)
    inside = (_ONE << np.uint64(shift)) - _ONE
    slack = np.int64(margin * (1 << CHANCE_BITS))
    while filled < len(out) and at + 3 <= len(words):
        first, second = words[at], words[at + 1]
        at += 2
        cell = np.int64(first & cells)
        half = np.int64((first >> _HALF_AT) & _HALF_MASK)
        entry = cell if half < threshold[cell] else alias[cell]
        if entry >= len(threshold) - 2:
            return filled, at, TAIL, entry, 0, 0, none
        negative, chance = entry & 1, np.int64(first >> _CHANCE_AT)
        y = (entry >> 1 << shift) + np.int64(second & inside)
        x = y ^ -negative  # ~y = -1 - y
        if chance >= sure[entry]:
            third = words[at]
            at += 1
            begun = np.float64((first >> _CHANCE_AT << _CHANCE_AT) | (third >> _CHANCE)) * 2.0**-64
            over = begun - _acceptance(y + negative, near[entry], top[entry], decays, rate, squared)
            if over > margin:
                continue
            if not over < -margin:  # NaN is doubt too
                return filled, at, LATE, entry, x, chance, third
        elif chance + slack >= sure[entry]:
            return filled, at, EARLY, entry, x, chance, none
        out[filled] += x
        filled += 1
    return filled, at, SPENT, 0, 0, 0, none


def _acceptance_of(size: int, near: int, top: float, decays: Floats, rate: float, squared: bool) -> Any:
    """About a(x) for |x| = `size` in a block with this near end; NaN where the energy passes what `decays` holds."""
    energy = np.float64(size - near)
    if squared:
        energy *= np.float64(size + near)
    energy *= rate
    if energy >= DECAYS:
        return np.nan
    whole = np.int64(energy)
    rest = energy - whole
    series = 1.0
    for k in range(_TERMS, 0, -1):
        series = 1.0 - rest * series / k
    return top * decays[whole] * series


_acceptance: Any = numba.njit(cache=True)(_acceptance_of)
add_draws: Any = numba.njit(cache=True, nogil=True)(_add_draws)
