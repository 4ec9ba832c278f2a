"""Ranks and top lists against slow, obvious versions of themselves."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.errors import DataError, ModelError
from coterie.evaluation.ranking import target_ranks, top_k
from coterie.types import Ragged


def slow_ranks(scores, target, excluded, candidates):
    """Ranks by asking, for every target, who is ahead."""
    ranks = []
    for q, row in enumerate(scores):
        relevant = target[q].tolist()
        pool = set(range(len(row))) if candidates is None else set(candidates[q].tolist())
        others = pool - set(excluded[q].tolist()) - set(relevant)
        for t in relevant:
            ahead = sum(row[i] >= row[t] for i in others)
            ahead += sum(row[i] > row[t] or (row[i] == row[t] and i < t) for i in relevant)
            ranks.append(1 + ahead)
    return ranks


def slow_top(scores, excluded, candidates, k):
    lists = []
    for q, row in enumerate(scores):
        pool = set(range(len(row))) if candidates is None else set(candidates[q].tolist())
        best = sorted(pool - set(excluded[q].tolist()), key=lambda i, row=row: (-row[i], i))[:k]
        lists.append(best + [-1] * (k - len(best)))
    return lists


@st.composite
def questions(draw, levels=4):
    """Scores with many ties, targets, excluded items (some of them targets) and, sometimes, candidates."""
    n, items = draw(st.integers(1, 5)), draw(st.integers(1, 12))
    level = st.integers(-levels, levels).map(float)
    scores = np.array(
        draw(st.lists(st.lists(level, min_size=items, max_size=items), min_size=n, max_size=n)), np.float32
    )
    item = st.integers(0, items - 1)

    def lists(**kwargs):
        return Ragged.of(draw(st.lists(st.lists(item, max_size=items, **kwargs), min_size=n, max_size=n)))

    target = lists(min_size=1, unique=True)
    return scores, target, lists(), lists() if draw(st.booleans()) else None


@settings(max_examples=200, deadline=None)
@given(questions())
def test_ranks_equal_the_slow_version(question):
    scores, target, excluded, candidates = question
    assert target_ranks(scores, target, excluded, candidates).tolist() == slow_ranks(
        scores, target, excluded, candidates
    )


@settings(max_examples=200, deadline=None)
@given(questions(), st.integers(1, 14))
def test_top_lists_equal_the_slow_version(question, k):
    scores, _, excluded, candidates = question
    assert top_k(scores, excluded, candidates, k).tolist() == slow_top(scores, excluded, candidates, k)


@settings(max_examples=50, deadline=None)
@given(questions(), st.randoms(use_true_random=False))
def test_renaming_items_changes_no_rank_of_a_lone_target(question, random):
    scores, target, excluded, candidates = question
    lone = Ragged(np.arange(len(target) + 1), target.item[target.ptr[:-1]])
    new = np.array(random.sample(range(scores.shape[1]), scores.shape[1]), np.int32)
    renamed = np.empty_like(scores)
    renamed[:, new] = scores
    moved = [None if r is None else Ragged(r.ptr, new[r.item]) for r in (lone, excluded, candidates)]
    assert np.array_equal(target_ranks(scores, lone, excluded, candidates), target_ranks(renamed, *moved))


@settings(max_examples=50, deadline=None)
@given(questions())
def test_a_rising_transform_changes_no_rank(question):
    scores, *lists = question
    assert np.array_equal(target_ranks(scores, *lists), target_ranks(np.exp(scores), *lists))


def test_a_constant_score_puts_the_target_last():
    ranks = target_ranks(np.zeros((1, 5), np.float32), Ragged.of([[0]]), Ragged.of([[]]))
    assert ranks.tolist() == [5]


def test_an_excluded_target_is_still_ranked():
    scores = np.array([[3, 2, 1]], np.float32)
    assert target_ranks(scores, Ragged.of([[1]]), Ragged.of([[0, 1]])).tolist() == [1]


def test_infinite_scores_are_ranked():
    scores = np.array([[-np.inf, np.inf, -np.inf]], np.float32)
    assert target_ranks(scores, Ragged.of([[0, 1]]), Ragged.of([[]])).tolist() == [3, 1]
    assert top_k(scores, Ragged.of([[]]), None, 3).tolist() == [[1, 0, 2]]


@pytest.mark.parametrize("where", [0, 2])
def test_nan_is_refused_with_its_place(where):
    scores = np.ones((2, 3), np.float32)
    scores[1, where] = np.nan
    none = Ragged.of([[], []])
    with pytest.raises(ModelError, match=rf"item position {where} in row 1 is NaN \(1 of 2"):
        target_ranks(scores, Ragged.of([[0], [0]]), none)
    with pytest.raises(ModelError, match=rf"item position {where} in row 1 is NaN"):
        top_k(scores, none, None, 2)


def test_nan_of_an_item_that_is_not_ranked_does_not_matter():
    scores = np.array([[1.0, np.nan, 0.5]], np.float32)
    assert target_ranks(scores, Ragged.of([[0]]), Ragged.of([[1]])).tolist() == [1]
    assert top_k(scores, Ragged.of([[]]), Ragged.of([[0, 2]]), 2).tolist() == [[0, 2]]


@pytest.mark.parametrize("item", [-1, 3])
def test_positions_outside_the_matrix_are_refused(item):
    scores, none = np.ones((1, 3), np.float32), Ragged.of([[]])
    with pytest.raises(DataError, match=f"'target' names item position {item}, outside the 3"):
        target_ranks(scores, Ragged.of([[item]]), none)
    with pytest.raises(DataError, match="'candidates' names item position"):
        top_k(scores, none, Ragged.of([[item]]), 1)


def test_wrong_shapes_are_refused():
    scores, none = np.ones((1, 3), np.float32), Ragged.of([[]])
    with pytest.raises(DataError, match="'excluded' has 2 lists for 1 rows"):
        top_k(scores, Ragged.of([[], []]), None, 1)
    with pytest.raises(DataError, match="k must be at least 1, got 0"):
        top_k(scores, none, None, 0)
    with pytest.raises(ModelError, match="float32 matrix, got float64"):
        top_k(scores.astype(np.float64), none, None, 1)
