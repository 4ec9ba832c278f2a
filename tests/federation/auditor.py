"""What must hold of a federation whatever has happened to it: sums, charges, attempts, egress logs.

Nothing here asks the parties what they believe: messages are read as they travelled, sums are made anew from the logs.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np

from coterie.experiment.conductor import Conductor
from coterie.experiment.desk import MetricsInput
from coterie.federation.egresscheck import read, verify
from coterie.federation.envelope import Envelope, open_envelope
from coterie.federation.network import KEYS, PLAIN, SHARES, SIGNATURES, SUM, SURVIVORS, NetworkEngine
from coterie.federation.release import Leave, nothing
from coterie.federation.roster import COORDINATOR
from coterie.privacy.ledger_tables import SPENT
from coterie.privacy.plan import BoundRound
from coterie.ring import Accumulator, decode
from coterie.types import Integers, State, Summand, Total
from tests.federation.loopback import Federation, Site
from tests.federation.tinydesk import ITEMS

STRAY = 8.0  # standard deviations of noise that no sum is off


@dataclass(frozen=True)
class Step:
    """One step of an attempt that a member answered: what left it, as it left."""

    member: str
    job: str
    what: str
    round: int
    attempt: int
    step: str
    content: bytes

    @property
    def place(self) -> tuple[str, str, int]:
        """Which sum it belongs to."""
        return self.job, self.what, self.round


@dataclass(frozen=True)
class Seen:
    """A sum that the coordinator came to, from what, and over whom."""

    what: str
    summand: Summand
    bound: BoundRound
    state: State
    total: Total
    members: tuple[str, ...]
    attempt: int


class Witness(NetworkEngine):
    """A `NetworkEngine` whose sums are shown to `look` as soon as they are there."""

    look: Callable[[Seen], None]

    def collect(self, summand: Summand, bound: BoundRound, state: State, leave: Leave = nothing) -> Total:
        total = super().collect(summand, bound, state, leave)
        self.look(Seen(self.what, summand, bound, state, total, self.done[-1].members, self.done[-1].attempt))
        return total


def watch(federation: Federation) -> list[Seen]:
    """From now on every sum of the federation is made anew from the logs, and compared; gives those that were."""
    seen: list[Seen] = []

    def look(one: Seen) -> None:
        check_sum(federation, one)
        seen.append(one)

    class Watched(Conductor):
        def _network(self, *what: Any) -> NetworkEngine:
            engine = super()._network(*what)
            witness = Witness(**{one.name: getattr(engine, one.name) for one in fields(engine) if one.init})
            witness.look = look
            return witness

    federation.conducting = Watched
    return seen


def audit(federation: Federation, *, killed: bool = False) -> None:
    """What must hold at the end; `killed`: members were, so that more may be noted and spent than what left."""
    steps = list(steps_of(federation))
    check_attempts(steps)
    for site in federation.sites.values():
        check_egress(federation, site, killed=killed)
        check_budget(site, [one for one in steps if one.member == site.name], killed=killed)


def messages_of(federation: Federation, name: str | None = None) -> Iterator[tuple[str, Envelope, Envelope]]:
    """Every message that a member answered, each once, and its answer; those that only it can read are left out."""
    public, own = federation.coordinator.public, federation.coordinator.fingerprint
    known = set[bytes]()
    for member, message, reply in federation.transport.heard:
        if reply is None or reply in known or name not in (None, member):
            continue
        known.add(reply)
        answer = _opened(reply, federation.roster.publics[member], member, COORDINATOR, own)
        if answer.job:
            yield member, _opened(message, public, COORDINATOR, member, own), answer


_opened = lru_cache(maxsize=2000)(open_envelope)  # the same messages are looked at for several reasons


def steps_of(federation: Federation) -> Iterator[Step]:
    """Every step of an attempt that left a member."""
    for name, asked, answer in messages_of(federation):
        if answer.kind != "round":
            continue
        for at, (task, error) in enumerate(zip(asked.header["tasks"], answer.header["tasks"], strict=True)):
            if error is None:
                of = (task["what"], task["round"], task["attempt"], task["step"])
                yield Step(name, asked.job, *of, bytes(answer.blobs[str(at)]))


def check_sum(federation: Federation, seen: Seen) -> None:
    """The sum is that of exactly the members that are said to be in it: within its noise, and exact without."""
    expected = Accumulator(seen.bound.spec)
    for name in seen.members:
        expected.flat += _own(federation, federation.sites[name], seen)
    assert len(seen.members) == seen.total.finishers >= seen.bound.min_clients
    for part in seen.bound.spec.parts:
        off = seen.total.integers[part.name] - decode(expected[part.name], seen.bound.ring_bits)
        most = STRAY * np.sqrt(seen.bound.variance.get(part.name, 0) * len(seen.members))
        assert np.abs(off).max() <= most, f"{seen.what}, round {seen.bound.spec.index}: another sum than the logs'"


def _own(federation: Federation, site: Site, seen: Seen) -> Integers:
    """What one member adds, made anew from its log; where it depends on what stays at home, as it said it last."""
    work, spec = site.desk.works[-1] if site.desk.works else None, seen.bound.spec
    if seen.what == "carriers":
        carried = set(site.desk.assortment(private=False).items)
        return np.array([item in carried for item in ITEMS], np.int64)
    if seen.what == "comparison":
        alone = work.evaluate(None, seen.state, None)
        return MetricsInput.of_comparison(alone).contribute(seen.summand, spec, seen.state).flat
    if seen.what == "metrics":
        return work.metrics_input(None, seen.state).contribute(seen.summand, spec, seen.state).flat
    if seen.summand.name == "mf":
        return site.desk.said[spec.index]
    out = Accumulator(spec)
    seen.summand.contribute(spec, seen.state, work.users, None, out)
    return out.flat


def check_attempts(steps: list[Step]) -> None:
    """No attempt is used twice, and none is summed in the clear where the job says secure."""
    for step in (SUM, KEYS, SHARES, SURVIVORS, SIGNATURES):
        used = Counter((one.member, *one.place, one.attempt) for one in steps if one.step == step)
        assert all(times == 1 for times in used.values()), f"{step}: an attempt was answered twice"
    assert PLAIN not in {one.step for one in steps}, "a sum left in the clear"


def check_egress(federation: Federation, site: Site, *, killed: bool) -> None:
    """The log has a line for each answer that left, in order, with its length and hash."""
    assert verify(site.egress.path).ok
    noted = [(line.bytes, line.sha256) for line in read(site.egress.path)]
    replies = [reply for name, _, reply in federation.transport.heard if name == site.name and reply is not None]
    # The same answer may leave several times, and may be noted each time.
    noted = list(dict.fromkeys(noted))
    left = list(dict.fromkeys((len(reply), hashlib.sha256(reply).hexdigest()) for reply in replies))
    if killed:
        rest = iter(noted)
        assert all(one in rest for one in left), "an answer left that is not in the egress log, or out of order"
    else:
        assert noted == left


def check_budget(site: Site, steps: list[Step], *, killed: bool) -> None:
    """Nothing is over its limit, and every masked vector that left was charged, each by itself."""
    statements = site.ledger.statements()
    if not statements:
        return
    assert all(one.account.limit is None or one.counted <= one.account.limit * (1 + 1e-9) for one in statements)
    spent = Counter((row["run"], row["job"], row["round"]) for row in site.ledger.charges() if row["state"] == SPENT)
    left = Counter(one.place for one in steps if one.step == SUM and one.what != "carriers")
    assert not left - spent, f"a sum left that was not charged: {left - spent}"
    assert killed or not spent - left, "what was charged has not left"
