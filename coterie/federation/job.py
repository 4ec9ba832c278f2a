"""A job: what the coordinator asks its members to train together, in words that each of them checks. No code travels.

A job names a model, its hyper-parameters and a plan, all of which every member's own installed version must know; who
takes part (the roster's digest); how the items are agreed; how long each step may take. It is signed once, by the
coordinator's identity; a job that recurs is the same signed job with another occurrence number.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from coterie.errors import PeerError, PlanError
from coterie.federation.envelope import canonical
from coterie.federation.roster import COORDINATOR
from coterie.federation.sealed import SIGNATURE, opened, sealed
from coterie.models.base import Model
from coterie.models.registry import build
from coterie.privacy.binding import Roster as Present
from coterie.privacy.binding import digest, least_clients
from coterie.privacy.plan import Plan
from coterie.privacysettings import PlanSettings, Section
from coterie.secure.keys import Identity, fingerprint, sha256
from coterie.secure.terms import Terms, least_threshold
from coterie.settings import describe
from coterie.types import Array, State

DAY = 86_400
KIND = "job"


class Job(Section):
    """What a job says, complete. Times are seconds since 1970 UTC."""

    id: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,63}$")
    federation: str = Field(pattern=r"^[0-9a-f]{32}$")
    model: dict[str, Any]
    plan: PlanSettings
    seed: int = 0
    catalogue: Literal["given", "union", "hashed"] = "union"
    given_sha256: str | None = None
    min_carriers: int = Field(3, ge=1)
    ratings: bool = False
    timed: bool = False
    roster_sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    members: tuple[str, ...] = Field(min_length=2)
    min_nodes: int = Field(2, ge=2)
    phase_seconds: float = Field(120.0, gt=0, le=7 * DAY)
    patience_seconds: float = Field(3600.0, gt=0, le=30 * DAY)
    attempts: int = Field(5, ge=1, le=100)
    at: tuple[int, ...] = (10,)
    evaluate: bool = True
    metrics_share: float = Field(0.0, ge=0, lt=1)
    created: int
    expires: int
    times: int = Field(1, ge=1, le=1000)
    every_days: float | None = Field(None, gt=0)

    @property
    def kind(self) -> str:
        """Name of the model."""
        return str(self.model.get("name", "cart"))

    @cached_property
    def whole_plan(self) -> Plan:
        """The plan of everything that the job releases.

        Raises:
            PlanError: it promises what it cannot hold, or asks for what a federation does not do.
        """
        values = self.plan.model_dump()
        plan = Plan(neighbours=values.pop("adjacency"), **values)
        if plan.sampler != "all":
            raise PlanError(f"sampler = '{plan.sampler}': a federation of organisations sums everybody; use 'all'")
        if plan.simulated_noise:
            raise PlanError("simulated_noise is for simulations; the noise of a federation comes from its members")
        if plan.noise == "local":
            raise PlanError(
                "noise = 'local' depends on how many users each member has, which nobody tells; use another"
            )
        if plan.masks == "elided":
            raise PlanError("masks = 'elided' is for simulations; members of a federation always mask")
        return plan.but(masks="real") if plan.aggregation == "secure" else plan

    @property
    def training_plan(self) -> Plan:
        """The part of the plan that pays for the model."""
        return self.whole_plan.slice(1 - self.metrics_share)

    @property
    def report_plan(self) -> Plan:
        """What pays for each of the two sums in which members report the model's worth."""
        return self.whole_plan.slice(self.metrics_share / 2) if self.metrics_share else self.whole_plan

    @property
    def counting_plan(self) -> Plan:
        """What counts who carries which items: no user's data enters, so without noise, but over as many members."""
        whole = self.whole_plan
        return Plan(aggregation=whole.aggregation, min_clients=self.min_clients, threshold=whole.threshold)

    def build(self) -> Model:
        """The model.

        Raises:
            ConfigError: this installation does not know it, or one of its hyper-parameters.
        """
        return build(self.model)

    @property
    def min_clients(self) -> int:
        """Fewest members in any sum."""
        return least_clients(self.whole_plan, Present(0, len(self.members)))

    @property
    def threshold(self) -> int:
        """Fewest members that can unmask a secure sum."""
        clients = len(self.members)
        return self.whole_plan.threshold or least_threshold(clients, clients - 1)

    def name_of(self, occurrence: int) -> str:
        """What messages and ledgers call one occurrence."""
        return f"{self.id}.{occurrence}"


def sign_job(job: Job, identity: Identity) -> dict[str, Any]:
    """The job as a statement that the coordinator's identity has signed."""
    return sealed(KIND, job.model_dump(mode="json"), identity)


def read_job(statement: Any, coordinator: bytes) -> Job:
    """The job in a statement of `sign_job`, once its signature proved to be that of `coordinator` (public key).

    Raises:
        PeerError: it is not signed by that key, or says what no job of this version says.
    """
    if not isinstance(statement, dict):
        raise PeerError(f"{COORDINATOR}: sent something that is not a signed job")
    content = opened(KIND, statement, coordinator, COORDINATOR)
    try:
        job = Job.model_validate(content)
    except ValidationError as error:
        raise PeerError(f"{COORDINATOR}: the job is not one of this version of Coterie: {describe(error)}") from None
    if job.federation != fingerprint(coordinator):
        raise PeerError(f"{COORDINATOR}: the job belongs to the federation {job.federation}, not to this one")
    return job


def grounds(statement: Mapping[str, Any], agreed: bytes) -> bytes:
    """SHA-256 of what every party of a job's sums must have been told alike (32 bytes).

    It enters the terms of each attempt, so that members who were shown other jobs under one name, or other items in
    other places, have no masks in common: what one of them sums could be told from the rest otherwise.

    Args:
        statement: the job as it was signed; not as one version understands it, since two versions may work together.
        agreed: digest of the agreed items, `coterie.federation.agreed.Agreed.digest`.
    """
    signed = {key: value for key, value in statement.items() if key != SIGNATURE}
    return sha256(sha256(canonical(signed)) + agreed)


def opening(model: Model, plan: Plan, n_items: int, public: Mapping[str, Array], seed: int) -> State:
    """The state before the first round; under a plan with noise the model knows how much of it there will be."""
    known = dict(public)
    if plan.private:
        shares = model.budget(model.init(n_items, known, seed))
        known["noise_multiplier"] = np.array(plan.total_multiplier(shares), np.float64)
        known["max_users"] = np.array(plan.max_users, np.int64)
    return model.init(n_items, known, seed)


def terms_of(name: str, what: str, round: int, attempt: int, plan: Plan, alike: bytes, clients: int) -> Terms:
    """What all parties of one attempt at a round agree on: each computes it by itself, from the job alone.

    Args:
        name: the occurrence, as `Job.name_of` has it.
        what: what is summed: the model, metrics, carriers.
        round, attempt: which.
        plan: of that sum.
        alike: what all of them were told alike besides, as `grounds` has it.
        clients: members in the roster, all of whom may take part.
    """
    return Terms(
        job=f"{name}/{what}".encode(),
        round=round,
        attempt=attempt,
        plan_hash=sha256(digest(plan) + alike),
        ring_bits=plan.ring_bits,
        clients=clients,
        degree=clients - 1,
        threshold=plan.threshold or least_threshold(clients, clients - 1),
        min_clients=max(least_clients(plan, Present(0, clients)), 2),
    )
