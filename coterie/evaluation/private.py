"""Metrics as a private sum: what each user's own questions came to, averaged at home, summed, noised and charged.

A user adds the means over its own questions of M metrics, each in [0, 1], and a 1 for itself. So one user moves the sum
by at most sqrt(M) and 1, however much was asked about it, and the ratio of the two parts is the mean over users.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from coterie.ring import Accumulator
from coterie.types import Floats, Integers, LocalStore, PartSpec, RoundSpec, State, Total, UserBlock

OWN = "metrics"  # what a client keeps: float64 [users, metrics], the means over each user's questions; NaN: none asked
SCALE = 1 << 20


@dataclass(frozen=True)
class PrivateMetrics:
    """`coterie.types.Summand`: the mean over users of `names`, by one round.

    Clients have their users' own means in their local store as `OWN`. The state has ``means`` and ``std`` (float64
    [metrics]: the standard deviation that the noise gives each mean) and ``users`` (float64: how many, noised).
    """

    names: tuple[str, ...]

    def next_round(self, state: State) -> RoundSpec | None:
        """See `coterie.types.Summand.next_round`."""
        if state.round:
            return None
        m = len(self.names)
        return RoundSpec(
            0,
            "user_sum",
            (
                PartSpec("values", (m,), "dense", math.sqrt(m), 1.0, SCALE, 0.8),
                PartSpec("users", (1,), "dense", 1.0, 1.0, SCALE, 0.2),
            ),
        )

    def budget(self, state: State) -> tuple[float, ...]:
        """All in one round."""
        return (1.0,)

    def contribute(
        self, spec: RoundSpec, state: State, users: UserBlock, local: LocalStore | None, out: Accumulator
    ) -> None:
        """Add each user's means, and a 1 for each user that was asked about; a clip norm shrinks both."""
        own = None if local is None else local.get(OWN)
        if own is None or not len(own):
            return
        asked = ~np.isnan(own).any(axis=1)
        values = np.clip(own[asked], 0.0, 1.0)
        part, count = spec.part("values"), spec.part("users")
        norms = np.maximum(np.sqrt((values**2).sum(axis=1)), 1e-300)
        shrink = np.minimum(1.0, np.minimum(part.l2 / norms, part.linf / np.maximum(values.max(axis=1), 1e-300)))
        whole = np.floor(values * (shrink * (1 - 1e-9))[:, None] * part.scale).astype(np.int64)
        sums = out["values"]
        sums += whole.sum(axis=0)
        out["users"][0] += int(asked.sum()) * math.floor(count.scale * min(1.0, count.l2, count.linf))

    def apply(self, spec: RoundSpec, state: State, total: Total) -> State:
        """The means from the sums."""
        users = float(total.value("users")[0])
        most = max(users, 1.0)
        means = np.clip(total.value("values") / most, 0.0, 1.0)
        std = np.full(len(self.names), total.noise_std["values"] / most)
        return state.updated(round=spec.index + 1, means=means, std=std, users=np.array(users))


def means_of(values: Floats, group: Integers) -> Floats:
    """Each unit's mean over its questions, in the order of the units: float64 [units, metrics].

    Args:
        values: float64 [cases, metrics].
        group: int64 [cases], whose case it is.
    """
    units, index = np.unique(group, return_inverse=True)
    sums = np.zeros((len(units), values.shape[1]))
    np.add.at(sums, index, values)
    means: Floats = sums / np.bincount(index, minlength=len(units))[:, None]
    return means
