"""Errors, wherever they come from: problems without traces, and without others' ids."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from coterie.errors import EnvironmentFault, ModelError
from coterie.serving.problems import PROBLEM
from coterie.serving.schemas import Problem


def checked(reply: Any, status: int) -> dict[str, Any]:
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == PROBLEM
    problem = Problem.model_validate(reply.json(), strict=True)
    assert (problem.status, problem.type) == (status, "about:blank")
    content: dict[str, Any] = reply.json()
    return content


def test_nothing_is_there(desk: Any) -> None:
    assert "/openapi.json" in checked(desk.client.get("/v1/nothing"), 404)["detail"]


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/v1/items/a", "GET, PUT, PATCH, DELETE"),
        ("DELETE", "/v1/items", "GET, POST"),
        ("GET", "/v1/events", "POST"),
        ("GET", "/v1/users/a", "DELETE"),
        ("DELETE", "/health/live", "GET"),
        ("TRACE", "/v1/model", "GET"),
    ],
)
def test_another_method_hears_which_there_are(method: str, path: str, allowed: str, desk: Any) -> None:
    reply = desk.client.request(method, path)
    assert allowed in checked(reply, 405)["detail"]
    assert reply.headers["allow"] == allowed


def test_what_is_no_json(desk: Any) -> None:
    for content in (b"{", b"", b"\xff", b'{"a": NaN}', b'"\\ud800"', b"[" * 100_000):
        reply = desk.client.post("/v1/recommend/basket", content=content, headers={"Content-Type": "application/json"})
        checked(reply, 400 if content != b'{"a": NaN}' else 422)


def test_what_is_not_declared_as_json(desk: Any) -> None:
    for kind in ("text/plain", "application/x-www-form-urlencoded"):
        checked(desk.client.post("/v1/events", content="{}", headers={"Content-Type": kind}), 415)


def test_who_is_not_known_is_told_how(desk: Any) -> None:
    reply = desk.stranger.post("/v1/recommend/popular", json={})
    assert "X-Api-Key" in checked(reply, 401)["detail"]
    assert reply.headers["www-authenticate"].startswith("Bearer")


def test_a_thousand_faults_are_told_in_part(desk: Any) -> None:
    problem = checked(desk.client.post("/v1/recommend/basket", json={"exclude": [1] * 1000}), 422)
    assert len(problem["errors"]) == 20
    assert "1000 faults" in problem["detail"]


def test_places_are_json_pointers(desk: Any) -> None:
    problem = checked(desk.client.post("/v1/recommend/basket", json={"a/b~c": 1}), 422)
    assert problem["errors"] == [{"pointer": "#/a~1b~0c", "detail": "there is no such field"}]


def test_parameters_are_named(desk: Any) -> None:
    problem = checked(desk.client.get("/v1/items", params={"limit": "x"}), 422)
    assert problem["errors"][0]["parameter"] == "limit"


def test_a_fault_of_ours_tells_the_client_nothing(
    desk: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise KeyError("somebody-4711")

    monkeypatch.setattr(desk.deployment, "ask", fail)
    reply = desk.client.post("/v1/recommend/basket", json={"items": ["A00001"]})
    problem = checked(reply, 500)
    for word in ("4711", "KeyError", "A00001", ".py"):
        assert word not in reply.text
    assert reply.headers["x-request-id"] in problem["detail"]


def test_what_the_environment_does_is_503_and_told_to_the_log(
    desk: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise EnvironmentFault("/srv/store.sqlite: disk full")

    monkeypatch.setattr(desk.deployment.store, "put_items", fail)
    with caplog.at_level(logging.ERROR):
        reply = desk.client.put("/v1/items/a", json={})
    assert "srv" not in checked(reply, 503)["detail"]
    assert reply.headers["retry-after"]
    assert "disk full" in caplog.text


def test_what_does_not_go_with_the_model_is_409(desk: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ModelError("this run has no such thing")

    monkeypatch.setattr(desk.deployment, "ask", refuse)
    assert checked(desk.client.post("/v1/recommend/popular", json={}), 409)["detail"] == "this run has no such thing"
