"""The model as a service hands it out to pages: whole, once, for ever; and another one with another version."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra 'serve'")

import httpx

import coterie
from coterie.data.market import market
from coterie.errors import ModelError
from coterie.serving import rollout
from coterie.serving.app import application
from coterie.serving.config import ServeConfig
from coterie.serving.deployment import Deployment
from coterie.serving.private.browser_file import BrowserModel
from coterie.serving.security.keys import make_key
from coterie.serving.versions import register

SHOP = "https://shop.example.org"


def trained(folder: Path, model: str = "cart", **settings: Any) -> Path:
    log = market(shops=3, customers=80, items=60, baskets=500, seed=5).log
    coterie.train(log, model=model, output=folder, settings=settings)
    return folder


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs `first`, `second` (another model) and `private` (under epsilon, with models of single organisations)."""
    folder = tmp_path_factory.mktemp("runs")
    trained(folder / "first", evaluation={"compare": False})
    trained(folder / "second", "ease", evaluation={"compare": False})
    trained(folder / "private", plan={"epsilon": 8.0})
    return folder


class Page:
    """A page with a publishable key of the scope `recommend`."""

    def __init__(self, folder: Path, run: Path, privacy: str) -> None:
        store = {"address": str(folder / "store.sqlite")}
        config = {"store": store, "log": {"requests": False}, "answers": {"privacy": privacy}}
        self.deployment = Deployment.open(ServeConfig.model_validate(config), run)
        try:
            key, text = make_key("page", True, ["recommend"], [SHOP])
            self.deployment.store.add_key(key)
            self.deployment.keys.reload()
            self.app = application(self.deployment)
        except BaseException:
            self.deployment.close()
            raise
        self.headers = {"Authorization": f"Bearer {text}", "Origin": SHOP}

    def get(self, path: str = "", **headers: str) -> httpx.Response:
        async def answered() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8080") as client:
                return await client.get(f"/v1/model/browser{path}", headers={**self.headers, **headers})

        return asyncio.run(answered())

    def manifest(self) -> dict[str, Any]:
        reply = self.get()
        assert reply.status_code == 200, reply.text
        found: dict[str, Any] = reply.json()
        return found


@pytest.fixture
def page_of(tmp_path: Path, runs: Path) -> Iterator[Callable[..., Page]]:
    made: list[Page] = []

    def make(run: str = "first", privacy: str = "browser") -> Page:
        made.append(Page(tmp_path, runs / run, privacy))
        return made[-1]

    yield make
    for page in made:
        page.deployment.close()


def test_a_page_gets_the_signed_model_whole(page_of: Callable[..., Page]) -> None:
    page = page_of()
    reply = page.get()
    manifest = reply.json()
    assert reply.headers["access-control-allow-origin"] == SHOP
    assert reply.headers["cache-control"] == "private, no-cache"
    assert manifest["fingerprint"] == page.deployment.versions.current().version.fingerprint
    ((name, digest),) = manifest["files"].items()
    file = page.get(f"/{name}")
    assert file.status_code == 200
    assert hashlib.sha256(file.content).hexdigest() == digest
    assert len(file.content) == manifest["sizes"][name]
    assert file.headers["cache-control"] == "private, max-age=31536000, immutable"
    assert file.headers["access-control-allow-origin"] == SHOP
    assert len(BrowserModel.unpack(file.content).ids) == manifest["items"] == 60


def test_what_a_page_has_already_is_not_sent_again(page_of: Callable[..., Page]) -> None:
    page = page_of()
    for path in ("", f"/{next(iter(page.manifest()['files']))}"):
        etag = page.get(path).headers["etag"]
        for known in (etag, f'"other", W/{etag}', "*"):
            again = page.get(path, **{"If-None-Match": known})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
        assert page.get(path, **{"If-None-Match": '"other"'}).status_code == 200


@pytest.mark.parametrize("privacy", ["plain", "noisy"])
def test_a_service_that_answers_baskets_hands_no_model_out(page_of: Callable[..., Page], privacy: str) -> None:
    page = page_of(privacy=privacy)
    for path in ("", "/model-0000000000000000.bin"):
        reply = page.get(path)
        assert reply.status_code == 409
        assert f"not '{privacy}'" in reply.json()["detail"]


def test_other_files_are_not_there(page_of: Callable[..., Page]) -> None:
    page = page_of()
    for name in ("model-0000000000000000.bin", "manifest.json", "..%2f..%2fmanifest.json", "x" * 90):
        assert page.get(f"/{name}").status_code == 404
    assert page.get("/" + "x" * 101).status_code == 422
    assert page.get("", Authorization="Bearer cpk_no").status_code == 401


def test_another_version_has_another_manifest_and_the_old_file_stays_a_while(
    page_of: Callable[..., Page], runs: Path
) -> None:
    page = page_of()
    before, etag = page.manifest(), page.get().headers["etag"]
    deployment = page.deployment
    rollout.swap(deployment.store, deployment.config.model, runs / "second")
    deployment.versions.follow()
    assert deployment.versions.wait(60)
    after = page.manifest()
    assert (before["model"], after["model"]) == ("cart", "ease")
    assert page.get("", **{"If-None-Match": etag}).status_code == 200
    for manifest in (before, after):
        assert page.get(f"/{next(iter(manifest['files']))}").status_code == 200


def test_what_must_not_leave_is_neither_started_with_nor_swapped_to(page_of: Callable[..., Page], runs: Path) -> None:
    with pytest.raises(ModelError, match="must not go to browsers"):
        page_of("private")


def test_a_version_that_must_not_leave_does_not_answer(page_of: Callable[..., Page], runs: Path) -> None:
    page = page_of()
    before = json.dumps(page.manifest())
    deployment = page.deployment
    register(deployment.store, deployment.config.model, runs / "private")
    deployment.versions.follow()
    assert deployment.versions.wait(60)
    assert "must not go to browsers" in deployment.versions.status()["failed"]["reason"]
    assert json.dumps(page.manifest()) == before


def test_the_files_are_gone_with_the_service(page_of: Callable[..., Page], tmp_path_factory: Any) -> None:
    from coterie.serving.private.served_exports import ServedExports

    exports = ServedExports(page_of().deployment.versions)
    folder = next(iter(exports.current().files.values())).parent
    assert folder.is_dir()
    exports.close()
    assert not folder.parent.exists()
