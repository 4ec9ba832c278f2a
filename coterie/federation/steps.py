"""What both halves of an agreement on items must know alike: its steps, and what ties messages to one attempt."""

from __future__ import annotations

import re
from collections.abc import Mapping

from coterie.federation.agreed import Mode
from coterie.secure.keys import sha256

STEPS: Mapping[Mode, tuple[str, ...]] = {"given": (), "union": ("items",), "hashed": ("offer", "seal", "hashes")}
ATTEMPT_BYTES = 16
ATTEMPT = re.compile(f"[0-9a-f]{{{2 * ATTEMPT_BYTES}}}")


def agreement_context(job: str, attempt: str) -> bytes:
    """32 bytes that all signatures and seals of one attempt name."""
    return sha256(b"\0".join((b"coterie catalogue agreement", job.encode(), attempt.encode())))
