"""Which members may connect, and which are: kept durably by the daemon, told to SuperLink, asked of it every second."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Mapping
from pathlib import Path

from coterie.engines.flower.control import Control, Seat, pem
from coterie.engines.flower.seats import Seats
from coterie.errors import ConfigError, EnvironmentFault

LOOK = 1.0  # seconds between two looks who is connected


class Directory:
    """The seats in a file, and who sits on them. SuperLink reads the file before it lets anybody connect."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._seats = Seats.read(path)
        self._lock = threading.Lock()
        self._control: Control | None = None
        self._found: dict[str, Seat] = {}
        self._changed, self._stopping = threading.Event(), threading.Event()

    def start(self, control: Control) -> None:
        """Begin to look who is connected, until `stop`."""
        self._control = control
        threading.Thread(target=self._watch, name="directory", daemon=True).start()

    def stop(self) -> None:
        """Look no more; nobody is connected."""
        self._stopping.set()
        self._changed.set()
        self._found = {}

    def found(self) -> Mapping[str, Seat]:
        """The members' seats, as of a second ago; none while SuperLink is down. Returns at once."""
        return self._found

    def register(self, name: str, transport_public: str) -> None:
        """As `CoordinatorNet.register`."""
        try:
            key = pem(transport_public)
        except ValueError:
            shown = repr(transport_public[:40])
            raise ConfigError(f"the transport key of '{name}' is no OpenSSH public key: {shown}") from None
        with self._lock:
            if (former := self._seats.keys.get(name)) == key.decode():
                return
            self._seats.give(name, key.decode())
            self._seats.write(self.path)
            self._tell(key, former)

    def unregister(self, name: str) -> None:
        """As `CoordinatorNet.unregister`."""
        with self._lock:
            key = self._seats.take(name)
            if key is not None:
                self._seats.write(self.path)
                self._tell(None, key)

    def _tell(self, given: bytes | None, taken: str | None) -> None:
        """Tell SuperLink at once; one that is down reads the file when it comes up."""
        if self._control is not None:
            with contextlib.suppress(EnvironmentFault):
                seats = self._control.seats()
                if taken is not None and (seat := seats.get(taken.encode())) is not None:
                    self._control.unregister(seat.node)
                if given is not None and given not in seats:
                    self._control.register(given)
        self._changed.set()

    def _watch(self) -> None:
        assert self._control is not None  # noqa: S101 - `start` set it
        while not self._stopping.is_set():
            self._changed.clear()
            with self._lock:
                keys = dict(self._seats.keys)
            try:
                seats = self._control.seats()
                found = {name: seats[key.encode()] for name, key in keys.items() if key.encode() in seats}
            except EnvironmentFault:
                found = {}
            if not self._stopping.is_set():
                self._found = found
            self._changed.wait(LOOK)
