"""`coterie data from-store`: what happened in the shop trains the next model; who did not consent is not in it."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from coterie.data.readers import read_log
from coterie.serving.config import PeopleSettings, StoreSettings
from coterie.serving.store import ServingStore
from coterie.serving.words import Event, EventLine, Item
from coterie.settings import DataSettings

START = 1_735_689_600_000_000  # 2025-01-01
DAY = 86_400_000_000


@pytest.fixture
def where(tmp_path: Path) -> Path:
    return tmp_path / "store.sqlite"


@pytest.fixture
def store(where: Path) -> Iterator[ServingStore]:
    opened = ServingStore.open(str(where), PeopleSettings(), StoreSettings(events_days=None, guest_events_days=None))
    yield opened
    opened.close()


def bought(n: int, user: str | None, items: list[str], **more: Any) -> Event:
    lines = tuple(EventLine(item, quantity=float(2 + at)) for at, item in enumerate(items))
    return Event(f"e{n}", "purchase", START + n * DAY // 10, lines, user=user, **more)


def written(store: ServingStore, *events: Event) -> None:
    assert store.write_events(events).result().stored == len(events)


@pytest.fixture
def shop(store: ServingStore) -> ServingStore:
    """Two hundred orders of forty users and some guests, and much that is no purchase."""
    rng, events = np.random.default_rng(1), list[Event]()
    for n in range(200):
        user = None if n % 10 == 0 else f"user{rng.integers(40)}"
        basket = None if n % 2 else f"order{n}"
        items = [f"A{i}" for i in rng.choice(12, 3, replace=False)]
        events.append(bought(n, user, items, basket=basket, recommendation="made up" if n % 4 == 0 else None))
        events.append(Event(f"v{n}", "view", START + n * DAY // 10, (EventLine(items[0]),), user=user))
    written(store, *events)
    store.put_items([Item("A1", title="Mug"), Item("A2", title="Lid"), Item("A3")])
    return store


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_the_next_log_is_trained_on_as_it_is(
    coterie: Any, shop: ServingStore, where: Path, tmp_path: Path, suffix: str
) -> None:
    log = tmp_path / f"log.{suffix}"
    done = coterie("data", "from-store", "--store", where, "--output", log, "--json")
    assert done.code == 0, done.err
    told = done.json
    assert (told["rows"], told["kinds"], told["left_out"], told["guest_rows"]) == (600, ["purchase"], {"view": 200}, 60)
    trained = coterie("train", log, "--yes", "--output", tmp_path / "run", "--json")
    assert trained.code == 0, trained.err
    assert trained.json["data"]["users"] == told["users"]
    answered = coterie("recommend", tmp_path / "run", "--basket", "Mug", "--json")
    assert answered.code == 0, answered.err


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_every_cell_of_it(coterie: Any, store: ServingStore, where: Path, tmp_path: Path, suffix: str) -> None:
    log = tmp_path / f"log.{suffix}"
    written(
        store,
        bought(0, "ann", ["A1", "A2"], basket="order 7", recommendation="some id"),
        bought(5, None, ["A1"]),
    )
    store.put_items([Item("A1", title="Mug, blue")])
    assert coterie("data", "from-store", "--store", where, "--output", log).code == 0
    read = read_log(log, DataSettings())
    assert read.frame.drop("time").rows() == [
        ("ann", "A1", 2.0, "order 7"),
        ("ann", "A2", 3.0, "order 7"),
        (None, "A1", 2.0, "event:e5"),
    ]
    assert read.frame["time"].to_physical().to_list() == [START, START, START + DAY // 2]
    assert read.texts.filter(item="A1")["title"].to_list() == ["Mug, blue"]
    raw = pl.read_parquet(log) if suffix == "parquet" else pl.read_csv(log)
    assert raw["recommended"].to_list() == [True, True, False]
    assert raw["kind"].to_list() == ["purchase"] * 3


def test_who_did_not_consent_was_erased_or_objected_is_not_in_it(
    coterie: Any, store: ServingStore, where: Path, tmp_path: Path
) -> None:
    store.set_consent("objected", allowed=False)
    receipt = store.write_events([bought(1, "objected", ["A1"]), bought(2, "stays", ["A1"])]).result()
    assert (receipt.stored, receipt.declined) == (1, 1)
    written(store, bought(3, "erased", ["A2"]), bought(4, "withdrew", ["A2"]))
    store.erase_user("erased")
    store.set_consent("withdrew", allowed=False)
    log = tmp_path / "log.csv"
    assert coterie("data", "from-store", "--store", where, "--output", log, "--json").json["users"] == 1
    text = log.read_text()
    assert "stays" in text
    assert not any(gone in text for gone in ("objected", "erased", "withdrew"))


def test_the_file_is_its_owners_alone_whole_and_nothing_else_is_left(
    coterie: Any, shop: ServingStore, where: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    for name in ("log.parquet", "log.csv"):
        assert coterie("data", "from-store", "--store", where, "--output", folder / name).code == 0
        assert stat.S_IMODE((folder / name).stat().st_mode) == 0o600
        again = coterie("data", "from-store", "--store", where, "--output", folder / name)
        assert "exists already; --force replaces it" in again.sentence
        assert coterie("data", "from-store", "--store", where, "--output", folder / name, "--force").code == 0
    assert {path.name for path in folder.iterdir()} == {"log.parquet", "log.csv"}
    said = coterie("data", "from-store", "--store", where, "--output", folder / "other.csv").out
    assert "wrote 600 rows of" in said
    assert "left out: 200 of view" in said


def test_since_leaves_out_what_was_before(coterie: Any, shop: ServingStore, where: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.parquet"
    asked = ("data", "from-store", "--store", where, "--output", log, "--since", "2025-01-11", "--json")
    assert coterie(*asked).json["rows"] == 300
    assert pl.read_parquet(log)["time"].min().date().isoformat() == "2025-01-11"


def test_ratings_alone_are_values_and_beside_purchases_are_not(
    coterie: Any, store: ServingStore, where: Path, tmp_path: Path
) -> None:
    rating = Event("r1", "rating", START, (EventLine("A1"),), user="ann", value=4.5)
    written(store, rating)
    alone = coterie("data", "from-store", "--store", where, "--output", tmp_path / "a.parquet", "--json").json
    assert alone["kinds"] == ["rating"]
    assert pl.read_parquet(tmp_path / "a.parquet").drop("time").rows() == [("ann", "A1", 4.5, "rating", False)]
    written(store, bought(1, "ann", ["A2"]))
    both = ("--kinds", "purchase, rating", "--output", tmp_path / "b.parquet")
    done = coterie("data", "from-store", "--store", where, *both, "--json")
    assert "their values were left out" in done.json["notes"][0]
    assert dict(pl.read_parquet(tmp_path / "b.parquet").select("kind", "value").rows()) == {
        "rating": None,
        "purchase": 2.0,
    }


def test_what_cannot_be_is_one_sentence(coterie: Any, store: ServingStore, where: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.csv"

    def refused(*more: object) -> str:
        done = coterie("data", "from-store", "--store", where, "--output", log, *more)
        assert done.code == 2
        assert not log.exists()
        return str(done.sentence)

    assert "it has none of any kind" in refused()
    written(store, Event("v", "view", START, (EventLine("A1"),), user="ann"))
    assert "it has 1 of view: name others with --kinds" in refused()
    assert "did you mean 'purchase'" in refused("--kinds", "purchases")
    assert "must end in .parquet or .csv" in coterie("data", "from-store", "--output", tmp_path / "log.txt").sentence
