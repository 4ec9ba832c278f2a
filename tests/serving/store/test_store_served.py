"""Keys, versions, the roll-out, and what noisy answers have spent."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from coterie.errors import ConfigError, DataError
from coterie.serving.words import ApiKey, Change, Rollout
from tests.serving.store.shop import rows

KEY = ApiKey(
    "k1", "Shop", True, frozenset({"recommend", "events"}), ("https://shop.example",), 5, "hash", expires_at=9_000
)


def test_a_key_is_given_back_as_it_was_added(open_store, store):
    other = ApiKey("k0", "Ops", False, frozenset({"admin"}), (), 6, "other")
    store.add_key(KEY)
    store.add_key(other)
    assert open_store().keys() == [KEY, other]
    with pytest.raises(DataError, match="there is a key 'k1' already"):
        store.add_key(KEY)
    assert [(one.kind, one.key) for one in store.changes_since(0)] == [("keys", "k1"), ("keys", "k0")]


def test_the_first_revocation_of_a_key_counts(store):
    store.add_key(KEY)
    store.revoke_key("k1", 100)
    store.revoke_key("k1", 200)
    assert store.keys() == [replace(KEY, revoked_at=100)]
    assert store.last_change() == 2
    with pytest.raises(DataError, match="there is no key 'k2'"):
        store.revoke_key("k2", 1)


def test_a_run_that_was_served_has_its_version(open_store):
    store = open_store(clock=lambda: 42)
    first = store.add_version("runs/a", "f" * 64, "ease", 7, ("older", "unsigned"))
    assert (first.id, first.loaded_at, first.signed_at, first.allowed) == (1, 42, 7, ("older", "unsigned"))
    second = store.add_version("runs/a", "e" * 64, "ials", None, ())
    third = store.add_version("runs/b", "f" * 64, "ease", 7)
    assert (second.id, third.id) == (2, 3)
    assert store.add_version("runs/a", "f" * 64, "ease", 7, ()) == first
    assert open_store().versions() == [first, second, third]


def test_versions_have_one_number_each_whoever_adds_them(open_store, store):
    stores = [store, open_store()]
    with ThreadPoolExecutor(4) as pool:
        added = list(pool.map(lambda i: stores[i % 2].add_version(f"runs/{i // 2}", "f", "ease", None), range(20)))
    assert sorted({one.id for one in added}) == list(range(1, 11))
    assert all(added[i] == added[i + 1] for i in range(0, 20, 2))


def test_the_rollout_names_versions_that_there_are(open_store):
    store = open_store(clock=lambda: 42)
    assert store.rollout() is None
    one, two = (store.add_version(f"runs/{name}", "f", "ease", None).id for name in "ab")
    store.set_rollout(Rollout(one))
    assert store.rollout() == Rollout(one, changed_at=42)
    store.set_rollout(Rollout(one, two, 0.25, previous=two, changed_at=50))
    assert open_store().rollout() == Rollout(one, two, 0.25, previous=two, changed_at=50)
    assert store.changes_since(1) == [Change(2, "rollout", "1")]
    for wrong, sentence in ((Rollout(9), "no version 9; there are 1, 2"), (Rollout(one, two, 1.5), "share")):
        with pytest.raises(DataError, match=sentence):
            store.set_rollout(wrong)
    assert store.rollout().champion == one
    assert store.last_change() == 2


def test_epsilon_is_spent_up_to_the_limit_and_not_over_it(open_store):
    time = [1000]
    store = open_store(clock=lambda: time[0])
    user, other = store.hashed("ann"), store.hashed("bob")
    assert [store.spend(user, 0.1, limit=0.3, since=0) for _ in range(4)] == [True, True, True, False]
    assert store.spent(user, 0) == pytest.approx(0.3)
    assert store.spend(other, 0.3, limit=0.3, since=0)
    assert not store.spend(store.hashed("eve"), 0.31, limit=0.3, since=0)
    time[0] = 2000
    assert store.spend(user, 0.3, limit=0.3, since=1001)  # the window has moved on
    assert store.spent(user, 0) == pytest.approx(0.3)  # what no window reaches is gone
    for wrong in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="must be positive"):
            store.spend(user, wrong, limit=9.0, since=0)


def test_many_who_spend_at_once_stay_within_the_limit(open_store, store):
    stores = [store, open_store()]  # as two processes
    user = store.hashed("ann")
    with ThreadPoolExecutor(8) as pool:
        charged = list(pool.map(lambda i: stores[i % 2].spend(user, 1.0, limit=25.0, since=0), range(60)))
    assert sum(charged) == 25
    assert store.spent(user, 0) == 25.0


def test_no_table_has_a_user_in_it_who_only_asked(store):
    store.spend(store.hashed("ann-4711"), 1.0, limit=2.0, since=0)
    assert [row["user_hash"] for row in rows(store, "serve_spend")] == [store.hashed("ann-4711")]
