"""A private quantile: the clip norm below which a chosen share of users lies, found by a few noised rounds.

Andrew, Thakkar, McMahan, Ramaswamy 2021, "Differentially private learning with adaptive clipping": a clip norm C moves
by C <- C exp(-rate (b - quantile)), where b is the share of users whose statistic is at most C. Of each user only
+1/2 (at most C) or -1/2 (above) is summed, so that one user moves the sum by 1/2.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from coterie.errors import PlanError
from coterie.privacy.checks import check_number, check_whole
from coterie.privacy.counts import unit
from coterie.ring import Accumulator
from coterie.types import Array, LocalStore, PartSpec, RoundSpec, State, Total, UserBlock

HALF = 0.5


def adapted(clip: float, below_share: float, quantile: float, rate: float) -> float:
    """The next clip norm: ``clip exp(-rate (below_share - quantile))`` (section 2.1).

    >>> round(adapted(10.0, below_share=0.9, quantile=0.5, rate=0.2), 3)
    9.231
    """
    return clip * math.exp(-rate * (below_share - quantile))


def update_multiplier(noise_multiplier: float, count_noise: float) -> float:
    """The noise multiplier that is left for an update when counting below the clip norm shares its budget.

    ``(z^-2 - (2 sigma_b)^-2)^(-1/2)`` (theorem 1): one release of the update with this multiplier and of the count of
    +-1/2 with standard deviation `count_noise` (sigma_b) are together what one with `noise_multiplier` (z) is alone.

    Raises:
        PlanError: the count alone would use more than the whole budget (2 sigma_b <= z).

    >>> round(update_multiplier(1.0, 5.0), 9)
    1.005037815
    """
    if noise_multiplier <= 0 or 2 * count_noise <= noise_multiplier:
        raise PlanError(
            f"a count with noise {count_noise:g} leaves nothing of noise multiplier {noise_multiplier:g} for the "
            f"update; it must be above {noise_multiplier / 2:g}"
        )
    return float((noise_multiplier**-2 - (2 * count_noise) ** -2) ** -0.5)


@dataclass(frozen=True, slots=True)
class ClippingQuantile:
    """A `coterie.types.Summand` that finds the `quantile` of `statistic` over users, in `rounds` rounds of equal share.

    Round t moves ``clip`` by the rate ``rate decay^t``: far at first, finely in the end. Every round also sums the
    users (a tenth of its budget), because their number is private too; the mean over the rounds so far is used. The
    state holds ``clip``, ``users`` (mean of the noised counts) and ``below`` (the last noised share, within [0, 1]).

    Args:
        statistic: from a block to one number per user, such as `coterie.privacy.counts.item_counts`; a user's number
            must depend on that user's rows alone.
        quantile: share of users that should lie at or below the clip norm.
        initial: where to start: a public number, chosen without looking. The median can be found up to about 600 times
            above and below it, a far quantile less far on one side.
        rounds, rate, decay: how the search moves.

    Raises:
        PlanError: a value out of range.
    """

    statistic: Callable[[UserBlock], Array]
    quantile: float = 0.5
    initial: float = 10.0
    rounds: int = 10
    rate: float = 4.0
    decay: float = 0.7

    def __post_init__(self) -> None:
        check_number("quantile", self.quantile, most=1.0)
        check_number("initial", self.initial)
        check_number("rate", self.rate)
        check_number("decay", self.decay, least=0.01, most=1.0, open=False)
        check_whole("rounds", self.rounds, least=1)

    def init(self) -> State:
        """The state before round 0."""
        return State(0, {"clip": np.array(self.initial, np.float64), "users": np.array(0.0)})

    def next_round(self, state: State) -> RoundSpec | None:
        if state.round >= self.rounds:
            return None
        below = PartSpec("below", (1,), "dense", HALF, HALF, 2, budget_share=0.9)
        users = PartSpec("users", (1,), "dense", 1.0, 1.0, 1, budget_share=0.1)
        return RoundSpec(state.round, "user_sum", (below, users))

    def budget(self, state: State) -> tuple[float, ...]:
        return (1.0 / self.rounds,) * self.rounds

    def contribute(
        self, spec: RoundSpec, state: State, users: UserBlock, local: LocalStore | None, out: Accumulator
    ) -> None:
        values = self.statistic(users)
        if values.shape != (users.n_users,):
            raise ValueError(f"the statistic gave shape {values.shape} for {users.n_users} users")
        below = int(np.count_nonzero(values <= float(state["clip"])))
        out["below"][0] += (2 * below - users.n_users) * unit(spec.part("below"), HALF)
        out["users"][0] += users.n_users * unit(spec.part("users"), 1.0)

    def apply(self, spec: RoundSpec, state: State, total: Total) -> State:
        counted = float(total.integers["users"][0]) / unit(spec.part("users"), 1.0)
        users = (spec.index * float(state["users"]) + counted) / (spec.index + 1)
        more_below = HALF * float(total.integers["below"][0]) / unit(spec.part("below"), HALF)
        share = min(max(HALF + more_below / max(users, 1.0), 0.0), 1.0)
        clip = adapted(float(state["clip"]), share, self.quantile, self.rate * self.decay**spec.index)
        return state.updated(spec.index + 1, clip=np.array(clip), users=np.array(users), below=np.array(share))
