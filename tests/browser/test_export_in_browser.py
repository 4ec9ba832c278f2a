"""Answers that are worked out in a real browser: the right ones, and nobody is told what is in the basket."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from coterie.serving.private.browser_file import BrowserModel
from coterie.types import Ragged
from tests.serving.service import Service, trained

BASKET = ["A00003", "A00017", "A00042"]
HTML = """<!DOCTYPE html><title>A page</title><link rel="icon" href="data:,">
<script src="/static/coterie-local.js" {signer} defer></script>
<script src="/static/coterie.js" data-patience="5000" defer></script>
<div data-coterie data-items="{items}" data-k="4"></div>"""


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """A service whose baskets stay in the browser."""
    folder = tmp_path_factory.mktemp("private")
    (folder / "serve.toml").write_text('[answers]\nprivacy = "browser"\n')
    run = trained(folder / "run", settings={"evaluation": {"compare": False}})
    with Service(run, folder / "store.sqlite", "--config", str(folder / "serve.toml")) as made:
        yield made


@pytest.fixture(scope="module")
def manifest(private: Service) -> dict[str, Any]:
    found: dict[str, Any] = httpx.get(f"{private.address}/v1/model/browser", timeout=60).json()
    return found


@pytest.fixture(scope="module")
def model(private: Service, manifest: dict[str, Any]) -> BrowserModel:
    (name,) = manifest["files"]
    return BrowserModel.unpack(httpx.get(f"{private.address}/v1/model/browser/{name}", timeout=60).content)


class Watched:
    """A page, everything that it sent to anybody, and what it said to the console."""

    def __init__(self, page: Any, address: str) -> None:
        self.page, self.address = page, address
        self.sent, self.said = list[str](), list[str]()
        page.on("request", lambda one: self.sent.append(f"{one.method} {one.url} {one.headers} {one.post_data}"))
        page.on("console", lambda one: self.said.append(one.text))

    def opened(self, signer: str = "", items: str = ",".join(BASKET), html: str = HTML) -> Watched:
        """Open a page of the service's own origin."""
        body = html.format(signer=f'data-signer="{signer}"' if signer else "", items=items)
        self.page.route("**/page.html", lambda route: route.fulfill(body=body, content_type="text/html"))
        self.page.goto(f"{self.address}/page.html")
        return self

    def suggested(self) -> list[str]:
        self.page.locator(".coterie-item").first.wait_for()
        found = self.page.locator(".coterie-item").evaluate_all("all => all.map(one => one.dataset.item)")
        return [str(one) for one in found]

    def told(self, ids: list[str] = BASKET) -> list[str]:
        """The requests that name one of these items."""
        return [one for one in self.sent if any(id in one for id in ids)]

    def asked(self, script: str) -> Any:
        return self.page.evaluate(script)


@pytest.fixture
def watched(browser: Any, private: Service) -> Iterator[Watched]:
    context = browser.new_context()
    yield Watched(context.new_page(), private.address)
    context.close()


def best(model: BrowserModel, basket: list[str], k: int) -> list[str]:
    """What the file says, worked out here."""
    place = {id: at for at, id in enumerate(model.ids)}
    scores = model.scores(Ragged.of([[place[id] for id in basket]]))[0]
    return [model.ids[i] for i in np.argsort(-scores, kind="stable") if model.ids[i] not in basket][:k]


def test_no_request_names_an_item_of_the_basket(watched: Watched, model: BrowserModel, manifest: Any) -> None:
    page = watched.opened(manifest["public_key"])
    assert page.suggested() == best(model, BASKET, 4)
    page.page.locator(".coterie-item").first.click()
    page.asked(f"coterie.show(document.querySelector('div'), {BASKET[:2]})")
    page.asked(f"coterie.similar('{BASKET[0]}')")
    page.page.wait_for_timeout(300)
    assert page.told() == page.told(page.suggested()) == []
    assert not [one for one in page.sent if one.startswith("POST")]
    assert any("/v1/model/browser/model-" in one for one in page.sent)
    page.asked(f"coterie.event('add-to-cart', {{item: '{BASKET[0]}'}})")  # what a shop tells itself is told
    page.page.wait_for_timeout(300)
    assert len(page.told()) == 1


def test_answers_are_those_of_the_file(watched: Watched, model: BrowserModel) -> None:
    page, rng = watched.opened(), np.random.default_rng(0)
    for _ in range(25):
        basket = rng.choice(model.ids, rng.integers(1, 8), replace=False).tolist()
        answer = page.asked(f"coterie.basket({basket}, {{k: 10}})")
        assert [one["item"] for one in answer["items"]] == best(model, basket, 10)
        assert (answer["unknown"], answer["fallback"], answer["recommendationId"]) == ([], None, None)
        titles = dict(zip(model.ids, model.titles, strict=True))
        assert all(one["title"] == titles[one["item"]] for one in answer["items"])


def test_unknown_and_empty_baskets_get_what_is_popular(watched: Watched, model: BrowserModel) -> None:
    page = watched.opened()
    answer = page.asked("coterie.basket([{item: 'nobody knows it'}], {k: 5})")
    assert [one["item"] for one in answer["items"]] == list(model.ids[:5])
    assert (answer["unknown"], answer["fallback"]) == (["nobody knows it"], "popularity")
    assert page.asked("coterie.basket([]).then(answer => answer.fallback)") == "popularity"


def test_the_options_that_need_no_server(watched: Watched, model: BrowserModel) -> None:
    page, plain = watched.opened(), best(model, BASKET, 6)
    kept = page.asked(
        f"coterie.basket({BASKET}, {{k: 3, exclude: ['{plain[0]}']}}).then(a => a.items.map(i => i.item))"
    )
    assert kept == plain[1:4]
    some = page.asked(f"coterie.basket({BASKET}, {{includeOnly: {plain[3:5]}}}).then(a => a.items.map(i => i.item))")
    assert some == plain[3:5]
    page.asked(f"void (coterie.about = id => id === '{plain[1]}' ? {{stock: 0}} : {{price: 2.5, currency: 'EUR'}})")
    shown = page.asked(f"coterie.basket({BASKET}, {{k: 3}}).then(a => a.items.map(i => [i.item, i.price]))")
    assert shown == [[id, 2.5] for id in (plain[0], *plain[2:4])]
    refused = page.asked(f"coterie.basket({BASKET}, {{filter: 'cheap'}}).catch(error => error.message)")
    assert refused == "coterie: no 'filter' without the server"


def test_loaded_after_it_takes_the_place_too(watched: Watched, model: BrowserModel) -> None:
    first, second = HTML.splitlines()[1:3]
    page = watched.opened(items="", html=HTML.replace(f"{first}\n{second}", f"{second}\n{first}"))
    shown = page.asked(f"coterie.show(document.querySelector('div'), {BASKET}).then(a => a.items.map(i => i.item))")
    assert shown == best(model, BASKET, 4)
    assert page.told() == []


@pytest.mark.parametrize("kind", ["public_key", "fingerprint"])
def test_the_right_signer_is_taken(watched: Watched, manifest: Any, kind: str) -> None:
    from coterie.secure.keys import fingerprint

    public = str(manifest["public_key"])
    page = watched.opened(public if kind == "public_key" else fingerprint(bytes.fromhex(public)).upper())
    assert len(page.suggested()) == 4
    assert page.said == []


def refused(page: Watched) -> str:
    """Why there is no answer; and there is none."""
    assert page.page.locator(".coterie-item").count() == 0
    assert page.told() == []
    return str(page.asked("coterie.ready().catch(error => error.message)"))


def test_another_signer_is_refused(watched: Watched) -> None:
    assert refused(watched.opened("0" * 64)) == "coterie: signed by another key"
    assert "coterie: signed by another key" in watched.said


def test_a_manifest_that_was_changed_is_refused(watched: Watched, manifest: Any) -> None:
    def changed(route: Any) -> None:
        body = route.fetch().text()
        assert '"items": 120' in body
        route.fulfill(body=body.replace('"items": 120', '"items": 121'), content_type="application/json")

    watched.page.route("**/v1/model/browser", changed)
    assert refused(watched.opened(manifest["public_key"])) == "coterie: wrong signature"


def test_a_model_that_was_changed_is_refused_without_a_signer_too(watched: Watched) -> None:
    def changed(route: Any) -> None:
        body = bytearray(route.fetch().body())
        body[500] ^= 1
        route.fulfill(body=bytes(body), content_type="application/octet-stream")

    watched.page.route("**/v1/model/browser/*", changed)
    assert refused(watched.opened()) == "coterie: wrong digest"


def test_where_the_browser_knows_no_ed25519_a_signer_is_not_believed(watched: Watched, manifest: Any) -> None:
    watched.page.add_init_script(
        "SubtleCrypto.prototype.importKey = () => Promise.reject(new DOMException('', 'NotSupportedError'))"
    )
    assert refused(watched.opened(manifest["public_key"])) == "coterie: this browser knows no Ed25519"


def test_a_second_visit_downloads_nothing(watched: Watched) -> None:
    """On pages that are not made up here: where Playwright answers requests, nothing is cached."""
    sizes = list[int]()
    watched.page.on(
        "requestfinished",
        lambda one: sizes.append(one.sizes()["responseBodySize"]) if "/browser/model-" in one.url else None,
    )
    for _ in range(2):
        watched.page.goto(f"{watched.address}/static/example/shop.css")
        watched.page.add_script_tag(url="/static/coterie-local.js")
        assert len(watched.asked(f"coterie.basket({BASKET}).then(answer => answer.items)")) == 10
        watched.page.wait_for_timeout(200)
    assert len(sizes) == 2
    assert sizes[0] > 1000
    assert sizes[1] <= 0  # Playwright takes the headers off what came over the wire, which is nothing


def test_the_script_has_less_than_five_kilobytes_and_stores_nothing(watched: Watched, private: Service) -> None:
    assert len(httpx.get(f"{private.address}/static/coterie-local.js").content) < 5_000
    page = watched.opened()
    page.suggested()
    assert page.asked("localStorage.length + sessionStorage.length + document.cookie.length") == 0


def test_the_server_takes_no_basket(private: Service) -> None:
    reply = httpx.post(f"{private.address}/v1/recommend/basket", json={"items": BASKET})
    assert reply.status_code == 409
    assert Path(private.said["run"]).name == "run"
