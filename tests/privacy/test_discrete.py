"""The distances that are charged, against exact sums over all outcomes."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.stats import norm

from coterie.errors import PlanError
from coterie.privacy.accountant import Event, delta_of, epsilon
from coterie.privacy.discrete import (
    concentrated_multiplier,
    least_std,
    rounding_distance,
    summing_tau,
    total_variation,
)

Floats = NDArray[np.float64]


def grid(std: float) -> Floats:
    width = math.ceil(12 * std)
    return np.arange(-width, width + 1, dtype=np.float64)


def discrete_gaussian(std: float, x: Floats | None = None) -> Floats:
    x = grid(std) if x is None else x
    mass: Floats = np.exp(-(x**2) / (2 * std**2))
    return mass / math.fsum(mass)


def rounded_gaussian(std: float) -> Floats:
    # By the tail that is farther out, where differences of tails keep their digits.
    x = np.abs(grid(std))
    mass: Floats = norm.sf(x - 0.5, scale=std) - norm.sf(x + 0.5, scale=std)
    return mass


def distance(p: Floats, q: Floats) -> float:
    return float(np.abs(p - q).sum() / 2)


def hockey_stick(p: Floats, q: Floats, e: float) -> float:
    return float(np.maximum(p - math.exp(e) * q, 0).sum())


# --- rounding --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("std", [1.5, 2.0, 3.0, 4.0, 7.3, 10.0, 25.0, 50.0])
def test_a_discrete_gaussian_is_as_near_to_a_rounded_one_as_stated(std: float) -> None:
    exact = distance(discrete_gaussian(std), rounded_gaussian(std))
    assert exact <= rounding_distance(std, 1)
    assert rounding_distance(std, 1) < 2.3 * exact


@pytest.mark.parametrize(("std", "dimension"), [(1.0, 2), (2.0, 2), (4.0, 2), (1.0, 3), (2.0, 3)])
def test_so_are_vectors_of_them(std: float, dimension: int) -> None:
    p, q = discrete_gaussian(std), rounded_gaussian(std)
    for _ in range(dimension - 1):
        p, q = np.multiply.outer(p, discrete_gaussian(std)), np.multiply.outer(q, rounded_gaussian(std))
    exact = distance(p, q)
    assert exact <= rounding_distance(std, dimension)
    assert rounding_distance(std, dimension) < 3.1 * exact


@given(std=st.floats(4, 1e9), dimension=st.integers(1, 10**9))
def test_distance_follows_its_leading_term(std: float, dimension: int) -> None:
    leading = math.sqrt(dimension) / (24 * std**2)
    found = total_variation(std, dimension)
    assert found >= min(leading * (1 - 1e-12), 0.8)
    if leading < 0.1:
        assert found < leading * 1.02 + 1e-60
    assert found <= 1


@given(distance=st.floats(1e-25, 1e-3), dimension=st.integers(1, 10**7))
def test_the_least_standard_deviation_is_enough_and_needed(distance: float, dimension: int) -> None:
    std = least_std(distance, dimension)
    assert rounding_distance(std, dimension) <= distance
    assert std == 4.0 or rounding_distance(std * 0.99, dimension) > distance


# --- summing ---------------------------------------------------------------------------------------------------------


def summed(stds: list[float]) -> tuple[Floats, Floats]:
    """The exact law of a sum, and that of one discrete Gaussian of the same variance."""
    law = np.array([1.0])
    for std in stds:
        law = np.convolve(law, discrete_gaussian(std))
    half = len(law) // 2
    x = np.arange(-half, half + 1, dtype=np.float64)
    return law, discrete_gaussian(math.sqrt(math.fsum(std**2 for std in stds)), x)


@pytest.mark.parametrize(
    "stds", [[0.5, 0.5], [0.5] * 4, [0.6] * 8, [0.7, 1.1, 0.9], [0.8] * 3, [0.5, 2.0, 3.0], [1.0] * 5]
)
def test_a_sum_of_discrete_gaussians_is_as_near_to_one_as_stated(stds: list[float]) -> None:
    law, one = summed(stds)
    likely = one > 1e-9  # beyond, floating-point convolution has no digits left
    factor = np.abs(np.log(law[likely] / one[likely])).max()
    tau = summing_tau(len(stds), min(stds))
    assert factor <= tau / 2 + 1e-6
    assert distance(law, one) <= tau / 2
    if len(set(stds)) == 1 and factor > 1e-5:
        assert tau < 20 * factor


def test_a_sum_of_coarse_discrete_gaussians_is_not_one() -> None:
    law, one = summed([0.4] * 4)
    assert distance(law, one) > 0.05


def test_tau_is_as_published() -> None:
    assert summing_tau(1, 0.5) == 0
    by_hand = 10 * sum(math.exp(-2 * math.pi**2 * 0.81 * k / (k + 1)) for k in range(1, 200))
    assert by_hand <= summing_tau(200, 0.9) < 1.3 * by_hand
    assert summing_tau(50, 0.9) == pytest.approx(
        10 * sum(math.exp(-2 * math.pi**2 * 0.81 * k / (k + 1)) for k in range(1, 50)), rel=1e-12
    )
    assert summing_tau(10**6, 4.0) < 1e-60


@pytest.mark.parametrize("share", [0.6, 0.8, 1.0])
@pytest.mark.parametrize("shift", [1, 2, 5])
def test_sums_keep_their_concentrated_promise(share: float, shift: int) -> None:
    law, _ = summed([share] * 3)
    tau = summing_tau(3, share)
    bound = (shift / (math.sqrt(3) * share) + tau) ** 2 / 2
    here, there = law[shift:], law[:-shift]
    likely = np.minimum(here, there) > 1e-13
    for order in (1.5, 2.0, 4.0):
        moment = math.fsum(here[likely] ** order * there[likely] ** (1 - order))
        assert math.log(moment) / (order - 1) <= order * bound + 1e-6


def test_the_concentrated_multiplier_is_that_of_one_gaussian_but_for_tau() -> None:
    assert concentrated_multiplier(100.0, 400_000, 16, 50.0) == pytest.approx(2.0, rel=1e-15)
    assert concentrated_multiplier(8.0, 10**6, 100, 4.0) == pytest.approx(5.0, rel=1e-12)


# --- what it means for epsilon ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("std", "shares", "shift"), [(9.0, 1, 9), (20.0, 4, 10), (40.0, 16, 80)])
@pytest.mark.parametrize("e", [0.0, 0.5, 1.0, 3.0])
def test_what_is_charged_covers_what_is_added(std: float, shares: int, shift: int, e: float) -> None:
    law, _ = summed([std / math.sqrt(shares)] * shares)
    exact = hockey_stick(law[shift:], law[:-shift], e) + float(law[:shift].sum())
    event = Event(std / shift, total_variation=total_variation(std, 1, shares))
    charged = delta_of([event], e)
    assert exact <= charged + 1e-15
    assert charged < exact + 3 * (1 + math.exp(e)) * event.total_variation


def test_a_fine_ring_costs_next_to_nothing() -> None:
    apart = total_variation(2.0**24, 400_000, shares=20)
    assert epsilon([Event(1.0, total_variation=apart)], 1e-5) == pytest.approx(epsilon([Event(1.0)], 1e-5), rel=1e-6)


# --- what is refused -------------------------------------------------------------------------------------------------


def test_shares_below_four_ring_units_are_refused() -> None:
    assert total_variation(8.0, 10, shares=4) < 1
    for call in (
        lambda: total_variation(7.9, 10, shares=4),
        lambda: total_variation(100.0, 10, shares=4, share_std=3.99),
        lambda: concentrated_multiplier(1.0, 10, 4, 3.99),
    ):
        with pytest.raises(PlanError, match=r"a share of the noise has a standard deviation of 3\.\d+ ring units"):
            call()


def test_nonsense_is_refused() -> None:
    with pytest.raises(PlanError, match="dimension must be a whole number of at least 1, got 0"):
        total_variation(10.0, 0)
    with pytest.raises(PlanError, match="shares must be a whole number of at least 1, got 0"):
        total_variation(10.0, 1, shares=0)
    with pytest.raises(PlanError, match="std_units must be a number"):
        total_variation(math.nan, 1)
    with pytest.raises(PlanError, match=r"share_std must be a number between 0\.5"):
        summing_tau(3, 0.4)
