"""The application: routes, dashboard and static files of one deployment, behind what protects them."""

from __future__ import annotations

import gc
from types import SimpleNamespace
from typing import Any, cast

from fastapi import FastAPI
from starlette.responses import RedirectResponse
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from coterie.serving import problems
from coterie.serving.config import ServeConfig
from coterie.serving.dashboard.routes import router as dashboard
from coterie.serving.deployment import Deployment
from coterie.serving.openapi import describe
from coterie.serving.routes import browser, events, health, items, model, recommend, users
from coterie.serving.security.middleware import Envelope, protect
from coterie.serving.served import stay_alone
from coterie.serving.shortcut import Shortcut

COLLECT = (10_000, 20, 20)  # allocations before the collector looks at the young, and how often at the older

GROUPS = (recommend, items, events, users, model, browser, health)


def create_app(deployment: Deployment) -> FastAPI:
    """Everything that answers, without what protects it."""
    app = _api(deployment)
    app.include_router(dashboard(deployment))
    app.mount("/static", StaticFiles(packages=[("coterie.serving", "static")]))
    app.add_api_route(
        "/example/shop.html", lambda: RedirectResponse("/static/example/shop.html"), include_in_schema=False
    )
    problems.install(app)
    return app


def api_description(config: ServeConfig) -> dict[str, Any]:
    """What ``GET /openapi.json`` of a service with these settings says; there need not be one."""
    described = SimpleNamespace(config=config)  # routes ask for everything else when they are called
    return _api(cast("Deployment", described)).openapi()


def application(deployment: Deployment) -> Envelope:
    """What answers requests, behind what protects it."""
    answers = recommend.Answers(deployment)
    return protect(Shortcut(create_app(deployment), answers.by_path()), deployment)


class Service:
    """What a server runs: it starts the deployment before the first request, and closes it after the last."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self._app = application(deployment)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one connection, or the server's own start and stop."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
        else:
            await self._app(scope, receive, send)

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        stay_alone()  # this thread answers one question at a time
        self._deployment.start()
        _settle()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        self._deployment.close()
        self._app.log.close()
        await send({"type": "lifespan.shutdown.complete"})


def _api(deployment: Deployment) -> FastAPI:
    """The routes of the API, and their description."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url="/openapi.json")
    app.state.deployment = deployment
    for group in GROUPS:
        app.include_router(group.router(deployment))
    describe(app)
    return app


def _settle() -> None:
    """Have the garbage collector pass over what stays, and come less often: what answers leave behind has no cycles."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT)
