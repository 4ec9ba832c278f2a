"""What a model must keep under a plan with noise, as tests: a part of `coterie.testing.RecommenderContract`.

Noise here is drawn from a seed: it has the size that a plan states, and protects nobody.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coterie.engines.local import LocalEngine
from coterie.federation.checkpoint import load_state, save_state
from coterie.federation.localstore import UserStore
from coterie.federation.loop import run_rounds
from coterie.models.base import Model
from coterie.privacy.plan import Plan
from coterie.ring import Accumulator
from coterie.testing.logs import Log, block_of, logs, population_of, timed, trained, zipf_log
from coterie.types import Array, History, Integers, Known, Query, Ragged, RoundSpec, State, UserBlock

N_ITEMS = 7
HISTORY = History(np.array([0, 4], np.int64), np.array([1, 3, 1, 5], np.int32), np.array([0, 0, 1, 2], np.int32))
DROWNED, USUAL, LITTLE = 0.01, 4.0, 30.0  # epsilon: next to nothing but noise, a usual one, the largest that is allowed

# Each subclass is another system under test, so that hypothesis meets several executors is meant.
law = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.differing_executors])


@cache
def noisy_plan(epsilon: float) -> Plan:
    """A plan whose server adds noise that is drawn from a seed."""
    return Plan(epsilon=epsilon, delta=1e-6, noise="central", aggregation="plain", simulated_noise=True)


def begun(model: Model, n_items: int, plan: Plan, public: Mapping[str, Array] | None = None) -> State:
    """The state before round 0 of a training under a plan with noise, which the model is told of."""
    told = {**(public or {}), "max_users": np.array(plan.max_users, np.int64), "noise_multiplier": np.array(1.0)}
    shares = model.budget(model.init(n_items, told, 0))
    told["noise_multiplier"] = np.array(plan.total_multiplier(shares), np.float64)
    return model.init(n_items, told, 0)


def trained_under_noise(
    model: Model,
    users: Log,
    n_items: int,
    epsilon: float = USUAL,
    *,
    public: Mapping[str, Array] | None = None,
    rounds: int | None = None,
    seed: int = 0,
) -> State:
    """The model after all its rounds, or after `rounds`, over `users`, each a client of its own."""
    plan = noisy_plan(epsilon)
    engine = LocalEngine(population_of([[user] for user in users], n_items), seed=seed)
    return run_rounds(model, begun(model, n_items, plan, public), engine, plan, rounds=rounds)


class NoiseContract(ABC):
    """What follows for every model when sums are noised; inherited by `RecommenderContract`."""

    ends_early: ClassVar[bool] = False
    """Whether the model may ask for fewer rounds than it has announced, because of what it has found."""

    @abstractmethod
    def model(self) -> Model:
        """The model under test."""

    @law
    @given(users=logs(N_ITEMS), moments=st.sampled_from([0, 1, 3]), data=st.data())
    def test_under_noise_removing_a_user_moves_each_part_by_at_most_its_bounds(
        self, users: Log, moments: int, data: st.DataObject
    ) -> None:
        state, spec = data.draw(st.sampled_from(self.noised_rounds()), label="round")
        removed = data.draw(st.integers(0, len(users) - 1))
        whole = self.noised_sum(spec, state, users, moments)
        rest = self.noised_sum(spec, state, [*users[:removed], *users[removed + 1 :]], moments)
        for part in spec.parts:
            moved = [int(a) - int(b) for a, b in zip(whole[part.name], rest[part.name], strict=True)]
            assert max(map(abs, moved), default=0) <= Fraction(part.linf) * part.scale, part.name
            # Exact integers and fractions: a bound that holds up to rounding does not hold.
            assert sum(value * value for value in moved) <= (Fraction(part.l2) * part.scale) ** 2, part.name

    def test_under_noise_every_part_has_a_bound_that_some_user_nearly_reaches(self) -> None:
        everything = [[[*range(N_ITEMS)]]]
        for state, spec in self.noised_rounds():
            assert all(math.isfinite(part.l2) for part in spec.parts)
            total = self.noised_sum(spec, state, everything, 0)
            used = [np.linalg.norm(total[part.name] / part.scale) / part.l2 for part in spec.parts]
            assert max(used) > 0.99

    def test_as_many_rounds_as_the_budget_announces(self) -> None:
        state = begun(self.model(), 12, noisy_plan(USUAL))
        shares = self.model().budget(state)
        assert all(share > 0 for share in shares)
        assert math.isclose(sum(shares), 1.0, rel_tol=1e-9)
        for epsilon in (DROWNED, LITTLE):
            done = trained_under_noise(self.model(), zipf_log(60, 12), 12, epsilon).round
            assert 1 <= done <= len(shares)
            assert done == len(shares) or self.ends_early

    def test_it_trains_under_noise(self) -> None:
        model, known = self.model(), Known(Ragged.of([[0, 2]]))
        own = trained(model, [[user] for user in zipf_log(8, 9, seed=3)], 9)
        for epsilon in (DROWNED, USUAL, LITTLE):
            for rounds in (1, None):
                state = trained_under_noise(model, zipf_log(60, 9), 9, epsilon, rounds=rounds)
                narrow = model.restrict(state, np.array([0, 3, 4, 8], np.int32))
                mixed = model.personalise(state, own, 0.25)
                for served, n_items in ((state, 9), (narrow, 4), (mixed, 9)):
                    popularity = served["popularity"]
                    assert popularity.shape == (n_items,)
                    assert np.isfinite(popularity).all()
                    assert popularity.min() >= 0
                    assert np.isfinite(model.score(served, _asked([[0, 2], [], [n_items - 1]]))).all()
                out = np.zeros((1, 9), np.float32)
                model.related(state, known, out)
                parts = [model.evidence(state, known, item).sum() for item in range(9)]
                np.testing.assert_allclose(parts, out[0], rtol=1e-4, atol=1e-5 * max(np.abs(out).max(), 1.0))

    def test_reasons_under_noise_are_positive_and_come_in_order(self) -> None:
        model, state = self.model(), trained_under_noise(self.model(), zipf_log(60, 9), 9)
        for query in (_asked([[0, 2]]), _asked([[]]), Query(Ragged.of([[]]), HISTORY)):
            for item in range(9):
                amounts = [amount for _, _, amount in model.explain(state, query, item)]
                assert amounts == sorted(amounts, reverse=True)
                assert all(amount > 0 for amount in amounts)

    def test_where_noise_drowns_everything_popularity_ranks(self) -> None:
        users, asked = zipf_log(40, 12), [[0], [11], [1, 3, 5], []]
        for seed in range(3):
            state = trained_under_noise(self.model(), users, 12, DROWNED, seed=seed)
            popularity = state["popularity"]
            more = popularity[:, None] > popularity[None, :]
            assert more.any()
            for scores in self.model().score(state, _asked(asked)):
                assert (scores[:, None] >= scores[None, :])[more].all()
                assert scores[popularity.argmax()] > scores[popularity.argmin()]

    def test_equal_noise_and_sums_give_equal_bytes(self, tmp_path: Path) -> None:
        written = set()
        for at in range(2):
            state = trained_under_noise(self.model(), zipf_log(50, 20), 20)
            save_state(tmp_path / f"{at}.safetensors", state)
            written.add((tmp_path / f"{at}.safetensors").read_bytes())
        assert len(written) == 1
        loaded = load_state(tmp_path / "0.safetensors")
        assert np.array_equal(self.model().score(loaded, _asked([[1, 2]])), self.model().score(state, _asked([[1, 2]])))

    # --- helpers ------------------------------------------------------------------------------------------------------

    def noised_rounds(self) -> tuple[tuple[State, RoundSpec], ...]:
        """Each round of a training under noise: the state before it, and its bounds."""
        return _rounds_of(self.model())

    def noised_sum(self, spec: RoundSpec, state: State, users: Log, moments: int) -> dict[str, Integers]:
        """What `users`, each a client of its own, send before noise."""
        block, out = block_of(users, N_ITEMS), Accumulator(spec)
        block = timed(block, moments) if moments else block
        devices = UserBlock(
            block.n_items, block.user_ptr, block.basket_ptr, block.item, block.time, block.value, one_client=False
        )
        self.model().contribute(spec, state, devices, UserStore(block.n_users).view(0, block.n_users), out)
        return out.parts


@cache
def _rounds_of(model: Model) -> tuple[tuple[State, RoundSpec], ...]:
    plan, users = noisy_plan(LITTLE), zipf_log(80, N_ITEMS, seed=4)
    shares = model.budget(begun(model, N_ITEMS, plan))
    found = list[tuple[State, RoundSpec]]()
    for rounds in range(len(shares)):
        state = trained_under_noise(model, users, N_ITEMS, LITTLE, rounds=rounds)
        spec = model.next_round(state)
        if spec is None:
            break
        found.append((state, plan.bind(spec, 100, 100, shares=shares, one_user_each=True).spec))
    return tuple(found)


def _asked(carts: list[list[int]]) -> Query:
    return Query(Ragged.of(carts))
