"""The overview follows by itself, and does not keep the server from stopping."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from coterie.serving.dashboard import overview
from tests.serving.dashboard.conftest import Opened
from tests.serving.service import Service

SOON = 5.0  # seconds


def _events(answer: httpx.Response) -> Iterator[str]:
    for line in answer.iter_lines():
        if line.startswith("data: "):
            yield json.loads(line.removeprefix("data: "))


def test_changes_arrive_and_a_stop_ends_the_stream(runs: Path, tmp_path: Path) -> None:
    with Service(runs / "first", tmp_path / "store.sqlite") as service, service.client() as client:
        with client.stream("GET", "/dashboard/live") as answer:
            assert answer.headers["content-type"].startswith("text/event-stream")
            events = _events(answer)
            assert "Nothing has been changed yet" not in next(events)
            with service.client() as other:
                assert other.put("/v1/items/tea%3Cb%3E", json={"title": "Tea"}).is_success
            began = time.monotonic()
            assert any("tea&lt;b&gt;" in content for content in events)
            assert time.monotonic() - began < SOON
            began = time.monotonic()
            service.process.terminate()
            assert list(events) is not None  # it ends
        assert service.process.wait(30) == 0
        assert time.monotonic() - began < SOON


def test_too_many_followers_are_told_to_come_again(
    opening: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "MOST_STREAMS", 0)
    answer = opening().get("/dashboard/live")
    assert answer.status_code == 503
    assert "retry-after" in answer.headers


def test_a_stream_lives_for_a_while_and_says_so(
    opening: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "EVERY", 0.05)
    monkeypatch.setattr(overview, "HEARTBEAT", 0.2)
    monkeypatch.setattr(overview, "LIFE", 1.0)
    text = opening().get("/dashboard/live").text
    assert text.count("event: overview") == 1  # nothing changed
    assert ": still here" in text
    assert "Answering now" in text


def test_what_follows_each_other_is_one_change(shop: Opened) -> None:
    found = overview.last_changes(shop.deployment)
    assert found[0]["kind"] == "item"
    assert found[0]["count"] > 100
    assert found[-1]["kind"] == "rollout"


def test_traffic_is_counted_for_the_api_alone(shop: Opened) -> None:
    for _ in range(3):
        assert shop.browser.request("POST", "/v1/recommend/basket", json={"items": []}).status_code == 200
    page = shop.get("/dashboard/").text
    assert "<dt>API requests</dt><dd>3</dd>" in page
    assert "completes a basket" in page
    assert "100 %" in page
