"""What a member keeps of a job that it takes part in, and what it needs of its log, vault and egress log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

from coterie.evaluation.private import PrivateMetrics
from coterie.experiment.desk import MetricsInput, NodeResult, Work, comparison_names, metric_names
from coterie.federation.agreed import Agreed
from coterie.federation.checkpoint import state_digest
from coterie.federation.job import Job
from coterie.federation.node_rounds import Memory, NodeRounds, Sum
from coterie.federation.nodeagreement import NodeAgreement
from coterie.federation.roster import Roster
from coterie.ring import Accumulator
from coterie.types import LocalStore, RoundSpec, State, Summand, UserBlock


class Egress(Protocol):
    """What the egress log must do (`coterie.federation.egress`)."""

    def append(
        self,
        job: str | None,
        round: int | None,
        kind: str,
        bytes: int,
        sha256: str,
        contains: str,
        masked: bool,
        epsilon: float | None,
        *,
        vault: int | None = None,
    ) -> Any:
        """Write a line; durable when this returns."""


class NodeVault(Memory, Protocol):
    """What a member keeps, encrypted (`coterie.federation.vault`)."""

    @property
    def changes(self) -> int:
        """How many changes there have been."""

    def get(self, name: str) -> bytes | None:
        """An object, or None."""

    def put(self, name: str, content: bytes) -> None:
        """Replace an object; durable when this returns."""


@dataclass
class Taken:
    """One occurrence of a job that this member has accepted."""

    job: Job
    name: str
    roster: Roster
    rounds: NodeRounds
    agreement: NodeAgreement | None = None
    agreed: Agreed | None = None
    work: Work | None = None
    result: NodeResult | None = None


@dataclass(frozen=True)
class Carried:
    """Which items the organisation carries, as the one row of a sum over organisations."""

    row: UserBlock

    def contribute(self, summand: Summand, spec: RoundSpec, state: State, store: LocalStore | None) -> Accumulator:
        out = Accumulator(spec)
        summand.contribute(spec, state, self.row, None, out)
        return out


def add_reports(taken: Taken, state: State) -> None:
    """What the next sums may ask for: means over own users, and the own gain as one unit."""
    job, work, result = taken.job, taken.work, taken.result
    if work is None or result is None or (job.whole_plan.private and not job.metrics_share):
        return
    start, paid = state_digest(State(0)), job.report_plan
    books = taken.rounds.sums["model"].books
    names = metric_names(job.at, private=job.whole_plan.private)
    inputs = work.metrics_input(job.build(), state)
    taken.rounds.sums["metrics"] = Sum(PrivateMetrics(names), paid, start, inputs, books)
    gains = MetricsInput.of_comparison(result)
    taken.rounds.sums["comparison"] = Sum(PrivateMetrics(comparison_names()), paid, start, gains, books)
