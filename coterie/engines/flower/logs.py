"""Log files of child processes: plain text with the time, of bounded size, readable by the owner alone."""

from __future__ import annotations

import contextlib
import os
import re
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import TextIO

LARGEST = 5_000_000  # bytes; the file before it is kept as NAME.1

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


class RotatingLog:
    """Appends lines; a disk that is full costs the log, never what is logged."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._file: TextIO | None = None

    def write(self, line: str) -> None:
        """Append a line with the time (UTC); colours are left out, and so are empty lines."""
        text = _COLOURS.sub("", line).rstrip()
        if not text:
            return
        with self._lock, contextlib.suppress(OSError):
            file = self._opened()
            file.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ} {text}\n")
            file.flush()
            if file.tell() > LARGEST:
                self._close()
                self._path.replace(self._path.with_name(self._path.name + ".1"))

    def close(self) -> None:
        """Close the file; a later line opens it again."""
        with self._lock:
            self._close()

    def _opened(self) -> TextIO:
        if self._file is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
            self._file = os.fdopen(handle, "a", encoding="utf-8")
        return self._file

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None
