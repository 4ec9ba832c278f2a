"""A federation of real processes on the loopback interface, over TLS: what the tests of the network share."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

from coterie.engines.flower.network import CoordinatorNet, Limits, NodeNet, TlsFiles
from coterie.errors import ConfigError
from coterie.federation.authority import make_authority, server_certificate
from coterie.federation.identity import Identities
from tests.relay import Relay

PATIENCE = 60.0  # seconds: machines that run tests are busy
NAMES = ("anna", "bert", "cleo")

_PROC = Path("/proc")


def until(what: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until something is so."""
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end, f"not so within {seconds} s"
        time.sleep(0.05)


class Loopback:
    """A coordinator and its nodes; each node answers with its name and the message turned round.

    Bert waits with his answer while `go` is not set, and sets `asked` when he has been asked. Cleo stands behind
    `relay`. Whoever is sent b"much" answers with more than the coordinator takes.
    """

    def __init__(self, folder: Path, limits: Limits) -> None:
        self.folder, self.limits = folder, limits
        self.requests: list[tuple[str, bytes]] = []
        self.asked, self.go = threading.Event(), threading.Event()
        self.go.set()
        self.ca = make_authority(folder / "tls")
        made = server_certificate(folder / "tls", ["127.0.0.1", "coordinator.test"])
        self.nodes: dict[str, NodeNet] = {}
        self.net = CoordinatorNet(
            folder / "coordinator",
            ("127.0.0.1", 0),
            TlsFiles(made.certificate, made.key),
            folder / "coordinator" / "flower.sqlite",
            self._on_request,
            limits,
        )
        self.net.start()
        self.relay = Relay(self.net.port)
        self.net.ready(PATIENCE)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.net.port}"

    def add(self, name: str, address: str = "") -> NodeNet:
        """Register a node's key and start it."""
        self.net.register(name, self.identities(name).transport_public)
        return self.start(name, address)

    def start(self, name: str, address: str = "") -> NodeNet:
        address = address or (f"127.0.0.1:{self.relay.port}" if name == "cleo" else self.address)
        keys = self.identities(name)
        node = NodeNet(
            self.folder / name, address, self.ca, keys.transport_path, lambda message: self._answer(name, message)
        )
        node.start()
        self.nodes[name] = node
        return node

    def identities(self, name: str) -> Identities:
        return Identities.open(self.folder / name, create=True)

    def online(self, *names: str) -> None:
        """Wait until these are connected."""
        until(lambda: self.net.online().keys() >= set(names))

    def exchange(self, messages: dict[str, bytes], seconds: float = PATIENCE) -> dict[str, bytes]:
        return dict(self.net.transport().exchange(messages, seconds))

    def stop(self) -> None:
        self.go.set()
        threads = [threading.Thread(target=one.stop) for one in (*self.nodes.values(), self.net)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.relay.close()

    def _answer(self, name: str, message: bytes) -> bytes:
        if name == "bert":
            self.asked.set()
            assert self.go.wait(PATIENCE)
        return os.urandom(self.limits.message_bytes) if message == b"much" else echoed(name, message)

    def _on_request(self, path: str, body: bytes) -> bytes:
        self.requests.append((path, body))
        if body == b"refuse me":
            raise ConfigError("the invitation has expired; ask for another")
        return b"answer to " + body


def echoed(name: str, message: bytes) -> bytes:
    """What a node of the tests answers."""
    return name.encode() + b": " + message[::-1]


def pids_of(facts: list[dict[str, object]]) -> dict[str, int]:
    """The process numbers of children, by name."""
    return {str(one["name"]): int(str(one["pid"])) for one in facts if one["pid"]}


def alive(pid: int) -> bool:
    """Whether a process runs (one that has ended and waits to be reaped does not)."""
    try:
        os.kill(pid, 0)
        return not (_PROC / "self").exists() or (_PROC / f"{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
