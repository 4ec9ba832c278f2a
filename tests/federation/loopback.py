"""A whole federation in one process, over a transport that loses, repeats and delays what it is told to.

Everything but the transport, the clock and the desks is the real thing: vaults, ledgers and egress logs are files, jobs
and envelopes are signed, sums are masked. A member or the coordinator may be killed between any two steps.
"""

from __future__ import annotations

import atexit
import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

from coterie.data.catalogue import Catalogue
from coterie.errors import CoterieError
from coterie.experiment.books import LedgerBooks
from coterie.experiment.conductor import Conductor
from coterie.experiment.node import Node
from coterie.experiment.run import Run
from coterie.federation.envelope import PROTOCOLS
from coterie.federation.identity import Identities
from coterie.federation.job import Job, sign_job
from coterie.federation.journal import FederationJournal
from coterie.federation.policy import Policy
from coterie.federation.progress import Progress
from coterie.federation.roster import Member, Roster
from coterie.federation.talk import Talk
from coterie.federation.transport import never
from coterie.privacy.plan import Plan
from coterie.secure.keys import fingerprint
from coterie.storage import Storage
from coterie.testing.logs import Log
from tests.federation.fuses import FusedEgress, FusedLedger, FusedVault, Killed, bury, unharmed
from tests.federation.tinydesk import ITEMS, TinyDesk, table_of

Fate = Callable[[str, int], str]

AWAY = 15.0  # seconds, once to five times: shorter and longer than a phase


@dataclass
class Clock:
    """Time that passes only where somebody waits."""

    now: float = 1_000_000.0

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def moment(self) -> datetime:
        return datetime.fromtimestamp(self.now, UTC)


@dataclass
class Loopback:
    """`coterie.federation.transport.Transport` in one process; `fate` says what happens to each message.

    Members in `down` are not there, those in `away` not before that time. `heard` are the messages that members got, as
    they got them, each with what left the member as an answer to it. `kill_before` and `kill_after` name messages (by
    number) around which the coordinator is killed.
    """

    sites: Mapping[str, Site]
    clock: Clock
    fate: Fate = lambda name, number: "ok"
    down: set[str] = field(default_factory=set)
    away: dict[str, float] = field(default_factory=dict)
    heard: list[tuple[str, bytes, bytes | None]] = field(default_factory=list)
    exchanges: list[tuple[str, ...]] = field(default_factory=list)
    before: Callable[[str, bytes], bytes] = lambda name, message: message
    kill_before: int | None = None
    kill_after: int | None = None

    def online(self) -> Mapping[str, float]:
        return {name: 0.0 for name in self.sites if self._there(name)}

    def _there(self, name: str) -> bool:
        return name not in self.down and self.away.get(name, 0.0) <= self.clock.now

    def exchange(
        self, messages: Mapping[str, bytes], seconds: float, enough: Callable[[frozenset[str]], bool] = never
    ) -> Iterator[tuple[str, bytes]]:
        answered = set[str]()
        self.exchanges.append(tuple(messages))
        for name, message in messages.items():
            number = sum(map(len, self.exchanges[:-1])) + self.exchanges[-1].index(name)
            if number == self.kill_before:
                raise Killed("the coordinator, before a message")
            reply = self._delivered(name, self.before(name, message), number)
            if number == self.kill_after:
                raise Killed("the coordinator, after a message")
            if reply is not None:
                answered.add(name)
                yield name, reply
        if answered < messages.keys() and not enough(frozenset(answered)):
            self.clock.sleep(seconds)

    def _delivered(self, name: str, message: bytes, number: int) -> bytes | None:
        match self.fate(name, number):
            case "lost":
                return None
            case "unanswered":
                self._answer(name, message)
                return None
            case "twice":
                starts, first = self.sites[name].starts, self._answer(name, message)
                again = self._answer(name, message)
                assert again == first or None in (first, again) or self.sites[name].starts > starts
                return first
            case "garbled":
                return self._answer(name, message[:-1] + bytes([message[-1] ^ 1]))
            case "garbled answer":
                reply = self._answer(name, message)
                return None if reply is None else reply[:-1] + bytes([reply[-1] ^ 1])
            case "down":
                self.down.add(name)
            case "up":
                self.down.clear()
            case "away":
                self.away[name] = self.clock.now + AWAY * (1 + number % 5)
            case "killed":
                self.sites[name].restart()
        return self._answer(name, message)

    def _answer(self, name: str, message: bytes) -> bytes | None:
        if not self._there(name):
            return None
        reply = self.sites[name].answer(message)
        self.heard.append((name, message, reply))
        return reply


@dataclass
class Site:
    """One member with its folder; `fuse` is called around every write, and may kill it there."""

    name: str
    folder: Path
    identities: Identities
    coordinator: bytes
    desk: TinyDesk
    policy: Policy
    clock: Clock
    versions: tuple[int, ...] = PROTOCOLS
    fuse: Callable[[str], None] = unharmed
    said: list[str] = field(default_factory=list)
    starts: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    node: Node = field(init=False)

    def __post_init__(self) -> None:
        self.restart()

    def restart(self) -> None:
        """As after a kill -9: everything that was in memory is gone, and its reservations are of a process that is."""
        self.starts += 1
        bury(self.folder / "ledger.sqlite")
        self.vault = FusedVault.open(self.folder / "vault", self.folder / "vault.key")
        self.ledger = FusedLedger.open(self.folder / "ledger.sqlite")
        self.egress = FusedEgress(self.folder / "egress.jsonl", self.clock.moment)
        for one in (self.vault, self.ledger, self.egress):
            one.fuse = self._burn
        self.ledger.counts = self.egress.counts = self.counts
        self.node = Node(
            self.name,
            self.identities.identity,
            self.coordinator,
            lambda: self.policy,
            self.desk,
            self.vault,
            self.egress,
            self._books,
            self.folder / "runs",
            clock=self.clock.moment,
            notify=self.said.append,
            versions=self.versions,
        )

    def _burn(self, point: str) -> None:
        self.fuse(point)

    def answer(self, message: bytes) -> bytes | None:
        """What leaves as an answer, if anything does."""
        try:
            return self.node.answer(message)
        except Killed:
            self.restart()
        except CoterieError as error:
            self.said.append(f"no answer left: {error}")
        return None

    def _books(self, run: str, plan: Plan, model: str) -> LedgerBooks | None:
        """As `coterie.experiment.node_daemon` does it."""
        if not plan.private:
            return None
        delta = float(plan.delta or 0)
        self.policy.apply_limits(self.ledger, "default", delta)
        return LedgerBooks(self.ledger, "default", run, delta, model, "")


@dataclass
class Federation:
    """A coordinator with its members, all in one process."""

    folder: Path
    sites: dict[str, Site]
    coordinator: Identities
    roster: Roster
    journal: FederationJournal
    clock: Clock
    transport: Loopback
    progress: Progress
    conducting: Callable[..., Conductor] = Conductor

    @classmethod
    def of(cls, folder: Path, logs: list[Log], **policy: Any) -> Federation:
        """One member per log, named m0, m1, ...; every identity is pinned by everybody."""
        clock, coordinator = Clock(), Identities.open(folder / "coordinator", create=True)
        names = [f"m{at}" for at in range(len(logs))]
        keys = {name: Identities.open(folder / name, create=True) for name in names}
        members = tuple(Member(name, keys[name].public, keys[name].transport_public, 0) for name in names)
        rules = {
            "noise": ["none", "distributed"],
            "coordinators": [coordinator.fingerprint],
            "approval": "auto",
            "peers": {name: one.fingerprint for name, one in keys.items()},
            "min_own_users": 1,
            "max_epsilon_total": 20.0,
            "max_epsilon_month": 20.0,
            **policy,
        }
        sites = {
            name: Site(
                name, folder / name, keys[name], coordinator.public, TinyDesk(log), Policy.model_validate(rules), clock
            )
            for name, log in zip(names, logs, strict=True)
        }
        journal = FederationJournal(Storage.open(folder / "federation.sqlite", "federation"))
        roster = Roster(fingerprint(coordinator.public), 1, members)
        transport, progress = Loopback(sites, clock), Progress(clock=clock.time)
        return cls(folder, sites, coordinator, roster, journal, clock, transport, progress)

    def job(self, **settings: Any) -> Job:
        """A job for all members."""
        return Job.model_validate({
            "id": "job",
            "federation": self.coordinator.fingerprint,
            "model": {"name": "ease"},
            "plan": {"aggregation": "secure"},
            "roster_sha256": self.roster.digest,
            "members": self.roster.names,
            "min_carriers": 3,
            "min_nodes": min(3, len(self.roster)),
            "phase_seconds": 10.0,
            "patience_seconds": 100.0,
            "evaluate": False,
            "created": 0,
            "expires": 1 << 31,
            **settings,
        })  # fmt: skip

    def talk(self, job: Job, occurrence: int = 0) -> Talk:
        """The coordinator's side of every exchange."""
        members = self.roster.publics
        return Talk(
            self.transport,
            self.coordinator.identity,
            job.federation,
            job.name_of(occurrence),
            {name: members[name] for name in job.members},
            self.progress,
            sleep=self.clock.sleep,
            clock=self.clock.time,
        )

    def conductor(self, job: Job, occurrence: int = 0) -> Conductor:
        """Whoever conducts one occurrence of the job; another one goes on where the first was stopped."""
        identity = self.coordinator.identity
        return self.conducting(
            job,
            sign_job(job, identity),
            occurrence,
            self.roster.seal(identity),
            self.talk(job, occurrence),
            self.journal,
            self.folder / "runs" / job.name_of(occurrence),
            given=Catalogue.listed(table_of(ITEMS)) if job.catalogue == "given" else None,
            sleep=self.clock.sleep,
        )

    def conduct(self, job: Job, occurrence: int = 0) -> Run:
        """Conduct an occurrence to its end, as the coordinator's daemon does."""
        conductor = self.conductor(job, occurrence)
        with self.signing():
            try:
                run = conductor.conduct()
            except CoterieError as error:
                conductor.end("failed", str(error))
                raise
        conductor.end("done")
        return run

    @contextmanager
    def signing(self) -> Iterator[None]:
        """Runs are signed with the coordinator's key."""
        before = os.environ.get("COTERIE_HOME")
        os.environ["COTERIE_HOME"] = str(self.folder / "coordinator")
        try:
            yield
        finally:
            os.environ.pop("COTERIE_HOME")
            os.environ |= {} if before is None else {"COTERIE_HOME": before}


def fates(seed: int, shares: Mapping[str, float], names: frozenset[str] | None = None) -> Fate:
    """A fate for each message, drawn from a seed."""
    draw = random.Random(seed)
    kinds, weights = list(shares), list(shares.values())

    def fate(name: str, number: int) -> str:
        if names is not None and name not in names:
            return "ok"
        return draw.choices([*kinds, "ok"], [*weights, max(1.0 - sum(weights), 0.0)])[0]

    return fate


@cache
def _blank(members: int) -> Path:
    """A folder with the keys and empty stores of so many members, made once: making databases takes longest."""
    memory = Path("/dev/shm")
    made = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None))
    atexit.register(shutil.rmtree, made, ignore_errors=True)
    Federation.of(made, [[]] * members)
    return made


def blank(folder: Path, members: int) -> Path:
    """Let `folder` be one in which `Federation.of` finds its keys and empty stores."""
    return shutil.copytree(_blank(members), folder, dirs_exist_ok=True)
