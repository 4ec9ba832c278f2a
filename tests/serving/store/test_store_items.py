"""Items: what a shop says of them, all at once or not at all, and who hears of it."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from coterie.errors import DataError
from coterie.serving.words import Change, Item

FULL = Item(
    "A1",
    title="Käse 🧀",
    url="https://shop.example/a1",
    image="/a1.jpg",
    price=2.5,
    currency="EUR",
    stock=3,
    language="de",
    group="cheese",
    attributes={"tags": ("vegan", "new"), "margin": 0.25, "organic": True, "brand": "Alp"},
    updated_at=7,
)


def test_an_item_is_given_back_as_it_was_put(open_store, store):
    assert store.put_items([FULL, Item("A2")]) == 2
    for opened in (store, open_store()):
        assert opened.item("A1") == FULL
        assert opened.item("A3") is None
        assert [one.id for one in opened.items()] == ["A1", "A2"]


def test_what_is_put_without_a_time_gets_that_of_the_store(open_store):
    store = open_store(clock=lambda: 1234)
    store.put_items([Item("A1")])
    assert store.item("A1") == Item("A1", updated_at=1234)


def test_items_come_page_by_page(store):
    store.put_items(Item(f"A{i}") for i in range(7))
    pages = [[one.id for one in store.items(after, 3)] for after in (None, "A2", "A5", "A6")]
    assert pages == [["A0", "A1", "A2"], ["A3", "A4", "A5"], ["A6"], []]


def test_a_patch_leaves_what_it_does_not_name(store):
    store.put_items([FULL])
    assert store.patch_items({"A1": {"stock": 0, "title": None}, "A9": {"stock": 1}}) == ["A9"]
    changed = store.item("A1")
    assert (changed.stock, changed.title, changed.price) == (0, None, 2.5)
    assert changed.attributes == FULL.attributes
    assert changed.updated_at > FULL.updated_at
    assert store.item("A9") is None
    store.patch_items({"A1": {"attributes": {"brand": "Tal"}}})
    assert store.item("A1").attributes == {"brand": "Tal"}


def test_the_deleted_are_remembered_until_they_are_put_again(open_store, store):
    store.put_items([FULL, Item("A2")])
    assert store.delete_items(["A1", "A9"]) == ["A9"]
    assert store.delete_items(["A1"]) == ["A1"]
    assert store.patch_items({"A1": {"stock": 4}}) == ["A1"]
    again = open_store()
    assert again.item("A1") is None
    assert [one.id for one in again.items()] == ["A2"]
    assert again.deleted_ids() == {"A1"}
    again.put_items([Item("A1")])
    assert again.deleted_ids() == set()
    assert again.item("A1").title is None  # nothing of the one before


def test_put_patch_and_delete_are_one_step_in_this_order(store):
    store.put_items([Item("A1"), Item("A2")])
    last = store.last_change()
    done = store.change_items(
        put=[Item("A3", stock=1), Item("A4")],
        patch={"A1": {"stock": 5}, "A3": {"price": 2.0}, "no": {"stock": 1}},
        delete=["A2", "A4", "no", "nor this"],
    )
    assert tuple(done) == (2, 2, 2, ["no", "nor this"])
    assert [(one.id, one.stock, one.price) for one in store.items()] == [("A1", 5, None), ("A3", 1, 2.0)]
    assert store.deleted_ids() == {"A2", "A4"}
    assert sorted(one.key for one in store.changes_since(last)) == ["A1", "A2", "A3", "A4"]


def test_nothing_of_a_change_is_kept_when_a_part_of_it_is_wrong(store):
    for put, patch, sentence in (
        ([Item("A1"), Item("A2", title="a\x00b")], {}, r"item 'A2': title 'a\\x00b' has a character"),
        ([Item("A1"), Item("A\ud800")], {}, "lone surrogate"),
        ([Item("A1"), Item("A2", attributes={"x": float("nan")})], {}, "item 'A2': attributes must be .* finite"),
        ([Item("A1")], {"A1": {"stok": 1}}, "'stok' is no field that can be changed; did you mean 'stock'"),
        ([Item("A1")], {"A1": {"id": "A2"}}, "'id' is no field that can be changed"),
        ([Item("A1")], {"A1": {"title": "a\x00"}}, "item 'A1': title"),
    ):
        with pytest.raises(DataError, match=sentence):
            store.change_items(put=put, patch=patch)
    assert store.items() == []
    assert store.last_change() == 0


def test_twenty_thousand_items_in_one_step(small):
    assert small.put_items(Item(f"A{i:05d}", title=f"Item {i}", stock=i) for i in range(20_000)) == 20_000
    assert len(small.items()) == 20_000
    assert len(small.some_items([f"A{i:05d}" for i in range(0, 20_000, 7)])) == 2858
    assert small.last_change() == 20_000


def test_changes_are_numbered_without_a_gap_whoever_writes(open_store, store):
    stores = [store, open_store(), open_store()]  # as three processes

    def put(i):
        stores[i % 3].put_items([Item(f"A{i}"), Item(f"B{i}")])

    seen, last = [], 0
    with ThreadPoolExecutor(6) as pool:
        writing = [pool.submit(put, i) for i in range(60)]
        while not all(one.done() for one in writing) or last < store.last_change():
            new = store.changes_since(last)  # a follower, who must not miss one that is committed late
            seen += new
            last = seen[-1].number if seen else 0
        for one in writing:
            one.result()
    assert [one.number for one in seen] == list(range(1, 121))
    assert {one.key for one in seen} == {f"{letter}{i}" for letter in "AB" for i in range(60)}
    assert seen[0] == Change(1, "item", seen[0].key)


def test_whoever_is_too_far_behind_or_ahead_reads_everything_anew(open_store):
    time = [0]
    store = open_store(clock=lambda: time[0])
    store.put_items([Item("A1"), Item("A2")])
    time[0] = 2 * 86_400_000_000
    store.put_items([Item("A3")])
    assert len(store.changes_since(0)) == 3
    assert store.prune(time[0])["changes"] == 2
    assert store.changes_since(1) is None
    assert [one.key for one in store.changes_since(2)] == ["A3"]
    assert store.changes_since(3) == []
    assert store.changes_since(4) is None  # of a store that was restored from a backup
    assert store.last_change() == 3
