"""A node's end of the network: SuperNode and executor as child processes; whatever comes is for the node's daemon."""

from __future__ import annotations

import contextlib
import re
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from coterie.engines.flower import executor
from coterie.engines.flower.environment import environment, module
from coterie.engines.flower.errors import PORT_TAKEN, UNKNOWN_KEY, explain
from coterie.engines.flower.loopback import LoopbackTls
from coterie.engines.flower.processes import Child, stop_all
from coterie.federation.frontdoor import trouble
from coterie.federation.link import LinkServer
from coterie.files import write_private

PROBED = 10.0  # seconds between two looks why the coordinator cannot be reached

_CONNECTED = re.compile(r"SuperNode ID: |Connection successful after")
_BROKEN = re.compile(r"Connection attempt failed, retrying")
_REFUSED = re.compile(r"Failed to send message \S+: (.*)")


class NodeNet:
    """Connects a node with its coordinator, over one outbound connection; `answer` is given each message.

    `folder` holds secrets and logs of the connection; `address` is host:port, `ca_path` who signed the coordinator's
    certificate, `transport_key_path` the node's transport key. `answer` must give equal bytes for equal messages: one
    whose answer was lost comes again. What it raises stays here; the coordinator is told that there is no answer.
    """

    def __init__(
        self,
        folder: Path,
        address: str,
        ca_path: Path,
        transport_key_path: Path,
        answer: Callable[[bytes], bytes],
    ) -> None:
        self._folder, self._address = folder.resolve(), address
        self._ca, self._key = ca_path.resolve(), transport_key_path.resolve()
        self._answer, self._answering = answer, threading.Lock()
        self._stack = contextlib.ExitStack()
        self._state, self._probed = "not started", -PROBED
        self._children: dict[str, Child] = {}

    def start(self) -> None:
        """Start the processes; they connect by themselves, and again whenever the connection breaks.

        Raises:
            EnvironmentFault: another node runs in this folder.
            MissingExtra: Flower is not installed.
        """
        with contextlib.ExitStack() as stack:
            self._link = stack.enter_context(LinkServer(self._folder / "node.sock", self._one_at_a_time))
            self._tls = LoopbackTls.make(self._folder)
            write_private(self._folder / "secret", secrets.token_bytes(32))
            self._port = _free_port()
            self._state = f"connecting to {self._address}"
            supernode = self._child("supernode", self._supernode, self._heard, self._supernode_ended)
            # A message that the executor had in hand would otherwise be missed for minutes.
            worker = self._child("executor", self._executor, _unheard, lambda _: supernode.kick())
            self._children = {child.name: child for child in (supernode, worker)}
            stack.callback(stop_all, self._children.values())
            for child in self._children.values():
                child.start()
            self._stack = stack.pop_all()

    def stop(self) -> None:
        """End the processes."""
        self._stack.close()
        self._state = "stopped"

    def children(self) -> list[dict[str, object]]:
        """Name, pid, restarts and last error of each process."""
        return [child.facts() for child in self._children.values()]

    def state(self) -> str:
        """How the connection is: "connected since ...", "waiting for approval: ...", "cannot reach host:port: ..."."""
        return self._state

    def _one_at_a_time(self, message: bytes) -> bytes:
        """A message comes again when the executor was killed with it: the first answer is waited for."""
        with self._answering:
            return self._answer(message)

    def _child(
        self,
        name: str,
        command: Callable[[], Sequence[str]],
        seen: Callable[[str], None],
        ended: Callable[[str], None],
    ) -> Child:
        return Child(
            name,
            command,
            self._folder / "logs" / f"{name}.log",
            environment=environment(self._folder / "flower"),
            explain=explain,
            seen=seen,
            ended=ended,
        )

    def _supernode(self) -> Sequence[str]:
        return module(
            "supernode",
            *("--superlink", self._address, "--root-certificates", str(self._ca)),
            *("--auth-supernode-private-key", str(self._key), "--isolation", "process"),
            *("--host", "127.0.0.1", "--port", str(self._port)),
            *("--ssl-certfile", str(self._tls.certificate), "--ssl-keyfile", str(self._tls.key)),
            *("--ssl-ca-certfile", str(self._tls.certificate)),
            *("--superexec-auth-secret-file", str(self._folder / "secret")),
        )

    def _executor(self) -> Sequence[str]:
        config = self._folder / "executor.json"
        executor.Config(
            address=f"127.0.0.1:{self._port}",
            ca=str(self._tls.certificate),
            secret=str(self._folder / "secret"),
            link=str(self._link.path),
        ).write(config)
        return module("executor", str(config))

    def _heard(self, line: str) -> None:
        """What the SuperNode says of the connection."""
        if _CONNECTED.search(line):
            self._state = f"connected since {datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC"
        elif _BROKEN.search(line):
            self._state = f"cannot reach {self._address}"
            if time.monotonic() - self._probed > PROBED:
                self._probed = time.monotonic()
                threading.Thread(target=self._probe, name="probe", daemon=True).start()
        elif refused := _REFUSED.search(line):
            self._children["supernode"].last_error = f"an answer could not be sent: {refused.group(1)}"

    def _supernode_ended(self, reason: str) -> None:
        if reason == PORT_TAKEN:
            self._port = _free_port()
            self._children["executor"].kick()
        elif reason == UNKNOWN_KEY:
            self._state = f"waiting for approval: {reason}"
        else:
            self._state = f"cannot reach {self._address}: {trouble(self._address, self._ca) or reason}"

    def _probe(self) -> None:
        """Find out why the coordinator cannot be reached, unless it can be meanwhile."""
        reason = trouble(self._address, self._ca)
        if reason and self._state.startswith("cannot reach"):
            self._state = f"cannot reach {self._address}: {reason}"


def _unheard(line: str) -> None:
    """Only its log is interested."""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
