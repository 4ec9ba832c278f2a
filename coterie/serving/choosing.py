"""The best items of one question, among those that may be suggested: one pass over the scores, on one thread."""

from __future__ import annotations

import numpy as np
from numba import njit

from coterie.errors import ModelError
from coterie.evaluation.ranking import select_row
from coterie.types import Array, Items, Scores

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
    best = np.full(min(k, len(scores)), -1, np.int32)
    bad = _choose(scores, hint, allowed, taken, factor, group, groups, taken_groups, pool, best)
    if bad >= 0:
        raise ModelError(f"the score of item position {bad} is NaN; the model did not converge or is damaged")
    return best[best >= 0]


@njit(cache=True)
def _choose(scores, hint, allowed, taken, factor, group, groups, taken_groups, pool, best):  # type: ignore[no-untyped-def]
    """Fill `best`; the position of a NaN score, or -1."""
    for j in range(len(scores)):
        if scores[j] == 0:
            scores[j] = hint[j]
    if len(factor):
        for j in range(len(scores)):
            if scores[j] > 0:
                scores[j] *= factor[j]
    skip = ~allowed
    for item in taken:
        skip[item] = True
    if groups > 0:
        _one_of_each_group(scores, group, groups, taken_groups, skip)
    return select_row(scores, skip, pool, best)


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
