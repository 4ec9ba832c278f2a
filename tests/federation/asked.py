"""A job, a roster and a policy that fit together, for the tests of what a node takes part in."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from coterie.federation.policy import JobView, Policy
from coterie.federation.roster import Roster
from coterie.secure.keys import Identity, fingerprint
from coterie.settings import build_as
from tests.federation.partners import roster

COORDINATOR = Identity(bytes(range(32)))  # always the same: its fingerprint names tests
FEDERATION = fingerprint(COORDINATOR.public)
ROSTER = roster(COORDINATOR, "east", "north", "south")
OWN = ROSTER.member("north").fingerprint
PINS = {one.name: one.fingerprint for one in ROSTER.members}
NOON = datetime(2030, 6, 1, 12, 0, tzinfo=UTC)


@dataclass(frozen=True)
class Job:
    """A job that the policy of these tests allows."""

    id: str = "weekly-1"
    model: str = "ease"
    aggregation: str = "secure"
    noise: str = "distributed"
    epsilon: float | None = 2.0
    delta: float | None = 1e-6
    max_colluding: int = 1
    min_clients: int = 3
    coordinator: str = FEDERATION
    catalogue: str = "union"
    min_carriers: int = 3
    members: tuple[str, ...] = ("east", "north", "south")
    expires: float = NOON.timestamp() + 86_400


def policy(**changes: Any) -> Policy:
    """A policy that allows `Job`, but for the changes."""
    return build_as(Policy, {"coordinators": [FEDERATION], "peers": PINS, "approval": "auto", **changes}, "policy.toml")


def refusals(asked: Policy, job: JobView, known: Roster = ROSTER, users: int = 5000, now: datetime = NOON) -> list[str]:
    return asked.refusals(job, known, users, now, OWN)
