"""/v1/users/{id}: what is held of a person, its erasure, their word on it, and a token for their page."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Path
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from coterie.serving import examples
from coterie.serving.conversion import erasure_out, moment
from coterie.serving.deployment import Deployment
from coterie.serving.openapi import gives, operation, takes
from coterie.serving.problems import Refusal
from coterie.serving.routes.bodies import read, told
from coterie.serving.schemas import ConsentIn, ConsentOut, ErasureOut, Id, TokenOut, UserExport
from coterie.serving.security.access import require
from coterie.serving.tokens import user_token

T = TypeVar("T")
TOKEN_HOURS = 12
PARTS = (b"/export", b"/consent", b"/token")  # a user's id may end so, too, but then with %2F
UserId = Annotated[Id, Path(description="The user's id, as in events.")]
CONSENT = {200: gives("What holds for the user now.", examples.CONSENT, ConsentOut)}


def router(deployment: Deployment) -> APIRouter:
    """The routes of one deployment. None of them says whether a user is known: of nobody, nothing is held."""
    routes = APIRouter(
        prefix="/v1/users",
        tags=["users"],
        dependencies=[Depends(require(deployment, "users"))],
        default_response_class=Response,
    )

    @routes.get(
        "/{id:path}/export",
        **operation(
            "What is held of a user",
            scope="users",
            answers={200: gives("All of it.", examples.EXPORT, UserExport)},
            about="Of a user who is not known, that is nothing.",
        ),
    )
    async def export(id: UserId) -> Response:
        return told(await run_in_threadpool(_export, deployment, id))

    @routes.delete(
        "/{id:path}",
        dependencies=[Depends(_whole_user)],
        **operation(
            "Erase a user",
            scope="users",
            answers={200: gives("The receipt; keep it.", examples.ERASURE, ErasureOut)},
            about="Afterwards no file or table of this deployment holds the id or an event of the user. May be done "
            "again, for a user who is not known too; each time gives a receipt.",
        ),
    )
    async def erase(id: UserId) -> Response:
        return told(erasure_out(await run_in_threadpool(_timed, deployment, deployment.store.erase_user, id)))

    @routes.get("/{id:path}/consent", **operation("A user's word", scope="users", answers=CONSENT))
    async def consent(id: UserId) -> Response:
        return told(await run_in_threadpool(_consent, deployment, id))

    @routes.put(
        "/{id:path}/consent",
        **operation(
            "Record a user's word",
            scope="users",
            body=takes(examples.CONSENT_IN, ConsentIn),
            answers=CONSENT,
            about="Where a user objects, the events that are held are deleted, and answers are not personal any more.",
        ),
    )
    async def set_consent(id: UserId, request: Request) -> Response:
        word = await read(request, ConsentIn)
        await run_in_threadpool(_timed, deployment, deployment.store.set_consent, id, word.consent)
        return told(await run_in_threadpool(_consent, deployment, id))

    @routes.post(
        "/{id:path}/token",
        **operation(
            "A token for a user's page",
            scope="users",
            answers={200: gives("The token.", examples.TOKEN, TokenOut)},
            about=f"With it, a page with a publishable key speaks for this user for {TOKEN_HOURS} hours. Hand it out "
            "to whom you have logged in as this user.",
        ),
    )
    async def token(id: UserId) -> Response:
        ends = (int(time.time()) + TOKEN_HOURS * 3600) * 1_000_000
        return told(TokenOut(user_token=user_token(deployment.store.secret, id, ends), expires_at=moment(ends)))

    return routes


async def _whole_user(request: Request) -> None:
    """Refuse to take ``DELETE /v1/users/u1/consent`` for the erasure of a user "u1/consent"."""
    if request.scope.get("raw_path", b"").endswith(PARTS):
        raise Refusal(405, "this is a part of what is held of a user; the user is one level above")


def _export(deployment: Deployment, user: str) -> UserExport:
    return UserExport.model_validate(deployment.store.export_user(user))


def _timed(deployment: Deployment, write: Callable[..., T], *arguments: object) -> T:
    began = time.perf_counter()
    result = write(*arguments)
    deployment.metrics.written("people", time.perf_counter() - began)
    return result


def _consent(deployment: Deployment, user: str) -> ConsentOut:
    store = deployment.store
    return ConsentOut(user=user, recorded=store.consent(user), stored=store.may_store(user))
