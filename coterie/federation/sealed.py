"""Statements that are read long after they were sent: canonical JSON with the signature of a pinned identity in it.

Rosters, invitations and enrolments are such statements. What is signed is the statement without its signature, and its
kind: a signature on one kind is worth nothing on another.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from coterie.errors import PeerError, ProtocolViolation
from coterie.federation.envelope import canonical
from coterie.secure.keys import Identity, sha256, verify

SIGNATURE = "signature"


def sealed(kind: str, content: Mapping[str, Any], identity: Identity) -> dict[str, Any]:
    """The statement with its signature (hexadecimal)."""
    return {**content, SIGNATURE: identity.sign(kind.encode(), sha256(canonical(dict(content)))).hex()}


def opened(kind: str, statement: Mapping[str, Any], public: bytes, source: str) -> dict[str, Any]:
    """The statement without its signature, once that proved to be of the identity `public` (32 bytes).

    Args:
        kind: what the statement is.
        statement: as it was read.
        public: who must have signed it.
        source: the file or party that it came from, for the message.

    Raises:
        PeerError: it has no signature, or not that of this identity on this statement.
    """
    content = {key: value for key, value in statement.items() if key != SIGNATURE}
    try:
        signature = bytes.fromhex(statement[SIGNATURE])
        verify(public, signature, kind.encode(), sha256(canonical(content)))
    except (KeyError, TypeError, ValueError, ProtocolViolation):
        raise PeerError(
            f"{source}: the {kind} is not signed by the key that it should be, or was altered; have it sent again"
        ) from None
    return content


def parsed(kind: str, text: bytes | str, source: str) -> dict[str, Any]:
    """The JSON object in `text`.

    Raises:
        PeerError: it is none.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        raise PeerError(f"{source}: the {kind} is truncated or not JSON; have it sent again") from None
    if not isinstance(found, dict):
        raise PeerError(f"{source}: the {kind} is not a JSON object; have it sent again")
    return found
