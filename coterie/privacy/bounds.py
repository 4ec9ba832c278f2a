"""How far one user can move a sum, after everything that is done to it: what noise must hide.

`final_bound` is what a plan needs. `Bound` tells the same stage by stage, and refuses orders that void the guarantee.
`rounded_sum_norm` and `float_sum_norm` say what two habits cost that kernels avoid: rounding a float sum into the ring,
and adding floats.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import get_args

from coterie.errors import PlanError
from coterie.privacy.checks import check_number, check_whole, check_word
from coterie.privacy.events import Neighbours


def final_bound(
    part_l2: float,
    *,
    max_weight: float = 1.0,
    max_clients_per_user: int = 1,
    neighbours: Neighbours = "add-or-remove-one",
) -> float:
    """L2 bound on how much a weighted sum changes between neighbouring data sets, in the units of `part_l2`.

    A user's contribution is bounded by `part_l2` before its weight; at `max_clients_per_user` clients the worst case is
    that all of them send the same; to replace a user is to remove one and add another.

    >>> final_bound(3.0, max_clients_per_user=2, neighbours="replace-one")
    12.0
    """
    check_number("the L2 bound of one user", part_l2)
    own = Bound().clipped(part_l2).truncated(1)
    return own.weighted(max_weight).at_clients(max_clients_per_user).between(neighbours).l2


@dataclass(frozen=True, slots=True)
class Bound:
    """An L2 bound on its way from one user's vector to the noise: each stage gives the next, or refuses.

    >>> one = Bound().clipped(2.0).truncated(1 << 20).weighted(1.5).at_clients(3).between("add-or-remove-one")
    >>> one.noise_std(noise_multiplier=4.0) / (1 << 20)
    36.0

    Args:
        l2: bound on the vector of one user, at this stage; infinite before clipping.
        stages: what was done so far.
    """

    l2: float = math.inf
    stages: tuple[str, ...] = ()

    def clipped(self, norm: float) -> Bound:
        """Each user's vector scaled down to at most `norm`."""
        check_number("clip_norm", norm)
        self._refuse_after(
            "clipping",
            truncated="it would be applied to integers, which it makes fractions; clip first, then truncate",
            at_clients="it would bound a client's sum, not one user; clip each user's vector",
            between="it would bound a sum, not one user; clip each user's vector",
        )
        return self._then("clipped", min(self.l2, norm))

    def truncated(self, scale: int) -> Bound:
        """In ring units, truncated towards zero: no entry grows, so neither does the norm."""
        check_whole("scale", scale, least=1)
        self._refuse_after(
            "quantising",
            truncated="its input already is in ring units",
            at_clients="it would round a client's sum, where one user can move entries that it never touched",
            between="it would round a sum, where one user can move entries that it never touched",
        )
        return self._then("truncated", self.l2 * scale)

    def rounded(self) -> Bound:
        """To nearest integers, or with dithering, which lengthens a vector: allowed only where clipping follows."""
        self._refuse_after("rounding", clipped="it lengthens vectors beyond the clip norm; truncate towards zero")
        return self._then("rounded", math.inf)

    def weighted(self, max_weight: float | None = None) -> Bound:
        """Multiplied by a weight of at most `max_weight`, such as a number of examples over the mean number."""
        self._refuse_after("weighting", between="weights are part of what neighbours differ in; weight before")
        if max_weight is None:
            self._refuse_after(
                "weighting",
                clipped="weights multiply what one user adds, and noise for the clip norm alone is too little; state "
                "max_weight, or weight before clipping",
            )
            return self._then("weighted", math.inf)
        check_number("max_weight", max_weight)
        return self._then("weighted", self.l2 * max_weight)

    def at_clients(self, max_clients_per_user: int) -> Bound:
        """Summed over clients, at up to so many of which one user appears: worst case, with equal vectors."""
        check_whole("max_clients_per_user", max_clients_per_user, least=1)
        self._refuse_after("counting clients per user", between="neighbours are compared over all clients")
        return self._then("at_clients", self.l2 * max_clients_per_user)

    def between(self, neighbours: Neighbours) -> Bound:
        """The change between neighbouring data sets: twice the bound where one user takes another's place."""
        check_word("neighbours", neighbours, get_args(Neighbours))
        self._refuse_after("stating neighbours", between="they were stated before, and would double twice")
        return self._then("between", self.l2 * (2 if neighbours == "replace-one" else 1))

    def noise_std(self, noise_multiplier: float) -> float:
        """Standard deviation of the noise in ring units, once the bound is final."""
        check_number("noise_multiplier", noise_multiplier)
        for stage, remedy in (
            ("clipped", "clip each user's vector"),
            ("truncated", "quantise each user's vector"),
            ("between", "say which neighbours must look alike"),
        ):
            if stage not in self.stages:
                done = " -> ".join(self.stages) or "nothing was done"
                raise PlanError(f"the bound is not final ({done}): {remedy} first")
        return noise_multiplier * self.l2

    def _then(self, stage: str, l2: float) -> Bound:
        return replace(self, l2=l2, stages=(*self.stages, stage))

    def _refuse_after(self, what: str, **reasons: str) -> None:
        for stage, reason in reasons.items():
            if stage in self.stages:
                raise PlanError(f"{what} after {' -> '.join(self.stages)} voids the guarantee: {reason}")


def rounded_sum_norm(l2: float, dimension: int, scale: int) -> float:
    """The most by which one user moves a float sum that is rounded into the ring only afterwards, in real units.

    Where the others' sum lies just below a rounding edge, a user's entry of v ring units moves the result by as many as
    the next integer above v: an entry just above k - 1 moves it by k. The step from k - 1 to k gains 2k - 1 in squares
    for 2k - 3 of the user's own, so the sum of squares is largest with all entries at one k and the rest of the norm
    spent on lifting some of them to the next.

    >>> round(rounded_sum_norm(1.0, 400_000, 1 << 8), 2), round(rounded_sum_norm(1.0, 400_000, 1 << 24), 2)
    (3.02, 1.0)
    """
    check_number("the L2 bound of one user", l2)
    check_whole("dimension", dimension, least=1)
    check_whole("scale", scale, least=1)
    units = l2 * scale
    level = math.floor(units / math.sqrt(dimension)) + 1
    left = max(units**2 - dimension * (level - 1) ** 2, 0.0)
    return math.sqrt(dimension * level**2 + left * (2 * level + 1) / (2 * level - 1)) / scale


def float_sum_norm(l2: float, users: int, unit_roundoff: float = 2.0**-53) -> float:
    """The most by which one of `users` moves a sum of float vectors of norm `l2`, rounding errors included.

    A computed sum of n numbers, in whatever order, is within ``gamma |x_1| + .. + gamma |x_n|`` of the true one, with
    ``gamma = (n - 1) u / (1 - (n - 1) u)`` (Higham 2002, section 4.2). With and without the user the errors may have
    opposite signs.

    Raises:
        PlanError: so many users that nothing is known of the sum's accuracy.
    """
    check_number("the L2 bound of one user", l2)
    check_whole("users", users, least=1)
    error = (users - 1) * unit_roundoff
    if error >= 0.5:
        raise PlanError(f"a sum of {users} floats with unit roundoff {unit_roundoff:g} has no useful error bound")
    return l2 * (1 + 2 * users * error / (1 - error))
