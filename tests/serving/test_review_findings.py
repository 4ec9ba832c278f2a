"""What the service must withstand besides what its parts promise: mistakes of people, and pages that lie."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

pytest.importorskip("fastapi", reason="needs the extra 'serve'")

from coterie.cli.output import Output
from coterie.cli.serve import _say
from coterie.errors import EnvironmentFault
from coterie.serving.app import application
from coterie.serving.config import ServeConfig
from coterie.serving.dashboard.feedback import _place
from coterie.serving.dashboard.overview import _holds
from coterie.serving.deployment import Deployment
from coterie.serving.security.keys import Caller, make_key
from coterie.serving.security.middleware import protect
from tests.serving.service import trained


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tmp_path_factory.mktemp("review") / "run")


@pytest.fixture
def deployment(run: Path, tmp_path: Path) -> Iterator[Deployment]:
    config = ServeConfig.model_validate({"store": {"address": str(tmp_path / "store.sqlite")}})
    opened = Deployment.open(config, run)
    yield opened
    opened.close()


def test_a_database_password_is_neither_printed_nor_shown(
    deployment: Deployment, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = "postgresql://ann:s3cr3t@db/shop"
    settings = deployment.config.store.model_copy(update={"address": secret})
    deployment.config = deployment.config.model_copy(update={"store": settings})
    _say(Output(True), deployment, "http://127.0.0.1:1", None)
    said = capsys.readouterr().out
    assert "s3cr3t" not in said
    assert "postgresql://ann:***@db/shop" in said
    assert _place(secret) == "postgresql://ann:***@db/shop"
    assert _place("a.sqlite") == "a.sqlite"


def test_a_revocation_is_not_lost_where_the_store_fails_meanwhile(
    deployment: Deployment, monkeypatch: pytest.MonkeyPatch
) -> None:
    key, text = make_key("k", False, ["items"])
    deployment.store.add_key(key)
    deployment.follow()
    now = time.time_ns() // 1000
    assert deployment.keys.check(text, None, now) is not None
    deployment.store.revoke_key(key.id, now)
    with monkeypatch.context() as broken:
        broken.setattr(deployment.keys, "reload", _away)
        with pytest.raises(EnvironmentFault):
            deployment.follow()
    deployment.follow()
    assert deployment.keys.check(text, None, now) is None


def test_a_stream_of_the_dashboard_ends_with_its_key(deployment: Deployment) -> None:
    anybody = Caller(None, "open access", frozenset({"dashboard"}))
    assert _holds(deployment, anybody)
    key, _ = make_key("k", False, ["dashboard"])
    deployment.store.add_key(key)
    deployment.follow()
    assert not _holds(deployment, anybody)
    mine = replace(anybody, key_id=key.id)
    assert _holds(deployment, mine)
    deployment.store.revoke_key(key.id, 1)
    deployment.follow()
    assert not _holds(deployment, mine)


async def _ok(scope, receive, send) -> None:  # type: ignore[no-untyped-def]
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@pytest.mark.parametrize(
    ("path", "status"), [("M%FCller", 400), ("%ED%A0%80", 400), ("M%C3%BCller", 200), ("9%25", 200)]
)
def test_an_id_that_is_no_utf8_is_refused(deployment: Deployment, path: str, status: int) -> None:
    """Else it would become another id, and the erasure of "M\\xfcller" erase nobody, with a receipt."""

    async def asked() -> int:
        transport = httpx.ASGITransport(app=protect(_ok, deployment))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return (await client.delete(f"/v1/users/{path}")).status_code

    assert asyncio.run(asked()) == status


def _away() -> None:
    raise EnvironmentFault("the store is away")


def test_a_page_cannot_take_an_id_from_the_shops_own_event(deployment: Deployment) -> None:
    """Whoever reads a publishable key could otherwise send an order's id first, and the order would be a duplicate."""
    public, in_page = make_key("page", True, ["events"], ["https://shop.example.org"])
    secret, at_shop = make_key("shop", False, ["events", "users"])
    for one in (public, secret):
        deployment.store.add_key(one)
    deployment.follow()
    event = {"eventId": "order-1", "type": "purchase", "time": "2025-03-20T10:15:00Z", "item": "A00001"}
    page = {"Authorization": f"Bearer {in_page}", "Origin": "https://shop.example.org"}
    shop = {"Authorization": f"Bearer {at_shop}"}

    async def send() -> list[dict[str, int]]:
        transport = httpx.ASGITransport(app=application(deployment))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as asked:
            return [
                (await asked.post("/v1/events", json=event, headers=one)).json() for one in (page, page, shop, shop)
            ]

    told = asyncio.run(send())
    assert [(one["stored"], one["duplicates"]) for one in told] == [(1, 0), (0, 1), (1, 0), (0, 1)]


def test_a_run_that_the_roll_out_has_left_is_said_not_to_be_what_answers(
    deployment: Deployment, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _say(Output(True), deployment, "http://127.0.0.1:1", tmp_path / "old")
    assert "coterie rollout swap" in capsys.readouterr().err
