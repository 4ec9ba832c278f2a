"""What a training over the network is doing at this moment: for whoever watches, in any thread."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

KEPT = 50  # how many of the last events are shown


@dataclass
class Member:
    """What is known of one member: whether it is there, and what has travelled."""

    name: str
    since: float | None = None
    sent_bytes: int = 0
    received_bytes: int = 0
    dropouts: int = 0
    last_error: str = ""


@dataclass
class Progress:
    """A snapshot that grows: every change is one method, `snapshot` copies it whole; `clock` gives seconds since 1970.

    Nothing in it comes from a log: names, sizes, times, and the reasons that members chose to give.
    """

    members: dict[str, Member] = field(default_factory=dict)
    clock: Callable[[], float] = time.time
    _now: dict[str, Any] = field(default_factory=lambda: {"phase": "idle", "waiting_for": [], "deadline": None})
    _rounds: list[dict[str, Any]] = field(default_factory=list)
    _events: deque[dict[str, Any]] = field(default_factory=lambda: deque(maxlen=KEPT))
    _lock: threading.RLock = field(default_factory=threading.RLock)

    def begin(self, job: str, model: str) -> None:
        """An occurrence of a job starts, or goes on after a restart."""
        with self._lock:
            self._now = {"job": job, "model": model, "phase": "starting", "waiting_for": [], "deadline": None}
            self._now |= {"round": None, "attempt": None, "epsilon_spent": None, "dropouts": 0}
            self._rounds = []

    def phase(self, name: str, waiting_for: Iterable[str] = (), seconds: float | None = None, **facts: Any) -> None:
        """What is done now, who is waited for, and for how long at most."""
        with self._lock:
            deadline = None if seconds is None else self.clock() + seconds
            self._now |= {"phase": name, "waiting_for": sorted(waiting_for), "deadline": deadline, **facts}

    def answered(self, name: str) -> None:
        """A member is not waited for any more."""
        with self._lock:
            self._now["waiting_for"] = [one for one in self._now["waiting_for"] if one != name]

    def moved(self, name: str, sent: int = 0, received: int = 0) -> None:
        """Bytes that travelled to (`sent`) and from (`received`) a member."""
        with self._lock:
            member = self._member(name)
            member.sent_bytes += sent
            member.received_bytes += received

    def fault(self, name: str, reason: str, dropped: bool = True) -> None:
        """A member failed, lied or refused; `dropped`: it is out of this attempt."""
        with self._lock:
            member = self._member(name)
            member.last_error = reason
            if dropped:
                member.dropouts += 1
                self._now["dropouts"] = self._now.get("dropouts", 0) + 1
            self.event(f"{name}: {reason}")

    def forgive(self, name: str) -> None:
        """What a member failed at is mended."""
        with self._lock:
            self._member(name).last_error = ""

    def event(self, text: str) -> None:
        """Something that a person who comes later wants to have seen."""
        with self._lock:
            if self._events and self._events[-1]["text"] == text:
                self._events.pop()  # said again: the newest time is enough
            self._events.append({"time": self.clock(), "text": text})

    def round_done(self, record: dict[str, Any]) -> None:
        """One round is over."""
        with self._lock:
            self._rounds.append(record)

    def spent(self, epsilon: float | None) -> None:
        """What the job has cost each user so far."""
        with self._lock:
            self._now["epsilon_spent"] = epsilon

    def online(self, since: dict[str, float]) -> None:
        """Who is connected, since when."""
        with self._lock:
            for name in since:
                self._member(name)
            for name, member in self.members.items():
                member.since = since.get(name)

    def snapshot(self) -> dict[str, Any]:
        """Everything, as plain values."""
        with self._lock:
            members = [dict(vars(one)) for _, one in sorted(self.members.items())]
            return {**self._now, "members": members, "rounds": list(self._rounds), "events": list(self._events)}

    def _member(self, name: str) -> Member:
        return self.members.setdefault(name, Member(name))
