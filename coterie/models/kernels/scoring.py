"""Kernels that turn a cart into scores."""

from __future__ import annotations

import numba
import numpy as np

from coterie.types import History, Ragged, Scores


def add_rows(cart: Ragged, weights: Scores, out: Scores) -> None:
    """``out[q] += sum over items i of cart q of weights[i]`` (float32 [queries, items]), in the order of the cart."""
    _add_rows(cart.ptr, cart.item, weights, out)


def add_history(history: History, weight: float, decay: float, out: Scores) -> None:
    """``out[q, j] += weight * pf_j``: the share of past baskets with item j, decayed by `decay` per basket.

    pf_j = sum over baskets b with j of decay^age(b) / sum over all past baskets of decay^age(b).
    """
    _add_history(history.ptr, history.item, history.age, np.float64(weight), np.float64(decay), out)


@numba.njit(cache=True, parallel=True)
def _add_rows(ptr, item, weights, out):  # type: ignore[no-untyped-def]
    for q in numba.prange(len(ptr) - 1):
        for e in range(ptr[q], ptr[q + 1]):
            row = weights[item[e]]
            for j in range(out.shape[1]):
                out[q, j] += row[j]


@numba.njit(cache=True)
def _add_history(ptr, item, age, weight, decay, out):  # type: ignore[no-untyped-def]
    for q in range(len(ptr) - 1):
        oldest = -1
        for e in range(ptr[q], ptr[q + 1]):
            oldest = max(oldest, age[e])
        total = 0.0
        for a in range(oldest + 1):
            total += decay**a
        for e in range(ptr[q], ptr[q + 1]):
            out[q, item[e]] += weight * decay ** age[e] / total
