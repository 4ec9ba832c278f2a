"""Killed at any moment, a store opens again, and has everything that it said it had."""

import random
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path

import polars as pl
import pytest
from sqlalchemy import event as listening

from coterie.errors import EnvironmentFault
from coterie.serving.words import EventReceipt, Item
from tests.serving.store.shop import event, held, ids, kept, opening, rows, write

resource = pytest.importorskip("resource", reason="limits of processes are POSIX's")

ROOT = Path(__file__).parents[3]
ROUNDS = 4


def killed(address: str, after: float) -> dict[str, set[str]]:
    """What a process said that wrote for a while and was killed then."""
    command = [sys.executable, "-m", "tests.serving.store.victim", address]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0)
    try:
        first = process.stdout.read(1)  # it has begun
        time.sleep(after)
    finally:
        process.kill()
    out, complaint = process.communicate()
    assert complaint == b""
    said = defaultdict(set)
    for line in (first + out).decode().splitlines()[:-1]:  # the last may be torn
        kind, name = line.split()
        said[kind].add(name)
    return said


def test_no_acknowledged_write_is_missing(open_store, address):
    draw, said = random.Random(), defaultdict(set)
    for number in range(ROUNDS):
        for kind, names in killed(address, draw.uniform(0.01, 0.5)).items():
            said[kind] |= names
        store = open_store()
        assert said["event"] <= set(ids(store))
        assert said["item"] <= {one.id for one in store.items()}
        assert not said["erased"] & set(kept(store)["user"])
        numbers = [row["number"] for row in rows(store, "serve_change")]
        assert numbers == list(range(1, len(numbers) + 1))
        lines = kept(store).filter(pl.col("user").is_null()).group_by("event").len()
        assert set(lines["len"]) == {2}  # an event is there with all of its lines
        assert write(store, event("A1", "A2", id=f"after {number}")) == (1, 0, 0)
        store.close()
    assert len(said["event"]) > 20
    assert said["item"]


def limited(pages):
    """Let no file of the store have more pages."""

    def on_checkout(connection, *_):
        connection.execute(f"PRAGMA max_page_count = {pages}")

    return on_checkout


def test_a_full_disk_fails_the_batch_and_the_service_goes_on(small):
    write(small, event(id="first"))
    with small._storage.reading() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    full, free = limited(pages), limited(2**30)
    listening.listen(small._storage._engine, "checkout", full)
    with held(small):
        sent = [small.write_events([event("A" * 200) for _ in range(300)]) for _ in range(3)]
    faults = [one.exception(60) for one in sent]
    assert all(isinstance(fault, EnvironmentFault) and "no space left" in str(fault) for fault in faults)
    assert len(set(map(id, faults))) == 3  # each its own: they are raised in different threads
    with pytest.raises(EnvironmentFault, match="no space left on the device; nothing was written"):
        small.put_items(Item(f"A{i}", title="x" * 900) for i in range(500))
    with pytest.raises(EnvironmentFault, match="no space left"):
        small.write_events([event("A" * 900) for _ in range(500)]).result(60)
    assert ids(small) == ["first"]
    assert small.items() == []
    listening.remove(small._storage._engine, "checkout", full)
    listening.listen(small._storage._engine, "checkout", free)
    assert small.write_events([event(id="second")]).result(60) == EventReceipt(1)
    small.put_items([Item("A1")])
    assert ids(small) == ["first", "second"]


def test_a_disk_that_refuses_to_write_leaves_nothing_half_written(small, open_small, folder):
    """The system lets files grow no further: the write-ahead log breaks off in the middle of a transaction."""
    write(small, event(id="first"))
    largest = max(path.stat().st_size for path in folder.iterdir())
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest + 100_000, before[1]))
    try:
        faults = [small.write_events([event("A" * 150) for _ in range(2000)]).exception(60) for _ in range(3)]
        reading = ids(small)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [type(fault) for fault in faults] == [EnvironmentFault] * 3
    assert reading == ["first"]
    assert write(small, event(id="second")) == (1, 0, 0)
    small.close()
    assert ids(open_small()) == ["first", "second"]


def test_a_server_that_went_away_is_a_fault_until_it_is_back(server):
    import psycopg

    with server.fresh() as url, opening(url) as open:
        store = open()
        write(store, event(id="first"))
        others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        with psycopg.connect(url, autocommit=True) as connection:
            stopped = pytest.raises(EnvironmentFault, match=r"the server stopped|the connection broke")
            with stopped, held(store):
                after = store.write_events([event(id="second")])
                connection.execute(f"SELECT pg_terminate_backend(pid) {others}")  # what is in a transaction fails
            assert after.result(60) == EventReceipt(1)  # and what waited for the next one does not
        assert ids(store) == ["first", "second"]
