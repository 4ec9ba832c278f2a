"""The short way of what is asked hundreds of times a second: from what protects an application to what answers.

A framework's routing, middleware, request and response take as long as the answer itself. The routes stay what they
are, and are described where they stand; this calls the same functions, and answers errors as the application does.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from coterie.errors import CoterieError
from coterie.serving.problems import answer_to
from coterie.serving.security.exchange import note_route

Answerer: TypeAlias = Callable[[Scope, bytes], Awaitable[bytes]]

_JSON = (b"content-type", b"application/json")


class Shortcut:
    """Sends a POST to one of the paths to what answers it, and everything else to the application."""

    def __init__(self, app: ASGIApp, answerers: Mapping[str, Answerer]) -> None:
        self._app, self._answerers = app, dict(answerers)

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Answer one request."""
        answerer = self._answerers.get(scope["path"]) if scope.get("method") == "POST" else None
        if answerer is None:
            return self._app(scope, receive, send)
        return _answer(answerer, scope, receive, send)


async def _answer(answerer: Answerer, scope: Scope, receive: Receive, send: Send) -> None:
    note_route(scope, scope["path"])  # one of a few, without ids
    try:
        content = await answerer(scope, await _body(receive))
    except ClientDisconnect:
        raise
    except Exception as error:
        response = await answer_to(error, Request(scope))
        await response(scope, receive, send)
        if not isinstance(error, HTTPException | CoterieError):
            raise  # to the outermost layer, which writes it down
        return
    headers = [(b"content-length", str(len(content)).encode()), _JSON]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def _body(receive: Receive) -> bytes:
    """The whole body; mostly it has been read before, and is one message."""
    held, more = b"", True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientDisconnect
        held, more = held + message.get("body", b""), message.get("more_body", False)
    return held
