"""What the messages of the protocol say, and how: records of fixed length, integers little-endian (see `wire`)."""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from coterie.errors import PlanError, ProtocolViolation
from coterie.secure.field import SHARE_BYTES
from coterie.secure.graph import SEED_BYTES, Graph
from coterie.secure.keys import (
    COMMITMENT_BYTES,
    PUBLIC_BYTES,
    SIGNATURE_BYTES,
    TAG_BYTES,
    Identity,
    sha256,
    verify,
)
from coterie.secure.terms import DIGEST_BYTES, Summed, Terms
from coterie.secure.wire import EVERYONE, Kind, Message, frame, read_header, read_records, unframe

SEALED_BYTES = 2 * SHARE_BYTES + TAG_BYTES  # a share of a client's seed and one of its mask key, sealed

_TERMS = struct.Struct(f"<QQBQQQQ{DIGEST_BYTES}s{SEED_BYTES}s{PUBLIC_BYTES}sB")
_SUMMED = struct.Struct(f"<Q{DIGEST_BYTES}s")
_ADVERTISEMENT = struct.Struct(f"<I{PUBLIC_BYTES}s{PUBLIC_BYTES}s{COMMITMENT_BYTES}s{SIGNATURE_BYTES}s")
_SEALED = struct.Struct(f"<I{SEALED_BYTES}s")
_SIGNED = struct.Struct(f"<I{SIGNATURE_BYTES}s")
_REVEALED = struct.Struct(f"<IB{SHARE_BYTES}s")


class Share(IntEnum):
    """Which secret of a peer a share belongs to."""

    SEED = 0
    MASK_KEY = 1


@dataclass(frozen=True, slots=True)
class Configuration:
    """What opens a round: its terms, the seed of its graph, the server's X25519 key, each client's enrolled key."""

    terms: Terms
    seed: bytes
    channel: bytes
    roster: tuple[bytes, ...]

    @property
    def graph(self) -> Graph:
        return Graph(self.terms.clients, self.terms.degree, self.seed)

    def encode(self, server: Identity) -> tuple[bytes, bytes]:
        """The signed message and the context of the round."""
        t = self.terms
        numbers = (t.round, t.attempt, t.ring_bits, t.clients, t.degree, t.threshold, t.min_clients)
        fixed = _TERMS.pack(*numbers, t.plan_hash, self.seed, self.channel, len(t.job))
        content = fixed + t.job + b"".join(self.roster)
        context = sha256(content)
        return frame(Kind.CONFIGURATION, context, EVERYONE, content + server.sign(b"configuration", context)), context

    @classmethod
    def decode(cls, message: Message, server: bytes) -> tuple[Configuration, bytes]:
        """Read a configuration that `server` (a public key) signed, and the context of its round.

        Raises:
            ProtocolViolation: malformed, impossible, or not signed by that server.
        """
        _, _, context = read_header(message)
        rest = bytes(unframe(message, Kind.CONFIGURATION, context, EVERYONE))
        content, signature = rest[:-SIGNATURE_BYTES], rest[-SIGNATURE_BYTES:]
        if len(content) < _TERMS.size or sha256(content) != context:
            raise ProtocolViolation("a configuration is not the one that its header names")
        verify(server, signature, b"configuration", context)
        return cls._read(content), context

    @classmethod
    def _read(cls, content: bytes) -> Configuration:
        *numbers, plan_hash, seed, channel, job_length = _TERMS.unpack_from(content)
        round, attempt, *sizes = numbers
        job, keys = content[_TERMS.size :][:job_length], content[_TERMS.size + job_length :]
        try:
            terms = Terms(job, round, attempt, plan_hash, *sizes)
        except PlanError as error:
            raise ProtocolViolation(f"a configuration is impossible: {error}") from None
        if len(job) != job_length or len(keys) != terms.clients * PUBLIC_BYTES:
            raise ProtocolViolation(f"a configuration does not have the keys of {terms.clients} clients")
        roster = tuple(keys[at : at + PUBLIC_BYTES] for at in range(0, len(keys), PUBLIC_BYTES))
        if len(set(roster)) != len(roster):
            raise ProtocolViolation("a roster lists the same key twice")
        return cls(terms, seed, channel, roster)


@dataclass(frozen=True, slots=True)
class Advertisement:
    """A client's public keys of one attempt, the commitment to its seed, and its signature over them."""

    client: int
    sealing: bytes
    masking: bytes
    commitment: bytes
    signature: bytes = bytes(SIGNATURE_BYTES)

    @property
    def content(self) -> bytes:
        """What is signed."""
        return self.client.to_bytes(4, "little") + self.sealing + self.masking + self.commitment


def pack_advertisements(advertisements: Iterable[Advertisement]) -> bytes:
    """Public keys of several clients, ascending."""
    return b"".join(
        _ADVERTISEMENT.pack(a.client, a.sealing, a.masking, a.commitment, a.signature) for a in advertisements
    )


def read_advertisements(body: memoryview, clients: int) -> list[Advertisement]:
    """See `pack_advertisements`."""
    return [Advertisement(*fields) for fields in read_records(body, _ADVERTISEMENT, clients)]


def pack_sealed(sealed: Iterable[tuple[int, bytes]]) -> bytes:
    """Sealed shares by recipient, ascending: as they are sent."""
    return b"".join(_SEALED.pack(*one) for one in sealed)


def read_sealed(body: memoryview, clients: int) -> list[tuple[int, bytes]]:
    """See `pack_sealed`."""
    return read_records(body, _SEALED, clients)


def pack_summed(summed: Summed) -> bytes:
    """Length and model of the vectors: as it travels, and as it is hashed into the second context."""
    return _SUMMED.pack(summed.size, summed.model_hash)


def pack_delivered(summed: bytes, sealed: Iterable[tuple[int, bytes]]) -> bytes:
    """What is summed (as `pack_summed` says it), and the sealed shares for a client by sender, ascending."""
    return summed + pack_sealed(sealed)


def read_delivered(body: memoryview, clients: int) -> tuple[Summed, list[tuple[int, bytes]]]:
    """See `pack_delivered`."""
    if len(body) < _SUMMED.size:
        raise ProtocolViolation(f"a body of {len(body)} bytes does not say what is summed")
    size, model_hash = _SUMMED.unpack_from(body)
    try:
        summed = Summed(model_hash, size)
    except PlanError as error:
        raise ProtocolViolation(f"what a server says is summed is impossible: {error}") from None
    return summed, read_sealed(body[_SUMMED.size :], clients)


def pack_signatures(signatures: Iterable[tuple[int, bytes]]) -> bytes:
    """Signatures of the survivor set by client, ascending."""
    return b"".join(_SIGNED.pack(*one) for one in signatures)


def read_signatures(body: memoryview, clients: int) -> list[tuple[int, bytes]]:
    """See `pack_signatures`."""
    return read_records(body, _SIGNED, clients)


def pack_revealed(shares: Iterable[tuple[int, Share, bytes]]) -> bytes:
    """One share per peer, ascending, of the one kind that the peer's fate asks for."""
    return b"".join(_REVEALED.pack(*one) for one in shares)


def read_revealed(body: memoryview, clients: int) -> list[tuple[int, int, bytes]]:
    """See `pack_revealed`; which kind of share it is may be any byte here."""
    return read_records(body, _REVEALED, clients)


def pack_survivors(survivors: Collection[int], clients: int) -> bytes:
    """A set of clients, one bit each: a peer is a survivor or it is not, and no message can say both."""
    present = np.zeros(clients, np.bool_)
    present[list(survivors)] = True
    return np.packbits(present, bitorder="little").tobytes()


def read_survivors(body: memoryview, clients: int) -> frozenset[int]:
    """See `pack_survivors`."""
    if len(body) != -(-clients // 8):
        raise ProtocolViolation(f"a survivor set of {len(body)} bytes is not one of {clients} clients")
    present = np.unpackbits(np.frombuffer(body, np.uint8), bitorder="little")
    if present[clients:].any():
        raise ProtocolViolation("a survivor set names clients that are not in the roster")
    return frozenset(np.flatnonzero(present).tolist())
