"""The mix stays at its default unless validation prefers another weight by more than one standard error."""

from __future__ import annotations

import numpy as np
import pytest

from coterie.federation.mix import DEFAULT_WEIGHT, WEIGHTS, choose_weight
from coterie.types import Floats


def gains(cases: int, **better: Floats | float) -> dict[float, Floats]:
    """0.5 everywhere; ``w100=x`` adds x to the weight 1.00."""
    found = {weight: np.full(cases, 0.5) for weight in WEIGHTS}
    for name, extra in better.items():
        found[int(name[1:]) / 100] = 0.5 + np.zeros(cases) + extra
    return found


def test_nothing_to_choose_on_means_the_default() -> None:
    for cases in (0, 1, 5):
        choice = choose_weight(gains(cases, w100=0.4), np.zeros(cases, np.int64))
        assert choice.weight == DEFAULT_WEIGHT
        assert "too few to choose" in choice.reason


def test_equal_values_mean_the_default() -> None:
    choice = choose_weight(gains(10), np.arange(10))
    assert (choice.weight, choice.reason) == (DEFAULT_WEIGHT, "default: best on validation")


@pytest.mark.parametrize("name", ["w0", "w50", "w75", "w100"])
def test_a_clear_gain_is_taken(name: str) -> None:
    choice = choose_weight(gains(10, **{name: 0.1}), np.arange(10))
    assert choice.weight == int(name[1:]) / 100
    assert "more than one standard error" in choice.reason


def test_a_loss_is_never_taken() -> None:
    assert choose_weight(gains(10, w0=-0.2, w50=-0.1, w75=-0.1, w100=-0.3), np.arange(10)).weight == DEFAULT_WEIGHT


@pytest.mark.parametrize("cases", [2, 6, 100])
def test_the_rule_is_one_standard_error_of_the_paired_difference(cases: int) -> None:
    base = np.array([1.0, -1.0] * (cases // 2))
    error = base.std(ddof=1) / np.sqrt(cases)
    for factor, weight in ((0.99, DEFAULT_WEIGHT), (1.01, 0.75)):
        assert choose_weight(gains(cases, w75=base + factor * error), np.arange(cases)).weight == weight


def test_cases_of_one_user_are_not_independent() -> None:
    difference = np.array([1.0, -1.0] * 50) + 0.12
    alone, pairs = np.arange(100), np.arange(100) % 2
    assert choose_weight(gains(100, w100=difference), alone).weight == 1.0
    # Two users, one who gains and one who loses: no evidence, however many cases each has.
    assert choose_weight(gains(100, w100=difference), pairs).weight == DEFAULT_WEIGHT


def test_repeating_every_case_of_a_user_adds_no_evidence() -> None:
    rng = np.random.default_rng(0)
    difference = rng.normal(size=20)
    error = difference.std(ddof=1) / np.sqrt(20)
    just_short = difference - difference.mean() + 0.95 * error
    for times in (1, 50):
        repeated, users = np.repeat(just_short, times), np.repeat(np.arange(20), times)
        assert choose_weight(gains(20 * times, w50=repeated), users).weight == DEFAULT_WEIGHT
    assert choose_weight(gains(1000, w50=np.repeat(just_short, 50)), np.arange(1000)).weight == 0.5


def test_names_of_groups_do_not_matter() -> None:
    difference = np.random.default_rng(1).normal(0.1, 1.0, size=30)
    group = np.repeat(np.arange(10), 3)
    one = choose_weight(gains(30, w0=difference), group)
    assert choose_weight(gains(30, w0=difference), 1000 - 7 * group) == one
