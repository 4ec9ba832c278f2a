"""The cart model under noise: bounds that hold on integers, a choice of pairs that is public, and a floor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.models.cart import Cart
from coterie.models.cart_private import POPULARITY_SHARE
from coterie.models.pair_denoise import expected, posterior, signal_to_noise, slopes, spectral
from coterie.models.text import similarity
from coterie.privacy.plan import Plan
from coterie.ring import Accumulator
from coterie.testing.logs import Log, block_of, checkerboard, logs, zipf_log
from coterie.testing.recommender import RecommenderContract, law
from coterie.types import Array, Query, Ragged, RoundSpec, Scores, State, Total

CLIPS = (None, 0.3, 1.0)
TITLES = ["red mug", "blue mug", "red mug large", "paper lantern", "paper lantern white", "tin drum", None]


class Quiet(Cart):
    """The private cart model, which believes that there is noise; the plans of the contract add none."""

    def init(self, n_items: int, public: Mapping[str, Array], seed: int) -> State:
        return super().init(n_items, {**public, **noise(0.01)}, seed)


class TestPrivateCart(RecommenderContract):
    exact_pooled = False  # the pooled model is the one without noise

    def model(self) -> Cart:
        return Quiet()

    def test_the_state_knows_how_popular_items_are(self) -> None:
        users = zipf_log(40, 10)
        popularity = self.state(users, 10)["popularity"]
        bought = [{item for basket in user for item in basket} for user in users]
        expected = [
            sum((i in items) / math.sqrt(len(items)) for items in bought if items) / len(bought) for i in range(10)
        ]
        np.testing.assert_allclose(popularity, expected, rtol=1e-5)


def noise(multiplier: float) -> dict[str, Array]:
    """What a model is told of a plan with noise."""
    return {"noise_multiplier": np.array(multiplier), "max_users": np.array(100_000, np.int64)}


def train(
    users: Log, n_items: int, multiplier: float, public: Mapping[str, Array], model: Cart | None = None, seed: int = 0
) -> State:
    """A private training with rounded normal noise."""
    model, rng = model or Cart(), np.random.default_rng(seed)
    state = model.init(n_items, {**public, **noise(multiplier)}, 0)
    while (spec := model.next_round(state)) is not None:
        out = Accumulator(spec)
        model.contribute(spec, state, block_of(users, n_items), None, out)
        share = model.budget(state)[spec.index]
        whole = sum(part.budget_share for part in spec.parts)
        std = {p.name: multiplier / math.sqrt(share * p.budget_share / whole) * p.l2 for p in spec.parts}
        noisy = {
            p.name: out[p.name] + np.rint(rng.normal(0, std[p.name] * p.scale, p.size)).astype(np.int64)
            for p in spec.parts
        }
        state = model.apply(spec, state, Total(spec, noisy, std, 1, 0))
    return state


def scored(state: State, carts: list[list[int]], model: Cart | None = None) -> Scores:
    return (model or Cart()).score(state, Query(Ragged.of(carts)))


def rounds(titles: list[str | None]) -> list[tuple[State, RoundSpec]]:
    """Both rounds over seven items, with the state before each."""
    model, public = Cart(), similarity(titles)
    first = model.init(7, {**public, **noise(0.05)}, 0)
    spec = model.next_round(first)
    assert spec is not None
    out = Accumulator(spec)
    model.contribute(spec, first, block_of(zipf_log(30, 7), 7), None, out)
    second = model.apply(spec, first, Total(spec, out.parts, dict.fromkeys(out.parts, 0.0), 1, 0))
    after = model.next_round(second)
    assert after is not None
    return [(first, spec), (second, after)]


ROUNDS = {True: rounds(TITLES), False: rounds([None] * 7)}


@law
@given(users=logs(7), clip=st.sampled_from(CLIPS), texts=st.booleans(), data=st.data())
def test_removing_a_user_moves_the_integers_by_at_most_the_bound(
    users: Log, clip: float | None, texts: bool, data: st.DataObject
) -> None:
    removed = data.draw(st.integers(0, len(users) - 1))
    rest = [*users[:removed], *users[removed + 1 :]]
    for state, asked in ROUNDS[texts]:
        spec = Plan(clip_norm=clip).bind(asked, 100, 1).spec
        whole, without = Accumulator(spec), Accumulator(spec)
        Cart().contribute(spec, state, block_of(users, 7), None, whole)
        Cart().contribute(spec, state, block_of(rest, 7), None, without)
        for part in spec.parts:
            moved = [int(a) - int(b) for a, b in zip(whole[part.name], without[part.name], strict=True)]
            assert math.isfinite(part.l2)
            assert sum(value * value for value in moved) <= (Fraction(part.l2) * part.scale) ** 2
            assert max(map(abs, moved)) <= Fraction(part.linf) * part.scale


def test_every_user_who_met_a_pair_adds_as_much_as_any_other() -> None:
    state, spec = ROUNDS[False][1]
    for user in ([[0, 1]], [[0, 1]] * 500, [list(range(7))], [[0, 1], [1, 2, 3], [0, 5]]):
        out = Accumulator(spec)
        Cart().contribute(spec, state, block_of([user], 7), None, out)
        norm = math.sqrt(float((out["pairs"].astype(np.float64) ** 2).sum())) / spec.part("pairs").scale
        assert norm == pytest.approx(1.0, abs=1e-4)


def test_a_pair_counts_in_each_basket_with_the_inverse_root_of_its_size() -> None:
    state, spec = ROUNDS[False][1]
    out = Accumulator(spec)
    Cart().contribute(spec, state, block_of([[[0, 1], [1, 2, 3]]], 7), None, out)
    pairs = {}
    for i in range(7):
        for at in range(state["pair_ptr"][i], state["pair_ptr"][i + 1]):
            pairs[int(state["pair_item"][at]), i] = out["pairs"][at] / spec.part("pairs").scale
    small, large = 2**-0.5, 3**-0.5
    norm = math.sqrt(small**2 + 3 * large**2)
    found = {pair: value for pair, value in pairs.items() if value}
    assert found == pytest.approx(
        {(0, 1): small / norm, (1, 2): large / norm, (1, 3): large / norm, (2, 3): large / norm}, abs=1e-5
    )


def test_with_texts_the_pairs_of_similar_texts_are_asked_for_first() -> None:
    titles = [f"{colour} {thing}" for thing in ("mug", "lantern", "drum", "candle") for colour in ("red", "blue")]
    users = zipf_log(4, 8)
    state = train(users, 8, 3.0, similarity(titles), seed=2)
    many = train(users, 8, 0.001, similarity(titles))
    asked = [(i, int(j)) for i in range(8) for j in many["pair_item"][many["pair_ptr"][i] : many["pair_ptr"][i + 1]]]
    assert len(set(asked)) == len(asked) == 28  # with hardly any noise all pairs are worth it, each once
    assert len(state["pair_item"]) >= 4
    assert all(0 <= j < i for i, j in asked)


def test_less_noise_or_more_users_ask_for_more_pairs() -> None:
    def pairs(users: int, multiplier: float) -> int:
        return len(train(zipf_log(users, 60), 60, multiplier, {})["pair_item"])

    assert pairs(50, 8.0) < pairs(50, 2.0)
    assert pairs(20, 4.0) < pairs(200, 4.0)


def test_the_rounds_share_the_budget_that_was_announced() -> None:
    model = Cart()
    private = model.init(5, noise(1.0), 0)
    assert model.budget(private) == (POPULARITY_SHARE, 1 - POPULARITY_SHARE)
    assert model.budget(model.init(5, {}, 0)) == (1.0,)


def test_what_goes_together_is_found_in_spite_of_noise() -> None:
    state = train(checkerboard(12, 2000), 12, 1.0, {})
    for at, row in enumerate(scored(state, [[at] for at in range(12)])):
        same = [j for j in range(12) if j % 2 == at % 2 and j != at]
        assert row[same].min() > row[[j for j in range(12) if j % 2 != at % 2]].max()


@pytest.mark.parametrize("exact_items", [20_000, 1])
def test_noise_alone_leaves_popularity(exact_items: int) -> None:
    model = Cart(exact_items=exact_items)
    state = train(zipf_log(200, 40), 40, 30.0, {}, model)
    assert not state.arrays.get("signal")
    scores = scored(state, [[0], [3, 4]], model)
    known = np.maximum(state["counts"], 0)
    for row in scores:
        assert np.array_equal(np.argsort(-row, kind="stable"), np.argsort(-known, kind="stable"))


@pytest.mark.parametrize("titles", [TITLES, [None] * 7])
def test_a_large_catalogue_is_solved_item_by_item(titles: list[str | None]) -> None:
    users, public, large = zipf_log(2000, 7), similarity(titles), Cart(exact_items=1)
    dense, near = train(users, 7, 0.5, public), train(users, 7, 0.5, public, large)
    assert "weights" not in near
    carts = [[at] for at in range(7)]
    both = np.corrcoef(scored(dense, carts).ravel(), scored(near, carts, large).ravel())
    assert both[0, 1] > 0.99
    mixed = large.personalise(near, Cart().pooled(block_of(users, 7), public, 0), 0.5)
    assert np.isfinite(scored(mixed, carts, large)).all()


def test_noise_alone_leaves_texts() -> None:
    state = train(zipf_log(30, 7), 7, 50.0, similarity(TITLES))
    assert float(state["signal"]) == 0.0
    (row,) = scored(state, [[0]])
    assert set(np.argsort(-row)[:2].tolist()) == {1, 2}  # the other mugs


def test_texts_that_say_nothing_get_no_weight() -> None:
    mug, drum = ["mug red", "mug blue", "mug green", "mug white"], ["drum tin", "drum oak", "drum big", "drum old"]
    helpful, useless = similarity(mug + drum), similarity([t for pair in zip(mug, drum, strict=True) for t in pair])
    log = [[[i for i in range(8) if i // 4 == user % 2 and i != user % 8]] for user in range(3000)]
    log += [[[user % 8, (user * 3 + 1) % 8]] for user in range(1500)]
    with_help, without = train(log, 8, 1.0, helpful), train(log, 8, 1.0, useless)
    assert float(with_help["likeness"]) == 1.0
    assert float(without["likeness"]) == 0.0
    assert not without["similarity_gain"].any()


def test_a_sub_catalogue_is_solved_from_the_sums_that_were_kept() -> None:
    items = np.array([0, 1, 3, 4, 6], np.int32)
    model = Cart()
    whole = train(zipf_log(400, 7), 7, 0.5, similarity(TITLES))
    part = model.restrict(whole, items)
    assert int(part["n_items"]) == 5
    kept = {(int(items[i]), int(items[j])): v for i, j, v in pairs_of(part)}
    assert kept == {(i, j): v for i, j, v in pairs_of(whole) if i in items and j in items}
    again = model.restrict(part, np.array([0, 2, 3], np.int32))
    np.testing.assert_array_equal(again["weights"], model.restrict(whole, items[[0, 2, 3]])["weights"])


def pairs_of(state: State) -> list[tuple[int, int, int]]:
    """The pairs of a state with their noisy sums."""
    owner = np.repeat(np.arange(int(state["n_items"])), np.diff(state["pair_ptr"]))
    return list(zip(owner.tolist(), state["pair_item"].tolist(), state["pairs"].tolist(), strict=True))


def test_a_client_mixes_its_own_sums_without_noise() -> None:
    model, public = Cart(), similarity(TITLES)
    together = train(zipf_log(400, 7), 7, 1.0, public)
    own = model.pooled(block_of(zipf_log(20, 7, seed=3), 7), {**public, **noise(1.0)}, 0)
    assert "floor" not in own
    carts = [[0], [2, 5]]
    ends = scored(together, carts), scored(own, carts)
    middle = model.personalise(together, own, 0.25)
    np.testing.assert_allclose(scored(middle, carts), 0.75 * ends[0] + 0.25 * ends[1], rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(scored(model.personalise(together, own, 1.0), carts), ends[1])


def test_reasons_add_up_to_the_score() -> None:
    model, state = Cart(), train(zipf_log(400, 7), 7, 0.5, similarity(TITLES))
    query = Query(Ragged.of([[0, 4]]))
    (scores,) = model.score(state, query)
    for item in (1, 2, 3):
        reasons = model.explain(state, query, item)
        texts = sum(amount for term, _, amount in reasons if term == "similar text")
        expected_texts = sum(0.06 * float(state["similarity_gain"][item]) * similar(state, i, item) for i in (0, 4))
        assert texts == pytest.approx(expected_texts, rel=1e-5)
        assert sum(amount for _, _, amount in reasons) >= scores[item] - 1e-6


def similar(state: State, i: int, j: int) -> float:
    row = slice(state["similarity_ptr"][i], state["similarity_ptr"][i + 1])
    found = dict(zip(state["similarity_item"][row].tolist(), state["similarity"][row].tolist(), strict=True))
    return float(found.get(j, 0.0))


def test_the_heaviest_round_is_that_of_as_many_users_as_there_may_be() -> None:
    model = Cart()
    heaviest = model.heaviest_round(model.init(50, noise(1.0), 0))
    assert heaviest is not None
    assert heaviest.index == 1
    assert heaviest.part("pairs").size > len(train(zipf_log(300, 50), 50, 1.0, {})["pair_item"])


# --- what noisy sums say ----------------------------------------------------------------------------------------------


def pairs_with_noise(std: float, n: int = 6000) -> tuple[Array, Array, Array]:
    """Values whose mean follows a feature, the feature, and the values with noise."""
    rng = np.random.default_rng(1)
    feature = rng.normal(size=n)
    values = np.exp(0.8 * feature - 0.5) * rng.gamma(2.0, 0.5, n)
    return values, feature, values + rng.normal(0, std, n)


def test_the_signal_is_measured_and_noise_alone_has_none() -> None:
    values, _, noisy = pairs_with_noise(1.0)
    assert signal_to_noise(noisy, 1.0) == pytest.approx((values**2).mean(), rel=0.1)
    assert signal_to_noise(np.random.default_rng(0).normal(0, 2.0, 5000), 2.0) == 0.0
    assert signal_to_noise(values, 0.0) == math.inf
    assert signal_to_noise(np.zeros(3), 0.0) == 0.0
    assert signal_to_noise(np.zeros(0), 1.0) == 0.0


def test_the_mean_is_found_under_the_noise() -> None:
    _, feature, noisy = pairs_with_noise(2.0)
    np.testing.assert_allclose(expected(noisy, (feature,)), np.exp(0.8 * feature - 0.5), rtol=0.5, atol=0.1)
    (slope,), (error,) = slopes(noisy, (feature,), 2.0)
    assert slope == pytest.approx(0.8, abs=3 * error + 0.05)
    assert 0 < error < 0.1


def test_an_estimate_is_nearer_to_the_value_than_either_its_sum_or_its_mean() -> None:
    values, feature, noisy = pairs_with_noise(1.0)
    mean = expected(noisy, (feature,))

    def error(found: Array) -> float:
        return float(((found - values) ** 2).mean())

    assert error(posterior(noisy, mean, 1.0)) < 0.9 * min(error(noisy), error(mean))
    np.testing.assert_allclose(posterior(values, mean, 0.0), values)


def test_directions_under_the_edge_of_the_noise_are_dropped() -> None:
    rng = np.random.default_rng(2)
    half = np.triu(rng.normal(0, 1.0, (200, 200)), 1)
    direction = rng.normal(size=200)
    direction /= np.linalg.norm(direction)
    strong = 100.0 * np.outer(direction, direction)
    assert np.linalg.norm(spectral(half + half.T, 1.0)) < 0.2 * np.linalg.norm(half + half.T)
    found = spectral(strong + half + half.T, 1.0)
    assert np.linalg.norm(found - strong) < 0.5 * np.linalg.norm(half + half.T)
