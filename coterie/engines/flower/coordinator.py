"""The coordinator's end of the network: SuperLink and SuperExec as child processes, and the transport over them."""

from __future__ import annotations

import contextlib
import secrets
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from coterie.engines.flower import superlink
from coterie.engines.flower.broker import Broker
from coterie.engines.flower.control import Control
from coterie.engines.flower.directory import Directory
from coterie.engines.flower.environment import PUMP_LINK, environment, module, program
from coterie.engines.flower.errors import explain
from coterie.engines.flower.frames import unpack
from coterie.engines.flower.keeper import PumpKeeper
from coterie.engines.flower.loopback import LoopbackTls
from coterie.engines.flower.processes import Child, stop_all
from coterie.errors import EnvironmentFault
from coterie.federation.link import LinkServer, SessionServer
from coterie.federation.transport import never
from coterie.files import write_private

HOPELESS = 2  # restarts of SuperLink after which nobody waits for it to come up


@dataclass(frozen=True)
class TlsFiles:
    """The coordinator's certificate (with its chain) and key, PEM; one that is renewed in place is used at once."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Limits:
    """What a node may ask of the coordinator: requests a minute from one address, and bytes in one message."""

    requests_per_minute: int = 6000
    message_bytes: int = 1 << 30


class CoordinatorNet:
    """Serves a federation's nodes at one port, and exchanges messages with them.

    `folder` holds secrets, logs and who may connect; `database` (a file) Flower's state. `on_request` answers what
    nodes ask for at ``/coterie/v1/...``: it is given the path and the body, and what CoterieError it raises is told.
    """

    def __init__(
        self,
        folder: Path,
        listen: tuple[str, int],
        tls: TlsFiles,
        database: Path,
        on_request: Callable[[str, bytes], bytes],
        limits: Limits | None = None,
    ) -> None:
        self._folder, self._listen, self._tls, self._database = folder.resolve(), listen, tls, database.resolve()
        self._on_request, self._limits = on_request, limits or Limits()
        self._directory = Directory(self._folder / "seats.json")
        self._broker = Broker(self._directory.found)
        self._children: list[Child] = []
        self._stack = contextlib.ExitStack()

    @property
    def port(self) -> int:
        """The port at which nodes reach it; known once it is started."""
        return int(self._network.getsockname()[1])

    def start(self) -> None:
        """Listen, and start the processes.

        Raises:
            EnvironmentFault: the address cannot be listened at, or another coordinator runs in this folder.
            MissingExtra: Flower is not installed.
        """
        with contextlib.ExitStack() as stack:
            self._front = stack.enter_context(LinkServer(self._folder / "front.sock", self._answer))
            self._pump = stack.enter_context(SessionServer(self._folder / "pump.sock", self._broker.session))
            self._network = stack.enter_context(_listening(*self._listen))
            self._local = stack.enter_context(_listening("127.0.0.1", 0))
            local = LoopbackTls.make(self._folder)
            secret = secrets.token_bytes(32)
            write_private(self._folder / "secret", secret)
            self._control = Control(self._local.getsockname()[1], local.certificate, secret.hex())
            self._make_children(local)
            stack.callback(stop_all, self._children)
            self._directory.start(self._control)
            stack.callback(self._directory.stop)
            self._keeper = PumpKeeper(self._broker, self._control)
            stack.callback(self._keeper.stop)
            for child in self._children:
                child.start()
            self._stack = stack.pop_all()

    def stop(self) -> None:
        """End the processes and answer nobody any more."""
        self._stack.close()

    def ready(self, seconds: float) -> None:
        """Wait until nodes can connect.

        Raises:
            EnvironmentFault: SuperLink is not up within `seconds`; says why.
        """
        until, superlink_child = time.monotonic() + seconds, self._children[0]
        while True:
            try:
                self._control.seats()
            except EnvironmentFault as error:
                if time.monotonic() > until or superlink_child.restarts >= HOPELESS:
                    reason = superlink_child.last_error or str(error)
                    raise EnvironmentFault(f"Flower's SuperLink does not come up: {reason}") from None
            else:
                return
            time.sleep(0.1)

    def register(self, name: str, transport_public: str) -> None:
        """Let a member connect with its transport key (a line of OpenSSH's format); durable, and may be repeated.

        Raises:
            ConfigError: the key is malformed, was revoked, or belongs to another member.
        """
        self._directory.register(name, transport_public)

    def unregister(self, name: str) -> None:
        """Let a member's key connect no more, now and for good; durable. One that is not registered is nobody."""
        self._directory.unregister(name)

    def transport(self) -> FlowerTransport:
        """Exchanges with the members."""
        return FlowerTransport(self, self._broker)

    def online(self) -> dict[str, float]:
        """Members that are connected, each with the time since when; nobody while SuperLink is down."""
        return {name: seat.since for name, seat in self._directory.found().items() if seat.since is not None}

    def troubles(self) -> dict[str, str]:
        """What went wrong with a member's last message, while that lasts."""
        return dict(self._broker.troubles)

    def children(self) -> list[dict[str, object]]:
        """Name, pid, restarts and last error of each process."""
        return [child.facts() for child in self._children]

    def _make_children(self, local: LoopbackTls) -> None:
        config = self._folder / "superlink.json"
        self._superlink_config(local).write(config)
        variables = environment(self._folder / "flower", **{PUMP_LINK: str(self._pump.path)})
        address = f"127.0.0.1:{self._local.getsockname()[1]}"
        superexec = program(
            "flower-superexec",
            *("--runtime-api-address", address, "--root-certificates", str(local.certificate)),
            *("--superexec-auth-secret-file", str(self._folder / "secret")),
        )
        sockets = [self._network.fileno(), self._local.fileno()]
        logs = self._folder / "logs"
        child = partial(Child, environment=variables, explain=explain)
        command = module("superlink", str(config))
        self._children = [
            child("superlink", lambda: command, logs / "superlink.log", pass_fds=sockets, ended=self._superlink_ended),
            child("superexec", lambda: superexec, logs / "superexec.log", ended=self._superexec_ended),
        ]

    def _superlink_config(self, local: LoopbackTls) -> superlink.Config:
        return superlink.Config(
            network=self._network.fileno(),
            local=self._local.fileno(),
            local_port=self._local.getsockname()[1],
            certificate=str(self._tls.certificate.resolve()),
            key=str(self._tls.key.resolve()),
            local_certificate=str(local.certificate),
            local_key=str(local.key),
            database=str(self._database),
            seats=str(self._directory.path),
            secret=str(self._folder / "secret"),
            front=str(self._front.path),
            per_minute=self._limits.requests_per_minute,
            message_bytes=self._limits.message_bytes,
        )

    def _superlink_ended(self, _reason: str) -> None:
        self._broker.doubt()

    def _superexec_ended(self, _reason: str) -> None:
        self._keeper.lost()

    def _answer(self, message: bytes) -> bytes:
        head, body = unpack(message)
        return self._on_request(head["path"], body)


class FlowerTransport:
    """`coterie.federation.transport.Transport` over a `CoordinatorNet`."""

    def __init__(self, net: CoordinatorNet, broker: Broker) -> None:
        self._net, self._broker = net, broker

    def online(self) -> Mapping[str, float]:
        return self._net.online()

    def exchange(
        self, messages: Mapping[str, bytes], seconds: float, enough: Callable[[frozenset[str]], bool] = never
    ) -> Iterator[tuple[str, bytes]]:
        return self._broker.exchange(messages, seconds, enough)


def _listening(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]
        return socket.create_server((host, port), family=family, backlog=512)
    except OSError as error:
        raise EnvironmentFault(
            f"{host}:{port} cannot be listened at: {error.strerror or error}; choose another"
        ) from None
