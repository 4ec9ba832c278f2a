"""A deployment as it is in life, with its store in a file and a trained run, behind everything that protects it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra 'serve'")

import httpx

import coterie
from coterie.data.market import market
from coterie.serving.app import application
from coterie.serving.config import ServeConfig
from coterie.serving.deployment import Deployment
from coterie.serving.security.keys import make_key

ADDRESS, SHOP = "http://127.0.0.1:8080", "https://shop.example.org"


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed run over 60 items, `A00001` and so on."""
    folder = tmp_path_factory.mktemp("runs") / "first"
    coterie.train(market(shops=3, customers=80, items=60, baskets=500, seed=5).log, model="cart", output=folder)
    return folder


class Client:
    """Sends requests to an application in this process, one at a time."""

    def __init__(self, app: Any, headers: dict[str, str], loop: asyncio.AbstractEventLoop) -> None:
        transport = httpx.ASGITransport(app, raise_app_exceptions=False)
        self._client, self._loop = httpx.AsyncClient(transport=transport, base_url=ADDRESS, headers=headers), loop

    def request(self, method: str, path: str, **content: Any) -> httpx.Response:
        return self._loop.run_until_complete(self._client.request(method, path, **content))

    def get(self, path: str, **content: Any) -> httpx.Response:
        return self.request("GET", path, **content)

    def put(self, path: str, **content: Any) -> httpx.Response:
        return self.request("PUT", path, **content)

    def post(self, path: str, **content: Any) -> httpx.Response:
        return self.request("POST", path, **content)

    def patch(self, path: str, **content: Any) -> httpx.Response:
        return self.request("PATCH", path, **content)

    def delete(self, path: str, **content: Any) -> httpx.Response:
        return self.request("DELETE", path, **content)


class Desk:
    """A deployment and a client of it that holds a secret key; `page` is a client that holds a publishable one."""

    def __init__(self, folder: Path, run: Path, settings: dict[str, Any]) -> None:
        whole = {"store": {"address": str(folder / "store.sqlite")}, "log": {"requests": False}, **settings}
        self.deployment = Deployment.open(ServeConfig.model_validate(whole), run)
        secret, text = make_key("server", False, ["recommend", "events", "items", "users", "model", "dashboard"])
        public, shown = make_key("page", True, ["recommend", "events", "model"], [SHOP])
        self.key = text
        for key in (secret, public):
            self.deployment.store.add_key(key)
        self.deployment.keys.reload()
        self.app = application(self.deployment)
        self._loop = asyncio.new_event_loop()
        self.client = self._client({"Authorization": f"Bearer {text}"})
        self.page = self._client({"X-Api-Key": shown, "Origin": SHOP})
        self.stranger = self._client({})

    def ask(self, kind: str, **question: Any) -> dict[str, Any]:
        """The answer to a question."""
        reply = self.client.post(f"/v1/recommend/{kind}", json=question)
        assert reply.status_code == 200, reply.text
        answer: dict[str, Any] = reply.json()
        return answer

    def suggested(self, kind: str = "basket", **question: Any) -> list[str]:
        """The ids of the suggested items."""
        return [one["item"] for one in self.ask(kind, **question)["items"]]

    def tell(self, *events: dict[str, Any]) -> dict[str, Any]:
        """What became of events."""
        reply = self.client.post("/v1/events", json={"events": events})
        assert reply.status_code == 200, reply.text
        receipt: dict[str, Any] = reply.json()
        return receipt

    def close(self) -> None:
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
        self.deployment.close()

    def _client(self, headers: dict[str, str]) -> Client:
        return Client(self.app, headers, self._loop)


@pytest.fixture
def desk_of(tmp_path: Path, run_folder: Path) -> Iterator[Callable[..., Desk]]:
    """`desk_of(answers={...})`: a desk with these settings."""
    made: list[Desk] = []

    def make(**settings: Any) -> Desk:
        made.append(Desk(tmp_path, run_folder, settings))
        return made[-1]

    yield make
    for desk in made:
        desk.close()


@pytest.fixture
def desk(desk_of: Callable[..., Desk]) -> Desk:
    return desk_of(expressions={"cheap": "price < 20.0"})


def happened(number: int, kind: str = "view", **content: Any) -> dict[str, Any]:
    """An event of today."""
    what = {"item": "A00001"} if "items" not in content else {}
    return {"eventId": f"e{number}", "type": kind, "time": datetime.now(UTC).isoformat(), **what, **content}


@pytest.fixture
def event() -> Callable[..., dict[str, Any]]:
    """`event(number, kind, **content)`."""
    return happened
