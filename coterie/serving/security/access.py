"""Who asks, and whether they may: for routes as a dependency, and as a plain function for what has to be fast."""

from __future__ import annotations

import time

from fastapi.openapi.models import HTTPBearer
from fastapi.security.base import SecurityBase
from starlette.requests import Request
from starlette.types import Scope as AsgiScope

from coterie.serving.security.exchange import Exchange, exchange_of
from coterie.serving.security.guarded import Guarded
from coterie.serving.security.keys import ANYBODY, Caller
from coterie.serving.security.refusals import Denied, denied, forbidden, unauthorised
from coterie.serving.security.sessions import COOKIE_SCOPES, session_caller
from coterie.serving.words import Scope

__all__ = ["OPENAPI_SECURITY", "Caller", "Denied", "caller_of", "denied", "identify", "require"]

SCHEME = "key"
OPENAPI_SECURITY: list[dict[str, list[str]]] = [{SCHEME: []}]  # of an operation that does without `require`
LONGEST = 200  # characters of a key as presented; ours have 67

_WRONG = "the API key is not known here, has expired, was revoked, or may not be used from this origin"


def caller_of(deployment: Guarded, scope: AsgiScope, wanted: Scope) -> Caller:
    """Who asks, if they may do what `wanted` stands for.

    A key in ``Authorization: Bearer`` or ``X-Api-Key``; for the scopes of the dashboard alone, its session cookie too.
    `admin` includes `dashboard`.

    Raises:
        Denied: 401 without a key that holds, 403 where it has not this scope.
    """
    exchange = exchange_of(scope)
    caller = identify(deployment, exchange)
    if caller is None and wanted in COOKIE_SCOPES and not exchange.wrong:
        caller = session_caller(deployment, scope)
        exchange.key_id = None if caller is None else caller.key_id
    if caller is None:
        raise nobody(exchange, wanted)
    if wanted not in caller.scopes and not (wanted == "dashboard" and "admin" in caller.scopes):
        raise forbidden(f"the key '{caller.name}' has no scope '{wanted}'; use one that has", wanted)
    return caller


def require(deployment: Guarded, wanted: Scope) -> Access:
    """A dependency that gives a route its `Caller`: ``Annotated[Caller, Depends(require(deployment, "items"))]``."""
    return Access(deployment, wanted)


class Access(SecurityBase):
    """The dependency of `require`; being a SecurityBase, it stands in the OpenAPI document by itself."""

    def __init__(self, deployment: Guarded, wanted: Scope) -> None:
        self._deployment, self._wanted = deployment, wanted
        self.scheme_name = SCHEME
        self.model = HTTPBearer(
            bearerFormat="csk_... or cpk_...",
            description="An API key, made by `coterie keys create`; X-Api-Key takes it too. On loopback, none is "
            "asked for until the first is made.",
        )

    async def __call__(self, request: Request) -> Caller:
        """Who asks.

        Raises:
            Denied: 401 or 403.
        """
        return caller_of(self._deployment, request.scope, self._wanted)


def identify(deployment: Guarded, exchange: Exchange) -> Caller | None:
    """Who presents a key (or anybody, where none is asked for); looked up once for each request."""
    if not exchange.identified:
        exchange.identified = True
        if deployment.open_access:
            exchange.caller = ANYBODY
        elif (text := presented(exchange.headers)) is not None:
            exchange.caller = _checked(deployment, exchange, text)
            exchange.wrong = exchange.caller is None
        exchange.key_id = None if exchange.caller is None else exchange.caller.key_id
    return exchange.caller


def presented(headers: dict[bytes, bytes]) -> str | None:
    """The key as it was sent; None where none was."""
    given = headers.get(b"authorization")
    if given is not None and given[:7].lower() == b"bearer ":
        return given[7:].strip().decode("latin-1")
    given = headers.get(b"x-api-key")
    return None if given is None else given.decode("latin-1")


def nobody(exchange: Exchange, wanted: str = "") -> Denied:
    """The refusal of who presented no key, or a wrong one."""
    if exchange.wrong:
        return unauthorised(f"{_WRONG}; `coterie keys list` shows those that hold", "invalid_token")
    purpose = f" with scope '{wanted}'" if wanted else ""
    return unauthorised(
        f"this needs an API key{purpose}: send it as 'Authorization: Bearer KEY' or 'X-Api-Key: KEY'; "
        "`coterie keys create` makes one"
    )


def _checked(deployment: Guarded, exchange: Exchange, text: str) -> Caller | None:
    if len(text) > LONGEST:
        return None
    return deployment.keys.check(text, exchange.origin, time.time_ns() // 1000)
