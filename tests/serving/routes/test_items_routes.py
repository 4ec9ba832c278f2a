"""Items over HTTP: live at once, in one transaction, and gone when they are deleted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

WHOLE = {
    "title": "Tray",
    "url": "https://shop.example.org/tray",
    "image": "/tray.jpg",
    "price": 3.5,
    "currency": "EUR",
    "stock": 4,
    "language": "en",
    "group": "trays",
    "attributes": {"tags": ["a", "b"], "margin": 0.5, "new": True, "colour": "red"},
}


def test_an_item_comes_back_as_it_was_put(desk: Any) -> None:
    put = desk.client.put("/v1/items/A00001", json=WHOLE)
    assert put.status_code == 200
    shown = desk.client.get("/v1/items/A00001").json()
    assert shown == put.json()
    assert {name: shown[name] for name in WHOLE} == WHOLE
    assert (shown["id"], shown["inModel"]) == ("A00001", True)
    assert desk.client.put("/v1/items/new", json={}).json()["inModel"] is False


def test_put_replaces_and_patch_changes(desk: Any) -> None:
    desk.client.put("/v1/items/A00001", json=WHOLE)
    patched = desk.client.patch(
        "/v1/items/A00001", json={"price": 2, "stock": None, "attributes": {"new": False}}
    ).json()
    want = {**WHOLE, "price": 2.0, "stock": None, "attributes": {"new": False}}
    assert {name: patched[name] for name in WHOLE} == want
    put = desk.client.put("/v1/items/A00001", json={"title": "Other"}).json()
    assert (put["title"], put["price"], put["attributes"]) == ("Other", None, {})


def test_what_is_not_there_cannot_be_changed_or_read(desk: Any) -> None:
    for reply in (desk.client.get("/v1/items/none"), desk.client.patch("/v1/items/none", json={"stock": 1})):
        assert reply.status_code == 404
        assert "none" not in reply.json()["detail"]


@pytest.mark.parametrize("change", ["put", "patch", "bulk"])
def test_stock_0_disappears_with_the_answer(change: str, desk: Any) -> None:
    best = desk.suggested(items=["A00001"])[0]
    desk.client.put(f"/v1/items/{best}", json={"stock": 1})
    assert desk.suggested(items=["A00001"])[0] == best
    if change == "bulk":
        reply = desk.client.post("/v1/items", json={"patch": [{"id": best, "stock": 0}]})
    else:
        reply = desk.client.request(change.upper(), f"/v1/items/{best}", json={"stock": 0})
    assert reply.status_code == 200
    assert best not in desk.suggested(items=["A00001"], k=100)
    desk.client.patch(f"/v1/items/{best}", json={"stock": None})
    assert desk.suggested(items=["A00001"])[0] == best


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("bulk", [True, False])
def test_a_deleted_item_is_not_suggested_whether_it_was_ever_put_or_not(known: bool, bulk: bool, desk: Any) -> None:
    best = desk.suggested(items=["A00001"])[0]
    if known:
        desk.client.put(f"/v1/items/{best}", json={"title": "x"})
    for deleted in (1, 0):
        if bulk:
            done = desk.client.post("/v1/items", json={"delete": [best]}).json()
            assert (done["put"], done["deleted"]) in ((0, 1), (0, deleted))
        else:
            assert desk.client.delete(f"/v1/items/{best}").status_code == 204
    assert best not in desk.suggested(items=["A00001"], k=100)
    assert desk.client.get(f"/v1/items/{best}").status_code == 404
    desk.client.put(f"/v1/items/{best}", json={})
    assert desk.suggested(items=["A00001"])[0] == best


def test_deleting_what_nobody_knows_is_no_fault(desk: Any) -> None:
    assert desk.client.delete("/v1/items/none").status_code == 204
    assert desk.client.post("/v1/items", json={"delete": ["none"]}).json()["missing"] == ["none"]


def test_many_at_once(desk: Any) -> None:
    desk.client.put("/v1/items/old", json={})
    many = {
        "put": [{"id": "a", "price": 1}, {"id": "b", "price": 2}],
        "patch": [{"id": "a", "stock": 5}, {"id": "ghost", "stock": 1}],
        "delete": ["old", "none"],
    }
    done = desk.client.post("/v1/items", json=many).json()
    assert {**done, "missing": set(done["missing"])} == {
        "put": 2,
        "patched": 1,
        "deleted": 1,
        "missing": {"ghost", "none"},
    }
    shown = desk.client.get("/v1/items/a").json()
    assert (shown["price"], shown["stock"]) == (1.0, 5)
    assert desk.client.get("/v1/items/old").status_code == 404


def test_one_wrong_item_and_nothing_is_written(desk: Any) -> None:
    reply = desk.client.post("/v1/items", json={"put": [{"id": "a"}, {"id": "b", "price": -1}]})
    assert (reply.status_code, reply.json()["errors"][0]["pointer"]) == (422, "#/put/1/price")
    assert desk.client.get("/v1/items/a").status_code == 404


def test_a_batch_has_a_limit_that_is_named(desk_of: Callable[..., Any]) -> None:
    desk = desk_of(access={"batch": 3})
    many = {"put": [{"id": "a"}, {"id": "b"}], "delete": ["c", "d"]}
    reply = desk.client.post("/v1/items", json=many)
    assert reply.status_code == 413
    assert reply.json()["detail"].startswith("one request may hold 3 items, got 4")


def test_pages_have_every_item_once(desk: Any) -> None:
    ids = [f"i{n:02d}" for n in range(7)]
    desk.client.post("/v1/items", json={"put": [{"id": id} for id in reversed(ids)]})
    seen, after = list[str](), None
    while True:
        page = desk.client.get("/v1/items", params={"limit": 3} | ({"after": after} if after else {})).json()
        seen += [one["id"] for one in page["items"]]
        after = page["next"]
        if after is None:
            break
    assert seen == ids
    for wrong in ("0", "1001", "x"):
        assert desk.client.get("/v1/items", params={"limit": wrong}).status_code == 422


@pytest.mark.parametrize("id", ["a/b", "ä ö", "50%", "a?b#c", "../etc", "x" * 200, "日本"])
def test_ids_are_any_text_that_can_be_shown(id: str, desk: Any) -> None:
    path = f"/v1/items/{quote(id, safe='')}"
    assert desk.client.put(path, json={"title": "x"}).json()["id"] == id
    assert desk.client.get(path).json()["id"] == id
    assert desk.client.delete(path).status_code == 204


@pytest.mark.parametrize("path", ["%00", "a%1fb", "x" * 201, "%7f"])
def test_ids_that_are_none(path: str, desk: Any) -> None:
    assert desk.client.get(f"/v1/items/{path}").status_code == 422


@pytest.mark.parametrize(
    "fields",
    [
        {"price": "3"},
        {"price": 1e400},
        {"stock": 1.5},
        {"stock": 2**31},
        {"url": "javascript:alert(1)"},
        {"title": "a\x00"},
        {"currency": "euro"},
        {"attributes": {"a": None}},
        {"attributes": {"a": 10**400}},
        {"attributes": {"not a name": 1}},
        {"id": "other"},
        [],
    ],
)
def test_what_no_item_can_be(fields: Any, desk: Any) -> None:
    import json

    text = json.dumps(fields)  # httpx refuses what is not finite
    reply = desk.client.put("/v1/items/a", content=text, headers={"Content-Type": "application/json"})
    assert reply.status_code in (400, 422), reply.text
    assert desk.client.get("/v1/items/a").status_code == 404


def test_a_page_may_not_touch_items(desk: Any) -> None:
    assert desk.page.put("/v1/items/a", json={}).status_code == 403
    assert desk.stranger.put("/v1/items/a", json={}).status_code == 401
    assert desk.stranger.get("/v1/items/%00").status_code == 401  # who asks is asked before anything else
