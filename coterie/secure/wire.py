"""How a message travels: a fixed header, the body, and a tag that says it is what the other side sent.

    header   "CSA2", kind (1 byte), 3 zero bytes, client (8), length of the rest (8), context (32); little-endian
    client   who sends the message, or is sent it; `EVERYONE` where all get the same
    context  SHA-256 of the round's configuration; from the masked vector on, of that and of what is summed
    tag      GMAC of all that precedes it (16); the first two messages are signed instead

There is one way to write each message, and whatever is not written that way is refused with a `ProtocolViolation`.
"""

from __future__ import annotations

import struct
from enum import IntEnum
from itertools import pairwise
from typing import Any, TypeAlias

from cryptography.hazmat.primitives import constant_time

from coterie.errors import ProtocolViolation
from coterie.secure.keys import CONTEXT_BYTES, TAG_BYTES, gmac
from coterie.secure.terms import Phase

Message: TypeAlias = bytes | bytearray | memoryview

MAGIC = b"CSA2"
EVERYONE = (1 << 64) - 1
HEADER = struct.Struct(f"<4sB3sQQ{CONTEXT_BYTES}s")


class Kind(IntEnum):
    """What a message is; odd ones are sent by clients, even ones to them."""

    CONFIGURATION = 0
    ADVERTISEMENT = 1
    ADVERTISEMENTS = 2
    SHARES_SENT = 3
    SHARES_DELIVERED = 4
    MASKED_INPUT = 5
    SURVIVORS = 6
    SIGNATURE = 7
    SIGNATURES = 8
    UNMASKING = 9

    @property
    def phase(self) -> Phase:
        """The phase in which a client is sent this message and answers it, or sends it."""
        return Phase(self // 2 + 1)


class Channel:
    """Between the server and one client, in one round: each kind of message travels on it once."""

    def __init__(self, context: bytes, client: int, key: bytes) -> None:
        self._context, self._client, self._key = context, client, key
        self._summing = b""

    def bind(self, summing: bytes) -> None:
        """From the masked vector on, messages name this context (see `summing_context`), and no other."""
        self._summing = summing

    def pack(self, kind: Kind, body: bytes) -> bytes:
        """The whole message."""
        framed = _header(kind, self._named(kind), self._client, len(body) + TAG_BYTES) + body
        return framed + gmac(self._key, kind, framed)

    def unpack(self, kind: Kind, message: Message) -> memoryview:
        """The body of a message of this kind.

        Raises:
            ProtocolViolation: it is not one, is not of this round or client, or not what the other side sent.
        """
        rest = unframe(message, kind, self._named(kind), self._client)
        whole = memoryview(message)
        if len(rest) < TAG_BYTES or not constant_time.bytes_eq(
            gmac(self._key, kind, whole[:-TAG_BYTES]), bytes(whole[-TAG_BYTES:])
        ):
            raise ProtocolViolation(f"a message of kind {kind.name} was altered on its way")
        return rest[:-TAG_BYTES]

    def begin(self, kind: Kind, message: bytearray) -> memoryview:
        """Write the header of a long message in place: the room for its body, to be filled before `finish`."""
        whole = memoryview(message)
        whole[: HEADER.size] = _header(kind, self._named(kind), self._client, len(message) - HEADER.size)
        return whole[HEADER.size : -TAG_BYTES]

    def finish(self, kind: Kind, message: bytearray) -> None:
        """Write the tag of a long message in place."""
        whole = memoryview(message)
        whole[-TAG_BYTES:] = gmac(self._key, kind, whole[:-TAG_BYTES])

    def _named(self, kind: Kind) -> bytes:
        """The context that a message of this kind names."""
        if kind < Kind.MASKED_INPUT:
            return self._context
        if not self._summing:
            raise ProtocolViolation(f"a message of kind {kind.name} came before it was said what is summed")
        return self._summing


def frame(kind: Kind, context: bytes, client: int, rest: bytes) -> bytes:
    """A message that brings its own signature."""
    return _header(kind, context, client, len(rest)) + rest


def unframe(message: Message, kind: Kind, context: bytes, client: int) -> memoryview:
    """What follows the header of a message of this kind, round and client.

    Raises:
        ProtocolViolation: it is not one.
    """
    got, at, found = read_header(message)
    if got != kind:
        raise ProtocolViolation(f"expected a message of kind {kind.name}, received {got.name}")
    if at != client:
        raise ProtocolViolation(f"a message of kind {kind.name} is not from or for client {client}")
    if found != context:
        raise ProtocolViolation(f"a message of kind {kind.name} belongs to another round, roster, model or plan")
    return memoryview(message)[HEADER.size :].toreadonly()


def read_header(message: Message) -> tuple[Kind, int, bytes]:
    """Kind, client and context that a message says it has."""
    if len(message) < HEADER.size:
        raise ProtocolViolation(f"a message of {len(message)} bytes is shorter than its header")
    magic, kind, zeros, client, length, context = HEADER.unpack_from(message)
    if magic != MAGIC or any(zeros) or kind not in _KINDS:
        raise ProtocolViolation("a message is not one of this version of secure aggregation")
    if length != len(message) - HEADER.size:
        raise ProtocolViolation(f"a message of {len(message)} bytes says that it has {length + HEADER.size}")
    return Kind(kind), client, context


def read_records(body: memoryview, layout: struct.Struct, clients: int) -> list[Any]:
    """Records of fixed length whose first field is a client: in the roster, ascending, each once.

    Raises:
        ProtocolViolation: they are not.
    """
    if len(body) % layout.size or len(body) > clients * layout.size:
        raise ProtocolViolation(f"a body of {len(body)} bytes is not a list of records of {layout.size} bytes")
    records = list(layout.iter_unpack(body))
    found = [record[0] for record in records]
    if any(one >= other for one, other in pairwise(found)) or (found and found[-1] >= clients):
        raise ProtocolViolation("a list of clients is out of order, names one twice, or one that is not in the roster")
    return records


def _header(kind: Kind, context: bytes, client: int, length: int) -> bytes:
    return HEADER.pack(MAGIC, kind, bytes(3), client, length, context)


_KINDS = frozenset(Kind)
