"""Questions and answers over HTTP."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest

import coterie
from coterie.serving.schemas import Recommendations
from coterie.serving.tokens import read, user_token


def test_a_basket_gets_what_the_run_itself_suggests(desk: Any, run_folder: Any) -> None:
    answer = desk.ask("basket", items=["A00001", "A00002"], k=5, explain=True)
    want = coterie.load(run_folder).recommend(["A00001", "A00002"], k=5)
    assert [one["item"] for one in answer["items"]] == [one.item for one in want]
    assert [one["score"] for one in answer["items"]] == pytest.approx([one.score for one in want], rel=1e-5)
    because = answer["items"][0]["because"]
    assert [(one["term"], one["item"]) for one in because] == [(term, item) for term, item, _ in want[0].because]
    Recommendations.model_validate_json(desk.client.post("/v1/recommend/basket", json={}).content, strict=True)


def test_ids_and_objects_mix_and_order_is_that_of_times_with_their_offsets(desk: Any) -> None:
    plain = desk.suggested(items=["A00001", "A00002"])
    assert desk.suggested(items=[{"item": "A00001", "quantity": 2}, "A00002"]) == plain
    later = {"item": "A00001", "time": "2026-05-01T23:00:00+02:00"}
    earlier = {"item": "A00002", "time": "2026-05-01T20:30:00Z"}
    assert desk.suggested(items=[later, earlier]) == desk.suggested(items=[earlier, later])


def test_unknown_items_are_reported_and_nothing_known_is_popularity(desk: Any) -> None:
    answer = desk.ask("basket", items=["A00001", "nothing such"])
    assert (answer["unknown"], answer["fallback"], answer["personal"]) == (["nothing such"], None, False)
    popular = desk.ask("popular")
    assert popular["fallback"] is None
    for items in ([], ["nothing such"]):
        answer = desk.ask("basket", items=items)
        assert answer["fallback"] == "popularity"
        assert [one["item"] for one in answer["items"]] == [one["item"] for one in popular["items"]]


def test_similar_is_about_one_item(desk: Any) -> None:
    answer = desk.ask("similar", item="A00001", k=3)
    assert len(answer["items"]) == 3
    assert "A00001" not in [one["item"] for one in answer["items"]]
    assert desk.ask("similar", item="nothing such")["unknown"] == ["nothing such"]


def test_the_id_of_an_answer_says_who_gave_it(desk: Any) -> None:
    first, second = (desk.ask("popular")["recommendationId"] for _ in range(2))
    assert first != second
    assert read(desk.deployment.store.secret, first).version == 1


def test_options_reach_the_engine(desk: Any) -> None:
    best = desk.suggested(items=["A00001"], k=5)
    assert desk.suggested(items=["A00001"], k=4, exclude=[best[0]]) == best[1:]
    assert desk.suggested(items=["A00001"], includeOnly=best[1:3]) == best[1:3]
    desk.client.put(f"/v1/items/{best[2]}", json={"price": 5, "stock": 2})
    assert desk.suggested(items=["A00001"], filter="price < 20.0") == [best[2]]
    assert desk.suggested(items=["A00001"], filter="cheap") == [best[2]]
    assert desk.suggested(items=["A00001"], boost="stock == 2 ? 100.0 : 1.0")[0] == best[2]


def test_an_expression_with_a_fault_is_said(desk: Any) -> None:
    for wrong in ("price <", "nosuchfunction(price)"):
        reply = desk.client.post("/v1/recommend/popular", json={"filter": wrong})
        assert reply.status_code == 400, reply.text
        assert wrong in reply.json()["detail"]


def test_answers_carry_what_the_shop_says(desk: Any) -> None:
    best = desk.suggested(items=["A00001"])[0]
    said = {"title": "Tray", "url": "/tray", "price": 3.5, "currency": "EUR", "stock": 4, "attributes": {"tags": ["a"]}}
    desk.client.put(f"/v1/items/{best}", json=said)
    shown = desk.ask("basket", items=["A00001"])["items"][0]
    assert {name: shown[name] for name in said} == said
    assert "because" not in shown


def test_a_user_is_answered_from_the_history_that_is_stored(desk: Any, event: Callable[..., Any]) -> None:
    nobody = desk.ask("user", user="u1")
    assert (nobody["personal"], nobody["fallback"]) == (False, "popularity")
    lines = [{"item": "A00001"}, {"item": "A00002"}]
    desk.tell(event(1, "purchase", user="u1", basket="b1", items=lines))
    answer = desk.ask("user", user="u1")
    assert (answer["personal"], answer["fallback"]) == (True, None)


def test_who_objects_gets_what_everybody_gets(desk: Any, event: Callable[..., Any]) -> None:
    desk.tell(event(1, "purchase", user="u1", items=[{"item": "A00001"}]))
    desk.client.put("/v1/users/u1/consent", json={"consent": False})
    answer = desk.ask("user", user="u1", items=["A00003"])
    assert (answer["personal"], answer["fallback"]) == (False, "popularity")
    everybody = [item for item in desk.suggested("popular", k=11) if item != "A00003"]
    assert [one["item"] for one in answer["items"]] == everybody[:10]


def test_without_the_consent_that_is_needed_nothing_is_personal(desk_of: Callable[..., Any]) -> None:
    desk = desk_of(people={"consent": "opt-in"})
    assert desk.ask("user", user="u1", items=["A00001"])["fallback"] == "popularity"
    desk.client.put("/v1/users/u1/consent", json={"consent": True})
    assert desk.ask("user", user="u1", items=["A00001"])["fallback"] is None


def test_a_page_speaks_for_the_user_whose_token_it_holds(desk: Any) -> None:
    def ask(user: str, token: str | None) -> int:
        return desk.page.post("/v1/recommend/user", json={"user": user, "userToken": token}).status_code

    token = desk.client.post("/v1/users/u1/token").json()["userToken"]
    assert ask("u1", token) == 200
    assert ask("u2", token) == 403
    assert ask("u1", None) == 403
    assert ask("u1", "forged") == 403
    late = user_token(desk.deployment.store.secret, "u1", time.time_ns() // 1000 - 1)
    assert ask("u1", late) == 403


def test_a_page_uses_expressions_by_name_and_no_client(desk: Any) -> None:
    def ask(**question: Any) -> int:
        return desk.page.post("/v1/recommend/popular", json=question).status_code

    assert ask(filter="cheap") == 200
    assert ask(filter="price < 20.0") == 403
    assert ask(boost="2.0") == 403
    assert ask(client="s1") == 403


def test_a_client_that_the_run_has_not_is_a_conflict(desk: Any) -> None:
    reply = desk.client.post("/v1/recommend/popular", json={"client": "nobody"})
    assert reply.status_code == 409
    assert "nobody" in reply.json()["detail"]


def test_limits_of_the_deployment(desk_of: Callable[..., Any]) -> None:
    desk = desk_of(answers={"max_k": 7, "max_basket": 2})
    assert len(desk.suggested("popular", k=7)) == 7
    reply = desk.client.post("/v1/recommend/popular", json={"k": 8})
    assert (reply.status_code, reply.json()["errors"][0]["pointer"]) == (422, "#/k")
    assert "7" in reply.json()["detail"]
    reply = desk.client.post("/v1/recommend/basket", json={"items": ["a", "b", "c"]})
    assert (reply.status_code, reply.json()["errors"][0]["pointer"]) == (422, "#/items")


def test_where_baskets_stay_in_the_browser_none_is_answered(desk_of: Callable[..., Any]) -> None:
    desk = desk_of(answers={"privacy": "browser"})
    reply = desk.client.post("/v1/recommend/basket", json={"items": ["A00001"]})
    assert reply.status_code == 409
    assert "stays" in reply.json()["detail"]
    assert desk.client.post("/v1/recommend/popular", json={}).status_code == 200


def test_noisy_answers_are_charged_to_the_user_until_nothing_is_left(desk_of: Callable[..., Any], event: Any) -> None:
    desk = desk_of(answers={"privacy": "noisy", "epsilon_per_answer": 1.0, "epsilon_per_user": 2.0})
    desk.tell(event(1, "purchase", user="u1", items=[{"item": "A00001"}]))
    fallbacks = [desk.ask("user", user="u1")["fallback"] for _ in range(3)]
    assert fallbacks == [None, None, "popularity"]
    assert desk.client.post("/v1/recommend/basket", json={"items": ["A00001"], "explain": True}).status_code == 409


@pytest.mark.parametrize(
    ("question", "pointer"),
    [
        ({"k": "10"}, "#/k"),
        ({"k": 0}, "#/k"),
        ({"kk": 1}, "#/kk"),
        ({"items": "A00001"}, "#/items"),
        ({"items": [{"item": "a\x00b"}]}, "#/items/0/item"),
        ({"items": [{"item": "a", "time": "2026-05-01T12:00:00"}]}, "#/items/0/time"),
        ({"items": [{"item": "a", "time": 1777000000}]}, "#/items/0/time"),
        ({"items": [{"item": "a", "time": "1777000000"}]}, "#/items/0/time"),
        ({"items": ["a", {"quantity": 1}]}, "#/items/1/item"),
        ({"diversity": 1.1}, "#/diversity"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(question: Any, pointer: str, desk: Any) -> None:
    reply = desk.client.post("/v1/recommend/basket", json=question)
    assert reply.status_code == 422, reply.text
    assert pointer in [one["pointer"] for one in reply.json()["errors"]]
