"""The one way out: whatever is derived from private logs leaves the federation through `release`.

A sum leaves charged: the budget was reserved before any client worked, and is spent, durably, before the first share of
it is shown to anybody. What a simulation shows beyond that (raw metrics, counts of rows) leaves too, but marked: it is
outside any epsilon, and the run says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from coterie.errors import PlanError
from coterie.privacy.accountant import Event

T = TypeVar("T")


class Ticket(Protocol):
    """A reservation of budget for one attempt at one round."""

    def spend(self) -> None:
        """Make the charge durable; nothing leaves before this returns."""

    def give_back(self, reason: str) -> None:
        """Return a reservation of which nothing was released; a spent one stays spent."""


class Books(Protocol):
    """What the round loop needs of a ledger."""

    def prepare(self, what: str, events: Mapping[int, Event]) -> None:
        """Set aside what the coming rounds will cost, all or nothing; raises where the limit would be passed."""

    def reserve(self, what: str, round: int, event: Event) -> Ticket:
        """Set budget aside for an attempt; raises where the limit would be passed, and nobody has worked then."""

    def settle(self, what: str) -> None:
        """Give back what was set aside for rounds that were not needed."""


@dataclass
class Left:
    """One thing that left: what it is, whether it was charged, and if not why it may be seen all the same."""

    what: str
    charged: bool
    why: str = ""


@dataclass
class Exit:
    """The way out of one training: its books, and the record of all that left.

    `events` are what the accountant is told of the sums that left, in order. Without `books` (a run that nobody keeps
    an account for, simulated noise, or no promise at all) they are counted here alone.
    """

    books: Books | None = None
    left: list[Left] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)

    def prepare(self, what: str, events: Mapping[int, Event]) -> None:
        """Set aside what all coming rounds will cost: a training that cannot be paid for does not begin.

        Raises:
            BudgetExceeded: the account cannot pay for all of them.
        """
        if self.books is not None and events:
            self.books.prepare(what, events)

    def settle(self, what: str) -> None:
        """Give back what was set aside for rounds that were not needed."""
        if self.books is not None:
            self.books.settle(what)

    def open(self, what: str, round: int, event: Event | None) -> Door:
        """Reserve what one attempt at a round costs.

        Raises:
            BudgetExceeded: the account cannot pay for it.
        """
        ticket = None if self.books is None or event is None else self.books.reserve(what, round, event)
        return Door(self, what, ticket, event)


@dataclass
class Door:
    """The way out for one attempt at one round."""

    exit: Exit
    what: str
    ticket: Ticket | None = None
    event: Event | None = None
    is_open: bool = False

    def spend(self) -> None:
        """Spend what was reserved: called once, right before the first share is shown to anybody."""
        if self.ticket is not None:
            self.ticket.spend()
        if self.event is not None:
            self.exit.events.append(self.event)
        self.is_open = True

    def close(self, reason: str) -> None:
        """End an attempt that failed: what was not spent is given back."""
        if self.ticket is not None and not self.is_open:
            self.ticket.give_back(reason)


def release(value: T, door: Door) -> T:
    """Let a sum out. Its charge must have been spent.

    Raises:
        PlanError: it was not; nothing leaves.
    """
    if door.event is not None and not door.is_open:
        raise PlanError(f"{door.what}: its privacy was not paid for, so it stays here")
    door.exit.left.append(Left(door.what, charged=door.event is not None))
    return value


def disclose(value: T, what: str, exit: Exit, why: str) -> T:
    """Let something out that no epsilon covers, and say so: what a simulation may show because it is one."""
    released = release(value, Door(exit, what))
    exit.left[-1].why = why
    return released


def nothing() -> None:
    """What an engine calls before anything leaves, where nothing is charged."""


Leave = Callable[[], None]
Facts = Mapping[str, Any]
