"""What raw uploads and sums give away, and what is left of it under noise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from coterie.audit.attacks import either_way, infer_attribute, left_by, spread, standing_out
from coterie.audit.observer import contributions
from coterie.audit.one_run import auc
from coterie.engines.local import LocalEngine
from coterie.federation.loop import run_rounds
from coterie.models.base import Model
from coterie.models.ease import Ease
from coterie.models.mf import Mf
from coterie.models.popularity import Popularity
from coterie.privacy.plan import Plan
from coterie.testing.logs import block_of, population_of, trained, zipf_log
from coterie.types import PartSpec, State, Total
from tests.raters import Factors, World, train, world

# --- uploads of a factor model ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def people() -> World:
    return world()


@pytest.fixture(scope="module")
def factors(people: World) -> Factors:
    return train(people)


@pytest.mark.parametrize(
    ("noise", "users", "expected"),
    [(0, 1, 1.0), (0.01, 1, 0.99), (0.05, 1, 0.74), (0.1, 1, 0.55), (0, 10, 0.75), (0, 50, 0.62), (1.0, 50, 0.52)],
)
def test_what_an_upload_reveals(people: World, factors: Factors, noise: float, users: int, expected: float) -> None:
    """AUC of "does the first user of the sum have the item?", the attacker told the sign; uploads are clipped to 1."""
    rng, found = np.random.default_rng([users, int(100 * noise)]), []
    for _ in range(40):
        group = rng.choice(len(people.has), users, replace=False)
        seen = sum((factors.upload(int(user)) for user in group), rng.normal(0, noise, (people.has.shape[1], 32)))
        found.append(either_way(auc(spread(seen), people.has[group[0]])))
    assert np.mean(found) == pytest.approx(expected, abs=0.035)


def test_popularity_reveals_what_everybody_knows(people: World) -> None:
    popular = people.has.mean(axis=0)
    assert np.mean([auc(popular, one) for one in people.has[:100]]) == pytest.approx(0.72, abs=0.02)


def test_user_vectors_tell_what_nobody_asked_for(people: World, factors: Factors) -> None:
    known = np.arange(len(people.group)) < 500
    found = infer_attribute(factors.users[known], 2.0 * people.group[known] - 1, factors.users[~known])
    assert auc(found, people.group[~known] == 1) == pytest.approx(0.94, abs=0.015)


# --- our own uploads --------------------------------------------------------------------------------------------------

N_ITEMS = 300


@pytest.fixture(scope="module")
def trained_mf() -> tuple[Mf, State, NDArray[np.bool_]]:
    has = world(150, N_ITEMS, seed=5).has
    has = has[has.sum(axis=1) > 5]
    model = Mf(factors=8, rounds=20)
    return model, trained(model, [[[np.flatnonzero(one).tolist()]] for one in has], N_ITEMS, rounds=6), has


def updates(
    trained_mf: tuple[Mf, State, NDArray[np.bool_]], users: Sequence[int], clip: float | None
) -> NDArray[np.float64]:
    """What some devices send in the next round, in real units: [users, items, factors + 1]."""
    model, state, has = trained_mf
    spec = Plan(clip_norm=clip).bind(model.next_round(state), 1000, 1000).spec  # type: ignore[arg-type]
    block = block_of([[np.flatnonzero(has[user]).tolist()] for user in users], N_ITEMS)
    sent = contributions(model, spec, state, block)["delta"].toarray() / spec.part("delta").scale
    return sent.reshape(len(users), N_ITEMS, -1)


def test_raw_updates_of_our_factor_model_reveal_items(trained_mf: Any) -> None:
    _, _, has = trained_mf
    for clip in (None, 0.1):  # clipping alone does not help
        found = [
            either_way(auc(spread(one[:, :-1]), has[user]))
            for user, one in enumerate(updates(trained_mf, range(40), clip))
        ]
        assert np.mean(found) > 0.95


def test_noised_sums_of_our_factor_model_do_not(trained_mf: Any) -> None:
    _, _, has = trained_mf
    sent, rng = updates(trained_mf, range(100), 0.1), np.random.default_rng(0)
    alone, together = [], []
    for user in range(40):
        noisy = sent[user] + rng.normal(0, 0.1, sent[user].shape)
        alone.append(auc(spread(noisy[:, :-1]), has[user]))
        group = np.append(rng.choice(100, 49, replace=False), user)
        noisy = sent[group].sum(axis=0) + rng.normal(0, 0.1, sent[user].shape)
        together.append(auc(spread(noisy[:, :-1]), has[user]))
    assert np.mean(alone) == pytest.approx(0.5, abs=0.06)
    assert np.mean(together) < np.mean([auc(has.mean(axis=0), one) for one in has])  # less than popularity alone


# --- two sums, and one user between them ------------------------------------------------------------------------------

DIFFERING = zipf_log(40, 60, seed=3)


def released(model: Model, users: Sequence[Any], plan: Plan, seed: int) -> Total:
    seen: list[Total] = []
    engine = LocalEngine(population_of([[user] for user in users], 60), threads=1, seed=seed)
    run_rounds(model, model.init(60, {}, 0), engine, plan, lambda bound, total, state: seen.append(total))
    return seen[0]


@pytest.mark.parametrize("model", [Ease(), Popularity()], ids=lambda model: model.name)
def test_without_noise_the_difference_of_two_sums_is_the_user(model: Model) -> None:
    user = DIFFERING[0]
    mine = np.isin(np.arange(60), [item for basket in user for item in basket])
    difference = left_by(released(model, DIFFERING, Plan(), 0), released(model, DIFFERING[1:], Plan(), 0))
    own = contributions(model, model.next_round(model.init(60, {}, 0)), State(0), block_of([user], 60))  # type: ignore[arg-type]
    for name, values in difference.items():
        assert np.array_equal(values, own[name].toarray()[0])
    part = model.next_round(model.init(60, {}, 0)).part("counts")  # type: ignore[union-attr]
    assert np.array_equal(standing_out(part, difference["counts"], 60) > 0, mine)


@pytest.mark.parametrize("model", [Ease(), Popularity()], ids=lambda model: model.name)
def test_with_noise_it_tells_next_to_nothing(model: Model) -> None:
    plan = Plan(epsilon=1.0, delta=1e-5, aggregation="plain", noise="central", clip_norm=2.0, simulated_noise=True)
    found: dict[str, list[float]] = {}
    for at, user in enumerate(DIFFERING[:30]):
        mine = np.isin(np.arange(60), [item for basket in user for item in basket])
        others = [*DIFFERING[:at], *DIFFERING[at + 1 :]]
        after, before = released(model, DIFFERING, plan, 2 * at), released(model, others, plan, 2 * at + 1)
        for part in after.spec.parts:
            if (scores := standing_out(part, left_by(after, before)[part.name], 60)) is not None:
                found.setdefault(part.name, []).append(auc(scores, mine))
    assert set(found) == ({"gram", "counts"} if isinstance(model, Ease) else {"counts"})
    for aucs in found.values():
        assert 0.4 < np.mean(aucs) < 0.62


# --- pieces -----------------------------------------------------------------------------------------------------------


def test_the_diagonal_of_a_triangle_is_what_tells() -> None:
    full = np.arange(16.0).reshape(4, 4)
    part = PartSpec("gram", (4, 4), "triangle", 1.0, 1.0, 1)
    found = standing_out(part, full[np.triu_indices(4)], 4)
    assert found is not None
    assert found.tolist() == [0.0, 5.0, 10.0, 15.0]


def test_parts_that_tell_no_items_apart_are_left_out() -> None:
    assert standing_out(PartSpec("rows", (1,), "dense", 1.0, 1.0, 1), np.ones(1), 4) is None
    assert standing_out(PartSpec("head", (3, 3), "triangle", 1.0, 1.0, 1), np.ones(6), 4) is None
    rows = standing_out(PartSpec("delta", (4, 2), "rows", 1.0, 1.0, 1), np.outer([3, 0, -1, -1], [1, 2]).ravel(), 4)
    assert rows is not None
    assert int(rows.argmax()) == 0


def test_a_silent_upload_has_no_direction() -> None:
    assert spread(np.zeros((5, 3))).tolist() == [0.0] * 5
