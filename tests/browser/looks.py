"""Every page that people see, and how one gets there: tests look at each, and each has a picture in the docs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.browser.stage import CUSTOMER, Stage

SHOP = "/example/shop.html"
SOON = 30_000  # milliseconds: machines that run tests are busy


def stay(page: Any) -> None:
    """Nothing but to open the page."""


@dataclass(frozen=True)
class Look:
    """A page by name: its address, what is done there, and how much of it a picture shows."""

    name: str
    path: str
    prepare: Callable[[Any], None] = stay
    height: int = 800
    dark: bool = False
    keyed: bool = False

    def open(self, page: Any, stage: Stage) -> Any:
        """Go there, and do what is to be seen."""
        page.set_default_timeout(SOON)
        page.goto((stage.keyed if self.keyed else stage.open).address + self.path)
        self.prepare(page)
        drawn(page)
        return page


def drawn(page: Any) -> None:
    """Wait until every plot of a page is drawn."""
    page.wait_for_function(
        "() => [...document.querySelectorAll('[data-plot]')].every(one => one.querySelector('.main-svg'))"
    )


def fill_shop(page: Any) -> None:
    page.locator("#with .coterie-item").first.wait_for()
    for number in (1, 5):
        page.locator("#shelf li button").nth(number).click()
    page.locator("#cart li").nth(1).wait_for()
    page.wait_for_function(
        "() => [...document.querySelectorAll('#with .coterie-item')].length == 4 &&"
        " ![...document.querySelectorAll('#cart li')].some(o => document.querySelector("
        "`#with [data-item='${o.dataset.item}']`))"
    )


def fill_cart(page: Any) -> None:
    search = page.get_by_role("combobox", name="Search for an item to add")
    for word in ("notebook", "tea light"):
        search.fill(word)
        page.get_by_role("option").first.wait_for()
        search.press("Enter")
        page.get_by_role("listbox").wait_for(state="hidden")
    page.locator("#cart li").nth(1).wait_for()
    page.locator("#told", has_text="for 2 items").wait_for()


def typed(page: Any) -> None:
    page.get_by_role("combobox", name="Search for an item to add").press_sequentially("pot")
    page.get_by_role("option").first.wait_for()


def look_up(page: Any) -> None:
    page.get_by_label("User id").fill(CUSTOMER)
    page.get_by_role("button", name="Look up").click()
    page.get_by_role("heading", name=CUSTOMER).wait_for()


def ask_to_erase(page: Any) -> None:
    look_up(page)
    page.get_by_role("button", name="Erase …").click()
    page.get_by_label("Type the id once more").wait_for()


def to(id: str) -> Callable[[Any], None]:
    """Scroll to a heading, as a link to it does."""

    def scroll(page: Any) -> None:
        drawn(page)
        page.evaluate("id => document.getElementById(id).scrollIntoView()", id)

    return scroll


LOOKS = (
    Look("shop", SHOP, fill_shop),
    Look("overview", "/dashboard/"),
    Look("runs", "/dashboard/runs", height=620),
    Look("run", "/dashboard/runs/rounds", height=1280),
    Look("clients", "/dashboard/runs/first", to("clients"), height=760),
    Look("privacy-card", "/dashboard/runs/private", to("card"), height=900),
    Look("changed-run", "/dashboard/runs/changed", height=420),
    Look("compare", "/dashboard/compare?run=first&run=rounds", height=1180),
    Look("data", "/dashboard/data", height=1180),
    Look("playground", "/dashboard/playground", fill_cart, height=900),
    Look("playground-dark", "/dashboard/playground", fill_cart, height=900, dark=True),
    Look("search", "/dashboard/playground", typed, height=620),
    Look("people", "/dashboard/people", look_up, height=900),
    Look("erase", "/dashboard/people", ask_to_erase, height=760),
    Look("feedback", "/dashboard/feedback", height=760),
    Look("federation", "/dashboard/federation", height=760),
    Look("api", "/dashboard/api", height=800),
    Look("login", "/dashboard/login", height=480, keyed=True),
    Look("not-found", "/dashboard/runs/none", height=360),
)
