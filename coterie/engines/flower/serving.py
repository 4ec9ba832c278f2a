"""Serve several ASGI apps from one process, each over TLS on a socket of its own that somebody else holds open."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import ssl
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from coterie.engines.flower.asgi import App
from coterie.engines.flower.users import Users

RENEWED = 30.0  # seconds between two looks whether a certificate was renewed

_log = logging.getLogger("flwr")


@dataclass(frozen=True)
class Served:
    """An app, the file descriptor of the socket where it is served, and its certificate and key (PEM files).

    Where `users` is given, connections of processes of other users of this machine are closed. `stopping` is called
    when it is to end, before requests that are under way are waited for.
    """

    app: App
    socket: int
    certificate: str
    key: str
    lifespan: bool = False
    users: Users | None = None
    stopping: Callable[[], None] = lambda: None


def serve(*served: Served) -> None:
    """Serve until SIGTERM or SIGINT. A certificate that is renewed on disk is used for new connections."""
    servers = [_server(one) for one in served]
    with asyncio.Runner(loop_factory=servers[0].config.get_loop_factory()) as runner:
        runner.run(_run(served, servers))


async def _run(served: tuple[Served, ...], servers: list[uvicorn.Server]) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _stop, served, servers)
    watch = [asyncio.create_task(_renew(one, server)) for one, server in zip(served, servers, strict=True)]
    sockets = [socket.socket(fileno=one.socket) for one in served]
    await asyncio.gather(*(server.serve([one]) for server, one in zip(servers, sockets, strict=True)))
    for task in watch:
        task.cancel()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Signals are for all servers of the process: `_run` hears them."""
        yield


class _OwnProtocol(HttpToolsProtocol):
    """Speaks HTTP with our own processes, and with those of other users of this machine not at all."""

    users: Users

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._refused = not self.users.ours(transport.get_extra_info("peername")[1])
        if self._refused:
            transport.abort()
        else:
            super().connection_made(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._refused:
            super().connection_lost(exc)


def _server(served: Served) -> uvicorn.Server:
    protocol = HttpToolsProtocol if served.users is None else type("_Own", (_OwnProtocol,), {"users": served.users})
    config = uvicorn.Config(
        served.app,
        http=protocol,
        ssl_certfile=served.certificate,
        ssl_keyfile=served.key,
        lifespan="on" if served.lifespan else "off",
        access_log=False,
        server_header=False,
        proxy_headers=False,  # who is paced is who is connected: a header says what its sender likes
        timeout_keep_alive=75,
        timeout_graceful_shutdown=1,
        limit_concurrency=2000,
        log_config=None,
    )
    config.load()
    return _Server(config)


def _stop(served: tuple[Served, ...], servers: list[uvicorn.Server]) -> None:
    for one, server in zip(served, servers, strict=True):
        one.stopping()
        server.should_exit = True


async def _renew(served: Served, server: uvicorn.Server) -> None:
    paths = Path(served.certificate), Path(served.key)
    context = server.config.ssl
    assert context is not None  # noqa: S101 - it has a certificate
    known = _stamps(paths)
    while True:
        await asyncio.sleep(RENEWED)
        if (found := _stamps(paths)) == known:
            continue
        try:
            context.load_cert_chain(*paths)
        except (OSError, ssl.SSLError) as error:
            _log.error("%s was changed and cannot be used (%s); the old one serves on", paths[0], error)
        else:
            _log.info("%s was renewed", paths[0])
            known = found


def _stamps(paths: tuple[Path, ...]) -> list[int]:
    try:
        return [path.stat().st_mtime_ns for path in paths]
    except OSError:
        return []
