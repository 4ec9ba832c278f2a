"""One request and its answer on their way through the layers: what each has found out, kept in the ASGI scope."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable
from functools import lru_cache
from typing import Any

from starlette.types import Message, Scope, Send

from coterie.serving.security.keys import Caller

KEY = "coterie"  # where it is in the scope
NOBODY = "unknown"  # the address of a caller without one, at a Unix socket say

Headers = tuple[tuple[bytes, bytes], ...]


class Exchange:
    """What is known of one request, and what its answer is to carry.

    Attributes:
        headers: of the request, the last of each name.
        secure: whether the browser speaks HTTPS, with us or with our proxy.
        address: of the client: the peer's, or the last hop that our proxy names.
        caller: who asks, once `identified`; `wrong` says that a key was presented that does not hold.
        key_id: the key's, for the log; of a session, that of the key it was made from.
        own: further origins that are this service's own (its public_url).
        refused: why a layer did not let it through, as the metrics count it.
        route: the route's template, for the log, where no framework says it; never a path with ids.
        status, sent, started, finished: of the answer: 0 until it starts, and its bytes.
    """

    __slots__ = (
        "_send", "_table", "address", "caller", "extra", "finished", "headers", "identified", "key_id", "own",
        "refused", "request_id", "route", "secure", "sent", "started", "status", "wrong",
    )  # fmt: skip

    def __init__(self, scope: Scope, send: Send | None = None, trusted_proxy: bool = False) -> None:
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self._send = send
        self._table: Headers = ()
        self.extra: Headers = ()
        self.caller: Caller | None = None
        self.key_id: str | None = None
        self.refused = ""
        self.identified = self.wrong = self.started = self.finished = False
        self.own: frozenset[str] = frozenset()
        self.request_id = ""
        self.route: str | None = None
        self.status = self.sent = 0
        client = scope.get("client")
        self.address: str = client[0] if client else NOBODY
        self.secure = scope.get("scheme") == "https"
        if trusted_proxy and near(self.address):
            self._as_the_proxy_says()

    def dressed(self, table: Headers, request_id: str) -> None:
        """What the answer is to carry besides its own headers."""
        self._table, self.request_id = table, request_id

    def send(self, message: Message) -> Awaitable[None]:
        """The `send` of the layers within: adds headers to the start, and counts."""
        if self._send is None:
            raise TypeError("this exchange was made for a request alone, and answers nobody")
        if message["type"] == "http.response.start":
            self.started, self.status = True, message["status"]
            message = {**message, "headers": self._all_headers(message.get("headers", ()))}
        elif message["type"] == "http.response.body":
            self.sent += len(message.get("body", b""))
            self.finished = not message.get("more_body", False)
        return self._send(message)

    @property
    def origin(self) -> str | None:
        """The Origin header."""
        raw = self.headers.get(b"origin")
        return None if raw is None else raw.decode("latin-1")

    def is_own(self, origin: str) -> bool:
        """Whether the page is one of ours: scheme, host and port at which this very request came in, or public_url."""
        host = self.headers.get(b"host", b"").decode("latin-1").lower()
        return origin == f"{'https' if self.secure else 'http'}://{host}" or origin in self.own

    def _all_headers(self, given: Any) -> list[tuple[bytes, bytes]]:
        """Its own headers and ours; what a route says itself stays."""
        table = self._table
        said = [name for name, _ in given if name in _OVERRIDDEN]
        if said:
            table = tuple(pair for pair in table if pair[0] not in said)
        return [*given, *table, *self.extra, (b"x-request-id", self.request_id.encode())]

    def _as_the_proxy_says(self) -> None:
        """Only the last hop was written by our proxy: what stands before it came from the client."""
        hop = self.headers.get(b"x-forwarded-for", b"").rpartition(b",")[2].strip().decode("latin-1")
        if is_address(hop):
            self.address = hop
        proto = self.headers.get(b"x-forwarded-proto", b"").rpartition(b",")[2].strip().lower()
        if proto in (b"http", b"https"):
            self.secure = proto == b"https"


_OVERRIDDEN = frozenset(
    {
        b"cache-control", b"content-security-policy", b"cross-origin-opener-policy", b"cross-origin-resource-policy",
        b"permissions-policy", b"referrer-policy", b"x-content-type-options", b"x-frame-options",
    }
)  # fmt: skip


def exchange_of(scope: Scope) -> Exchange:
    """The exchange that `protect` has put into the scope; where it has not, one that knows the request alone."""
    found = scope.get(KEY)
    if isinstance(found, Exchange):
        return found
    made = scope[KEY] = Exchange(scope)
    return made


def note_route(scope: Scope, template: str) -> None:
    """Say which route answers, where no framework does: ``/v1/recommend/basket``. Never a path with ids in it."""
    exchange_of(scope).route = template


@lru_cache(4096)
def near(address: str) -> bool:
    """Whether a peer may be our proxy: this machine, a Unix socket or a private network, never the Internet."""
    if address == NOBODY:
        return True
    try:
        return _parsed(address).is_private
    except ValueError:
        return False


@lru_cache(4096)
def is_address(text: str) -> bool:
    """Whether it is an IP address."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


@lru_cache(4096)
def household(address: str) -> str:
    """Who counts as one: an IPv4 address, or a /64 of IPv6, of which every line has 2^64 addresses."""
    try:
        parsed = _parsed(address)
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return str(parsed)
    return str(ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))


def _parsed(address: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    """The address; an IPv4 one that a dual-stack socket writes as IPv6 is what it is."""
    parsed = ipaddress.ip_address(address)
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return parsed if mapped is None else mapped
