"""What stands before Flower's SuperLink: from the network a node can reach what nodes need, and nothing else.

    network    /v1/fleet/*       Flower's own API for nodes, each request signed with a registered key
               /coterie/v1/*     enrolment and roster, answered by the coordinator's daemon
    loopback   /v1/runtime/*     Flower's API for the pump, with its HMAC and its tokens
               /v1/control/*     who may connect and which app runs: with the secret of this start alone

Everything else is not found. A node's question whether there is a message is held until there is one (`HELD` seconds at
most), so that nobody waits for Flower's three seconds between two questions.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import hmac
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER

from coterie.engines.flower.asgi import Answer, App, Body, Event, Receive, Refused, Scope, Send, answer, header, refuse
from coterie.engines.flower.environment import CHUNK, SECRET_HEADER
from coterie.engines.flower.pace import Pace
from coterie.federation.frontdoor import ENROL, LEAVE, ROSTER

HELD = 10.0  # seconds; below what clients, proxies and address translation take for a dead connection
LONGEST_WAIT = 10.0  # seconds for which a request over the rate is made to wait before it is refused
SMALL = 1 << 20  # bytes of a request that carries no object
LOST = 8.0  # seconds after its held question broke off for a node to ask again, before it counts as gone
ASKED_EVERY = 0.5  # seconds after which the pump asks for answers though none is known to have come
QUIET = 0.03  # seconds without a push of the pump's after which its messages are complete

FLEET = {
    f"/v1/fleet/{one}": CHUNK + SMALL if one == "push-object" else SMALL
    for one in (
        "activate-node",
        "deactivate-node",
        "send-node-heartbeat",
        "pull-messages",
        "push-messages",
        "get-run",
        "get-fab",
        "pull-object",
        "push-object",
        "confirm-message-received",
    )
}
FRONT = {ENROL: "POST", LEAVE: "POST", ROSTER: "GET"}
_KEY = FLEET_HTTP_PUBLIC_KEY_HEADER.lower().encode()
_PUSHES = ("/v1/runtime/push-messages", "/v1/runtime/push-object")

Ask = Callable[[str, bytes], bytes]


class Presence(Protocol):
    """What the gate tells Flower of nodes; each call may take a moment."""

    def takeover(self, request: bytes) -> bool:
        """A request to connect was refused although its signature was right; true where it is worth another try.

        A process that was killed holds its seat until its heartbeat is a minute late: it is freed here.
        """

    def lost(self, key: bytes) -> None:
        """The holder of a key (PEM) is gone without a word."""

    def back(self, key: bytes) -> None:
        """Who was `lost` asks again."""


class Bell:
    """Tells who waits for something that is pushed, when it is worth asking again."""

    def __init__(self) -> None:
        self.rung = 0
        self._changed = asyncio.Event()
        self._busy = 0
        self._last = 0.0

    def ring(self) -> None:
        """Something changed: wake everybody who waits."""
        self.rung += 1
        self._changed.set()
        self._changed = asyncio.Event()

    @contextlib.asynccontextmanager
    async def pushing(self) -> AsyncIterator[None]:
        """A push is under way; it rings when nothing was pushed for a moment after it."""
        self._busy += 1
        try:
            yield
        finally:
            self._busy -= 1
            self._last = time.monotonic()
            asyncio.get_running_loop().call_later(QUIET, self._settled)

    async def quiet(self) -> None:
        """Wait until no push is under way: a message is asked for when all its objects are there."""
        while self._busy or time.monotonic() - self._last < QUIET:
            await asyncio.sleep(QUIET / 2)

    async def wait(self, seconds: float, gone: asyncio.Task[Event] | None = None) -> None:
        """Wait until it rings, or for `seconds`, or until whoever asked is `gone`."""
        rung = asyncio.ensure_future(self._changed.wait())
        waited: set[asyncio.Future[Any]] = {rung} if gone is None else {rung, gone}
        try:
            await asyncio.wait(waited, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        finally:
            rung.cancel()

    def _settled(self) -> None:
        if not self._busy and time.monotonic() - self._last >= QUIET * 0.9:
            self.ring()


@dataclass(frozen=True)
class Bells:
    """One for messages, which the pump pushes, and one for answers, which nodes push."""

    messages: Bell = field(default_factory=Bell)
    answers: Bell = field(default_factory=Bell)


@dataclass
class NetworkGate:
    """The app that the network reaches: `app` is Flower's, `ask` passes requests to the coordinator's daemon.

    `message_bytes` is what a node may send as one message.
    """

    app: App
    ask: Ask
    presence: Presence
    bells: Bells
    pace: Pace
    message_bytes: int
    _sent: dict[bytes, int] = field(default_factory=dict)  # bytes of the message that a key is sending
    _asked: dict[bytes, float] = field(default_factory=dict)  # when a key asked last
    _lost: set[bytes] = field(default_factory=set)
    _handed: set[bytes] = field(default_factory=set)  # keys that were given a message, and have not fetched it yet
    _watches: set[asyncio.Task[None]] = field(default_factory=set)
    _closing: bool = False

    def close(self) -> None:
        """Hold no question any more: nodes are told to ask again later, which they do by themselves."""
        self._closing = True
        self.bells.messages.ring()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it with a sentence."""
        if scope["type"] != "http":
            return
        try:
            await self._paced(scope)
            await self._route(scope, receive, send)
        except Refused as refused:
            await refuse(send, refused)

    async def _paced(self, scope: Scope) -> None:
        address = scope["client"][0] if scope.get("client") else ""
        if (wait := self.pace.delay(address)) > LONGEST_WAIT:
            self.pace.give_back(address)
            raise Refused(429, "too many requests from this address; wait a minute, or ask the coordinator for more")
        if wait:
            await asyncio.sleep(wait)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        if FRONT.get(path) == method:
            body = await Body.read(scope, receive, SMALL)
            await answer(send, 200, await asyncio.to_thread(self.ask, path, body.content))
        elif path in FLEET and method == "POST":
            body = await Body.read(scope, receive, FLEET[path])
            try:
                await self._fleet(scope, body, send)
            finally:
                body.forget()
        else:
            raise Refused(404, "there is nothing here")

    async def _fleet(self, scope: Scope, body: Body, send: Send) -> None:
        if scope["path"].endswith("/pull-messages"):
            await self._held(scope, body, send)
            return
        if not scope["path"].endswith("/send-node-heartbeat"):
            self._handed.discard(header(scope, _KEY) or b"")
        if scope["path"].endswith("/activate-node"):
            await self._activate(scope, body, send)
        elif "/push-" in scope["path"]:
            await self._pushed(scope, body, send)
        else:
            await self.app(scope, body.replay(), send)

    async def _pushed(self, scope: Scope, body: Body, send: Send) -> None:
        """Count what a key sends from one announcement of a message to the next; what Flower refuses does not count."""
        key, size = header(scope, _KEY) or b"", len(body.content)
        announced = scope["path"].endswith("/push-messages")
        if not announced:
            if self._sent.get(key, 0) + size > self.message_bytes:
                raise Refused(
                    413, f"a message may have {self.message_bytes} bytes here; send less, or ask the coordinator"
                )
            self._sent[key] = self._sent.get(key, 0) + size  # at once: several are on their way at the same time
        async with self.bells.answers.pushing():
            found = await self._tried(scope, body)
        if announced and found.status == 200:
            self._sent[key] = size
        elif not announced and found.status != 200:
            self._uncount(key, size)
        await found.pass_on(send)

    def _uncount(self, key: bytes, size: int) -> None:
        self._sent[key] = self._sent.get(key, 0) - size
        if self._sent[key] <= 0:
            del self._sent[key]

    async def _held(self, scope: Scope, body: Body, send: Send) -> None:
        """Ask until there is a message; Flower checks the signature each time, so a revoked node is let go."""
        until, key = time.monotonic() + HELD, header(scope, _KEY) or b""
        while True:
            await self.bells.messages.quiet()
            if self._closing:
                raise Refused(503, "the coordinator is stopping; ask again when it is back")
            if body.gone().done():  # a message that nobody takes any more would be lost
                self._watch(key)
                return
            found = await self._tried(scope, body)
            if found.status == 200:
                await self._seen(key)
                if found.body and body.gone().done():
                    await self._gone(key)  # the message is lost with who asked: when it is back it counts as new
                elif found.body:
                    self._handed.add(key)
            left = until - time.monotonic()
            if found.status != 200 or found.body or left <= 0:
                await found.pass_on(send)
                return
            await self.bells.messages.wait(left, body.gone())

    async def _seen(self, key: bytes) -> None:
        self._asked[key] = time.monotonic()
        if key in self._handed:  # it asks for a message instead of fetching the one it was given: that never arrived
            self._handed.discard(key)
            await self._gone(key)
        if key in self._lost:
            self._lost.discard(key)
            await asyncio.to_thread(self.presence.back, base64.b64decode(key))

    async def _gone(self, key: bytes) -> None:
        self._lost.add(key)
        await asyncio.to_thread(self.presence.lost, base64.b64decode(key))

    def _watch(self, key: bytes) -> None:
        """See whether a node that broke off asks again; only one whose signature was right has asked at all."""
        if (asked := self._asked.get(key)) is not None:
            task = asyncio.create_task(self._expect(key, asked))
            self._watches.add(task)
            task.add_done_callback(self._watches.discard)

    async def _expect(self, key: bytes, asked: float) -> None:
        await asyncio.sleep(LOST)
        if self._asked.get(key) == asked:
            await self._gone(key)

    async def _activate(self, scope: Scope, body: Body, send: Send) -> None:
        found = await self._tried(scope, body)
        if found.status not in (200, 401) and await asyncio.to_thread(self.presence.takeover, body.content):
            found = await self._tried(scope, body)
        await found.pass_on(send)

    async def _tried(self, scope: Scope, body: Body) -> Answer:
        found = Answer()
        await self.app(dict(scope), body.replay(), found.keep)
        return found


@dataclass
class LocalGate:
    """The app that this machine reaches: Flower's runtime, and with the secret its control."""

    app: App
    secret: bytes
    bells: Bells
    _answered: int = 0  # rings of answers that the pump has heard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        path = scope.get("path", "")
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif path in _PUSHES:
            async with self.bells.messages.pushing():
                await self.app(scope, receive, send)
        elif path.startswith("/v1/runtime/"):
            if path.endswith("/pull-messages"):
                await self._answers()
            await self.app(scope, receive, send)
        elif path.startswith("/v1/control/") and self._knows(scope):
            await self.app(scope, receive, send)
            if path.endswith("/unregister-node"):
                self.bells.messages.ring()
        elif scope["type"] == "http":
            await refuse(send, Refused(404, "there is nothing here"))

    async def _answers(self) -> None:
        """Let the pump, which asks all the time, wait a moment where nothing has come since it asked last."""
        if self.bells.answers.rung == self._answered:
            await self.bells.answers.wait(ASKED_EVERY)
        self._answered = self.bells.answers.rung

    def _knows(self, scope: Scope) -> bool:
        return hmac.compare_digest(header(scope, SECRET_HEADER.encode()) or b"", self.secret)
