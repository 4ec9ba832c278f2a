"""The engine of a federation: a round over members on other machines, by secure aggregation.

    cold    [configuration -> keys]  [keys -> sealed shares]
    warm    [shares, model -> masked vector]  [survivors -> signature]  [signatures -> revealed shares, the sum]

Where a further round is announced, its two cold exchanges ride on the last two of this one's, so that a warm round
takes three. Members are `coterie.federation.node_rounds`; both halves compute the terms of an attempt by themselves. An
attempt that is lost (too few stayed, somebody lied) is followed by another, with fresh secrets and a charge of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from coterie.errors import PeerError, SecureAggregationError
from coterie.federation.checkpoint import pack_state, state_digest
from coterie.federation.job import Job, terms_of
from coterie.federation.release import Leave, nothing
from coterie.federation.talk import FAILED, REFUSED, Content, Talk
from coterie.privacy.noise import SystemBits, add_discrete_gaussian
from coterie.privacy.plan import BoundRound, Plan
from coterie.ring import Accumulator, decode
from coterie.secure.server import Server
from coterie.secure.terms import Summed
from coterie.types import Integers, State, Summand, Total

ROUND = "round"
KEYS, SHARES, SUM, SURVIVORS, SIGNATURES, PLAIN = "keys", "shares", "sum", "survivors", "signatures", "plain"
SAID = {KEYS: "exchanging keys", SHARES: "sharing secrets", SUM: "summing", SURVIVORS: "agreeing on who is in the sum"}
SAID |= {SIGNATURES: "unmasking the sum", PLAIN: "summing"}


class Journal(Protocol):
    """The coordinator's durable record of attempts."""

    def open_attempt(self, job: str, round: int) -> int:
        """The number of the next attempt; durable before it returns, so that none is ever used twice."""

    def close_attempt(self, job: str, round: int, attempt: int, state: str, reason: str = "") -> None:
        """How an attempt ended: "done" or "lost"."""


@dataclass(frozen=True)
class Task:
    """One step of one attempt for one member: what it is sent, and what is done with its answer."""

    session: _Session
    step: str
    message: bytes

    def head(self) -> dict[str, Any]:
        """What the member is told of it."""
        one = self.session
        return {"what": one.what, "round": one.round, "attempt": one.attempt, "step": self.step}


@dataclass(frozen=True)
class Done:
    """A sum that is made: which round and attempt, and whose parts are in it."""

    round: int
    attempt: int
    members: tuple[str, ...]


def mine(done: Sequence[Done], name: str) -> list[tuple[int, int]]:
    """Round and attempt of each sum that a member's part is in: what it is told, and makes final."""
    return [(one.round, one.attempt) for one in done if name in one.members]


def is_in(done: Any, round: int) -> bool:
    """Whether a member that was told `mine` is in the sum of a round."""
    return isinstance(done, list) and any(isinstance(one, list) and one[:1] == [round] for one in done)


@dataclass
class NetworkEngine:
    """`coterie.federation.loop.RoundEngine` over the members of a roster; `what` names the sum: model, metrics, ..."""

    talk: Talk
    job: Job
    plan: Plan
    journal: Journal
    what: str = "model"
    alike: bytes = b""
    """What members were told alike: `coterie.federation.job.grounds`."""
    done: list[Done] = field(default_factory=list)
    """The sums that the model is made of: what members then make final."""
    """How many members are in the last sum."""
    gathered: Callable[[], None] = nothing
    """Called once enough members are there, before each attempt."""
    _next: _Session | None = None

    @property
    def users(self) -> int:
        """The public upper bound: how many there are is known to nobody."""
        return self.plan.max_users

    @property
    def clients(self) -> int:
        return len(self.job.members)

    @property
    def one_user_each(self) -> bool:
        return False

    def collect(self, summand: Summand, bound: BoundRound, state: State, leave: Leave = nothing) -> Total:
        """See `coterie.federation.loop.RoundEngine.collect`.

        Raises:
            PeerError: members stayed away, or every attempt was lost; nothing of the round is known then.
        """
        lost = ""
        for _ in range(self.job.attempts):
            self._gather(bound)
            self.gathered()
            try:
                return self._attempt(summand, bound, state, leave)
            except SecureAggregationError as error:
                lost = str(error)
                self.talk.progress.event(f"round {bound.spec.index}: an attempt was lost: {lost}")
        raise PeerError(f"round {bound.spec.index}: {self.job.attempts} attempts were lost; the last one: {lost}")

    # --- one attempt ------------------------------------------------------------------------------------------------

    def _attempt(self, summand: Summand, bound: BoundRound, state: State, leave: Leave) -> Total:
        session = self._taken(bound) or self._opened(bound)
        try:
            if bound.aggregation == "plain":
                integers, finishers = self._in_the_clear(session, bound, state, leave)
            else:
                integers, finishers = self._masked(session, summand, bound, state, leave)
        except SecureAggregationError as error:
            self.journal.close_attempt(session.name, session.round, session.attempt, "lost", str(error))
            self._drop_next()
            raise
        self.journal.close_attempt(session.name, session.round, session.attempt, "done")
        self.done.append(Done(session.round, session.attempt, finishers))
        return self._total(bound, integers, len(finishers))

    def _masked(
        self, session: _Session, summand: Summand, bound: BoundRound, state: State, leave: Leave
    ) -> tuple[Integers, tuple[str, ...]]:
        """The three exchanges of a warm round; those that open the next round ride on the last two.

        Gives the sum, and whose parts are in it.
        """
        server = session.secure
        size = sum(part.size for part in bound.spec.parts)
        shares = server.advance(Summed(state_digest(state), size))
        leave()
        self._exchange({name: [Task(session, SUM, shares[c])] for name, c in session.among(shares)}, pack_state(state))
        after = self._following(summand, bound, state)
        tasks = session.tasks(SURVIVORS, server.advance())
        if after is not None:
            for name in self._there():
                tasks.setdefault(name, []).append(Task(after, KEYS, after.secure.configuration))
        self._exchange(tasks)
        tasks = session.tasks(SIGNATURES, server.advance())
        if after is not None and (keys := self._advanced(after)) is not None:
            for name, c in after.among(keys):
                tasks.setdefault(name, []).append(Task(after, SHARES, keys[c]))
            self._next = after
        self._exchange(tasks)
        server.advance()
        return server.total(), tuple(session.names[at] for at in sorted(server.survivors))

    def _in_the_clear(
        self, session: _Session, bound: BoundRound, state: State, leave: Leave
    ) -> tuple[Integers, tuple[str, ...]]:
        """One exchange: every member's own sums, which the coordinator sees."""
        size = sum(part.size for part in bound.spec.parts)
        leave()
        self._exchange({name: [Task(session, PLAIN, b"")] for name in self._there()}, pack_state(state))
        total = np.zeros(size, np.int64)
        finishers = list[str]()
        for name, vector in session.vectors.items():
            if len(vector) != 8 * size:
                self.talk.progress.fault(name, f"sent sums of {len(vector)} bytes, not {8 * size}")
                continue
            np.add(total, np.frombuffer(vector, "<i8"), out=total)
            finishers.append(name)
        if len(finishers) < bound.min_clients:
            raise SecureAggregationError(
                f"{len(finishers)} of {self.clients} members sent their sums, fewer than min_clients = "
                f"{bound.min_clients}"
            )
        return total, tuple(finishers)

    def _total(self, bound: BoundRound, integers: Integers, finishers: int) -> Total:
        out = Accumulator(bound.spec, integers)
        if bound.noise == "central":
            for part in bound.spec.parts:
                add_discrete_gaussian(out[part.name], bound.variance[part.name], SystemBits())
        shares = {"none": 0, "central": 1, "distributed": finishers}[bound.noise]
        decoded = {name: decode(array, bound.ring_bits) for name, array in out.parts.items()}
        return Total(bound.spec, decoded, bound.noise_std(shares), finishers, bound.upload_bytes)

    # --- opening a session ------------------------------------------------------------------------------------------

    def _gather(self, bound: BoundRound) -> None:
        """Wait until enough members are there for the round to succeed at all."""
        least = bound.min_clients
        if bound.aggregation == "secure":
            least = max(least, self._terms(bound.spec.index, 0).threshold)
        what = f"round {bound.spec.index}"
        self.talk.wait_for(min(least, self.clients), self.job.members, self.job.patience_seconds, what)

    def _terms(self, round: int, attempt: int) -> Any:
        return terms_of(self.talk.job, self.what, round, attempt, self.plan, self.alike, self.clients)

    def _new(self, round: int, *, secure: bool) -> _Session:
        name = f"{self.talk.job}/{self.what}"
        attempt = self.journal.open_attempt(name, round)
        roster = [self.talk.members[member] for member in self.job.members]
        server = Server(self.talk.identity, self._terms(round, attempt), roster) if secure else None
        return _Session(name, self.what, round, attempt, self.job.members, server)

    def _there(self) -> list[str]:
        """Members that have accepted the job and are connected."""
        online = self.talk.transport.online()
        return [name for name in self.job.members if name in online and name in self.talk.versions]

    def _opened(self, bound: BoundRound) -> _Session:
        """A session whose keys and shares are exchanged, by two exchanges of its own."""
        session = self._new(bound.spec.index, secure=bound.aggregation == "secure")
        if session.server is None:
            return session
        try:
            self._exchange({name: [Task(session, KEYS, session.secure.configuration)] for name in self._there()})
            self._exchange(session.tasks(SHARES, session.secure.advance()))
        except SecureAggregationError as error:
            self.journal.close_attempt(session.name, session.round, session.attempt, "lost", str(error))
            raise
        return session

    def _following(self, summand: Summand, bound: BoundRound, state: State) -> _Session | None:
        """A session for the next round, where one is announced and everybody's version can share an exchange."""
        rounds = len(summand.budget(state))
        if bound.spec.index + 1 >= rounds or any(version < 2 for version in self.talk.versions.values()):
            return None
        return self._new(bound.spec.index + 1, secure=True)

    def _advanced(self, session: _Session) -> Mapping[int, bytes] | None:
        """Close the first phase of the next round; None where too few take part in it: it is opened anew then."""
        try:
            return session.secure.advance()
        except SecureAggregationError as error:
            self.journal.close_attempt(session.name, session.round, session.attempt, "lost", str(error))
            return None

    def _taken(self, bound: BoundRound) -> _Session | None:
        """The session that rode on the last round, if it is of this one and enough of those in it are still there."""
        session, self._next = self._next, None
        if session is None:
            return None
        online = self.talk.transport.online()
        there = sum(name in online for name in session.shared)
        terms = self._terms(session.round, session.attempt)
        if session.round == bound.spec.index and there >= max(terms.threshold, terms.min_clients):
            return session
        self.journal.close_attempt(session.name, session.round, session.attempt, "lost", "members have left since")
        return None

    def _drop_next(self) -> None:
        session, self._next = self._next, None
        if session is not None:
            self.journal.close_attempt(session.name, session.round, session.attempt, "lost", "the round before it was")

    # --- exchanges --------------------------------------------------------------------------------------------------

    def _exchange(self, tasks: Mapping[str, Sequence[Task]], state: bytes = b"") -> None:
        """One exchange: each member gets its tasks in one message and answers them in one."""
        if not tasks:
            return
        one = next(iter(tasks.values()))[0]
        where = {"round": one.session.round, "attempt": one.session.attempt, "what": self.what}
        self.talk.progress.phase(SAID[one.step], tasks, self.job.phase_seconds, **where)
        contents = {name: self._content(name, asked, state) for name, asked in tasks.items()}
        for name, answer in self.talk.ask(ROUND, contents, self.job.phase_seconds):
            if answer.kind in (FAILED, REFUSED):
                self.talk.progress.fault(name, _reason(answer.header))
                continue
            try:
                self._take(name, tasks[name], answer.header, answer.blobs)
            except SecureAggregationError as error:
                self.talk.progress.fault(name, str(error))
        self.talk.check_stop()

    def _content(self, name: str, tasks: Sequence[Task], state: bytes) -> Content:
        blobs: dict[str, Any] = {str(at): task.message for at, task in enumerate(tasks)}
        if state:
            blobs["state"] = state
        done = mine(self.done, name) if self.what == "model" else []
        return {"tasks": [task.head() for task in tasks], "done": done}, blobs

    def _take(self, name: str, tasks: Sequence[Task], header: Mapping[str, Any], blobs: Mapping[str, Any]) -> None:
        """Give each answer to the session that it belongs to; a task that failed at the member is a drop-out."""
        results = header.get("tasks")
        if not isinstance(results, list) or len(results) != len(tasks):
            raise SecureAggregationError(f"{name} did not answer the {len(tasks)} tasks that it was given")
        for at, (task, result) in enumerate(zip(tasks, results, strict=True)):
            if result is not None or str(at) not in blobs:
                self.talk.progress.fault(name, str(result)[:500])
            elif task.session.server is None:
                task.session.vectors[name] = bytes(blobs[str(at)])
            else:
                task.session.server.receive(task.session.names.index(name), blobs[str(at)])
                if task.step == SHARES:
                    task.session.shared.add(name)


@dataclass
class _Session:
    """One attempt at one round: its number, and the server's half of secure aggregation."""

    name: str
    what: str
    round: int
    attempt: int
    names: tuple[str, ...]
    server: Server | None
    vectors: dict[str, bytes] = field(default_factory=dict)
    shared: set[str] = field(default_factory=set)
    """Members whose secrets are shared: those who can send a vector."""

    @property
    def secure(self) -> Server:
        if self.server is None:
            raise SecureAggregationError("this sum is not a secure one")
        return self.server

    def among(self, messages: Mapping[int, bytes]) -> list[tuple[str, int]]:
        """Name and number of each member that is to get a message."""
        return [(self.names[c], c) for c in messages]

    def tasks(self, step: str, messages: Mapping[int, bytes]) -> dict[str, list[Task]]:
        return {name: [Task(self, step, messages[c])] for name, c in self.among(messages)}


def _reason(header: Mapping[str, Any]) -> str:
    reasons = header.get("reasons")
    text = "; ".join(map(str, reasons)) if isinstance(reasons, list) else str(header.get("reason", "no reason given"))
    return text[:500]
