"""/health and /metrics: for whoever keeps the service running."""

from __future__ import annotations

from fastapi import APIRouter, Depends
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from coterie.serving import examples
from coterie.serving.deployment import Deployment
from coterie.serving.openapi import gives, operation
from coterie.serving.problems import problem
from coterie.serving.schemas import Status
from coterie.serving.security.access import require


def router(deployment: Deployment) -> APIRouter:
    """The routes of one deployment."""
    routes = APIRouter(tags=["health"], default_response_class=Response)

    async def live() -> Response:
        return JSONResponse({"status": "alive"})

    async def ready() -> Response:
        reason = await run_in_threadpool(deployment.not_ready)
        if reason is not None:
            return problem(503, reason, headers={"Retry-After": "2"})
        return JSONResponse({"status": "ready"})

    for path, answer, summary, shown, refusals in (
        ("/health/live", live, "Whether the process runs", examples.LIVE, ()),
        ("/health/ready", ready, "Whether it can answer", examples.READY, (503,)),
    ):
        described = operation(summary, scope=None, answers={200: gives("It does.", shown, Status)}, refusals=refusals)
        routes.add_api_route(path, answer, methods=["GET"], **described)
        routes.add_api_route(path, answer, methods=["HEAD"], include_in_schema=False)  # some balancers ask so

    @routes.get(
        "/metrics",
        dependencies=[Depends(require(deployment, "dashboard"))],
        **operation(
            "Figures for Prometheus",
            scope="dashboard",
            answers={200: gives("Prometheus' text format.", examples.METRICS, media="text/plain")},
            about="Labels hold no id of a user or an item.",
        ),
    )
    async def metrics(request: Request) -> Response:
        loaded, items = deployment.versions.all_loaded(), len(deployment.live)
        content, kind = deployment.metrics.page(request.headers.get("accept", ""), loaded, items)
        return Response(content, headers={"Content-Type": kind})

    return routes
