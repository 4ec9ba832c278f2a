"""What a node adds to the comparison that is reported back: sums over users, or over organisations, and nothing else.

Under a plan with noise the sum over users holds what was released before, and on the whole agreed catalogue: the model
that a node trains alone, its mix and its list of items depend on all of its users, so that one of them would move what
every other one adds. How joining changed things for the organisation is then a sum over organisations, in which one
user moves no more than the one that it is at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from coterie.evaluation.metrics import Measured
from coterie.evaluation.private import OWN, means_of
from coterie.experiment.charged import METRICS
from coterie.experiment.compare import headline
from coterie.experiment.deskresult import NodeResult
from coterie.experiment.deskserved import ALONE, FEDERATED, MIX, POPULARITY
from coterie.federation.localstore import UserStore
from coterie.ring import Accumulator
from coterie.types import Floats, LocalStore, RoundSpec, State, Summand, UserBlock

LARGEST_GAIN = 0.25
"""Gains of an organisation beyond this are counted as this: in a sum of few, no single one may weigh more."""


def metric_names(at: Sequence[int], *, private: bool) -> tuple[str, ...]:
    """What the sum over users measures, as ``scheme:metric@k``: names of `coterie.evaluation.private.PrivateMetrics`.

    >>> metric_names((5, 10), private=True)
    ('federated:ndcg@10', 'federated:hit_rate@10', 'popularity:ndcg@10', 'popularity:hit_rate@10')
    """
    k = headline(tuple(at)).rpartition("@")[2]
    schemes = (FEDERATED, POPULARITY) if private else (ALONE, FEDERATED, MIX, POPULARITY)
    return tuple(f"{scheme}:{metric}@{k}" for scheme in schemes for metric in METRICS)


def comparison_names() -> tuple[str, ...]:
    """What the sum over organisations says of joining: the share of them that gained, and `as_share` of the gain."""
    return ("gained", "gain")


def as_share(gain: float) -> float:
    """A gain as a number in [0, 1]: 0.5 for none, 0 and 1 from `LARGEST_GAIN` on.

    >>> as_share(0.0), as_gain(as_share(0.125))
    (0.5, 0.125)
    """
    return float(np.clip(gain / LARGEST_GAIN, -1.0, 1.0) + 1.0) / 2


def as_gain(share: float) -> float:
    """The gain of which `as_share` made `share`; of a mean of shares the mean of gains."""
    return (2 * share - 1) * LARGEST_GAIN


@dataclass(frozen=True)
class MetricsInput:
    """One node's part of a `PrivateMetrics` sum of `names`: units without rows, and what each came to in `local`."""

    names: tuple[str, ...]
    users: UserBlock
    local: LocalStore

    def contribute(
        self, summand: Summand, spec: RoundSpec, state: State, store: LocalStore | None = None
    ) -> Accumulator:
        """The clipped, quantised sum, without noise; `store` is not used."""
        out = Accumulator(spec)
        summand.contribute(spec, state, self.users, self.local, out)
        return out

    @classmethod
    def of(cls, names: tuple[str, ...], own: Floats) -> MetricsInput:
        """From what each unit came to: float64 [units, names] in [0, 1]."""
        units = len(own)
        store = UserStore(units)
        store.view(0, units).stage(OWN, own)
        store.commit()
        block = UserBlock(0, np.zeros(units + 1, np.int64), np.zeros(1, np.int64), np.zeros(0, np.int32))
        return cls(names, block, store.view(0, units))

    @classmethod
    def of_users(cls, names: tuple[str, ...], measured: Mapping[str, Measured]) -> MetricsInput:
        """The means over each user's questions; no units where nothing was measured."""
        if not measured:
            return cls.of(names, np.zeros((0, len(names))))
        pairs = [name.split(":") for name in names]
        values = np.stack([measured[scheme].metric(metric) for scheme, metric in pairs], axis=1)
        return cls.of(names, means_of(values, next(iter(measured.values())).group))

    @classmethod
    def of_comparison(cls, result: NodeResult) -> MetricsInput:
        """The organisation as the one unit of the sum of `comparison_names`; none where it could not compare."""
        own = [] if result.gain is None else [[float(result.gain > 0), as_share(result.gain)]]
        return cls.of(comparison_names(), np.array(own, np.float64).reshape(len(own), 2))
