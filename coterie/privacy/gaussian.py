"""One Gaussian mechanism, exactly: epsilon, delta and noise from its closed form (Balle & Wang 2018, theorem 8)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Gaussian:
    """Gaussian noise of `noise_multiplier` standard deviations per unit that one user can move the sum, in L2.

    An infinite multiplier is no release at all.
    """

    noise_multiplier: float

    def epsilon(self, delta: float) -> float:
        """The smallest epsilon at `delta`."""
        if self.delta(0.0) <= delta:
            return 0.0
        return _first(lambda candidate: self.delta(candidate) <= delta)

    def delta(self, epsilon: float) -> float:
        """``Phi(1/(2z) - epsilon z) - e^epsilon Phi(-1/(2z) - epsilon z)``.

        Written with scaled complementary error functions: e^epsilon cancels, and nothing overflows.
        """
        from scipy.special import erfcx

        if self.noise_multiplier == math.inf:
            return 0.0
        centre, half = epsilon * self.noise_multiplier, 1 / (2 * self.noise_multiplier)
        near, far = centre - half, centre + half
        if near < -30:  # within 1e-190 of it
            return 1.0
        return float(0.5 * math.exp(-near * near / 2) * (erfcx(near / math.sqrt(2)) - erfcx(far / math.sqrt(2))))


def gaussian_multiplier(epsilon: float, delta: float) -> float:
    """The smallest noise multiplier of an (epsilon, delta)-private Gaussian."""
    return _first(lambda candidate: Gaussian(candidate).delta(epsilon) <= delta)


def _first(holds: Callable[[float], bool]) -> float:
    """The smallest positive float from which on a condition holds."""
    high = 1.0
    while not holds(high):
        high *= 2
    low = high / 2
    while holds(low):
        low, high = low / 2, low
    while low < (middle := (low + high) / 2) < high:
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
