"""Canaries and the observer: who is planted where, what each adds, and the scores against plain algebra."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from coterie.audit.canaries import DAY, Canaries, Design, draw, joined, planted
from coterie.audit.observer import Observer, contributions
from coterie.engines.local import LocalEngine
from coterie.errors import PlanError
from coterie.federation.loop import run_rounds
from coterie.models.mf import Mf
from coterie.models.popularity import Popularity
from coterie.privacy.plan import Plan
from coterie.ring import Accumulator
from coterie.testing.logs import block_of, population_of, zipf_log
from coterie.types import Population, State, UserBlock

N_ITEMS = 40
USERS = zipf_log(30, N_ITEMS)
DEVICES = population_of([[user] for user in USERS], N_ITEMS)
SHOPS = population_of([USERS[:12], USERS[12:13], USERS[13:]], N_ITEMS)


def rows(block: UserBlock) -> list[list[list[int]]]:
    """Users as lists of baskets."""
    at = block.user_baskets()
    baskets = [block.item[s:e].tolist() for s, e in pairwise(block.basket_ptr)]
    return [baskets[s:e] for s, e in pairwise(at)]


# --- canaries ---------------------------------------------------------------------------------------------------------


def test_canaries_are_of_the_kind_of_the_log() -> None:
    like = replace(
        DEVICES.block,
        time=np.arange(len(DEVICES.block.item), dtype=np.int64),
        value=np.tile(np.array([1.0, 5.0, np.nan], np.float32), len(DEVICES.block.item))[: len(DEVICES.block.item)],
    )
    drawn = draw(like, Design(6, 3), 50, seed=1)
    for user in rows(drawn.block):
        assert len(user) == 3
        assert all(basket == sorted(set(user[0])) and len(basket) == 6 for basket in user)
    assert drawn.block.time is not None
    assert drawn.block.value is not None
    days = drawn.block.time.reshape(50, 3, 6)
    assert (np.diff(days.min(axis=2), axis=1) >= DAY // 2).all()
    assert set(drawn.block.value.tolist()) == {1.0, 5.0}
    assert 10 < drawn.included.sum() < 40


def test_a_log_without_baskets_gets_canaries_without() -> None:
    like = block_of([[[0, 1]], [[2]]], N_ITEMS)
    assert all(len(user) == 1 for user in rows(draw(like, Design(6, 3), 20, seed=1).block))


def test_coins_and_canaries_follow_the_seed() -> None:
    one, same, other = (draw(DEVICES.block, Design(6, 2), 40, seed) for seed in (1, 1, 2))
    assert np.array_equal(one.included, same.included)
    assert np.array_equal(one.block.item, same.block.item)
    assert not np.array_equal(one.block.item, other.block.item)


def test_joined_blocks_hold_everybody_in_order() -> None:
    parts = [DEVICES.client(0), DEVICES.client(3), block_of([[], [[1, 2]]], N_ITEMS)]
    assert rows(joined(parts)) == [user for part in parts for user in rows(part)]


@pytest.mark.parametrize("people", [DEVICES, SHOPS], ids=["devices", "shops"])
@pytest.mark.parametrize("copies", [1, 2])
@pytest.mark.parametrize("hold_places", [False, True])
def test_everybody_is_planted_once_a_copy(people: Population, copies: int, hold_places: bool) -> None:
    drawn = draw(people.block, Design(5, 2), 20, seed=3)
    everybody = planted(people, drawn, copies=copies, hold_places=hold_places)
    real, fake = rows(people.block), rows(drawn.block)
    inside = [user for user, included in zip(fake, drawn.included, strict=True) if included]
    empty = [[] for included in drawn.included if not included and hold_places]
    expected = real + copies * (inside + empty)
    assert sorted(rows(everybody.block)) == sorted(expected)
    assert everybody.one_user_each == people.one_user_each
    if not people.one_user_each:
        assert everybody.names == people.names
        for c in range(len(people)):
            mine = rows(everybody.client(c))
            assert mine[: len(rows(people.client(c)))] == rows(people.client(c))
            dealt = copies * len(inside + empty) / len(people)
            assert abs(len(mine) - len(rows(people.client(c))) - dealt) <= copies


def test_too_few_canaries_and_no_items_are_refused() -> None:
    with pytest.raises(PlanError, match="20 canaries"):
        draw(DEVICES.block, Design(5, 2), 19, seed=0)
    with pytest.raises(PlanError, match="needs items"):
        draw(block_of([[]], 0), Design(5, 2), 20, seed=0)


# --- the observer -----------------------------------------------------------------------------------------------------


def test_contributions_add_up_to_the_sum_of_all() -> None:
    model = Popularity()
    spec = Plan(clip_norm=2.0).bind(model.next_round(model.init(N_ITEMS, {}, 0)), 100, 3).spec  # type: ignore[arg-type]
    whole = Accumulator(spec)
    model.contribute(spec, State(0), DEVICES.block, None, whole)
    found = contributions(model, spec, State(0), DEVICES.block)
    for part in spec.parts:
        assert found[part.name].shape == (len(USERS), part.size)
        assert np.array_equal(np.asarray(found[part.name].sum(axis=0)).ravel(), whole[part.name])
        lengths = np.sqrt(np.asarray(found[part.name].power(2).sum(axis=1)).ravel()) / part.scale
        assert (lengths <= 2.0).all()


def observed(people: Population = DEVICES, **changes: Any) -> tuple[Observer, Canaries]:
    plan = Plan(
        **({"epsilon": 2.0, "delta": 1e-5, "aggregation": "plain", "clip_norm": 2.0, "max_users": 1000} | changes)
    )
    model = Popularity()
    drawn = draw(people.block, Design(5, 8), 30, seed=3)
    observer = Observer(model, people, drawn, plan, model.init(people.block.n_items, {}, 0), threads=1)
    run_rounds(model, observer.state, LocalEngine(planted(people, drawn), threads=1), plan, observer)
    return observer, drawn


def test_scores_are_the_best_linear_guess() -> None:
    """Against one dense least-squares problem in which coins and noise are what they are stated to be."""
    released: list[Any] = []
    model = Popularity()
    plan = Plan(epsilon=2.0, delta=1e-5, aggregation="plain", clip_norm=2.0, max_users=1000)
    drawn = draw(DEVICES.block, Design(5, 8), 30, seed=3)
    observer = Observer(model, DEVICES, drawn, plan, model.init(N_ITEMS, {}, 0), threads=1)

    def watch(bound: Any, total: Any, state: State) -> None:
        released.append(total)
        observer(bound, total, state)

    run_rounds(model, observer.state, LocalEngine(planted(DEVICES, drawn), threads=1), plan, watch)
    (total,) = released
    crowd = contributions(model, total.spec, State(0), DEVICES.block)
    own = contributions(model, total.spec, State(0), drawn.block)
    known, seen = list[Any](), list[Any]()
    for part in total.spec.parts:
        unit = part.scale * total.noise_std[part.name]
        known.append(own[part.name].toarray() / unit)
        seen.append((total.integers[part.name] - np.asarray(crowd[part.name].sum(axis=0)).ravel()) / unit)
    matrix, rest = np.hstack(known), np.concatenate(seen)
    # min |rest - matrix^T b|^2 + 4 |b - 1/2|^2
    best = np.linalg.solve(matrix @ matrix.T + 4 * np.eye(30), matrix @ rest + 2.0) - 0.5
    np.testing.assert_allclose(observer.scores(), best, rtol=1e-6, atol=1e-9)


def test_noise_and_effect_are_measured() -> None:
    observer, _ = observed()
    (counts, few) = observer.measured
    assert counts.part.name == "counts"
    assert counts.noise_low < counts.stated_std < counts.noise_high
    assert counts.noise_std == pytest.approx(counts.stated_std, rel=0.5)
    assert counts.effect_low < 1.0
    assert counts.largest == pytest.approx(2.0, rel=1e-3)
    assert few.noise_high == float("inf")  # one entry says nothing about its noise
    assert few.loss == 0.0
    assert observer.strength == pytest.approx(1.0, abs=0.01)


def test_where_the_noise_is_missing_the_coins_lie_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coterie.engines.simulation.add_discrete_gaussian", lambda out, variance, bits: None)
    observer, drawn = observed(population_of([[user] for user in zipf_log(30, 400)], 400))
    assert observer.measured[0].effect == pytest.approx(1.0, abs=1e-9)
    assert observer.measured[0].loss > 1e6
    scores = observer.scores()
    np.testing.assert_allclose(scores, drawn.included - 0.5, atol=1e-3)


def test_who_takes_part_is_not_told_to_the_observer() -> None:
    observer, _ = observed(sampler="poisson", sampling_rate=0.5, noise_multiplier=1.0, epsilon="none")
    assert observer.measured == []
    assert np.isfinite(observer.scores()).all()


def test_what_stays_at_canaries_is_kept_between_rounds() -> None:
    """A factor model: what a canary adds later follows from what it learned before, in or out."""
    people, model = DEVICES, Mf(factors=2, rounds=3)
    drawn = draw(people.block, Design(5, 1), 20, seed=3)
    everybody = replace(drawn, included=np.ones(20, bool))
    start = model.init(N_ITEMS, {}, 0)
    observer = Observer(model, people, everybody, Plan(), start, threads=1)
    run_rounds(model, start, LocalEngine(planted(people, everybody), threads=1), Plan(), observer)
    deltas = [one for one in observer.measured if one.part.name == "delta"]
    assert len(deltas) == 3
    for one in deltas:  # nothing is left once the crowd and all canaries are taken away: the observer knew it all
        assert one.effect == pytest.approx(1.0, abs=1e-9)
        assert one.noise_std == pytest.approx(0.0, abs=1e-12)
