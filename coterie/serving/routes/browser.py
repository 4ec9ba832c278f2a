"""GET /v1/model/browser: the model for pages whose baskets stay where they are."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import FileResponse, Response

from coterie.serving import examples
from coterie.serving.deployment import Deployment
from coterie.serving.openapi import JSON, gives, operation
from coterie.serving.private.served_exports import ServedExports
from coterie.serving.problems import Refusal
from coterie.serving.security.access import require

BINARY = "application/octet-stream"
FOR_EVER = "private, max-age=31536000, immutable"  # a file's name has its digest in it
ASK_FIRST = "private, no-cache"
UNCHANGED = "`If-None-Match` with its ETag is answered by 304."
MANIFEST_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {
        "layout": {"type": "string"},
        "fingerprint": {"type": "string"},
        "items": {"type": "integer"},
        "sizes": {"type": "object", "additionalProperties": {"type": "integer"}},
        "files": {"type": "object", "additionalProperties": {"type": "string"}},
        "agreement": {"type": "object"},
        "public_key": {"type": "string"},
        "signature": {"type": "string"},
    },
    "required": ["layout", "fingerprint", "items", "sizes", "files", "public_key", "signature"],
}


def router(deployment: Deployment) -> APIRouter:
    """The routes of one deployment; where its baskets come to the server, they refuse.

    Raises:
        ModelError: baskets are to stay in the browser, and the model that answers must not be exported.
    """
    routes = APIRouter(
        prefix="/v1/model/browser",
        tags=["model"],
        dependencies=[Depends(require(deployment, "recommend"))],
        default_response_class=Response,
    )
    exports = ServedExports(deployment.versions) if deployment.config.answers.privacy == "browser" else None
    if exports is not None:
        exports.begin()

    @routes.get(
        "",
        **operation(
            "What a page downloads to answer by itself",
            scope="recommend",
            answers={200: _manifest()},
            refusals=(409,),
            about=f"The signed manifest of the champion's export. Another version has another one. {UNCHANGED}",
        ),
    )
    async def manifest(request: Request) -> Response:
        made = _made(deployment, exports)
        found = made.ready()
        if found is None:
            found = await run_in_threadpool(made.current)
        headers = {"ETag": f'"{found.digest}"', "Cache-Control": ASK_FIRST}
        if _known(request, headers["ETag"]):
            return Response(status_code=304, headers=headers)
        return Response(found.manifest, headers=headers, media_type=JSON)

    @routes.get(
        "/{file}",
        **operation(
            "A file of it",
            scope="recommend",
            answers={200: gives("Its bytes.", examples.BROWSER_FILE, media=BINARY)},
            refusals=(404, 409),
            about=f"`files` of the manifest names it. What it holds never changes. {UNCHANGED}",
        ),
    )
    async def file(request: Request, file: Annotated[str, Path(max_length=100)]) -> Response:
        made = _made(deployment, exports)
        path = made.file(file)
        if path is None:
            await run_in_threadpool(made.current)  # another process may have been quicker with a new version
            path = made.file(file)
        if path is None:
            raise Refusal(404, "the manifest names no such file; read it again")
        headers = {"ETag": f'"{file}"', "Cache-Control": FOR_EVER}
        if _known(request, headers["ETag"]):
            return Response(status_code=304, headers=headers)
        return FileResponse(path, headers=headers, media_type=BINARY)

    return routes


def _made(deployment: Deployment, exports: ServedExports | None) -> ServedExports:
    if exports is None:
        mode = deployment.config.answers.privacy
        raise Refusal(
            409,
            f"this deployment answers baskets itself; its model is for pages with privacy = 'browser', not '{mode}'",
        )
    return exports


def _known(request: Request, etag: str) -> bool:
    """Whether the caller has this very thing already."""
    given = request.headers.get("if-none-match", "")
    return given.strip() == "*" or etag in (one.strip().removeprefix("W/") for one in given.split(","))


def _manifest() -> dict[str, Any]:
    shown = examples.references(examples.BROWSER_MANIFEST)
    return {"description": "The manifest.", "content": {JSON: {"schema": MANIFEST_SCHEMA, "examples": shown}}}
