"""What travels between coordinator and member: a head in JSON, named blobs, and the sender's signature over both.

    "CFX", version (1 byte), length of the head (4, little-endian), head, blobs one after the other, signature (64)

The head says who sends what to whom, in which federation and job, and how long each blob is. The signature is that of
the sender's pinned Ed25519 identity: whoever carries the message (Flower, a proxy, a log) can neither alter nor
redirect it. There is one way to write a message, and whatever is not written that way is refused.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from coterie.errors import PeerError, ProtocolViolation
from coterie.secure.keys import SIGNATURE_BYTES, Identity, verify

MAGIC = b"CFX"
PROTOCOLS = (1, 2)  # versions that this release speaks, oldest first; 2 lets messages of two rounds share an exchange
MAX_HEAD = 8 << 20
MAX_MESSAGE = (1 << 31) - 1
_FIXED = len(MAGIC) + 1 + 4
_FIELDS = ("kind", "job", "sender", "recipient", "federation", "number", "header", "blobs")


@dataclass(frozen=True)
class Envelope:
    """One message. `number` counts the coordinator's messages, and an answer has that of what it answers."""

    kind: str
    job: str
    sender: str
    recipient: str
    federation: str
    number: int
    header: Mapping[str, Any] = field(default_factory=dict)
    blobs: Mapping[str, bytes | bytearray | memoryview] = field(default_factory=dict)
    version: int = PROTOCOLS[-1]

    def answer(
        self, kind: str, header: Mapping[str, Any], blobs: Mapping[str, bytes | bytearray | memoryview] | None = None
    ) -> Envelope:
        """The answer to this message."""
        return Envelope(
            kind,
            self.job,
            self.recipient,
            self.sender,
            self.federation,
            self.number,
            header,
            blobs or {},
            self.version,
        )

    def seal(self, identity: Identity) -> bytes:
        """The whole message, signed."""
        lengths = [[name, len(blob)] for name, blob in self.blobs.items()]
        head = {name: getattr(self, name) for name in _FIELDS[:-1]} | {"blobs": lengths}
        text = canonical(head)
        parts = (MAGIC, bytes([self.version]), len(text).to_bytes(4, "little"), text, *self.blobs.values())
        digest = hashlib.sha256()
        for part in parts:
            digest.update(part)
        return b"".join((*parts, identity.sign(b"message", digest.digest())))


def open_envelope(message: bytes, public: bytes, sender: str, recipient: str, federation: str) -> Envelope:
    """Read a message that `sender`, whose identity is `public`, signed for `recipient`.

    Raises:
        PeerError: malformed, altered, for somebody else, of another federation, or of a version that is not spoken.
    """
    head, content = _checked(message, public, sender)
    found = (head["sender"], head["recipient"], head["federation"])
    for name, got, wanted in zip(
        ("sender", "recipient", "federation"), found, (sender, recipient, federation), strict=True
    ):
        if got != wanted:
            raise PeerError(
                f"{sender}: a message has the {name} '{got}', not '{wanted}'; it was sent astray or replayed"
            )
    return Envelope(
        **{name: head[name] for name in _FIELDS[:-1]},
        blobs=_blobs(head["blobs"], content, sender),
        version=message[len(MAGIC)],
    )


def canonical(content: Any) -> bytes:
    """The one way to write a JSON value: what is signed."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def version_of(offered: Sequence[int], who: str) -> int:
    """The newest version that both sides speak.

    >>> version_of([1, 2, 3], "north")
    2

    Raises:
        PeerError: there is none.
    """
    if common := set(PROTOCOLS) & set(offered):
        return max(common)
    raise PeerError(
        f"{who} speaks versions {list(offered)} of the protocol, this installation {list(PROTOCOLS)}; upgrade the older"
    )


def _checked(message: bytes, public: bytes, sender: str) -> tuple[dict[str, Any], memoryview]:
    """The head and what follows it, once the signature proved to be the sender's."""
    if len(message) < _FIXED + SIGNATURE_BYTES or message[: len(MAGIC)] != MAGIC:
        raise PeerError(f"{sender}: a message of {len(message)} bytes is not one of a Coterie federation")
    if message[len(MAGIC)] not in PROTOCOLS:
        raise PeerError(f"{sender}: a message of protocol version {message[len(MAGIC)]}, known are {list(PROTOCOLS)}")
    signed, signature = memoryview(message)[:-SIGNATURE_BYTES], message[-SIGNATURE_BYTES:]
    try:
        verify(public, signature, b"message", hashlib.sha256(signed).digest())
    except ProtocolViolation:
        raise PeerError(f"{sender}: a message is not signed by the key that is pinned for it, or was altered") from None
    length = int.from_bytes(message[len(MAGIC) + 1 : _FIXED], "little")
    if length > min(MAX_HEAD, len(signed) - _FIXED):
        raise PeerError(f"{sender}: a message says that its head has {length} bytes")
    try:
        head = json.loads(bytes(signed[_FIXED : _FIXED + length]))
    except (ValueError, RecursionError):
        raise PeerError(f"{sender}: the head of a message is not JSON, or nested too deeply") from None
    if not isinstance(head, dict) or set(head) != set(_FIELDS):
        raise PeerError(f"{sender}: the head of a message does not have exactly the fields {', '.join(_FIELDS)}")
    texts = (head[name] for name in ("kind", "job", "sender", "recipient", "federation"))
    if not all(isinstance(text, str) for text in texts) or not isinstance(head["header"], dict):
        raise PeerError(f"{sender}: the head of a message has a field of the wrong type")
    return head, signed[_FIXED + length :]


def _blobs(lengths: Any, content: memoryview, sender: str) -> dict[str, memoryview]:
    """The blobs by name; their lengths must add up to what is there."""
    found, at = dict[str, memoryview](), 0
    if not isinstance(lengths, list):
        raise PeerError(f"{sender}: the blobs of a message are not listed")
    for one in lengths:
        if not (isinstance(one, list) and len(one) == 2 and isinstance(one[0], str) and isinstance(one[1], int)):
            raise PeerError(f"{sender}: the blobs of a message are not listed as names and lengths")
        name, length = one
        if length < 0 or at + length > len(content) or name in found:
            raise PeerError(f"{sender}: blob '{name[:40]}' of a message is longer than the message, or there twice")
        found[name] = content[at : at + length]
        at += length
    if at != len(content):
        raise PeerError(f"{sender}: a message has {len(content) - at} bytes that belong to nothing")
    return found
