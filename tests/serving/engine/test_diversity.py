"""Maximal marginal relevance: the textbook's order, and suggestions that differ."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.serving.diversity import _marginal, candidates, diverse, similarities
from coterie.serving.engine import answer
from coterie.serving.live import LiveCatalogue
from coterie.serving.words import Ask, BasketLine, Item


def by_the_book(relevance, alike, k, weight):
    taken = []
    while len(taken) < k:
        worth = {
            i: weight * relevance[i] - (1 - weight) * max((alike[i][j] for j in taken), default=0.0)
            for i in range(len(relevance))
            if i not in taken
        }
        taken.append(max(worth, key=lambda i: (worth[i], -i)))
    return taken


@given(st.integers(1, 12), st.integers(0, 2**32 - 1), st.sampled_from([0.0, 0.3, 0.7, 1.0]))
@settings(max_examples=100, deadline=None)
def test_items_are_taken_as_the_formula_says(n, seed, weight):
    draw = np.random.default_rng(seed)
    relevance, alike = np.sort(draw.random(n))[::-1], draw.random((n, n))
    alike = (alike + alike.T) / 2
    k = int(draw.integers(1, n + 1))
    assert _marginal(relevance, alike, k, weight).tolist() == by_the_book(relevance, alike, k, weight)


@pytest.mark.parametrize("name", ["ease", "cart", "ials", "sequence", "ratings"])
def test_similarity_is_what_the_model_says_both_ways(model_of, name):
    served = model_of(name)
    view, items = served.view(None), np.array([3, 9, 1, 14], np.int32)
    found = similarities(served.run.model, view, items)
    assert np.array_equal(found, found.T)
    assert np.diagonal(found).tolist() == [0.0] * 4
    assert (found >= 0).all()
    if name == "ease":
        weights = view.state["weights"][np.ix_(items, items)].astype(np.float64)
        np.fill_diagonal(weights, 0.0)
        assert found == pytest.approx(np.maximum((weights + weights.T) / 2, 0), abs=1e-6)


def test_blocks_change_nothing(model_of, monkeypatch):
    served, items = model_of("cart"), np.arange(40, dtype=np.int32)
    whole = similarities(served.run.model, served.view(None), items)
    monkeypatch.setattr("coterie.serving.diversity.BLOCK", 7 * 60)
    assert np.array_equal(similarities(served.run.model, served.view(None), items), whole)


def test_a_client_s_mix_is_asked_too(model_of):
    served = model_of("cart")
    for client in served.run.clients:
        found = answer(served, LiveCatalogue(), Ask("basket", (), k=5, diversity=0.5, client=client))
        assert len(found.suggestions) == 5


def test_more_diversity_is_less_alike(model_of):
    served, live = model_of("cart"), LiveCatalogue()
    means = []
    for diversity in (0.0, 0.3, 0.7, 1.0):
        total = 0.0
        for item in served.run.items[:20]:
            found = answer(served, live, Ask("basket", (BasketLine(item),), k=5, diversity=diversity))
            chosen = np.array([served.items.places[one.item.id] for one in found.suggestions], np.int32)
            total += similarities(served.run.model, served.view(None), chosen).sum()
        means.append(total)
    assert means[0] > means[1] > means[2] >= means[3]


def test_the_first_stays_and_little_diversity_is_the_plain_ranking(model_of):
    served, live = model_of("cart"), LiveCatalogue()
    for item in served.run.items[:5]:
        line = (BasketLine(item),)
        plain = answer(served, live, Ask("basket", line, k=8))
        assert answer(served, live, Ask("basket", line, k=8, diversity=1e-9)) == plain
        varied = answer(served, live, Ask("basket", line, k=8, diversity=0.5))
        assert varied.suggestions[0] == plain.suggestions[0]
        assert len({one.item.id for one in varied.suggestions}) == 8


def test_masks_hold_and_a_model_without_likeness_ranks_as_ever(model_of):
    served = model_of("popularity")
    plain = answer(served, LiveCatalogue(), Ask("basket", k=10))
    live = LiveCatalogue([Item(plain.suggestions[0].item.id, stock=0)])
    varied = answer(served, live, Ask("basket", k=9, diversity=0.8))
    assert [one.item.id for one in varied.suggestions] == [one.item.id for one in plain.suggestions[1:]]


def test_few_candidates(model_of):
    served = model_of("ease")
    view, scores = served.view(None), np.arange(60, dtype=np.float32)
    assert candidates(3) == 50
    assert candidates(20) == 100
    for best in (np.empty(0, np.int32), np.array([4], np.int32)):
        assert diverse(served.run.model, view, best, scores, 5, 0.5).tolist() == best.tolist()
