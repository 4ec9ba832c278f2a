"""All pages of the dashboard, for the application to include."""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter
from starlette.responses import RedirectResponse

from coterie.serving.dashboard import (
    api,
    compare,
    data,
    federation,
    feedback,
    login,
    overview,
    people,
    playground,
    run,
    runs,
    statics,
)
from coterie.serving.dashboard.gate import gated
from coterie.serving.dashboard.pages import Pages
from coterie.serving.dashboard.runfolder import RunFolder

if TYPE_CHECKING:
    from coterie.serving.deployment import Deployment


def router(deployment: Deployment) -> APIRouter:
    """The routes under /dashboard, and / which leads there. OpenAPI has none of them: they are no API."""
    pages = Pages(deployment)
    folder = RunFolder(deployment.run_folder, deployment.config.model.trust)
    inside = APIRouter(route_class=gated(pages), include_in_schema=False)
    for page in (overview, federation, playground, people, feedback, api):
        page.add_to(inside, pages)
    for page_of_runs in (runs, compare, run, data):
        page_of_runs.add_to(inside, pages, folder)
    whole = APIRouter(include_in_schema=False)
    whole.add_api_route("/", _to_overview, methods=["GET", "HEAD"])
    whole.add_api_route("/dashboard", _to_overview, methods=["GET", "HEAD"])
    whole.include_router(statics.router())
    whole.include_router(login.router(pages))
    whole.include_router(inside)
    return whole


def _to_overview() -> RedirectResponse:
    return RedirectResponse("/dashboard/", 307)
