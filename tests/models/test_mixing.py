"""A mix of the federation's model and one of more items: what nobody else has is scored by the own model alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from coterie.models.base import Model
from coterie.models.mixing import mixed, placed
from coterie.models.registry import build
from coterie.testing.logs import trained, zipf_log
from coterie.types import History, Query, Ragged, State

N = 14
PLACE = np.array([0, 1, -1, 2, 3, -1, 4, 5, 6, 6, 7, 8, -1, 9], np.int32)  # items 8 and 9 are one to the federation
KNOWN = np.flatnonzero(PLACE >= 0)
CARTS = Query(
    Ragged.of([[0, 3], [2, 5], [2, 7], [], [8, 9]]),
    history=History(np.array([0, 0, 0, 0, 2, 2], np.int64), np.array([1, 12], np.int32), np.array([0, 1], np.int32)),
)


def ends(**settings: Any) -> tuple[Model, State, State]:
    """A model, the federation's state over the items of `PLACE`, and an own state over `N` items."""
    model = build({"name": "gfcf", "factors": 6, **settings})
    return model, trained(model, [zipf_log(60, 10, seed=1)], 10), trained(model, [zipf_log(30, N, seed=2)], N)


def test_own_items_keep_their_own_scores_and_shared_ones_are_weighed() -> None:
    model, together, own = ends()
    for weight in (0.0, 0.25, 1.0):
        state = mixed(together, own, weight, PLACE)
        scores, mine = model.score(state, CARTS), model.score(own, CARTS)
        theirs = model.score(together, placed(CARTS, PLACE))[:, PLACE[KNOWN]]
        assert np.array_equal(np.delete(scores, KNOWN, axis=1), np.delete(mine, KNOWN, axis=1))
        answered = [0, 2, 3, 4]
        expected = (1 - weight) * theirs[answered] + weight * mine[np.ix_(answered, KNOWN)]
        assert np.allclose(scores[np.ix_(answered, KNOWN)], expected, atol=1e-6)
        assert np.array_equal(scores[1], mine[1])  # of this cart the federation knows nothing
        assert np.array_equal(state["popularity"][PLACE < 0], own["popularity"][PLACE < 0])


def test_where_all_items_are_shared_it_is_the_mix_of_one_catalogue() -> None:
    model, _, own = ends()
    other = trained(model, [zipf_log(60, N, seed=5)], N)
    wide, plain = mixed(other, own, 0.25, np.arange(N, dtype=np.int32)), model.personalise(other, own, 0.25)
    assert np.array_equal(wide["popularity"], plain["popularity"])
    assert np.allclose(model.score(wide, CARTS), model.score(plain, CARTS), atol=1e-6)


@pytest.mark.parametrize("query", range(len(CARTS)))
def test_reasons_are_of_own_items_and_add_up_to_the_score(query: int) -> None:
    model, together, own = ends()
    state, asked = mixed(together, own, 0.25, PLACE), CARTS.slice(query, query + 1)
    scores = model.score(state, asked)[0]
    named = set(asked.cart.item.tolist()) | set(CARTS.history.item.tolist() if CARTS.history is not None else ())
    for item in range(N):
        reasons = model.explain(state, asked, item)
        assert {cause for _, cause, _ in reasons} - {None} <= named
        assert sum(amount for _, _, amount in reasons) >= scores[item] - 1e-5  # what speaks against it is not listed


def test_questions_in_other_positions_keep_what_is_aligned_with_them() -> None:
    values, steps = np.array([1, 2, 3, 4, 5, 6, 7, 8], np.float32), np.arange(8, dtype=np.int32)
    found = placed(Query(CARTS.cart, CARTS.history, value=values, step=steps), PLACE)
    assert [found.cart[at].tolist() for at in range(5)] == [[0, 2], [], [5], [], [6]]
    assert found.value is not None
    assert found.step is not None
    assert found.value.tolist() == [1, 2, 6, 7]
    assert found.step.tolist() == [0, 1, 5, 6]
    assert found.history is not None
    assert (found.history.ptr.tolist(), found.history.item.tolist()) == ([0, 0, 0, 0, 1, 1], [1])
