"""What is too old goes: by a clock that the tests move."""

import pytest

from coterie.serving.store import retention
from tests.serving.store.shop import DAY, SOME_TIME, event, ids, kept, rows, write

NOW = SOME_TIME


@pytest.fixture
def dated(open_store):
    """A store in which it is now what is said, and one event or receipt lasts ten days, of a guest three."""
    time = [NOW]
    store = open_store(clock=lambda: time[0], events_days=10, guest_events_days=3, receipts_days=20)
    return store, time


def test_events_go_when_they_are_older_than_allowed(dated):
    store, _ = dated
    write(
        store,
        event("A1", "A2", id="old", user="ann", time=NOW - 10 * DAY - 1),
        event(id="kept", user="ann", time=NOW - 10 * DAY),
        event(id="old guest", time=NOW - 3 * DAY - 1),
        event(id="guest", time=NOW - 3 * DAY),
    )
    gone = store.prune(NOW)
    assert (gone["events"], gone["guest_events"]) == (2, 1)  # rows
    assert ids(store) == ["kept", "guest"]
    assert store.prune(NOW) == {"events": 0, "guest_events": 0, "receipts": 0, "spends": 0, "changes": 0}
    store.prune(NOW + DAY)
    assert ids(store) == []


def test_an_event_from_the_future_ages_from_when_it_came(dated):
    store, _ = dated
    write(store, event(id="e", user="ann", time=NOW + 1000 * DAY))
    store.prune(NOW + 10 * DAY)
    assert ids(store) == ["e"]
    store.prune(NOW + 10 * DAY + 1)
    assert ids(store) == []


def test_many_old_events_go_in_steps_between_which_others_write(small, monkeypatch):
    monkeypatch.setattr(retention, "AT_ONCE", 10)
    write(small, *(event(f"A{i}", user="ann", time=0) for i in range(95)), event(id="new", user="ann"))
    waiting = []
    run = small._writer.run

    def stepping(work, finish=None):
        waiting.append(small.write_events([event(user="ann")]))
        return run(work, finish)

    monkeypatch.setattr(small._writer, "run", stepping)
    assert small.prune(NOW)["events"] == 95
    assert len(waiting) >= 10
    assert sum(one.result(60).stored for one in waiting) == len(waiting)
    assert kept(small).height == 1 + len(waiting)


def test_none_keeps_them_for_ever(open_store):
    store = open_store(events_days=None, guest_events_days=None, receipts_days=None)
    write(store, event(time=0), event(user="ann", time=0))
    store.erase_user("nobody")
    gone = store.prune(NOW + 100_000 * DAY)
    assert not gone.get("events")
    assert len(ids(store)) == 2
    assert len(store.receipts()) == 1


def test_receipts_and_what_was_spent_go_in_their_time(dated):
    store, time = dated
    store.erase_user("nobody")
    store.spend("h", 1.0, limit=9.0, since=NOW - 5 * DAY)  # the longest window that is asked for: five days
    time[0] = NOW + 3 * DAY
    store.spend("h", 1.0, limit=9.0, since=NOW - 2 * DAY)
    gone = store.prune(NOW + 5 * DAY)
    assert (gone["receipts"], gone["spends"]) == (0, 0)
    assert store.prune(NOW + 6 * DAY)["spends"] == 1
    assert store.prune(NOW + 20 * DAY)["receipts"] == 0
    assert store.prune(NOW + 20 * DAY + 1)["receipts"] == 1
    assert rows(store, "serve_spend") == []
