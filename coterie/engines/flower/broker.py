"""The daemon's side of the pump: what is to be sent, what has been answered, and what has to be sent again.

Nodes answer equal messages with equal bytes, so a message is sent again whenever its answer may have been lost: when
the pump was started anew, when the node has connected anew, when Flower reports a failure, and after a long silence.
"""

from __future__ import annotations

import itertools
import queue
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from coterie.engines.flower.control import Seat
from coterie.engines.flower.frames import pack, unpack
from coterie.federation.transport import never

IDLE_CALL = 1.0  # seconds for which a pump that has nothing to wait for is held
WATCHING = 0.02  # seconds for which a pump that waits for answers is held: its gate lets it wait for those
DOUBT = 5.0  # seconds until a message is sent again after SuperLink was killed: it may have lost what was on its way
SILENCE = 60.0  # seconds after which a message is sent again though nothing is known to have failed; doubles
RETRY = (1.0, 30.0)  # seconds until a failed message is sent again: the first time, at most
_MARGIN = 60.0  # seconds by which Flower keeps a message longer than anybody waits for it

Key = tuple[int, str]


@dataclass
class _Out:
    """A message of an open exchange: `due` is when it is to be sent, by the monotonic clock."""

    key: Key
    payload: bytes
    until: float
    answers: queue.SimpleQueue[tuple[str, bytes]]
    due: float = 0.0
    tries: int = 0
    sent_at: float = 0.0  # seconds since 1970: compared with when a node connected


@dataclass
class Broker:
    """Open exchanges, and the one pump that serves them. `seats` tells who is connected (a short look-up).

    `current` is the run whose pump may serve; any other is told to end.
    """

    seats: Callable[[], Mapping[str, Seat]]
    troubles: dict[str, str] = field(default_factory=dict)
    _open: dict[Key, _Out] = field(default_factory=dict)
    _numbers: Iterator[int] = field(default_factory=itertools.count)
    _changed: threading.Condition = field(default_factory=threading.Condition)
    _current: int | None = None
    _connected: int = 0  # sessions of the current run's pump
    _greeted: bool = False

    @property
    def wanted(self) -> bool:
        """Whether an exchange is open, so that a pump is needed."""
        return bool(self._open)

    @property
    def greeted(self) -> bool:
        """Whether the current run's pump has come."""
        return self._greeted

    @property
    def served(self) -> bool:
        """Whether the current run's pump is connected."""
        return self._connected > 0

    def admit(self, run: int | None) -> None:
        """Let the pump of a run serve, and no other: what is out is sent again by that one."""
        with self._changed:
            self._current, self._connected, self._greeted = run, 0, False
            for one in self._open.values():
                one.due = 0.0
            self._changed.notify_all()

    def doubt(self) -> None:
        """SuperLink has ended: what is out may be lost."""
        with self._changed:
            for one in self._open.values():
                one.due = min(one.due, time.monotonic() + DOUBT)

    def exchange(
        self, messages: Mapping[str, bytes], seconds: float, enough: Callable[[frozenset[str]], bool] = never
    ) -> Iterator[tuple[str, bytes]]:
        """As `coterie.federation.transport.Transport.exchange`."""
        answered: set[str] = set()
        until = time.monotonic() + seconds
        with self._opened(messages, until) as answers:
            while answered < messages.keys() and not enough(frozenset(answered)):
                left = until - time.monotonic()
                if left <= 0:
                    return
                try:
                    member, reply = answers.get(timeout=min(left, 0.5))
                except queue.Empty:
                    continue
                if member not in answered:
                    answered.add(member)
                    yield member, reply

    def session(self) -> PumpSession:
        """What answers one connection of a pump."""
        return PumpSession(self)

    def serve(self, head: dict[str, Any], body: bytes) -> bytes:
        """Answer one request of a pump."""
        if head["run"] != self._current:
            return pack({"do": "end"})
        if head["do"] == "take":
            return self._next()
        key = (int(head["key"][0]), str(head["key"][1]))
        with self._changed:
            out = self._open.get(key)
            if out is not None and head["do"] == "reply":
                del self._open[key]
                self.troubles.pop(key[1], None)
                out.answers.put((key[1], body))
            elif out is not None:
                self.troubles[key[1]] = str(head["why"])
                out.due = time.monotonic() + min(RETRY[0] * 2 ** (out.tries - 1), RETRY[1])
        return pack({"do": "on"})

    def joined(self, run: int) -> bool:
        """A pump has connected; whether it is the one that may serve."""
        with self._changed:
            if run != self._current:
                return False
            self._connected += 1
            self._greeted = True
            return True

    def left(self, run: int) -> None:
        """A connection of a pump that had `joined` has ended."""
        with self._changed:
            if run == self._current:
                self._connected -= 1

    @contextmanager
    def _opened(self, messages: Mapping[str, bytes], until: float) -> Iterator[queue.SimpleQueue[tuple[str, bytes]]]:
        number, answers = next(self._numbers), queue.SimpleQueue[tuple[str, bytes]]()
        with self._changed:
            for member, payload in messages.items():
                self._open[number, member] = _Out((number, member), payload, until, answers)
            self._changed.notify_all()
        try:
            yield answers
        finally:
            with self._changed:
                for member in messages:
                    self._open.pop((number, member), None)

    def _next(self) -> bytes:
        """The next message to send, or after a moment what is still waited for."""
        with self._changed:
            if (send := self._send()) is None:
                self._changed.wait(WATCHING if self._open else IDLE_CALL)
                send = self._send()
            return send or pack({"do": "watch", "open": [one.key for one in self._open.values() if one.tries]})

    def _send(self) -> bytes | None:
        if not self._open:
            return None
        now, seats = time.monotonic(), self.seats()
        for one in self._open.values():
            seat = seats.get(one.key[1])
            if seat is None or seat.since is None or (now < one.due and not 0 < one.sent_at < seat.since):
                continue
            one.due = now + SILENCE * 2**one.tries
            one.tries, one.sent_at = one.tries + 1, time.time()
            ttl = max(one.until - now, 0.0) + _MARGIN
            return pack({"do": "send", "key": one.key, "node": seat.node, "ttl": ttl}, one.payload)
        return None


class PumpSession:
    """A connection of a pump; `coterie.federation.link.Session`."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._run: int | None = None

    def answer(self, message: bytes) -> bytes:
        head, body = unpack(message)
        if self._run is None and self._broker.joined(head["run"]):
            self._run = head["run"]
        return self._broker.serve(head, body)

    def close(self) -> None:
        if self._run is not None:
            self._broker.left(self._run)
