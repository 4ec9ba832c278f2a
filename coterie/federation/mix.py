"""The mix: how much of a silo's own model goes into what it serves.

A silo serves ``(1 - w) federated + w own``, both solved on its own catalogue. The weight is 0.25 unless the silo's own
validation, paired case by case, prefers another weight by more than one standard error. The choice is made and kept at
home; it protects against peers only, since own statistics enter without noise.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coterie.types import Floats, Integers

DEFAULT_WEIGHT = 0.25
WEIGHTS = (0.0, 0.25, 0.5, 0.75, 1.0)


@dataclass(frozen=True, slots=True)
class MixChoice:
    """The chosen weight of the own model and, in words, why."""

    weight: float
    reason: str


def choose_weight(gains: dict[float, Floats], group: Integers) -> MixChoice:
    """Apply the one-standard-error rule to validation values.

    Args:
        gains: for each weight of `WEIGHTS`, the validation metric of each case (float64 [cases]).
        group: int64 [cases], the resampling unit (user or basket) of each case; units are independent, cases are not.

    The weight with the largest mean is taken if its mean paired difference to `DEFAULT_WEIGHT` exceeds one standard
    error of that difference over units; otherwise the default stays. With fewer than two units nothing can be said.
    """
    units, index = np.unique(group, return_inverse=True)
    if len(units) < 2:
        return MixChoice(DEFAULT_WEIGHT, f"default: {len(units)} validation baskets or users are too few to choose")
    best = max(WEIGHTS, key=lambda weight: (gains[weight].mean(), -abs(weight - DEFAULT_WEIGHT)))
    if best == DEFAULT_WEIGHT:
        return MixChoice(DEFAULT_WEIGHT, "default: best on validation")
    difference = gains[best] - gains[DEFAULT_WEIGHT]
    error = _clustered_error(difference, index, len(units))
    if difference.mean() > error:
        return MixChoice(best, f"validation gains {difference.mean():.4f}, more than one standard error ({error:.4f})")
    return MixChoice(
        DEFAULT_WEIGHT, f"default: {best} gains {difference.mean():.4f}, within one standard error ({error:.4f})"
    )


def _clustered_error(difference: Floats, index: Integers, units: int) -> float:
    """Standard error of the mean of `difference`, clustered by unit (linearised ratio estimator)."""
    sums = np.bincount(index, weights=difference - difference.mean(), minlength=units)
    return float(np.sqrt(units / (units - 1) * (sums**2).sum()) / len(difference))
