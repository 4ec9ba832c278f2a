"""The login to the dashboard: a key exchanged for a signed cookie, which opens the dashboard and nothing under /v1.

The cookie holds the key's id, its end, 16 random bytes, and HMAC-SHA256 over all of it under a key derived from the
store's secret. It is made at login alone, so that none can be planted before; it ends with the key it was made from.
Logging out takes it from the browser; whoever suspects that one was copied revokes the key.
"""

from __future__ import annotations

import hmac
import secrets
import time

from starlette.requests import HTTPConnection
from starlette.types import Scope as AsgiScope

from coterie.serving.security.exchange import Exchange, exchange_of
from coterie.serving.security.guarded import Guarded
from coterie.serving.security.keys import Caller
from coterie.serving.security.refusals import Denied, unauthorised
from coterie.serving.words import Scope

COOKIE_SCOPES: frozenset[Scope] = frozenset({"dashboard", "admin"})
_PURPOSE = b"coterie dashboard session v1"


def sign_in(deployment: Guarded, request: HTTPConnection, text: str) -> str:
    """The Set-Cookie header for whoever presents this secret key with scope `dashboard` or `admin`.

    Wrong keys count against the address, like those sent with requests.

    Raises:
        Denied: the key does not hold, is publishable, or has neither scope; 403 where the form came from another site.
    """
    if not same_origin(request):
        raise Denied(403, "the login form must be sent from the dashboard itself; open it and log in there")
    caller = deployment.keys.check(text.strip()[:200], None, _now())
    if caller is None or caller.key_id is None or not caller.scopes & COOKIE_SCOPES:
        exchange_of(request.scope).wrong = True
        raise unauthorised("this is no key that opens the dashboard: it needs a secret key with scope 'dashboard'")
    return session_cookie(deployment, caller, secure=exchange_of(request.scope).secure)


def session_cookie(deployment: Guarded, caller: Caller, *, secure: bool, now: int | None = None) -> str:
    """The Set-Cookie header of a new session; `secure` where the browser speaks HTTPS."""
    hours = deployment.config.access.session_hours
    ends = (_now() if now is None else now) // 1_000_000 + int(hours * 3600)
    content = f"{caller.key_id}.{ends}.{secrets.token_hex(16)}"
    value = f"{content}.{_signature(deployment, content)}"
    return _set_cookie(deployment, value, int(hours * 3600), secure)


def sign_out_cookie(deployment: Guarded, request: HTTPConnection) -> str:
    """The Set-Cookie header that takes the cookie from the browser."""
    return _set_cookie(deployment, "", 0, exchange_of(request.scope).secure)


def session_caller(deployment: Guarded, scope: AsgiScope, now: int | None = None) -> Caller | None:
    """Whose session the request's cookie is; None where it is forged, expired, or its key is no more."""
    exchange = exchange_of(scope)
    value = _cookie(exchange, cookie_name(deployment, exchange.secure))
    content, _, signature = value.rpartition(".")
    if not content or not hmac.compare_digest(signature.encode(), _signature(deployment, content).encode()):
        return None
    key_id, ends, _ = content.split(".")  # ours, as the signature says
    now = _now() if now is None else now
    if now >= int(ends) * 1_000_000:
        return None
    holder = deployment.keys.holder(key_id, now)
    if holder is None or not holder.scopes & COOKIE_SCOPES:
        return None
    return Caller(key_id, holder.name, holder.scopes & COOKIE_SCOPES)


def same_origin(request: HTTPConnection) -> bool:
    """Whether a page of this service itself sends the request, as the browser says; without its word: no.

    Sec-Fetch-Site cannot be set by pages; where a browser does not know it (or the page came over plain HTTP from
    another host than this one), Origin says the same.
    """
    exchange = exchange_of(request.scope)
    site = exchange.headers.get(b"sec-fetch-site")
    if site is not None:
        return site == b"same-origin"
    return exchange.origin is not None and exchange.is_own(exchange.origin)


def cookie_name(deployment: Guarded, secure: bool) -> str:
    """Its name: cookies know no ports, so that two deployments on one host must differ in it.

    With HTTPS, browsers take ``__Host-`` from this host alone, over HTTPS alone.
    """
    name = f"coterie-{_mac(deployment, b'name')[:8]}"
    return f"__Host-{name}" if secure else name


def _set_cookie(deployment: Guarded, value: str, seconds: int, secure: bool) -> str:
    parts = f"{cookie_name(deployment, secure)}={value}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Strict"
    return f"{parts}; Secure" if secure else parts


def _cookie(exchange: Exchange, name: str) -> str:
    raw = exchange.headers.get(b"cookie", b"").decode("latin-1")
    for part in raw.split(";"):
        found, _, value = part.strip().partition("=")
        if found == name:
            return value.strip()
    return ""


def _signature(deployment: Guarded, content: str) -> str:
    return _mac(deployment, b"session " + content.encode("utf-8", "replace"))


def _mac(deployment: Guarded, content: bytes) -> str:
    """Under a key of its own: what else is signed with the store's secret can never pass for a session."""
    return hmac.new(hmac.digest(deployment.store.secret, _PURPOSE, "sha256"), content, "sha256").hexdigest()


def _now() -> int:
    return time.time_ns() // 1000
