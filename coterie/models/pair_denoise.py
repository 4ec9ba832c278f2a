"""What a noisy sum over pairs of items says of each pair: estimates that use what all pairs have in common.

Two ways, for two kinds of pairs. Where pairs were chosen one by one (texts that are alike), most of what can be known
of a pair is how often pairs of such popularity and such likeness are met at all: `expected` fits that, and `posterior`
moves from there towards the pair's own sum, as far as its noise allows. Where all pairs of some items were summed, the
sum is a matrix, and `spectral` keeps the directions that stand out of the noise.

Everything here is computed from noised sums, their noise and what is public. Equal sums give equal bytes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from coterie.types import Floats

STEPS = 60  # of a least-squares fit; it takes about ten
GROUP = 50  # fewest pairs from which the spread around the expectation is measured
GROUPS = 20
SURE = 3.0  # standard deviations by which a sum of squares must exceed that of noise alone
EDGE = 0.8  # of the largest eigenvalue of pure noise: what is below it is noise


def signal_to_noise(sums: Floats, std: float) -> float:
    """Power of the signal over that of the noise; 0 where the sums could be noise alone, infinite without noise.

    The squares of n normal numbers of variance s^2 sum to n s^2, with standard deviation (2n)^(1/2) s^2.
    """
    power, n = float((sums**2).sum()), len(sums)
    if std == 0.0:
        return np.inf if power > 0 else 0.0
    excess = power / std**2 - n
    return excess / n if n and excess > SURE * np.sqrt(2.0 * n) else 0.0


def expected(sums: Floats, features: Sequence[Floats]) -> Floats:
    """The mean of such pairs: float64 [pairs], the exponential of a quadratic form in `features`, by least squares.

    Noise of mean zero does not move what least squares finds, and there are thousands of pairs for a few parameters.
    """
    scaled = [(feature - feature.mean()) / (feature.std() or 1.0) for feature in features]
    products = [one * other for at, one in enumerate(scaled) for other in scaled[at:]]
    design = np.stack([np.ones(len(sums)), *scaled, *products], axis=1)
    return _exponential(design @ _least_squares(design, sums)[0])


def slopes(sums: Floats, features: Sequence[Floats], std: float) -> tuple[Floats, Floats]:
    """By how much the logarithm of the mean grows per unit of each feature, and what noise alone makes of that.

    Returns the slopes by least squares and their standard errors under noise of `std`, float64 [features] both.
    """
    centred = [feature - feature.mean() for feature in features]
    theta, normal = _least_squares(np.stack([np.ones(len(sums)), *centred], axis=1), sums)
    errors = std * np.sqrt(np.diagonal(np.linalg.pinv(normal, hermitian=True)))
    return theta[1:], errors[1:]


def posterior(sums: Floats, mean: Floats, std: float) -> Floats:
    """Each pair's value given its sum: float64 [pairs], not below zero.

    mean + v / (v + std^2) (sum - mean), with v the variance of values around their mean, measured on pairs of
    about the same mean.
    """
    groups = max(min(GROUPS, len(sums) // GROUP), 1)
    group = np.argsort(np.argsort(mean, kind="stable"), kind="stable") * groups // len(sums)
    spread = np.bincount(group, (sums - mean) ** 2, groups) / np.bincount(group, minlength=groups) - std**2
    v = np.maximum(spread, 0.0)[group]
    trust = np.divide(v, v + std**2, out=np.ones_like(v), where=v + std**2 > 0)
    values: Floats = np.maximum(mean + trust * (sums - mean), 0.0)
    return values


def spectral(matrix: Floats, std: float) -> Floats:
    """A symmetric matrix (noise of `std` on both halves, nothing on the diagonal) without what could be noise.

    Eigenvalues above the edge of the noise's spectrum, 2 std n^(1/2), keep the share of their direction that is signal:
    for an observed l, the signal is (l + (l^2 - edge^2)^(1/2)) / 2 = t, and the squared cosine between observed and
    true direction 1 - n std^2 / t^2 (Benaych-Georges and Nadakuditi 2011). Returns float64 [n, n],
    positive semidefinite.
    """
    n = len(matrix)
    value, vector = np.linalg.eigh(matrix)
    edge = 2.0 * std * np.sqrt(n)
    kept = (value > EDGE * edge) & (value > 0)
    true = (value[kept] + np.sqrt(np.maximum(value[kept] ** 2 - edge**2, 0.0))) / 2.0
    cosine = np.clip(1.0 - n * std**2 / true**2, 0.0, 1.0)
    vector = vector[:, kept]
    clean: Floats = (vector * (value[kept] * cosine)) @ vector.T
    return clean


def _least_squares(design: Floats, target: Floats) -> tuple[Floats, Floats]:
    """Theta for which exp(design theta) is nearest to `target`, and the normal matrix there.

    By Levenberg and Marquardt; the first column of `design` is 1.
    """
    theta = np.zeros(design.shape[1])
    theta[0] = np.log(max(float(target.mean()), 1e-6))
    fitted, damping = _exponential(design @ theta), 1.0
    loss = float(((target - fitted) ** 2).sum())
    for _ in range(STEPS):
        slope = design * fitted[:, None]
        normal, gradient = slope.T @ slope, slope.T @ (target - fitted)
        while True:
            step = np.linalg.solve(normal + damping * np.diag(np.diag(normal) + 1e-9), gradient)
            tried = _exponential(design @ (theta + step))
            found = float(((target - tried) ** 2).sum())
            if found <= loss or damping > 1e9:
                break
            damping *= 4.0
        if found > loss:
            break
        theta, fitted, gain = theta + step, tried, loss - found
        loss, damping = found, max(damping / 4.0, 1e-6)
        if gain < 1e-7 * loss:
            break
    slope = design * fitted[:, None]
    return theta, slope.T @ slope


def _exponential(exponent: Floats) -> Floats:
    values: Floats = np.exp(np.clip(exponent, -20.0, 20.0))
    return values
