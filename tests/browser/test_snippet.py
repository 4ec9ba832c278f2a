"""The snippet in pages of other origins: a publishable key, impressions, clicks, and what the browser refuses."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

PAGE = """<!DOCTYPE html><html lang="en"><title>A shop</title><link rel="icon" href="data:,">
<script src="{service}/static/coterie.js" data-key="{key}" data-patience="{patience}" defer></script>
<p style="height: 3000px">Far above.</p>
<div id="with" data-coterie data-items="A00001,A00002" data-k="3"><p>What stands there.</p></div>
</html>"""
PATIENT = 30_000  # milliseconds


@dataclass(frozen=True)
class Shop:
    """A shop's own server of pages: the same files at two origins, of which the key is bound to the first."""

    port: int
    folder: Path
    key: str
    service: str

    def write(self, name: str, key: str | None = None, patience: int = PATIENT) -> str:
        """A page with the snippet; its path."""
        text = PAGE.format(service=self.service, key=self.key if key is None else key, patience=patience)
        (self.folder / name).write_text(text)
        return f"/{name}"

    @property
    def origin(self) -> str:
        return f"http://localhost:{self.port}"

    @property
    def elsewhere(self) -> str:
        return f"http://127.0.0.1:{self.port}"


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def pages_of(folder: Path) -> Iterator[int]:
    """The port of a server of the files in a folder."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def shop(made: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    from tests.browser.stage import made_key

    folder = tmp_path_factory.mktemp("pages")
    with pages_of(folder) as port:
        words = ("pages", "--publishable", "--scope", "recommend", "--scope", "events")
        key = made_key(made.keyed_store, *words, "--origin", f"http://localhost:{port}")
        yield Shop(port, folder, key, made.keyed.address)


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[[str], Any]]:
    """A visitor's page, and what it has told and been refused."""
    contexts = []

    def opened(address: str) -> Any:
        contexts.append(browser.new_context(viewport={"width": 800, "height": 600}))
        page = contexts[-1].new_page()
        page.set_default_timeout(PATIENT)
        page.goto(address)
        return page

    yield opened
    for context in contexts:
        context.close()


def events(kind: str) -> Callable[[Any], bool]:
    return lambda reply: reply.url.endswith("/v1/events") and f'"{kind}"' in (reply.request.post_data or "")


def test_a_page_of_the_bound_origin_shows_suggestions(shop: Shop, visit: Any) -> None:
    page = visit(shop.origin + shop.write("bound.html"))
    page.locator("#with .coterie-item").nth(2).wait_for()
    shown = page.locator("#with .coterie-item").evaluate_all("all => all.map(one => one.dataset.item)")
    assert len(set(shown)) == 3
    assert not {"A00001", "A00002"} & set(shown)
    assert page.context.cookies() == []
    assert page.evaluate("localStorage.length + sessionStorage.length") == 0


def test_an_impression_is_told_when_it_comes_into_view_and_a_click_when_it_is_clicked(shop: Shop, visit: Any) -> None:
    page = visit("about:blank")
    told = list[str]()
    page.on("request", lambda asked: told.append(asked.url) if asked.url.endswith("/v1/events") else None)
    page.goto(shop.origin + shop.write("far.html"))
    page.locator("#with .coterie-item").first.wait_for()
    page.evaluate("new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")
    assert told == []  # it is far below
    with page.expect_response(events("impression")) as seen:
        page.locator("#with").scroll_into_view_if_needed()
    assert seen.value.ok
    said = seen.value.request.post_data_json
    assert [one["position"] for one in said["items"]] == [1, 2, 3]
    with page.expect_response(events("click")) as clicked:
        page.locator("#with .coterie-item a").nth(1).click()
    assert clicked.value.ok
    again = clicked.value.request.post_data_json
    assert again["recommendationId"] == said["recommendationId"]
    assert (again["item"], again["position"]) == (said["items"][1]["item"], 2)


def test_a_page_of_another_origin_is_refused_by_cors(shop: Shop, visit: Any) -> None:
    said = list[str]()
    page = visit("about:blank")
    page.on("console", lambda one: said.append(one.text))
    page.goto(shop.elsewhere + shop.write("elsewhere.html"))
    refused = page.evaluate("coterie.basket(['A00001']).then(() => 'answered', error => error.name)")
    assert refused == "TypeError"  # what browsers say of a request that CORS does not allow
    assert any("CORS policy" in one for one in said)
    assert "What stands there." in page.locator("#with").inner_text()
    assert page.evaluate("coterie.event('view', {item: 'A00001'}).then(() => 'never throws')") == "never throws"


def test_without_a_key_that_holds_the_page_keeps_what_stands_there(shop: Shop, visit: Any) -> None:
    page = visit(shop.origin + shop.write("wrong.html", key="cpk_wrong"))
    refused = page.evaluate("coterie.popular().then(() => 'answered', error => error.message)")
    assert refused == "coterie: 401"
    assert "What stands there." in page.locator("#with").inner_text()


def test_an_answer_that_comes_too_late_is_not_shown(shop: Shop, visit: Any) -> None:
    page = visit("about:blank")
    page.goto(shop.origin + shop.write("late.html", patience=0))
    late = page.evaluate("coterie.show(document.getElementById('with'), ['A00001'])")
    assert late is None
    page.evaluate("coterie.basket(['A00001'])")  # by now an answer has come
    assert "What stands there." in page.locator("#with").inner_text()


def test_a_shop_gives_suggestions_its_own_look(shop: Shop, visit: Any) -> None:
    page = visit(shop.origin + shop.write("own.html"))
    page.evaluate("""() => {
        coterie.card = (item) => Object.assign(document.createElement('b'), {textContent: 'own ' + item.item});
        return coterie.show(document.getElementById('with'), ['A00003']);
    }""")
    assert page.locator("#with b").first.inner_text().startswith("own A0")
