"""What our processes say to each other over a link: a header in JSON, and bytes."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

_LENGTH = struct.Struct(">I")


def pack(header: Mapping[str, Any], body: bytes | bytearray | memoryview = b"") -> bytes:
    """One message: the length of the header, the header, the body.

    >>> unpack(pack({"do": "wait"}, b"rest"))
    ({'do': 'wait'}, b'rest')
    """
    encoded = json.dumps(header).encode()
    return b"".join((_LENGTH.pack(len(encoded)), encoded, body))


def unpack(message: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and body of a message that `pack` made."""
    (length,) = _LENGTH.unpack_from(message)
    start = _LENGTH.size + length
    return json.loads(message[_LENGTH.size : start]), message[start:]
