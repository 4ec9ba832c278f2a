"""What a node takes part in: ``policy.toml``, written by its owner, and enforced by the node whatever anybody asks.

`Policy.refusals` says every reason why a job may not run here, each with its remedy; no reason means yes. The limits on
epsilon are kept by the node's own ledger (`Policy.apply_limits`), round by round, so that they hold for all jobs
together. What a person decides from day to day is in `coterie.federation.approvals`; this file is never rewritten.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, PrivateAttr, field_validator

from coterie.annotated import annotated
from coterie.errors import ConfigError
from coterie.federation import budget
from coterie.federation import policy_reasons as reasons
from coterie.federation.approvals import FILE as APPROVALS_FILE
from coterie.federation.approvals import Approvals, check_fingerprint
from coterie.federation.policy_reasons import FILE as POLICY_FILE
from coterie.federation.policy_reasons import JobView
from coterie.federation.roster import Member, Roster, check_name
from coterie.privacy.ledger import Ledger, Statement
from coterie.privacysettings import Section
from coterie.settings import build_as, read_toml

__all__ = ["POLICY_FILE", "Approvals", "JobView", "Policy", "policy_template"]

MIB = 1 << 20
_HOURS = re.compile(r"([01]\d|2[0-3]):[0-5]\d-([01]\d|2[0-3]):[0-5]\d")


class Policy(Section):
    """The content of ``policy.toml``."""

    models: tuple[str, ...] | Literal["any"] = Field(
        "any", description='Models that may be trained, as in ["ease", "ials"], or "any" that this installation knows.'
    )
    aggregation: Literal["secure", "plain"] = Field(
        "secure",
        description="Lowest level of protection: secure (the coordinator sees only sums) or plain (it sees what this "
        "node sends).",
    )
    noise: tuple[Literal["none", "central", "distributed", "local"], ...] = Field(
        ("distributed", "local"),
        description="Who may add the noise: each node a share of it (distributed), each user's own contribution "
        "(local), the coordinator (central), or nobody (none: no differential privacy).",
    )
    max_epsilon_total: float | Literal["none"] = Field(
        8.0,
        description="Most that all jobs together may ever say about one user: epsilon of the ledger's account for "
        "life. "
        '"none" for no limit.',
    )
    max_epsilon_month: float | Literal["none"] = Field(4.0, description='The same in any 30 days. "none" for no limit.')
    max_delta: float = Field(
        1e-4,
        gt=0,
        le=0.01,
        description="Largest delta of a job: how likely its epsilon may fail. Choose less than 1 / your users.",
    )
    colluding: int = Field(
        1,
        ge=0,
        description="How many other members might help the coordinator: noise that members add (distributed) must hide "
        "enough without theirs (max_colluding of a job).",
    )
    min_clients: int = Field(
        3,
        ge=2,
        description="Fewest organisations in a sum, this one included. Only those count whose identity is pinned: in "
        "[peers] below, or with `coterie node policy pin`.",
    )
    min_own_users: int = Field(
        100, ge=1, description="Fewest users of this node's own in a contribution: a sum of few is about somebody."
    )
    approval: Literal["person", "auto"] = Field(
        "person",
        description="person: every job waits for `coterie node policy approve JOB`; auto: a job within this policy "
        "runs.",
    )
    coordinators: tuple[str, ...] = Field(
        (),
        examples=[["66687aadf862bd776c8fc18b8e9f8e20"]],
        description="Fingerprints of the coordinators that may ask. Compare them with what the coordinator's operator "
        "tells you by another way than the invitation.",
    )
    hours: str = Field(
        "any", description='When jobs may run, by this machine\'s clock, as in "20:00-06:00"; "any" for always.'
    )
    catalogue: tuple[Literal["given", "union", "hashed"], ...] = Field(
        ("given", "union", "hashed"),
        description="How items may be agreed: given (the coordinator names them), union (this node tells the "
        "coordinator its item ids), hashed (keyed hashes of a shared identifier; the coordinator learns no ids unless "
        "a node helps it).",
    )
    min_carriers: int = Field(
        3,
        ge=1,
        description="Fewest nodes that must carry an item that is summed: with two, each computes the other's counts.",
    )
    two_party: Literal["refuse", "consent"] = Field(
        "refuse",
        description="Whether to train with one other organisation alone, which can subtract its own part from every "
        "sum and then knows this node's (consent also needs min_clients = 2 and min_carriers of 2 at most).",
    )
    max_message_mb: int = Field(512, ge=1, le=2048, description="Largest message from the coordinator, in MiB.")
    peers: dict[str, str] = Field(
        default_factory=dict,
        examples=[{"other-shop": "66687aadf862bd776c8fc18b8e9f8e20"}],
        description="Identities that are pinned: NAME = FINGERPRINT, as the organisation itself told you, not the "
        "coordinator. `coterie node start` shows this node's own.",
    )

    _approvals: Approvals = PrivateAttr(default_factory=Approvals)

    @field_validator("max_epsilon_total", "max_epsilon_month", mode="before")
    @classmethod
    def _epsilon(cls, value: Any) -> Any:
        if value == "none":
            return value
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
            raise ValueError(f"a limit on epsilon must be a positive number or 'none', got {value!r}")
        return value

    @field_validator("hours")
    @classmethod
    def _hours(cls, value: str) -> str:
        start, _, end = value.partition("-")
        if value != "any" and (not _HOURS.fullmatch(value) or start == end):
            raise ValueError(f"hours must be 'any' or HH:MM-HH:MM, such as 20:00-06:00, got {value!r}")
        return value

    @field_validator("coordinators")
    @classmethod
    def _coordinators(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(_fingerprint(one) for one in value)

    @field_validator("peers")
    @classmethod
    def _peers(cls, value: dict[str, str]) -> dict[str, str]:
        try:
            return {check_name(name): check_fingerprint(one) for name, one in value.items()}
        except ConfigError as error:
            raise ValueError(f"[peers]: {error}") from None

    @classmethod
    def load(cls, path: Path) -> Policy:
        """Read the file, and ``approvals.json`` beside it.

        Raises:
            ConfigError: it is missing, is not TOML, or has an unknown key or a wrong value.
            DataError: the approvals are damaged.
        """
        policy = build_as(cls, read_toml(path, "coterie node join"), str(path))
        for reason in reasons.unknown_models(() if policy.models == "any" else policy.models):
            raise ConfigError(f"{path}: {reason}")
        return policy.use(Approvals.load(path.with_name(APPROVALS_FILE)))

    def use(self, approvals: Approvals) -> Policy:
        """This policy, with what a person has decided; a new policy knows of nothing that was."""
        self._approvals = approvals
        return self

    @property
    def approvals(self) -> Approvals:
        """What a person has decided at this node."""
        return self._approvals

    @property
    def pinned(self) -> dict[str, str]:
        """Fingerprints of all pinned identities by name; a name that is pinned to two counts for nothing."""
        both = {**self._approvals.pins, **self.peers}
        return {name: one for name, one in both.items() if name not in self.contradictions}

    @property
    def contradictions(self) -> dict[str, tuple[str, str]]:
        """Names that ``policy.toml`` pins to one identity and the approvals to another: both fingerprints."""
        pins = self._approvals.pins
        return {name: (one, pins[name]) for name, one in self.peers.items() if pins.get(name, one) != one}

    @property
    def max_message(self) -> int:
        """Largest message from the coordinator, in bytes."""
        return self.max_message_mb * MIB

    def pin(self, name: str, fingerprint: str, by: str | None = None) -> None:
        """Pin an identity, in the approvals; see `Approvals.pin`.

        Raises:
            ConfigError: ``policy.toml`` pins the name to another identity, which counts.
        """
        if self.peers.get(name, check_fingerprint(fingerprint)) != check_fingerprint(fingerprint):
            raise ConfigError(
                f"'{name}' is pinned to {self.peers[name]} in {POLICY_FILE}, got {fingerprint}; edit it there"
            )
        self._approvals.pin(name, fingerprint, by)

    def refusals(self, job: JobView, roster: Roster, own_users: int, now: datetime, own: str = "") -> list[str]:
        """Every reason why this job may not run here now; each one sentence with its remedy. No reason: it may.

        Args:
            job: what is asked.
            roster: as the coordinator signed it, checked.
            own_users: how many users of its own this node would contribute.
            now: the time, with its zone; hours are those of this machine's own zone.
            own: fingerprint of this node, which counts as pinned.
        """
        taking_part = [one for one in roster.members if one.name in job.members]
        return [
            *reasons.about_coordinator(self, job, roster),
            *reasons.about_training(self, job),
            *reasons.about_epsilon(self, job),
            *reasons.about_items(self, job),
            *reasons.about_sums(self, job, own_users),
            *reasons.about_roster(self, roster, own),
            *reasons.about_cohort(self, taking_part, own),
            *reasons.about_time(self, job, now),
            *reasons.about_decisions(self, job),
        ]

    def roster_refusals(self, roster: Roster, own: str = "") -> list[str]:
        """Every reason why this roster is not accepted here: replayed, or with members that nobody has accepted."""
        return list(reasons.about_roster(self, roster, own))

    def cohort_refusals(self, members: Iterable[Member], own: str = "") -> list[str]:
        """Why a sum over these members may not have this node's part: too few of them are pinned.

        To be asked for every sum, and again for those who are left when it is unmasked.
        """
        return list(reasons.about_cohort(self, members, own))

    def waits(self, job: JobView) -> bool:
        """Whether the job waits for a person's approval; nothing is said about other reasons."""
        return self.approval == "person" and self._approvals.job(job.id) is None

    def apply_limits(self, ledger: Ledger, account: str, delta: float) -> Statement:
        """Set the limits on epsilon on the node's account, which then keeps them, and say where it stands.

        A stricter limit that somebody has set on the account by hand stays.

        Args:
            ledger: the node's own.
            account: its name; opened if there is none.
            delta: at which a new account counts.

        Raises:
            ConfigError: the account has a limit for another period than 30 days.
            PlanError: a delta outside (0, 1).
            EnvironmentFault: the ledger or the approvals cannot be written.
        """
        return budget.apply_limits(
            ledger, account, delta, self.max_epsilon_total, self.max_epsilon_month, self._approvals
        )


def policy_template(**values: Any) -> str:
    """An annotated ``policy.toml``; it loads as it stands. `values` stand instead of the defaults of their keys."""
    return annotated(Policy, HEADING, values)


HEADING = (
    "What this node takes part in. The node refuses whatever is not allowed here, and says why; nothing ever rewrites "
    "this file.\n\n"
    "What you decide from day to day (coterie node policy pin, approve, stop) is kept in approvals.json beside it. "
    "Keys that are commented out have no value; what follows # then is an example."
)


def _fingerprint(text: str) -> str:
    """`check_fingerprint` inside pydantic, which wants a ValueError."""
    try:
        return check_fingerprint(text)
    except ConfigError as error:
        raise ValueError(str(error)) from None
