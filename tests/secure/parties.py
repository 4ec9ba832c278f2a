"""All parties of one secure sum, run phase by phase, so that a test can stop, listen and lie in between."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

import numpy as np
import pytest

from coterie.errors import SecureAggregationError
from coterie.secure import messages as m
from coterie.secure.client import Client
from coterie.secure.keys import Identity, channel_key, sha256, summing_context
from coterie.secure.server import Server
from coterie.secure.terms import Phase, Summed, Terms, least_threshold
from coterie.secure.wire import HEADER, Channel, Kind, Message
from coterie.types import Integers

SUMMED = Summed(bytes(32), 6)


def terms_of(clients: int = 4, ring_bits: int = 64, degree: int | None = None, **other: object) -> Terms:
    """Terms with a hash of nothing in particular; the full graph and its least threshold unless said otherwise."""
    degree = clients - 1 if degree is None else degree
    found = Terms(
        job=b"test",
        round=3,
        attempt=1,
        plan_hash=bytes([1] * 32),
        ring_bits=ring_bits,
        clients=clients,
        degree=degree,
        threshold=least_threshold(clients, degree),
        min_clients=2,
    )
    return replace(found, **other)


class Parties:
    """A server and its clients; `values` (int64 [clients, size]) are what they sum, of the model that `summed` says."""

    def __init__(
        self, terms: Terms | None = None, values: Integers | None = None, model_hash: bytes = SUMMED.model_hash
    ) -> None:
        self.terms = terms or terms_of()
        rng = np.random.default_rng(0)
        shape = (self.terms.clients, SUMMED.size)
        self.values = rng.integers(-1000, 1000, shape) if values is None else values
        self.summed = Summed(model_hash, self.values.shape[1])
        self.owner = Identity()
        self.identities = [Identity() for _ in range(self.terms.clients)]
        self.roster = tuple(one.public for one in self.identities)
        self.server = Server(self.owner, self.terms, self.roster)
        self.clients = [self.client(c) for c in range(self.terms.clients)]

    def client(self, c: int, terms: Terms | None = None) -> Client:
        return Client(self.identities[c], self.owner.public, terms or self.terms, self.roster)

    def answer(self, c: int, phase: Phase, message: Message) -> Message:
        """What an honest client answers to the message that opens a phase."""
        client = self.clients[c]
        if phase is Phase.MASK:
            client.accept(message, self.summed)
            return client.mask(self.values[c].copy())
        steps = {
            Phase.ADVERTISE: client.advertise,
            Phase.SHARE: client.share,
            Phase.SIGN: client.sign,
            Phase.UNMASK: client.unmask,
        }
        return steps[phase](message)

    def accepting(self, c: int) -> Callable[[bytes], None]:
        """Client c's next step with what it was given."""
        return lambda message: self.clients[c].accept(message, self.summed)

    def opening(self) -> dict[int, bytes]:
        return dict.fromkeys(range(self.terms.clients), self.server.configuration)

    def play(
        self, phase: Phase, inbox: Mapping[int, bytes], absent: Mapping[int, Phase] | None = None
    ) -> dict[int, bytes]:
        """One whole phase among honest parties; `absent` clients stop answering in their phase."""
        for c, message in inbox.items():
            if (absent or {}).get(c) is not phase:
                self.server.receive(c, self.answer(c, phase, message))
        return self.advance()

    def advance(self) -> dict[int, bytes]:
        """The server closes the phase; it says what is summed when that is due."""
        return self.server.advance(self.summed if self.server.phase is Phase.SHARE else None)

    def until(self, stop: Phase, absent: Mapping[int, Phase] | None = None) -> dict[int, bytes]:
        """All phases before `stop`; the messages that open it (after the last phase: none)."""
        inbox = self.opening()
        for phase in list(Phase)[: stop - 1]:
            inbox = self.play(phase, inbox, absent)
        return inbox

    def lie(self, c: int, kind: Kind, body: bytes, summed: Summed | None = None) -> bytes:
        """A message from the server to client c as only the server can make it, with whatever body."""
        return self._channel(c, summed).pack(kind, body)

    def forge(self, c: int, kind: Kind, body: bytes) -> bytes:
        """A message from client c to the server as only the client can make it, with whatever body."""
        return self._channel(c).pack(kind, body)

    def summing(self, summed: Summed | None = None) -> bytes:
        """The second context of clients who were shown `summed` (None: what the server says is summed)."""
        return summing_context(self.server._context, m.pack_summed(summed or self.summed))

    def _channel(self, c: int, summed: Summed | None = None) -> Channel:
        server = self.server
        shared = server._agreement.agree(server._keys[c].sealing)
        channel = Channel(server._context, c, channel_key(shared, server._context, c))
        channel.bind(self.summing(summed))
        return channel

    def expected(self, finishers: tuple[int, ...]) -> Integers:
        """Their sum as ring elements, in plain arithmetic."""
        modulus = 1 << self.terms.ring_bits
        wrapped = [sum(int(self.values[c][at]) for c in finishers) % modulus for at in range(self.summed.size)]
        return np.array(wrapped, np.uint64).view(np.int64)


def survivors(parties: Parties, who: Iterable[int]) -> bytes:
    return m.pack_survivors(frozenset(who), parties.terms.clients)


def delivered(message: bytes, clients: int) -> tuple[Summed, list[tuple[int, bytes]]]:
    """What a client is sent before it masks: what is summed, and the shares for it."""
    return m.read_delivered(memoryview(message)[HEADER.size : -16], clients)


def signed(parties: Parties, body: bytes, who: Iterable[int], summed: Summed | None = None) -> bytes:
    """Real signatures of a survivor set, whatever their owners think of it."""
    context = parties.summing(summed)
    return m.pack_signatures((c, parties.identities[c].sign(b"survivors", context, sha256(body))) for c in who)


def revealed(parties: Parties, message: bytes) -> list[tuple[int, int, bytes]]:
    body = memoryview(message)[HEADER.size : -16]
    return m.read_revealed(body, parties.terms.clients)


def is_closed(client: Client) -> bool:
    return client.phase is Phase.DONE and not client._held and not any(client._seed)


def refused(client: Client, step: Callable[[bytes], object], message: bytes, reason: str) -> None:
    """A lie is refused, and ends the client."""
    with pytest.raises(SecureAggregationError, match=reason):
        step(message)
    assert is_closed(client)
