"""Ranks and top lists from a block of scores: the two kernels under every ranking metric and every served list.

Both read a float32 matrix [queries, items] row by row, in parallel over rows; a row's result depends on that row alone,
so threads and blocks change nothing.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

from coterie.errors import DataError, ModelError
from coterie.types import Integers, Items, Pointers, Ragged, Scores


def target_ranks(scores: Scores, target: Ragged, excluded: Ragged, candidates: Ragged | None = None) -> Integers:
    """The 1-based rank of every relevant item among the items of its row: int64 [total targets], in `target`'s order.

    Ranked are the row's `candidates` (all items if None) without `excluded`, and always the row's targets, even those
    that are excluded or no candidates. Ties are read against the model: an item that is not relevant and scores the
    same counts as ahead, so a constant score earns nothing. Relevant items stand among themselves by score, then by
    position. The targets of a row are distinct; `excluded` and `candidates` may repeat items.

    Raises:
        DataError: the lists are not as many as the rows, or name a position outside the matrix.
        ModelError: a ranked score is NaN; names the row and the item's position.
    """
    _check(scores, {"target": target, "excluded": excluded, "candidates": candidates})
    pool, limited = _pool(scores, candidates)
    ranks = np.zeros(len(target.item), np.int64)
    bad = np.full(len(scores), -1, np.int64)
    _rank_rows(scores, target.ptr, target.item, excluded.ptr, excluded.item, pool.ptr, pool.item, limited, ranks, bad)
    _refuse_nan(bad)
    return ranks


def top_k(scores: Scores, excluded: Ragged, candidates: Ragged | None, k: int) -> Items:
    """The `k` best items of each row, best first: int32 [n, k], padded with -1 where fewer can be ranked.

    Ranked are the row's `candidates` (all items if None) without `excluded`. Equal scores are ordered by position.
    Items are selected with a heap of `k` entries, never by sorting the row.

    Raises:
        DataError: `k` is below 1, the lists are not as many as the rows, or name a position outside the matrix.
        ModelError: a ranked score is NaN; names the row and the item's position.
    """
    if k < 1:
        raise DataError(f"k must be at least 1, got {k}")
    _check(scores, {"excluded": excluded, "candidates": candidates})
    pool, limited = _pool(scores, candidates)
    best = np.full((len(scores), k), -1, np.int32)
    bad = np.full(len(scores), -1, np.int64)
    _select_rows(scores, excluded.ptr, excluded.item, pool.ptr, pool.item, limited, best, bad)
    _refuse_nan(bad)
    return best


def _pool(scores: Scores, candidates: Ragged | None) -> tuple[Ragged, bool]:
    """What the kernels rank: the candidate lists, or one list of all items that every row shares."""
    if candidates is not None:
        return candidates, True
    items = scores.shape[1]
    return Ragged(np.array([0, items], np.int64), np.arange(items, dtype=np.int32)), False


def _check(scores: Scores, lists: dict[str, Ragged | None]) -> None:
    """Refuse what the kernels, which do not check bounds, would read past."""
    if scores.ndim != 2 or scores.dtype != np.float32:
        raise ModelError(f"scores must be a float32 matrix, got {scores.dtype} of shape {scores.shape}")
    for name, ragged in lists.items():
        if ragged is None:
            continue
        if len(ragged) != len(scores):
            raise DataError(
                f"'{name}' has {len(ragged)} lists for {len(scores)} rows of scores; one list per row is needed"
            )
        outside = (ragged.item < 0) | (ragged.item >= scores.shape[1])
        if outside.any():
            raise DataError(
                f"'{name}' names item position {ragged.item[outside][0]}, outside the {scores.shape[1]} scored items"
            )


def _refuse_nan(bad: Integers) -> None:
    rows = np.flatnonzero(bad >= 0)
    if len(rows):
        raise ModelError(
            f"the score of item position {bad[rows[0]]} in row {rows[0]} is NaN ({len(rows)} of {len(bad)} rows have "
            f"one); the model did not converge or its input is damaged"
        )


@njit(cache=True, parallel=True)
def _rank_rows(
    scores: Scores,
    target_ptr: Pointers,
    target: Items,
    excluded_ptr: Pointers,
    excluded: Items,
    pool_ptr: Pointers,
    pool: Items,
    limited: bool,
    ranks: Integers,
    bad: Integers,
) -> None:
    for q in prange(len(scores)):
        skip = _marked(scores.shape[1], excluded[excluded_ptr[q] : excluded_ptr[q + 1]])
        own = np.unique(pool[pool_ptr[q] : pool_ptr[q + 1]]) if limited else pool
        here = slice(target_ptr[q], target_ptr[q + 1])
        bad[q] = _rank_row(scores[q], target[here], skip, own, ranks[here])


@njit(cache=True)
def _rank_row(row: Scores, relevant: Items, skip: np.ndarray, pool: Items, ranks: Integers) -> int:
    """Fill `ranks`; the position of a NaN score, or -1. A competitor costs a binary search among the targets."""
    for item in relevant:
        skip[item] = True  # a relevant item is no competitor
        if np.isnan(row[item]):
            return int(item)
    by_position = np.argsort(relevant, kind="mergesort")
    order = by_position[np.argsort(-row[relevant[by_position]], kind="mergesort")]
    level = row[relevant[order]]
    ahead = np.zeros(len(relevant) + 1, np.int64)
    for item in pool:
        if skip[item]:
            continue
        if np.isnan(row[item]):
            return int(item)
        ahead[_first_not_above(level, row[item])] += 1
    competitors = 0
    for place in range(len(relevant)):
        competitors += ahead[place]
        ranks[order[place]] = 1 + place + competitors
    return -1


@njit(cache=True)
def _first_not_above(level: Scores, score: float) -> int:
    """The first place in descending `level` that `score` reaches (``level[place] <= score``), or its length."""
    low, high = 0, len(level)
    while low < high:
        middle = (low + high) // 2
        if level[middle] <= score:
            high = middle
        else:
            low = middle + 1
    return low


@njit(cache=True, parallel=True)
def _select_rows(
    scores: Scores,
    excluded_ptr: Pointers,
    excluded: Items,
    pool_ptr: Pointers,
    pool: Items,
    limited: bool,
    best: np.ndarray,
    bad: Integers,
) -> None:
    for q in prange(len(scores)):
        skip = _marked(scores.shape[1], excluded[excluded_ptr[q] : excluded_ptr[q + 1]])
        own = np.unique(pool[pool_ptr[q] : pool_ptr[q + 1]]) if limited else pool
        bad[q] = select_row(scores[q], skip, own, best[q])


@njit(cache=True)
def select_row(row: Scores, skip: np.ndarray, pool: Items, heap: Items) -> int:
    """Fill `heap` (int32, -1 throughout) with the best items of `pool` without those in `skip` (bool [items]).

    The best stands first. Returns the position of a NaN score, or -1.
    """
    size = 0
    for item in pool:
        if skip[item]:
            continue
        if np.isnan(row[item]):
            return int(item)
        if size < len(heap):
            heap[size] = item
            _sift_up(row, heap, size)
            size += 1
        elif _worse(row, heap[0], item):
            heap[0] = item
            _sift_down(row, heap, 0, size)
    for last in range(size - 1, 0, -1):  # heap sort: the worst goes to the end
        heap[0], heap[last] = heap[last], heap[0]
        _sift_down(row, heap, 0, last)
    return -1


@njit(cache=True)
def _sift_up(row: Scores, heap: Items, place: int) -> None:
    """Restore the heap above `place`: the worst item stands at the root."""
    while place > 0:
        parent = (place - 1) // 2
        if not _worse(row, heap[place], heap[parent]):
            return
        heap[place], heap[parent] = heap[parent], heap[place]
        place = parent


@njit(cache=True)
def _sift_down(row: Scores, heap: Items, place: int, size: int) -> None:
    """Restore the heap below `place`: the worst item stands at the root."""
    while True:
        child = 2 * place + 1
        if child >= size:
            return
        if child + 1 < size and _worse(row, heap[child + 1], heap[child]):
            child += 1
        if not _worse(row, heap[child], heap[place]):
            return
        heap[place], heap[child] = heap[child], heap[place]
        place = child


@njit(cache=True)
def _worse(row: Scores, a: int, b: int) -> bool:
    return bool(row[a] < row[b] or (row[a] == row[b] and a > b))


@njit(cache=True)
def _marked(items: int, some: Items) -> np.ndarray:
    marks = np.zeros(items, np.bool_)
    for item in some:
        marks[item] = True
    return marks
