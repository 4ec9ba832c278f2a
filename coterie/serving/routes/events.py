"""POST /v1/events: what happened in the shop. What is answered with 200 is on disk."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import Discriminator, Tag, TypeAdapter
from starlette.requests import Request
from starlette.responses import Response

from coterie.serving import examples
from coterie.serving.conversion import EPOCH, event_of
from coterie.serving.deployment import Deployment
from coterie.serving.openapi import gives, operation, takes
from coterie.serving.problems import wrong
from coterie.serving.routes.bodies import Direct, read_either, told, within
from coterie.serving.routes.recommend import may_speak_for
from coterie.serving.schemas import EventIn, EventsDone, EventsIn
from coterie.serving.security.access import Caller, caller_of
from coterie.serving.words import Event

AHEAD = timedelta(days=1)  # how far another's clock, or its time zone, may be ahead of ours


def _form(received: Any) -> str:
    return "batch" if isinstance(received, dict) and "events" in received else "event"


SENT: TypeAdapter[EventsIn | EventIn] = TypeAdapter(
    Annotated[Annotated[EventsIn, Tag("batch")] | Annotated[EventIn, Tag("event")], Discriminator(_form)]
)
ABOUT = (
    "One event, or a batch. `eventId` makes it idempotent: what was stored before is counted in `duplicates`, so that "
    "a batch may be sent again. Events of users who have objected, or have not agreed where that is asked for, are "
    "counted in `declined` and not kept. An impression whose items say no position was shown in the order of the list. "
    "With a publishable key, `user` needs `userToken`, and its ids are told apart from those of other keys. Times lie "
    "between 1970 and tomorrow."
)


def router(deployment: Deployment) -> APIRouter:
    """The route of one deployment."""
    routes = APIRouter(prefix="/v1/events", tags=["events"], default_response_class=Response, route_class=Direct)

    @routes.post(
        "",
        **operation(
            "Tell what happened",
            scope="events",
            body=takes(examples.EVENT, EventsIn, EventIn),
            answers={200: gives("What became of them; what is stored is on disk.", examples.EVENTS_DONE, EventsDone)},
            about=ABOUT,
        ),
    )
    async def events(request: Request) -> Response:
        caller = caller_of(deployment, request.scope, "events")
        sent = await read_either(request, SENT)
        batch, place = (sent.events, "#/events/{}") if isinstance(sent, EventsIn) else ([sent], "#")
        within(len(batch), deployment.config.access.batch, "events")
        _check_times(batch, place)
        for at, one in enumerate(batch):
            if one.user is not None:
                pointer = f"{place.format(at)}/userToken"
                may_speak_for(deployment, caller, one.user, one.user_token, pointer)
        happened, began = [_by(caller, event_of(one)) for one in batch], time.perf_counter()
        receipt = await asyncio.wrap_future(deployment.store.write_events(happened))
        deployment.metrics.written("events", time.perf_counter() - began)
        deployment.metrics.events(happened, receipt)
        return told(EventsDone(stored=receipt.stored, duplicates=receipt.duplicates, declined=receipt.declined))

    return routes


def _by(caller: Caller, event: Event) -> Event:
    """The event under an id that pages cannot take from the shop's own: of a publishable key, it begins with its id."""
    return replace(event, id=f"{caller.key_id}/{event.id}") if caller.publishable else event


def _check_times(batch: Sequence[EventIn], place: str) -> None:
    """Refuse what lies in the future: it would never be old enough to be deleted, and come last in every history."""
    latest = datetime.now(UTC) + AHEAD
    faults = [
        (f"{place.format(at)}/time", "should lie between 1970 and tomorrow, by this server's clock")
        for at, one in enumerate(batch)
        if not EPOCH <= one.time <= latest
    ]
    if faults:
        raise wrong(faults)
