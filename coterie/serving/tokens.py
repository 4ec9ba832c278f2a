"""Ids of answers, and tokens with which a page speaks for one user: both are checked by the store's secret alone.

Nothing is kept of them. An answer's id says which version gave it, so that what follows from the answer can be counted
for that version; who makes one up counts for none.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import struct
from dataclasses import dataclass
from typing import Literal, TypeAlias

from coterie.errors import ConfigError

Arm: TypeAlias = Literal["champion", "challenger"]

ARMS: tuple[Arm, ...] = ("champion", "challenger")
NONCE = 12  # random bytes: two of 2^32 answers share theirs with a probability below 2^-32
TAG = 10  # bytes of the HMAC: somebody who guesses is right once in 2^80 tries
ANSWER = struct.Struct(f">BIH{NONCE}s")  # arm, version, explored position (0: none), nonce
SPEAKER = struct.Struct(">Q")  # until when a user token holds, in microseconds since 1970 UTC
SPEAKER_TAG = 32
LONGEST = 200  # characters; nothing longer was made here


@dataclass(frozen=True, slots=True)
class Minted:
    """What the id of an answer says: who gave it, and which position (from 1) was drawn at random, None for none."""

    version: int
    explored: int | None
    arm: Arm


def mint(secret: bytes, version: int, explored: int | None, arm: Arm) -> str:
    """A new id for an answer: 39 characters that are safe in a URL, no two alike.

    >>> read(b"secret", mint(b"secret", 3, None, "champion"))
    Minted(version=3, explored=None, arm='champion')
    """
    if not 0 <= version < 2**32 or not 0 <= (explored or 0) < 2**16:
        raise ConfigError(f"an answer's id holds no version {version} with position {explored}: they are out of range")
    content = ANSWER.pack(ARMS.index(arm), version, explored or 0, os.urandom(NONCE))
    return _text(content + _tag(secret, b"answer", content)[:TAG])


def read(secret: bytes, text: str) -> Minted | None:
    """What the id says; None where it was not made with this secret."""
    whole = _bytes(text, ANSWER.size + TAG)
    if whole is None:
        return None
    content = whole[: ANSWER.size]
    if not hmac.compare_digest(whole[ANSWER.size :], _tag(secret, b"answer", content)[:TAG]):
        return None
    arm, version, explored, _ = ANSWER.unpack(content)
    return Minted(version, explored or None, ARMS[arm])


def user_token(secret: bytes, user: str, expires_at: int) -> str:
    """A token that lets a page speak for `user` until `expires_at` (microseconds since 1970 UTC); it holds no id.

    >>> token = user_token(b"secret", "ann", 1000)
    >>> speaks_for(b"secret", token, "ann", 999), speaks_for(b"secret", token, "bob", 999)
    (True, False)
    """
    expiry = SPEAKER.pack(expires_at)
    return _text(expiry + _tag(secret, b"user", expiry + _utf8(user)))


def speaks_for(secret: bytes, token: str, user: str, now: int) -> bool:
    """Whether the token was made for this user with this secret, and holds at the time `now`."""
    whole = _bytes(token, SPEAKER.size + SPEAKER_TAG)
    if whole is None:
        return False
    expiry = whole[: SPEAKER.size]
    right = hmac.compare_digest(whole[SPEAKER.size :], _tag(secret, b"user", expiry + _utf8(user)))
    return right and now < SPEAKER.unpack(expiry)[0]


def _tag(secret: bytes, purpose: bytes, content: bytes) -> bytes:
    """HMAC-SHA256 of what was made for one purpose: an answer's id is no user's token."""
    return hmac.digest(secret, purpose + b"\0" + content, hashlib.sha256)


def _utf8(user: str) -> bytes:
    return user.encode("utf-8", "surrogatepass")


def _text(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


def _bytes(text: str, size: int) -> bytes | None:
    """The bytes behind a text, if it is the one way of writing so many of them."""
    if len(text) > LONGEST or not text.isascii():
        return None
    try:
        content = base64.b64decode(text.encode() + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        return None
    return content if len(content) == size and _text(content) == text else None
