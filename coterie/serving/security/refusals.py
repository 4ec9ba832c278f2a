"""What a request that is not let through gets: one problem (RFC 9457), from wherever it is refused."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http import HTTPStatus

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Message, Send

PROBLEM = "application/problem+json"
REALM = 'Bearer realm="coterie"'
# Why a layer did not let a request through, as the metrics count it.
REASONS = {
    400: "form",
    401: "key",
    403: "origin",
    408: "slow",
    413: "size",
    415: "type",
    421: "host",
    429: "rate",
}


class Denied(HTTPException):
    """A request is not let through: status, one sentence for its sender, and headers.

    An HTTPException, so that every framework above knows it; what no framework catches, `protect` answers.
    """

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, detail, dict(headers or {}))

    def messages(self) -> tuple[Message, Message]:
        """The answer as ASGI messages."""
        raw = [(name.lower().encode(), value.encode("latin-1")) for name, value in (self.headers or {}).items()]
        return problem(self.status_code, self.detail, raw)


def unauthorised(detail: str, error: str = "") -> Denied:
    """401: who asks is not known."""
    return Denied(401, detail, {"WWW-Authenticate": f'{REALM}, error="{error}"' if error else REALM})


def forbidden(detail: str, scope: str) -> Denied:
    """403: who asks is known, and may not do that."""
    return Denied(403, detail, {"WWW-Authenticate": f'{REALM}, error="insufficient_scope", scope="{scope}"'})


def too_many(seconds: int, what: str) -> Denied:
    """429: come again after `seconds`."""
    return Denied(429, f"{what}; wait {seconds} s and send it again", {"Retry-After": str(seconds)})


def problem(status: int, detail: str, headers: list[tuple[bytes, bytes]] | None = None) -> tuple[Message, Message]:
    """A problem as ASGI messages."""
    title = HTTPStatus(status).phrase
    content = json.dumps({"type": "about:blank", "title": title, "status": status, "detail": detail}).encode()
    length = str(len(content)).encode()
    told = [(b"content-type", PROBLEM.encode()), (b"content-length", length), *(headers or [])]
    return {"type": "http.response.start", "status": status, "headers": told}, {
        "type": "http.response.body",
        "body": content,
    }


async def refuse(send: Send, refusal: Denied) -> None:
    """Answer with the refusal."""
    start, body = refusal.messages()
    await send(start)
    await send(body)


async def denied(_: Request, error: Exception) -> Response:
    """The exception handler for `Denied` of a Starlette or FastAPI application.

    Raises:
        TypeError: it was installed for another exception.
    """
    if not isinstance(error, Denied):
        raise TypeError(f"handles Denied, got {type(error).__name__}")
    start, body = error.messages()
    answer = Response(body["body"], error.status_code)
    answer.raw_headers = start["headers"]
    return answer
