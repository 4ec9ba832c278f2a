"""The log of requests: one JSON object a line, without ids of users or items, addresses, or anything a client wrote."""

from __future__ import annotations

import atexit
import json
import os
import sys
import threading
import time
import traceback
from collections import deque
from functools import lru_cache
from io import FileIO
from pathlib import Path

from coterie.errors import EnvironmentFault
from coterie.serving.config import LogSettings

PAUSE = 0.1  # seconds in which lines are gathered: the thread is woken ten times a second at most
MOST = 100_000  # lines that wait for a disk that has stopped; later ones are lost, and counted


class RequestLog:
    """Writes lines from a thread of its own: a slow disk or terminal slows no answer.

    A file that was renamed (by logrotate, say) is opened anew. What cannot be written is counted and said later.

    Raises:
        EnvironmentFault: the file cannot be opened.
    """

    def __init__(self, settings: LogSettings) -> None:
        self.requests = settings.requests
        self._path = None if settings.file is None else Path(settings.file)
        self._file = None if self._path is None else _opened(self._path)
        self._lines: deque[str] = deque()
        self._lost = 0
        self._wake, self._woken = threading.Event(), False
        self._writing = threading.Lock()
        self._thread: threading.Thread | None = None
        self._closed = self._torn = False

    def request(
        self, method: str, route: str, status: int, seconds: float, sent: int, key: str | None, id: str
    ) -> None:
        """One request. No value is a client's: the method is a known one, the route a template, the key an id."""
        shown = "null" if key is None else f'"{key}"'
        self._put(
            f'{{"time":"{_stamp()}","method":"{method}","route":{quoted(route)},'
            f'"status":{status},"ms":{seconds * 1000:.2f},"bytes":{sent},"key":{shown},"request":"{id}"}}\n'
        )

    def fault(self, error: BaseException, route: str, id: str) -> None:
        """An error nobody expected: its kind and where it came from. Never its message, which may quote the request."""
        told = {"time": _stamp(), "fault": type(error).__qualname__, "route": route, "request": id}
        self._put(json.dumps({**told, "trace": trace_of(error)}) + "\n")

    def flush(self) -> None:
        """Write what waits."""
        with self._writing:
            lines = [self._lines.popleft() for _ in range(len(self._lines))]
            waiting, lost, self._lost = len(lines), self._lost, 0
            if lost:
                lines.append(json.dumps({"time": _stamp(), "lost": lost}) + "\n")
            try:
                self._write("".join(lines))
            except (EnvironmentFault, OSError, ValueError):  # no space, a stderr that was closed: said when it can be
                self._lost += lost + waiting

    def close(self) -> None:
        """Write what waits, and end; doing so again changes nothing."""
        self._closed = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        self.flush()
        atexit.unregister(self.close)
        if self._file is not None and not self._file.closed:
            self._file.close()

    def _put(self, line: str) -> None:
        if len(self._lines) >= MOST:
            self._lost += 1
            return
        self._lines.append(line)
        if not self._woken:
            self._woken = True
            if self._thread is None:
                self._start()
            self._wake.set()

    def _start(self) -> None:
        """On the first line, so that a process that was forked before has a thread of its own."""
        self._thread = threading.Thread(target=self._run, name="request log", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def _run(self) -> None:
        while not self._closed:
            self._wake.wait()
            self._wake.clear()
            if not self._closed:
                time.sleep(PAUSE)
            self._woken = False  # before the lines are taken: one that comes later wakes us again
            self.flush()

    def _write(self, text: str) -> None:
        if not text:
            return
        if self._path is None or self._file is None:
            sys.stderr.write(text)
            sys.stderr.flush()
            return
        if self._file.closed or _moved(self._path, self._file):
            self._file.close()
            self._file = _opened(self._path)
        content = (f"\n{text}" if self._torn else text).encode()
        self._torn = True  # until all of it is there
        while content:
            content = content[self._file.write(content) :]
        self._torn = False


@lru_cache(1000)
def quoted(text: str) -> str:
    """The text as JSON."""
    return json.dumps(text)


def trace_of(error: BaseException) -> list[str]:
    """Where an error came from, innermost last, and those that led to it; without their messages and any values.

    >>> try:
    ...     {}["user-17"]
    ... except KeyError as error:
    ...     trace_of(error)[0].partition(" ")[0]
    'KeyError'
    """
    found: list[str] = []
    seen: set[int] = set()
    cause: BaseException | None = error
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        found.append(f"{type(cause).__qualname__} at")
        found += [f"{one.filename}:{one.lineno} {one.name}" for one in traceback.extract_tb(cause.__traceback__)]
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return found


def _opened(path: Path) -> FileIO:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        return path.open("ab", buffering=0)  # a buffer would try again what failed
    except OSError as error:
        raise EnvironmentFault(
            f"log.file {path}: cannot be written: {error.strerror or error}; name another one"
        ) from None


def _moved(path: Path, file: FileIO) -> bool:
    try:
        return path.stat().st_ino != os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return True


def _stamp() -> str:
    """Now in UTC, to the millisecond."""
    now = time.time()
    return f"{_second(int(now))}.{int(now % 1 * 1000):03d}Z"


@lru_cache(2)
def _second(now: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now))
