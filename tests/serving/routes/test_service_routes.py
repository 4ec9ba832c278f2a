"""What answers, whether it is well, and its figures."""

from __future__ import annotations

from typing import Any

import pytest

from coterie.report.card import privacy_card


def test_the_model_is_described_with_its_signer_and_its_card(desk: Any) -> None:
    told = desk.client.get("/v1/model").json()
    (version,) = told["versions"]
    served = desk.deployment.versions.current()
    assert told["answers"] == "plain"
    assert (version["model"], version["items"], version["share"], version["run"]) == ("cart", 60, 1.0, "first")
    assert version["signer"] == desk.deployment.versions.signer(1) is not None
    assert version["fingerprint"] == served.version.fingerprint
    assert version["privacyCard"] == privacy_card({**served.run.result, "run": "first"})
    assert desk.page.get("/v1/model").status_code == 200
    assert str(desk.deployment.run_folder) not in desk.page.get("/v1/model").text


def test_the_card_is_markdown(desk: Any) -> None:
    reply = desk.client.get("/v1/model/card")
    assert reply.headers["content-type"] == "text/markdown; charset=utf-8"
    assert reply.text.startswith("# Privacy card")


def test_health_needs_no_key_and_says_why_it_is_not_ready(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for method in ("GET", "HEAD"):
        assert desk.stranger.request(method, "/health/live").status_code == 200
        assert desk.stranger.request(method, "/health/ready").status_code == 200
    monkeypatch.setattr(desk.deployment, "not_ready", lambda: "no run is loaded yet")
    reply = desk.stranger.get("/health/ready")
    assert (reply.status_code, reply.json()["detail"]) == (503, "no run is loaded yet")
    assert desk.stranger.get("/health/live").status_code == 200


def test_figures_count_what_happened_and_name_nobody(desk: Any, event: Any) -> None:
    desk.client.put("/v1/items/article-4711", json={})
    desk.ask("basket", items=["article-4711"])
    desk.ask("user", user="somebody-4711")
    desk.tell(event(1, "purchase", user="somebody-4711"), event(2, "view"), event(2, "view"))
    desk.client.get("/v1/items/none-4711")
    desk.client.get("/nothing-4711")
    text = desk.client.get("/metrics").text
    assert "4711" not in text
    for line in (
        'coterie_requests_total{method="PUT",route="/v1/items/{id:path}",status="200"} 1.0',
        'coterie_answers_total{fallback="popularity",kind="basket",version="1"} 1.0',
        'coterie_events_received_total{kind="view"} 2.0',
        'coterie_events_total{outcome="duplicates"} 1.0',
        'coterie_model_share{model="cart",version="1"} 1.0',
        'coterie_store_write_seconds_count{what="events"} 1.0',
        'coterie_request_seconds_count{route="/v1/recommend/user"} 1.0',
        "coterie_items 1.0",
    ):
        assert line in text.splitlines(), line


def test_figures_are_for_operators(desk: Any) -> None:
    assert desk.page.get("/metrics").status_code == 403
    assert desk.stranger.get("/metrics").status_code == 401
