"""Stores of each kind, empty, and closed when a test has ended."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from coterie.serving.store import ServingStore
from tests.postgres import Server, postgres
from tests.serving.store.shop import Open, opening


@pytest.fixture(autouse=True)
def _no_password(monkeypatch):
    for name in ("COTERIE_DB_PASSWORD", "PGPASSWORD", "PGPASSFILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    with postgres() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgres"])
def address(request, tmp_path) -> Iterator[str]:
    """An empty place for a store, of each kind."""
    if request.param == "sqlite":
        yield str(tmp_path / "deployment" / "store.sqlite")
        return
    with request.getfixturevalue("server").fresh() as url:
        yield url


@pytest.fixture
def open_store(address) -> Iterator[Open]:
    """Opens the store at `address`, with other settings where they are named."""
    with opening(address) as open:
        yield open


@pytest.fixture
def store(open_store) -> ServingStore:
    return open_store()


@pytest.fixture
def folder(tmp_path) -> Path:
    return tmp_path / "deployment"


@pytest.fixture
def open_small(folder) -> Iterator[Open]:
    """The same for an SQLite store, where the kind of database makes no difference."""
    with opening(str(folder / "store.sqlite")) as open:
        yield open


@pytest.fixture
def small(open_small) -> ServingStore:
    return open_small()
