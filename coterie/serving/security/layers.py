"""What a request passes before any route sees it: host, origin, key and rate, body. Pure ASGI; each may refuse.

None of them wraps `send`: what they want an answer to carry they leave in the `Exchange`, whose owner writes it once.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable
from urllib.parse import unquote_to_bytes

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from coterie.serving.config import LOOPBACK, ServeConfig
from coterie.serving.security.access import identify, nobody
from coterie.serving.security.deadline import within
from coterie.serving.security.exchange import KEY, Exchange, household
from coterie.serving.security.guarded import Guarded
from coterie.serving.security.headers import shared
from coterie.serving.security.origins import origin_of
from coterie.serving.security.rates import Buckets, whole_seconds
from coterie.serving.security.refusals import REASONS, Denied, refuse, too_many
from coterie.serving.security.sessions import same_origin

LOGIN = "/dashboard/login"
BODY_SECONDS = 30.0  # in which a body has to arrive
SAFE = frozenset({"GET", "HEAD", "OPTIONS"})
ONCE = (
    b"host", b"origin", b"authorization", b"x-api-key", b"content-length", b"content-type", b"transfer-encoding",
    b"sec-fetch-site",
)  # fmt: skip

_METHODS = b"GET, POST, PUT, PATCH, DELETE"
_ASKED = b"Authorization, Content-Type, X-Api-Key"
_EXPOSED = b"Retry-After, X-Request-Id"


class Hosts:
    """Refuses requests that were sent to another host's name, and those that say twice what counts once.

    On loopback a page of anybody can point its own name at 127.0.0.1 and so pass for a page of this origin (DNS
    rebinding); the Host header then still bears that name.
    """

    def __init__(self, app: ASGIApp, config: ServeConfig) -> None:
        self._app = app
        self._names = allowed_hosts(config)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        exchange: Exchange = scope[KEY]
        host = exchange.headers.get(b"host", b"")
        if self._names is not None and host not in self._names and host_name(host) not in self._names:
            return _refuse(
                exchange, send, Denied(421, "this service does not answer under that host name; set server.public_url")
            )
        if len(exchange.headers) != len(scope["headers"]) and _ambiguous(scope):
            return _refuse(exchange, send, Denied(400, "a header that counts once was sent twice; send it once"))
        if b"%" in (raw := scope.get("raw_path") or b"") and not _utf8(raw):
            return _refuse(exchange, send, Denied(400, "the path is no UTF-8; write ids in UTF-8, percent-encoded"))
        return self._app(scope, receive, send)


class Cors:
    """Lets pages of the listed origins call: those of the configuration and of publishable keys. Never with cookies."""

    def __init__(self, app: ASGIApp, deployment: Guarded) -> None:
        self._app, self._deployment = app, deployment
        self._listed = frozenset(origin_of(one) for one in deployment.config.access.cors)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        exchange: Exchange = scope[KEY]
        origin = exchange.origin
        if origin is None or not shared(scope["path"]):
            return self._app(scope, receive, send)
        allowed = origin in self._listed or origin in self._deployment.keys.origins
        if allowed:
            exchange.extra = (
                (b"access-control-allow-origin", origin.encode("latin-1")),
                (b"access-control-expose-headers", _EXPOSED),
            )
        if scope["method"] == "OPTIONS" and b"access-control-request-method" in exchange.headers:
            return _preflight(exchange, send, allowed)
        if not (allowed or exchange.is_own(origin)) and self._deployment.open_access:
            # Where no key is asked for, the browser's same-origin rule is all that keeps other pages out.
            return _refuse(exchange, send, Denied(403, "pages of this origin may not call; list it in access.cors"))
        return self._app(scope, receive, send)


class Gate:
    """Knows who asks and how often; nothing under /v1 is reached by nobody, nothing of the dashboard changed from afar.

    A right key never waits for others' wrong ones: who shares an address with an attacker is still served.
    """

    def __init__(self, app: ASGIApp, deployment: Guarded) -> None:
        self._app, self._deployment = app, deployment
        access = deployment.config.access
        self._secret = Buckets(access.secret_per_minute)
        self._publishable = Buckets(access.publishable_per_minute)
        self._failures = Buckets(access.failures_per_minute)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        exchange: Exchange = scope[KEY]
        path = scope["path"]
        identify(self._deployment, exchange)
        refusal = self._refusal(exchange, path, time.monotonic())
        if refusal is None and path.startswith("/dashboard") and scope["method"] not in SAFE:
            if not same_origin(Request(scope)):
                refusal = Denied(403, "the dashboard takes this from its own pages alone; open it and send it there")
            elif path == LOGIN:
                return self._login(scope, receive, send)
        return self._app(scope, receive, send) if refusal is None else _refuse(exchange, send, refusal)

    def _refusal(self, exchange: Exchange, path: str, now: float) -> Denied | None:
        caller = exchange.caller
        if exchange.wrong:
            wait, what = self._failures.take(household(exchange.address), now), "too many wrong keys"
        elif caller is None or caller.key_id is None:
            wait, what = 0.0, ""
        elif caller.publishable:
            wait, what = self._publishable.take(household(exchange.address), now), "too many requests of this address"
        else:
            wait, what = self._secret.take(caller.key_id, now), "too many requests with this key"
        if wait > 0:
            return too_many(whole_seconds(wait), what)
        return nobody(exchange) if caller is None and path.startswith("/v1/") else None

    async def _login(self, scope: Scope, receive: Receive, send: Send) -> None:
        exchange: Exchange = scope[KEY]
        who = household(exchange.address)
        wait = self._failures.wait(who, time.monotonic())
        if wait > 0:
            await _refuse(exchange, send, too_many(whole_seconds(wait), "too many wrong keys"))
            return
        try:
            await self._app(scope, receive, send)
        finally:
            if exchange.wrong:
                self._failures.take(who, time.monotonic())


class Bodies:
    """Reads a body before any route does: not too large, not too slowly, and JSON, which no form can post."""

    def __init__(self, app: ASGIApp, config: ServeConfig, seconds: float = BODY_SECONDS) -> None:
        self._app, self._most, self._seconds = app, config.access.request_bytes, seconds

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        exchange: Exchange = scope[KEY]
        headers = exchange.headers
        length = headers.get(b"content-length")
        if length is None and b"transfer-encoding" not in headers and scope["method"] in SAFE:
            return self._app(scope, receive, send)
        refusal = self._refusal(scope["path"], headers, length)
        return self._read(scope, receive, send) if refusal is None else _refuse(exchange, send, refusal)

    def _refusal(self, path: str, headers: dict[bytes, bytes], length: bytes | None) -> Denied | None:
        if length is not None and (not length.isdigit() or len(length) > 18):
            return Denied(400, "Content-Length must be a number")
        if length is not None and int(length) > self._most:
            return self._too_large()
        if b"content-encoding" in headers:
            return Denied(415, "bodies are taken as they are; send it without Content-Encoding")
        kind = headers.get(b"content-type")
        has_body = length not in (None, b"0") or b"transfer-encoding" in headers
        if path.startswith("/dashboard") or (kind is None and not has_body) or (kind is not None and is_json(kind)):
            return None
        return Denied(415, "bodies must be JSON; send them with Content-Type: application/json")

    def _too_large(self) -> Denied:
        return Denied(413, f"bodies may have {self._most:,} bytes; send less at a time")

    async def _read(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            body = await within(self._seconds, self._whole(receive))
        except TimeoutError:
            body = Denied(408, f"the body did not arrive within {self._seconds:g} s; send it again")
        if isinstance(body, Denied):
            await _refuse(scope[KEY], send, body)
        elif body is not None:  # None: the client has gone, and nobody waits for an answer
            await self._app(scope, _Replay(body, receive), send)

    async def _whole(self, receive: Receive) -> bytes | Denied | None:
        message = await receive()
        if message["type"] == "http.request" and not message.get("more_body", False):
            body: bytes = message.get("body", b"")
            return body if len(body) <= self._most else self._too_large()
        held = bytearray()
        while message["type"] == "http.request":
            held += message.get("body", b"")
            if len(held) > self._most:
                return self._too_large()
            if not message.get("more_body", False):
                return bytes(held)
            message = await receive()
        return None


class _Replay:
    """The `receive` of the layers within: the body that was read, then whatever comes (that the client has gone)."""

    __slots__ = ("_body", "_receive")

    def __init__(self, body: bytes, receive: Receive) -> None:
        self._body: bytes | None = body
        self._receive = receive

    async def __call__(self) -> Message:
        if self._body is None:
            return await self._receive()
        message: Message = {"type": "http.request", "body": self._body, "more_body": False}
        self._body = None
        return message


def allowed_hosts(config: ServeConfig) -> frozenset[bytes] | None:
    """The names under which the service answers, bare and with its port; None: under any.

    Beyond loopback, names are the business of whoever runs the network; behind a proxy, of the proxy, unless public_url
    says what they are.
    """
    server = config.server
    if server.host not in LOOPBACK or (server.behind_proxy and server.public_url is None):
        return None
    names = {"localhost", "127.0.0.1", "[::1]", f"[{server.host}]" if ":" in server.host else server.host}
    if server.public_url is not None:
        public = origin_of(server.public_url).partition("://")[2]
        names |= {public, host_name(public.encode()).decode()}
    return frozenset(one.encode() for name in names for one in (name, f"{name}:{server.port}"))


def host_name(host: bytes) -> bytes:
    """The name in a Host header, without its port.

    >>> host_name(b"LocalHost:8080"), host_name(b"[::1]:80"), host_name(b"[::1]")
    (b'localhost', b'[::1]', b'[::1]')
    """
    name, colon, port = host.rpartition(b":")
    bare = name if colon and port.isdigit() else host
    return bare.lower()


def is_json(kind: bytes) -> bool:
    """Whether a Content-Type is JSON's, or that of something written in it.

    >>> is_json(b"application/json; charset=utf-8"), is_json(b"application/merge-patch+json"), is_json(b"text/plain")
    (True, True, False)
    """
    if kind == b"application/json":
        return True
    name = kind.partition(b";")[0].strip().lower()
    return name == b"application/json" or (name.startswith(b"application/") and name.endswith(b"+json"))


def _refuse(exchange: Exchange, send: Send, refusal: Denied) -> Awaitable[None]:
    exchange.refused = REASONS[refusal.status_code]
    return refuse(send, refusal)


def _utf8(raw: bytes) -> bool:
    """Whether ids in a path are what was meant: servers decode what is no UTF-8 to one and the same character."""
    try:
        unquote_to_bytes(raw).decode()
    except UnicodeDecodeError:
        return False
    return True


def _ambiguous(scope: Scope) -> bool:
    names = [name for name, _ in scope["headers"]]
    return any(names.count(name) > 1 for name in ONCE)


async def _preflight(exchange: Exchange, send: Send, allowed: bool) -> None:
    if not allowed:
        await _refuse(exchange, send, Denied(403, "pages of this origin may not call; list it in access.cors"))
        return
    told = [
        (b"access-control-allow-methods", _METHODS),
        (b"access-control-allow-headers", _ASKED),
        (b"access-control-max-age", b"600"),
    ]
    await send({"type": "http.response.start", "status": 204, "headers": told})
    await send({"type": "http.response.body", "body": b""})
