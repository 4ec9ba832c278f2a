"""The short way gives what the routes give, and the pieces that make it short change nothing."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra 'serve'")

import httpx
from pydantic_core import to_json

from coterie.serving.app import create_app
from coterie.serving.conversion import SHOWN, answer_json
from coterie.serving.security.deadline import within
from coterie.serving.security.middleware import protect
from coterie.serving.shortcut import Shortcut
from coterie.serving.wire import Joining
from coterie.serving.words import Answer, Item, Reason, Suggestion

QUESTIONS: tuple[tuple[str, bytes], ...] = (
    ("basket", b'{"items": ["A00001", "nothing such"], "k": 3, "explain": true}'),
    ("user", b'{"user": "u1"}'),
    ("similar", b'{"item": "A00001"}'),
    ("popular", b"{}"),
    ("popular", b'{"k": 0}'),
    ("popular", b'{"k": 500}'),
    ("popular", b"{"),
    ("popular", b'{"filter": "price <"}'),
    ("basket", b'{"client": "nobody"}'),
    ("nothing", b"{}"),
)


def both(desk: Any, key: str | None, kind: str, body: bytes) -> list[tuple[Any, ...]]:
    """Status, headers and content by the short way and by the routes, without what no two answers share."""
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
    found = []
    for app in (desk.app, protect(create_app(desk.deployment), desk.deployment)):
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)

        async def ask(transport: Any = transport) -> httpx.Response:
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
                return await client.post(f"/v1/recommend/{kind}", content=body, headers=headers)

        reply = asyncio.run(ask())
        told = reply.json()
        own = told.pop("recommendationId", "")
        assert len(own) == (39 if reply.status_code == 200 else 0)
        kept = sorted((name, value) for name, value in reply.headers.items() if name != "x-request-id")
        found.append((reply.status_code, kept, told))
    return found


@pytest.mark.parametrize(("kind", "body"), QUESTIONS)
def test_the_short_way_answers_as_the_routes_do(desk: Any, kind: str, body: bytes) -> None:
    short, long = both(desk, desk.key, kind, body)
    assert short == long


def test_the_short_way_knows_who_may_ask(desk: Any) -> None:
    short, long = both(desk, None, "popular", b"{}")
    assert short == long
    assert short[0] == 401


def test_a_fault_is_answered_as_by_the_routes(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("secret of u1")

    monkeypatch.setattr(type(desk.deployment), "ask", fail)
    short, long = both(desk, desk.key, "popular", b"{}")
    assert [one[0] for one in (short, long)] == [500, 500]
    assert [sorted(one[2]) for one in (short, long)] == [["detail", "status", "title", "type"]] * 2
    assert "secret" not in json.dumps([short, long])


def test_other_methods_and_paths_are_the_applications() -> None:
    seen: list[str] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["path"])

    async def never(scope: Any, body: bytes) -> bytes:
        raise AssertionError

    shortcut = Shortcut(app, {"/a": never})
    for method, path in (("GET", "/a"), ("POST", "/a/"), ("POST", "/b")):
        asyncio.run(shortcut({"type": "http", "method": method, "path": path}, None, None))  # type: ignore[arg-type]
    assert seen == ["/a", "/a/", "/b"]


def test_answers_are_the_json_that_is_promised() -> None:
    every = {"title": 'Täblé "x"', "url": "/t", "image": "/i", "price": 1e-7, "currency": "EUR", "stock": 3}
    items = [
        Item("a", **every, language="de", group="g", attributes={"tags": ("x", "y"), "n": 2.0, "b": True}),
        Item('ü"\\'),
    ]
    for scores in ([0.1, 2.0], [1e22, -1e-9], [3, 2]):
        for because in ((), (Reason("popular", None, 1.0), Reason("text", "ü", 0.5))):
            told = Answer(tuple(Suggestion(*one, because) for one in zip(items, scores, strict=True)), ("ö",), "rating")
            for explain in (True, False, True):
                assert answer_json(told, 3, "id", personal=True, explain=explain) == plain(told, explain)
    assert answer_json(Answer(()), 3, "id", personal=False, explain=True) == to_json(
        {"recommendationId": "id", "items": [], "unknown": (), "fallback": None, "personal": False, "version": 3}
    )


def plain(answer: Answer, explain: bool) -> bytes:
    """The same, of one piece."""
    items = []
    for one in answer.suggestions:
        shown = {"item": one.item.id, "score": one.score}
        shown |= {name: getattr(one.item, name) for name in SHOWN if getattr(one.item, name) is not None}
        if one.item.attributes:
            shown["attributes"] = dict(one.item.attributes)
        if explain:
            shown["because"] = [{"term": why.term, "item": why.item, "share": why.share} for why in one.because]
        items.append(shown)
    return to_json(
        {
            "recommendationId": "id",
            "items": items,
            "unknown": answer.unknown,
            "fallback": answer.fallback,
            "personal": True,
            "version": 3,
        }
    )


def test_a_deadline_counts_from_the_first_wait() -> None:
    async def at_once() -> int:
        return 1

    async def after(seconds: float) -> int:
        await asyncio.sleep(seconds)
        await asyncio.sleep(0)
        return 2

    async def fail() -> None:
        await asyncio.sleep(0)
        raise ValueError("told")

    async def all_of_it() -> None:
        assert await within(0.0, at_once()) == 1
        assert await within(60.0, after(0.001)) == 2
        with pytest.raises(TimeoutError):
            await within(0.01, after(60.0))
        with pytest.raises(ValueError, match="told"):
            await within(60.0, fail())
        task = asyncio.create_task(within(60.0, after(60.0)))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(all_of_it())


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.closed = False
        self.write = self.written.append
        self.is_closing = self.pause_reading = self.resume_reading = lambda: False

    def close(self) -> None:
        self.closed = True

    def get_extra_info(self, name: str) -> str:
        return name


def test_head_and_body_are_one_write_and_a_lone_head_does_not_wait() -> None:
    async def all_of_it() -> None:
        wire = Wire()
        joining = Joining(wire, asyncio.get_running_loop())  # type: ignore[arg-type]
        joining.write(b"HTTP/1.1 200 OK\r\n\r\n")
        joining.write(b"body")
        joining.write(b"more")
        assert wire.written == [b"HTTP/1.1 200 OK\r\n\r\nbody", b"more"]
        joining.write(b"HTTP/1.1 200 OK\r\n\r\n")
        assert len(wire.written) == 2
        await asyncio.sleep(0)
        assert wire.written[2:] == [b"HTTP/1.1 200 OK\r\n\r\n"]
        joining.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        joining.close()
        assert wire.written[3:] == [b"HTTP/1.1 204 No Content\r\n\r\n"]
        assert wire.closed
        assert joining.get_extra_info("peername") == "peername"

    asyncio.run(all_of_it())
