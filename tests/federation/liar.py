"""A coordinator that lies: it speaks to one member at a time, signs whatever it likes, and keeps what it hears."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from coterie.federation.checkpoint import pack_state, unpack_state
from coterie.federation.envelope import PROTOCOLS, Envelope, open_envelope
from coterie.federation.job import Job, grounds, sign_job, terms_of
from coterie.federation.network import KEYS, SHARES, SUM
from coterie.federation.roster import COORDINATOR, Roster
from coterie.secure.keys import Identity
from coterie.secure.server import Server
from coterie.secure.terms import Summed, Terms
from coterie.types import State
from tests.federation.auditor import messages_of
from tests.federation.loopback import Federation

Blobs = Mapping[str, bytes]


def said(answer: Envelope) -> str:
    """Why a member said no: it did, and nothing else left it."""
    assert not answer.blobs
    if answer.kind == "round":
        (reason,) = answer.header["tasks"]
        return str(reason)
    assert answer.kind in ("failed", "refused", "waiting")
    return "; ".join(answer.header.get("reasons") or [answer.header["reason"]])


def reasons_of(federation: Federation) -> list[Mapping[str, Any]]:
    """What members have said to the coordinator in words, whatever it was."""
    return [answer.header for _, _, answer in messages_of(federation) if answer.kind != "agree"]


@dataclass
class Liar:
    """Speaks for the coordinator of `federation` about one occurrence of `job`."""

    federation: Federation
    job: Job
    occurrence: int = 0
    identity: Identity | None = None
    numbers: itertools.count[int] = field(default_factory=itertools.count)
    agreed: bytes = b""  # digest of the items with which it began

    @property
    def own(self) -> Identity:
        """What it signs with."""
        return self.identity or self.federation.coordinator.identity

    @property
    def name(self) -> str:
        return self.job.name_of(self.occurrence)

    def sealed(self, member: str, kind: str, header: Mapping[str, Any], blobs: Blobs | None = None) -> bytes:
        """A message, signed."""
        own = self.federation.coordinator
        said = (kind, self.name, COORDINATOR, member, own.fingerprint, next(self.numbers), header, blobs or {})
        return Envelope(*said).seal(self.own)

    def tell(self, member: str, message: bytes) -> Envelope:
        """What a member answers to a message."""
        reply = self.federation.transport._answer(member, message)
        assert reply is not None, self.federation.sites[member].said
        own = self.federation.coordinator.fingerprint
        return open_envelope(reply, self.federation.roster.publics[member], member, COORDINATOR, own)

    def ask(self, member: str, kind: str, header: Mapping[str, Any], blobs: Blobs | None = None) -> Envelope:
        return self.tell(member, self.sealed(member, kind, header, blobs))

    def offer(self, member: str, *, roster: Roster | bytes | None = None, **header: Any) -> Envelope:
        """Offer the job; `header` replaces what is true."""
        own = self.federation.coordinator.identity
        shown = self.federation.roster if roster is None else roster
        packed = shown.seal(own) if isinstance(shown, Roster) else shown
        said = {"job": sign_job(self.job, own), "occurrence": self.occurrence, "versions": list(PROTOCOLS), **header}
        return self.ask(member, "offer", said, {"roster": packed})

    def begin(self, agreed: Any, *members: str) -> None:
        """Offer the job and begin it with these items, at these members."""
        self.agreed = agreed.digest
        for member in members or self.job.members:
            assert self.offer(member).kind == "accepted"
            answer = self.ask(member, "begin", {"final": True}, agreed.to_blobs())
            assert answer.kind == "begun", answer.header

    def round(
        self, member: str, step: str, message: bytes, attempt: int = 0, state: State | None = None, **more: Any
    ) -> Envelope:
        """One step of a round of the model; `more` replaces what the task says."""
        task = {"what": "model", "round": 0, "attempt": attempt, "step": step, **more}
        blobs = {"0": message} | ({} if state is None else {"state": pack_state(state)})
        return self.ask(member, "round", {"tasks": [task], "done": []}, blobs)

    def server(self, attempt: int = 0, round: int = 0, **terms: Any) -> Server:
        """The server's half of an attempt, over all members of the job."""
        roster = [self.federation.roster.publics[name] for name in self.job.members]
        return Server(self.own, replace(self.terms(attempt, round), **terms), roster)

    def terms(self, attempt: int = 0, round: int = 0) -> Terms:
        """What the members hold to be true of an attempt."""
        plan, told = self.job.training_plan, grounds(sign_job(self.job, self.own), self.agreed)
        return terms_of(self.name, "model", round, attempt, plan, told, len(self.job.members))

    def until_sum(self, server: Server, summed: Summed, attempt: int = 0) -> dict[int, bytes]:
        """Exchange keys and shares with everybody; what is then to be sent with the model, by number."""
        for member, number in self._numbered():
            server.receive(number, self.taken(self.round(member, KEYS, server.configuration, attempt)))
        keys = server.advance()
        for member, number in self._numbered():
            server.receive(number, self.taken(self.round(member, SHARES, keys[number], attempt)))
        return server.advance(summed)

    def until_survivors(self, server: Server, state: State, summed: Summed, attempt: int = 0) -> dict[int, bytes]:
        """The same, and the masked vectors; the message with the survivors that an honest coordinator would send."""
        shares = self.until_sum(server, summed, attempt)
        for member, number in self._numbered():
            server.receive(number, self.taken(self.round(member, SUM, shares[number], attempt, state)))
        return server.advance()

    def with_another_model(self, member: str, message: bytes) -> bytes:
        """A message of the coordinator with another model in it, where it has one: signed anew, and consistent."""
        own = self.federation.coordinator
        asked = open_envelope(message, own.public, COORDINATOR, member, own.fingerprint)
        if "state" not in asked.blobs:
            return message
        state = unpack_state(bytes(asked.blobs["state"]), "the model")
        name = next(name for name, array in state.arrays.items() if array.dtype.kind == "f" and array.size > 1)
        other = pack_state(state.updated(**{name: state[name] * 2 + 1}))
        return replace(asked, blobs={**asked.blobs, "state": other}).seal(own.identity)

    def _numbered(self) -> Sequence[tuple[str, int]]:
        return [(member, number) for number, member in enumerate(self.job.members)]

    def taken(self, answer: Envelope) -> bytes:
        assert answer.header.get("tasks") == [None], answer.header
        return bytes(answer.blobs["0"])
