"""The few things that our gates do with ASGI: read a body up to a limit, answer in a sentence, look at an answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

Scope: TypeAlias = MutableMapping[str, Any]
Event: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Event]]
Send: TypeAlias = Callable[[Event], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]

ARRIVES_WITHIN = 300.0  # seconds for a request to arrive: a chunk over a line of 128 kbit/s


class Refused(Exception):
    """A request that is answered with a status and a sentence instead."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


@dataclass
class Answer:
    """An answer that is kept until somebody decides what becomes of it."""

    status: int = 500
    events: list[Event] = field(default_factory=list)

    async def keep(self, event: Event) -> None:
        """An ASGI `send` that sends nothing yet."""
        if event["type"] == "http.response.start":
            self.status = event["status"]
        self.events.append(event)

    @property
    def body(self) -> bytes:
        return b"".join(event.get("body", b"") for event in self.events)

    async def pass_on(self, send: Send) -> None:
        for event in self.events:
            await send(event)


class Body:
    """A request's body, read whole; an app can be given it as often as it takes."""

    def __init__(self, content: bytes, receive: Receive) -> None:
        self.content = content
        self._receive = receive
        self._gone: asyncio.Task[Event] | None = None

    @classmethod
    async def read(cls, scope: Scope, receive: Receive, limit: int) -> Body:
        """Read it.

        Raises:
            Refused: it is longer than `limit` bytes (413), takes too long (408), or broke off (400).
        """
        told = header(scope, b"content-length")
        if told is not None and (not told.isdigit() or int(told) > limit):
            raise _too_long(limit)
        try:
            async with asyncio.timeout(ARRIVES_WITHIN):
                return cls(await _content(receive, limit), receive)
        except TimeoutError:
            raise Refused(408, f"the request has not arrived within {ARRIVES_WITHIN:g} s; send less at once") from None

    def replay(self) -> Receive:
        """An ASGI `receive` that gives the whole body, and then waits until whoever asked is gone."""
        given = False

        async def receive() -> Event:
            nonlocal given
            if given:
                return await asyncio.shield(self.gone())
            given = True
            return {"type": "http.request", "body": self.content, "more_body": False}

        return receive

    def gone(self) -> asyncio.Task[Event]:
        """Done when whoever asked waits no more."""
        if self._gone is None:
            self._gone = asyncio.ensure_future(self._disconnected())
        return self._gone

    def forget(self) -> None:
        """Wait for nobody to leave any more."""
        if self._gone is not None:
            self._gone.cancel()

    async def _disconnected(self) -> Event:
        while (event := await self._receive())["type"] != "http.disconnect":
            pass
        return event


def header(scope: Scope, name: bytes) -> bytes | None:
    """The first header of that name (in lower case), or None."""
    return next((value for key, value in scope["headers"] if key == name), None)


async def answer(send: Send, status: int, content: bytes, kind: str = "application/octet-stream") -> None:
    """Send a whole answer."""
    headers = [(b"content-type", kind.encode()), (b"content-length", str(len(content)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})


async def refuse(send: Send, refused: Refused) -> None:
    """Answer with a status and a sentence, as JSON."""
    await answer(send, refused.status, json.dumps({"detail": str(refused)}).encode(), "application/json")


async def _content(receive: Receive, limit: int) -> bytes:
    parts, size = [], 0
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise Refused(400, "the request broke off")
        parts.append(event.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise _too_long(limit)
        if not event.get("more_body", False):
            return b"".join(parts)


def _too_long(limit: int) -> Refused:
    return Refused(413, f"a request here may have {limit} bytes; send less at once")
