"""One question, one answer: the same as the run itself where nothing is asked besides, and every option as promised."""

import random
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.data.catalogue import Catalogue
from coterie.errors import ConfigError, ModelError
from coterie.experiment.run import ClientModel, Run
from coterie.models.registry import build
from coterie.serving.choosing import NO_FACTOR, choose
from coterie.serving.engine import ServedModel, answer
from coterie.serving.live import LiveCatalogue
from coterie.serving.served import NOTHING
from coterie.serving.words import Ask, BasketLine, Item, Version
from coterie.types import State

MODELS = ("cart", "ease", "cosine", "ials", "mf", "gfcf", "subspace", "sequence", "user-similarity", "popularity")


def basket(*items, **more):
    return Ask("basket", tuple(BasketLine(item) for item in items), **more)


def ids(found):
    return [one.item.id for one in found.suggestions]


def as_run(suggestions):
    """What a run suggests, in the words of an answer."""
    return [(one.item, one.title, one.score, one.because) for one in suggestions]


def as_answer(found):
    return [
        (one.item.id, one.item.title, one.score, tuple((r.term, r.item, r.share) for r in one.because))
        for one in found.suggestions
    ]


@pytest.mark.parametrize("name", [*MODELS, "ratings"])
def test_without_options_the_answer_is_the_run_s(model_of, name):
    served = model_of(name)
    run, live = served.run, LiveCatalogue()
    for taken in ([], run.items[3:4], run.items[5:10], [run.items[9], run.items[2], run.items[9]], [*run.items[:58]]):
        asked = answer(served, live, basket(*taken, explain=True, k=7))
        assert as_answer(asked) == as_run(run.recommend(taken, k=7))
    assert ids(answer(served, live, basket(*run.items[:2], k=10_000))) == [
        one.item for one in run.recommend(run.items[:2], k=10_000, explain=False)
    ]


@pytest.mark.parametrize("name", ["cart", "ease", "sequence", "popularity"])
def test_a_user_s_history_counts_as_in_the_run(model_of, name):
    served = model_of(name)
    run, past = served.run, (served.run.items[4:7], served.run.items[1:3], ("gone", served.run.items[8]))
    for taken in ((), run.items[11:13]):
        lines = tuple(BasketLine(item) for item in taken)
        asked = answer(served, LiveCatalogue(), Ask("user", lines, history=past, explain=True))
        assert as_answer(asked) == as_run(run.recommend(taken, history=past))
        assert asked.fallback is None


def test_who_rates_is_asked_what_they_have_not_rated(model_of):
    served = model_of("ratings")
    had = served.run.items[:6]
    found = answer(served, LiveCatalogue(), Ask("user", history=(had[:3], had[3:]), k=30))
    assert set(ids(found)) == set(served.run.items[6:])
    assert ids(found) == [one.item for one in served.run.recommend(had, k=30)]


def test_ratings_of_the_basket_count_where_the_model_learns_from_ratings(model_of):
    served = model_of("ratings")
    lines = (BasketLine("f01", 5.0), BasketLine("f02"), BasketLine("f03", 1.0))
    expected = served.run.recommend(["f01", "f02", "f03"], values=[5.0, float("nan"), 1.0])
    assert as_answer(answer(served, LiveCatalogue(), Ask("basket", lines, explain=True))) == as_run(expected)
    other = model_of("ease")
    counted = tuple(BasketLine(item, 9.0) for item in other.run.items[:3])
    assert ids(answer(other, LiveCatalogue(), Ask("basket", counted))) == [
        one.item for one in other.run.recommend(other.run.items[:3])
    ]


def test_times_say_the_order_where_all_items_have_one(model_of):
    served, live = model_of("sequence"), LiveCatalogue()
    a, b, c = served.run.items[3:6]
    timed = Ask("basket", (BasketLine(c, time=30), BasketLine(a, time=10), BasketLine(b, time=20)))
    assert as_answer(answer(served, live, timed)) == as_answer(answer(served, live, basket(a, b, c)))
    assert as_answer(answer(served, live, timed)) != as_answer(answer(served, live, basket(c, a, b)))
    partly = Ask("basket", (BasketLine(c, time=30), BasketLine(a), BasketLine(b, time=20)))
    assert as_answer(answer(served, live, partly)) == as_answer(answer(served, live, basket(c, a, b)))
    together = [Ask("basket", tuple(BasketLine(i, time=10) for i in order)) for order in ((a, b), (b, a))]
    one, other = (as_answer(answer(served, live, ask)) for ask in together)
    assert [(row[0], pytest.approx(row[2], abs=1e-6)) for row in one] == [(row[0], row[2]) for row in other]


@pytest.mark.parametrize("explain", [True, False])
def test_a_client_s_own_model_answers_for_it(model_of, explain):
    served = model_of("cart")
    run = served.run
    assert run.clients
    for client in run.clients:
        taken = [run.items[i] for i in run.clients[client].items[:2]]
        found = answer(served, LiveCatalogue(), basket(*taken, "nowhere", client=client, explain=explain))
        assert as_answer(found) == as_run(run.recommend(taken, client=client, explain=explain))
        assert found.unknown == ("nowhere",)
    with pytest.raises(ModelError, match="no model of its own for client 'shp0'"):
        answer(served, LiveCatalogue(), basket(client="shp0"))


def test_what_a_client_s_catalogue_lacks_is_unknown_and_live_facts_are_found_at_its_places():
    whole = build({"name": "popularity"})
    state = State(1, {"n_items": np.array(4), "popularity": np.array([0.4, 0.3, 0.2, 0.1])})
    own = State(1, {"n_items": np.array(2), "popularity": np.array([0.1, 0.9])})
    clients = {"north": ClientModel(np.array([1, 3], np.int32), own)}
    served = ServedModel.of(
        Run(whole, state, Catalogue(tuple("abcd")), clients=clients), Version(1, "", "", "", None, 0)
    )
    live = LiveCatalogue([Item("d", stock=0), Item("b", title="Bee", price=2.0)])
    assert ids(answer(served, live, basket("a", client="north"))) == ["b"]
    assert answer(served, live, basket("a", client="north")).unknown == ("a",)
    assert ids(answer(served, live, basket(client="north", in_stock=False))) == ["d", "b"]
    assert ids(answer(served, live, basket(client="north", in_stock=False, filter="price < 3"))) == ["b"]


def test_with_nothing_known_popularity_or_the_mean_rating_answers_and_says_so(model_of):
    served = model_of("ease")
    empty, unknown = (answer(served, LiveCatalogue(), basket(*taken)) for taken in ((), ("x", "y", "x")))
    assert empty.fallback == unknown.fallback == "popularity"
    assert ids(empty) == ids(unknown) == served.run.rank([[]], k=10)[0]
    assert (empty.unknown, unknown.unknown) == ((), ("x", "y"))
    assert answer(model_of("ratings"), LiveCatalogue(), basket()).fallback == "rating"
    assert answer(served, LiveCatalogue(), Ask("user", history=(("x",), ("y",)))).fallback == "popularity"
    known = answer(served, LiveCatalogue(), basket(served.run.items[0], "x"))
    assert (known.fallback, known.unknown) == (None, ("x",))


def test_similar_and_popular(model_of):
    served, live = model_of("cart"), LiveCatalogue()
    one = served.run.items[5]
    assert ids(answer(served, live, Ask("similar", (BasketLine(one),)))) == served.run.rank([[one]], k=10)[0]
    lost = answer(served, live, Ask("similar", (BasketLine("x"),)))
    assert (lost.unknown, lost.fallback) == (("x",), "popularity")
    with pytest.raises(ModelError, match="one item, got 2"):
        answer(served, live, Ask("similar", (BasketLine(one), BasketLine("x"))))
    popular = answer(served, live, Ask("popular", explain=True))
    assert ids(popular) == served.run.rank([[]], k=10)[0]
    assert popular.fallback is None
    assert {(r.term, r.share) for one in popular.suggestions for r in one.because} == {("popular", 1.0)}


@pytest.mark.parametrize(
    ("ask", "part"),
    [(basket(k=0), "k must be at least 1, got 0"), (basket(diversity=1.5), "between 0 and 1, got 1.5")],
)
def test_what_cannot_be_asked_is_refused(model_of, ask, part):
    with pytest.raises(ModelError, match=part):
        answer(model_of("ease"), LiveCatalogue(), ask)


# --- what the shop says ----------------------------------------------------------------------------------------------


def test_answers_carry_what_the_shop_says(model_of):
    served = model_of("ease")
    plain = answer(served, LiveCatalogue(), basket(served.run.items[0]))
    first, second = ids(plain)[:2]
    told = Item(first, "New title", url="/p/1", price=3.5, stock=4, attributes={"colour": "red"}, updated_at=9)
    live = LiveCatalogue([told, Item(second, price=1.0), Item("of no model", title="Mug")])
    found = answer(served, live, basket(served.run.items[0])).suggestions
    assert found[0].item == told
    assert (found[1].item.title, found[1].item.price) == (served.run.catalogue.title(second), 1.0)
    assert "of no model" not in {one.item.id for one in found}


def test_out_of_stock_deleted_excluded_and_not_listed_items_are_not_suggested_and_k_are(model_of):
    served = model_of("ease")
    order = ids(answer(served, LiveCatalogue(), basket(served.run.items[0], k=60)))
    live = LiveCatalogue([Item(order[0], stock=0), Item(order[1], stock=1)], deleted=[order[2]])
    assert ids(answer(served, live, basket(served.run.items[0], k=5))) == [order[1], *order[3:7]]
    shown = answer(served, live, basket(served.run.items[0], k=5, in_stock=False))
    assert ids(shown) == [order[0], order[1], *order[3:6]]
    without = basket(served.run.items[0], k=5, exclude=frozenset((order[1], order[4], "x")))
    assert ids(answer(served, live, without)) == [order[3], *order[5:9]]
    only = basket(served.run.items[0], include_only=frozenset((order[9], order[2], order[5], served.run.items[0], "x")))
    assert ids(answer(served, live, only)) == [order[5], order[9]]
    assert ids(answer(served, live, basket(include_only=frozenset()))) == []


def test_one_of_each_group_and_none_of_a_group_in_the_basket(model_of):
    served = model_of("ease")
    order = ids(answer(served, LiveCatalogue(), basket(served.run.items[0], k=60)))
    items = [Item(order[i], group="shirt") for i in (0, 1, 4)] + [Item(order[2], group="cup")]
    live = LiveCatalogue([*items, Item("not in the model", group="cup"), Item(order[3], group=None)])
    assert ids(answer(served, live, basket(served.run.items[0], k=4))) == [order[0], order[2], order[3], order[5]]
    live.update({order[0]: Item(order[0], group="shirt", stock=0)})
    assert ids(answer(served, live, basket(served.run.items[0], k=3))) == [order[1], order[2], order[3]]
    asked = basket(served.run.items[0], "not in the model", k=3)
    assert ids(answer(served, live, asked)) == [order[1], order[3], order[5]]
    live.update({served.run.items[0]: Item(served.run.items[0], group="shirt")})
    assert ids(answer(served, live, basket(served.run.items[0], k=3))) == [order[2], order[3], order[5]]


def test_filters_and_boosts(model_of):
    pytest.importorskip("cel", reason="needs the extra 'serve'")
    served = model_of("ease")
    asked = {"k": 60, "in_stock": True}
    plain = answer(served, LiveCatalogue(), basket(served.run.items[0], **asked))
    order, score = ids(plain), {one.item.id: one.score for one in plain.suggestions}
    live = LiveCatalogue(
        [Item(id, price=float(at), attributes={"tags": ("a",) * (at % 2)}) for at, id in enumerate(order)]
    )
    found = answer(served, live, basket(served.run.items[0], filter="price >= 10 && 'a' in tags", **asked))
    assert ids(found) == [id for at, id in enumerate(order) if at >= 10 and at % 2]
    boosted = answer(served, live, basket(served.run.items[0], boost="price >= 10 ? 3.0 : 1.0", **asked))
    for one in boosted.suggestions:
        factor = 3.0 if one.item.price >= 10 and score[one.item.id] > 0 else 1.0
        assert one.score == pytest.approx(factor * score[one.item.id], rel=1e-6)
    scores = [one.score for one in boosted.suggestions]
    assert scores == sorted(scores, reverse=True)
    with pytest.raises(ConfigError, match="the filter 'price <' does not parse"):
        answer(served, live, basket(filter="price <"))


# --- against the plainest way ----------------------------------------------------------------------------------------


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_choosing_is_sorting_and_leaving_out(data):
    n = data.draw(st.integers(1, 30))
    draw = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    scores = draw.integers(-3, 4, n).astype(np.float32)
    hint, allowed = (draw.random(n) * 1e-9).astype(np.float32), draw.random(n) < 0.8
    group, groups = draw.integers(-1, 4, n).astype(np.int32), data.draw(st.sampled_from([0, 4]))
    taken = draw.choice(n, draw.integers(0, n), replace=False).astype(np.int32)
    taken_groups = np.unique(draw.integers(0, 4, draw.integers(0, 3))).astype(np.int32)
    factor = data.draw(st.sampled_from([NO_FACTOR, draw.integers(0, 3, n).astype(np.float32)]))
    k = data.draw(st.integers(1, 35))

    final = np.where(scores == 0, hint, scores)
    final = np.where(final > 0, final * (factor if len(factor) else np.float32(1)), final)
    used, expected = set(taken_groups.tolist()) if groups else set(), []
    for j in sorted(range(n), key=lambda j: (-final[j], j)):
        if allowed[j] and j not in taken and not (groups and group[j] in used - {-1}):
            expected.append(j)
            used.add(int(group[j]))
    pool = np.arange(n, dtype=np.int32)
    found = choose(
        scores, hint, allowed, taken, k, factor=factor, group=group, groups=groups, taken_groups=taken_groups, pool=pool
    )
    assert found.tolist() == expected[:k]
    assert np.array_equal(scores, final)


def test_a_score_that_is_no_number_is_refused():
    row, three = np.array([0.5, np.nan, 0.1], np.float32), np.arange(3, dtype=np.int32)
    with pytest.raises(ModelError, match="position 1 is NaN"):
        choose(row, row, np.ones(3, bool), NOTHING, 2, group=-three - 1, taken_groups=NOTHING, pool=three)


# --- exploring -------------------------------------------------------------------------------------------------------


def test_exploring_puts_any_eligible_item_in_any_place_alike_often(model_of):
    served = model_of("ease")
    order = ids(answer(served, LiveCatalogue(), basket(served.run.items[0], k=60)))
    listed = frozenset(order[:12])
    live = LiveCatalogue([Item(order[3], stock=0), Item(order[0], group="g"), Item(order[4], group="g")])
    ask = basket(served.run.items[0], k=3, include_only=listed)
    best = ids(answer(served, live, ask))
    assert best == [order[0], order[1], order[2]]
    rng, places, drawn = random.Random(1), [0, 0, 0], dict.fromkeys(order[4:12], 0)
    for _ in range(3000):
        found = answer(served, live, ask, rng=rng, explore=1.0)
        at = found.explored - 1
        places[at] += 1
        drawn[ids(found)[at]] += 1
        assert [id for i, id in enumerate(ids(found)) if i != at] == [id for i, id in enumerate(best) if i != at]
        groups = [one.item.group for one in found.suggestions if one.item.group]
        assert len(groups) == len(set(groups))
        assert found.suggestions[at].score <= found.suggestions[0].score or at == 0
    assert min(places) > 850
    assert min(drawn[id] for id in order[5:12]) > 300
    assert 60 < drawn[order[4]] < 200  # of a group with the first suggestion: only in its place


def test_exploring_is_as_frequent_as_asked_and_off_by_default(model_of):
    served, live, rng = model_of("ease"), LiveCatalogue(), random.Random(2)
    ask = basket(served.run.items[0])
    assert answer(served, live, ask, rng=rng).explored is None
    explored = sum(answer(served, live, ask, rng=rng, explore=0.2).explored is not None for _ in range(2000))
    assert 300 < explored < 500
    everything = basket(served.run.items[0], k=60)
    assert answer(served, live, everything, rng=rng, explore=1.0).explored is None  # nothing is left to draw
    assert answer(served, live, basket(include_only=frozenset()), rng=rng, explore=1.0).explored is None


# --- many at a time --------------------------------------------------------------------------------------------------


def test_answers_while_everything_changes_break_no_promise(model_of):
    pytest.importorskip("cel", reason="needs the extra 'serve'")
    served = model_of("ease")
    items, live, stop, faults = served.run.items, LiveCatalogue(), threading.Event(), []

    def change():
        rng = random.Random(3)
        while not stop.is_set():
            some = rng.sample(items[5:], 20)
            live.update({id: Item(id, group=rng.choice(("g", f"g{id}", None)), price=rng.random()) for id in some})
            live.update({items[1]: None, items[2]: Item(items[2], stock=0)})
            if rng.random() < 0.05:
                live.replace_all([Item(items[2], stock=0)], [items[1]])

    def ask():
        try:
            for _ in range(300):
                found = ids(answer(served, live, basket(items[0], filter="price < 0.9 || stock == 0", k=5)))
                assert not {items[0], items[1], items[2]} & set(found)
                assert len(found) == len(set(found))
        except Exception as error:  # noqa: BLE001 - told where it can fail the test
            faults.append(error)

    live.update({items[1]: None, items[2]: Item(items[2], stock=0)})
    changing, asking = threading.Thread(target=change), [threading.Thread(target=ask) for _ in range(3)]
    for thread in (changing, *asking):
        thread.start()
    for thread in asking:
        thread.join()
    stop.set()
    changing.join()
    assert faults == []
