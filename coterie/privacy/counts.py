"""How many users and baskets there are, as a private sum: one round, bounded per user, charged like everything else.

Under differential privacy these numbers are as private as any other: that one more person shops here is what
add-or-remove-one neighbours differ in.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from coterie.errors import PlanError
from coterie.privacy.checks import check_whole
from coterie.ring import Accumulator
from coterie.types import Integers, LocalStore, PartSpec, RoundSpec, State, Total, UserBlock


@dataclass(frozen=True, slots=True)
class Counts:
    """A `coterie.types.Summand` of one round: users, and baskets with an item, at most `max_baskets` of each user.

    Afterwards the state holds ``users`` and ``baskets`` (float64; noise may take them below zero) and the standard
    deviations of their noise, ``users_noise`` and ``baskets_noise``. Baskets beyond a user's bound are not counted: a
    small bound counts too few, a large one needs more noise.

    Raises:
        PlanError: `max_baskets` is not a positive whole number.
    """

    max_baskets: int = 20

    def __post_init__(self) -> None:
        check_whole("max_baskets", self.max_baskets, least=1)

    def init(self) -> State:
        """The state before the round."""
        return State(0)

    def next_round(self, state: State) -> RoundSpec | None:
        if state.round > 0:
            return None
        most = float(self.max_baskets)
        parts = (PartSpec("users", (1,), "dense", 1.0, 1.0, 1), PartSpec("baskets", (1,), "dense", most, most, 1))
        return RoundSpec(0, "user_sum", parts)

    def budget(self, state: State) -> tuple[float, ...]:
        return (1.0,)

    def contribute(
        self, spec: RoundSpec, state: State, users: UserBlock, local: LocalStore | None, out: Accumulator
    ) -> None:
        baskets = spec.part("baskets")
        kept = np.minimum(basket_counts(users).astype(np.float64), bound(baskets))
        out["users"][0] += users.n_users * unit(spec.part("users"), 1.0)
        out["baskets"][0] += np.floor(baskets.scale * kept).astype(np.int64).sum()

    def apply(self, spec: RoundSpec, state: State, total: Total) -> State:
        users = float(total.integers["users"][0]) / unit(spec.part("users"), 1.0)
        noise = {f"{part.name}_noise": np.array(total.noise_std[part.name]) for part in spec.parts}
        baskets = total.value("baskets")[0]
        return state.updated(spec.index + 1, users=np.array(users), baskets=np.array(baskets), **noise)


def basket_counts(users: UserBlock) -> Integers:
    """How many baskets with an item each user has: int64 [users]."""
    filled = np.concatenate([[0], np.cumsum(np.diff(users.basket_ptr) > 0)])
    return np.diff(filled[users.user_baskets()]).astype(np.int64)


def item_counts(users: UserBlock) -> Integers:
    """How many interactions each user has: int64 [users]."""
    return np.diff(users.user_ptr)


def bound(part: PartSpec) -> float:
    """The largest value of one entry that keeps both bounds of a part of one entry."""
    return min(part.l2, part.linf)


def unit(part: PartSpec, value: float) -> int:
    """`value` in ring units under the bounds of its part: what one user adds where all add the same.

    Raises:
        PlanError: less than one ring unit is left of it.
    """
    units = int(part.scale * min(value, bound(part)))
    if units < 1:
        raise PlanError(
            f"part '{part.name}': what one user adds ({min(value, bound(part)):g}) is less than a ring unit at scale "
            f"{part.scale}; use ring_bits = 64, or a larger clip norm"
        )
    return units
