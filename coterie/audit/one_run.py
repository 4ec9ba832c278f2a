"""How private was one run? Lower bounds on epsilon from guesses about who took part.

Some users (canaries) are put into a log by the toss of a coin each; whoever sees the release guesses the coins. Under
differential privacy guesses cannot be right much more often than by chance, so guesses that are contradict the claim:

- `epsilon_lower_bound`: Steinke, Nasr, Jagielski, "Privacy Auditing with One (1) Training Run", NeurIPS 2023: whatever
  the mechanism, the number of right guesses is about Binomial(guesses, e^eps / (e^eps + 1)) at most (Theorem 5.2).
- `gaussian_lower_bound`: Mahloujifar, Melis, Chaudhuri, "Auditing f-Differential Privacy in One Run", ICML 2025:
  tighter where more is claimed, here that the release is no easier to tell than a Gaussian mechanism.

Both hold for any guesses that were made from the release alone, abstentions included, as long as their number was fixed
in advance. Neither uses code that it audits: the Gaussian's epsilon is worked out here once more.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import bdtrc, expit, log_ndtr, ndtr, ndtri

from coterie.errors import PlanError
from coterie.types import Floats

LEVELS = (0.5, 0.125)
"""Shares of the canaries that are guessed: many fair guesses find small leaks, few sure ones find large leaks."""
PRECISION = 40  # halvings of a bracket


@dataclass(frozen=True, slots=True)
class Guesses:
    """`correct` of `made` guesses about `canaries` coins are right.

    Raises:
        PlanError: not 0 <= correct <= made <= canaries.
    """

    canaries: int
    made: int
    correct: int

    def __post_init__(self) -> None:
        if not 0 <= self.correct <= self.made <= self.canaries:
            raise PlanError(f"{self.correct} right of {self.made} guesses on {self.canaries} canaries cannot be")


@dataclass(frozen=True, slots=True)
class Bounds:
    """What the guesses contradict: any claim of a smaller epsilon, at the confidence that was asked for.

    `epsilon` assumes nothing of the mechanism. `gaussian_epsilon` takes the claim of a Gaussian mechanism at its word;
    it is the epsilon of the multiplier `noise_multiplier` (inf: nothing is contradicted). `guesses` has an entry per
    level, `auc` is the probability that a canary that is in scores above one that is not.
    """

    epsilon: float
    gaussian_epsilon: float
    noise_multiplier: float
    guesses: tuple[Guesses, ...]
    auc: float


def audit_scores(
    scores: Floats,
    included: NDArray[np.bool_],
    delta: float,
    confidence: float = 0.95,
    levels: Sequence[float] = LEVELS,
    *,
    only_in: bool = False,
) -> Bounds:
    """Guess the coins from scores, and bound epsilon from below.

    At each level the canaries of the highest scores are guessed to be in, as many of the lowest to be out. Both bounds
    hold together with probability `confidence`, whichever level they come from.

    Args:
        scores: float64 [canaries], larger for canaries that seem to be in; computed without looking at the coins.
        included: bool [canaries], the coins.
        delta: that of the claim.
        confidence: probability with which a claim that holds is not contradicted, at least.
        levels: shares of the canaries that are guessed, fixed in advance.
        only_in: guess nobody to be out: where only a sample takes part, a low score says little.

    Raises:
        PlanError: fewer than two canaries, arrays of different lengths, scores that are not finite, or a number out of
            range.
    """
    _check(scores, included, delta, confidence, levels)
    made = tuple(guess(scores, included, level, only_in=only_in) for level in levels)
    significance = (1.0 - confidence) / (2 * len(levels))
    mu = max(gaussian_lower_bound(one, significance) for one in made)
    return Bounds(
        epsilon=max(epsilon_lower_bound(one, delta, significance) for one in made),
        gaussian_epsilon=gaussian_epsilon(mu, delta),
        noise_multiplier=1.0 / mu if mu > 0 else math.inf,
        guesses=made,
        auc=auc(scores, included),
    )


def guess(scores: Floats, included: NDArray[np.bool_], level: float, *, only_in: bool = False) -> Guesses:
    """Guess "in" for the highest scores and, unless `only_in`, "out" for as many of the lowest; ties go by position."""
    order = np.argsort(-scores, kind="stable")
    if only_in:
        first = order[: max(int(level * len(scores)), 1)]
        return Guesses(len(scores), len(first), int(included[first].sum()))
    each = max(int(level * len(scores) / 2), 1)
    right = int(included[order[:each]].sum()) + int((~included[order[-each:]]).sum())
    return Guesses(len(scores), 2 * each, right)


def p_value(guesses: Guesses, epsilon: float, delta: float) -> float:
    """Largest probability that so many guesses or more are right, where (epsilon, delta) holds.

    With f(k) = P[Binomial(made, e^eps / (e^eps + 1)) >= k] it is (Steinke et al. 2023, Theorem 5.2)

        f(correct) + 2 canaries delta max over i >= 1 of (f(correct - i) - f(correct)) / i
    """
    correct, likely = guesses.correct, float(expit(epsilon))
    tail = _at_least(correct, guesses.made, likely)
    i = np.arange(1, correct + 1)
    excess = np.max((_at_least(correct - i, guesses.made, likely) - tail) / i, initial=0.0)
    return float(min(tail + 2.0 * guesses.canaries * delta * excess, 1.0))


def epsilon_lower_bound(guesses: Guesses, delta: float, significance: float) -> float:
    """The largest epsilon that the guesses contradict at this significance, whatever the mechanism; 0 if none."""
    return _largest(lambda epsilon: p_value(guesses, epsilon, delta) < significance)


def contradicts_gaussian(guesses: Guesses, mu: float, significance: float) -> bool:
    """Whether so many right guesses have a probability below `significance` where the release is mu-Gaussian private.

    A mechanism is mu-GDP if telling whether one user is in is no easier than telling N(0, 1) from N(mu, 1), which a
    Gaussian mechanism with the noise multiplier 1 / mu is. With p_i the probability of i right guesses, let

        r_t = sum over i >= t of i p_i / m        h_t = sum over i >= t of (made - i) p_i / m

    If the coin of a guessed canary fell the other way, one guess fewer would be right, and by mu-GDP the probability of
    that is at least Phi(Phi^-1(r) - mu): so h_t >= Phi(Phi^-1(r_(t+1)) - mu). From P[correct or more] = significance
    follows the least that all p_i sum to; more than 1 cannot be (Mahloujifar et al. 2025, Algorithm 3).
    """
    made, m = guesses.made, guesses.canaries
    r, h = significance * guesses.correct / m, significance * (made - guesses.correct) / m
    for t in range(guesses.correct - 1, -1, -1):
        least = max(h, float(ndtr(ndtri(r) - mu)))
        if least == h:
            break  # neither can change any more
        r, h = r + t / (made - t) * (least - h), least
        if r + h > made / m:
            return True
    return r + h > made / m


def gaussian_lower_bound(guesses: Guesses, significance: float) -> float:
    """The largest mu for which the guesses contradict mu-Gaussian privacy at this significance; 0 if none."""
    return _largest(lambda mu: contradicts_gaussian(guesses, mu, significance))


def gaussian_delta(mu: float, epsilon: float) -> float:
    """The delta of mu-Gaussian privacy at `epsilon` (Balle and Wang 2018, Theorem 8, with noise multiplier 1 / mu)."""
    if mu == 0:
        return 0.0
    far = min(epsilon + float(log_ndtr(-mu / 2 - epsilon / mu)), 0.0)  # never above 0 but for rounding
    return float(ndtr(mu / 2 - epsilon / mu)) - math.exp(far)


def gaussian_epsilon(mu: float, delta: float) -> float:
    """The epsilon of mu-Gaussian privacy at `delta`; 0 where delta alone covers it.

    >>> round(gaussian_epsilon(1 / 3.730631634816, 1e-5), 9)
    1.0
    """
    return _largest(lambda epsilon: gaussian_delta(mu, epsilon) > delta)


def gaussian_multiplier(epsilon: float, delta: float) -> float:
    """The noise multiplier with which a Gaussian mechanism has just this epsilon and delta.

    >>> round(gaussian_multiplier(2.0, 1e-5), 9)
    1.993812446
    """
    return 1.0 / _largest(lambda mu: gaussian_delta(mu, epsilon) <= delta)


def ceiling(canaries: int, delta: float, confidence: float = 0.95, levels: Sequence[float] = LEVELS) -> float:
    """The largest claim that so many canaries could contradict, whatever the mechanism: if every guess was right."""
    significance = (1.0 - confidence) / (2 * len(levels))
    made = [2 * max(int(level * canaries / 2), 1) for level in levels]
    return max(epsilon_lower_bound(Guesses(canaries, n, n), delta, significance) for n in made)


def auc(scores: Floats, truth: NDArray[np.bool_]) -> float:
    """Area under the ROC curve: how often a true entry scores above a false one (ties: half). NaN without either.

    >>> auc(np.array([0.1, 0.9, 0.5]), np.array([False, True, True]))
    1.0
    """
    true = int(truth.sum())
    if not 0 < true < len(truth):
        return math.nan
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    rank = (np.cumsum(count) - (count - 1) / 2)[place]  # ranks from 1, ties share their mean
    return float((rank[truth].sum() - true * (true + 1) / 2) / (true * (len(truth) - true)))


def _at_least(k: Any, n: int, p: float) -> Any:
    """P[Binomial(n, p) >= k]; `k` may be an array, 1 where it is 0 or less."""
    k = np.asarray(k)
    return np.where(k > 0, bdtrc(np.maximum(k, 1) - 1.0, n, p), 1.0)


def _largest(contradicted: Callable[[float], bool]) -> float:
    """The largest value for which a monotone condition still holds, from below; 0 if it does nowhere."""
    if not contradicted(0.0) and not contradicted(2.0**-30):
        return 0.0
    low, high = 0.0, 1.0
    while contradicted(high):
        low, high = high, 2.0 * high
    for _ in range(PRECISION):
        middle = (low + high) / 2
        low, high = (middle, high) if contradicted(middle) else (low, middle)
    return low


def _check(
    scores: Floats, included: NDArray[np.bool_], delta: float, confidence: float, levels: Sequence[float]
) -> None:
    if len(scores) < 2 or scores.shape != included.shape:
        raise PlanError(f"an audit needs two canaries at least, each with its coin; got {scores.shape} scores")
    if not np.isfinite(scores).all():
        raise PlanError("a score of a canary is not finite: the release cannot be audited")
    if not 0 <= delta < 1:
        raise PlanError(f"delta must be at least 0 and below 1, got {delta!r}")
    if not 0 < confidence < 1:
        raise PlanError(f"confidence must be between 0 and 1, got {confidence!r}")
    if not levels or not all(0 < level <= 1 for level in levels):
        raise PlanError(f"levels must be shares of the canaries, above 0 and at most 1; got {tuple(levels)!r}")
