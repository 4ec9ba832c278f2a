"""A TCP relay on the loopback interface that counts what passes: in front of a server, or as a proxy that is asked."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType
from typing import Self


class Relay:
    """Passes connections to 127.0.0.1:`port`; as a `proxy`, only those that say CONNECT first."""

    def __init__(self, port: int, *, proxy: bool = False) -> None:
        self._to, self._proxy = port, proxy
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self.port = int(self._listener.getsockname()[1])
        self.connects: list[str] = []  # what a proxy was asked for
        self.up = self.down = 0  # bytes to the server, and from it
        self.seen = bytearray()  # the first bytes to the server
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self.cut()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def cut(self) -> None:
        """Break every connection that is open."""
        with self._lock:
            for one in self._open:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        with contextlib.suppress(OSError), client:
            if self._proxy:
                asked = b""
                while not asked.endswith(b"\r\n\r\n"):
                    asked += client.recv(1)
                self.connects.append(asked.split(b"\r\n")[0].decode())
                client.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            with socket.create_connection(("127.0.0.1", self._to)) as server:
                with self._lock:
                    self._open += [client, server]
                up = threading.Thread(target=self._pass, args=(client, server, "up"), daemon=True)
                up.start()
                self._pass(server, client, "down")
                up.join()
                with self._lock:
                    self._open = [one for one in self._open if one not in {client, server}]

    def _pass(self, source: socket.socket, target: socket.socket, way: str) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(self._on_its_way(data, way))
                with self._lock:
                    setattr(self, way, getattr(self, way) + len(data))
                    if way == "up" and len(self.seen) < 1 << 24:
                        self.seen += data
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _on_its_way(self, data: bytes, way: str) -> bytes:
        """What a piece has become when it arrives."""
        return data
