"""Overview: what answers now and to which share, health, traffic, and what changed last; it follows by itself."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastapi import Request
from fastapi.routing import APIRouter
from starlette.concurrency import run_in_threadpool
from starlette.responses import HTMLResponse, PlainTextResponse, Response, StreamingResponse

from coterie.errors import CoterieError
from coterie.serving.dashboard.pages import HEADERS, Pages
from coterie.serving.dashboard.traffic import NO_TRAFFIC, traffic
from coterie.serving.security.access import Caller, caller_of
from coterie.serving.words import Change

if TYPE_CHECKING:
    from coterie.serving.deployment import Deployment
    from coterie.serving.served import ServedModel

EVERY = 1.0  # seconds between two looks
HEARTBEAT = 15.0  # seconds after which a silent stream says that it lives
LIFE = 600.0  # seconds after which a stream ends; browsers open another
MOST_STREAMS = 50
LAST = 12  # changes that are shown
_WORDS = {"item": "Items", "rollout": "The roll-out", "keys": "API keys", "consent": "Consent of a person"}


def add_to(routes: APIRouter, pages: Pages) -> None:
    """Add the page and its stream."""
    snapshot, streams = Snapshot(pages), asyncio.BoundedSemaphore(MOST_STREAMS)

    @routes.get("/dashboard/")
    def overview(request: Request) -> HTMLResponse:
        return pages.page(request, "overview.html.j2", **now(pages.deployment))

    @routes.get("/dashboard/live")
    async def live(request: Request) -> Response:
        caller = caller_of(pages.deployment, request.scope, "dashboard")
        if streams.locked():
            told = "Too many pages follow already; reload this one later.\n"
            return PlainTextResponse(told, 503, {**HEADERS, "Retry-After": "30"})
        await streams.acquire()
        headers = {**HEADERS, "X-Accel-Buffering": "no"}
        events = _events(snapshot, lambda: _holds(pages.deployment, caller))
        return StreamingResponse(_releasing(events, streams), headers=headers, media_type="text/event-stream")


class Snapshot:
    """The changing part of the page, rendered at most once in `EVERY` seconds however many follow it."""

    def __init__(self, pages: Pages) -> None:
        self._pages = pages
        self._lock = threading.Lock()
        self._at, self._content = float("-inf"), ""

    def content(self) -> str:
        """The page's changing part as HTML."""
        with self._lock:
            if time.monotonic() - self._at >= EVERY:
                self._content = self._pages.fragment("overview_now.html.j2", **now(self._pages.deployment))
                self._at = time.monotonic()
            return self._content


def now(deployment: Deployment) -> dict[str, Any]:
    """What the page shows."""
    answering, changes = list[dict[str, Any]](), list[dict[str, Any]]()
    trouble = deployment.not_ready() or ""
    if not trouble:
        try:
            answering = [_row(deployment, served, share) for served, share in deployment.versions.all_loaded()]
            changes = last_changes(deployment)
        except CoterieError as error:
            trouble = str(error)
    status = {"failed": None, "loading": None} if trouble else deployment.versions.status()
    figures = NO_TRAFFIC if trouble else traffic(deployment)
    return {"trouble": trouble, "answering": answering, "changes": changes, "status": status, "traffic": figures}


def last_changes(deployment: Deployment) -> list[dict[str, Any]]:
    """The last changes, the newest first; changes of the same kind in a row are one."""
    last = deployment.store.last_change()
    found: list[dict[str, Any]] = []
    for change in reversed(deployment.store.changes_since(max(0, last - 200)) or []):
        if found and found[-1]["kind"] == change.kind:
            found[-1]["count"] += 1
        elif len(found) < LAST:
            found.append(
                {"kind": change.kind, "what": _WORDS.get(change.kind, change.kind), "count": 1, "key": _named(change)}
            )
        else:
            break
        found[-1]["first"] = change.number
    return found


def _named(change: Change) -> str:
    """What changed, where it is no person."""
    return change.key if change.kind == "item" else ""


def _row(deployment: Deployment, served: ServedModel, share: float) -> dict[str, Any]:
    run = Path(served.version.run)
    listed = run.absolute().parent == deployment.run_folder.absolute()
    return {"version": served.version, "share": share, "name": run.name, "listed": listed}


async def _events(snapshot: Snapshot, holds: Callable[[], bool]) -> AsyncIterator[str]:
    """What has changed on the page, as server-sent events, while who follows may see it."""
    started, said, sent = time.monotonic(), time.monotonic(), ""
    yield "retry: 3000\n\n"
    while time.monotonic() - started < LIFE and not leaving() and holds():
        content = await run_in_threadpool(snapshot.content)
        if content != sent:
            yield f"event: overview\ndata: {json.dumps(content)}\n\n"
            sent, said = content, time.monotonic()
        elif time.monotonic() - said > HEARTBEAT:
            yield ": still here\n\n"
            said = time.monotonic()
        await asyncio.sleep(EVERY)


def _holds(deployment: Deployment, caller: Caller) -> bool:
    """Whether who opened the stream may still see it: keys are revoked, and open access ends."""
    if caller.key_id is None:
        return deployment.open_access
    return deployment.keys.holder(caller.key_id, time.time_ns() // 1000) is not None


def leaving() -> bool:
    """Whether the server that runs us was told to stop: it waits for streams to end, but has no way to tell them.

    While it runs, the handler of SIGTERM is a method of it.
    """
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return bool(getattr(server, "should_exit", False))


async def _releasing(events: AsyncIterator[str], streams: asyncio.BoundedSemaphore) -> AsyncIterator[str]:
    """The events; the place of the stream is free again however it ends."""
    try:
        async for event in events:
            yield event
    finally:
        streams.release()
