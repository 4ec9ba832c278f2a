"""Playground: search, fill a cart, and see what is suggested and why. It is a plain form; a script makes it quicker."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from coterie.errors import CoterieError, UsageError
from coterie.serving.dashboard.pages import HEADERS, Pages, first, form
from coterie.serving.dashboard.searching import Search
from coterie.serving.words import Answer, Ask, BasketLine, Item, Reason

Fields = Annotated[dict[str, list[str]], Depends(form)]
MOST_IN_CART, MOST_SUGGESTIONS, MOST_REASONS = 100, 50, 4


@dataclass(frozen=True)
class Wish:
    """What the form asks for."""

    cart: tuple[str, ...] = ()
    query: str = ""
    k: int = 10
    diversity: float = 0.0
    in_stock: bool = True


def add_to(routes: APIRouter, pages: Pages) -> None:
    """Add the page, the search and the suggestions."""
    deployment = pages.deployment
    search = Search(deployment.live)

    def view(wish: Wish) -> dict[str, Any]:
        hits = search.find(deployment.versions.current(), wish.query)
        return {"wish": wish, "cart": [_item(pages, id) for id in wish.cart], "hits": hits, **suggested(pages, wish)}

    @routes.get("/dashboard/playground")
    def playground(request: Request) -> HTMLResponse:
        return pages.page(request, "playground.html.j2", **view(Wish()))

    @routes.post("/dashboard/playground")
    def changed(request: Request, fields: Fields) -> HTMLResponse:
        return pages.page(request, "playground.html.j2", **view(wish_of(fields)))

    @routes.get("/dashboard/search")
    def hits(q: str = "") -> Response:
        found = search.find(deployment.versions.current(), q)
        return JSONResponse([_hit(item) for item in found], headers=HEADERS)

    @routes.post("/dashboard/suggest")
    async def suggest(request: Request) -> Response:
        wish = wish_of(_as_fields(await request.body()))
        return HTMLResponse(pages.fragment("suggestions.html.j2", wish=wish, **suggested(pages, wish)), headers=HEADERS)


def wish_of(fields: Mapping[str, Sequence[str]]) -> Wish:
    """The wish of a form: its cart, with one item added or taken away, and the options."""
    plain = {name: list(values) for name, values in fields.items()}
    gone = set(plain.get("remove", []))
    cart = tuple(dict.fromkeys(id for id in [*plain.get("item", []), *plain.get("add", [])] if id and id not in gone))
    if len(cart) > MOST_IN_CART:
        raise UsageError(f"a cart of {MOST_IN_CART} items at most can be tried here, got {len(cart)}")
    k, diversity = _number(first(plain, "k"), 10.0), _number(first(plain, "diversity"), 0.0)
    return Wish(
        () if "empty" in plain else cart,
        "" if "add" in plain else first(plain, "q"),
        min(max(int(k), 1), MOST_SUGGESTIONS),
        min(max(diversity, 0.0), 1.0),
        in_stock="anything" not in plain,
    )


def suggested(pages: Pages, wish: Wish) -> dict[str, Any]:
    """What is suggested for the cart, with reasons; or why nothing can be."""
    k = min(wish.k, pages.deployment.config.answers.max_k)
    basket = tuple(BasketLine(id) for id in wish.cart)
    ask = Ask("basket", basket, k=k, in_stock=wish.in_stock, diversity=wish.diversity, explain=True)
    try:
        answer, version, _ = pages.deployment.ask(ask)
    except CoterieError as error:
        return {"answer": None, "trouble": str(error), "version": None, "why": []}
    return {"answer": answer, "trouble": "", "version": version, "why": _why(pages, answer)}


def _why(pages: Pages, answer: Answer) -> list[list[dict[str, Any]]]:
    """The reasons of each suggestion in words, the terms of one item of the cart added up, the largest first."""
    return [_reasons(pages, one.because) for one in answer.suggestions]


def _reasons(pages: Pages, because: Sequence[Reason]) -> list[dict[str, Any]]:
    shares: dict[tuple[str, str | None], float] = {}
    terms: dict[tuple[str, str | None], list[str]] = {}
    for reason in because:
        key = ("", reason.item) if reason.item is not None else (reason.term, None)
        shares[key] = shares.get(key, 0.0) + reason.share
        terms.setdefault(key, []).append(reason.term)
    largest = sorted(shares.items(), key=lambda one: -one[1])[:MOST_REASONS]
    return [
        {
            "name": term if item is None else title_of(pages, item),
            "share": share,
            "terms": ", ".join(dict.fromkeys(terms[term, item])) if item else "",
        }
        for (term, item), share in largest
        if share >= 0.005
    ]


def title_of(pages: Pages, id: str) -> str:
    """What people call an item."""
    return _item(pages, id).title or id


def _item(pages: Pages, id: str) -> Item:
    """The item as the shop describes it, else as the model knows it."""
    if (found := pages.deployment.live.get(id)) is not None and found.title:
        return found
    served = pages.deployment.versions.current()
    at = served.items.places.get(id)
    return Item(id) if at is None else pages.deployment.live.index(served.items).record[at]


def _hit(item: Item) -> dict[str, Any]:
    return {"id": item.id, "title": item.title or item.id, "gone": item.stock == 0}


def _as_fields(body: bytes) -> dict[str, list[str]]:
    """The JSON that the page's script sends, as the fields that the form sends."""
    try:
        found = json.loads(body)
        fields = {str(name): [str(one) for one in values] for name, values in found.items()}
    except (ValueError, AttributeError, TypeError, RecursionError) as error:
        raise UsageError(f"the cart must be a JSON object of lists ({error}); reload the page") from None
    return fields


def _number(text: str, default: float) -> float:
    try:
        value = float(text) if text else default
    except ValueError:
        return default
    return value if math.isfinite(value) else default
