"""Bodies into schemas, and schemas into answers: without FastAPI's own machinery, which takes longer than the work."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from fastapi.routing import APIRoute
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from coterie.serving.openapi import JSON
from coterie.serving.problems import Refusal, invalid

Model = TypeVar("Model", bound=BaseModel)


class Direct(APIRoute):
    """A route whose endpoint takes the request and nothing else, so that FastAPI has nothing to find out for it.

    It stands in the OpenAPI document as others do; its answers take less time.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return endpoint


async def read(request: Request, model: type[Model]) -> Model:
    """The body as `model`; types are taken as JSON has them: "10" is no number.

    Raises:
        Refusal: 400, it is no JSON; 422, it is not what `model` asks for.
    """
    return parsed(await request.body(), model)


def parsed(body: bytes, model: type[Model]) -> Model:
    """A body that has been read, as `model`; raises as `read` does."""
    try:
        return model.model_validate_json(body, strict=True)
    except ValidationError as error:
        raise invalid(error, body) from None


async def read_either(request: Request, alternatives: TypeAdapter[Model]) -> Model:
    """The body as one of several models; raises as `read` does."""
    body = await request.body()
    try:
        return alternatives.validate_json(body, strict=True)
    except ValidationError as error:
        raise invalid(error, body) from None


def within(count: int, limit: int, what: str) -> None:
    """Refuse a body that holds too much.

    Raises:
        Refusal: 413, with the limit.
    """
    if count > limit:
        raise Refusal(413, f"one request may hold {limit:,} {what}, got {count:,}; send them in parts")


def told(answer: BaseModel, status: int = 200) -> Response:
    """An answer."""
    return Response(answer.model_dump_json(by_alias=True), status, media_type=JSON)
