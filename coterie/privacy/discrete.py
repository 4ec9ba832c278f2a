"""How close integer noise is to Gaussian noise: what is lost by adding what can be added exactly.

Shares of noise are discrete Gaussians, N_Z(0, s^2): integers with probability proportional to exp(-x^2 / 2 s^2). Two
things have to be proved of their sum: that it is nearly one discrete Gaussian (`summing_tau`; Kairouz, Liu & Steinke
2021), and that a discrete Gaussian is nearly a rounded Gaussian, since integers plus rounded noise is real numbers plus
noise, rounded, and rounding afterwards is free (`rounding_distance`). `total_variation` is the distance between what is
added and what is accounted for; it is charged to delta. Proofs: docs/explanation/accounting.md. Everything is in ring
units.
"""

from __future__ import annotations

import math

from coterie.errors import PlanError
from coterie.privacy.checks import check_number, check_whole

LEAST_SHARE_STD = 4.0  # of one share, in ring units; sums of coarser ones are refused


def total_variation(std_units: float, dimension: int, shares: int = 1, share_std: float | None = None) -> float:
    """Upper bound on the distance between a sum of `shares` discrete Gaussians and a rounded Gaussian, per release.

    About ``sqrt(dimension) / (24 std_units^2)``.

    Args:
        std_units: standard deviation of the Gaussian that is accounted for; that of the sum is at least as large.
        dimension: entries of the vector, each with noise of its own.
        shares: how many discrete Gaussians are summed; their variances may differ.
        share_std: standard deviation of the smallest share; default ``std_units / sqrt(shares)``.

    Raises:
        PlanError: a share below 4 ring units, where a sum of discrete Gaussians begins to differ from one.
    """
    check_number("std_units", std_units)
    check_whole("dimension", dimension, least=1)
    tau = summing_tau(shares, _share(std_units, shares, share_std))
    summed = dimension * -math.expm1(-tau / 2)
    return min(1.0, summed + rounding_distance(std_units, dimension))


def least_std(distance: float, dimension: int) -> float:
    """The smallest standard deviation, in ring units, with `rounding_distance` of at most `distance`."""
    check_number("distance", distance, most=1.0)
    check_whole("dimension", dimension, least=1)
    std = max(LEAST_SHARE_STD, math.sqrt(math.sqrt(dimension) / (24 * distance)))
    while rounding_distance(std, dimension) > distance:
        std *= 1.001
    return std


def concentrated_multiplier(l2: float, dimension: int, shares: int, share_std: float) -> float:
    """Noise multiplier of the "concentrated" event that a sum of `shares` equal discrete Gaussians is.

    No distance is charged, but (epsilon, delta) then follows from zCDP, which is looser: for rings too narrow for
    `total_variation`. A user moves the integers by at most `l2` in `dimension` entries.

    Kairouz, Liu & Steinke 2021, proposition 14: the sum is (epsilon^2 / 2)-zCDP with
    ``epsilon = l2 / (sqrt(shares) share_std) + tau sqrt(dimension)``.
    """
    check_number("l2", l2)
    check_whole("dimension", dimension, least=1)
    tau = summing_tau(shares, _share(share_std, 1, share_std))
    return 1 / (l2 / (math.sqrt(shares) * share_std) + tau * math.sqrt(dimension))


def summing_tau(shares: int, share_std: float) -> float:
    """``10 sum over k < shares of exp(-2 pi^2 s^2 k / (k + 1))``: Kairouz, Liu & Steinke 2021, theorem 1.

    The probabilities of a sum of discrete Gaussians of standard deviation at least s are within a factor of
    ``e^(tau / 2)`` of those of one with the same variance. Holds from s = 1/2.
    """
    check_whole("shares", shares, least=1)
    check_number("share_std", share_std, least=0.5, open=False)
    exact = min(shares - 1, 64)
    terms = [math.exp(-2 * (math.pi * share_std) ** 2 * k / (k + 1)) for k in range(1, exact + 1)]
    # Terms fall with k: those not written out are at most the last that is.
    return 10 * (math.fsum(terms) + (shares - 1 - exact) * (terms[-1] if terms else 0.0))


def rounding_distance(std: float, dimension: int) -> float:
    """Upper bound on the total variation between N_Z(0, std^2) and rounded N(0, std^2), `dimension` times each.

    By their chi-squared divergence c in one dimension: ``sqrt((1 + c)^dimension - 1) / 2``.
    """
    check_number("std", std, least=1.0, open=False)
    return min(1.0, 0.5 * math.sqrt(math.expm1(min(dimension * math.log1p(_chi_squared(std)), 2.0))))


def _chi_squared(std: float) -> float:
    """Upper bound on the chi-squared divergence of rounded N(0, s^2) from N_Z(0, s^2): about ``1 / (144 s^4)``.

    The ratio of probabilities at x, but for a constant factor, lies between ``1 - 1 / (24 s^2)`` and
    ``exp(x^2 / (24 s^4))``. The upper side, squared, is a fourth moment of a discrete Gaussian with `widening` times
    the variance. Poisson summation bounds that moment and the constant factor.
    """
    variance = std * std
    widening = 1 / (1 - 1 / (6 * variance))
    frequency = 2 * math.pi * std * math.sqrt(widening)
    fourth_moment = 3 + 4 * frequency**4 * math.exp(-(frequency**2) / 2)
    factor = 1 + 4 * math.exp(-2 * math.pi**2 * variance)
    return factor**2 * (1 + math.sqrt(widening) * widening**2 * fourth_moment) / (576 * variance**2)


def _share(total_std: float, shares: int, share_std: float | None) -> float:
    check_whole("shares", shares, least=1)
    share = total_std / math.sqrt(shares) if share_std is None else share_std
    check_number("share_std", share)
    if share < LEAST_SHARE_STD:
        raise PlanError(
            f"a share of the noise has a standard deviation of {share:.3g} ring units, fewer than {LEAST_SHARE_STD:g}; "
            "use a larger scale, a wider ring or fewer shares"
        )
    return share
