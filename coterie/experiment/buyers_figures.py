"""The figures of the buyer's table: each scheme at each organisation, who gains, and how much of a gain is kept.

Intervals resample an organisation's users (or guests' baskets) whole. All schemes of an organisation share the same
draws, so that differences and shares of them are paired; organisations are drawn independently of each other. Means
over organisations weigh all of them alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeAlias, TypeVar

import numpy as np

from coterie import rng
from coterie.evaluation.bootstrap import MOST_GROUPS, bundles, group_sums, resampled_means
from coterie.evaluation.metrics import Measured
from coterie.evaluation.significance import Paired, holm, paired
from coterie.report.buyers_table import NOISELESS
from coterie.settings import EvaluationSettings
from coterie.types import Array, Floats

T = TypeVar("T")
Scheme: TypeAlias = tuple[str, str]
"""What was measured: its kind, and the epsilon of its federation ("" where it is of none)."""

ALONE, TEXTS, CENTRALISED = ("alone", ""), ("texts", ""), ("centralised", "")
FEDERATED, MIX = "federated", "mix"
ALPHA = 0.05


@dataclass(frozen=True)
class Member:
    """One organisation: what is known of it, and what each scheme achieved on its cases, the same for all.

    `weights` are those of its own model in its mix, by epsilon.
    """

    name: str
    facts: Mapping[str, Any]
    measured: Mapping[Scheme, Measured]
    weights: Mapping[str, float]


def figures(
    members: Sequence[Member], epsilons: Sequence[str], metric: str, settings: EvaluationSettings, seed: int
) -> dict[str, Any]:
    """What was measured, as a result states it: ``macro``, ``per_client`` and ``by_epsilon``.

    Args:
        members: at least one; all with the same schemes.
        epsilons: what the federations are called (`coterie.report.buyers_table.column`), in order.
        metric: what counts, such as ``ndcg@10``.
        settings: confidence and number of resamples.
        seed: of the resampling.
    """
    gains = {epsilon: [_gain(member, epsilon, metric, settings, seed) for member in members] for epsilon in epsilons}
    sure = {epsilon: holm([gain.p_value for gain in found], ALPHA) for epsilon, found in gains.items()}
    tables = [_Drawn.of(member, metric, settings, seed) for member in members]
    macro = _Drawn.mean_of(tables)
    return {
        "macro": nested({scheme: macro.estimate(scheme) for scheme in macro.schemes}),
        "per_client": [
            {
                "client": member.name,
                **member.facts,
                **nested({scheme: drawn.estimate(scheme) for scheme in drawn.schemes}),
                "gain": {e: {**asdict(gains[e][at]), "beyond_chance": bool(sure[e][at])} for e in epsilons},
                "mix_weight": dict(member.weights),
            }
            for at, (member, drawn) in enumerate(zip(members, tables, strict=True))
        ],
        "by_epsilon": [
            {
                "epsilon": epsilon,
                "gain": macro.gain(epsilon),
                "kept": macro.kept(epsilon) if NOISELESS in epsilons else None,
                **_counts([member.name for member in members], gains[epsilon], sure[epsilon]),
            }
            for epsilon in epsilons
        ],
    }


def nested(values: Mapping[Scheme, T]) -> dict[str, Any]:
    """Values by kind, and those of federations by epsilon below that.

    >>> nested({("alone", ""): 1, ("mix", "none"): 2, ("mix", "8"): 3})
    {'alone': 1, 'mix': {'none': 2, '8': 3}}
    """
    found: dict[str, Any] = {}
    for (kind, epsilon), value in values.items():
        if epsilon:
            found.setdefault(kind, {})[epsilon] = value
        else:
            found[kind] = value
    return found


@dataclass(frozen=True)
class _Drawn:
    """Means of all schemes (float64 [schemes]), and the same under resampling (float64 [resamples, schemes]).

    `few`: there are fewer than two users or baskets, so that resampling says nothing.
    """

    schemes: tuple[Scheme, ...]
    mean: Floats
    draws: Floats
    tail: float
    few: bool

    @classmethod
    def of(cls, member: Member, metric: str, settings: EvaluationSettings, seed: int) -> _Drawn:
        """One organisation's own draws."""
        stream = rng.stream(seed, "buyers", member.name)
        values = [measured.metric(metric) for measured in member.measured.values()]
        label = bundles(next(iter(member.measured.values())).group, MOST_GROUPS, stream)
        draws = resampled_means(group_sums(values, label), np.bincount(label), settings.resamples, stream)
        mean = np.array([one.mean() for one in values])
        return cls(tuple(member.measured), mean, draws, (1 - settings.confidence) / 2, int(label.max()) < 1)

    @classmethod
    def mean_of(cls, tables: Sequence[_Drawn]) -> _Drawn:
        """The mean over organisations."""
        mean: Floats = np.mean([one.mean for one in tables], axis=0)
        draws: Floats = np.mean([one.draws for one in tables], axis=0)
        return cls(tables[0].schemes, mean, draws, tables[0].tail, all(one.few for one in tables))

    def estimate(self, scheme: Scheme) -> dict[str, float | None]:
        at = self.schemes.index(scheme)
        return self._limits(float(self.mean[at]), self.draws[:, at])

    def gain(self, epsilon: str) -> dict[str, float | None]:
        """What the mix gives over training alone."""
        mean, draws = self._gain(epsilon)
        return self._limits(mean, draws)

    def kept(self, epsilon: str) -> dict[str, float | None] | None:
        """The gain as a share of the gain without noise; None where there is none to be kept.

        It has limits only where the gain without noise surely is one: a share of nothing may be anything.
        """
        (free, free_draws), (mean, draws) = self._gain(NOISELESS), self._gain(epsilon)
        if free <= 0:
            return None
        if np.quantile(free_draws, self.tail) <= 0:
            return {"mean": mean / free, "low": None, "high": None}
        return self._limits(mean / free, draws / np.where(free_draws > 0, free_draws, np.nan))

    def _gain(self, epsilon: str) -> tuple[float, Floats]:
        mix, alone = self.schemes.index((MIX, epsilon)), self.schemes.index(ALONE)
        return float(self.mean[mix] - self.mean[alone]), self.draws[:, mix] - self.draws[:, alone]

    def _limits(self, mean: float, draws: Floats) -> dict[str, float | None]:
        if self.few:
            return {"mean": mean, "low": None, "high": None}
        low, high = np.nanquantile(draws, [self.tail, 1 - self.tail])
        return {"mean": mean, "low": float(low), "high": float(high)}


def _gain(member: Member, epsilon: str, metric: str, settings: EvaluationSettings, seed: int) -> Paired:
    return paired(
        member.measured[ALONE],
        member.measured[MIX, epsilon],
        metric,
        confidence=settings.confidence,
        seed=seed,
    )


def _counts(names: Sequence[str], gains: Sequence[Paired], sure: Array) -> dict[str, Any]:
    """Who gains and who loses, and who does so beyond chance."""
    change = np.array([gain.difference for gain in gains])
    return {
        "better": int((change > 0).sum()),
        "worse": int((change < 0).sum()),
        "clients": len(names),
        "surely_better": [name for name, is_sure, by in zip(names, sure, change, strict=True) if is_sure and by > 0],
        "surely_worse": [name for name, is_sure, by in zip(names, sure, change, strict=True) if is_sure and by < 0],
    }
