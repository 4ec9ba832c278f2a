"""POST /v1/recommend/...: what completes a basket, what a user takes next, what is like an item, what is popular."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace

from fastapi import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from coterie.serving import examples
from coterie.serving.conversion import answer_json, ask_of, basket_of
from coterie.serving.deployment import Deployment
from coterie.serving.openapi import JSON, gives, operation, takes
from coterie.serving.problems import Refusal, wrong
from coterie.serving.routes.bodies import Direct, parsed
from coterie.serving.schemas import (
    BasketQuestion,
    Options,
    PopularQuestion,
    Recommendations,
    SimilarQuestion,
    UserQuestion,
)
from coterie.serving.security.access import Caller, caller_of
from coterie.serving.tokens import speaks_for
from coterie.serving.words import Answer, Ask, BasketLine, Version

PREFIX = "/v1/recommend"
ANSWERS = {200: gives("Suggestions, best first.", examples.RECOMMENDATIONS, Recommendations)}
UNKNOWN = (
    "Items that are not known are reported in `unknown` and ignored. Where nothing is known of the question, the "
    "answer is what most people take (or rate best), and `fallback` says so."
)
HISTORY = (
    "From the history that this deployment holds, and from the basket. For a user who has objected, or has not agreed "
    "where that is asked for, nothing personal enters: `fallback` is `popularity` and `personal` false. With a "
    "publishable key, `userToken` is needed."
)

_TURN = threading.Lock()


def router(deployment: Deployment) -> APIRouter:
    """The routes of one deployment. They run on the event loop: nothing in them waits but for the store."""
    routes = APIRouter(prefix=PREFIX, tags=["recommend"], default_response_class=Response, route_class=Direct)
    answer = Answers(deployment)

    @routes.post(
        "/basket",
        **operation(
            "What completes a basket",
            scope="recommend",
            body=takes(examples.BASKET, BasketQuestion),
            answers=ANSWERS,
            refusals=(409,),
            about=f"Nothing is stored. {UNKNOWN}",
        ),
    )
    async def basket(request: Request) -> Response:
        return Response(await answer.basket(request.scope, await request.body()), media_type=JSON)

    @routes.post(
        "/user",
        **operation(
            "What a user takes next",
            scope="recommend",
            body=takes(examples.USER, UserQuestion),
            answers=ANSWERS,
            refusals=(409,),
            about=f"{HISTORY} {UNKNOWN}",
        ),
    )
    async def user(request: Request) -> Response:
        return Response(await answer.user(request.scope, await request.body()), media_type=JSON)

    @routes.post(
        "/similar",
        **operation(
            "What is like an item",
            scope="recommend",
            body=takes(examples.SIMILAR, SimilarQuestion),
            answers=ANSWERS,
            refusals=(409,),
            about=UNKNOWN,
        ),
    )
    async def similar(request: Request) -> Response:
        return Response(await answer.similar(request.scope, await request.body()), media_type=JSON)

    @routes.post(
        "/popular",
        **operation(
            "What most people take",
            scope="recommend",
            body=takes(examples.POPULAR, PopularQuestion),
            answers=ANSWERS,
            refusals=(409,),
        ),
    )
    async def popular(request: Request) -> Response:
        return Response(await answer.popular(request.scope, await request.body()), media_type=JSON)

    return routes


class Answers:
    """What is behind the routes: each method takes the scope and the body of a request, and gives the answer's JSON.

    They know no framework, so that `coterie.serving.shortcut` can call them without one.

    Raises (from every method):
        Refusal, Denied: the request is refused.
        CoterieError: the question cannot be answered.
    """

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment

    async def basket(self, scope: Scope, body: bytes) -> bytes:
        """What completes a basket."""
        deployment = self._deployment
        caller = caller_of(deployment, scope, "recommend")
        question = parsed(body, BasketQuestion)
        _refuse_baskets(deployment, len(question.items))
        ask = ask_of("basket", question, basket_of(question.items), named=_named(deployment, caller, question))
        return await _answered(deployment, ask)

    async def user(self, scope: Scope, body: bytes) -> bytes:
        """What a user takes next."""
        deployment = self._deployment
        caller = caller_of(deployment, scope, "recommend")
        question = parsed(body, UserQuestion)
        _refuse_baskets(deployment, len(question.items))
        may_speak_for(deployment, caller, question.user, question.user_token, "#/userToken")
        named, lines = _named(deployment, caller, question), basket_of(question.items)
        history = await run_in_threadpool(_history, deployment, question.user)
        if history is None:
            return await _impersonal(deployment, ask_of("popular", question, lines, named=named))
        ask = ask_of("user", question, lines, history, named=named)
        return await _answered(deployment, ask, question.user)

    async def similar(self, scope: Scope, body: bytes) -> bytes:
        """What is like an item."""
        caller = caller_of(self._deployment, scope, "recommend")
        question = parsed(body, SimilarQuestion)
        named, lines = _named(self._deployment, caller, question), (BasketLine(question.item),)
        return await _answered(self._deployment, ask_of("similar", question, lines, named=named))

    async def popular(self, scope: Scope, body: bytes) -> bytes:
        """What most people take."""
        caller = caller_of(self._deployment, scope, "recommend")
        question = parsed(body, PopularQuestion)
        named = _named(self._deployment, caller, question)
        return await _answered(self._deployment, ask_of("popular", question, named=named))

    def by_path(self) -> dict[str, Callable[[Scope, bytes], Awaitable[bytes]]]:
        """The methods by the paths of their routes."""
        methods = (self.basket, self.user, self.similar, self.popular)
        return {f"{PREFIX}/{one.__name__}": one for one in methods}


def may_speak_for(deployment: Deployment, caller: Caller, user: str, token: str | None, pointer: str) -> None:
    """A page may name the user whose token it holds, and nobody else; a shop's server may name anybody.

    Raises:
        Refusal: 403.
    """
    if not caller.publishable:
        return
    now = time.time_ns() // 1000
    if token is None or not speaks_for(deployment.store.secret, token, user, now):
        raise Refusal(
            403,
            f"{pointer}: a publishable key may name a user with a token that was made for this user and still holds; "
            "have your server make one with POST /v1/users/{id}/token",
        )


async def _answered(deployment: Deployment, ask: Ask, user: str | None = None) -> bytes:
    answer, version, recommendation = await _asked(deployment, ask, user)
    deployment.metrics.answered(ask.kind, version.id, answer.fallback)
    personal = user is not None and bool(ask.history) and answer.fallback is None
    return answer_json(answer, version.id, recommendation, personal=personal, explain=ask.explain)


async def _impersonal(deployment: Deployment, ask: Ask) -> bytes:
    """For a user of whom nothing may be used: what is popular."""
    answer, version, recommendation = await _asked(deployment, ask, None)
    deployment.metrics.answered("user", version.id, "popularity")
    told = replace(answer, fallback="popularity")
    return answer_json(told, version.id, recommendation, personal=False, explain=ask.explain)


async def _asked(deployment: Deployment, ask: Ask, user: str | None) -> tuple[Answer, Version, str]:
    """Ask here where that is quick, and on another thread what is not: new expressions, noise and its account."""
    if ask.filter is not None or ask.boost is not None:
        await run_in_threadpool(_evaluate, deployment, ask)
    if deployment.config.answers.privacy == "noisy" and ask.kind != "popular":
        return await run_in_threadpool(_in_turn, deployment, ask, user)
    return deployment.ask(ask, user=user)


def _in_turn(deployment: Deployment, ask: Ask, user: str | None) -> tuple[Answer, Version, str]:
    """One at a time: some of numba's threading layers end the process where two threads score at once."""
    with _TURN:
        return deployment.ask(ask, user=user)


def _evaluate(deployment: Deployment, ask: Ask) -> None:
    """Have expressions evaluated over all items, and kept, off the event loop: the first time takes a while."""
    for served, _ in deployment.versions.all_loaded():
        index = deployment.live.index(served.items)
        if ask.filter is not None:
            index.result(ask.filter, "filter")
        if ask.boost is not None:
            index.result(ask.boost, "boost")


def _history(deployment: Deployment, user: str) -> list[tuple[str, ...]] | None:
    """Past baskets; None where nothing of this user may be used."""
    store = deployment.store
    return store.history(user) if store.may_store(user) else None


def _named(deployment: Deployment, caller: Caller, question: Options) -> Callable[[str], str]:
    """What makes an expression of what a caller sends as one: a name of the configuration, or the expression itself.

    Raises:
        Refusal: 422, k is larger than the deployment allows; 403, a publishable key names a client or, when the result
            is called, sends an expression of its own.
    """
    most, known = deployment.config.answers.max_k, deployment.config.expressions
    if question.k > most:
        raise wrong([("#/k", f"may be {most} at most in this deployment, got {question.k}")])
    if not caller.publishable:
        return lambda text: known.get(text, text)
    if question.client is not None:
        raise Refusal(403, "#/client: a publishable key may not ask as a client of the federation; leave it out")
    return lambda text: _by_name_alone(known, text)


def _by_name_alone(known: Mapping[str, str], text: str) -> str:
    if text not in known:
        raise Refusal(
            403,
            "a publishable key may use expressions by their names alone; name one of [expressions] in the deployment's "
            "settings",
        )
    return known[text]


def _refuse_baskets(deployment: Deployment, items: int) -> None:
    """Refuse a basket that is too large, and any where it is promised that none leaves the browser."""
    answers = deployment.config.answers
    if items > answers.max_basket:
        raise wrong([("#/items", f"may have {answers.max_basket:,} at most in this deployment, got {items:,}")])
    if items and answers.privacy == "browser":
        raise Refusal(409, "this deployment answers no baskets: the model is downloaded, and the basket stays there")
