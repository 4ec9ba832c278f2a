"""How far people look: recovered from clicks that were drawn with a known examination."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.serving.examination import MOST_WEIGHT, Cells, Examination, examine, from_randomised, regression_em

THETA = np.array([1.0, 0.7, 0.5, 0.35, 0.2])


def simulated(gamma: np.ndarray, shown: int, seed: int = 0, theta: np.ndarray = THETA) -> Cells:
    """Each item `shown` times at each position, clicked as the model says."""
    item, position = (a.ravel() for a in np.meshgrid(range(len(gamma)), range(len(theta)), indexing="ij"))
    often = np.full(len(item), shown)
    return Cells(item, position, often, np.random.default_rng(seed).binomial(often, theta[position] * gamma[item]))


@pytest.mark.parametrize("rate", [0.02, 0.3, 0.9])
def test_em_recovers_who_looks_where(rate: float) -> None:
    gamma = np.random.default_rng(1).uniform(0.2, 1.0, 200) * rate
    assert regression_em(simulated(gamma, 2000), 5) == pytest.approx(THETA, abs=0.02)


def test_em_is_not_fooled_by_good_items_that_are_often_first() -> None:
    """Good items are shown first nine times of ten; plain click rates by position would say that nobody looks down."""
    gamma = np.concatenate([np.full(100, 0.4), np.full(100, 0.05)])
    cells = simulated(gamma, 1)
    often = np.where((cells.item < 100) == (cells.position == 0), 9000, 1000)
    clicked = np.random.default_rng(2).binomial(often, THETA[cells.position] * gamma[cells.item])
    naive = [clicked[cells.position == k].sum() / often[cells.position == k].sum() for k in range(5)]
    assert naive[1] / naive[0] < 0.4
    assert regression_em(Cells(cells.item, cells.position, often, clicked), 5) == pytest.approx(THETA, abs=0.02)


def test_randomised_positions_recover_who_looks_where() -> None:
    shown = np.full(5, 50_000)
    clicked = np.random.default_rng(3).binomial(shown, 0.1 * THETA)
    assert from_randomised(shown, clicked) == pytest.approx(THETA, abs=0.05)


def test_randomised_positions_are_preferred_and_pooled_where_clicks_are_rare() -> None:
    found = examine(simulated(np.full(10, 0.3), 100), np.full(5, 100), np.array([40, 20, 6, 4, 2]))
    assert found is not None
    assert (found.method, found.clicks) == ("randomised", 72)
    assert found.theta == pytest.approx([1, 0.5, 0.1, 0.1, 0.1])


def test_what_was_hardly_clicked_stands_apart_from_the_first_position() -> None:
    theta = from_randomised(np.full(3, 1000), np.array([60, 1, 0]))
    assert theta == pytest.approx([1, 1.5 / 2001 / 0.06, 1.5 / 2001 / 0.06])


def test_without_exploration_it_is_em_and_says_so() -> None:
    found = examine(simulated(np.full(50, 0.3), 500), np.zeros(5, np.int64), np.zeros(5, np.int64))
    assert found is not None
    assert found.method == "regression-EM"
    assert found.theta == pytest.approx(THETA, abs=0.03)


def test_nothing_is_said_where_nothing_can_be_known() -> None:
    nothing = np.zeros(5, np.int64)
    assert examine(simulated(np.full(2, 0.1), 10), nothing, nothing) is None, "too few clicks"
    alone = Cells(np.arange(5), np.arange(5), np.full(5, 1000), np.full(5, 100))
    assert examine(alone, nothing, nothing) is None, "every item at one position"
    empty = np.zeros(0, np.int64)
    assert examine(Cells(empty, empty, empty, empty), empty, empty) is None


def test_weights_are_the_inverse_and_clipped() -> None:
    assert Examination("randomised", np.array([1.0, 0.5, 0.0]), 1).weights().tolist() == [1.0, 2.0, MOST_WEIGHT]


@given(
    cells=st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, 4), st.integers(1, 50), st.integers(0, 50)),
        min_size=1,
        max_size=30,
        unique_by=lambda cell: cell[:2],
    )
)
def test_em_ends_with_finite_numbers_whatever_was_clicked(cells: list[tuple[int, int, int, int]]) -> None:
    item, position, shown, clicked = (np.array(column) for column in zip(*cells, strict=True))
    theta = regression_em(Cells(item, position, shown, np.minimum(clicked, shown)), 5)
    assert np.isfinite(theta).all()
    assert (theta >= 0).all()
