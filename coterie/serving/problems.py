"""Errors as problems (RFC 9457): what, why and the remedy, in the same form wherever they come from.

Whoever asked wrongly learns what was wrong with the question. What failed on our side is told to the log: its message
may name files, items or users, which are no business of a stranger; the answer says 500 or 503 and a reference.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError
from pydantic_core import ErrorDetails, from_json, to_json
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match

from coterie.errors import ConfigError, CoterieError, DataError, EnvironmentFault, RunError
from coterie.serving.security.exchange import exchange_of

PROBLEM = "application/problem+json"
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
MOST_ERRORS = 20  # told of one body: whoever sends a thousand wrong items need not read a thousand sentences
RETRY_AFTER = 2  # seconds
_SAID = {"missing": "is missing", "extra_forbidden": "there is no such field"}
AWAY = "the service cannot do this just now; send the same request again in a few seconds"

_log = logging.getLogger(__name__)


class Refusal(HTTPException):
    """A request is refused: the status, one sentence for whoever sent it, and what is wrong where.

    `errors` have a ``detail`` each and a ``pointer`` into the body, or the name of a ``parameter``.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.errors = list(errors)


def install(app: FastAPI) -> None:
    """Make `app` answer every error with a problem."""
    app.add_exception_handler(HTTPException, _refused)
    app.add_exception_handler(RequestValidationError, _wrong_parameters)
    app.add_exception_handler(CoterieError, _ours)
    app.add_exception_handler(Exception, _unexpected)


def problem(
    status: int,
    detail: str,
    errors: Sequence[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """A problem as a response."""
    content: dict[str, Any] = {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status}
    content["detail"] = detail
    if errors:
        content["errors"] = list(errors)
    return Response(to_json(content), status, dict(headers or {}), PROBLEM)


async def answer_to(error: Exception, request: Request) -> Response:
    """The problem with which an application that was `install`ed into answers an error."""
    if isinstance(error, HTTPException):
        return await _refused(request, error)
    return await (_ours if isinstance(error, CoterieError) else _unexpected)(request, error)


def invalid(error: ValidationError, body: bytes) -> Refusal:
    """What is wrong with a body: 400 where it is no JSON, 422 where it is not what is asked for."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    if found[0]["type"] == "json_invalid":
        return Refusal(400, f"the body is no JSON ({_lower(found[0]['msg'].removeprefix('Invalid JSON: '))})")
    received = from_json(body)
    return wrong(dict.fromkeys(_fault(one, received) for one in found))


def wrong(errors: Iterable[tuple[str, str]]) -> Refusal:
    """422: the body is not what is asked for; `errors` are (JSON pointer, sentence)."""
    every = list(errors)
    more = f"; the first {MOST_ERRORS} are listed" if len(every) > MOST_ERRORS else ""
    pointer, detail = every[0]
    count = "" if len(every) == 1 else f" ({len(every)} faults{more})"
    listed = [{"pointer": pointer, "detail": detail} for pointer, detail in every[:MOST_ERRORS]]
    return Refusal(422, f"{pointer}: {detail}{count}", listed)


async def _refused(request: Request, error: Exception) -> Response:
    if not isinstance(error, HTTPException):
        raise TypeError(f"handles HTTPException, got {type(error).__name__}")
    headers, detail = dict(error.headers or {}), str(error.detail)
    if error.status_code == 405:
        headers["Allow"] = ", ".join(_allowed(request))
        detail = f"{request.method} is not possible here; what is: {headers['Allow']}"
    elif error.status_code == 404 and detail == HTTPStatus.NOT_FOUND.phrase:
        detail = "there is nothing at this address; /openapi.json lists what there is"
    return problem(error.status_code, detail, getattr(error, "errors", ()), headers)


async def _wrong_parameters(_: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        raise TypeError(f"handles RequestValidationError, got {type(error).__name__}")
    errors = [{"parameter": str(one["loc"][-1]), "detail": _lower(one["msg"])} for one in error.errors()[:MOST_ERRORS]]
    return problem(422, f"{errors[0]['parameter']}: {errors[0]['detail']}", errors)


async def _ours(_: Request, error: Exception) -> Response:
    """The environment, and a run that is not there: 503; an expression or a value: 400; any other refusal: 409."""
    if isinstance(error, EnvironmentFault | RunError):
        _log.error("%s", error)
        return problem(503, AWAY, headers={"Retry-After": str(RETRY_AFTER)})
    return problem(400 if isinstance(error, ConfigError | DataError) else 409, str(error))


async def _unexpected(request: Request, _: Exception) -> Response:
    """Starlette raises it again after this, and the outermost layer writes down where it happened, without values."""
    reference = exchange_of(request.scope).request_id
    return problem(500, f"this is a fault of the service; its log knows it as {reference}")


def _allowed(request: Request) -> list[str]:
    """The methods of what is at this path: as documented, else those that some route has for it."""
    path = request.scope.get("raw_path", b"").decode("latin-1")
    for template, methods in request.app.openapi()["paths"].items():
        if re.fullmatch(re.sub(r"\\{.*?\\}", "[^/]+", re.escape(template)), path):
            documented = {method.upper() for method in methods}
            return [method for method in METHODS if method in documented]
    routes = request.app.router.routes
    return [
        method
        for method in METHODS
        if any(route.matches({**request.scope, "method": method})[0] is Match.FULL for route in routes)
    ]


def _fault(error: ErrorDetails, received: Any) -> tuple[str, str]:
    """Where in the received body, as a JSON pointer in a fragment, and what is wrong there.

    The places that pydantic gives hold names of alternatives, too, which nobody has sent.
    """
    named = error["type"] in ("missing", "extra_forbidden")  # the last part is a field then, which may not be there
    at: Any = received
    place = list[int | str]()
    for depth, part in enumerate(error["loc"], 1):
        inside = isinstance(at, dict) and part in at
        if inside or (isinstance(at, list) and isinstance(part, int)):
            at = at[part]
            place.append(part)
        elif named and depth == len(error["loc"]):
            place.append(part)
    pointer = "#" + "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in place)
    return pointer, _SAID.get(error["type"]) or _lower(error["msg"].removeprefix("Value error, "))


def _lower(sentence: str) -> str:
    return sentence[:1].lower() + sentence[1:]
