"""The kernel of the private cart model: what one user has bought together, at a norm of its own, as integers."""

from __future__ import annotations

import numba
import numpy as np

from coterie.models.base import MARGIN
from coterie.types import Floats, Integers, PartSpec, Pointers, Ragged


def add_bounded_pairs(
    row_ptr: Pointers, rows: Ragged, row_weight: Floats, pairs: Ragged, part: PartSpec, out: Integers
) -> None:
    """Add each user's pairs to `out` (int64, one entry per entry of `pairs`), whatever the user has bought.

    User u owns the rows ``row_ptr[u]:row_ptr[u + 1]``; the items of a row are distinct. ``pairs[i]`` lists the items
    whose pair with item i is summed, each pair once. A user's vector v has in the entry (i, j) the sum of `row_weight`
    over the user's rows with both items. It is scaled, up or down, to the norm ``part.l2`` (or the largest at which no
    entry exceeds ``part.linf``), then truncated towards zero in units of ``1 / part.scale``: a user who has met any of
    the pairs adds as much as any other, and never more than the bounds.
    """
    _add_bounded_pairs(
        row_ptr,
        rows.ptr,
        rows.item,
        row_weight,
        pairs.ptr,
        pairs.item,
        float(part.l2) * MARGIN * part.scale,
        float(part.linf) * MARGIN * part.scale,
        out,
    )


@numba.njit(cache=True)
def _add_bounded_pairs(row_ptr, ptr, item, row_weight, pair_ptr, pair_item, l2, linf, out):  # type: ignore[no-untyped-def]
    met = np.zeros(len(pair_item), np.float64)
    touched = np.empty(len(pair_item), np.int64)
    inside = np.zeros(len(pair_ptr) - 1, np.bool_)
    for u in range(len(row_ptr) - 1):
        n = 0
        for row in range(row_ptr[u], row_ptr[u + 1]):
            n = _add_row(item[ptr[row] : ptr[row + 1]], row_weight[row], pair_ptr, pair_item, inside, met, touched, n)
        mine = met[touched[:n]]
        if n > 0:
            factor = min(l2 / np.sqrt(np.sum(mine**2)), linf / np.max(mine))
            for t in range(n):
                out[touched[t]] += np.int64(np.floor(factor * mine[t]))
        met[touched[:n]] = 0.0


@numba.njit(cache=True)
def _add_row(basket, weight, pair_ptr, pair_item, inside, met, touched, n):  # type: ignore[no-untyped-def]
    """Add the pairs inside one row to `met`; returns how many entries of it have been touched by now."""
    inside[basket] = True
    for e in range(len(basket)):
        for at in range(pair_ptr[basket[e]], pair_ptr[basket[e] + 1]):
            if inside[pair_item[at]]:
                if met[at] == 0.0:
                    touched[n] = at
                    n += 1
                met[at] += weight
    inside[basket] = False
    return n
