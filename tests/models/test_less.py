"""What a client sent can be taken out of a model that keeps its sums: what is left was learned from the others."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from coterie.engines.local import LocalEngine
from coterie.errors import ModelError
from coterie.federation.loop import run_rounds
from coterie.models.base import Model
from coterie.models.registry import build, names
from coterie.privacy.plan import BoundRound, Plan
from coterie.ring import Accumulator
from coterie.testing.logs import population_of, zipf_log
from coterie.types import Array, Population, State, Total

ITEMS = 20
LOG = zipf_log(90, ITEMS)
OURS, THEIRS = LOG[:60], LOG[60:]
KEEPING = [name for name in names() if build({"name": name}).keeps_sums]


def trained(
    model: Model, people: Population, plan: Plan, public: Mapping[str, Array] | None = None
) -> tuple[State, list[tuple[BoundRound, State]]]:
    """The state after all rounds, and what each round was asked with."""
    befores = [model.init(ITEMS, public or {}, 0)]
    bounds: list[BoundRound] = []

    def keep(bound: BoundRound, total: Total, state: State) -> None:
        bounds.append(bound)
        befores.append(state)

    state = run_rounds(model, befores[0], LocalEngine(people, threads=1), plan, keep)
    return state, list(zip(bounds, befores[:-1], strict=True))


def sent(model: Model, people: Population, client: int, rounds: list[tuple[BoundRound, State]]) -> dict[str, Array]:
    own: dict[str, Array] = {}
    for bound, before in rounds:
        out = Accumulator(bound.spec)
        model.contribute(bound.spec, before, people.client(client), None, out)
        own |= out.parts
    return own


@pytest.mark.parametrize("name", KEEPING)
def test_without_noise_what_is_left_is_the_model_of_the_others(name: str) -> None:
    model, both = build({"name": name}), population_of([OURS, THEIRS], ITEMS)
    state, rounds = trained(model, both, Plan())
    rest = model.less(state, sent(model, both, 1, rounds))
    others, _ = trained(model, population_of([OURS], ITEMS), Plan())
    assert rest.arrays.keys() == others.arrays.keys()
    for key, array in others.arrays.items():
        np.testing.assert_array_equal(rest[key], array)


@pytest.mark.parametrize("name", KEEPING)
def test_with_noise_the_noise_is_what_stays(name: str) -> None:
    plan = Plan(epsilon=8.0, noise="central", aggregation="plain", simulated_noise=True)
    model, both = build({"name": name}), population_of([OURS, THEIRS], ITEMS)
    shares = model.budget(model.init(ITEMS, {}, 0))
    public = {"noise_multiplier": np.array(plan.total_multiplier(shares)), "max_users": np.array(100_000)}
    state, rounds = trained(model, both, plan, public)
    own = sent(model, both, 1, rounds)
    rest = model.less(state, own)
    for part, sums in own.items():
        np.testing.assert_array_equal(rest[part] + sums, state[part])
    assert rest.round == state.round
    assert np.isfinite(rest["popularity"]).all()


def test_a_model_that_does_not_keep_its_sums_says_so() -> None:
    model = build({"name": "ials"})
    with pytest.raises(ModelError, match="'ials' does not keep its sums"):
        model.less(model.init(ITEMS, {}, 0), {})
