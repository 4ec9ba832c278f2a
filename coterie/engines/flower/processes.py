"""Child processes that are kept running: started again after growing pauses, logged, explained, never left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from coterie.engines.flower import tether
from coterie.engines.flower.logs import RotatingLog

SETTLED = 60.0  # seconds after which a process counts as well, and its next failure as the first
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 15.0

Explain = Callable[[int, Sequence[str]], str]


def stop_all(children: Iterable[Child]) -> None:
    """Stop several at the same time."""
    children = list(children)
    for child in children:
        child.ask_to_end()
    for child in children:
        child.stop()


class Child:
    """One supervised process and its restarts.

    `command` is asked anew for each start. `seen` is told each line that the process writes, on a thread of its own;
    `explain` says in a sentence why it ended, from its exit status and last lines, and `ended` is told that sentence.
    """

    def __init__(
        self,
        name: str,
        command: Callable[[], Sequence[str]],
        log: Path,
        *,
        environment: Mapping[str, str],
        explain: Explain,
        seen: Callable[[str], None] = lambda _: None,
        ended: Callable[[str], None] = lambda _: None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        self.name, self.restarts, self.last_error = name, 0, ""
        self._command, self._explain, self._seen, self._ended = command, explain, seen, ended
        self._environment, self._pass_fds = dict(environment), tuple(pass_fds)
        self._log = RotatingLog(log)
        self._tail: deque[str] = deque(maxlen=60)
        self._process: subprocess.Popen[bytes] | None = None
        self._stopping, self._kicked = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    @property
    def pid(self) -> int | None:
        """The process's number while it runs."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def start(self) -> None:
        """Start it, and start it again whenever it ends, until `stop`."""
        self._stopping.clear()
        # The kernel ties a child to the thread that made it: this one lives as long as the supervision.
        self._thread = threading.Thread(target=self._supervise, name=f"child {self.name}", daemon=True)
        self._thread.start()

    def kick(self) -> None:
        """End it so that it is started again at once; that is no failure of its own."""
        self._kicked.set()
        self._signal(signal.SIGKILL)

    def ask_to_end(self) -> None:
        """Ask it to end, and start it no more."""
        self._stopping.set()
        self._signal(signal.SIGTERM)

    def stop(self, seconds: float = 5.0) -> None:
        """`ask_to_end`, and end it after `seconds`; nothing that it started is left either."""
        self.ask_to_end()
        if self._thread is None:
            return
        self._thread.join(seconds)
        if self._thread.is_alive():
            self._signal(signal.SIGKILL)
            self._thread.join()
        self._thread = None
        self._log.close()

    def facts(self) -> dict[str, object]:
        """What operators see of it."""
        return {"name": self.name, "pid": self.pid, "restarts": self.restarts, "last_error": self.last_error}

    def _supervise(self) -> None:
        pause = FIRST_PAUSE
        while not self._stopping.is_set():
            begun = time.monotonic()
            status = self._run_once()
            if self._stopping.is_set():
                return
            self.restarts += 1
            if self._kicked.is_set():
                self._kicked.clear()
                continue
            self._failed(status)
            pause = FIRST_PAUSE if time.monotonic() - begun > SETTLED else pause
            self._stopping.wait(pause)
            pause = min(2 * pause, LONGEST_PAUSE)

    def _failed(self, status: int) -> None:
        self.last_error = self._explain(status, list(self._tail))
        self._log.write(f"coterie: {self.name} ended ({status}): {self.last_error}")
        self._ended(self.last_error)

    def _run_once(self) -> int:
        """Its exit status (negative: the signal that ended it), or 127 where it could not be started."""
        self._tail.clear()
        try:
            process = self._begin()
        except OSError as error:
            self._tail.append(f"{error.strerror or error}")
            return 127
        self._process = process
        reader = threading.Thread(target=self._read, args=(process,), name=f"log {self.name}", daemon=True)
        reader.start()
        if self._stopping.is_set():  # `stop` may have come before there was anything to stop
            self._signal(signal.SIGTERM)
        status = process.wait()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)  # what it started ends with it
        reader.join(2.0)
        return status

    def _begin(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-I", "-S", tether.__file__, str(os.getpid()), *self._command()]
        return subprocess.Popen(  # noqa: S603 - a command of ours
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=self._environment,
            pass_fds=self._pass_fds,
            umask=0o077,  # what it writes is for this user alone
            start_new_session=True,  # a Ctrl-C at the terminal is for us, and what it starts is in its group
        )

    def _read(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdout is not None  # noqa: S101 - it is piped
        with process.stdout:
            for raw in process.stdout:
                line = raw.decode(errors="replace").rstrip()
                self._tail.append(line)
                self._log.write(line)
                self._seen(line)

    def _signal(self, number: signal.Signals) -> None:
        process = self._process
        if process is not None and process.poll() is None:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, number)
