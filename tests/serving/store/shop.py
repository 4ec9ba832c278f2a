"""Events of a shop for the tests of its store, and stores that are closed after use."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

import polars as pl

from coterie.serving.config import PeopleSettings, StoreSettings
from coterie.serving.store import ServingStore
from coterie.serving.store.statements import now
from coterie.serving.store.writer import _Job
from coterie.serving.words import Event, EventLine

DAY = 86_400_000_000
SOME_TIME = 1_780_000_000_000_000

_number = itertools.count()


class Open(Protocol):
    """Opens a store."""

    def __call__(self, consent: str = "opt-out", clock: Any = now, **settings: Any) -> ServingStore: ...


@contextmanager
def opening(address: str) -> Iterator[Open]:
    opened: list[ServingStore] = []

    def open(consent: str = "opt-out", clock: Any = now, **settings: Any) -> ServingStore:
        rule, kept = PeopleSettings.model_validate({"consent": consent}), StoreSettings(address=address, **settings)
        opened.append(ServingStore.open(address, rule, kept, clock=clock))
        return opened[-1]

    try:
        yield open
    finally:
        for store in opened:
            store.close()


def event(*items: str, id: str | None = None, kind: Any = "purchase", time: int = SOME_TIME, **more: Any) -> Event:
    """An event with a line for each item, and an id of its own."""
    lines = tuple(EventLine(item) for item in items or ("A1",))
    return Event(id or f"e{next(_number)}", kind, time, lines, **more)


def write(store: ServingStore, *events: Event) -> tuple[int, int, int]:
    """How many were stored, were there before, and were declined."""
    receipt = store.write_events(events).result(60)
    return receipt.stored, receipt.duplicates, receipt.declined


def kept(store: ServingStore, since: int | None = None) -> pl.DataFrame:
    """Everything that training would see."""
    frames = list(store.events_frame(since))
    return pl.concat(frames) if frames else pl.DataFrame({"event": [], "user": [], "item": []})


def ids(store: ServingStore) -> list[str]:
    """Ids of the stored events, each once, in the order of writing."""
    return list(dict.fromkeys(kept(store)["event"]))


def rows(store: ServingStore, table: str) -> list[dict[str, Any]]:
    """A table as it is."""
    with store._storage.reading() as connection:
        return [dict(row) for row in connection.exec_driver_sql(f"SELECT * FROM {table}").mappings()]


def everything(store: ServingStore) -> str:
    """All tables as one text, to look for what must not be in them."""
    from coterie.serving.store.tables import metadata

    return "\n".join(str(rows(store, table)) for table in metadata.tables)


@contextmanager
def held(store: ServingStore) -> Iterator[None]:
    """The store's writer is busy until the block ends: what is asked for meanwhile waits, in order."""
    entered, leave = threading.Event(), threading.Event()

    def busy(_: object) -> None:
        entered.set()
        assert leave.wait(60)

    future = store._writer._put(_Job(work=busy))
    try:
        assert entered.wait(60)
        yield
    finally:
        leave.set()
    future.result(60)


def until(condition: Callable[[], object]) -> None:
    """Wait for what another thread does."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def waiting(store: ServingStore) -> int:
    """How many jobs wait for the writer."""
    return len(store._writer._queue)


def users_of(frame: pl.DataFrame) -> Sequence[str | None]:
    return frame["user"].to_list()
