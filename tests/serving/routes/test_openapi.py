"""The OpenAPI document: whole, with examples that hold, and with this deployment's limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
import pytest

from coterie.serving.routes import events, health, items, model, recommend, users

ROUTES = {
    "POST /v1/recommend/basket",
    "POST /v1/recommend/user",
    "POST /v1/recommend/similar",
    "POST /v1/recommend/popular",
    "PUT /v1/items/{id}",
    "PATCH /v1/items/{id}",
    "DELETE /v1/items/{id}",
    "GET /v1/items/{id}",
    "GET /v1/items",
    "POST /v1/items",
    "POST /v1/events",
    "GET /v1/users/{id}/export",
    "DELETE /v1/users/{id}",
    "PUT /v1/users/{id}/consent",
    "GET /v1/users/{id}/consent",
    "POST /v1/users/{id}/token",
    "GET /v1/model",
    "GET /v1/model/card",
    "GET /health/live",
    "GET /health/ready",
    "GET /metrics",
}


@pytest.fixture
def document(desk: Any) -> dict[str, Any]:
    found: dict[str, Any] = desk.stranger.get("/openapi.json").json()
    return found


def operations(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path, methods in document["paths"].items():
        for method, described in methods.items():
            yield f"{method.upper()} {path}", described


def test_it_is_openapi_3_1_with_all_routes(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert document["info"]["title"] == "Coterie"
    assert document["info"]["version"]
    assert {name for name, _ in operations(document)} >= ROUTES


def test_every_group_makes_a_router(desk: Any) -> None:
    for group in (recommend, items, events, users, model, health):
        assert group.router(desk.deployment).routes


def test_each_operation_names_its_scope_and_its_refusals(document: dict[str, Any]) -> None:
    for name, described in operations(document):
        assert described["summary"], name
        answers = described["responses"]
        assert "500" in answers, name
        if "/health" in name:
            assert described["security"] == []
            continue
        scopes = {tuple(scopes) for one in described["security"] for scopes in one.values()}
        assert len(described["security"]) == 2, name
        assert len(scopes) == 1, name
        assert {"401", "403", "422", "429", "503"} <= answers.keys(), name
        if "requestBody" in described:
            assert {"413", "415"} <= answers.keys(), name


def test_examples_hold(document: dict[str, Any]) -> None:
    seen, shown = 0, document["components"]["examples"]
    for name, described in operations(document):
        bodies = [described["requestBody"]] if "requestBody" in described else []
        for status, answer in described["responses"].items():
            assert "content" in answer or status == "204", (name, status)
            bodies.append(answer)
        for content in (one for body in bodies for one in body.get("content", {}).values()):
            assert content["examples"], name
            for reference in content["examples"].values():
                example = shown[reference["$ref"].rpartition("/")[2]]
                schema = {**content["schema"], "components": document["components"]}
                jsonschema.validate(example["value"], schema, jsonschema.Draft202012Validator)
                seen += 1
    assert seen > 200


def test_examples_of_requests_are_answered(desk: Any, document: dict[str, Any]) -> None:
    desk.client.put("/v1/items/A00007", json={})
    shown = document["components"]["examples"]
    for name, described in operations(document):
        body = described.get("requestBody", {"content": {"application/json": {"examples": {}}}})
        for reference in body["content"]["application/json"]["examples"].values():
            example = shown[reference["$ref"].rpartition("/")[2]]
            method, path = name.replace("{id}", "A00007").split()
            reply = desk.client.request(method, path, json=example["value"])
            assert reply.status_code == 200, (name, reply.text)
            want = described["responses"]["200"]["content"]["application/json"]["schema"]
            schema = {**want, "components": document["components"]}
            jsonschema.validate(reply.json(), schema, jsonschema.Draft202012Validator)


def test_the_limits_are_those_of_the_deployment(desk_of: Callable[..., Any]) -> None:
    desk = desk_of(
        answers={"max_k": 7, "max_basket": 9}, access={"batch": 11}, server={"public_url": "https://r.example.org"}
    )
    found = desk.stranger.get("/openapi.json", headers={"Host": "r.example.org"}).json()
    schemas = found["components"]["schemas"]
    assert schemas["BasketQuestion"]["properties"]["k"]["maximum"] == 7
    assert schemas["BasketQuestion"]["properties"]["items"]["maxItems"] == 9
    assert schemas["EventsIn"]["properties"]["events"]["maxItems"] == 11
    assert found["servers"] == [{"url": "https://r.example.org"}]
