"""Consent, access and erasure: honoured in the order in which things were asked, whoever else writes."""

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from coterie.errors import DataError
from tests.serving.store.shop import (
    SOME_TIME,
    event,
    everything,
    held,
    ids,
    kept,
    opening,
    rows,
    until,
    users_of,
    waiting,
    write,
)

ANN = "ann-4711@example.org"


def test_who_objects_has_no_events_and_gets_none(store):
    assert store.consent(ANN) is None
    assert store.may_store(ANN)
    write(store, event("A1", "A2", user=ANN), event(user=ANN), event(user="bob", id="bob's"))
    assert store.set_consent(ANN, allowed=False) == 2
    assert store.consent(ANN) is False
    assert not store.may_store(ANN)
    assert write(store, event(user=ANN), event(user="bob", id="bob's"), event(id="guest's")) == (1, 1, 1)
    assert ids(store) == ["bob's", "guest's"]
    assert store.set_consent(ANN, allowed=True) == 0
    assert write(store, event(user=ANN)) == (1, 0, 0)


def test_who_is_asked_first_has_none_before_consent(open_store):
    store = open_store(consent="opt-in")
    assert not store.may_store(ANN)
    assert write(store, event(user=ANN), event(id="guest's")) == (1, 0, 1)
    store.set_consent(ANN, allowed=True)
    assert write(store, event(user=ANN, id="e")) == (1, 0, 0)
    assert store.set_consent(ANN, allowed=False) == 1
    assert write(store, event(user=ANN)) == (0, 0, 1)
    assert ids(store) == ["guest's"]


def test_consent_is_kept_under_a_hash_that_only_this_store_makes(open_store, store, tmp_path):
    store.set_consent(ANN, allowed=False)
    assert ANN not in everything(store)
    assert [row["user_hash"] for row in rows(store, "serve_consent")] == [store.hashed(ANN)]
    assert [(one.kind, one.key) for one in store.changes_since(0)] == [("consent", store.hashed(ANN))]
    assert open_store().hashed(ANN) == store.hashed(ANN) != hashlib.sha256(ANN.encode()).hexdigest()
    assert len(store.secret) == 32
    with opening(str(tmp_path / "other.sqlite")) as open:
        assert open().hashed(ANN) != store.hashed(ANN)


def test_the_secret_is_made_once_by_however_many(address):
    with opening(address) as open, ThreadPoolExecutor(6) as pool:
        assert len({one.secret for one in pool.map(lambda _: open(), range(6))}) == 1


def test_an_objection_is_never_overtaken(open_store, store):
    """Threads and a second process write all the time; whatever is written after the word was given is declined."""
    stores, stop, after = [store, open_store()], threading.Event(), []

    def send(which):
        while not stop.is_set():
            objected = not stores[which].may_store(ANN)
            stored, _, declined = write(stores[which], event(user=ANN))
            if objected:
                after.append((stored, declined))

    with ThreadPoolExecutor(4) as pool:
        sending = [pool.submit(send, i % 2) for i in range(4)]
        until(lambda: len(rows(store, "serve_event")) >= 20)
        assert store.set_consent(ANN, allowed=False) >= 20
        left = ids(store)
        until(lambda: len(after) >= 20)
        stop.set()
        for one in sending:
            one.result()
    assert left == ids(store) == []
    assert set(after) == {(0, 1)}


def test_an_export_has_everything_and_nobody_elses(open_store):
    store = open_store(clock=lambda: SOME_TIME + 2_000_000)
    one = event("A1", "A2", id="e", time=SOME_TIME + 1, user=ANN, basket="order 1", recommendation="rec")
    write(store, one, event(id="r", user=ANN, kind="rating", value=4.0, time=SOME_TIME), event(user="bob", id="bob's"))
    store.set_consent(ANN, allowed=True)
    store.spend(store.hashed(ANN), 0.5, limit=1.0, since=0)
    assert store.export_user(ANN) == {
        "user": ANN,
        "exported_at": "2026-05-28T20:26:42+00:00",
        "consent": True,
        "events": [
            {
                "eventId": "r",
                "type": "rating",
                "time": "2026-05-28T20:26:40+00:00",
                "user": ANN,
                "items": [{"item": "A1"}],
                "value": 4.0,
            },
            {
                "eventId": "e",
                "type": "purchase",
                "basket": "order 1",
                "recommendationId": "rec",
                "time": "2026-05-28T20:26:40.000001+00:00",
                "user": ANN,
                "items": [{"item": "A1"}, {"item": "A2"}],
            },
        ],
        "other": {"noisy_answers": {"answers": 1, "epsilon": 0.5}},
    }
    nobody = store.export_user("nobody")
    assert (nobody["consent"], nobody["events"], nobody["other"]) == (None, [], {})


def test_after_an_erasure_no_table_knows_the_user(store):
    write(
        store,
        event("A1", "A2", id="ann-event-1", user=ANN, basket="order-7788"),
        event("A3", id="ann-event-2", user=ANN),
        event("A1", id="cart-event", kind="add-to-cart", basket="order-7788"),  # before she logged in
        event("A1", id="guest's", basket="another"),
        event("A1", id="bob's", user="bob"),
    )
    store.set_consent(ANN, allowed=True)
    store.spend(store.hashed(ANN), 0.5, limit=1.0, since=0)
    receipt = store.erase_user(ANN)
    assert receipt.erased == {"events": 2, "guest_events": 1, "spent_answers": 1, "consent": 1}
    assert ids(store) == ["guest's", "bob's"]
    left = everything(store)
    for word in (ANN, "ann-event", "order-7788", "cart-event"):
        assert word not in left
    assert store.consent(ANN) is None
    assert store.spent(store.hashed(ANN), 0) == 0.0
    assert store.export_user(ANN)["events"] == []


def test_a_receipt_proves_whom_it_was_about_to_whoever_has_it(open_store):
    store = open_store(clock=lambda: 99)
    receipt = store.erase_user(ANN)
    assert (receipt.user, receipt.time, len(receipt.salt)) == (ANN, 99, 32)
    assert receipt.proof == hashlib.sha256((receipt.salt + ANN).encode()).hexdigest()
    assert "models trained before" in receipt.note
    (there,) = open_store().receipts()
    assert (there.id, there.proof, there.erased, there.note) == (
        receipt.id,
        receipt.proof,
        receipt.erased,
        receipt.note,
    )
    assert (there.user, there.salt) == ("", "")
    assert receipt.salt not in everything(store)


def test_an_objection_outlives_the_erasure_and_the_receipt_says_so(store):
    store.set_consent(ANN, allowed=False)
    assert "objects to being stored is kept" in store.erase_user(ANN).note
    assert write(store, event(user=ANN)) == (0, 0, 1)
    assert "objects" not in store.erase_user("bob").note


def test_what_was_sent_before_an_erasure_is_gone_and_what_comes_after_is_new(small):
    with ThreadPoolExecutor(1) as pool:
        with held(small):
            before = [small.write_events([event(id=f"b{i}", user=ANN)]) for i in range(3)]
            erasing = pool.submit(small.erase_user, ANN)
            until(lambda: waiting(small) == 4)
            after = small.write_events([event(id="b0", user=ANN), event(id="new", user=ANN)])
        receipt = erasing.result(60)
    assert [one.result(60).stored for one in before] == [1, 1, 1]
    assert receipt.erased["events"] == 3
    assert after.result(60).stored == 2
    assert ids(small) == ["b0", "new"]


@pytest.mark.parametrize("user", ["", "a'; DROP TABLE serve_event; --", "%", "ユーザー", "a" * 5000])
def test_any_text_may_be_asked_about(small, user):
    write(small, event(user="other"))
    assert small.history(user) == []
    small.set_consent(user, allowed=False)
    assert small.consent(user) is False
    assert small.export_user(user)["events"] == []
    assert small.erase_user(user).erased["events"] == 0
    assert users_of(kept(small)) == ["other"]


@pytest.mark.parametrize("user", ["a\x00", "\ud800"])
def test_text_that_no_database_holds_is_refused(store, user):
    for ask in (
        store.history,
        store.export_user,
        store.erase_user,
        lambda user: store.set_consent(user, allowed=False),
    ):
        with pytest.raises(DataError, match=r"^user .* has a character that cannot be stored"):
            ask(user)
    assert store.consent(user) is None
    assert store.may_store(user)
    for ask in (store.item, lambda one: store.delete_items([one]), lambda one: store.patch_items({one: {"stock": 1}})):
        with pytest.raises(DataError, match=r"^item .* has a character that cannot be stored"):
            ask(user)
