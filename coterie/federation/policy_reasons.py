"""Why a job may not run at a node: one function for each side of it, each reason one sentence with its remedy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, time
from typing import TYPE_CHECKING, Protocol

from coterie.errors import closest
from coterie.federation.roster import Member, Roster

if TYPE_CHECKING:
    from coterie.federation.policy import Policy

FILE = "policy.toml"
TWO = 2  # parties of a sum that hides nothing from either


class JobView(Protocol):
    """What a policy looks at in a job."""

    @property
    def id(self) -> str:
        """What approvals call it: one id is one content, for ever."""

    @property
    def model(self) -> str:
        """Name of the model."""

    @property
    def aggregation(self) -> str:
        """Either "plain" or "secure"."""

    @property
    def noise(self) -> str:
        """One of "none", "central", "distributed" and "local"."""

    @property
    def epsilon(self) -> float | None:
        """Of one occurrence; None without differential privacy."""

    @property
    def delta(self) -> float | None:
        """At which epsilon is stated; None without differential privacy."""

    @property
    def max_colluding(self) -> int:
        """How many members' shares of distributed noise are not counted on."""

    @property
    def min_clients(self) -> int:
        """Fewest members in any sum."""

    @property
    def coordinator(self) -> str:
        """Fingerprint of the identity that signed it."""

    @property
    def catalogue(self) -> str:
        """One of "given", "union" and "hashed"."""

    @property
    def min_carriers(self) -> int:
        """Fewest members that must carry an item."""

    @property
    def members(self) -> tuple[str, ...]:
        """Names of those who may take part."""

    @property
    def expires(self) -> float:
        """Seconds since 1970 UTC after which nothing of it may run."""


def about_coordinator(policy: Policy, job: JobView, roster: Roster) -> Iterator[str]:
    """Who asks, and for whom."""
    if job.coordinator not in policy.coordinators:
        known = ", ".join(policy.coordinators) or "nobody"
        yield (
            f"the coordinator {job.coordinator} may not ask this node (coordinators in {FILE}: {known}); compare its "
            "fingerprint with what its operator tells you, then add it"
        )
    if roster.federation != job.coordinator:
        yield (
            f"the roster is of federation {roster.federation} and the job of {job.coordinator}; ask the coordinator's "
            "operator for a roster of its own"
        )


def about_training(policy: Policy, job: JobView) -> Iterator[str]:
    """What is trained, and how it is protected."""
    if policy.models != "any" and job.model not in policy.models:
        allowed = ", ".join(policy.models) or "none"
        yield f"the model '{job.model}' is not allowed here (models in {FILE}: {allowed}); add it, or ask for another"
    if policy.aggregation == "secure" and job.aggregation != "secure":
        yield (
            f"the job's aggregation is '{job.aggregation}' and the lowest allowed here is 'secure' (aggregation in "
            f"{FILE}); ask for a plan with aggregation = 'secure'"
        )
    if job.noise not in policy.noise:
        allowed = " or ".join(f"'{one}'" for one in policy.noise) or "nobody's"
        yield (
            f"the job's noise is '{job.noise}' and this node asks for {allowed} (noise in {FILE}); ask for a plan with "
            "that"
        )


def about_epsilon(policy: Policy, job: JobView) -> Iterator[str]:
    """What one occurrence may say about a user; what all of them may is the ledger's to keep."""
    if job.noise == "none":
        return
    if job.epsilon is None or job.delta is None:
        yield "the job has noise and states no epsilon and delta for it; ask for a plan that does"
        return
    if job.delta > policy.max_delta:
        yield (
            f"the job's delta is {job.delta:.3g} and at most {policy.max_delta:.3g} is allowed here (max_delta in "
            f"{FILE}); ask for a plan with that, or a larger max_users"
        )
    if job.noise == "distributed" and job.max_colluding < policy.colluding:
        yield (
            f"the job's noise counts on all members but max_colluding = {job.max_colluding} and this node on all but "
            f"{policy.colluding} (colluding in {FILE}); ask for a plan with that"
        )
    for key in ("max_epsilon_total", "max_epsilon_month"):
        limit = getattr(policy, key)
        if limit != "none" and job.epsilon > limit:
            yield (
                f"the job asks for epsilon = {job.epsilon:.4g} and {key} is {limit:g} here ({FILE}); ask for at most "
                "that, or raise it"
            )


def about_items(policy: Policy, job: JobView) -> Iterator[str]:
    """How items are agreed, and which of them enter."""
    if job.catalogue not in policy.catalogue:
        allowed = ", ".join(policy.catalogue) or "none"
        yield (
            f"the job agrees on items by '{job.catalogue}', which is not allowed here (catalogue in {FILE}: "
            f"{allowed}); add it, or ask for another way"
        )
    if job.min_carriers < policy.min_carriers:
        yield (
            f"the job lets items in that {job.min_carriers} nodes carry and this node asks for {policy.min_carriers} "
            f"(min_carriers in {FILE}); ask for as many"
        )


def about_sums(policy: Policy, job: JobView, own_users: int) -> Iterator[str]:
    """How many organisations, and how many users, a sum hides among."""
    if job.min_clients < policy.min_clients:
        yield (
            f"the job sums as few as {job.min_clients} nodes and this node asks for {policy.min_clients} (min_clients "
            f"in {FILE}); ask for a plan with as many"
        )
    if job.min_clients <= TWO and policy.two_party == "refuse":
        yield (
            "the job may sum two nodes, each of which can subtract its own part and then knows the other's; if you and "
            f'your partner accept that, set two_party = "consent" in {FILE}'
        )
    if own_users < policy.min_own_users:
        yield (
            f"this node has fewer users of its own than it asks for (min_own_users in {FILE}); a sum of few is about "
            "few people: add data, or lower it"  # how many is nobody else's business: the coordinator reads this
        )


def about_roster(policy: Policy, roster: Roster, own: str) -> Iterator[str]:
    """Whether the members are who this node thinks they are, and whether somebody has accepted the others."""
    if reason := policy.approvals.objection(roster):
        yield reason
    if own and own not in {one.fingerprint for one in roster.members}:
        yield (
            f"roster {roster.version} does not have this node ({own}); ask the coordinator's operator whether it was "
            "revoked"
        )
    pinned, strangers = policy.pinned, []
    for one in roster.members:
        known = pinned.get(one.name)
        if two := policy.contradictions.get(one.name):
            yield (
                f"'{one.name}' is pinned to {two[0]} in {FILE} and to {two[1]} in the approvals; ask its owner, then "
                f"correct the file or forget the other: coterie node policy unpin {one.name}"
            )
        elif known is not None and known != one.fingerprint:
            yield (
                f"'{one.name}' is pinned to {known} here and has {one.fingerprint} in roster {roster.version}; ask its "
                "owner: somebody else may be using its name"
            )
        elif known is None and one.fingerprint != own:
            strangers.append(str(one))
    if strangers and policy.approvals.roster(roster.digest) is None:
        yield (
            f"roster {roster.version} has members that nobody here has accepted: {', '.join(strangers)}; compare their "
            "fingerprints with their owners and pin them (coterie node policy pin NAME FINGERPRINT), or accept the "
            "roster as it is (coterie node policy roster --accept)"
        )


def about_cohort(policy: Policy, members: Iterable[Member], own: str) -> Iterator[str]:
    """Whether enough of those who take part are pinned: a coordinator can enrol puppets, but not their pins."""
    present = list(members)
    counted = [one for one in present if one.fingerprint in (own, policy.pinned.get(one.name))]
    if len({one.fingerprint for one in counted}) < policy.min_clients:
        rest = ", ".join(str(one) for one in present if one not in counted) or "nobody else takes part"
        yield (
            f"{len(counted)} of {len(present)} nodes are pinned here and min_clients = {policy.min_clients} counts "
            f"only those ({FILE}); not pinned: {rest}; compare fingerprints with their owners and pin them (coterie "
            "node policy pin NAME FINGERPRINT)"
        )


def about_time(policy: Policy, job: JobView, now: datetime) -> Iterator[str]:
    """Whether it is too late, or not the hour."""
    if now.timestamp() > job.expires:
        end = datetime.fromtimestamp(job.expires, UTC)
        yield (
            f"the job has expired at {end:%Y-%m-%d %H:%M} UTC and this machine's clock says "
            f"{now.astimezone(UTC):%Y-%m-%d %H:%M}; set the clock if it is wrong, or ask for a new job"
        )
    if policy.hours != "any" and not within(policy.hours, now.astimezone().time()):
        yield (
            f"it is {now.astimezone():%H:%M} here and jobs may run {policy.hours} (hours in {FILE}); wait until then, "
            "or change it"
        )


def about_decisions(policy: Policy, job: JobView) -> Iterator[str]:
    """What a person has said, or has yet to say."""
    decided = policy.approvals.job(job.id)
    if decided is not None and decided.verdict == "stopped":
        why = f" ({decided.reason})" if decided.reason else ""
        yield (
            f"the job was stopped here by {decided.by} at {decided.at}{why}; to let it run again: coterie node policy "
            f"approve {job.id}"
        )
    elif policy.approval == "person" and decided is None:
        yield f"the job waits for a person's approval here: coterie node policy approve {job.id}"


def within(hours: str, at: time) -> bool:
    """Whether a time of day lies in "HH:MM-HH:MM", which may pass midnight; its end does not.

    >>> within("20:00-06:00", time(23, 0)), within("20:00-06:00", time(6, 0))
    (True, False)
    """
    start, end = (time.fromisoformat(part) for part in hours.split("-"))
    return start <= at < end if start < end else at >= start or at < end


def unknown_models(names: Iterable[str]) -> Iterator[str]:
    """What is wrong with model names that this installation does not know."""
    from coterie.models import registry  # the models take a second to import

    for name in names:
        if name not in registry.names():
            known = closest(name, registry.names()) or f"; models: {', '.join(registry.names())}"
            yield f"models names '{name}', which is not installed here{known}"
