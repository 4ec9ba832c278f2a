"""What the shop says, in memory: every change is seen by the next question, by every model."""

import gc
import weakref
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.errors import ConfigError
from coterie.serving import live as live_module
from coterie.serving.live import LiveCatalogue, LiveIndex, ModelItems, Shop
from coterie.serving.words import Item

KEPT = []  # an index lasts as long as its model's items do, and these for the tests


def model_items(ids="abcde"):
    return KEPT.append(made(ids)) or KEPT[-1]


def made(ids="abcde"):
    return ModelItems(tuple(ids), [f"title {one}" for one in ids], {one: at for at, one in enumerate(ids)})


def facts(index):
    """Everything that an index says, with groups by which items share one."""
    together = [index.group[i] >= 0 and index.group[i] == index.group[j] for i in range(5) for j in range(5)]
    return index.record, index.there.tolist(), index.in_stock.tolist(), together


def test_an_item_is_what_was_said_of_it_last():
    live, known = LiveCatalogue([Item("a", "A", stock=3), Item("z")], deleted=["b"]), model_items()
    index = live.index(known)
    assert index is live.index(known)
    assert (live.get("a"), live.get("z"), live.get("b"), live.get("c"), len(live)) == (
        Item("a", "A", stock=3),
        Item("z"),
        None,
        None,
        2,
    )
    assert index.in_stock.tolist() == index.there.tolist() == [True, False, True, True, True]
    live.update({"a": Item("a", stock=0), "b": Item("b", stock=2), "c": None, "z": None})
    assert index.record[:3] == [Item("a", "title a", stock=0), Item("b", "title b", stock=2), Item("c", "title c")]
    assert index.in_stock.tolist() == [False, True, False, True, True]
    assert index.there.tolist() == [True, True, False, True, True]
    assert (live.get("a"), live.get("c"), live.get("z")) == (Item("a", stock=0), None, None)


def test_stock_that_is_not_counted_is_there():
    index = LiveCatalogue([Item("a", stock=None), Item("b", stock=0)]).index(model_items())
    assert index.in_stock.tolist() == [True, False, True, True, True]


def test_replacing_all_forgets_the_rest_and_each_model_sees_it():
    live, one, other = LiveCatalogue([Item("a", stock=0)], ["b"]), model_items(), model_items("cab")
    before = live.index(one)
    live.index(other)
    live.replace_all([Item("c", stock=0), Item("d")], ["a", "d"])
    assert live.index(one).in_stock.tolist() == [False, True, False, True, True]
    assert live.index(other).in_stock.tolist() == [False, False, True]
    assert before.in_stock.tolist() == [False, False, True, True, True]  # who is still answering has all of the old


def test_an_index_goes_with_its_model():
    live, known = LiveCatalogue(), made()
    gone = weakref.ref(live.index(known))
    del known
    gc.collect()
    assert gone() is None


def test_groups_of_items_that_no_model_knows_count():
    live = LiveCatalogue([Item("a", group="g"), Item("z", group="g"), Item("y", group="h"), Item("b")])
    index = live.index(model_items())
    assert index.groups_of(["z", "a", "b", "nowhere"]).tolist() == [index.group[0]]
    assert len(index.groups_of(["y", "z"])) == 2
    assert LiveCatalogue().index(model_items()).groups_of(["a"]).tolist() == []


changes = st.dictionaries(
    st.sampled_from("abcdez"),
    st.none()
    | st.builds(
        Item,
        st.just("?"),
        st.none() | st.just("T"),
        stock=st.sampled_from([None, 0, 3]),
        group=st.sampled_from([None, "g", "h"]),
    ),
)


@given(st.lists(changes, max_size=6))
@settings(max_examples=100, deadline=None)
def test_step_by_step_is_all_at_once(steps):
    live, known, items, deleted = LiveCatalogue(), model_items(), {}, set()
    index = live.index(known)
    for step in steps:
        named = {id: None if item is None else replace(item, id=id) for id, item in step.items()}
        live.update(named)
        for id, item in named.items():
            items.pop(id, None)
            deleted.discard(id)
            if item is None:
                deleted.add(id)
            else:
                items[id] = item
    assert facts(index) == facts(LiveIndex(known, Shop.of(items.values(), deleted)))


class TestExpressions:
    """Results over all items are kept, and follow what changes."""

    @pytest.fixture(autouse=True)
    def _with_cel(self):
        pytest.importorskip("cel", reason="needs the extra 'serve'")

    def test_a_result_follows_what_changes(self):
        live = LiveCatalogue([Item("a", price=1.0), Item("b", price=9.0)])
        index = live.index(model_items())
        cheap, factor = index.result("price < 5", "filter"), index.result("price", "boost")
        assert cheap.tolist() == [True, False, False, False, False]
        assert (factor.dtype, factor.tolist()) == (np.float32, [1.0, 9.0, 1.0, 1.0, 1.0])
        live.update({"a": Item("a", price=7.0), "b": None, "c": Item("c", price=2.0)})
        assert index.result("price < 5", "filter") is cheap
        assert cheap.tolist() == [False, False, True, False, False]
        assert factor.tolist() == [7.0, 1.0, 2.0, 1.0, 1.0]

    def test_the_least_asked_results_are_let_go(self, monkeypatch):
        monkeypatch.setattr(live_module, "EXPRESSIONS", 2)
        index = LiveCatalogue([Item("a", price=1.0)]).index(model_items())
        first = index.result("price < 5", "filter")
        index.result("price < 6", "filter")
        assert index.result("price < 5", "filter") is first
        index.result("price < 7", "filter")
        assert index.result("price < 5", "filter") is first
        index.result("price < 6", "filter")
        index.result("price < 7", "filter")
        assert index.result("price < 5", "filter") is not first

    def test_what_is_slow_to_follow_is_let_go_and_refused_when_asked_again(self, monkeypatch):
        live = LiveCatalogue([Item("a", price=1.0)])
        index = live.index(model_items())
        assert index.result("price < 5", "filter").tolist() == [True, False, False, False, False]
        monkeypatch.setattr("coterie.serving.expressions.SECONDS", -1.0)
        live.update({"a": Item("a", price=7.0), "b": Item("b", price=1.0)})
        with pytest.raises(ConfigError, match="the filter 'price < 5' takes too long over 5 items"):
            index.result("price < 5", "filter")
        monkeypatch.undo()
        live.update({"c": Item("c", price=1.0)})
        assert index.result("price < 5", "filter").tolist() == [False, True, True, False, False]

    def test_who_replaces_all_evaluates_what_was_asked_before(self, monkeypatch):
        live, known = LiveCatalogue([Item("a", price=1.0)]), model_items()
        live.index(known).result("price < 5", "filter")
        live.replace_all([Item("b", price=1.0)])
        monkeypatch.setattr(LiveIndex, "_evaluated", None)
        assert live.index(known).result("price < 5", "filter").tolist() == [False, True, False, False, False]

    def test_a_refusal_is_kept_until_something_changes(self):
        live = LiveCatalogue([Item("a", price=1.0)])
        index = live.index(model_items())
        for _ in range(2):
            with pytest.raises(ConfigError, match="the filter 'price' must be true or false, but gives a number"):
                index.result("price", "filter")
        live.update({"a": Item("a", attributes={"price": True})})
        assert index.result("price", "filter").tolist() == [False] * 5
