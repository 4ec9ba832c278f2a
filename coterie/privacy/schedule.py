"""How a privacy budget is divided over rounds.

Shares are fixed before the first round and sum to 1: then rounds compose to what was planned, whatever they release. A
schedule that looks at what was released before it decides how much the next round costs needs a privacy filter
(`Filter`), which refuses the round that would exceed the total; without one it is refused.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from coterie.errors import PlanError
from coterie.privacy.accountant import noise_multiplier
from coterie.privacy.checks import check_number, check_whole, check_word
from coterie.types import Floats

SCHEDULES = ("model", "constant", "decaying")
DECAY = 0.8  # of one round's share to the share of the round before


def scheduled(name: str, shares: Sequence[float]) -> tuple[float, ...]:
    """The budget's shares over as many rounds as the model announced, positive and with sum 1.

    Args:
        name: "model": `shares` as the model has them; "constant"; or "decaying": first rounds get most.
        shares: the model's own division.

    Raises:
        PlanError: an unknown schedule, or one that would look at private progress.

    >>> scheduled("constant", (0.9, 0.1))
    (0.5, 0.5)
    """
    if name == "adaptive":
        raise _needs_filter()
    check_word("schedule", name, SCHEDULES)
    check_whole("rounds", len(shares), least=1)
    if name == "constant":
        return constant(len(shares))
    if name == "decaying":
        return decaying(len(shares))
    for share in shares:
        check_number("a share of the budget", share)
    return tuple(share / math.fsum(shares) for share in shares)


def constant(rounds: int) -> tuple[float, ...]:
    """Equal shares."""
    check_whole("rounds", rounds, least=1)
    return (1.0 / rounds,) * rounds


def decaying(rounds: int, ratio: float = DECAY) -> tuple[float, ...]:
    """Each round gets `ratio` of the share of the one before.

    >>> " ".join(f"{share:.3f}" for share in decaying(3, 0.5))
    '0.571 0.286 0.143'
    """
    check_whole("rounds", rounds, least=1)
    check_number("ratio", ratio, most=1.0)
    weights = [ratio**t for t in range(rounds)]
    if not weights[-1]:
        raise PlanError(f"after {rounds} rounds at ratio = {ratio:g} nothing is left of the budget; use a larger ratio")
    return tuple(weight / math.fsum(weights) for weight in weights)


# --- schedules that adapt --------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Filter:
    """A privacy filter: lets releases pass, each as costly as was decided in the light of those before, up to a total.

    Zero-concentrated losses may be chosen adaptively and still add up: what stops before their sum exceeds `total` is
    `total`-zCDP (Whitehouse, Ramdas, Rogers & Wu 2023; by Rényi losses Feldman & Zrnic 2021). This does not hold for
    epsilons read off a privacy loss distribution.
    """

    total: float
    _spent: list[float] = field(default_factory=list, init=False)

    def __post_init__(self) -> None:
        check_number("the total zCDP loss", self.total)

    @classmethod
    def for_budget(cls, epsilon: float, delta: float) -> Filter:
        """The filter whose total gives (epsilon, delta)."""
        return cls(1 / (2 * noise_multiplier(epsilon, delta, mechanism="concentrated") ** 2))

    @property
    def spent(self) -> float:
        return math.fsum(self._spent)

    def admits(self, rho: float) -> bool:
        """Whether a release of this zero-concentrated loss may pass; `coterie.privacy.accountant.Event.rho` is it."""
        check_number("rho", rho)
        # Equal parts of a total may exceed it by rounding errors; the conversion to epsilon is no more exact than this.
        return math.fsum([*self._spent, rho]) <= self.total * (1 + 1e-12)

    def spend(self, rho: float) -> None:
        """Record a release before it is made.

        Raises:
            PlanError: the total would be exceeded; nothing was recorded.
        """
        if not self.admits(rho):
            raise PlanError(
                f"a release of zCDP loss {rho:.4g} would exceed the total of {self.total:.4g}, of which "
                f"{self.spent:.4g} is spent; stop, or use more noise"
            )
        self._spent.append(rho)


def spend_adaptively(filter: Filter | None, rho: float) -> None:
    """Charge a round whose noise was chosen after seeing earlier releases.

    Raises:
        PlanError: there is no filter, or it does not admit the round.
    """
    if filter is None:
        raise _needs_filter()
    filter.spend(rho)


def _needs_filter() -> PlanError:
    return PlanError(
        "a schedule that adapts to private progress has no epsilon that is known in advance; use schedule = "
        f"{', '.join(repr(name) for name in SCHEDULES)}, or spend through a privacy filter"
    )


# --- correlated noise ------------------------------------------------------------------------------------------------


def toeplitz_square_root(rounds: int) -> Floats:
    """First column of the square root of the all-ones lower triangle: float64 [rounds].

    Running sums that are noised with the rows of its inverse have correlated noise of the smallest growth known
    (Fichtenberger, Henzinger & Upadhyay 2023): ``c_k = c_(k-1) (2k - 1) / (2k)``.
    """
    check_whole("rounds", rounds, least=1)
    k = np.arange(1, rounds)
    return np.cumprod(np.concatenate([[1.0], (2 * k - 1) / (2 * k)]))


def toeplitz_inverse_square_root(rounds: int) -> Floats:
    """First column of the inverse: how noise of earlier rounds is taken back. ``d_k = d_(k-1) (2k - 3) / (2k)``."""
    check_whole("rounds", rounds, least=1)
    k = np.arange(1, rounds)
    return np.cumprod(np.concatenate([[1.0], (2 * k - 3) / (2 * k)]))


def toeplitz_sensitivity(rounds: int) -> float:
    """By how much one user of one round moves what is noised: the L2 norm of the first column."""
    return float(np.linalg.norm(toeplitz_square_root(rounds)))
