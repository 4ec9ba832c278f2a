"""Login and logout: a key is exchanged for a session cookie."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request
from starlette.responses import RedirectResponse, Response

from coterie.errors import CoterieError
from coterie.serving.dashboard.gate import LOGIN, check_sender, own_path
from coterie.serving.dashboard.pages import HEADERS, Pages, first, form
from coterie.serving.security.refusals import Denied
from coterie.serving.security.sessions import sign_in, sign_out_cookie

Fields = Annotated[dict[str, list[str]], Depends(form)]


def router(pages: Pages) -> APIRouter:
    """The routes; nobody has to be logged in for them."""
    routes, deployment = APIRouter(include_in_schema=False), pages.deployment

    @routes.get(LOGIN)
    def login_page(request: Request, next: str = "") -> Response:
        if deployment.open_access:
            return RedirectResponse("/dashboard/", 303, HEADERS)
        return _form(pages, request, own_path(next))

    @routes.post(LOGIN)
    def login(request: Request, fields: Fields) -> Response:
        wanted = own_path(first(fields, "next"))
        try:
            cookie = sign_in(deployment, request, first(fields, "key"))
        except (Denied, CoterieError) as error:
            told = str(error.detail) if isinstance(error, Denied) else str(error)
            return _form(pages, request, wanted, told, error.status_code if isinstance(error, Denied) else 400)
        return RedirectResponse(wanted, 303, {**HEADERS, "Set-Cookie": cookie})

    @routes.post("/dashboard/logout")
    def logout(request: Request) -> Response:
        check_sender(request)
        return RedirectResponse(LOGIN, 303, {**HEADERS, "Set-Cookie": sign_out_cookie(deployment, request)})

    return routes


def _form(pages: Pages, request: Request, wanted: str, error: str = "", status: int = 200) -> Response:
    return pages.page(request, "login.html.j2", http_status=status, nav=(), signed_in=False, wanted=wanted, error=error)
