"""The playground: search, cart and suggestions, with a script and without."""

from __future__ import annotations

import json
import re

import pytest

from coterie.errors import UsageError
from coterie.serving.dashboard.playground import MOST_IN_CART, Wish, wish_of
from coterie.serving.dashboard.searching import MOST_HITS, folded
from coterie.serving.words import Item
from tests.serving.dashboard.conftest import EVIL, SAME, Opened


def _hits(shop: Opened, query: str) -> list[str]:
    return [one["title"] for one in shop.get("/dashboard/search", params={"q": query}).json()]


def test_search_finds_every_word_without_case_or_accents(shop: Opened) -> None:
    known = shop.deployment.versions.current().run.items
    shop.deployment.store.put_items([Item(known[5], "Crème BRÛLÉE dish")])
    shop.deployment.items_changed([known[5]])
    assert _hits(shop, "creme dish") == ["Crème BRÛLÉE dish"]
    assert _hits(shop, "DISH brulee") == ["Crème BRÛLÉE dish"]
    assert _hits(shop, "creme spoon") == []
    assert _hits(shop, "") == _hits(shop, "   ") == []
    assert folded("Ångström") == "angstrom"


def test_search_gives_the_nearest_first_and_not_too_many(shop: Opened) -> None:
    known = shop.deployment.versions.current().run.items
    assert len(_hits(shop, "tea")) == MOST_HITS
    assert shop.get("/dashboard/search", params={"q": known[9]}).json()[0]["id"] == known[9]
    assert _hits(shop, "cup 11")[0] == "Tea cup 11"


def test_a_deleted_item_is_not_found(shop: Opened) -> None:
    known = shop.deployment.versions.current().run.items
    assert "Tea cup 7" in _hits(shop, "tea cup 7")
    shop.deployment.store.delete_items([known[7]])
    shop.deployment.items_changed([known[7]])
    assert "Tea cup 7" not in _hits(shop, "tea cup 7")


def test_the_form_alone_fills_and_empties_a_cart(shop: Opened) -> None:
    known = shop.deployment.versions.current().run.items

    def cart(page: str) -> list[str]:
        return re.findall(r'name="item" value="([^"]+)"', page)

    found = shop.post("/dashboard/playground", q="tea cup 3").text
    assert f'name="add" value="{known[3]}"' in found
    added = shop.post("/dashboard/playground", item=[known[2]], add=known[3]).text
    assert cart(added) == [known[2], known[3]]
    assert "for 2 items" in added
    assert cart(shop.post("/dashboard/playground", item=[known[2], known[3]], remove=known[2]).text) == [known[3]]
    assert cart(shop.post("/dashboard/playground", item=[known[2], known[3]], empty="1").text) == []


def test_suggestions_follow_the_cart_and_say_why(shop: Opened) -> None:
    known = shop.deployment.versions.current().run.items

    def suggested(*items: str, **more: list[str]) -> str:
        answer = shop.browser.request(
            "POST", "/dashboard/suggest", content=json.dumps({"item": items, **more}), headers=SAME
        )
        assert answer.status_code == 200
        return str(answer.text)

    nothing, some = suggested(), suggested(known[1], known[4])
    assert "most popular" in nothing
    assert "for 2 items" in some
    assert known[1] not in re.findall(r'name="add" value="([^"]+)"', some)
    assert "&lt;script&gt;alert" in some or "Tea cup 4" in some  # the reasons
    assert EVIL not in some
    assert len(re.findall(r"<li>\s*<span class=\"place\"", suggested(known[4], k=["3"]))) == 3
    assert "unknown-item" in suggested(known[4], "unknown-item")


@pytest.mark.parametrize("body", ["", "[]", "7", '{"item": 7}', "[" * 100_000, '{"item": [{}]', "\x00"])
def test_what_is_no_cart_is_refused_in_a_sentence(shop: Opened, body: str) -> None:
    answer = shop.browser.request("POST", "/dashboard/suggest", content=body, headers=SAME)
    assert answer.status_code == 400
    assert "JSON object of lists" in answer.text


def test_a_wish_is_kept_within_bounds() -> None:
    assert wish_of({}) == Wish()
    assert wish_of({"k": ["9999"], "diversity": ["nan"]}) == Wish(k=50)
    assert wish_of({"k": ["-3"], "diversity": ["7"]}) == Wish(k=1, diversity=1.0)
    assert wish_of({"k": ["x"], "anything": ["1"]}) == Wish(in_stock=False)
    assert wish_of({"item": ["a", "a", "", "b"], "remove": ["b"]}).cart == ("a",)
    with pytest.raises(UsageError, match="at most"):
        wish_of({"item": [str(at) for at in range(MOST_IN_CART + 1)]})
