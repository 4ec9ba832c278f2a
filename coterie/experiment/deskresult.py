"""What a node learns for itself from a job, and the run folder that it keeps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coterie.evaluation.metrics import Measured
from coterie.evaluation.significance import Paired
from coterie.experiment.deskserved import ALONE, CHOICES, MIX
from coterie.experiment.tidy import finite
from coterie.federation.mix import MixChoice


@dataclass(frozen=True)
class NodeResult:
    """What a node learned from a job: for itself, on its own held-out part. None of it leaves but as a charged sum.

    `metrics` holds, by scheme (``alone``, ``federated``, ``mix``, ``popularity``), every metric over the node's own
    catalogue: an own item that was not agreed cannot be suggested by the federation's model, and counts against it; the
    mix scores it by the own model. `gain` is the mean of `metric` with the mix minus alone over `cases` questions,
    `low` and `high` its interval over `users` (None where nothing was held out, or too little). The mix was chosen on
    other rows (`mix_weight`, `mix_reason`), so the gain is nobody's pick of the best; `kept` is: the scheme that did
    best here, which `folder` serves.
    """

    sentence: str
    metrics: Mapping[str, Mapping[str, float]]
    metric: str
    gain: float | None
    low: float | None
    high: float | None
    p_value: float | None
    cases: int
    users: int
    mix_weight: float
    mix_reason: str
    kept: str
    coverage: Mapping[str, float]
    folder: Path | None = None

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON (NaN is null)."""
        plain: dict[str, Any] = finite({
            **asdict(self), "folder": None if self.folder is None else str(self.folder)
        })  # fmt: skip
        return plain


def node_result(
    measured: Mapping[str, Measured],
    gain: Paired | None,
    metric: str,
    choice: MixChoice,
    coverage: Mapping[str, float],
    folder: Path | None,
) -> NodeResult:
    """What was measured, in numbers and in one sentence; `measured` is empty where nothing was held out."""
    kept = _best(measured, metric)
    found = measured.get(MIX)
    return NodeResult(
        sentence=_sentence(measured, gain, metric, coverage),
        metrics={scheme: one.means() for scheme, one in measured.items()},
        metric=metric,
        gain=None if gain is None else gain.difference,
        low=None if gain is None else gain.low,
        high=None if gain is None else gain.high,
        p_value=None if gain is None else gain.p_value,
        cases=0 if found is None else found.cases,
        users=0 if found is None else found.groups,
        mix_weight=choice.weight,
        mix_reason=choice.reason,
        kept=kept,
        coverage=dict(coverage),
        folder=folder,
    )


def _best(measured: Mapping[str, Measured], metric: str) -> str:
    """The scheme with the best mean; the mix where nothing was measured."""
    if not measured:
        return MIX
    return max(CHOICES, key=lambda scheme: float(measured[scheme].metric(metric).mean()))


def _sentence(measured: Mapping[str, Measured], gain: Paired | None, metric: str, coverage: Mapping[str, float]) -> str:
    """The answer to the one question: what do I gain by joining?"""
    part = "" if coverage["rows"] == 1 else f"; {coverage['rows']:.1%} of your rows take part"
    if gain is None:
        return f"what you gain is not known: nothing that could be asked was held out of your log{part}"
    alone, mix = (float(measured[scheme].metric(metric).mean()) for scheme in (ALONE, MIX))
    asked = f"{measured[MIX].cases:,} questions of {measured[MIX].groups:,} users or guests"
    facts = f"({metric} {alone:.4f} alone, {mix:.4f} together, on {asked}{part})"
    if gain.low is None or gain.high is None:
        return f"you gain {gain.difference:+.4f} by joining, from too few users to say how sure that is {facts}"
    about = f"{gain.difference:+.4f} ± {(gain.high - gain.low) / 2:.4f}"
    if gain.low <= 0 <= gain.high:
        return f"you gain {about} by joining, which may be chance {facts}"
    if gain.difference < 0:
        return f"you lose by joining: {about} {facts}"
    return f"you gain {about} by joining {facts}"
