"""One at a time: a lock on a file, which other processes and other threads respect, and which ends with its holder."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from coterie.errors import EnvironmentFault

PATIENCE = 60.0  # seconds to wait for whoever holds it
_POLL = 0.02


@contextmanager
def locked(path: Path, what: str, seconds: float = PATIENCE) -> Iterator[None]:
    """Hold the lock `path` for the block; the file is made where there is none, and stays.

    The system lets go of it when the process ends, however it ends. It is not re-entrant: a thread that holds it and
    asks again waits for itself.

    Args:
        path: the lock file, in a folder that exists.
        what: what is locked, for the message.
        seconds: how long to wait for another holder; 0: not at all.

    Raises:
        EnvironmentFault: it is held by another one for longer than that, or the file cannot be made.
    """
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise EnvironmentFault(f"{path}: the lock cannot be made: {error.strerror or error}") from None
    try:
        _wait(handle, path, what, seconds)
        yield
    finally:
        os.close(handle)


@contextmanager
def undisturbed(path: Path, what: str, seconds: float = PATIENCE) -> Iterator[None]:
    """Keep writers out for the block, as a reader who may be unable to write; where there is no lock nobody writes.

    Raises:
        EnvironmentFault: somebody has written for longer than `seconds`, or the lock cannot be read.
    """
    try:
        handle = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        yield
        return
    except OSError as error:
        raise EnvironmentFault(f"{path}: the lock cannot be read: {error.strerror or error}") from None
    try:
        _wait(handle, path, what, seconds, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


def _wait(handle: int, path: Path, what: str, seconds: float, mode: int = fcntl.LOCK_EX) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(handle, mode | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() >= end:
                held = f"for {seconds:g} seconds" if seconds else "at this moment"
                raise EnvironmentFault(
                    f"{what}: another process has held {path} {held}; call again when that has ended"
                ) from None
            time.sleep(_POLL)
        except OSError as error:
            raise EnvironmentFault(f"{path}: cannot be locked: {error.strerror or error}") from None
        else:
            return
