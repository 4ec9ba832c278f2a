"""A relay that can be cut (nothing passes then, and nobody is told, as when a cable is drawn), and that garbles."""

from __future__ import annotations

import socket
import threading

from tests.relay import Relay


class Partition(Relay):
    """A `Relay` between one node and the coordinator; while it is `cut_off`, bytes wait and new connections hang."""

    def __init__(self, port: int) -> None:
        self._whole = threading.Event()
        self._whole.set()
        self.garbles = 0  # so many of the next pieces to the coordinator have a bit turned over
        super().__init__(port)

    def cut_off(self, off: bool) -> None:
        """Let nothing pass; then again, over connections that have to be made anew."""
        if off:
            self._whole.clear()
        else:
            self._whole.set()
            self.cut()

    def close(self) -> None:
        """Pass nothing any more."""
        self._whole.set()
        super().close()

    def _connect(self, client: socket.socket) -> None:
        self._whole.wait()
        super()._connect(client)

    def _on_its_way(self, data: bytes, way: str) -> bytes:
        self._whole.wait()
        if way == "up" and self.garbles:
            self.garbles -= 1
            return bytes([*data[:-1], data[-1] ^ 1])
        return data
