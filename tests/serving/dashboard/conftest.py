"""A deployment over runs of every kind, with names that try to be markup, and a browser-like client of its pages."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra 'serve'")

import httpx
import polars as pl

import coterie
from coterie.data.market import market
from coterie.serving.app import application
from coterie.serving.config import ServeConfig
from coterie.serving.deployment import Deployment
from coterie.serving.words import Item

EVIL = "<script>alert('x')</script>\"&"
SAME = {"sec-fetch-site": "same-origin", "accept": "text/html"}
ADDRESS = "http://127.0.0.1:8080"


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two finished runs (one with curves), one that is not finished, one that was changed."""
    folder = tmp_path_factory.mktemp("runs")
    log = market(shops=3, customers=150, items=120, baskets=1200, seed=0).log
    frame = log.frame.with_columns(pl.col("client").replace({"shop1": EVIL}))
    evil = coterie.InteractionLog(frame, log.texts)
    coterie.train(evil, model="cart", test="carts", seed=0, output=folder / "first")
    coterie.train(evil, model="ials", factors=4, iterations=3, test="carts", seed=0, output=folder / "with <b>curves")
    shutil.copytree(folder / "first", folder / "changed")
    (folder / "changed" / "result.json").write_text('{"model": "SECRETS"}')
    (folder / "half").mkdir()
    (folder / "half" / "config.toml").write_text("[run]\nseed = 0\n")
    (folder / "no run").mkdir()
    return folder


class Browser:
    """Asks the application as a browser on its pages would; keeps cookies."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.cookies = httpx.Cookies()

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        return asyncio.run(self._asked(method, path, options))

    async def _asked(self, method: str, path: str, options: dict[str, Any]) -> httpx.Response:
        through = httpx.ASGITransport(self._app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=through, base_url=ADDRESS, cookies=self.cookies) as client:
            answer = await client.request(method, path, **options)
            self.cookies = httpx.Cookies(client.cookies)
            return answer


@dataclass
class Opened:
    """A deployment and a browser that is on its pages."""

    deployment: Deployment
    browser: Browser

    def get(self, path: str, **options: Any) -> Any:
        return self.browser.request("GET", path, headers=SAME, **options)

    def post(self, path: str, **fields: Any) -> Any:
        return self.browser.request("POST", path, data=fields, headers=SAME)


@pytest.fixture
def opening(runs: Path, tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    made = list[Deployment]()

    def opened(**sections: Any) -> Opened:
        settings = {"store": {"address": str(tmp_path / "store.sqlite")}, "log": {"requests": False}, **sections}
        deployment = Deployment.open(ServeConfig.model_validate(settings), runs / "first")
        made.append(deployment)
        return Opened(deployment, Browser(application(deployment)))

    yield opened
    for one in made:
        one.close()


@pytest.fixture
def open_(opening: Callable[..., Opened]) -> Opened:
    return opening()


@pytest.fixture
def shop(open_: Opened) -> Opened:
    """With items, of which one's title tries to be markup."""
    known = open_.deployment.versions.current().run.items
    items = [Item(id, f"Tea cup {at}", price=1.0 + at, currency="EUR", stock=at) for at, id in enumerate(known)]
    items[1] = Item(known[1], EVIL, stock=7)
    open_.deployment.store.put_items(items)
    open_.deployment.items_changed([one.id for one in items])
    return open_


@dataclass
class Outline:
    """What a page is made of, for tests: elements with their attributes, in order."""

    elements: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


@pytest.fixture
def outline() -> Callable[[str], Outline]:
    class Reader(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.found = Outline()

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            self.found.elements.append((tag, dict(attrs)))

    def read(page: str) -> Outline:
        reader = Reader()
        reader.feed(page)
        return reader.found

    return read
