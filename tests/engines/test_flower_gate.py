"""The gates, before an app of the test's instead of Flower's: limits, what is held, and who is gone."""

import asyncio
import base64
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

pytest.importorskip("flwr", reason="needs the extra 'flower'")

from coterie.engines.flower import asgi
from coterie.engines.flower import gate as module
from coterie.engines.flower.asgi import Receive, Refused, Scope, Send, answer
from coterie.engines.flower.environment import SECRET_HEADER
from coterie.engines.flower.gate import Bells, LocalGate, NetworkGate
from coterie.engines.flower.pace import Pace
from coterie.federation.frontdoor import ENROL

PULL, PUSH, OBJECT = "/v1/fleet/pull-messages", "/v1/fleet/push-messages", "/v1/fleet/push-object"
KEY = base64.b64encode(b"a key").decode()


@dataclass
class Flower:
    """Stands in for Flower's app: answers with what it is told to, and remembers what it was asked."""

    answers: dict[str, list[tuple[int, bytes]]] = field(default_factory=dict)
    asked: list[tuple[str, bytes]] = field(default_factory=list)
    takes: float = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = (await receive())["body"]
        self.asked.append((scope["path"], body))
        await asyncio.sleep(self.takes)
        waiting = self.answers.get(scope["path"], [(200, b"")])
        status, content = waiting.pop(0) if len(waiting) > 1 else waiting[0]
        await answer(send, status, content)


@dataclass
class Watched:
    """What the gate tells of nodes."""

    told: list[tuple[str, bytes]] = field(default_factory=list)
    freed: bool = False

    def takeover(self, request: bytes) -> bool:
        self.told.append(("takeover", request))
        return self.freed

    def lost(self, key: bytes) -> None:
        self.told.append(("lost", key))

    def back(self, key: bytes) -> None:
        self.told.append(("back", key))


@dataclass
class Gates:
    flower: Flower = field(default_factory=Flower)
    presence: Watched = field(default_factory=Watched)
    bells: Bells = field(default_factory=Bells)
    per_minute: int = 1000
    message_bytes: int = 1000

    def __post_init__(self) -> None:
        pace = Pace(self.per_minute)
        self.network = NetworkGate(self.flower, self.ask, self.presence, self.bells, pace, self.message_bytes)
        self.local = LocalGate(self.flower, b"secret", self.bells)

    def ask(self, path: str, body: bytes) -> bytes:
        if body == b"no":
            raise Refused(400, "the invitation has expired")
        return path.encode() + body


async def request(
    app: Callable[[Scope, Receive, Send], Awaitable[None]],
    path: str,
    body: bytes = b"",
    *,
    method: str = "POST",
    headers: dict[str, str] | None = None,
    leaves_after: float | None = None,
    parts: int = 1,
) -> tuple[int, bytes] | None:
    """Status and body of the answer; None where there was none."""
    given = {"flwr-public-key": KEY, "flower-public-key": KEY, **(headers or {})}
    scope = {
        "type": "http",
        "path": path,
        "method": method,
        "client": ("10.0.0.1", 1),
        "headers": [(name.encode(), value.encode()) for name, value in {module._KEY.decode(): KEY, **given}.items()],
    }
    size = -(-len(body) // parts) or 1
    waiting = [body[start : start + size] for start in range(0, max(len(body), 1), size)]
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        if waiting:
            part = waiting.pop(0)
            return {"type": "http.request", "body": part, "more_body": bool(waiting)}
        await asyncio.sleep(1000 if leaves_after is None else leaves_after)
        return {"type": "http.disconnect"}

    async def send(event: Any) -> None:
        sent.append(event)

    await app(scope, receive, send)
    if not sent:
        return None
    return sent[0]["status"], b"".join(event.get("body", b"") for event in sent)


def refused(found: tuple[int, bytes] | None) -> tuple[int, str]:
    assert found is not None
    return found[0], json.loads(found[1])["detail"]


def test_bodies_have_a_limit_whether_or_not_they_say_how_long_they_are() -> None:
    async def run() -> None:
        gates = Gates()
        told = await request(gates.network, PULL, b"x", headers={"content-length": "2000000"})
        assert refused(told) == (413, f"a request here may have {module.SMALL} bytes; send less at once")
        assert refused(await request(gates.network, PULL, bytes(module.SMALL + 1), parts=5))[0] == 413
        assert refused(await request(gates.network, PULL, b"x", headers={"content-length": "-1"}))[0] == 413
        assert gates.flower.asked == []

    asyncio.run(run())


def test_a_body_that_does_not_arrive_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(_: Any) -> None:
        raise AssertionError

    async def silent() -> dict[str, Any]:
        await asyncio.sleep(1000)
        return {}

    async def run() -> None:
        sent: list[Any] = []

        async def send(event: Any) -> None:
            sent.append(event)

        scope = {"type": "http", "path": ENROL, "method": "POST", "client": None, "headers": []}
        await Gates().network(scope, silent, send)
        assert sent[0]["status"] == 408

    monkeypatch.setattr(asgi, "ARRIVES_WITHIN", 0.05)
    asyncio.run(run())


def test_a_message_has_a_limit_over_all_its_objects() -> None:
    async def run() -> None:
        gates = Gates(message_bytes=1000)
        assert await request(gates.network, PUSH, bytes(100)) == (200, b"")
        found = await asyncio.gather(*(request(gates.network, OBJECT, bytes(400)) for _ in range(4)))
        assert sorted(one[0] for one in found if one) == [200, 200, 413, 413]
        assert await request(gates.network, PUSH, bytes(100)) == (200, b"")
        assert await request(gates.network, OBJECT, bytes(400)) == (200, b"")

    asyncio.run(run())


def test_what_flower_refuses_does_not_count() -> None:
    async def run() -> None:
        gates = Gates(Flower({OBJECT: [(401, b"{}")]}), message_bytes=1000)
        for _ in range(5):
            assert await request(gates.network, OBJECT, bytes(900)) == (401, b"{}")
        gates.flower.answers.clear()
        assert await request(gates.network, OBJECT, bytes(900)) == (200, b"")

    asyncio.run(run())


def test_an_address_that_asks_too_often_waits_and_is_then_refused() -> None:
    clock = [0.0]
    pace = Pace(60, lambda: clock[0])
    assert [pace.delay("a") for _ in range(60)] == [0.0] * 60
    assert pace.delay("a") == pytest.approx(1.0)
    assert pace.delay("a") == pytest.approx(2.0)
    assert pace.delay("b") == 0.0
    clock[0] += 62.0
    assert pace.delay("a") == 0.0

    async def run() -> None:
        gates = Gates(per_minute=60)
        gates.network.pace = Pace(60, lambda: clock[0])
        for _ in range(70):
            gates.network.pace.delay("10.0.0.1")
        told = refused(await request(gates.network, PUSH))
        assert told == (429, "too many requests from this address; wait a minute, or ask the coordinator for more")
        clock[0] += 11.0
        assert await request(gates.network, PUSH) == (200, b"")

    asyncio.run(run())


def test_pace_forgets_whom_it_need_not_remember() -> None:
    clock = [0.0]
    pace = Pace(60, lambda: clock[0])
    for number in range(20_000):
        clock[0] += 1.0
        pace.delay(str(number))
    assert len(pace._spent) < 10_002


def test_a_question_is_held_until_there_is_a_message() -> None:
    async def run() -> None:
        gates = Gates(Flower({PULL: [(200, b""), (200, b"a message")]}))
        begun = time.monotonic()
        question = asyncio.create_task(request(gates.network, PULL))
        await asyncio.sleep(0.2)
        assert not question.done()
        await request(gates.local, "/v1/runtime/push-object", b"object")
        assert await question == (200, b"a message")
        assert time.monotonic() - begun < 2
        assert [path for path, _ in gates.flower.asked] == [PULL, "/v1/runtime/push-object", PULL]

    asyncio.run(run())


def test_a_question_waits_until_all_objects_are_pushed() -> None:
    async def run() -> None:
        gates = Gates(Flower({PULL: [(200, b"a message")]}, takes=0.2))
        pushed = asyncio.create_task(request(gates.local, "/v1/runtime/push-object", b"object"))
        await asyncio.sleep(0.05)
        question = asyncio.create_task(request(gates.network, PULL))
        await pushed
        assert gates.flower.asked == [("/v1/runtime/push-object", b"object")]
        assert await question == (200, b"a message")

    asyncio.run(run())


def test_a_question_is_answered_in_time_even_if_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "HELD", 0.2)
    assert asyncio.run(request(Gates().network, PULL)) == (200, b"")


def test_a_refusal_is_not_held() -> None:
    assert asyncio.run(request(Gates(Flower({PULL: [(401, b"")]})).network, PULL)) == (401, b"")


def test_a_revoked_node_is_let_go_at_once() -> None:
    async def run() -> None:
        gates = Gates(Flower({PULL: [(200, b""), (401, b"no")]}))
        question = asyncio.create_task(request(gates.network, PULL))
        await asyncio.sleep(0.1)
        await request(gates.local, "/v1/control/unregister-node", headers={SECRET_HEADER: "secret"})
        assert await asyncio.wait_for(question, 2) == (401, b"no")

    asyncio.run(run())


def test_nobody_waits_for_a_coordinator_that_stops() -> None:
    """A status after which a SuperNode asks again; it ends at any other."""

    async def run() -> None:
        gates = Gates()
        question = asyncio.create_task(request(gates.network, PULL))
        await asyncio.sleep(0.1)
        gates.network.close()
        assert refused(await asyncio.wait_for(question, 2))[0] == 503
        assert refused(await asyncio.wait_for(request(gates.network, PULL), 2))[0] == 503

    asyncio.run(run())


def test_nobody_is_given_a_message_who_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOST", 0.2)

    async def run() -> None:
        gates = Gates(Flower({PULL: [(200, b""), (200, b"a message")]}))
        question = asyncio.create_task(request(gates.network, PULL, leaves_after=0.1))
        await asyncio.sleep(0.2)
        gates.bells.messages.ring()
        assert await question is None
        assert len(gates.flower.asked) == 1
        await asyncio.sleep(0.4)
        assert gates.presence.told == [("lost", b"a key")]
        assert await request(gates.network, PULL) == (200, b"a message")
        assert gates.presence.told == [("lost", b"a key"), ("back", b"a key")]

    asyncio.run(run())


def test_who_asks_again_soon_is_not_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOST", 0.2)

    async def run() -> None:
        gates = Gates()
        assert await request(gates.network, PULL, leaves_after=0.05) is None
        question = asyncio.create_task(request(gates.network, PULL))
        await asyncio.sleep(0.4)
        question.cancel()
        assert gates.presence.told == []

    asyncio.run(run())


def test_a_message_that_reached_nobody_makes_its_node_count_as_new() -> None:
    async def run() -> None:
        gates = Gates(Flower({PULL: [(200, b"a message")]}, takes=0.2))
        await request(gates.network, PULL, leaves_after=0.05)
        assert gates.presence.told == [("lost", b"a key")]

    asyncio.run(run())


@pytest.mark.parametrize(
    ("then", "told"),
    [
        (None, [("lost", b"a key"), ("back", b"a key")]),
        ("heartbeat", [("lost", b"a key"), ("back", b"a key")]),
        ("fetch", []),
    ],
)
def test_who_asks_on_instead_of_fetching_its_message_has_not_had_it(
    then: str | None, told: list[tuple[str, bytes]]
) -> None:
    """Its connection was dead when the answer was sent, which nobody could see here."""
    between = {"heartbeat": "/v1/fleet/send-node-heartbeat", "fetch": "/v1/fleet/confirm-message-received"}

    async def run() -> None:
        gates = Gates(Flower({PULL: [(200, b"a message"), (401, b"no"), (200, b"another")]}))
        assert await request(gates.network, PULL) == (200, b"a message")
        if then is not None:
            await request(gates.network, between[then])
        assert await request(gates.network, PULL) == (401, b"no")
        assert gates.presence.told == []
        assert await request(gates.network, PULL) == (200, b"another")
        assert gates.presence.told == told

    asyncio.run(run())


def test_a_stranger_that_leaves_is_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOST", 0.05)

    async def run() -> None:
        gates = Gates(Flower({PULL: [(401, b"no")]}))
        await request(gates.network, PULL, leaves_after=0.0)
        await asyncio.sleep(0.2)
        assert gates.presence.told == []

    asyncio.run(run())


@pytest.mark.parametrize(("freed", "expected"), [(True, (200, b"seat")), (False, (412, b"taken"))])
def test_the_seat_of_a_killed_process_is_freed(freed: bool, expected: tuple[int, bytes]) -> None:
    path = "/v1/fleet/activate-node"
    gates = Gates(Flower({path: [(412, b"taken"), expected]}), Watched(freed=freed))
    assert asyncio.run(request(gates.network, path, b"request")) == expected
    assert gates.presence.told == [("takeover", b"request")]


def test_nobody_frees_a_seat_without_its_key() -> None:
    path = "/v1/fleet/activate-node"
    gates = Gates(Flower({path: [(401, b"no")]}), Watched(freed=True))
    assert asyncio.run(request(gates.network, path, b"request")) == (401, b"no")
    assert gates.presence.told == []


def test_the_daemon_answers_at_the_front_door() -> None:
    gates = Gates()
    assert asyncio.run(request(gates.network, ENROL, b" me")) == (200, b"/coterie/v1/enrol me")
    assert refused(asyncio.run(request(gates.network, ENROL, b"no"))) == (400, "the invitation has expired")
    assert refused(asyncio.run(request(gates.network, ENROL, method="GET"))) == (404, "there is nothing here")
    assert gates.flower.asked == []


def test_the_pump_hears_of_answers_at_once_and_is_otherwise_slowed(monkeypatch: pytest.MonkeyPatch) -> None:
    pull = "/v1/runtime/pull-messages"

    async def seconds(gates: Gates) -> float:
        begun = time.monotonic()
        assert await request(gates.local, pull) == (200, b"")
        return time.monotonic() - begun

    async def run() -> None:
        gates = Gates()
        assert await seconds(gates) >= 0.4
        waiting = asyncio.create_task(seconds(gates))
        await asyncio.sleep(0.05)
        await request(gates.network, OBJECT, b"part of an answer")
        assert await waiting < 0.35
        await request(gates.network, PUSH, b"an answer")
        await asyncio.sleep(0.1)
        assert await seconds(gates) < 0.1

    monkeypatch.setattr(module, "ASKED_EVERY", 0.4)
    asyncio.run(run())
