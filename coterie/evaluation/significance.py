"""Is the difference real? Paired tests between two scorers, and over the clients that joined.

Both scorers answered the same cases, so each resampling unit (a user, a guest's basket, a client) gives one difference,
and under the hypothesis that the scorers are equally good its sign is a coin (Fisher's randomisation test, which
Smucker, Allan & Carterette 2007 recommend for ranking metrics).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.stats import wilcoxon

from coterie import rng
from coterie.errors import ConfigError, DataError
from coterie.evaluation.bootstrap import bundles, group_sums, intervals
from coterie.evaluation.metrics import Measured
from coterie.types import Floats

EXACT_GROUPS = 13
MOST_BUNDLES = 2_000
_UNCHANGED = 1e-12


@dataclass(frozen=True, slots=True)
class Paired:
    """How much better the second scorer is: the mean difference over cases and the p-value of no difference.

    `low` and `high` are None with fewer than two groups.
    """

    difference: float
    low: float | None
    high: float | None
    p_value: float
    groups: int


@dataclass(frozen=True, slots=True)
class ClientGain:
    """One client's metric without and with the federation, None where it has no case, and its `paired` test."""

    client: str
    alone: float | None
    together: float | None
    p_value: float | None = None
    cases: int = 0


@dataclass(frozen=True, slots=True)
class Change:
    """A client's change: relative to what it had alone, or absolute where it had nothing (`relative` False)."""

    client: str
    amount: float
    relative: bool

    def __str__(self) -> str:
        return _percent(self.amount) if self.relative else f"{self.amount:+.3f} from 0"


@dataclass(frozen=True, slots=True)
class Joining:
    """What joining did to `clients` compared clients; `skipped` had no case of their own.

    Macro averages weigh every client alike. `p_value` is the two-sided Wilcoxon signed-rank test over clients (None
    with fewer than two clients). `surely_helped` and `surely_hurt` count the clients whose own test stays below `alpha`
    after Holm's correction for testing all of them.
    """

    metric: str
    helped: int
    hurt: int
    unchanged: int
    clients: int
    skipped: int
    worst: Change | None
    best: Change | None
    macro_alone: float | None
    macro_together: float | None
    p_value: float | None
    surely_helped: int
    surely_hurt: int
    noun: tuple[str, str] = ("client", "clients")

    def sentence(self) -> str:
        """The plain answer: ``joining helps 31 of 37 shops, worst change -0.4 %``."""
        if self.worst is None:
            return f"nothing can be said about joining: no {self.noun[0]} has held-out cases to compare on"
        noun = self.noun[0] if self.clients == 1 else self.noun[1]
        return f"joining helps {self.helped} of {self.clients} {noun}, worst change {self.worst}"


def paired(
    base: Measured, other: Measured, metric: str, *, confidence: float = 0.95, resamples: int = 9999, seed: int = 0
) -> Paired:
    """Compare two scorers on the same cases: `difference` is the mean of `other` minus the mean of `base`.

    The test flips the signs of the groups' summed differences: all sign patterns with up to 13 groups, `resamples`
    random ones above, never p = 0. More than 2,000 groups are first dealt at random into that many bundles, whose sums
    are as symmetric under the hypothesis; this bounds the work. The interval is that of `bootstrap.intervals`.

    Raises:
        ConfigError: the metric was not measured, or `confidence` or `resamples` is out of range.
        DataError: no case, or the two were not measured on the same cases.
    """
    difference = other.metric(metric) - base.metric(metric) if base.cases == other.cases else None
    if difference is None or not np.array_equal(base.group, other.group):
        raise DataError(
            f"a paired test needs the same cases twice, got {base.cases} and {other.cases} that do not match"
        )
    if base.cases == 0:
        raise DataError(f"a paired test of '{metric}' needs at least one case")
    stream = rng.stream(seed, "paired")
    label = bundles(base.group, MOST_BUNDLES, stream)
    bounds = intervals({metric: difference}, base.group, confidence, min(resamples, 1000), seed)
    low, high = bounds.get(metric, (None, None))
    p_value = sign_flip(group_sums([difference], label)[:, 0], resamples, stream)
    return Paired(float(difference.mean()), low, high, p_value, base.groups)


def sign_flip(differences: Floats, resamples: int, stream: np.random.Generator) -> float:
    """Two-sided p-value that independent `differences` (float64 [groups]) are symmetric around 0.

    The share of sign patterns whose sum is at least as far from 0 as the one observed: over all 2^groups patterns with
    up to 13 groups, else over `resamples` random patterns and the observed one (Phipson & Smyth 2010).

    Raises:
        ConfigError: `resamples` is below 1.
    """
    if resamples < 1:
        raise ConfigError(f"resamples must be at least 1, got {resamples}")
    groups = len(differences)
    # Sums of the same numbers in another order differ by rounding; what is that close counts as equally far.
    observed = abs(float(differences.sum())) - 1e-12 * float(np.abs(differences).sum())
    if groups <= EXACT_GROUPS:
        patterns = (np.arange(2**groups)[:, None] >> np.arange(groups)) & 1
        return float((np.abs((1 - 2 * patterns) @ differences) >= observed).mean())
    as_far, batch = 0, max(1, 4_000_000 // groups)
    for start in range(0, resamples, batch):
        signs = 1 - 2 * stream.integers(2, size=(min(batch, resamples - start), groups), dtype=np.int8)
        as_far += int((np.abs(signs @ differences) >= observed).sum())
    return (as_far + 1) / (resamples + 1)


def joining(
    clients: Sequence[ClientGain], metric: str, noun: tuple[str, str] = ("client", "clients"), alpha: float = 0.05
) -> Joining:
    """Sum up what each client gained by joining, on `metric`; clients without figures are skipped and counted."""
    compared = [c for c in clients if _known(c.alone) and _known(c.together)]
    alone = np.array([c.alone for c in compared], np.float64)
    together = np.array([c.together for c in compared], np.float64)
    gain = together - alone
    gain[np.abs(gain) <= _UNCHANGED] = 0.0
    changes = sorted((_change(c.client, a, g) for c, a, g in zip(compared, alone, gain, strict=True)), key=_by_amount)
    sure = holm([c.p_value for c in compared], alpha)
    return Joining(
        metric=metric,
        helped=int((gain > 0).sum()),
        hurt=int((gain < 0).sum()),
        unchanged=int((gain == 0).sum()),
        clients=len(compared),
        skipped=len(clients) - len(compared),
        worst=changes[0] if changes else None,
        best=changes[-1] if changes else None,
        macro_alone=float(alone.mean()) if compared else None,
        macro_together=float(together.mean()) if compared else None,
        p_value=_over_clients(gain),
        surely_helped=int((sure & (gain > 0)).sum()),
        surely_hurt=int((sure & (gain < 0)).sum()),
        noun=noun,
    )


def _known(value: float | None) -> bool:
    return value is not None and math.isfinite(value)


def _change(client: str, alone: float, gain: float) -> Change:
    relative = alone > 0
    return Change(client, float(gain / alone if relative else gain), relative)


def _by_amount(change: Change) -> float:
    return change.amount


def _over_clients(gain: Floats) -> float | None:
    """Wilcoxon's signed-rank test, unchanged clients left out (exact where scipy can); 1 where none changed."""
    if len(gain) < 2:
        return None
    changed = gain[gain != 0]
    return float(wilcoxon(changed).pvalue) if len(changed) else 1.0


def holm(p_values: Sequence[float | None], alpha: float) -> np.ndarray:
    """Which hypotheses Holm's step-down procedure rejects (Holm 1979): bool [hypotheses]; None is not tested."""
    rejected = np.zeros(len(p_values), bool)
    tested = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    for step, (p, i) in enumerate(tested):
        if p > alpha / (len(tested) - step):
            break
        rejected[i] = True
    return rejected


def _percent(share: float) -> str:
    """A signed percentage with one decimal, or two figures where one decimal would show nothing."""
    percent = 100 * share
    if percent == 0:
        return "0 %"
    return f"{percent:+.1f} %" if abs(percent) >= 0.05 else f"{percent:+.2g} %"
