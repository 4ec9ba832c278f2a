"""The example shop, as a customer meets it."""

from __future__ import annotations

import re
import statistics
import time
from typing import Any

import httpx
import pytest

# Inside the page, between the API's answer and the moment in which the suggestion is gone: what a customer sees.
SELL_OUT = """async (id) => {
  const shown = () => document.querySelector(`#with [data-item="${id}"]`);
  const gone = new Promise((done) => {
    const look = () => shown() || done(performance.now());
    new MutationObserver(look).observe(document.getElementById("with"), { childList: true, subtree: true });
  });
  const told = await fetch(`/v1/items/${id}`, {
    method: "PATCH", headers: { "Content-Type": "application/json" }, body: '{"stock": 0}',
  });
  if (!told.ok || !shown()) throw new Error("not sold out here");
  const at = performance.now();
  return (await gone) - at;
}"""


@pytest.fixture
def shop(page: Any) -> Any:
    page.goto("/example/shop.html")
    page.locator("#with .coterie-item").first.wait_for()
    page.locator("#shelf li").first.wait_for()
    return page


def suggested(page: Any) -> list[str]:
    return [str(one) for one in page.locator("#with .coterie-item").evaluate_all("all => all.map(o => o.dataset.item)")]


def test_suggestions_change_with_the_cart(shop: Any) -> None:
    before = suggested(shop)
    assert shop.locator("#with-title").inner_text() == "Popular"
    shop.locator("#shelf li button").nth(3).click()
    shop.locator("#cart li").wait_for()
    shop.get_by_role("heading", name="Goes well with it").wait_for()
    in_cart = shop.locator("#cart li").get_attribute("data-item")
    assert suggested(shop) != before
    assert in_cart not in suggested(shop)


def test_what_is_sold_out_vanishes_within_a_second(shop: Any, service: Any) -> None:
    waited = []
    for _ in range(3):  # the median: a machine that runs tests may stop for a second at any time
        gone = suggested(shop)[0]
        waited.append(shop.evaluate(SELL_OUT, gone))
        httpx.patch(f"{service.address}/v1/items/{gone}", json={"stock": 5}, timeout=30).raise_for_status()
        shop.locator(f"#with [data-item='{gone}']").wait_for()
    assert statistics.median(waited) < 1000, waited


def test_a_new_price_is_shown_and_is_no_second_impression(shop: Any, service: Any) -> None:
    told = list[str]()
    shop.on("request", lambda asked: told.append(asked.post_data or "") if "/v1/events" in asked.url else None)
    first = suggested(shop)[0]
    shop.locator(f"#with [data-item='{first}'] button").focus()
    httpx.patch(f"{service.address}/v1/items/{first}", json={"price": 1234.5}, timeout=30).raise_for_status()
    shop.locator(f"#with [data-item='{first}']", has_text="€1,234.50").wait_for()
    assert shop.evaluate("document.activeElement.closest('li').dataset.item") == first  # focus stays
    shop.locator("#shelf", has_text="€1,234.50").wait_for()
    assert [one for one in told if "impression" in one] == []


def test_search_cart_and_purchase_by_keyboard(shop: Any, service: Any) -> None:
    bought = metric(service, 'kind="purchase"')
    title = shop.locator("#shelf li span").nth(0).inner_text()
    shop.get_by_label("Search").fill(title)
    shop.wait_for_function("() => document.querySelectorAll('#shelf li').length < 12")
    shop.get_by_role("button", name=re.compile("^Add")).first.focus()
    shop.keyboard.press("Enter")
    shop.get_by_text("is in the cart").wait_for()
    shop.get_by_role("button", name="Buy").focus()
    shop.keyboard.press("Enter")
    shop.get_by_text("Thank you.").wait_for()
    end = time.monotonic() + 30
    while metric(service, 'kind="purchase"') == bought:
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_purchase_goes_to_the_answer_that_the_article_was_taken_from(shop: Any) -> None:
    with shop.expect_request(lambda asked: '"add-to-cart"' in (asked.post_data or "")) as added:
        shop.locator("#with .coterie-item button").first.click()
    taken = added.value.post_data_json
    shop.get_by_role("heading", name="Goes well with it").wait_for()  # another answer stands there now
    with shop.expect_request(lambda asked: '"purchase"' in (asked.post_data or "")) as bought:
        shop.get_by_role("button", name="Buy").click()
    said = bought.value.post_data_json
    assert said["recommendationId"] == taken["recommendationId"]
    assert [one["item"] for one in said["items"]] == [taken["item"]]


def metric(service: Any, label: str) -> float:
    """The sum of the counters with a label."""
    lines = httpx.get(f"{service.address}/metrics", timeout=30).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if label in line and not line.startswith("#"))


def test_what_stands_there_stays_when_no_answer_comes_in_time(page: Any) -> None:
    late = list[float]()

    def wait(route: Any) -> None:
        time.sleep(0.3)  # twice what the page waits for
        late.append(time.monotonic())
        route.continue_()

    page.route("**/v1/recommend/basket", wait)
    page.goto("/example/shop.html")
    with page.expect_response("**/v1/recommend/basket"), page.expect_response("**/v1/recommend/popular"):
        pass
    page.locator("#shelf li").first.wait_for()
    assert "best sellers" in page.locator("#with").inner_text()
    assert late


def test_nothing_is_stored_in_the_browser(shop: Any) -> None:
    assert shop.context.cookies() == []
    assert shop.evaluate("localStorage.length + sessionStorage.length") == 0
    assert shop.evaluate("indexedDB.databases().then(all => all.length)") == 0


def test_the_snippet_has_less_than_five_kilobytes(service: Any) -> None:
    assert len(httpx.get(f"{service.address}/static/coterie.js", timeout=30).content) < 5_000
