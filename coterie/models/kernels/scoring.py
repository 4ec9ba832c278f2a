"""Kernels that turn carts and histories into scores."""

from __future__ import annotations

import numba
import numpy as np

from coterie.types import Floats, History, Pointers, Ragged, Scores


def add_rows(lists: Ragged, amount: Floats | None, weights: Scores, out: Scores) -> None:
    """``out[q] += sum over entries e of list q of amount[e] * weights[item[e]]``, in the order of the list.

    `out` is float32 [queries, items]; `amount` (float64 [entries]) is 1 where it is None.
    """
    factor = np.ones(0, np.float32) if amount is None else amount.astype(np.float32)
    if len(lists) == 1:  # what is served: other threads would take longer to wake than this takes
        _add_list(lists.item[lists.ptr[0] : lists.ptr[1]], factor, weights, out[0])
    else:
        _add_rows(lists.ptr, lists.item, factor, weights, out)


def add_entries(history: History, amount: Floats, out: Scores) -> None:
    """``out[q, item[e]] += amount[e]`` for the entries e of each query's history."""
    _add_entries(history.ptr, history.item, amount, out)


def history_shares(history: History, decay: float) -> Floats:
    """What each entry adds to the share of past baskets with its item, baskets decayed by `decay` each: float64
    [entries].

    pf_j = sum over past baskets b with j of decay^age(b) / sum over all past baskets of decay^age(b).
    """
    return _history_shares(history.ptr, history.age, np.float64(decay))


def owners(ptr: Pointers) -> Pointers:
    """The list that each entry belongs to: int64 [entries]."""
    return np.repeat(np.arange(len(ptr) - 1), np.diff(ptr))


@numba.njit(cache=True, parallel=True)
def _add_rows(ptr, item, factor, weights, out):  # type: ignore[no-untyped-def]
    for q in numba.prange(len(ptr) - 1):
        here = slice(ptr[q], ptr[q + 1])
        _add_list(item[here], factor[here], weights, out[q])


@numba.njit(cache=True)
def _add_list(item, factor, weights, out):  # type: ignore[no-untyped-def]
    e = 0
    while e < len(item):
        if len(item) - e >= 4 and (len(factor) == 0 or np.all(factor[e : e + 4] != 0)):
            _add_four(item[e : e + 4], factor[e : e + 4], weights, out)
            e += 4
            continue
        row = weights[item[e]]
        times = factor[e] if len(factor) else np.float32(1.0)
        if times != 0:
            for j in range(len(out)):
                out[j] += times * row[j]
        e += 1


@numba.njit(cache=True)
def _add_four(item, factor, weights, out):  # type: ignore[no-untyped-def]
    """As one after the other, to the bit: memory gives four rows at a time sooner."""
    a, b, c, d = weights[item[0]], weights[item[1]], weights[item[2]], weights[item[3]]
    one = np.float32(1.0)
    s, t, u, v = (factor[0], factor[1], factor[2], factor[3]) if len(factor) else (one, one, one, one)
    for j in range(len(out)):
        out[j] = (((out[j] + s * a[j]) + t * b[j]) + u * c[j]) + v * d[j]


@numba.njit(cache=True)
def _add_entries(ptr, item, amount, out):  # type: ignore[no-untyped-def]
    for q in range(len(ptr) - 1):
        for e in range(ptr[q], ptr[q + 1]):
            out[q, item[e]] += amount[e]


@numba.njit(cache=True)
def _history_shares(ptr, age, decay):  # type: ignore[no-untyped-def]
    share = np.empty(len(age), np.float64)
    for q in range(len(ptr) - 1):
        oldest = -1
        for e in range(ptr[q], ptr[q + 1]):
            oldest = max(oldest, age[e])
        total = 0.0
        for a in range(oldest + 1):
            total += decay**a
        for e in range(ptr[q], ptr[q + 1]):
            share[e] = decay ** age[e] / total
    return share
