"""Deployments with trained runs, and Debian's Chromium to look at them; no page may ask anybody else for anything."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

import pytest

from tests.services import program

# `make test-services` runs these; `make test` does not.
collect_ignore_glob = [] if os.environ.get("COTERIE_BROWSER") == "1" else ["test_*.py"]

# Chromium finds this machine alone, whatever a page might ask for.
ALONE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"
SOON = 30_000  # milliseconds: machines that run tests are busy


@dataclass
class Watch:
    """What pages did that they must not: requests to other origins, scripts that fail, console errors."""

    own: tuple[str, ...]
    abroad: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def over(self, context: Any) -> None:
        """Watch all pages of a context."""
        context.on("request", self._asked)
        context.on("weberror", lambda error: self.failures.append(str(error.error)))
        context.on("console", self._said)

    def check(self) -> None:
        """Fail if there was anything."""
        assert self.abroad == []
        assert self.failures == []

    def _asked(self, request: Any) -> None:
        if not request.url.startswith((*(f"{one}/" for one in self.own), "data:", "blob:")):
            self.abroad.append(request.url)

    def _said(self, said: Any) -> None:
        document = said.page is not None and said.location["url"] == said.page.url  # its status is a test's own matter
        if said.type == "error" and not (document and said.text.startswith("Failed to load resource")):
            self.failures.append(f"{said.text} ({said.location['url']})")


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """The stage: deployments that are in use."""
    from tests.browser.stage import stage

    with stage(tmp_path_factory.mktemp("stage") / "shop") as opened:
        yield opened


@pytest.fixture(scope="session")
def service(made: Any) -> Any:
    """The deployment that asks for no key, with titles, prices, stock and events."""
    return made.open


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    path = program("chromium", "chromium")
    with sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=path, args=["--no-sandbox", ALONE])
        yield opened
        opened.close()


@pytest.fixture
def opening(browser: Any, made: Any) -> Iterator[Callable[..., Any]]:
    """`opening(java_script_enabled=False)`: a page with options of its context, watched until the test ends."""
    watch = Watch((made.open.address, made.keyed.address))
    contexts = []

    def opened(**options: Any) -> Any:
        settings = {"base_url": made.open.address, "viewport": {"width": 1200, "height": 900}, **options}
        settings["reduced_motion"] = "reduce"  # colours change at once
        contexts.append(browser.new_context(**settings))
        watch.over(contexts[-1])
        page = contexts[-1].new_page()
        page.set_default_timeout(SOON)
        return page

    yield opened
    for context in contexts:
        context.close()
    watch.check()


@pytest.fixture
def page(opening: Callable[..., Any]) -> Any:
    """A page that fails its test when anything is asked of another origin, or a script fails."""
    return opening()


@pytest.fixture
def faults() -> Callable[[Any], list[str]]:
    """What axe-core has against a page: its serious and critical findings."""
    script = (files("axe_playwright_python") / "axe.min.js").read_text("utf-8")

    def found(page: Any) -> list[str]:
        page.evaluate(script)
        said = page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        bad = [one for one in said["violations"] if one["impact"] in ("serious", "critical")]
        return [f"{one['id']}: {one['nodes'][0]['html']} {one['nodes'][0]['failureSummary']}" for one in bad]

    return found
