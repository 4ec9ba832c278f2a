"""A member's half of every round: its own clipping, its own noise, its own masks, its own charge.

Nothing here is believed of the coordinator but what the job says: the terms of an attempt, the round's parts and
bounds, the noise and the charge are computed anew from the signed job and the model's state, and an attempt that was
seen before is never answered again.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeGuard

from coterie.errors import (
    CoterieError,
    LedgerError,
    ModelError,
    PeerError,
    PlanError,
    ProtocolViolation,
    SecureAggregationError,
)
from coterie.federation.checkpoint import state_digest, unpack_state
from coterie.federation.job import Job, terms_of
from coterie.federation.keeping import Kept, Memory, Staged
from coterie.federation.network import KEYS, PLAIN, SHARES, SIGNATURES, SUM, SURVIVORS
from coterie.federation.release import Books, Ticket
from coterie.models.base import Model
from coterie.models.soundness import check_state
from coterie.privacy import accountant
from coterie.privacy.accountant import Event
from coterie.privacy.noise import SystemBits, add_discrete_gaussian
from coterie.privacy.plan import BoundRound, Plan
from coterie.ring import Accumulator
from coterie.secure.client import Client
from coterie.secure.keys import Identity
from coterie.secure.terms import Summed
from coterie.types import RoundSpec, State, Summand

HELD = ".held"  # what a round staged, until it is known that the round succeeded
CONTAINS = {
    KEYS: "fresh public keys of one attempt, signed",
    SHARES: "shares of this attempt's secrets, sealed for each other member",
    SUM: "this organisation's sums, with its share of the noise, masked: readable only in the sum with the others",
    PLAIN: "this organisation's sums, in the clear",
    SURVIVORS: "a signature of the list of members that are in the sum",
    SIGNATURES: "shares of other members' secrets that unmask the sum and nothing else",
}


class Contributor(Protocol):
    """What sums a member's own rows (`coterie.experiment.desk`)."""

    def contribute(self, summand: Summand, spec: RoundSpec, state: State, store: Kept | None) -> Accumulator:
        """This organisation's clipped integers, without noise."""


@dataclass(frozen=True)
class Leaving:
    """What a message that is about to leave holds, for the egress log: `epsilon` is what it has cost each user."""

    kind: str
    contains: str
    round: int | None = None
    masked: bool = False
    epsilon: float | None = None


@dataclass(frozen=True)
class Sum:
    """One kind of sum of a job: what is summed, by which plan, from which state on, and who sums the own rows."""

    summand: Summand
    plan: Plan
    start: bytes
    """SHA-256 of the state before round 0, as this member computes it."""
    contributor: Contributor
    books: Books | None = None
    alike: bytes = b""
    """What this member was told of job and items: `coterie.federation.job.grounds`."""
    opening: State | None = None
    """The state before round 0, where there is more than one round."""

    def sound(self, state: State) -> None:
        """Refuse a later state that the model cannot compute on: the coordinator made it.

        Raises:
            ProtocolViolation: it is not one; says why.
        """
        if self.opening is None or not isinstance(self.summand, Model):
            return
        try:
            check_state(self.summand.name, state, self.opening)
        except ModelError as error:  # of what the coordinator sent alone
            raise ProtocolViolation(str(error)) from None


@dataclass
class _Attempt:
    """One attempt that this member takes part in: its secrets, in memory alone."""

    number: int
    client: Client | None


@dataclass
class NodeRounds:
    """The rounds of one occurrence of a job at one member.

    `sums` are the kinds of sum that the job has by now, `enrolled` the pinned identities of all its members, and `left`
    is told what the answer will hold.
    """

    name: str
    job: Job
    identity: Identity
    coordinator: bytes
    enrolled: Collection[bytes]
    memory: Memory
    left: Callable[[Leaving], None]
    sums: dict[str, Sum] = field(default_factory=dict)
    _open: dict[tuple[str, int], _Attempt] = field(default_factory=dict)

    @property
    def last_round(self) -> int | None:
        """The newest round of the model that this member has begun an attempt at."""
        begun = list(self._open)  # at once: whoever asks is another thread
        return max((round for what, round in begun if what == "model"), default=None)

    def answer(
        self, header: Mapping[str, Any], blobs: Mapping[str, bytes | bytearray | memoryview]
    ) -> tuple[list[str | None], dict[str, bytes | bytearray]]:
        """Do the tasks of one message: for each an error in words or None, and what it answers."""
        tasks = header.get("tasks")
        if not isinstance(tasks, list) or not 1 <= len(tasks) <= 2 or not all(isinstance(one, dict) for one in tasks):
            raise PeerError("the coordinator sent a round without one or two tasks")
        self.settle(header.get("done"))
        errors, answers = list[str | None](), dict[str, bytes | bytearray]()
        for at, task in enumerate(tasks):
            try:
                answers[str(at)] = self._do(task, bytes(blobs.get(str(at), b"")), blobs.get("state"))
                errors.append(None)
            except CoterieError as error:
                errors.append(told(error))
        return errors, answers

    def settle(self, done: Any) -> None:
        """Make final what an attempt has staged here, if it is one of those that became the model.

        `done` lists, as [round, attempt], all whose sum this member's part is in: who was away when a round ended hears
        of it whenever it is back.
        """
        record = self.memory.record(f"{self.name}{HELD}")
        if record is None or record["final"] or not isinstance(done, list):
            return
        if [record["round"], record["attempt"]] not in done:
            return
        held, store = self.memory.store(f"{self.name}{HELD}"), self.memory.store(self.name)
        for name, array in held.arrays().items():
            store.stage(name, array)
        store.commit(record["round"], record["attempt"])
        self.memory.put_record(f"{self.name}{HELD}", {**record, "final": True})

    def close(self) -> None:
        """Erase the secrets of all attempts."""
        for attempt in self._open.values():
            if attempt.client is not None:
                attempt.client.close()
        self._open.clear()

    # --- one task ---------------------------------------------------------------------------------------------------

    def _do(
        self, task: Mapping[str, Any], message: bytes, state: bytes | bytearray | memoryview | None
    ) -> bytes | bytearray:
        what, round, number, step = (task.get(key) for key in ("what", "round", "attempt", "step"))
        known = isinstance(what, str) and isinstance(step, str) and step in CONTAINS
        if not (known and _natural(round) and _natural(number)):
            raise PeerError("the coordinator sent a task that names no step of a round")
        if what not in self.sums:
            raise PeerError(f"the coordinator asked for '{what}', which this job does not sum at this time")
        if step in (SUM, PLAIN) and state is None:
            raise PeerError("the coordinator asked for a sum without the model that it is of")
        if step == PLAIN:
            return self._plain(what, round, number, bytes(state or b""))
        attempt = self._begun(what, round, number) if step == KEYS else self._known(what, round, number)
        return self._step(attempt, what, round, str(step), message, bytes(state or b""))

    def _step(
        self, attempt: _Attempt, what: str, round: int, step: str, message: bytes, state: bytes
    ) -> bytes | bytearray:
        client = attempt.client
        if client is None:
            raise ProtocolViolation("this attempt is not one of secure aggregation")
        match step:
            case "keys":
                reply: bytes | bytearray = client.advertise(message)
            case "shares":
                reply = client.share(message)
            case "sum":
                return self._sum(attempt, client, what, round, message, state)
            case "survivors":
                reply = client.sign(message)
            case _:
                reply = client.unmask(message)
        self.left(Leaving(step, CONTAINS[step], round))
        return reply

    def _begun(self, what: str, round: int, number: int) -> _Attempt:
        """A new attempt, with fresh secrets; its number is on disk before anything of it leaves.

        Raises:
            ProtocolViolation: an attempt of this number, or a later one, was begun before.
        """
        known = self._open.get((what, round))
        if known is not None and known.number == number:
            return known  # the same message again: the client answers it as before, and no other
        self._claim(what, round, number)
        if known is not None and known.client is not None:
            known.client.close()
        one = self.sums[what]
        terms = terms_of(self.name, what, round, number, one.plan, one.alike, len(self.job.members))
        client = Client(self.identity, self.coordinator, terms, self.enrolled)
        self._forget_others(what, round)
        begun = self._open[what, round] = _Attempt(number, client)
        return begun

    def _claim(self, what: str, round: int, number: int) -> None:
        record = self.memory.record(f"{self.name}.attempts") or {}
        seen = int(record.get(f"{what}/{round}", -1))
        if number <= seen:
            raise ProtocolViolation(
                f"round {round}: attempt {number} was begun before (the last one was {seen}); a replayed attempt is "
                "never answered: the coordinator must start a new one"
            )
        self.memory.put_record(f"{self.name}.attempts", {**record, f"{what}/{round}": number})

    def _known(self, what: str, round: int, number: int) -> _Attempt:
        attempt = self._open.get((what, round))
        if attempt is None or attempt.number != number:
            raise PeerError(
                f"round {round}, attempt {number}: this member holds no secrets of it (it was started again since, or "
                "came later); it takes part in the next attempt"
            )
        return attempt

    def _forget_others(self, what: str, round: int) -> None:
        """Erase what is left of rounds that are not beside this one: of two at most there ever are any."""
        for key in [key for key in self._open if key[0] == what and abs(key[1] - round) > 1]:
            attempt = self._open.pop(key)
            if attempt.client is not None:
                attempt.client.close()

    # --- the sum ----------------------------------------------------------------------------------------------------

    def _sum(
        self, attempt: _Attempt, client: Client, what: str, round: int, message: bytes, content: bytes
    ) -> bytes | bytearray:
        """Check the model, accept the others' shares, contribute, add noise, mask; charged before it leaves."""
        one, state = self.sums[what], self._state(what, round, content)
        bound = self._bound(one, state, round)
        size = sum(part.size for part in bound.spec.parts)
        client.accept(message, Summed(state_digest(state), size))
        sums = self._sums(what, round)
        ticket = None if one.books is None or bound.event is None else one.books.reserve(what, round, bound.event)
        try:
            values = self._contribution(one, bound, state, what, attempt.number)
            reply = client.mask(values.flat)
        except BaseException as error:
            _return(ticket, error)
            raise
        self._spend(ticket, what, round, sums)
        self.left(Leaving(SUM, CONTAINS[SUM], round, masked=True, epsilon=_cost(one.plan, bound.event)))
        return reply

    def _plain(self, what: str, round: int, number: int, content: bytes) -> bytes:
        """The same without masks, where job and policy say so."""
        one, state = self.sums[what], self._state(what, round, content)
        bound = self._bound(one, state, round)
        if bound.aggregation != "plain":
            raise ProtocolViolation("the coordinator asked for sums in the clear, and the job says secure aggregation")
        self._claim(what, round, number)
        sums = self._sums(what, round)
        ticket = None if one.books is None or bound.event is None else one.books.reserve(what, round, bound.event)
        try:
            reply = self._contribution(one, bound, state, what, number).flat.astype("<i8").tobytes()
        except BaseException as error:
            _return(ticket, error)
            raise
        self._spend(ticket, what, round, sums)
        self.left(Leaving(PLAIN, CONTAINS[PLAIN], round, epsilon=_cost(one.plan, bound.event)))
        return reply

    def _state(self, what: str, round: int, content: bytes) -> State:
        """The model that the coordinator sent: of this round, and before the first one what this member expects."""
        state = unpack_state(content, "the coordinator's model")
        if state.round != round:
            raise ProtocolViolation(f"the coordinator sent a model of round {state.round} for round {round}")
        if round == 0 and state_digest(state) != self.sums[what].start:
            raise ProtocolViolation(
                "the model before the first round is not what job, items and plan lead to; the coordinator altered it, "
                "or runs another version of Coterie"
            )
        self.sums[what].sound(state)
        return state

    def _bound(self, one: Sum, state: State, round: int) -> BoundRound:
        """The round as this member computes it: bounds, scales, noise, charge."""
        spec = one.summand.next_round(state)
        if spec is None or spec.index != round:
            raise ProtocolViolation(f"the model asks for no round {round}: the training is over")
        shares = one.summand.budget(state) if one.plan.private else (1.0,)
        try:
            return one.plan.bind(spec, one.plan.max_users, len(self.job.members), shares=shares)
        except PlanError as error:  # of public facts alone
            raise ProtocolViolation(f"round {round} cannot keep what the plan promises: {error}") from None

    def _contribution(self, one: Sum, bound: BoundRound, state: State, what: str, attempt: int) -> Accumulator:
        """The own sums with the own share of the noise; what the round staged is on disk, put aside."""
        staged = Staged(self.memory.store(self.name) if what == "model" else None)
        out = one.contributor.contribute(one.summand, bound.spec, state, staged)
        if bound.noise == "distributed":
            for part in bound.spec.parts:
                add_discrete_gaussian(out[part.name], bound.variance[part.name], SystemBits())
        if staged.values:
            held, record = self.memory.store(f"{self.name}{HELD}"), f"{self.name}{HELD}"
            for name, array in staged.values.items():
                held.stage(name, array)
            held.commit(bound.spec.index, attempt)
            self.memory.put_record(record, {"round": bound.spec.index, "attempt": attempt, "final": False})
        return out

    def _sums(self, what: str, round: int) -> int:
        """How many sums of this round have left by now; a job says how often each may be tried.

        Raises:
            ProtocolViolation: as many as it says. Each costs budget, and tells more of what is summed without noise.
        """
        left = int((self.memory.record(f"{self.name}.left") or {}).get(f"{what}/{round}", 0))
        if left >= self.job.attempts:
            raise ProtocolViolation(
                f"round {round}: {left} attempts at it have had this member's sums, and the job says attempts = "
                f"{self.job.attempts}; ask for another job"
            )
        return left

    def _spend(self, ticket: Ticket | None, what: str, round: int, sums: int) -> None:
        """Count a sum that is about to leave, and make its charge final."""
        record = self.memory.record(f"{self.name}.left") or {}
        self.memory.put_record(f"{self.name}.left", {**record, f"{what}/{round}": sums + 1})
        if ticket is not None:
            ticket.spend()


def told(error: Exception) -> str:
    """What the coordinator may hear of an error: nothing that could come from the log, its files or the ledger."""
    if isinstance(error, (PeerError, SecureAggregationError)):
        return str(error)[:500]
    if isinstance(error, LedgerError):
        return "its privacy budget does not allow this"
    return f"it failed ({type(error).__name__}); its operator can read why"


def _natural(value: Any) -> TypeGuard[int]:
    """Whether a value is the number of a round, or of an attempt at one."""
    return type(value) is int and 0 <= value < 1 << 32


def _return(ticket: Ticket | None, error: BaseException) -> None:
    if ticket is not None:
        ticket.give_back(type(error).__name__)


def _cost(plan: Plan, event: Event | None) -> float | None:
    """Epsilon of one round alone, at the plan's delta."""
    if event is None:
        return None
    return accountant.epsilon([event], float(plan.delta or 0), plan.accountant)
