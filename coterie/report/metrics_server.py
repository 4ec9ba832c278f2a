"""Metrics over HTTP, for a Prometheus on the same machine or behind the operator's own proxy: one path, read only."""

from __future__ import annotations

import socket
import sys
import threading
from collections.abc import Callable, Iterable
from socketserver import TCPServer, ThreadingMixIn
from typing import TYPE_CHECKING, Any, cast
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from coterie.errors import CoterieError, EnvironmentFault, MissingExtra

if TYPE_CHECKING:
    from prometheus_client.registry import Collector

PATH = "/metrics"
PATIENCE = 10.0  # seconds in which a request has to arrive
POLL = 0.1  # seconds between looks at whether to stop


class MetricsServer:
    """Answers GET /metrics with what `collector` collects, on threads of its own; calling it ends it.

    A status that cannot be had is answered by 503 and the reason: Prometheus then shows the target as down.

    Raises:
        MissingExtra: `prometheus_client` is not installed.
        EnvironmentFault: host and port cannot be listened on.
    """

    def __init__(self, collector: object, host: str, port: int) -> None:
        app = _application(collector)
        try:
            family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
            kind: type[_Server] = type("_Server", (_Server,), {"address_family": family})
            self._server: WSGIServer = make_server(str(address[0]), port, app, kind, _Handler)
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or error
            raise EnvironmentFault(
                f"metrics cannot be served at {host}:{port}: {why}; choose another metrics_port in federation.toml"
            ) from None
        self.host, self.port = host, int(self._server.server_port)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(POLL,), name="metrics", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """Where the metrics are."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}{PATH}"

    def __call__(self) -> None:
        """Stop serving; doing so again changes nothing."""
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


Start = Callable[..., Any]


def _application(collector: object) -> Callable[[dict[str, Any], Start], Iterable[bytes]]:
    try:
        from prometheus_client import CollectorRegistry
        from prometheus_client.exposition import choose_encoder
    except ImportError:
        raise MissingExtra("Prometheus metrics", "flower") from None
    registry = CollectorRegistry()
    registry.register(cast("Collector", collector))

    def application(environ: dict[str, Any], start: Start) -> Iterable[bytes]:
        if environ["PATH_INFO"] != PATH:
            return _refused(start, "404 Not Found", f"there is nothing here; metrics are at {PATH}")
        if environ["REQUEST_METHOD"] != "GET":
            return _refused(start, "405 Method Not Allowed", "metrics can be read, and nothing else", ("Allow", "GET"))
        encode, content_type = choose_encoder(environ.get("HTTP_ACCEPT", ""))
        try:
            content = encode(registry)
        except CoterieError as error:
            return _refused(start, "503 Service Unavailable", str(error))
        start("200 OK", [("Content-Type", content_type), ("Content-Length", str(len(content)))])
        return [content]

    return application


def _refused(start: Start, status: str, sentence: str, *headers: tuple[str, str]) -> list[bytes]:
    content = f"{sentence}\n".encode()
    start(status, [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(content))), *headers])
    return [content]


class _Server(ThreadingMixIn, WSGIServer):
    """One thread a request; none of them keeps the process alive."""

    daemon_threads = True

    def server_bind(self) -> None:
        """As `WSGIServer`, but for the host's name: asking a name server for it can take long, and nobody needs it."""
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader that leaves, or takes too long, is no error of ours; anything else is, and is shown."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(WSGIRequestHandler):
    timeout = PATIENCE

    def log_message(self, format: str, *args: Any) -> None:
        """Scrapes come every few seconds, and are not worth a line each."""
