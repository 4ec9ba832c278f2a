"""Events over HTTP."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from coterie.serving.conversion import event_of
from coterie.serving.schemas import EventIn

Event = Callable[..., dict[str, Any]]


def test_one_event_or_a_batch_and_each_is_stored_once(desk: Any, event: Event) -> None:
    one = event(1, user="u1")
    assert desk.client.post("/v1/events", json=one).json() == {"stored": 1, "duplicates": 0, "declined": 0}
    assert desk.tell(one, event(2), event(3, "click", position=2)) == {"stored": 2, "duplicates": 1, "declined": 0}


def test_events_of_who_objects_are_declined(desk: Any, event: Event) -> None:
    desk.client.put("/v1/users/u1/consent", json={"consent": False})
    assert desk.tell(event(1, user="u1"), event(2, user="u2"), event(3)) == {
        "stored": 2,
        "duplicates": 0,
        "declined": 1,
    }
    assert desk.client.get("/v1/users/u1/export").json()["events"] == []


def test_an_event_comes_back_in_the_export_as_it_was_told(desk: Any, event: Event) -> None:
    lines = [{"item": "A00001", "quantity": 2.0, "price": 9.9}, {"item": "A00002", "position": 7}]
    sent = event(1, "purchase", user="u1", basket="b1", items=lines)
    sent["time"] = "2026-05-01T18:30:00.000001+02:00"
    desk.tell(sent)
    (held,) = desk.client.get("/v1/users/u1/export").json()["events"]
    assert held["items"] == lines
    assert (held["eventId"], held["type"], held["basket"], held["user"]) == ("e1", "purchase", "b1", "u1")
    assert datetime.fromisoformat(held["time"]) == datetime(2026, 5, 1, 16, 30, 0, 1, UTC)


def test_items_of_an_impression_stand_in_the_order_of_the_list() -> None:
    time = datetime(2026, 5, 1, tzinfo=UTC)
    lines = [{"item": "a"}, {"item": "b", "position": 9}, {"item": "c"}]
    shown = EventIn.model_validate({"eventId": "e", "type": "impression", "time": time, "items": lines})
    assert [line.position for line in event_of(shown).lines] == [1, 9, 3]
    bought = EventIn.model_validate({"eventId": "e", "type": "purchase", "time": time, "items": lines})
    assert [line.position for line in event_of(bought).lines] == [None, 9, None]


@pytest.mark.parametrize(
    "wrong",
    [
        {"type": "rating"},
        {"type": "view", "value": 3},
        {"item": None},
        {"items": [{"item": "b"}]},
        {"item": None, "items": []},
        {"item": None, "items": [{"item": "b"}], "quantity": 2},
        {"type": "buy"},
        {"time": "2026-05-01T18:30:00"},
        {"time": "2026-02-30T18:30:00Z"},
        {"time": "1969-12-31T23:59:59Z"},
        {"time": (datetime.now(UTC) + timedelta(days=2)).isoformat()},
        {"eventId": ""},
        {"position": 0},
        {"userId": "u1"},
    ],
)
def test_what_did_not_happen(wrong: dict[str, Any], desk: Any, event: Event) -> None:
    content = {name: value for name, value in {**event(1), **wrong}.items() if value is not None}
    reply = desk.client.post("/v1/events", json={"events": [event(2), content]})
    assert reply.status_code == 422, reply.text
    assert reply.json()["errors"][0]["pointer"].startswith("#/events/1")
    assert desk.tell(event(2))["stored"] == 1  # nothing of the batch was kept
    assert desk.client.post("/v1/events", json=content).status_code == 422


def test_a_clock_that_is_hours_ahead_is_no_fault(desk: Any, event: Event) -> None:
    assert desk.tell(event(1, time=(datetime.now(UTC) + timedelta(hours=14)).isoformat()))["stored"] == 1


def test_a_page_tells_of_guests_and_of_its_own_user(desk: Any, event: Event) -> None:
    def tell(**content: Any) -> int:
        return desk.page.post("/v1/events", json={"events": [event(1), event(2, **content)]}).status_code

    token = desk.client.post("/v1/users/u1/token").json()["userToken"]
    assert tell(user="u1") == 403
    assert tell(user="u2", userToken=token) == 403
    assert desk.client.get("/v1/users/u1/export").json()["events"] == []
    assert tell(user="u1", userToken=token) == 200
    assert tell() == 200


def test_a_batch_has_a_limit_that_is_named(desk_of: Callable[..., Any], event: Event) -> None:
    desk = desk_of(access={"batch": 2})
    reply = desk.client.post("/v1/events", json={"events": [event(n) for n in range(3)]})
    assert reply.status_code == 413
    assert "2 events, got 3" in reply.json()["detail"]


def test_an_empty_batch_is_none(desk: Any) -> None:
    assert desk.client.post("/v1/events", json={"events": []}).status_code == 422
    assert desk.client.post("/v1/events", json=[]).status_code == 422
