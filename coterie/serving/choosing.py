"""The best items of one question, among those that may be suggested: few passes over the scores, on one thread."""

from __future__ import annotations

import numpy as np
from numba import njit

from coterie.errors import ModelError
from coterie.evaluation.ranking import select_row
from coterie.types import Array, Items, Scores

LANES = 256

NO_FACTOR = np.empty(0, np.float32)
"""Stands for a boost of 1 throughout."""


def choose(
    scores: Scores,
    hint: Scores,
    allowed: Array,
    taken: Items,
    k: int,
    *,
    factor: Scores = NO_FACTOR,
    group: Items,
    groups: int = 0,
    taken_groups: Items,
    pool: Items,
) -> Items:
    """The positions of the at most `k` best items, best first; among equals the first. `scores` is changed in place.

    A score of 0 becomes the item's `hint`; then positive ones are multiplied by `factor`. Left out are what is not
    `allowed` (bool [items]), what is `taken`, and all but the best of each group (`group` int32 [items]: below
    `groups`, -1 for none; none at all of `taken_groups`). `pool` is 0, 1, ... (int32 [items]).

    Raises:
        ModelError: a score is NaN.
    """
    best = np.empty(min(k, len(scores)), np.int32)
    bad = _choose(scores, hint, allowed, taken, factor, group, groups, taken_groups, pool, best)
    if bad >= 0:
        raise ModelError(f"the score of item position {bad} is NaN; the model did not converge or is damaged")
    return best if not len(best) or best[-1] >= 0 else best[best >= 0]


@njit(cache=True)
def _choose(scores, hint, allowed, taken, factor, group, groups, taken_groups, pool, best):  # type: ignore[no-untyped-def]
    """Fill `best`; the position of a NaN score, or -1."""
    best[:] = -1
    free = allowed.copy()
    for item in taken:
        free[item] = False
    if len(factor):
        _boost(scores, hint, factor)
        hint = np.zeros(len(scores), np.float32)  # what a factor made 0 stays so
    if groups == 0:
        return _select(scores, hint, free, pool, best)
    many = np.full(min(4 * len(best) + 16, len(scores)), -1, np.int32)  # mostly enough to leave some of a group out
    bad = _select(scores, hint, free, pool, many)
    if bad >= 0 or _first_of_groups(many, group, groups, taken_groups, best) or many[-1] < 0:
        return bad
    skip = ~free
    _one_of_each_group(scores, group, groups, taken_groups, skip)
    best[:] = -1
    return select_row(scores, skip, pool, best)


@njit(cache=True)
def _boost(scores, hint, factor):  # type: ignore[no-untyped-def]
    for j in range(len(scores)):
        if scores[j] == 0:
            scores[j] = hint[j]
        if scores[j] > 0:
            scores[j] *= factor[j]


@njit(cache=True)
def _select(scores, hint, free, pool, best):  # type: ignore[no-untyped-def]
    """Fill `best` with the best of what is `free`; the position of a NaN score, or -1. Zeros become the `hint`.

    Item j is in lane j modulo LANES. The k-th highest of the lanes' maxima is no higher than the k-th best score, so
    that few lanes and few of their items remain to be looked at; and maxima of lanes, other than that of a row, are
    found by vector instructions.
    """
    crest = np.full(LANES, -np.inf, np.float32)
    odd = _crests(scores, hint, free, crest)
    least = np.float32(-np.inf)
    if 0 < len(best) <= LANES // 2:
        least = np.partition(crest, LANES - len(best))[LANES - len(best)]
    if odd or least == -np.inf:
        return select_row(scores, ~free, pool, best)
    found, size = np.empty(len(best) + 1024, np.int32), 0
    for lane in range(LANES):
        if crest[lane] < least:
            continue
        for j in range(lane, len(scores), LANES):
            if free[j] and scores[j] >= least:
                if size == len(found):  # many are equal
                    return select_row(scores, ~free, pool, best)
                found[size] = j
                size += 1
    return select_row(scores, ~free, found[:size], best)


@njit(cache=True)
def _crests(scores, hint, free, crest):  # type: ignore[no-untyped-def]
    """The maxima of lanes; whether a score is NaN. Written so that compilers turn it into vector instructions."""
    odd = np.zeros(LANES, np.uint8)
    for start in range(0, len(scores), LANES):
        row, spare, here = scores[start : start + LANES], hint[start : start + LANES], free[start : start + LANES]
        for lane in range(len(row)):
            score, instead = row[lane], spare[lane]
            score = instead if score == 0 else score
            row[lane] = score
            score = score if here[lane] else np.float32(-np.inf)
            crest[lane] = score if score > crest[lane] else crest[lane]  # noqa: FURB136 - `max` heeds NaN
            odd[lane] |= np.uint8(score != score)  # noqa: PLR0124 - NaN alone is unlike itself
    return odd.any()


@njit(cache=True)
def _first_of_groups(many, group, groups, taken_groups, best):  # type: ignore[no-untyped-def]
    """Fill `best` with the first of each group among `many`, which are in order; whether there are enough."""
    size = 0
    for item in many:
        if item < 0:
            break
        g, seen = group[item], False
        if 0 <= g < groups:
            for other in taken_groups:
                seen |= other == g
            for other in best[:size]:
                seen |= group[other] == g
        if not seen:
            best[size] = item
            size += 1
            if size == len(best):
                return True
    return False


@njit(cache=True)
def _one_of_each_group(scores, group, groups, taken_groups, skip):  # type: ignore[no-untyped-def]
    """Add to `skip` all but the best item of each group, and every item of `taken_groups`."""
    first = np.full(groups, -1, np.int32)  # -2: nothing of this group
    for g in taken_groups:
        if g < groups:
            first[g] = -2
    for j in range(len(scores)):
        g = group[j]
        if skip[j] or g < 0 or g >= groups:  # a group that appeared meanwhile counts from the next question
            continue
        if first[g] == -1:
            first[g] = j
        elif first[g] >= 0 and scores[first[g]] < scores[j]:
            skip[first[g]] = True
            first[g] = j
        else:
            skip[j] = True
