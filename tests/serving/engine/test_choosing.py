"""The best of a row, against sorting it."""

from __future__ import annotations

import numpy as np
import pytest

from coterie.errors import ModelError
from coterie.serving.choosing import NO_FACTOR, choose
from coterie.types import Array

NONE = np.empty(0, np.int32)


def sorted_out(scores: Array, hint: Array, free: Array, k: int, factor: Array, group: Array, taken: Array) -> list[int]:
    """The same by sorting: the best of each group, among equals the first."""
    scores = np.where(scores == 0, hint, scores)
    if len(factor):
        scores = np.where(scores > 0, scores * factor, scores)
    found: list[int] = []
    seen = set(taken.tolist())
    for item in np.argsort(-scores, kind="stable").tolist():
        if free[item] and (group[item] < 0 or group[item] not in seen):
            found.append(item)
            seen.add(int(group[item]))
    return found[:k]


@pytest.mark.parametrize("seed", range(60))
def test_the_best_are_those_of_a_sorted_row(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n, k = int(rng.choice([1, 7, 255, 256, 257, 3000])), int(rng.choice([1, 10, 128, 129]))
    scores = rng.standard_normal(n).astype(np.float32)
    if seed % 4 == 1:
        scores = np.round(scores * 2).astype(np.float32)  # many are equal
    if seed % 4 == 2:
        scores[:] = 0
    if seed % 4 == 3:
        scores[rng.random(n) < 0.3] = -np.inf
    hint = (rng.random(n) * 0.01 * (seed % 3 > 0)).astype(np.float32)
    allowed = rng.random(n) < rng.choice([0.05, 0.5, 1.0])
    out = rng.integers(0, n, 3).astype(np.int32)
    factor = NO_FACTOR if seed % 2 else (rng.random(n) * 3 * (rng.random(n) < 0.8)).astype(np.float32)
    groups = int(rng.choice([0, 1, 3, 50, 500]))
    group = rng.integers(-1, max(groups, 1), n).astype(np.int32) if groups else np.full(n, -1, np.int32)
    taken = np.unique(rng.integers(0, groups, 2)).astype(np.int32) if groups else NONE
    free = allowed.copy()
    free[out] = False
    want = sorted_out(scores, hint, free, k, factor, group, taken)
    found = choose(
        scores.copy(), hint, allowed, out, k, factor=factor, group=group, groups=groups, taken_groups=taken,
        pool=np.arange(n, dtype=np.int32),
    )  # fmt: skip
    assert found.tolist() == want


@pytest.mark.parametrize("groups", [0, 2])
def test_a_score_that_is_no_number_is_said_unless_it_may_not_be_suggested(groups: int) -> None:
    scores = np.ones(1000, np.float32)
    scores[700] = np.nan
    allowed = np.ones(1000, bool)
    how = {"group": np.full(1000, -1, np.int32), "groups": groups, "taken_groups": NONE}
    pool = np.arange(1000, dtype=np.int32)
    with pytest.raises(ModelError, match="700"):
        choose(scores.copy(), np.zeros(1000, np.float32), allowed, NONE, 5, pool=pool, **how)
    allowed[700] = False
    found = choose(scores.copy(), np.zeros(1000, np.float32), allowed, NONE, 5, pool=pool, **how)
    assert found.tolist() == [0, 1, 2, 3, 4]
