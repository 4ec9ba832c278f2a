"""Signed run folders, one signed after the other, and a store."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

import coterie
from coterie.serving.config import PeopleSettings, StoreSettings
from coterie.serving.store import ServingStore
from tests.serving.versions.folders import resigned


@pytest.fixture(scope="session")
def trained() -> coterie.Run:
    return coterie.train(coterie.market(shops=2, customers=60, items=30, baskets=300, seed=3).log, model="ease")


@pytest.fixture(scope="session")
def made(trained: coterie.Run, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three runs: the first was signed first."""
    base = tmp_path_factory.mktemp("runs")
    folders = [trained.save(base / "0")]
    for name in ("1", "2"):
        folders.append(resigned(shutil.copytree(folders[0], base / name)))
    return folders


@pytest.fixture
def runs(made: list[Path], tmp_path: Path) -> list[Path]:
    """Copies of them, to be spoilt."""
    return [shutil.copytree(one, tmp_path / "runs" / one.name) for one in made]


@pytest.fixture
def address(tmp_path: Path) -> str:
    return str(tmp_path / "store.sqlite")


@pytest.fixture
def store(address: str) -> Iterator[ServingStore]:
    opened = ServingStore.open(address, PeopleSettings(), StoreSettings(address=address))
    yield opened
    opened.close()
