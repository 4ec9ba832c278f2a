"""What stands before an application: `protect` puts it there. Outermost first: envelope, hosts, cors, gate, bodies."""

from __future__ import annotations

import os
import time

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from coterie.serving.security.exchange import KEY, Exchange
from coterie.serving.security.guarded import Guarded
from coterie.serving.security.headers import table_for
from coterie.serving.security.layers import BODY_SECONDS, Bodies, Cors, Gate, Hosts
from coterie.serving.security.origins import origin_of
from coterie.serving.security.refusals import Denied, problem, refuse
from coterie.serving.security.requestlog import RequestLog

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})  # a client can make up others
GONE = 499  # as the log says that the client left before its answer began
NO_ROUTE = "(none)"

_CONTEXT = "effective_route_context"  # where FastAPI keeps the route as it was included


def protect(app: ASGIApp, deployment: Guarded, body_seconds: float = BODY_SECONDS) -> Envelope:
    """An application behind everything that keeps it: the same for each request, whatever a route forgets.

    Args:
        app: the application; it finds who asks by `coterie.serving.security.access`.
        deployment: its configuration, keys, store and metrics, which are told of each answer and each refusal.
        body_seconds: in which a body has to arrive.

    Raises:
        ConfigError: `access.cors` or `server.public_url` is no origin.
        EnvironmentFault: the log's file cannot be opened.
    """
    config = deployment.config
    kept = Hosts(Cors(Gate(Bodies(app, config, body_seconds), deployment), deployment), config)
    return Envelope(kept, app, deployment)


class Envelope:
    """Outermost: gives each answer its headers and its id, writes the log, and keeps faults to ourselves.

    Attributes:
        log: the log of requests; `close` it when serving ends.
    """

    def __init__(self, kept: ASGIApp, app: ASGIApp, deployment: Guarded) -> None:
        config = deployment.config
        self._kept, self._app, self._metrics = kept, app, deployment.metrics
        self._proxied = config.server.behind_proxy
        url = config.server.public_url
        self._own = frozenset() if url is None else frozenset({origin_of(url)})
        self.log = RequestLog(config.log)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._other(scope, receive, send)
            return
        began = time.perf_counter()
        exchange = Exchange(scope, send, trusted_proxy=self._proxied)
        exchange.own = self._own
        exchange.dressed(table_for(scope["path"], exchange.secure), os.urandom(8).hex())
        scope[KEY] = exchange
        try:
            await self._kept(scope, receive, exchange.send)
        except Exception as error:  # noqa: BLE001 - the last place where a fault can become an answer
            await self._failed(error, scope, exchange)
        finally:
            self._record(scope, exchange, time.perf_counter() - began)

    async def _failed(self, error: Exception, scope: Scope, exchange: Exchange) -> None:
        """Answer for an error where that is still possible. It is not raised again: a server would log its message."""
        if isinstance(error, ClientDisconnect):
            return
        if isinstance(error, HTTPException) and not exchange.started:
            refusal = error if isinstance(error, Denied) else Denied(error.status_code, error.detail, error.headers)
            await refuse(exchange.send, refusal)
            return
        self.log.fault(error, template(scope, exchange), exchange.request_id)
        if not exchange.started:
            for message in problem(500, f"a fault of the service; its log knows it as {exchange.request_id}"):
                await exchange.send(message)

    def _record(self, scope: Scope, exchange: Exchange, seconds: float) -> None:
        route = template(scope, exchange)
        status = exchange.status or GONE
        method = scope["method"] if scope["method"] in METHODS else "other"
        self._metrics.request(route, method, status, seconds)
        if exchange.refused:
            self._metrics.refused(exchange.refused)
        if self.log.requests:
            self.log.request(method, route, status, seconds, exchange.sent, exchange.key_id, exchange.request_id)

    async def _other(self, scope: Scope, receive: Receive, send: Send) -> None:
        """A server's own messages pass; WebSockets, which none of the layers knows, do not."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})


def template(scope: Scope, exchange: Exchange) -> str:
    """The template of the route that answered, as ``/v1/items/{item_id}``: its own path may hold ids."""
    if exchange.route is not None:
        return exchange.route
    route = scope.get("route")
    if route is not None:
        context = scope.get("fastapi", {}).get(_CONTEXT)
        return str(getattr(context, "path", None) or getattr(route, "path", NO_ROUTE))
    return "/static/{file}" if scope["path"].startswith("/static/") and exchange.status != 404 else NO_ROUTE
