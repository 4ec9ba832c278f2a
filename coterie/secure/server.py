"""The server's half of secure aggregation, without I/O: it routes, adds up and unmasks the sum.

Whoever runs it sends `configuration` to every client, gives each reply to `receive` (with the client that the transport
authenticated), and calls `advance` once all have replied or time is up, which gives the next message for each client
that is still in. Of which model the vectors are is said with the shares, and needs no settling before: the keys of a
round can be exchanged while the round before it ends. After the last message `total` is the sum. A client that does not
reply in a phase has dropped out: its share holders make up for it, or the round is aborted with the reason.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from typing import ClassVar

import numpy as np

from coterie.errors import ProtocolViolation, SecureAggregationError
from coterie.secure import messages as m
from coterie.secure.field import recover
from coterie.secure.graph import SEED_BYTES
from coterie.secure.keys import (
    SIGNATURE_BYTES,
    TAG_BYTES,
    AgreementKey,
    Identity,
    channel_key,
    commitment,
    mask_key,
    self_mask_key,
    sha256,
    summing_context,
    verify,
)
from coterie.secure.masks import Ring, apply_masks, ring_dtype
from coterie.secure.messages import Advertisement, Configuration, Share
from coterie.secure.terms import Phase, Summed, Terms
from coterie.secure.wire import Channel, Kind, Message, read_header, unframe
from coterie.types import Integers

_DID = {
    Phase.ADVERTISE: "advertised keys",
    Phase.SHARE: "shared their secrets",
    Phase.MASK: "sent their vectors",
    Phase.SIGN: "signed the survivor set",
    Phase.UNMASK: "revealed their shares",
}


class Server:
    """One attempt at one round over the clients of `roster` (their public keys, in the order of their indices).

    `phase` is what clients do now, `present` those who have done all phases so far; `survivors` (once known) are those
    whose vectors are in the sum; `mask_seconds` is how long removing masks took.
    """

    def __init__(self, identity: Identity, terms: Terms, roster: Sequence[bytes]) -> None:
        self._agreement = AgreementKey()
        opening = Configuration(terms, secrets.token_bytes(SEED_BYTES), self._agreement.public, tuple(roster))
        self.configuration, self._context = opening.encode(identity)
        self.phase = Phase.ADVERTISE
        self.present = frozenset(range(terms.clients))
        self.survivors: frozenset[int] = frozenset()
        self.mask_seconds = 0.0
        self._terms, self._roster = terms, opening.roster
        self._neighbours = [opening.graph.neighbours(client) for client in range(terms.clients)]
        self._holders = [opening.graph.holders(client) for client in range(terms.clients)]
        self._summing, self._summed, self._upload_bytes = b"", b"", 0  # see `_begin`
        self._total: Ring = np.zeros(0, ring_dtype(terms.ring_bits))
        self._done: set[int] = set()
        self._received: dict[tuple[Phase, int], bytes] = {}
        self._channels: dict[int, Channel] = {}
        self._keys: dict[int, Advertisement] = {}
        self._sealed: dict[int, dict[int, bytes]] = {}  # recipient -> sender -> shares
        self._shared: frozenset[int] = frozenset()
        self._digest = b""
        self._signatures: dict[int, bytes] = {}
        self._revealed: dict[int, dict[int, bytes]] = {}  # peer -> point -> share of the one secret that is rebuilt

    def receive(self, client: int, message: Message) -> bool:
        """Take a client's message; False where the same bytes came before, which changes nothing.

        Raises:
            ProtocolViolation: malformed, forged, or other bytes than the client sent in this phase before.
            SecureAggregationError: too late, or from a client that has dropped out.
        """
        kind, _, _ = read_header(message)
        body = self._body(client, kind, message)
        # A tag that holds stands for the whole message, which may be long.
        fingerprint = sha256(message) if kind is Kind.ADVERTISEMENT else bytes(message[-TAG_BYTES:])
        before = self._received.get((kind.phase, client))
        if before == fingerprint:
            return False
        if before is not None:
            raise ProtocolViolation(f"client {client} sent {kind.name} twice, and not the same bytes")
        if kind.phase is not self.phase or client not in self.present:
            raise SecureAggregationError(f"client {client} sent {kind.name} when the round was at {self.phase.name}")
        self._TAKE[kind](self, client, body)
        self._received[kind.phase, client] = fingerprint
        self._done.add(client)
        return True

    def advance(self, summed: Summed | None = None) -> dict[int, bytes]:
        """Close the phase: whoever has not replied has dropped out. The next message of each client that is still in.

        `summed` is what is summed, given when `Phase.SHARE` is closed and only then.

        Raises:
            PlanError: vectors of that size are too long for one message; nothing has changed.
            SecureAggregationError: too few clients are left; nothing can be unmasked, ever.
            ProtocolViolation: a share was altered, so that a secret cannot be rebuilt.
        """
        phase, done = self.phase, frozenset(self._done)
        if phase is Phase.DONE:
            raise SecureAggregationError("this attempt is over; a new one starts with a new server")
        if (summed is not None) != (phase is Phase.SHARE):
            raise SecureAggregationError(
                f"what is summed is said when SHARE is closed, and the round is at {phase.name}"
            )
        if summed is not None:
            self._begin(summed)
            self._shared = done
        if phase is Phase.MASK:
            self.survivors = done
        try:
            self._check_enough(done)
            outbox = self._CLOSE[phase](self, done)
        except SecureAggregationError:
            self.phase = Phase.DONE
            self.survivors = frozenset()
            raise
        self.phase, self.present, self._done = Phase(phase + 1), done, set()
        return outbox

    def total(self) -> Integers:
        """The sum of the survivors' vectors as ring elements: int64 [size] (32 bits: 0 to 2^32 - 1).

        Raises:
            SecureAggregationError: it is not unmasked.
        """
        if self.phase is not Phase.DONE or not self.survivors:
            raise SecureAggregationError("there is no sum: the round is not over, or was aborted")
        return self._total.astype(np.int64) if self._terms.ring_bits == 32 else self._total.view(np.int64)

    def _begin(self, summed: Summed) -> None:
        """Bind the round to one model and size."""
        self._upload_bytes = summed.upload_bytes(self._terms.ring_bits)
        self._summed = m.pack_summed(summed)
        self._summing = summing_context(self._context, self._summed)
        self._total = np.zeros(summed.size, self._total.dtype)
        for channel in self._channels.values():
            channel.bind(self._summing)

    def _body(self, client: int, kind: Kind, message: Message) -> memoryview:
        if kind is Kind.ADVERTISEMENT:
            return unframe(message, kind, self._context, client)
        if kind not in self._TAKE or client not in self._channels:
            raise ProtocolViolation(f"client {client} sent {kind.name}, which is not a message of a client with keys")
        return self._channels[client].unpack(kind, message)

    # --- what each message of a client brings ----------------------------------------------------------------------

    def _take_keys(self, client: int, body: memoryview) -> None:
        found = m.read_advertisements(body, self._terms.clients)
        if [one.client for one in found] != [client]:
            raise ProtocolViolation(f"client {client} did not advertise its own keys, once")
        verify(self._roster[client], found[0].signature, b"advertisement", self._context, found[0].content)
        shared = self._agreement.agree(found[0].sealing)
        self._agreement.agree(found[0].masking)  # a key of low order is refused here, before it stops the neighbours
        self._channels[client] = Channel(self._context, client, channel_key(shared, self._context, client))
        self._keys[client] = found[0]

    def _take_shares(self, client: int, body: memoryview) -> None:
        found = dict(m.read_sealed(body, self._terms.clients))
        if list(found) != self._present_among(self._neighbours[client]):
            raise ProtocolViolation(f"client {client} did not send one share to each neighbour with keys")
        for recipient, sealed in found.items():
            self._sealed.setdefault(recipient, {})[client] = sealed

    def _take_vector(self, client: int, body: memoryview) -> None:
        if len(body) != self._upload_bytes:
            raise ProtocolViolation(f"client {client} sent {len(body)} bytes, not {self._upload_bytes}")
        np.add(self._total, np.frombuffer(body, self._total.dtype), out=self._total)

    def _take_signature(self, client: int, body: memoryview) -> None:
        if len(body) != SIGNATURE_BYTES:
            raise ProtocolViolation(f"client {client} sent a signature of {len(body)} bytes")
        verify(self._roster[client], bytes(body), b"survivors", self._summing, self._digest)
        self._signatures[client] = bytes(body)

    def _take_revealed(self, client: int, body: memoryview) -> None:
        found = m.read_revealed(body, self._terms.clients)
        if [peer for peer, _, _ in found] != [peer for peer in self._holders[client] if peer in self._shared]:
            raise ProtocolViolation(f"client {client} did not reveal one share of each peer that shared its secrets")
        if any(kind != self._wanted(peer) for peer, kind, _ in found):
            raise ProtocolViolation(f"client {client} revealed the wrong kind of share of a peer")
        for peer, _, revealed in found:
            self._revealed.setdefault(peer, {})[client + 1] = revealed

    # --- how each phase ends -----------------------------------------------------------------------------------------

    def _send_keys(self, done: frozenset[int]) -> dict[int, bytes]:
        def body(client: int) -> bytes:
            return m.pack_advertisements(self._keys[peer] for peer in self._neighbours[client] if peer in done)

        return {client: self._channels[client].pack(Kind.ADVERTISEMENTS, body(client)) for client in sorted(done)}

    def _send_shares(self, done: frozenset[int]) -> dict[int, bytes]:
        def body(client: int) -> bytes:
            return m.pack_delivered(self._summed, sorted(self._sealed.get(client, {}).items()))

        outbox = {client: self._channels[client].pack(Kind.SHARES_DELIVERED, body(client)) for client in sorted(done)}
        self._sealed.clear()
        return outbox

    def _send_survivors(self, done: frozenset[int]) -> dict[int, bytes]:
        body = m.pack_survivors(done, self._terms.clients)
        self._digest = sha256(body)
        return {client: self._channels[client].pack(Kind.SURVIVORS, body) for client in sorted(done)}

    def _send_signatures(self, done: frozenset[int]) -> dict[int, bytes]:
        def body(client: int) -> bytes:
            return m.pack_signatures((peer, self._signatures[peer]) for peer in self._holders[client] if peer in done)

        return {client: self._channels[client].pack(Kind.SIGNATURES, body(client)) for client in sorted(done)}

    def _remove_masks(self, done: frozenset[int]) -> dict[int, bytes]:
        stayed = sorted(self.survivors)
        left = sorted(self._to_rebuild() - self.survivors)
        minus = [self._self_mask(client, seed) for client, seed in self._rebuilt(stayed)]
        plus: list[bytes] = []
        for client, secret in self._rebuilt(left):
            key = self._mask_secret(client, secret)
            for peer in self._neighbours[client]:
                if peer in self.survivors:  # who added this mask if its index is the lower, and else subtracted it
                    pair = mask_key(key.agree(self._keys[peer].masking), self._summing, client, peer)
                    (minus if peer < client else plus).append(pair)
            key.erase()
        started = time.perf_counter()
        apply_masks(self._total, plus, minus)
        self.mask_seconds = time.perf_counter() - started
        self._revealed.clear()
        return {}

    # --- helpers -----------------------------------------------------------------------------------------------------

    def _check_enough(self, done: frozenset[int]) -> None:
        did = _DID[self.phase]
        if self.phase <= Phase.MASK and len(done) < self._terms.min_clients:
            raise SecureAggregationError(
                f"secure sum aborted: {len(done)} of {self._terms.clients} clients {did}, fewer than min_clients = "
                f"{self._terms.min_clients}; try again when more are there"
            )
        for client in sorted(done if self.phase < Phase.MASK else self._to_rebuild()):
            holders = len(done.intersection(self._holders[client]))
            if holders < self._terms.threshold:
                raise SecureAggregationError(
                    f"secure sum aborted: {len(done)} of {self._terms.clients} clients {did}, and client {client} is "
                    f"left with {holders} of the {self._terms.threshold} share holders (threshold) that it needs; "
                    f"try again when more stay"
                )

    def _to_rebuild(self) -> frozenset[int]:
        """Clients one of whose secrets is needed: survivors, and drop-outs who share a mask with one of them."""
        left = self._shared - self.survivors
        return self.survivors | {c for c in left if not self.survivors.isdisjoint(self._neighbours[c])}

    def _rebuilt(self, clients: Sequence[int]) -> list[tuple[int, bytearray]]:
        held = [self._revealed[client] for client in clients]
        return list(zip(clients, recover(held, self._terms.threshold), strict=True))

    def _self_mask(self, client: int, seed: bytearray) -> bytes:
        if commitment(seed, self._context, client) != self._keys[client].commitment:
            raise ProtocolViolation(f"the seed of client {client} is not what it committed to: a share was altered")
        return self_mask_key(seed, self._summing, client)

    def _mask_secret(self, client: int, secret: bytearray) -> AgreementKey:
        key = AgreementKey(secret)
        if key.public != self._keys[client].masking:
            raise ProtocolViolation(
                f"the mask key of client {client} is not the one it advertised: a share was altered"
            )
        return key

    def _wanted(self, peer: int) -> Share:
        return Share.SEED if peer in self.survivors else Share.MASK_KEY

    def _present_among(self, clients: Sequence[int]) -> list[int]:
        return [client for client in clients if client in self.present]

    _TAKE: ClassVar[dict[Kind, Callable[[Server, int, memoryview], None]]] = {
        Kind.ADVERTISEMENT: _take_keys,
        Kind.SHARES_SENT: _take_shares,
        Kind.MASKED_INPUT: _take_vector,
        Kind.SIGNATURE: _take_signature,
        Kind.UNMASKING: _take_revealed,
    }
    _CLOSE: ClassVar[dict[Phase, Callable[[Server, frozenset[int]], dict[int, bytes]]]] = {
        Phase.ADVERTISE: _send_keys,
        Phase.SHARE: _send_shares,
        Phase.MASK: _send_survivors,
        Phase.SIGN: _send_signatures,
        Phase.UNMASK: _remove_masks,
    }
