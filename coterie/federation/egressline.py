"""What an egress log is made of: its lines, the head beside it, and the anchor that somebody notes elsewhere."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from coterie.errors import DataError
from coterie.files import read_bytes, write_bytes

FORMAT = 1
NOTHING = "0" * 64
"""What the first line has in the place of the hash of the line before."""
UNBOUNDED = "unbounded"

_HASH = r"[0-9a-f]{64}"
_LONGEST = 500  # characters of a text


@dataclass(frozen=True)
class Line:
    """One message that left the site. Names no user and no item.

    Attributes:
        line: number in the log, from 1.
        time: when it was written, before the message left; UTC, ISO 8601.
        job: what it was for; None outside of jobs.
        round: of the job, from 0; None where it belongs to none.
        kind: which step of the protocol.
        bytes, sha256: length and digest of the message.
        contains: what was in it, in words.
        masked: whether it can be read only in a sum with others'.
        epsilon: what the ledger was charged for it, each user's loss by this message alone; infinite where nothing
            bounds it, None where nothing was charged.
        vault: how many changes the node's vault had seen, where one is kept.
        previous: SHA-256 of the line before.
    """

    line: int
    time: str
    job: str | None
    round: int | None
    kind: str
    bytes: int
    sha256: str
    contains: str
    masked: bool
    epsilon: float | None
    vault: int | None
    previous: str

    def __post_init__(self) -> None:
        """Refuse what a log does not hold.

        Raises:
            DataError: a field is of the wrong kind; names it and its value.
        """
        for name, good in _GOOD.items():
            if not good(value := getattr(self, name)):
                raise DataError(f"an egress log does not hold {name} = {value!r:.100}")


def line_of(text: bytes) -> Line:
    """A line of a log, from its bytes without the newline; what a later version has added is passed over.

    Raises:
        DataError: it is none.
    """
    try:
        found = json.loads(text)
        known = {field.name: found[field.name] for field in fields(Line)}
    except (ValueError, KeyError, TypeError, RecursionError):
        raise DataError("not a line of an egress log") from None
    if known["epsilon"] == UNBOUNDED:
        known["epsilon"] = math.inf
    return Line(**known)


def text_of(line: Line) -> bytes:
    """The bytes of a line, without its newline."""
    content: dict[str, Any] = asdict(line)
    if line.epsilon == math.inf:
        content["epsilon"] = UNBOUNDED
    return json.dumps(content, separators=(",", ":"), allow_nan=False).encode()


@dataclass(frozen=True)
class Anchor:
    """How long a log was, and the hash of its last line: enough to know later that nothing before was changed."""

    lines: int
    hash: str

    def __str__(self) -> str:
        return f"{self.lines}:{self.hash}"

    @classmethod
    def read(cls, text: str) -> Anchor:
        """What `str` gave.

        Raises:
            DataError: it is no anchor.
        """
        lines, _, digest = text.strip().partition(":")
        if not (lines.isascii() and lines.isdecimal() and len(lines) < 19 and re.fullmatch(_HASH, digest)):
            raise DataError(f"{text[:80]!r} is no anchor of an egress log: it should look like 120:5f0a... (64 digits)")
        return cls(int(lines), digest)


@dataclass(frozen=True)
class Head:
    """What the log must end with: how many lines there are, and the whole last one, which begins after `before` bytes.

    The head is written before the line. So a last line that a crash cut short is known for what it is, and is whole in
    the head; and a line that the head does not know was not written by a node.
    """

    lines: int = 0
    before: int = 0
    last: bytes = b""

    @property
    def tail(self) -> bytes:
        """What the log has after `before` bytes."""
        return self.last + b"\n" if self.lines else b""

    @property
    def size(self) -> int:
        """How long the log is, in bytes."""
        return self.before + len(self.tail)

    @property
    def anchor(self) -> Anchor:
        """What to note elsewhere."""
        return Anchor(self.lines, digest(self.last) if self.lines else NOTHING)

    def write(self, path: Path) -> None:
        """Replace the head; durable when this returns."""
        content = {"format": FORMAT, "lines": self.lines, "before": self.before, "last": self.last.decode()}
        write_bytes(path, json.dumps(content, indent=1).encode() + b"\n")

    @classmethod
    def read(cls, path: Path) -> Head:
        """The head in a file.

        Raises:
            DataError: it is none, or a newer version wrote it.
            EnvironmentFault: it cannot be read.
        """
        try:
            found = json.loads(read_bytes(path))
            if found["format"] != FORMAT:
                raise DataError(f"{path}: of format {found['format']!r:.20}, and this version knows {FORMAT}; upgrade")
            head = cls(found["lines"], found["before"], found["last"].encode())
            good = _natural(head.lines) and _natural(head.before)
            if not good or (head.lines == 0) != (head.last == b"") or (head.lines <= 1) != (head.before == 0):
                raise ValueError
            if head.lines and line_of(head.last).line != head.lines:
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise DataError(f"{path}: not the head of an egress log; restore it as it was last") from None
        return head


def digest(line: bytes) -> str:
    """The hash by which the next line, and the head, know a line (without its newline)."""
    return hashlib.sha256(line).hexdigest()


def head_of(log: Path) -> Path:
    """Where the head of a log is."""
    return log.with_name(f"{log.name}.head")


def lock_of(log: Path) -> Path:
    """Where the lock of a log is."""
    return log.with_name(f"{log.name}.lock")


def _natural(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 63


def _text(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= _LONGEST and value.isprintable()


def _like(pattern: str) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, str) and re.fullmatch(pattern, value) is not None


def _loss(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value >= 0


def _or_none(good: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or good(value)


_GOOD: dict[str, Callable[[Any], bool]] = {
    "line": lambda value: _natural(value) and value > 0,
    "time": _text,
    "job": _or_none(_text),
    "round": _or_none(_natural),
    "kind": _like(r"[a-z][a-z0-9 _-]{0,63}"),
    "bytes": _natural,
    "sha256": _like(_HASH),
    "contains": _text,
    "masked": lambda value: isinstance(value, bool),
    "epsilon": _or_none(_loss),
    "vault": _or_none(_natural),
    "previous": _like(_HASH),
}
