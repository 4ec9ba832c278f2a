"""What is told to the ledger, and what it hands back: charges and receipts, and the names and numbers they may have."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, TypeAlias

from coterie.errors import ConfigError, LedgerError, PlanError
from coterie.privacy.events import Event
from coterie.privacy.ledger_tables import LONGEST_NAME

Limit: TypeAlias = float | Literal["none"] | None
"""A limit to set, "none" to lift it, or None to leave it as it is."""


@dataclass(frozen=True, slots=True)
class Charge:
    """One attempt at one round of one job of a run, and what it costs.

    Args:
        run: name of the run, unique among the runs of the account.
        job: which part of the run ("final", "metrics", ...).
        round: from 0.
        attempt: from 0; every attempt has fresh noise, so each is a charge of its own.
        events: what the accountant is told of the release.
        delta: what the plan states its epsilon at; the account's own where this charge opens it.
        model: name of the model, for the statement.
        fingerprint: keyed digest of the log's content. Evidence of what was charged for, never a key: whoever appends a
            row has another fingerprint and the same account.

    Raises:
        PlanError: no events, different neighbours among them, or a delta outside (0, 1).
        LedgerError: a name that cannot be printed, or a number below 0.
    """

    run: str
    job: str
    round: int
    attempt: int
    events: tuple[Event, ...]
    delta: float
    model: str = ""
    fingerprint: str = ""

    def __post_init__(self) -> None:
        for what, text in (("run", self.run), ("job", self.job)):
            if not text or not text.isprintable():
                raise LedgerError(f"the {what} of a charge must have a name that can be printed, got {text!r}")
        for what, text in (("model", self.model), ("fingerprint", self.fingerprint)):
            if not text.isprintable():
                raise LedgerError(f"the {what} of a charge must be printable, got {text!r}")
        for what, number in (("round", self.round), ("attempt", self.attempt)):
            if number < 0:
                raise LedgerError(f"the {what} of a charge counts from 0, got {number}")
        if not self.events:
            raise PlanError(f"{self}: has no events; what releases nothing is not charged")
        if len({event.neighbours for event in self.events}) > 1:
            raise PlanError(f"{self}: its events are about different neighbours and do not compose")
        check_delta(self.delta)

    def __str__(self) -> str:
        return f"{self.run}, {self.job} round {self.round}, attempt {self.attempt}"


@dataclass(frozen=True, slots=True)
class Receipt:
    """A reserved charge. It is no secret: what it is worth is in the ledger."""

    id: str
    account: str
    run: str
    job: str
    round: int
    attempt: int

    def __str__(self) -> str:
        return f"{self.run}, {self.job} round {self.round}, attempt {self.attempt}"


def check_name(name: str) -> str:
    """The name of an account.

    Raises:
        ConfigError: empty, too long, with spaces around it or with characters that cannot be printed.
    """
    if name and name == name.strip() and name.isprintable() and len(name) <= LONGEST_NAME:
        return name
    raise ConfigError(
        f"an account's name must be 1 to {LONGEST_NAME} characters that can be printed, without spaces around it, got "
        f"{name!r}"
    )


def check_delta(delta: float) -> float:
    """The delta of an account or a charge.

    Raises:
        PlanError: outside (0, 1).
    """
    if 0 < delta < 1:
        return delta
    raise PlanError(f"delta must be between 0 and 1, both excluded, got {delta!r}")


def check_limit(what: str, value: Limit) -> None:
    """A limit on epsilon, or the length of a period.

    Raises:
        ConfigError: not a number that can be one.
    """
    if value is None or value == "none":
        return
    least = "more than 0" if what == "period_days" else "at least 0"
    if not math.isfinite(value) or value < 0 or (what == "period_days" and value == 0):
        raise ConfigError(f"{what} must be a number, {least}, got {value!r}")
