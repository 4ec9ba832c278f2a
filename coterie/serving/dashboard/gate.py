"""Who gets in: every route of the dashboard goes through here, and errors become pages that a person can read."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from coterie.errors import CoterieError, EnvironmentFault
from coterie.serving.dashboard.pages import HEADERS, Pages
from coterie.serving.security.access import caller_of
from coterie.serving.security.refusals import Denied
from coterie.serving.security.sessions import same_origin

if TYPE_CHECKING:
    from coterie.serving.deployment import Deployment

LOGIN = "/dashboard/login"
_TITLES = {401: "Log in first", 403: "Not allowed", 404: "Not found", 503: "Not possible now"}
Handler = Callable[[Request], Coroutine[Any, Any, Response]]


def gated(pages: Pages) -> type[APIRoute]:
    """The class of routes that let in who may see the dashboard, and take forms from its own pages alone."""

    class Gated(APIRoute):
        def get_route_handler(self) -> Handler:
            inner = super().get_route_handler()

            async def handler(request: Request) -> Response:
                try:
                    caller_of(pages.deployment, request.scope, "dashboard")
                    check_sender(request)
                    return await inner(request)
                except Denied as error:
                    return _denied(pages, request, error)
                except HTTPException as error:
                    return _told(pages, request, error.status_code, error.detail)
                except RequestValidationError:
                    return _told(pages, request, 400, "This address has a part that cannot be read; start from a link.")
                except CoterieError as error:
                    return _told(pages, request, 503 if isinstance(error, EnvironmentFault) else 400, str(error))

            return handler

    return Gated


def check_sender(request: Request) -> None:
    """Refuse what another site makes a browser send.

    Raises:
        Denied: the request changes something, and does not come from a page of this service.
    """
    if request.method not in ("GET", "HEAD") and not same_origin(request):
        raise Denied(403, "this form must be sent from the dashboard itself; open its page and send it there")


def may(deployment: Deployment, request: Request, scope: str) -> bool:
    """Whether the key behind this session has a scope of its own, `admin` included: a session itself has none."""
    caller = caller_of(deployment, request.scope, "dashboard")
    if caller.key_id is None:
        return True
    holder = deployment.keys.holder(caller.key_id, time.time_ns() // 1000)
    return holder is not None and bool({scope, "admin"} & holder.scopes)


def require_scope(deployment: Deployment, request: Request, scope: str) -> None:
    """Refuse whom `may` does not allow.

    Raises:
        Denied: the key has not this scope.
    """
    if not may(deployment, request, scope):
        raise Denied(
            403,
            f"your key opens the dashboard, but this needs the scope '{scope}' as well; log in with a key that has it",
        )


def own_path(path: str) -> str:
    """The path if it is one of the dashboard's, else its first page: nobody is led elsewhere after a login.

    >>> own_path("/dashboard/runs"), own_path("//evil.example/dashboard"), own_path("/dashboard/../v1")
    ('/dashboard/runs', '/dashboard/', '/dashboard/')
    """
    fine = path.startswith("/dashboard/") and ".." not in path and "\\" not in path and path.isprintable()
    return path if fine else "/dashboard/"


def _denied(pages: Pages, request: Request, error: Denied) -> Response:
    if error.status_code == 401 and request.method == "GET" and "text/html" in request.headers.get("accept", "*/*"):
        wanted = request.url.path + (f"?{request.url.query}" if request.url.query else "")
        return RedirectResponse(f"{LOGIN}?next={quote(wanted, safe='')}", 303, HEADERS)
    answer = _told(pages, request, error.status_code, str(error.detail))
    for name, value in (error.headers or {}).items():
        answer.headers[name] = value
    return answer


def _told(pages: Pages, request: Request, status: int, sentence: str) -> Response:
    title = _TITLES.get(status, "That cannot be done")
    text = f"{sentence[:1].upper()}{sentence[1:]}".rstrip(".")
    return pages.page(request, "error.html.j2", http_status=status, title=title, sentence=text)
