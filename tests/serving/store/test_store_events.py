"""Events: written once each, together, in order; read back as baskets and frames."""

import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pytest
from sqlalchemy import event as listening
from sqlalchemy import insert

from coterie.errors import DataError, EnvironmentFault
from coterie.serving.store import writer as writing
from coterie.serving.store.events import FRAME
from coterie.serving.store.tables import events
from coterie.serving.words import Event, EventLine, EventReceipt
from tests.serving.store.shop import DAY, SOME_TIME, event, held, ids, kept, rows, users_of, write


def test_an_event_comes_back_with_a_row_for_each_line(store):
    lines = (EventLine("A1", 2.0, 3.5, 1), EventLine("A2"))
    full = Event("e", "purchase", SOME_TIME, lines, "ann", "order 1", "rec", 4.5)
    assert write(store, full, event("A3", id="g", kind="view")) == (2, 0, 0)
    frame = kept(store)
    assert frame.schema == FRAME
    shared = ("purchase", SOME_TIME, "ann", "order 1", "rec", 4.5)
    assert frame.rows() == [
        ("e", 0, *shared, "A1", 2.0, 3.5, 1),
        ("e", 1, *shared, "A2", None, None, None),
        ("g", 0, "view", SOME_TIME, None, None, None, None, "A3", None, None, None),
    ]


def test_an_id_is_stored_once_in_one_batch_and_in_many(open_store, store):
    same = event("A1", "A2", id="same")
    assert write(store, same, same, event(id="other")) == (2, 1, 0)
    assert write(store, same) == (0, 1, 0)
    assert write(open_store(), event("A9", id="same"), event()) == (1, 1, 0)
    assert kept(store).filter(event="same")["item"].to_list() == ["A1", "A2"]


def test_many_who_send_the_same_store_it_once(open_store, store):
    stores = [store, open_store()]  # as two processes
    batch = [event("A1", "A2", id=f"x{i}") for i in range(20)]

    def send(i):
        return write(stores[i % 2], *batch[i % 10 :])

    with ThreadPoolExecutor(8) as pool:
        receipts = list(pool.map(send, range(40)))
    assert sum(stored for stored, _, _ in receipts) == 20
    assert sorted(ids(store)) == sorted(one.id for one in batch)
    assert kept(store).height == 40


def test_an_empty_batch_is_nothing(store):
    assert write(store) == (0, 0, 0)
    assert list(store.events_frame()) == []


@pytest.mark.parametrize(
    ("wrong", "sentence"),
    [
        (Event("e", "view", 0, ()), "event 'e' names no item"),
        (event("A\x00"), "item .* has a character that cannot be stored"),
        (event(id="\udfff"), "lone surrogate"),
        (event(user="a\x00"), "user .* has a character"),
    ],
)
def test_what_cannot_be_stored_is_refused_before_anything_is(small, wrong, sentence):
    with pytest.raises(DataError, match=sentence):
        small.write_events([event(), wrong])
    assert ids(small) == []


def test_waiting_batches_share_one_transaction(small):
    commits = []
    listening.listen(small._storage._engine, "commit", lambda _: commits.append(1))
    with held(small):
        sent = [small.write_events([event(f"A{i}")]) for i in range(50)]
    assert [one.result(60) for one in sent] == [EventReceipt(1)] * 50
    assert len(commits) == 2  # what held the writer, and everything else
    assert kept(small)["item"].to_list() == [f"A{i}" for i in range(50)]


def test_one_bad_job_does_not_spoil_its_neighbours(small):
    with held(small):
        futures = [small.write_events([event(id="before")])]
        huge = Event("huge", "view", 2**70, (EventLine("A1"),))
        futures.append(small.write_events([huge]))
        futures.append(small.write_events([event(id="after")]))
    assert futures[0].result(60) == futures[2].result(60) == EventReceipt(1)
    with pytest.raises(OverflowError):
        futures[1].result(60)
    assert ids(small) == ["before", "after"]


def test_a_refused_job_leaves_nothing_and_its_neighbours_stay(store):
    def half(connection):
        connection.execute(insert(events).values(event_id="x", line=0, kind="view", time=0, held_from=0, item="A1"))
        raise DataError("no")

    with held(store):
        sent = [store.write_events([event(id="before")])]
        refused = store._writer._put(writing._Job(work=half))
        sent.append(store.write_events([event(id="after")]))
    with pytest.raises(DataError, match="no"):
        refused.result(60)
    assert [one.result(60).stored for one in sent] == [1, 1]
    assert ids(store) == ["before", "after"]


def test_a_future_whose_caller_has_gone_is_written_all_the_same(small):
    with held(small):
        future = small.write_events([event(id="e")])
        assert not future.cancel()
    assert future.result(60) == EventReceipt(1)
    assert ids(small) == ["e"]


def test_too_many_that_wait_are_refused(small, monkeypatch):
    monkeypatch.setattr(writing, "WAITING", 10)
    with held(small):
        sent = [small.write_events([event(), event()]) for _ in range(5)]
        with pytest.raises(EnvironmentFault, match="10 events behind; call again"):
            small.write_events([event()])
    assert sum(one.result(60).stored for one in sent) == 10
    assert write(small, *(event() for _ in range(11))) == (11, 0, 0)  # what waits for nobody may be larger


def test_closing_writes_what_waits(open_small):
    store = open_small()
    with held(store):
        futures = [store.write_events([event()]) for _ in range(5)]
        closing = threading.Thread(target=store.close)
        closing.start()
    closing.join(60)
    assert [one.result(0) for one in futures] == [EventReceipt(1)] * 5
    with pytest.raises(EnvironmentFault, match="the store is closed"):
        store.write_events([event()])
    assert len(ids(open_small())) == 5


def test_readers_do_not_wait_for_the_writer(small):
    write(small, event(id="e", user="ann"))
    with small._storage.writing() as connection:
        connection.execute(insert(events).values(event_id="x", line=0, kind="view", time=0, held_from=0, item="A1"))
        with ThreadPoolExecutor(4) as pool:  # each within the patience of a reader
            assert list(pool.map(lambda _: ids(small), range(8), timeout=10)) == [["e"]] * 8
            assert pool.submit(small.history, "ann").result(10) == [("A1",)]


def test_history_has_baskets_by_id_and_else_by_day_oldest_first(store):
    write(
        store,
        event("A5", time=SOME_TIME + 3 * DAY, user="ann", kind="rating", value=4.0),
        event("A1", "A2", time=SOME_TIME, user="ann", basket="one"),
        event("A2", "A3", time=SOME_TIME + DAY, user="ann", basket="one"),
        event("A4", time=SOME_TIME + 2 * DAY, user="ann"),
        event("A6", time=SOME_TIME + 2 * DAY + 1, user="ann"),
        event("A7", time=SOME_TIME, user="ann", kind="view"),
        event("A8", time=SOME_TIME, user="ann", kind="add-to-cart"),
        event("A9", time=SOME_TIME, user="bob"),
    )
    assert store.history("ann") == [("A1", "A2", "A3"), ("A4", "A6"), ("A5",)]
    assert store.history("ann", limit=2) == [("A4", "A6"), ("A5",)]
    assert store.history("nobody") == []


def test_frames_begin_where_they_are_asked_to(store):
    write(store, *(event(f"A{i}", time=SOME_TIME + i) for i in range(5)))
    assert kept(store, SOME_TIME + 3)["item"].to_list() == ["A3", "A4"]


def test_who_is_asked_first_is_only_read_with_consent(open_store):
    before = open_store()
    write(before, event(user="ann"), event(user="bob"), event())
    after = open_store(consent="opt-in")
    after.set_consent("bob", allowed=True)
    assert users_of(kept(after)) == ["bob", None]
    assert after.history("ann") == []
    assert after.history("bob") == [("A1",)]


def test_reading_everything_takes_a_flat_amount_of_memory(small):
    number = 60_000
    row = {"line": 0, "kind": "purchase", "time": SOME_TIME, "held_from": SOME_TIME, "item": "A1", "basket": "b" * 30}
    with small._storage.writing() as connection:
        for start in range(0, number, 20_000):
            part = [{**row, "event_id": f"e{i}", "user_id": f"u{i % 5000}"} for i in range(start, start + 20_000)]
            connection.execute(insert(events), part)
    del part
    list(small.events_frame(SOME_TIME + 1))  # what is made once
    tracemalloc.start()
    seen, peaks = 0, []
    for frame in small.events_frame():
        assert frame.height <= 20_000
        seen += frame.height
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.reset_peak()
    tracemalloc.stop()
    assert seen == number
    assert max(peaks) < 1.5 * peaks[1]
    assert max(peaks) < 60e6


def test_frames_see_what_is_written_meanwhile_once(small):
    write(small, *(event() for _ in range(10)))
    reading = small.events_frame()
    first = next(reading)
    write(small, event(id="late"))
    rest = pl.concat([first, *reading])
    assert rest["event"].n_unique() == rest.height == 11
    assert rest["event"][-1] == "late"
    assert len(rows(small, "serve_event")) == 11
