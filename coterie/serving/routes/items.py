"""/v1/items: what the shop says of its items. A write is durable, and heeded by answers, when it is answered."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Path, Query
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response

from coterie.serving import examples
from coterie.serving.conversion import item_of, item_out, patch_of
from coterie.serving.deployment import Deployment
from coterie.serving.openapi import gives, operation, takes
from coterie.serving.problems import Refusal
from coterie.serving.routes.bodies import read, told, within
from coterie.serving.schemas import Id, ItemFields, ItemOut, ItemsDone, ItemsIn, ItemsPage
from coterie.serving.security.access import require
from coterie.serving.words import Item

T = TypeVar("T")
ItemId = Annotated[Id, Path(description="The item's id; `/` in it may be written as %2F or as it is.")]
ITEM = {200: gives("The item as it is now.", examples.ITEM, ItemOut)}
UNKNOWN = "there is no item with this id; put it first"


def router(deployment: Deployment) -> APIRouter:
    """The routes of one deployment."""
    routes = APIRouter(
        prefix="/v1/items",
        tags=["items"],
        dependencies=[Depends(require(deployment, "items"))],
        default_response_class=Response,
    )

    @routes.put(
        "/{id:path}",
        **operation(
            "Put an item",
            scope="items",
            body=takes(examples.PUT_ITEM, ItemFields),
            answers=ITEM,
            about="Replaces whatever was said of it before; what is left out is not known any more.",
        ),
    )
    async def put(id: ItemId, request: Request) -> Response:
        item = item_of(id, await read(request, ItemFields), _now())
        await _written(deployment, [id], lambda: deployment.store.put_items([item]))
        return told(_shown(deployment, item))

    @routes.patch(
        "/{id:path}",
        **operation(
            "Change an item",
            scope="items",
            body=takes(examples.PATCH_ITEM, ItemFields),
            answers=ITEM,
            refusals=(404,),
            about="Fields that are left out stay; null clears one. `attributes` are replaced as a whole.",
        ),
    )
    async def patch(id: ItemId, request: Request) -> Response:
        changes = {id: patch_of(await read(request, ItemFields))}
        missing = await _written(deployment, [id], lambda: deployment.store.patch_items(changes))
        item = None if missing else await run_in_threadpool(deployment.store.item, id)
        if item is None:
            raise Refusal(404, UNKNOWN)
        return told(_shown(deployment, item))

    @routes.delete(
        "/{id:path}",
        status_code=204,
        **operation(
            "Delete an item",
            scope="items",
            answers={204: {"description": "It is not there, and is not suggested."}},
            about="It is not suggested any more, even where a model knows it. Doing so again changes nothing.",
        ),
    )
    async def delete(id: ItemId) -> Response:
        await _written(deployment, [id], lambda: _changed(deployment, [], {}, [id]))
        return Response(status_code=204)

    @routes.get("/{id:path}", **operation("An item", scope="items", answers=ITEM, refusals=(404,)))
    async def get(id: ItemId) -> Response:
        item = await run_in_threadpool(deployment.store.item, id)
        if item is None:
            raise Refusal(404, UNKNOWN)
        return told(_shown(deployment, item))

    _whole(routes, deployment)
    return routes


def _whole(routes: APIRouter, deployment: Deployment) -> None:
    """The routes of the collection."""

    @routes.get(
        "",
        **operation(
            "Items, page by page",
            scope="items",
            answers={200: gives("Items in the order of their ids.", examples.ITEMS, ItemsPage)},
        ),
    )
    async def listed(
        after: Annotated[Id | None, Query(description="Items whose ids come after this one.")] = None,
        limit: Annotated[int, Query(ge=1, le=1000, description="How many.")] = 100,
    ) -> Response:
        return told(await run_in_threadpool(_page, deployment, after, limit))

    @routes.post(
        "",
        **operation(
            "Put, change and delete many items",
            scope="items",
            body=takes(examples.ITEMS_IN, ItemsIn),
            answers={200: gives("All of it was done.", examples.ITEMS_DONE, ItemsDone)},
            about="In one transaction: first what is put, then what is changed, then what is deleted. Of an id that is "
            "there twice in one of them the last counts. What is changed or deleted without being there is reported.",
        ),
    )
    async def bulk(request: Request) -> Response:
        many = await read(request, ItemsIn)
        within(len(many.put) + len(many.patch) + len(many.delete), deployment.config.access.batch, "items")
        now = _now()
        put = [item_of(one.id, one, now) for one in many.put]
        changed = {one.id: patch_of(one) for one in many.patch}
        ids = dict.fromkeys([*(item.id for item in put), *changed, *many.delete])
        return told(await _written(deployment, ids, lambda: _changed(deployment, put, changed, many.delete)))


async def _written(deployment: Deployment, ids: Iterable[str], write: Callable[[], T]) -> T:
    """Write, and return what that returns when it is durable and this process's answers heed it."""

    def work() -> T:
        began = time.perf_counter()
        result = write()
        deployment.metrics.written("items", time.perf_counter() - began)
        deployment.items_changed(ids)
        return result

    return await run_in_threadpool(work)


def _changed(
    deployment: Deployment, put: Sequence[Item], patch: Mapping[str, Mapping[str, Any]], delete: Sequence[str]
) -> ItemsDone:
    """Put, patch and delete in one transaction.

    An item that a served model knows and the shop never put can be deleted, too: it is written down, and deleted.
    """
    models = [served.items.places for served, _ in deployment.versions.all_loaded()]
    known = [id for id in dict.fromkeys(delete) if any(id in places for places in models)]
    here = deployment.store.some_items(known).keys() | {item.id for item in put} if known else set()
    unsaid = [Item(id) for id in known if id not in here and id not in patch]
    done = deployment.store.change_items([*put, *unsaid], patch, delete)
    return ItemsDone(put=done.put - len(unsaid), patched=done.patched, deleted=done.deleted, missing=list(done.missing))


def _page(deployment: Deployment, after: str | None, limit: int) -> ItemsPage:
    found = deployment.store.items(after, limit + 1)
    page = found[:limit]
    following = page[-1].id if len(found) > limit else None
    return ItemsPage(items=[_shown(deployment, item) for item in page], next=following)


def _shown(deployment: Deployment, item: Item) -> ItemOut:
    return item_out(item, in_model=item.id in deployment.versions.current().items.places)


def _now() -> int:
    return time.time_ns() // 1000
