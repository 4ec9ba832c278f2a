"""The client's half of secure aggregation, without I/O: bytes in, bytes out, one object per attempt at a round.

    advertise   configuration  -> public keys, signed                        Phase.ADVERTISE
    share       advertisements -> sealed shares of the two secrets           Phase.SHARE
    accept      sealed shares of the peers, and what is summed               Phase.MASK
    mask        the contribution -> the masked vector                        Phase.MASK
    sign        survivors      -> signature of that set                      Phase.SIGN
    unmask      signatures     -> one share per peer, and the end of all secrets    Phase.UNMASK

A message out of order, of another round or for another client is refused and changes nothing. A message that is of this
round and lies ends the client: its secrets are erased and it answers no more. The last answer is given again to the
same message, and to no other.

The keys that `advertise` and `share` bring serve one sum, and do not name it: both can be done before its model is
there. `accept` binds the client to one model, and all that follows with it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection
from dataclasses import replace

import numpy as np

from coterie.errors import PlanError, ProtocolViolation, SecureAggregationError
from coterie.secure import messages as m
from coterie.secure.field import SHARE_BYTES, share
from coterie.secure.keys import (
    SECRET_BYTES,
    TAG_BYTES,
    AgreementKey,
    Identity,
    channel_key,
    commitment,
    erase,
    mask_key,
    seal,
    sealing_key,
    self_mask_key,
    sha256,
    summing_context,
    unseal,
    verify,
)
from coterie.secure.masks import masked, ring_dtype
from coterie.secure.messages import Advertisement, Configuration, Share
from coterie.secure.terms import Phase, Summed, Terms
from coterie.secure.wire import HEADER, Channel, Kind, Message, frame
from coterie.types import Integers


class Client:
    """One client in one attempt at one round.

    `terms` are what the client itself holds to be true (the hash of the plan it agreed to, the threshold and the
    smallest cohort it insists on); a configuration that differs is refused. `server` is the server's public key,
    `enrolled` the keys of all who may take part. `phase` is what the client does next, `index` its place in the roster
    (-1 before there is one).
    """

    def __init__(self, identity: Identity, server: bytes, terms: Terms, enrolled: Collection[bytes]) -> None:
        self.phase, self.index = Phase.ADVERTISE, -1
        self._identity, self._server, self._terms, self._enrolled = identity, server, terms, frozenset(enrolled)
        self._context, self._channel = b"", Channel(b"", -1, b"")
        self._summed: Summed | None = None
        self._summing = b""  # the second context, which holds what is summed
        self._answered: tuple[bytes, bytes] | None = None
        self._seed = bytearray(secrets.token_bytes(SECRET_BYTES))
        self._sealing, self._masking = AgreementKey(), AgreementKey()
        self._held: dict[int, bytearray] = {}  # peer -> the share of its seed, then that of its mask key
        self._sealing_keys: dict[int, bytes] = {}
        self._pair_secrets: dict[int, bytes] = {}  # what the mask keys are made of, once it is known what is summed
        self._mask_keys: dict[int, bytes] = {}
        self._peers: frozenset[int] = frozenset()  # neighbours whose shares came: those whom this client masks with
        self._survivors: frozenset[int] = frozenset()

    def advertise(self, configuration: Message) -> bytes:
        """Join the round if it is the one that was agreed: two fresh public keys, signed by the enrolled one."""
        return self._answer(Kind.CONFIGURATION, configuration, self._advertise)

    def share(self, advertisements: Message) -> bytes:
        """Seal a share of each secret for each holder, once at least a threshold of them have keys."""
        return self._answer(Kind.ADVERTISEMENTS, advertisements, self._share)

    def accept(self, shares: Message, summed: Summed) -> None:
        """Open the peers' shares; this client masks with those whose shares came, and with nobody else.

        `summed` is what this client itself was given: the digest of the model that it has, and the length of the vector
        that it will send. It serves for this sum alone.

        Raises:
            PlanError: such a vector is too long for one message; nothing has changed.
            ProtocolViolation: the server says that something else is summed.
        """
        summed.upload_bytes(self._terms.ring_bits)
        if self._summed not in (None, summed):
            raise ProtocolViolation("a client that had accepted one model for its round was given another")
        self._answer(Kind.SHARES_DELIVERED, shares, lambda body: self._accept(body, summed))

    def mask(self, values: Integers, into: bytearray | None = None) -> bytearray:
        """The masked vector as a message; `values` (int64, flat) are left alone.

        It is made once: who has to send it again sends the same bytes again. `into` lends memory for the message, of
        `upload_length` bytes.

        Raises:
            PlanError: the vector has another size than was accepted, or entries outside the ring.
            ProtocolViolation: it is not the time, or no model was accepted.
        """
        if self.phase is not Phase.MASK or self._summed is None:
            raise ProtocolViolation(f"a client whose next phase is {self.phase.name} was asked for its vector")
        if values.shape != (self._summed.size,) or values.dtype != np.int64:
            raise PlanError(f"a contribution is int64 [{self._summed.size}], not {values.dtype} {list(values.shape)}")
        message = bytearray(self.upload_length) if into is None else into
        out = np.frombuffer(self._channel.begin(Kind.MASKED_INPUT, message), ring_dtype(self._terms.ring_bits))
        plus = [key for peer, key in self._mask_keys.items() if peer >= self.index]
        minus = [key for peer, key in self._mask_keys.items() if peer < self.index]
        self.phase, self._answered, self._mask_keys = Phase.SIGN, None, {}
        try:
            masked(values, out, plus, minus)
        except PlanError:
            self.close()
            raise
        self._channel.finish(Kind.MASKED_INPUT, message)
        return message

    def sign(self, survivors: Message) -> bytes:
        """Sign the set of clients whose vectors are in the sum, if it is one that this client consents to."""
        return self._answer(Kind.SURVIVORS, survivors, self._sign)

    def unmask(self, signatures: Message) -> bytes:
        """Reveal one share per peer, once at least a threshold of holders signed the same set; erase all secrets."""
        return self._answer(Kind.SIGNATURES, signatures, self._unmask)

    def close(self) -> None:
        """Erase all secrets and answer no more."""
        erase(self._seed, *self._held.values())
        self._sealing.erase()
        self._masking.erase()
        self._held, self._sealing_keys, self._pair_secrets, self._mask_keys = {}, {}, {}, {}
        self.phase, self._answered = Phase.DONE, None

    @property
    def upload_length(self) -> int:
        """Length of the message with the masked vector, in bytes; known once this client has accepted a model."""
        if self._summed is None:
            raise ProtocolViolation("how long a client's vector is is not known before it has accepted a model")
        return HEADER.size + self._summed.upload_bytes(self._terms.ring_bits) + TAG_BYTES

    def _answer(self, kind: Kind, message: Message, work: Callable[[memoryview], bytes]) -> bytes:
        """The answer to a message: the last one again for the same bytes; a lie in the body ends the client."""
        digest = sha256(message)
        if self._answered is not None and self._answered[0] == digest:
            return self._answered[1]
        if self.phase is not kind.phase or (self._summed is not None and kind is Kind.SHARES_DELIVERED):
            raise ProtocolViolation(f"a client whose next phase is {self.phase.name} was sent {kind.name} out of order")
        body = self._body(kind, message)
        try:
            reply = work(body)
        except SecureAggregationError:
            self.close()
            raise
        self._answered = digest, reply
        self.phase = kind.phase if kind is Kind.SHARES_DELIVERED else Phase(kind.phase + 1)
        return reply

    def _body(self, kind: Kind, message: Message) -> memoryview:
        if kind is not Kind.CONFIGURATION:
            return self._channel.unpack(kind, message)
        self._opening, self._context = Configuration.decode(message, self._server)
        return memoryview(b"")

    # --- what is done in each phase -------------------------------------------------------------------------------

    def _advertise(self, _: memoryview) -> bytes:
        opening = self._opening
        self._check(opening)
        self.index = opening.roster.index(self._identity.public)
        self._roster = opening.roster
        self._holders, self._neighbours = opening.graph.holders(self.index), opening.graph.neighbours(self.index)
        shared = self._sealing.agree(opening.channel)
        self._channel = Channel(self._context, self.index, channel_key(shared, self._context, self.index))
        promise = commitment(self._seed, self._context, self.index)
        keys = Advertisement(self.index, self._sealing.public, self._masking.public, promise)
        signed = replace(keys, signature=self._identity.sign(b"advertisement", self._context, keys.content))
        return frame(Kind.ADVERTISEMENT, self._context, self.index, m.pack_advertisements([signed]))

    def _check(self, configuration: Configuration) -> None:
        for field in Terms.__slots__:
            if getattr(configuration.terms, field) != getattr(self._terms, field):
                raise ProtocolViolation(f"the server's configuration has another {field} than this client agreed to")
        if self._identity.public not in configuration.roster:
            raise ProtocolViolation("this client is not in the roster that it was sent")
        if not self._enrolled.issuperset(configuration.roster):
            raise ProtocolViolation("the roster lists a key that is not enrolled")

    def _share(self, body: memoryview) -> bytes:
        found = m.read_advertisements(body, self._terms.clients)
        peers = {a.client: a for a in found if a.client != self.index}
        if not set(peers) <= set(self._neighbours):
            raise ProtocolViolation("an advertisement is not of a neighbour")
        for peer, a in peers.items():
            verify(self._roster[peer], a.signature, b"advertisement", self._context, a.content)
        holders = [h for h in self._holders if h in peers or h == self.index]
        self._need(len(holders), "advertised keys")
        points = [holder + 1 for holder in holders]
        of_seed = share(self._seed, self._terms.threshold, points)
        of_key = share(self._masking.secret, self._terms.threshold, points)
        sealed = []
        for peer, a in peers.items():
            shared = self._sealing.agree(a.sealing)
            key = sealing_key(shared, self._context, self.index, peer)
            sealed.append((peer, seal(key, of_seed[peer + 1] + of_key[peer + 1], self._context, self.index, peer)))
            self._sealing_keys[peer] = sealing_key(shared, self._context, peer, self.index)
            self._pair_secrets[peer] = self._masking.agree(a.masking)
        if self.index in holders:
            self._held[self.index] = bytearray(of_seed[self.index + 1] + of_key[self.index + 1])
        self._sealing.erase()
        self._masking.erase()
        return self._channel.pack(Kind.SHARES_SENT, m.pack_sealed(sealed))

    def _accept(self, body: memoryview, summed: Summed) -> bytes:
        said, shares = m.read_delivered(body, self._terms.clients)
        for field in Summed.__slots__:
            if getattr(said, field) != getattr(summed, field):
                raise ProtocolViolation(f"the server sums with another {field} than this client was given")
        delivered = dict(shares)
        if not set(delivered) <= set(self._sealing_keys):
            raise ProtocolViolation("shares came from a client that had advertised no keys to this one")
        for peer, sealed in delivered.items():
            opened = unseal(self._sealing_keys[peer], sealed, self._context, peer, self.index)
            self._held[peer] = bytearray(opened)
        self._need(len(self._held), "shared their secrets")
        self._peers = frozenset(delivered)
        self._bind(summed)
        return b""

    def _bind(self, summed: Summed) -> None:
        """From here on this client serves one sum: its masks fit those of peers who were shown the same."""
        self._summed, self._summing = summed, summing_context(self._context, m.pack_summed(summed))
        self._channel.bind(self._summing)
        pairs = {peer: self._pair_secrets[peer] for peer in self._peers}
        self._mask_keys = {peer: mask_key(pair, self._summing, self.index, peer) for peer, pair in pairs.items()}
        self._mask_keys[self.index] = self_mask_key(self._seed, self._summing, self.index)
        self._sealing_keys, self._pair_secrets = {}, {}

    def _sign(self, body: memoryview) -> bytes:
        survivors = m.read_survivors(body, self._terms.clients)
        if self.index not in survivors:
            raise ProtocolViolation("the survivor set leaves out this client, which sent its vector")
        if len(survivors) < self._terms.min_clients:
            raise ProtocolViolation(
                f"a sum over {len(survivors)} clients was to be unmasked; this client insists on "
                f"{self._terms.min_clients} (min_clients)"
            )
        strangers = (survivors & set(self._neighbours)) - self._peers
        if strangers:
            raise ProtocolViolation(f"client {min(strangers)} is said to have survived, and had shared no secrets")
        self._need(len(survivors & set(self._holders)), "sent a vector")
        self._survivors, self._digest = survivors, sha256(body)
        return self._channel.pack(Kind.SIGNATURE, self._identity.sign(b"survivors", self._summing, self._digest))

    def _unmask(self, body: memoryview) -> bytes:
        signatures = m.read_signatures(body, self._terms.clients)
        if not {peer for peer, _ in signatures} <= set(self._holders) & self._survivors:
            raise ProtocolViolation("a signature is not of a surviving holder of this client's shares")
        for peer, signature in signatures:
            verify(self._roster[peer], signature, b"survivors", self._summing, self._digest)
        self._need(len(signatures), "signed the survivor set")
        revealed = [(peer, *self._reveal(peer)) for peer in sorted(self._held)]
        reply = self._channel.pack(Kind.UNMASKING, m.pack_revealed(revealed))
        self.close()
        return reply

    def _reveal(self, peer: int) -> tuple[Share, bytes]:
        """The share of the peer's seed where its vector is in the sum, else that of its mask key; never both."""
        held = self._held[peer]
        if peer in self._survivors:
            return Share.SEED, bytes(held[:SHARE_BYTES])
        return Share.MASK_KEY, bytes(held[SHARE_BYTES:])

    def _need(self, holders: int, did: str) -> None:
        if holders < self._terms.threshold:
            raise SecureAggregationError(
                f"only {holders} of the {self._terms.threshold} share holders that a client needs {did}"
            )
