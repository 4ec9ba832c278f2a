"""Whether a member takes up a job that it is offered: what the job itself must be, then what the policy says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from coterie.errors import CoterieError
from coterie.federation import policy_reasons
from coterie.federation.job import DAY, Job
from coterie.federation.policy import Policy
from coterie.federation.roster import Roster
from coterie.secure.keys import fingerprint

EARLY = 0.9  # a job that recurs may come this share of its interval after the last time, not sooner


@dataclass(frozen=True)
class Self:
    """What a member knows of itself: its name, its identity, how many users of its own it has."""

    name: str
    public: bytes
    users: int


@dataclass(frozen=True)
class Objections:
    """Why a job is not taken up: reasons that stay (`never`), and those that a person or the hour may take away."""

    never: tuple[str, ...] = ()
    now: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.never or self.now)


def objections(
    job: Job,
    roster: Roster,
    occurrence: int,
    last: Mapping[str, Any] | None,
    policy: Policy,
    own: Self,
    now: datetime,
) -> Objections:
    """Every reason against one occurrence of a job.

    Args:
        job, roster: as the coordinator signed them, checked.
        occurrence: which one.
        last: of the same job, the occurrence that was taken up last and when (``occurrence``, ``at``).
        policy: of this member, as it is now.
        own: this member.
        now: the time, with its zone.
    """
    if roster.digest != job.roster_sha256 or any(one not in roster.names for one in job.members):
        return Objections(("the job was signed for another roster than the one that came with it",))
    if own.name not in job.members or roster.member(own.name).public != own.public:
        return Objections((f"{own.name} is not among the members of the job under its own identity",))
    try:
        job.build()
        view = Viewed(job)
        every = policy.refusals(view, roster, own.users, now, fingerprint(own.public))
    except CoterieError as error:
        return Objections((str(error),))
    passing = set(_may_change(policy, view, roster, now, fingerprint(own.public)))
    never, waits = [one for one in every if one not in passing], [one for one in every if one in passing]
    waits += _strangers(job, roster, policy, own)
    if last is not None and occurrence < last["occurrence"]:
        never.append(f"occurrence {occurrence} is over: {last['occurrence']} came already")
    if last is not None and occurrence > last["occurrence"] and job.every_days is not None:
        due = last["at"] + EARLY * job.every_days * DAY
        if now.timestamp() < due:
            when = datetime.fromtimestamp(due, UTC)
            waits.append(f"it comes again too early: not before {when:%Y-%m-%d %H:%M} UTC")
    return Objections(tuple(never), tuple(waits))


def _may_change(policy: Policy, view: Viewed, roster: Roster, now: datetime, own: str) -> Iterator[str]:
    """The reasons that a person at this member, or the hour, may take away: the job is offered again until then."""
    yield from policy.roster_refusals(roster, own)
    yield from policy.cohort_refusals((one for one in roster.members if one.name in view.members), own)
    if policy.waits(view):
        yield from policy_reasons.about_decisions(policy, view)
    if now.timestamp() <= view.expires:
        yield from policy_reasons.about_time(policy, view, now)


def _strangers(job: Job, roster: Roster, policy: Policy, own: Self) -> Iterator[str]:
    """Members of a secure sum whose identity nobody here has compared: among enough puppets no mask hides anything."""
    known = {*policy.pinned.items(), (own.name, fingerprint(own.public))}
    strangers = [
        str(one) for one in roster.members if one.name in job.members and (one.name, one.fingerprint) not in known
    ]
    remedy = "compare fingerprints with their owners and pin them (coterie node policy pin NAME FINGERPRINT)"
    if strangers and job.whole_plan.aggregation == "secure":
        yield (
            f"the job sums {', '.join(strangers)} too, and this node masks with nobody whose identity is not pinned: "
            f"{remedy}"
        )
    if strangers and job.catalogue == "hashed":
        yield (
            f"the key of the hashes of items would be shared with {', '.join(strangers)}, whose identity is not pinned "
            f"here: {remedy}"
        )


@dataclass(frozen=True)
class Viewed:
    """A job as a policy looks at it (`coterie.federation.policy.JobView`)."""

    job: Job

    @property
    def id(self) -> str:
        return self.job.id

    @property
    def model(self) -> str:
        return self.job.kind

    @property
    def aggregation(self) -> str:
        return str(self.job.whole_plan.aggregation)

    @property
    def noise(self) -> str:
        return str(self.job.whole_plan.noise)

    @property
    def epsilon(self) -> float | None:
        plan = self.job.whole_plan
        return float(plan.epsilon) if plan.private else None

    @property
    def delta(self) -> float | None:
        return self.job.whole_plan.delta

    @property
    def max_colluding(self) -> int:
        return self.job.whole_plan.max_colluding

    @property
    def min_clients(self) -> int:
        return self.job.min_clients

    @property
    def coordinator(self) -> str:
        return self.job.federation

    @property
    def catalogue(self) -> str:
        return self.job.catalogue

    @property
    def min_carriers(self) -> int:
        return self.job.min_carriers

    @property
    def members(self) -> tuple[str, ...]:
        return self.job.members

    @property
    def expires(self) -> float:
        return float(self.job.expires)
