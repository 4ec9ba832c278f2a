"""The processes that serve: uvicorn on a socket that is bound first, so that a port that is taken is said at once."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import socket
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import uvicorn
from uvicorn.supervisors import Multiprocess

from coterie.errors import ConfigError, EnvironmentFault
from coterie.serving.app import Service
from coterie.serving.config import ServeConfig, ServerSettings
from coterie.serving.deployment import Deployment
from coterie.serving.metrics import SHARED

DRAIN = 10  # seconds for requests that are under way when it is told to stop
IDLE = 30  # seconds for which an idle connection is kept
MOST = 2_000  # connections and requests at a time; more are told to come again (503)
CONFIG = "COTERIE_SERVING"  # the settings, for the processes of one service

_PR_SET_PDEATHSIG = 1
_APART = sys.platform == "linux"  # other systems do not spread connections over sockets at one port


def serve(config: ServeConfig, run: Path | None, ready: Callable[[Deployment, str], None]) -> None:
    """Serve until SIGTERM or Ctrl-C; requests under way are finished. `ready` is called once, when it answers.

    Raises:
        ConfigError, RunError: see `Deployment.open`; or the certificate or its key cannot be used.
        EnvironmentFault: the port is taken or may not be used, or the store cannot be used.
    """
    settings = config.server
    _check_tls(settings)
    listener = _bound(settings)
    where = address(settings, listener.getsockname()[1])
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    try:
        if settings.workers > 1:
            _several(config, run, listener, lambda deployment: ready(deployment, where))
        else:
            deployment = Deployment.open(config, run)
            app = Service(deployment)
            server = _Server(_options(settings, app), lambda: ready(deployment, where))
            for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them once more when it has ended
                signal.signal(number, lambda *_: None)
            server.run(sockets=[listener])
    finally:
        listener.close()


def worker() -> Service:
    """One of several processes: what uvicorn calls in each."""
    if sys.platform == "linux":  # it ends with the process that started it, however that ends
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    return Service(Deployment.open(ServeConfig.model_validate_json(os.environ[CONFIG])))


def address(settings: ServerSettings, port: int) -> str:
    """How a person on this machine reaches it."""
    scheme = "https" if settings.tls_certificate else "http"
    host = "127.0.0.1" if settings.host in ("0.0.0.0", "localhost") else settings.host  # noqa: S104 - compared with
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"


def _several(
    config: ServeConfig, run: Path | None, listener: socket.socket, ready: Callable[[Deployment], None]
) -> None:
    """Processes that share a port, kept running by uvicorn; each follows what changes in the store."""
    deployment = Deployment.open(config, run)  # what is wrong with run or store is said here, once
    limits = config.access
    shares = {  # a limit is that of all together, and each counts for itself
        name: max(getattr(limits, name) // config.server.workers, 1)
        for name in ("publishable_per_minute", "secret_per_minute", "failures_per_minute")
    }
    config = config.model_copy(update={"access": limits.model_copy(update=shares)})
    with tempfile.TemporaryDirectory(prefix="coterie-metrics-") as folder:
        os.environ[CONFIG], os.environ[SHARED] = config.model_dump_json(), folder
        options = _options(config.server, "coterie.serving.server:worker", factory=True, workers=config.server.workers)
        run_one = partial(_run_apart, options) if _APART else uvicorn.Server(options).run
        supervisor = Multiprocess(options, run_one, [listener])
        threading.Thread(target=_when_up, args=(listener, lambda: ready(deployment)), daemon=True).start()
        try:
            supervisor.run()
        finally:
            deployment.close()


def _run_apart(options: uvicorn.Config, held: list[socket.socket] | None) -> None:
    """One of several processes, on a socket of its own at the port that is `held`; it listens once it can answer."""
    uvicorn.Server(options).run([_beside(one.family, one.getsockname()) for one in held or ()])


def _when_up(listener: socket.socket, ready: Callable[[], None]) -> None:
    """Call `ready` once somebody takes connections from the socket and answers."""
    host, port, *_ = listener.getsockname()
    while True:
        try:
            with socket.create_connection((host, port), timeout=1) as tried:
                tried.sendall(b"GET /health/live HTTP/1.0\r\nHost: localhost\r\n\r\n")
                if tried.recv(1):
                    break
        except OSError:
            time.sleep(0.1)
    ready()


def _options(settings: ServerSettings, app: Any, **more: Any) -> uvicorn.Config:
    posix = sys.platform != "win32"
    if posix:
        from coterie.serving.protocol import ImpatientProtocol
    return uvicorn.Config(
        app,
        http=ImpatientProtocol if posix else "h11",
        ws="none",
        loop="uvloop" if posix else "asyncio",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,  # coterie.serving.security heeds them, where a proxy is configured
        server_header=False,
        timeout_keep_alive=IDLE,
        timeout_graceful_shutdown=DRAIN,
        limit_concurrency=MOST,
        ssl_certfile=settings.tls_certificate,
        ssl_keyfile=settings.tls_key,
        **more,
    )


class _Server(uvicorn.Server):
    """Says when it answers."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        await asyncio.to_thread(self._ready)


def _check_tls(settings: ServerSettings) -> None:
    if settings.tls_certificate is None:
        return
    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(
            settings.tls_certificate, settings.tls_key, password=_no_password
        )
    except OSError as error:  # ssl.SSLError is one
        raise ConfigError(
            f"{settings.tls_certificate}, {settings.tls_key}: cannot be used for TLS ({error}); give a certificate "
            "chain and its key in PEM, without a password and readable by this user"
        ) from None


def _no_password() -> str:
    """Called for a key that is encrypted: OpenSSL would ask at the terminal else, and nobody sits there."""
    raise OSError("the key has a password")


def _bound(settings: ServerSettings) -> socket.socket:
    """A listening socket; IPv6 where the host is an IPv6 address."""
    try:
        family, _, _, _, place = socket.getaddrinfo(settings.host, settings.port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family)
    except OSError as error:
        raise ConfigError(f"host {settings.host!r} is no address of this machine ({error.strerror})") from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(place)
        listener.listen(MOST)
        if settings.workers > 1 and _APART:  # nobody else listens there; from now on processes of ours may
            place = listener.getsockname()
            listener.close()
            listener = _beside(family, place)
        listener.set_inheritable(True)
    except OSError as error:
        listener.close()
        raise EnvironmentFault(
            f"cannot listen at {settings.host}:{settings.port} ({error.strerror}); stop what listens there, or choose "
            "another --port"
        ) from None
    return listener


def _beside(family: int, place: Any) -> socket.socket:
    """A socket that does not listen yet, one of several at one port: each will get its share of the clients.

    Of processes that share one socket, the first that wakes takes every connection that waits, and keeps it.
    """
    made = socket.socket(family)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(place)
    return made
