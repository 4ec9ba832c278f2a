"""Points at which a process may be killed, or its disk be full: around every write and commit of a database.

SQLite lets its system calls be replaced (``xSetSystemCall`` of its VFS): each write, truncation, deletion and opening
of a folder has a point before and a point after it. Its syncs lie between two of them, and a kill before a sync leaves
the same bytes as a kill after it. Statements and commits of any database, and `os.fsync`, have points as well.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, event

Tick = Callable[[str], None]

_CALLS = {
    "pwrite": (ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64),
    "pwrite64": (ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int64),
    "write": (ctypes.c_ssize_t, ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t),
    "ftruncate": (ctypes.c_int, ctypes.c_int, ctypes.c_int64),
    "unlink": (ctypes.c_int, ctypes.c_char_p),
    "openDirectory": (ctypes.c_int, ctypes.c_char_p, ctypes.POINTER(ctypes.c_int)),
}
_WRITES = ("pwrite", "pwrite64", "write")
_kept: list[Any] = []  # what C calls must not be collected


class Points:
    """Counts the points that were passed, and kills this process at the one that was chosen.

    `kill` is (name of the point, how many of them are passed before); `full` is how many writes the disk still takes.
    """

    def __init__(self, kill: tuple[str, int] | None = None, full: int | None = None) -> None:
        self.kill, self.full = kill, full
        self.passed: Counter[str] = Counter()

    def __call__(self, name: str) -> None:
        if self.kill == (name, self.passed[name]):
            os.kill(os.getpid(), signal.SIGKILL)
        self.passed[name] += 1

    def install(self) -> None:
        """Watch the databases and files of this process from now on."""
        self._watch_statements()
        self._watch_fsync()
        for name, types in _CALLS.items():
            self._watch_call(name, types)

    def _watch_statements(self) -> None:
        event.listen(Engine, "before_cursor_execute", lambda *_: self("before statement"))
        event.listen(Engine, "after_cursor_execute", lambda *_: self("after statement"))
        event.listen(Engine, "commit", lambda *_: self("before commit"))
        event.listen(Engine, "close", lambda *_: self("after transaction"))

    def _watch_fsync(self) -> None:
        real = os.fsync

        def fsync(handle: int) -> None:
            self("before fsync")
            real(handle)
            self("after fsync")

        os.fsync = fsync

    def _watch_call(self, name: str, types: tuple[Any, ...]) -> None:
        vfs = _default_vfs()
        if vfs is None or not (address := vfs.contents.get(vfs, name.encode())):
            return
        kind = ctypes.CFUNCTYPE(*types, use_errno=True)
        real = kind(address)

        def call(*arguments: Any) -> Any:
            self(f"before {name}")
            if name in _WRITES and self.full is not None and self.passed[f"before {name}"] > self.full:
                ctypes.set_errno(errno.ENOSPC)
                return -1
            done = real(*arguments)
            self(f"after {name}")
            return done

        ours = kind(call)
        _kept.extend((real, ours))
        assert vfs.contents.set(vfs, name.encode(), ctypes.cast(ours, ctypes.c_void_p)) == 0


def reach_into_sqlite() -> bool:
    """Whether this Python's SQLite can be watched: it is a library of its own, and has a VFS for Unix."""
    return _default_vfs() is not None


class _Vfs(ctypes.Structure):
    """``sqlite3_vfs``, version 3."""


_Vfs._fields_ = [
    ("version", ctypes.c_int),
    ("file_size", ctypes.c_int),
    ("longest_path", ctypes.c_int),
    ("next", ctypes.c_void_p),
    ("name", ctypes.c_char_p),
    ("data", ctypes.c_void_p),
    ("methods", ctypes.c_void_p * 13),
    ("set", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Vfs), ctypes.c_char_p, ctypes.c_void_p)),
    ("get", ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.POINTER(_Vfs), ctypes.c_char_p)),
]


def _default_vfs() -> Any:
    """The VFS that `sqlite3` uses in this process; None where it is out of reach."""
    import _sqlite3  # the library is loaded with it

    maps = Path("/proc/self/maps")
    loaded = {line.split()[-1] for line in maps.read_text().splitlines()} if maps.exists() else set()
    for path in (*(one for one in loaded if "libsqlite3" in one), _sqlite3.__file__):
        try:
            find = ctypes.CDLL(path).sqlite3_vfs_find
        except (OSError, AttributeError):
            continue
        find.argtypes, find.restype = [ctypes.c_char_p], ctypes.POINTER(_Vfs)
        vfs = find(None)
        if vfs and vfs.contents.version >= 3:
            return vfs
    return None
