"""A person's rights over HTTP."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

Event = Callable[..., dict[str, Any]]


def test_of_nobody_nothing_is_held_and_nobody_hears_more(desk: Any) -> None:
    reply = desk.client.get("/v1/users/nobody/export")
    assert reply.status_code == 200
    held = reply.json()
    assert (held["user"], held["events"], held["consent"], held["other"]) == ("nobody", [], None, {})


def test_erasure_gives_a_receipt_and_leaves_no_byte(desk: Any, event: Event) -> None:
    desk.tell(event(1, user="somebody-4711"), event(2, user="other"))
    desk.client.put("/v1/users/somebody-4711/consent", json={"consent": True})
    receipt = desk.client.delete("/v1/users/somebody-4711").json()
    assert receipt["user"] == "somebody-4711"
    assert receipt["erased"]["events"] == 1
    salt = bytes.fromhex(receipt["salt"]) if all(c in "0123456789abcdef" for c in receipt["salt"]) else b""
    proofs = {hashlib.sha256(one + b"somebody-4711").hexdigest() for one in (salt, receipt["salt"].encode())}
    assert receipt["proof"] in proofs
    folder = Path(desk.deployment.config.store.address).parent
    assert b"somebody-4711" not in b"".join(path.read_bytes() for path in folder.glob("store.sqlite*"))
    assert desk.client.get("/v1/users/somebody-4711/export").json()["events"] == []
    assert len(desk.client.get("/v1/users/other/export").json()["events"]) == 1


def test_erasure_may_be_repeated_and_of_nobody_too(desk: Any) -> None:
    for _ in range(2):
        assert desk.client.delete("/v1/users/nobody").status_code == 200


def test_consent_is_kept_and_said(desk: Any, event: Event) -> None:
    path = "/v1/users/u1/consent"
    assert desk.client.get(path).json() == {"user": "u1", "recorded": None, "stored": True}
    desk.tell(event(1, user="u1"))
    assert desk.client.put(path, json={"consent": False}).json() == {"user": "u1", "recorded": False, "stored": False}
    assert desk.client.get("/v1/users/u1/export").json()["events"] == []
    assert desk.client.put(path, json={"consent": True}).json()["stored"] is True
    assert desk.client.put(path, json={"consent": "yes"}).status_code == 422


def test_ids_with_slashes_and_the_words_of_the_routes(desk: Any, event: Event) -> None:
    desk.tell(event(1, user="a/export"), event(2, user="export"))
    for user in ("a%2Fexport", "a/export", "export"):
        assert len(desk.client.get(f"/v1/users/{user}/export").json()["events"]) == 1
    reply = desk.client.delete("/v1/users/a/export")
    assert (reply.status_code, reply.headers["allow"]) == (405, "GET")
    assert desk.client.delete("/v1/users/a%2Fexport").status_code == 200
    assert desk.client.get("/v1/users/a/export/export").json()["events"] == []


def test_a_token_holds_for_hours(desk: Any) -> None:
    told = desk.client.post("/v1/users/u1/token").json()
    ahead = datetime.fromisoformat(told["expiresAt"]) - datetime.now(UTC)
    assert 11 < ahead.total_seconds() / 3600 <= 12
    assert "u1" not in told["userToken"]


def test_no_page_reads_or_erases_anybody(desk: Any) -> None:
    for method, path in (("GET", "u1/export"), ("DELETE", "u1"), ("POST", "u1/token"), ("GET", "u1/consent")):
        assert desk.page.request(method, f"/v1/users/{path}").status_code == 403
        assert desk.stranger.request(method, f"/v1/users/{path}").status_code == 401
