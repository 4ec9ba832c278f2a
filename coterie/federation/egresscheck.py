"""Whether an egress log is as it was written, and if not, from which line on and why.

Each line has the hash of the line before, and the head has the last line. So the head proves the last line, that one
the line before, and so on: whoever alters a line would have to alter all after it, and the head. A person who may write
to both can do that; who has noted an anchor elsewhere before finds out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from coterie.errors import DataError, EnvironmentFault
from coterie.federation.egressline import NOTHING, Anchor, Head, Line, digest, head_of, line_of, lock_of
from coterie.federation.filelock import undisturbed


@dataclass(frozen=True)
class Verification:
    """What `verify` found.

    Attributes:
        lines: how many whole lines the log has.
        line: the first that is not as it was written (from 1); None where all are.
        reason: why, as a clause.
        mendable: the last line alone is cut short or missing, and the head has it: the next start completes it.
        anchor: what to note elsewhere, where all is well.
    """

    lines: int
    line: int | None = None
    reason: str = ""
    mendable: bool = False
    anchor: Anchor | None = None

    @property
    def ok(self) -> bool:
        """Whether every line is as it was written, and none is missing."""
        return self.line is None

    def __str__(self) -> str:
        if self.line is not None:
            return f"line {self.line}: {self.reason}"
        return f"{self.lines:,} {'line is' if self.lines == 1 else 'lines are'} as written, and none is missing"


@dataclass(frozen=True)
class _Link:
    """What the chain needs of a line: the number that it has, what it says of the line before, and its own hash."""

    number: int
    previous: str
    hash: str


@dataclass(frozen=True)
class _Log:
    """A log as it is on the disk: its whole lines (None: not a line), how long they are, and what follows them."""

    links: Sequence[_Link | None]
    size: int
    rest: bytes


Fault = tuple[int, str]


def verify(path: Path, known: Anchor | None = None) -> Verification:
    """Check every line of the log at `path` against the next one, the last one against the head, all against `known`.

    Raises:
        DataError: there is no log.
        EnvironmentFault: it cannot be read.
    """
    head_path = head_of(path)
    with undisturbed(lock_of(path), f"the egress log {path}"):
        if not path.exists() and not head_path.exists():
            raise DataError(f"{path}: no such egress log; check the path")
        log = _load(path)
        try:
            head = Head.read(head_path) if head_path.exists() else None
            missing = f"{head_path} is missing"
        except DataError as error:
            head, missing = None, str(error)
    fault = _chain(log, head) or _ending(log, head, missing)
    if fault is None and known is not None:
        fault = _noted(log, known)
    if fault is None and head is not None:
        return Verification(len(log.links), anchor=head.anchor)
    line, reason = fault or (len(log.links) + 1, missing)
    return Verification(len(log.links), line, reason, mendable=_mendable(log, head, line))


def read(path: Path) -> Iterator[Line]:
    """The lines of a log, as far as they are whole.

    Raises:
        DataError: one is not a line of an egress log; says which.
        EnvironmentFault: the file cannot be read.
    """
    for place, text in enumerate(_texts(path), 1):
        if not text.endswith(b"\n"):
            return
        try:
            yield line_of(text[:-1])
        except DataError as error:
            raise DataError(f"{path}: line {place}: {error}; verify the log") from None


def is_torn(tail: bytes, whole: bytes) -> bool:
    """Whether `tail` is what may be left of `whole` when the machine stops while it is written.

    What had reached the disk is right, and what had not is missing or zero: a line has no zero bytes.
    """
    return len(tail) <= len(whole) and all(a in (0, b) for a, b in zip(tail, whole, strict=False))


def _load(path: Path) -> _Log:
    links: list[_Link | None] = []
    size, rest = 0, b""
    for text in _texts(path):
        if not text.endswith(b"\n"):
            rest = text
            break
        size += len(text)
        links.append(_link(text[:-1]))
    return _Log(links, size, rest)


def _texts(path: Path) -> Iterator[bytes]:
    try:
        with path.open("rb") as file:
            yield from file
    except FileNotFoundError:
        return
    except OSError as error:
        raise EnvironmentFault(f"{path}: cannot be read: {error.strerror or error}") from None


def _link(text: bytes) -> _Link | None:
    try:
        line = line_of(text)
    except DataError:
        return None
    return _Link(line.line, line.previous, digest(text))


# --- the chain ------------------------------------------------------------------------------------------------------


def _chain(log: _Log, head: Head | None) -> Fault | None:
    """The first line that does not follow from the one before it."""
    before = NOTHING
    for place, link in enumerate(log.links, 1):
        if link is None:
            return place, "not a line of an egress log: altered, or written by hand"
        if link.number != place:
            return _misplaced(log.links, place, link, before)
        if link.previous != before:
            return _unlinked(log, head, place)
        before = link.hash
    return None


def _misplaced(links: Sequence[_Link | None], place: int, link: _Link, before: str) -> Fault:
    """Why a line has another number than its place."""
    if link.previous == before:
        return place, f"altered: it follows line {place - 1}, and calls itself line {link.number}"
    for earlier, other in enumerate(links[: place - 1], 1):
        if other is not None and other.number == link.number:
            if other == link:
                return place, f"line {link.number} stands here a second time"
            return earlier, f"another line {link.number} stands at place {place}: one of them was written by hand"
    for later, other in enumerate(links[place:], place + 1):
        if other is not None and other.number == place:
            return place, f"out of order: line {link.number} stands in its place, and line {place} at place {later}"
    return place, f"removed: line {link.number} stands in its place"


def _unlinked(log: _Log, head: Head | None, place: int) -> Fault:
    """Which of two lines was altered, where the second has another hash of the first.

    If what comes after the second one knows it as it is, it is the first; otherwise the second was altered for sure.
    """
    link, proof = log.links[place - 1], _proof(log, head, place)
    if place > 1 and link is not None and proof == link.hash:
        return place - 1, f"altered: line {place} has another hash of it"
    return place, "altered: neither its hash of the line before is right, nor what comes after knows it"


def _proof(log: _Log, head: Head | None, place: int) -> str | None:
    """The hash that a line must have, according to the one after it or the head."""
    if place < len(log.links):
        after = log.links[place]
        return None if after is None else after.previous
    if head is None:
        return None
    if head.lines == place + 1:
        return line_of(head.last).previous
    return head.anchor.hash if head.lines == place else None


# --- the end --------------------------------------------------------------------------------------------------------


def _ending(log: _Log, head: Head | None, missing: str) -> Fault | None:
    """What is wrong with the end of a log whose lines follow from each other."""
    lines = len(log.links)
    if head is None:
        return lines + 1, f"whether lines were cut off here cannot be told: {missing}"
    if lines < head.lines - 1:
        return lines + 1, f"cut off: lines {lines + 1} to {head.lines} are missing"
    if lines > head.lines or (lines == head.lines and log.rest):
        return head.lines + 1, f"appended by hand, or the head is an older copy: it knows {head.lines} lines"
    last = log.links[-1] if log.links else None
    if last is not None and last.hash != _proof(log, head, lines):
        return lines, "altered: the head has another hash of it"
    return _last_line(log, head)


def _last_line(log: _Log, head: Head) -> Fault | None:
    """What is wrong with the last line, or with what the head knows of it, where all before it is as it should be."""
    whole = len(log.links) == head.lines
    if log.size != (head.size if whole else head.before):
        return max(len(log.links), 1), "the head beside the log is not of this log: it has another length"
    if whole:
        return None
    if is_torn(log.rest, head.tail):
        return head.lines, "missing or cut short; the head has it, and the node's next start completes it"
    return head.lines, "altered: the head has another line"


def _mendable(log: _Log, head: Head | None, line: int) -> bool:
    """Whether that line is the last, and the head has what is missing of it."""
    if head is None or line != head.lines or len(log.links) != head.lines - 1:
        return False
    return log.size == head.before and is_torn(log.rest, head.tail)


def _noted(log: _Log, known: Anchor) -> Fault | None:
    """What differs from an anchor that was noted earlier."""
    if known.lines > len(log.links):
        return len(log.links) + 1, f"cut off, and the head with it: {known.lines} lines were noted elsewhere"
    link = log.links[known.lines - 1] if known.lines else None
    if (NOTHING if link is None else link.hash) != known.hash:
        return max(known.lines, 1), "not the line that was noted elsewhere: the log was written anew"
    return None
