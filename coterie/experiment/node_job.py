"""What a member keeps of a job that it takes part in, and what it needs of its log, vault and egress log."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from coterie.errors import PeerError, PlanError, ProtocolViolation
from coterie.evaluation.private import PrivateMetrics
from coterie.experiment.conductor import SENT
from coterie.experiment.desk import MetricsInput, NodeResult, Work, comparison_names, metric_names
from coterie.experiment.signing import verify_folder
from coterie.federation.agreed import Agreed
from coterie.federation.checkpoint import load_state, state_digest
from coterie.federation.job import Job
from coterie.federation.keeping import Memory
from coterie.federation.node_rounds import NodeRounds, Sum
from coterie.federation.nodeagreement import NodeAgreement
from coterie.federation.policy import POLICY_FILE
from coterie.federation.release import Books
from coterie.federation.roster import COORDINATOR, Roster
from coterie.files import write_bytes
from coterie.models.base import Model
from coterie.ring import Accumulator
from coterie.secure.keys import fingerprint
from coterie.types import LocalStore, RoundSpec, State, Summand, UserBlock

CHARGED = ("model", "metrics", "comparison")  # the sums of a job that hold something of users


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
    """One occurrence of a job that this member has accepted; `users` of its own it had then, `statement` is what was
    signed.
    """

    job: Job
    name: str
    roster: Roster
    rounds: NodeRounds
    users: int
    statement: Mapping[str, Any] = field(default_factory=dict)
    agreement: NodeAgreement | None = None
    agreed: Agreed | None = None
    work: Work | None = None
    result: NodeResult | None = None

    def close(self) -> None:
        """Erase the secrets of all attempts, and give back what was set aside and not needed."""
        self.rounds.close()
        if (one := self.rounds.sums.get("model")) is not None and one.books is not None:
            for what in CHARGED:
                one.books.settle(what)


@dataclass(frozen=True)
class Carried:
    """Which items the organisation carries, as the one row of a sum over organisations."""

    row: UserBlock

    def contribute(self, summand: Summand, spec: RoundSpec, state: State, store: LocalStore | None) -> Accumulator:
        out = Accumulator(spec)
        summand.contribute(spec, state, self.row, None, out)
        return out


def job_row(job: Job, name: str, state: str, waiting: Sequence[str], taken: Taken | None = None) -> dict[str, Any]:
    """A job as the member's operator sees it; one that was refused may promise what no plan holds."""
    try:
        epsilon = float(job.whole_plan.epsilon) if job.whole_plan.private else None
    except PlanError:
        epsilon = None
    round = None if taken is None else taken.rounds.last_round
    what = {"id": job.id, "occurrence": name, "model": job.kind, "state": state}
    return what | {"epsilon": epsilon, "round": round, "waiting": list(waiting)}


def check_agreed(job: Job, agreed: Agreed, *, final: bool) -> None:
    """Refuse items that fewer members carry than the job says, or that were agreed in another way or by others.

    Not `final` are those of which it is still to be counted who carries them.

    Raises:
        ProtocolViolation: they are such items.
    """
    if agreed.mode != job.catalogue or agreed.min_carriers < job.min_carriers:
        raise ProtocolViolation("the items were not agreed as the job says; the coordinator changed mode or carriers")
    if agreed.members > len(job.members):
        raise ProtocolViolation(f"{agreed.members} members are said to have agreed on items, of {len(job.members)}")
    if not final and (agreed.counted or job.catalogue != "given"):
        raise ProtocolViolation("the coordinator would count who carries items of which that is known")
    if final and not agreed.counted:
        raise ProtocolViolation("the coordinator did not count who carries the items, as min_carriers demands")


def check_covered(covered: float, users: int, least: int) -> None:
    """Refuse items with which too few of `users` own users take part; `covered` is the share of them who do.

    Raises:
        PeerError: they are fewer than `least`; how many they are is nobody else's business.
    """
    if covered * users < least - 0.5:
        raise PeerError(
            f"fewer users of this node than it asks for (min_own_users in {POLICY_FILE}) have any of the items that "
            "were agreed; a sum of few is about few people"
        )


def set_aside(books: Books, job: Job, model: Model, opening: State) -> None:
    """Set aside all that the job will cost, or nothing of it.

    Raises:
        BudgetExceeded: the account cannot pay for all.
    """
    plan = job.training_plan
    shares = model.budget(opening) if plan.private else (1.0,)
    wanted = {"model": plan.events(shares)}
    if job.evaluate and job.metrics_share:
        wanted |= dict.fromkeys(CHARGED[1:], job.report_plan.events((1.0,)))
    try:
        for what, events in wanted.items():
            books.prepare(what, dict(enumerate(events)))
    except BaseException:
        for what in CHARGED:
            books.settle(what)
        raise


def received(folder: Path, blobs: Mapping[str, bytes | bytearray | memoryview], federation: str, summed: Sum) -> Path:
    """The folder with the model that came, in `folder`.

    What is there by then is replaced only by one that proved to be right: signed by the coordinator's own key, whose
    fingerprint `federation` is, every file the one that was signed, and a model that can be computed on as what was
    `summed`.

    Raises:
        PeerError: a file is missing, or another key signed.
        ProtocolViolation: the model is none of this kind and catalogue.
        RunError: the signature does not hold.
        EnvironmentFault: it cannot be written.
    """
    part, joint = folder / "joint.part", folder / "joint"
    for name in SENT:
        if name not in blobs:
            raise PeerError(f"{COORDINATOR}: the model came without its {name}")
    shutil.rmtree(part, ignore_errors=True)
    for name in SENT:
        write_bytes(part / name, bytes(blobs[name]))
    manifest = verify_folder(part, trust=federation, only=SENT)
    if fingerprint(bytes.fromhex(manifest["public_key"])) != federation:
        raise PeerError(f"{COORDINATOR}: the model is signed by another key than the coordinator's")
    summed.sound(load_state(part / "model.safetensors"))
    shutil.rmtree(joint, ignore_errors=True)
    return part.replace(joint)


def add_reports(taken: Taken, state: State) -> None:
    """What the next sums may ask for: means over own users, and the own gain as one unit."""
    job, work, result = taken.job, taken.work, taken.result
    if work is None or result is None or (job.whole_plan.private and not job.metrics_share):
        return
    start, paid = state_digest(State(0)), job.report_plan
    books, alike = taken.rounds.sums["model"].books, taken.rounds.sums["model"].alike
    names = metric_names(job.at, private=job.whole_plan.private)
    inputs = work.metrics_input(job.build(), state)
    taken.rounds.sums["metrics"] = Sum(PrivateMetrics(names), paid, start, inputs, books, alike)
    gains = MetricsInput.of_comparison(result)
    taken.rounds.sums["comparison"] = Sum(PrivateMetrics(comparison_names()), paid, start, gains, books, alike)
