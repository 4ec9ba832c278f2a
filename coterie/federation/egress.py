"""The egress log: what has left a site, one line for each message, written before the message leaves.

    egress.jsonl          a JSON object a line; each has the SHA-256 of the line before
    egress.jsonl.head     how many lines there are, and the last one: written before it
    egress.jsonl.lock     who writes at this moment

When `EgressLog.append` returns, the line is on the disk for good, and the message may leave; so a line may be there for
a message that did not leave, never the other way. `verify` says whether the log is as it was written, `read` what is in
it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

from coterie.errors import DataError, EnvironmentFault
from coterie.federation.egresscheck import Verification, is_torn, read, verify
from coterie.federation.egressline import Anchor, Head, Line, head_of, line_of, lock_of, text_of
from coterie.federation.filelock import locked
from coterie.files import write_bytes

__all__ = ["Anchor", "EgressLog", "Line", "Verification", "read", "verify"]


def _now() -> datetime:
    return datetime.now(UTC)


class EgressLog:
    """The log in the file `path`, begun if there is none. Several processes may write: one at a time does.

    A last line that a crash left incomplete is completed from the head, here and before every line. Any other ending
    than the one that the head knows is refused: appending would hide it.

    Raises (here and from `append`):
        DataError: the log or its head is not as it was written; `verify` says where.
        EnvironmentFault: the disk is full or cannot be used, or another process writes for too long. The message must
            not leave then.
    """

    def __init__(self, path: Path, clock: Callable[[], datetime] = _now) -> None:
        self.path = path
        self._clock = clock
        _make_folder(path.parent)
        with self._alone():
            self._begin()
            self._whole()

    def append(
        self,
        job: str | None,
        round: int | None,
        kind: str,
        bytes: int,
        sha256: str,
        contains: str,
        masked: bool,
        epsilon: float | None,
        *,
        vault: int | None = None,
    ) -> Line:
        """Write one line, as `Line` says; it is durable when this returns, and only then may the message leave."""
        with self._alone():
            head = self._whole()
            self._refuse_older(vault, head)
            time = self._clock().astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            line = Line(
                head.lines + 1,
                time,
                job,
                round,
                kind,
                bytes,
                sha256,
                contains,
                masked,
                epsilon,
                vault,
                head.anchor.hash,
            )
            after = Head(line.line, head.size, text_of(line))
            after.write(head_of(self.path))
            self._write(after)
            return line

    def last(self) -> Line | None:
        """The last line; None where nothing has left yet."""
        with self._alone():
            head = self._whole()
        return line_of(head.last) if head.lines else None

    def anchor(self) -> Anchor:
        """What to note elsewhere, so that `verify` can tell later that nothing up to here was changed."""
        with self._alone():
            return self._whole().anchor

    def _alone(self) -> AbstractContextManager[None]:
        return locked(lock_of(self.path), f"the egress log {self.path}")

    def _begin(self) -> None:
        """Make the log and its head where there is neither."""
        if head_of(self.path).exists():
            return
        if self.path.exists() and self.path.stat().st_size:
            raise DataError(
                f"{head_of(self.path)}: missing, so whether the log is whole cannot be told; restore the head as it "
                "was last, or move the log away and begin a new one"
            )
        write_bytes(self.path, b"")
        Head().write(head_of(self.path))

    def _refuse_older(self, vault: int | None, head: Head) -> None:
        """Refuse to go on with a vault that has seen fewer changes than when the last message left."""
        known = line_of(head.last).vault if head.lines else None
        if vault is not None and known is not None and vault < known:
            raise DataError(
                f"{self.path}: the vault has seen {vault} changes, and {known} when the last message left: it is an "
                "older copy; restore it as it was last"
            )

    def _whole(self) -> Head:
        """The head, once the log ends as it says: a last line that is provably torn is written again, whole."""
        head = Head.read(head_of(self.path))
        tail = self._tail(head)
        if tail != head.tail:
            if tail is None or not is_torn(tail, head.tail):
                raise DataError(
                    f"{self.path}: does not end as its head says, so nothing is appended and nothing leaves; "
                    "`coterie node egress verify` says what is wrong: restore both files as they were last"
                )
            self._write(head)
        return head

    def _tail(self, head: Head) -> bytes | None:
        """What the log has where the last line belongs; None where it is shorter than that."""
        try:
            with self.path.open("rb") as file:
                if file.seek(0, os.SEEK_END) < head.before:
                    return None
                file.seek(head.before)
                return file.read(len(head.tail) + 1)  # one byte more than there may be
        except FileNotFoundError:
            return None
        except OSError as error:
            raise EnvironmentFault(f"{self.path}: cannot be read: {error.strerror or error}") from None

    def _write(self, head: Head) -> None:
        """Write the last line in its place; durable when this returns."""
        try:
            with self.path.open("r+b") as file:
                file.truncate(head.before)
                file.seek(head.before)
                file.write(head.tail)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise EnvironmentFault(f"{self.path}: cannot be written: {error.strerror or error}") from None


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentFault(f"{folder}: the folder cannot be made: {error.strerror or error}") from None
