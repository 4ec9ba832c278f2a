"""Lower bounds on epsilon: against the papers' code, published figures, and mechanisms whose epsilon is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.stats import binom, norm

from coterie.audit.one_run import (
    Guesses,
    auc,
    audit_scores,
    ceiling,
    contradicts_gaussian,
    epsilon_lower_bound,
    gaussian_epsilon,
    gaussian_lower_bound,
    gaussian_multiplier,
    guess,
    p_value,
)
from coterie.errors import PlanError

CANARIES, DELTA, DIMENSIONS = 2000, 1e-5, 50_000
HONEST = 1.993812445644  # noise multiplier of epsilon 2 at delta 1e-5


# --- formulas ---------------------------------------------------------------------------------------------------------


@given(
    made=st.integers(0, 60),
    wrong=st.integers(0, 60),
    unasked=st.integers(0, 500),
    epsilon=st.floats(0, 6),
    delta=st.sampled_from([0.0, 1e-6, 1e-3, 0.1]),
)
def test_the_p_value_is_that_of_the_paper(made: int, wrong: int, unasked: int, epsilon: float, delta: float) -> None:
    correct, canaries = max(made - wrong, 0), made + unasked
    chance = binom(made, 1 / (1 + math.exp(-epsilon)))
    alpha = total = 0.0
    for i in range(1, correct + 1):  # Steinke et al. 2023, Appendix D, step by step
        total += chance.pmf(correct - i)
        alpha = max(alpha, total / i)
    expected = min(chance.sf(correct - 1) + 2 * canaries * delta * alpha, 1.0)
    assert p_value(Guesses(canaries, made, correct), epsilon, delta) == pytest.approx(expected, rel=1e-6, abs=1e-12)


def test_a_lower_bound_is_where_the_p_value_crosses_the_significance() -> None:
    guesses = Guesses(1000, 400, 330)
    found = epsilon_lower_bound(guesses, 1e-5, 0.05)
    assert p_value(guesses, found - 1e-6, 1e-5) < 0.05 <= p_value(guesses, found + 1e-6, 1e-5)
    assert epsilon_lower_bound(Guesses(1000, 400, 200), 1e-5, 0.05) == 0.0
    assert gaussian_lower_bound(Guesses(1000, 400, 200), 0.05) == 0.0


def test_the_epsilon_of_a_gaussian_is_that_of_the_accountant() -> None:
    known = {(1, 1e-5): 3.730631634816, (0.5, 1e-6): 8.057618480725, (8, 1e-5): 0.600229072199}
    for (epsilon, delta), multiplier in known.items():
        assert gaussian_multiplier(epsilon, delta) == pytest.approx(multiplier, rel=1e-9)
        assert gaussian_epsilon(1 / multiplier, delta) == pytest.approx(epsilon, rel=1e-9)


@pytest.mark.parametrize("mu", [0.3, 1.0, 2.5])
def test_the_best_guesses_about_a_gaussian_do_not_contradict_it(mu: float) -> None:
    """Scores of 20,000 canaries are N(0, 1) or N(mu, 1), by coin; the highest and the lowest 5 % are guessed."""
    sure = brentq(lambda at: norm.sf(at) + norm.sf(at - mu) - 0.1, 0, 10)
    correct = round(2000 * norm.sf(sure - mu) / 0.1)
    found = gaussian_lower_bound(Guesses(20_000, 2000, correct), 0.05)
    assert 0.5 * mu < found < mu
    assert epsilon_lower_bound(Guesses(20_000, 2000, correct), DELTA, 0.05) < gaussian_epsilon(mu, DELTA)


def test_more_right_guesses_contradict_more() -> None:
    bounds = [gaussian_lower_bound(Guesses(500, 250, right), 0.05) for right in range(100, 251, 10)]
    assert bounds == sorted(bounds)
    assert contradicts_gaussian(Guesses(500, 250, 250), 1.0, 0.05)


# --- published figures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("shift", "any_mechanism", "gaussian"),
    [(0, 0.0, 0.0), (1, 1.13346, 2.164749), (2, 2.311945, 4.7218075), (4, 4.395568, 9.133752)],
)
def test_figures_that_jax_privacy_publishes(shift: float, any_mechanism: float, gaussian: float) -> None:
    """10,000 scores from each of two normals that are `shift` apart, every threshold tried (its `auditing_test.py`)."""
    even = norm.ppf(np.linspace(0, 1, 10_000, endpoint=False) + 1 / 20_000)
    epsilon, by_gaussian = every_threshold(even + shift, even, 1e-6)
    assert epsilon == pytest.approx(any_mechanism, rel=1e-4, abs=1e-6)
    assert by_gaussian == pytest.approx(gaussian, rel=1e-4, abs=1e-6)


@pytest.mark.parametrize(
    ("multiplier", "size", "any_mechanism", "gaussian"),
    [
        (HONEST, 1.0, (0.35, 0.61), (0.45, 0.88)),
        (HONEST / 4, 1.0, (2.4, 2.7), (3.3, 3.9)),
        (HONEST, 4.0, (2.4, 2.7), (3.3, 3.9)),
        (1e-6, 1.0, (5.3, math.inf), (9.2, math.inf)),
    ],
    ids=["honest", "noise divided by 4", "clip of 4 missing", "no noise"],
)
def test_figures_of_the_reference(
    multiplier: float, size: float, any_mechanism: tuple[float, float], gaussian: tuple[float, float]
) -> None:
    """Claimed epsilon 2, 2,000 canaries, every threshold tried on one side: the median of a few seeds."""
    scores = [canary_scores(seed, multiplier, size) for seed in range(5)]
    found = [every_threshold(one[included], one[~included], DELTA) for one, included in scores]
    for value, (low, high) in zip(np.median(found, axis=0), (any_mechanism, gaussian), strict=True):
        assert low - 0.05 <= value <= high + 0.3
    contradicted = [epsilon > 2 for epsilon, _ in found]
    assert all(contradicted) if (multiplier, size) != (HONEST, 1.0) else not any(contradicted)


# --- our own guesses --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_an_honest_mechanism_is_not_contradicted_and_faults_are(seed: int) -> None:
    honest = audit_scores(*canary_scores(seed, HONEST, 1.0), DELTA)
    assert 0.2 < honest.epsilon < honest.gaussian_epsilon < 1.5
    assert honest.noise_multiplier > HONEST
    for multiplier, size in ((HONEST / 4, 1.0), (HONEST, 4.0)):
        faulty = audit_scores(*canary_scores(seed, multiplier, size), DELTA)
        assert faulty.epsilon > 2.4
        assert faulty.gaussian_epsilon > 3.3
        assert faulty.noise_multiplier < HONEST
    silent = audit_scores(*canary_scores(seed, 1e-6, 1.0), DELTA)
    assert silent.epsilon >= 5.3
    assert silent.gaussian_epsilon >= 9.2
    assert silent.auc == 1.0


def test_a_claim_that_holds_is_hardly_ever_contradicted() -> None:
    """Randomised response is as bad as epsilon allows: 200 audits of it, and the confidence of 0.8 is kept."""
    rng, epsilon = np.random.default_rng(0), 1.0
    wrong = 0
    for _ in range(200):
        included = rng.random(400) < 0.5
        told = included ^ (rng.random(400) < 1 / (1 + math.exp(epsilon)))
        found = audit_scores(told + 1e-3 * rng.random(400), included, 0.0, confidence=0.8)
        wrong += found.epsilon > epsilon
    assert wrong <= 0.2 * 200


def test_what_no_audit_can_contradict() -> None:
    assert 5.3 < ceiling(2000, DELTA) < 6.0
    assert ceiling(200, DELTA) < ceiling(2000, DELTA) < ceiling(20_000, DELTA)


def test_guesses_take_both_ends_of_the_scores() -> None:
    included = np.array([True, False, True, False, False, True])
    scores = np.array([6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    assert guess(scores, included, 1.0) == Guesses(6, 6, 2 + 2)
    assert guess(scores, included, 0.34) == Guesses(6, 2, 1)
    assert guess(scores, included, 0.5, only_in=True) == Guesses(6, 3, 2)


@given(st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=20))
def test_auc_counts_pairs(pairs: list[tuple[int, bool]]) -> None:
    scores, truth = np.array([p[0] for p in pairs], float), np.array([p[1] for p in pairs])
    if truth.all() or not truth.any():
        assert math.isnan(auc(scores, truth))
        return
    better = [(a > b) + 0.5 * (a == b) for a in scores[truth] for b in scores[~truth]]
    assert auc(scores, truth) == pytest.approx(np.mean(better))


def test_what_is_refused() -> None:
    scores, included = np.zeros(4), np.zeros(4, bool)
    with pytest.raises(PlanError, match="not finite"):
        audit_scores(np.array([0.0, math.nan, 0.0, 0.0]), included, DELTA)
    with pytest.raises(PlanError, match="two canaries"):
        audit_scores(scores, included[:3], DELTA)
    with pytest.raises(PlanError, match="confidence"):
        audit_scores(scores, included, DELTA, confidence=1.0)
    with pytest.raises(PlanError, match="delta"):
        audit_scores(scores, included, 1.0)
    with pytest.raises(PlanError, match="levels"):
        audit_scores(scores, included, DELTA, levels=(0.0,))
    with pytest.raises(PlanError, match="cannot be"):
        Guesses(10, 5, 6)


# --- helpers ----------------------------------------------------------------------------------------------------------


def canary_scores(seed: int, multiplier: float, size: float) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Canaries in random directions of length 1, of which `size` times the sum of the included ones is released.

    Their inner products with one another are about N(0, 1 / dimensions), those with the noise have the covariance
    1 + products: to first order that of (1 + products / 2) times independent noise.
    """
    rng = np.random.default_rng(seed)
    products = np.triu(rng.normal(0, DIMENSIONS**-0.5, (CANARIES, CANARIES)), 1)
    products += products.T
    included, noise = rng.random(CANARIES) < 0.5, rng.normal(0, multiplier, CANARIES)
    return size * (included + products @ included) + noise + products @ noise / 2, included


def every_threshold(
    inside: NDArray[np.float64], outside: NDArray[np.float64], delta: float, significance: float = 0.05
) -> tuple[float, float]:
    """Both bounds when "in" is guessed for all scores above a threshold, each on the hull of the ROC curve tried."""
    thresholds = np.append(np.union1d(inside, outside), np.inf)
    missed = np.searchsorted(np.sort(inside), thresholds)
    spared = np.searchsorted(np.sort(outside), thresholds)
    hull = list[int]()
    for at in range(len(thresholds)):
        while len(hull) > 1 and _below(hull[-2], hull[-1], at, missed, spared):
            hull.pop()
        hull.append(at)
    share, best, mu = significance / len(hull), 0.0, 0.0
    counts = [(len(inside) - int(missed[at]), len(outside) - int(spared[at])) for at in hull]
    for right, wrong in sorted(counts, key=lambda n: (n[1] + 3 * (n[1] + 1) ** 0.5) / (n[0] + n[1] + 1)):
        guesses = Guesses(len(inside) + len(outside), right + wrong, right)
        if p_value(guesses, best, delta) < share:
            best = max(best, epsilon_lower_bound(guesses, delta, share))
        if contradicts_gaussian(guesses, mu, share):
            mu = max(mu, gaussian_lower_bound(guesses, share))
    return best, gaussian_epsilon(mu, delta)


def _below(a: int, b: int, c: int, x: NDArray[np.int64], y: NDArray[np.int64]) -> bool:
    """Whether point b is not above the line from a to c."""
    return bool((y[b] - y[a]) * (x[c] - x[b]) <= (y[c] - y[b]) * (x[b] - x[a]))
