"""Noisy answers: what one item of the basket can move, what the draws say of it, and what the budget lets through."""

from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import coterie
from coterie.data.market import market
from coterie.errors import ModelError
from coterie.serving.live import LiveCatalogue
from coterie.serving.private.noisy import base, draw, gumbel, known_items, noisy_answer, utilities
from coterie.serving.served import ServedModel
from coterie.serving.words import Ask, BasketLine, Item, Version

MODELS = ("cart", "ease", "cosine", "ials", "popularity", "sequence", "subspace")


def served(model: str) -> ServedModel:
    log = market(shops=3, customers=100, items=60, baskets=600, seed=0).log
    run = coterie.train(log, model=model, seed=0)
    return ServedModel.of(run, Version(1, "run", "f" * 64, model, None, 0))


@pytest.fixture(scope="module", params=MODELS)
def each(request: pytest.FixtureRequest) -> ServedModel:
    return served(str(request.param))


@pytest.fixture(scope="module")
def cart() -> ServedModel:
    return served("cart")


def test_one_item_more_moves_every_utility_up_by_at_most_one(each: ServedModel) -> None:
    view, rng = each.view(None), np.random.default_rng(0)
    for _ in range(40):
        items = rng.choice(len(view.ids), rng.integers(1, 9), replace=False).astype(np.int32)
        more, less = utilities(each, view, np.sort(items)), utilities(each, view, np.sort(items[1:]))
        assert (more - less).min() >= -1e-9
        assert (more - less).max() <= 1 + 1e-9


MEASURE = [0.0, -1.0, 0.5, -0.3, 0.2]  # logarithm of a base measure


def exact(worth: list[float], k: int, epsilon: float) -> dict[tuple[int, ...], float]:
    """The probability of each ordered answer: one exponential mechanism after the other, written out."""
    found = {}
    for order in itertools.permutations(range(len(worth)), k):
        p, left = 1.0, dict(enumerate(worth))
        for one in order:
            weight = {j: math.exp(MEASURE[j] + epsilon / k * u) for j, u in left.items()}
            p *= weight[one] / sum(weight.values())
            del left[one]
        found[order] = p
    return found


@given(
    st.lists(st.floats(0, 5), min_size=4, max_size=5),
    st.lists(st.floats(0, 1), min_size=5, max_size=5),
    st.sampled_from([0.5, 2.0, 6.0]),
    st.integers(1, 3),
)
def test_no_answer_is_more_than_e_to_the_epsilon_likelier_with_an_item(
    worth: list[float], votes: list[float], epsilon: float, k: int
) -> None:
    without, with_ = exact(worth, k, epsilon), exact([a + b for a, b in zip(worth, votes, strict=False)], k, epsilon)
    loss = max(abs(math.log(with_[order] / without[order])) for order in without)
    assert loss <= epsilon + 1e-9


def test_draws_have_the_distribution_of_the_mechanism() -> None:
    worth, n = [0.0, 1.0, 2.5, 0.3], 40_000
    want = exact(worth, 2, 3.0)
    found = Counter(tuple(draw(np.array(worth), 2, 3.0, np.array(MEASURE[:4])).tolist()) for _ in range(n))
    assert stats.chisquare([found[o] for o in want], [n * p for p in want.values()]).pvalue > 1e-4


def test_a_second_one_of_a_group_is_skipped_as_if_it_had_not_been_there() -> None:
    """The next draw is that of the mechanism among what is left, which is what the proof counts on."""
    worth, group, n = np.array([2.0, 1.0, 0.5, 0.0]), np.array([0, 0, -1, -1], np.int32), 40_000
    found = Counter(tuple(draw(worth, 2, 3.0, np.zeros(4), group).tolist()) for _ in range(n))
    first = np.exp(1.5 * worth) / np.exp(1.5 * worth).sum()
    want = {}
    for one, other in itertools.permutations(range(4), 2):
        left = [j for j in range(4) if j != one and not (group[j] == group[one] == 0)]
        if other in left:
            want[one, other] = first[one] * math.exp(1.5 * worth[other]) / sum(math.exp(1.5 * worth[j]) for j in left)
    assert set(found) == set(want)
    assert stats.chisquare([found[o] for o in want], [n * p for p in want.values()]).pvalue > 1e-4


def test_the_noise_is_gumbel() -> None:
    assert stats.kstest(gumbel(50_000), "gumbel_r").pvalue > 1e-4


def test_a_large_epsilon_gives_what_the_votes_say_and_a_small_one_anything(cart: ServedModel) -> None:
    ask = Ask("basket", (BasketLine("A00001"), BasketLine("A00003")), k=3)
    view = cart.view(None)
    worth = utilities(cart, view, known_items(cart, view, ask))
    best = [view.ids[i] for i in np.argsort(-worth, kind="stable")[:3]]
    assert [one.item.id for one in noisy_answer(cart, LiveCatalogue(), ask, 1e6).suggestions] == best
    anything = {one.item.id for _ in range(60) for one in noisy_answer(cart, LiveCatalogue(), ask, 1e-3).suggestions}
    assert len(anything) > 25


def test_a_small_epsilon_draws_what_is_popular(cart: ServedModel) -> None:
    ask, view = Ask("basket", (BasketLine("A00001"),), k=1), cart.view(None)
    share = np.exp(base(view)) / np.exp(base(view)).sum()
    found = Counter(noisy_answer(cart, LiveCatalogue(), ask, 1e-6).suggestions[0].item.id for _ in range(4000))
    for item in np.argsort(-share)[:5]:
        assert found[view.ids[item]] / 4000 == pytest.approx(share[item], abs=0.03)


def test_an_answer_says_nothing_besides_the_draw(cart: ServedModel) -> None:
    """Not which items were unknown, no figure of the model, no gap where the basket is; and stock is heeded."""
    live = LiveCatalogue([Item("A00002", stock=0)], ["A00005"])
    ask = Ask("basket", (BasketLine("A00001"), BasketLine("nobody knows it")), k=10)
    seen = set[str]()
    for _ in range(200):
        answer = noisy_answer(cart, live, ask, 5.0)
        assert (answer.unknown, answer.fallback, answer.explored) == ((), None, None)
        assert [one.score for one in answer.suggestions] == pytest.approx([1 - at / 10 for at in range(10)])
        assert all(one.because == () for one in answer.suggestions)
        seen |= {one.item.id for one in answer.suggestions}
    assert "A00001" in seen
    assert not seen & {"A00002", "A00005"}


@pytest.mark.parametrize("option", [{"explain": True}, {"diversity": 0.5}])
def test_what_would_say_more_is_refused(cart: ServedModel, option: dict[str, float]) -> None:
    with pytest.raises(ModelError, match="noisy"):
        noisy_answer(cart, LiveCatalogue(), Ask("basket", (BasketLine("A00001"),), **option), 2.0)  # type: ignore[arg-type]


def test_a_history_has_the_same_votes_as_a_basket(cart: ServedModel) -> None:
    view = cart.view(None)
    basket = Ask("basket", (BasketLine("A00001"), BasketLine("A00002")))
    history = Ask("user", (BasketLine("A00001"),), (("A00002",), ("A00001", "A00002")))
    assert known_items(cart, view, basket).tolist() == known_items(cart, view, history).tolist()
