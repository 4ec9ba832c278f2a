"""Budgets divide into wholes, filters hold, and correlated noise has its known coefficients."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.errors import PlanError
from coterie.privacy.accountant import Event, epsilon, noise_multiplier
from coterie.privacy.schedule import (
    SCHEDULES,
    Filter,
    constant,
    decaying,
    scheduled,
    spend_adaptively,
    toeplitz_inverse_square_root,
    toeplitz_sensitivity,
    toeplitz_square_root,
)


@given(name=st.sampled_from(SCHEDULES), weights=st.lists(st.floats(0.01, 100), min_size=1, max_size=60))
def test_shares_are_positive_and_make_a_whole(name: str, weights: list[float]) -> None:
    shares = scheduled(name, weights)
    assert len(shares) == len(weights)
    assert min(shares) > 0
    assert math.fsum(shares) == pytest.approx(1.0, abs=1e-12)
    events = [Event(noise_multiplier(2.0, 1e-5, shares) / math.sqrt(share)) for share in shares]
    assert epsilon(events, 1e-5) == pytest.approx(2.0, rel=1e-9)


def test_schedules_are_what_they_are_called() -> None:
    assert scheduled("model", (0.7, 0.2, 0.1)) == pytest.approx((0.7, 0.2, 0.1))
    assert scheduled("constant", (0.7, 0.2, 0.1)) == constant(3) == (1 / 3,) * 3
    first, second, third = scheduled("decaying", (0.2, 0.3, 0.5))
    assert second / first == pytest.approx(third / second) == pytest.approx(0.8)
    assert decaying(4, 0.5) == pytest.approx((8 / 15, 4 / 15, 2 / 15, 1 / 15))


def test_what_is_no_schedule_is_refused() -> None:
    with pytest.raises(PlanError, match="schedule must be one of model, constant, decaying, got 'decay'; did you mean"):
        scheduled("decay", (1.0,))
    with pytest.raises(PlanError, match="rounds must be a whole number of at least 1, got 0"):
        scheduled("constant", ())
    with pytest.raises(PlanError, match="a share of the budget must be a number between 0 and inf"):
        scheduled("model", (1.5, -0.5))
    with pytest.raises(PlanError, match="ratio must be a number between 0 and 1"):
        decaying(3, 1.0)
    with pytest.raises(PlanError, match=r"after 5000 rounds at ratio = 0\.8 nothing is left of the budget"):
        decaying(5000)


def test_a_schedule_that_looks_at_private_progress_needs_a_filter() -> None:
    with pytest.raises(PlanError, match="adapts to private progress has no epsilon that is known in advance"):
        scheduled("adaptive", (0.5, 0.5))
    with pytest.raises(PlanError, match="or spend through a privacy filter"):
        spend_adaptively(None, 0.1)
    own = Filter(1.0)
    spend_adaptively(own, 0.25)
    assert own.spent == 0.25


@given(total=st.floats(1e-3, 10), costs=st.lists(st.floats(1e-4, 5), max_size=40))
def test_a_filter_never_lets_more_pass_than_its_total(total: float, costs: list[float]) -> None:
    own = Filter(total)
    passed = []
    for cost in costs:
        if own.admits(cost):
            own.spend(cost)
            passed.append(cost)
        else:
            before = own.spent
            with pytest.raises(PlanError, match="would exceed the total"):
                own.spend(cost)
            assert own.spent == before
    assert own.spent == math.fsum(passed) <= total * (1 + 1e-11)


@given(st.integers(1, 200))
def test_equal_parts_of_a_total_all_pass(parts: int) -> None:
    own = Filter(0.7)
    for _ in range(parts):
        own.spend(0.7 / parts)
    assert not own.admits(0.7 / parts)


def test_a_filter_for_a_budget_keeps_it() -> None:
    own = Filter.for_budget(4.0, 1e-5)
    costs = [Event(z) for z in (6.0, 3.0, 2.0, 9.0)]
    for event in costs:
        own.spend(event.rho)
    assert epsilon(costs, 1e-5) < 4.0
    largest = Event(1 / math.sqrt(2 * own.total), mechanism="concentrated")
    assert epsilon([largest], 1e-5) == pytest.approx(4.0, rel=1e-5)


@pytest.mark.parametrize("rho", [0.0, -1.0, math.nan, math.inf])
def test_a_filter_takes_no_nonsense(rho: float) -> None:
    with pytest.raises(PlanError, match="rho must be a number between 0 and inf"):
        Filter(1.0).spend(rho)


def test_the_square_root_of_running_sums_has_its_known_coefficients() -> None:
    root, inverse = toeplitz_square_root(1000), toeplitz_inverse_square_root(1000)
    assert root[:5].tolist() == [1, 0.5, 0.375, 0.3125, 0.2734375]
    assert inverse[:4].tolist() == [1, -0.5, -0.125, -0.0625]
    assert toeplitz_sensitivity(1000) == pytest.approx(1.8069319524, abs=1e-10)
    assert np.allclose(np.convolve(root, root)[:1000], 1.0)
    assert np.allclose(np.convolve(root, inverse)[:1000], np.eye(1, 1000)[0])
