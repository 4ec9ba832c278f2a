"""What people do on the dashboard: try a cart, read a run, compare, answer a customer's requests, log in."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.browser.stage import post

ME = "me@example.org"  # no other module stores anything of this user


@pytest.fixture
def stored(service: Any) -> None:
    """Two purchases of this user and nothing else, as a shop tells them."""
    httpx.delete(f"{service.address}/v1/users/{ME}", timeout=30).raise_for_status()
    httpx.put(f"{service.address}/v1/users/{ME}/consent", json={"consent": True}, timeout=30).raise_for_status()
    now = datetime.now(UTC).isoformat()
    bought = [
        {"eventId": f"{ME}{at}{now}", "type": "purchase", "time": now, "user": ME, "basket": f"{at}", "item": "A00007"}
        for at in range(2)
    ]
    assert post(service, "/v1/events", {"events": bought})["stored"] == 2


def suggestions(page: Any) -> list[str]:
    return [str(one) for one in page.locator("#suggestions .title").all_inner_texts()]


def test_a_person_searches_fills_a_cart_and_sees_why_suggestions_change(page: Any) -> None:
    page.goto("/dashboard/playground")
    popular = suggestions(page)
    assert "most popular" in page.locator("#told").inner_text()
    page.get_by_role("combobox", name="Search for an item to add").press_sequentially("paper notebook")
    page.get_by_role("option", name="Red paper notebook").click()
    page.locator("#told", has_text="for 1 item").wait_for()
    of_one = suggestions(page)
    assert of_one != popular
    assert "Red paper notebook" not in of_one
    assert "Red paper notebook" in page.locator("#suggestions .why").first.inner_text()
    assert "100 %" in page.locator("#suggestions .why").first.inner_text()
    page.locator("#suggestions").get_by_role("button", name=f"Add {of_one[0]} to the cart").click()
    page.locator("#told", has_text="for 2 items").wait_for()
    assert of_one[0] not in suggestions(page)
    page.locator("#cart").get_by_role("button", name="Remove Red paper notebook").click()
    page.locator("#told", has_text="for 1 item").wait_for()
    assert of_one[0] in page.locator("#suggestions .why").first.inner_text()
    page.get_by_role("button", name="Empty the cart").click()
    page.locator("#told", has_text="The cart is empty").wait_for()
    assert suggestions(page) == popular


def test_the_playground_needs_no_mouse(page: Any) -> None:
    page.goto("/dashboard/playground")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # the link that skips the navigation
    tab_to(page, "q")
    page.keyboard.type("ceramic")
    page.get_by_role("option").nth(1).wait_for()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    chosen = page.locator("[role=option][aria-selected=true]")
    assert page.locator(":focus").get_attribute("aria-activedescendant") == chosen.get_attribute("id")
    title = chosen.locator("span").inner_text()
    page.keyboard.press("Enter")
    page.locator("#told", has_text="for 1 item").wait_for()
    page.locator("#said", has_text="1 item").wait_for(state="attached")  # what a screen reader says
    page.keyboard.press("Tab")
    assert page.locator(":focus").get_attribute("aria-label") == f"Remove {title}"
    tab_to(page, "diversity")
    page.keyboard.press("ArrowRight")
    page.locator("#suggestions[aria-busy]").wait_for(state="detached")
    page.keyboard.press("Tab")
    page.keyboard.press("Tab")
    assert (page.locator(":focus").get_attribute("aria-label") or "").startswith("Add ")
    page.keyboard.press("Enter")
    page.locator("#told", has_text="for 2 items").wait_for()
    page.locator("#q:focus").wait_for()  # the button is gone, and the focus is not lost


def tab_to(page: Any, id: str) -> None:
    """Press Tab until the element has the focus."""
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == id:
            return
    raise AssertionError(f"{id} cannot be reached by Tab")


def test_a_person_opens_a_run_and_reads_its_privacy_card(page: Any) -> None:
    page.goto("/dashboard/")
    page.get_by_role("link", name="Runs").click()
    page.get_by_role("link", name="private", exact=True).click()
    page.get_by_role("navigation", name="On this page").get_by_role("link", name="Privacy card").click()
    card = page.get_by_role("region", name="Privacy card")
    assert card.evaluate("one => one.getBoundingClientRect().top < innerHeight")
    assert re.search(r"Epsilon \S+ at delta \S+ for each user", card.inner_text())
    assert "Who sees what" in card.inner_text()
    page.goto("/dashboard/runs/first")
    assert "Epsilon" not in page.get_by_role("region", name="Privacy card").locator("p").first.inner_text()


def test_a_person_compares_two_runs(page: Any) -> None:
    page.goto("/dashboard/runs")
    assert page.get_by_role("checkbox", name="compare changed").count() == 0  # it is not trusted
    for name in ("first", "rounds"):
        page.get_by_role("checkbox", name=f"compare {name}").check()
    page.get_by_role("button", name="Compare the chosen runs").click()
    page.get_by_role("heading", name="2 runs side by side").wait_for()
    row = page.get_by_role("row", name=re.compile("^ndcg@10")).first
    first, rounds = (float(one) for one in row.get_by_role("cell").all_inner_texts()[-2:])
    assert 0 < rounds < first < 1
    page.locator("[data-plot] .main-svg").first.wait_for()


def test_a_person_exports_and_erases_a_user_and_gets_a_receipt(page: Any, stored: None, tmp_path: Path) -> None:
    look_up(page)
    assert re.search(r"events\s+2$", page.locator(".facts").inner_text())
    export = downloaded(page, "Export as JSON", tmp_path)
    assert [one["items"][0]["item"] for one in export["events"]] == ["A00007", "A00007"]
    page.get_by_role("button", name="Erase …").click()
    page.get_by_label("Type the id once more").fill("somebody else")
    page.get_by_role("button", name="Erase for good").click()
    assert "nothing was erased" in page.get_by_role("alert").inner_text()
    page.get_by_label("Type the id once more").fill(ME)
    page.get_by_role("button", name="Erase for good").click()
    page.get_by_role("heading", name="Erased").wait_for()
    receipt = downloaded(page, "Download the receipt", tmp_path)
    assert receipt["erased"]["events"] == 2
    assert receipt["user"] == ME
    page.get_by_role("link", name="Done").click()
    proof = page.get_by_role("row", name=receipt["id"])
    assert proof.get_by_role("cell").last.locator("code").get_attribute("title") == receipt["proof"]
    assert ME not in page.content()
    look_up(page)
    assert re.search(r"events\s+0$", page.locator(".facts").inner_text())


def look_up(page: Any) -> None:
    page.goto("/dashboard/people")
    page.get_by_label("User id").fill(ME)
    page.get_by_role("button", name="Look up").click()
    page.get_by_role("heading", name=ME).wait_for()
    assert ME not in page.url


def downloaded(page: Any, button: str, folder: Path) -> Any:
    with page.expect_download() as found:
        page.get_by_role("button", name=button).click()
    found.value.save_as(folder / "file.json")
    return json.loads((folder / "file.json").read_text("utf-8"))


def test_an_objection_removes_what_was_stored(page: Any, stored: None, service: Any) -> None:
    look_up(page)
    page.get_by_role("button", name="Record an objection").click()
    assert "2 stored events were removed" in page.get_by_role("status").inner_text()
    late = {"eventId": "late", "type": "view", "time": datetime.now(UTC).isoformat(), "user": ME, "item": "A00007"}
    assert post(service, "/v1/events", late)["declined"] == 1
    page.get_by_role("button", name="Record consent").click()
    assert "may be stored from now on" in page.get_by_role("status").inner_text()


def test_a_person_logs_in_with_a_key_and_out_again(opening: Callable[..., Any], made: Any) -> None:
    page = opening(base_url=made.keyed.address)
    page.goto("/dashboard/people")
    page.get_by_role("heading", name="Log in").wait_for()
    page.get_by_label("API key").fill("csk_wrong")
    page.get_by_role("button", name="Log in").click()
    assert "key" in page.get_by_role("alert").inner_text()
    page.get_by_label("API key").fill(made.key)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="People").wait_for()  # where the person wanted to go
    (cookie,) = page.context.cookies()
    assert cookie["httpOnly"]
    assert cookie["sameSite"] in ("Lax", "Strict")
    assert made.key not in cookie["value"]
    page.get_by_label("User id").fill(ME)  # the key has the scope users, too
    page.get_by_role("button", name="Look up").click()
    page.get_by_role("heading", name=ME).wait_for()
    page.get_by_role("button", name="Log out").click()
    page.get_by_role("heading", name="Log in").wait_for()
    page.goto("/dashboard/")
    page.get_by_role("heading", name="Log in").wait_for()
    assert page.context.cookies() == []


def test_without_a_script_pages_do_the_same(opening: Callable[..., Any], stored: None, tmp_path: Path) -> None:
    page = opening(java_script_enabled=False)
    page.goto("/dashboard/playground")
    page.get_by_label("Search for an item to add").fill("paper notebook")
    page.get_by_role("button", name="Search").click()
    page.get_by_role("button", name="Add Red paper notebook").click()
    assert "for 1 item" in page.locator("#told").inner_text()
    assert "Red paper notebook" in page.locator("#suggestions .why").first.inner_text()
    page.get_by_role("button", name="Remove Red paper notebook").click()
    assert "The cart is empty" in page.locator("#told").inner_text()
    page.goto("/dashboard/runs/rounds")
    assert "needs JavaScript" in page.locator(".noplot").first.inner_text()
    page.get_by_text("The figures as a table").first.click()
    assert page.locator("figure table").first.is_visible()
    look_up(page)
    assert downloaded(page, "Export as JSON", tmp_path)["user"] == ME
