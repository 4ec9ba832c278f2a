"""The local engine under a plan with noise: its size, who adds it, who takes part, and masks that cancel."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from coterie.engines.local import LocalEngine
from coterie.errors import PlanError, SecureAggregationError
from coterie.federation.loop import run_rounds
from coterie.federation.release import Exit
from coterie.privacy.plan import Plan
from coterie.testing.logs import population_of, zipf_log
from coterie.types import PartSpec, Population, RoundSpec, State, Total
from tests.contracts.rounds import Witness

ITEMS = 400
LOG = zipf_log(60, ITEMS)
SILOS = population_of([LOG[:20], LOG[20:40], LOG[40:50], LOG[50:]], ITEMS)
DEVICES = population_of([[user] for user in LOG], ITEMS)


class Bounded(Witness):
    """A witness whose counts are bounded, in one of 400 numbers each."""

    def next_round(self, state: State) -> RoundSpec | None:
        if state.round:
            return None
        return RoundSpec(0, self.kind, (PartSpec("counts", (ITEMS,), "dense", 8.0, 8.0, 1),))

    def contribute(self, spec, state, users, local, out) -> None:  # type: ignore[no-untyped-def]
        self.seen.append(users)
        np.add.at(out["counts"], users.item, spec.part("counts").scale)


def total(people: Population, plan: Plan, seed: int = 0) -> Total:
    seen: list[Total] = []
    local = LocalEngine(people, threads=1, seed=seed)
    run_rounds(Bounded(ITEMS), State(0), local, plan, lambda bound, total, state: seen.append(total))
    return seen[0]


EXACT = total(SILOS, Plan(clip_norm=8.0)).value("counts")


@pytest.mark.parametrize(
    ("people", "more", "factor"),
    [
        (SILOS, {"noise": "central", "aggregation": "plain"}, 1.0),
        (SILOS, {"noise": "central", "aggregation": "secure"}, 1.0),
        (SILOS, {"noise": "distributed"}, 4 / 3),
        (SILOS, {"noise": "distributed", "max_colluding": 2}, 4 / 2),
        (DEVICES, {"noise": "distributed"}, 60 / 59),
        (DEVICES, {"noise": "local", "aggregation": "secure", "neighbours": "replace-one"}, 60 * 4),
        (SILOS, {"noise": "local", "aggregation": "plain", "neighbours": "replace-one"}, 60 * 4),
    ],
)
def test_the_noise_has_the_size_that_the_plan_states(people: Population, more: dict[str, Any], factor: float) -> None:
    plan = Plan(epsilon=1.0, delta=1e-5, simulated_noise=True, **more)
    found = total(people, plan)
    stated = 3.730631634816 * 8 * math.sqrt(factor)
    assert found.noise_std["counts"] == pytest.approx(stated, rel=1e-3)
    noise = found.value("counts") - EXACT
    assert np.std(noise) == pytest.approx(stated, rel=0.15)  # 400 draws: 0.035 is one standard error
    assert abs(noise.mean()) < 5 * stated / math.sqrt(ITEMS)


def test_secure_and_plain_sums_are_equal() -> None:
    secure = total(SILOS, Plan(clip_norm=8.0, aggregation="secure"))
    np.testing.assert_array_equal(secure.value("counts"), EXACT)
    narrow = total(SILOS, Plan(clip_norm=8.0, aggregation="secure", ring_bits=32))
    np.testing.assert_array_equal(narrow.value("counts"), EXACT)
    masked = total(DEVICES, Plan(clip_norm=8.0, aggregation="secure", masks="real"))
    np.testing.assert_array_equal(masked.value("counts"), EXACT)


def test_simulated_noise_is_reproducible_and_real_noise_is_not() -> None:
    plan = Plan(epsilon=1.0, delta=1e-5, simulated_noise=True)
    first, again, other = (total(SILOS, plan, seed).value("counts") for seed in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert (first != other).mean() > 0.99
    real = plan.but(simulated_noise=False)
    assert (total(SILOS, real).value("counts") != total(SILOS, real).value("counts")).mean() > 0.99


def test_an_empty_cohort_still_releases_noise() -> None:
    plan = Plan(
        epsilon=1.0,
        delta=1e-5,
        sampler="poisson",
        sampling_rate=0.1,
        noise="central",
        aggregation="plain",
        simulated_noise=True,
    )
    found = total(population_of([[user] for user in LOG[:1]], ITEMS), plan)
    assert found.finishers == 0
    assert np.std(found.value("counts")) > 0


def test_half_of_the_users_take_part_where_the_coin_says_so() -> None:
    plan = Plan(
        noise_multiplier=1.0,
        delta=1e-6,
        sampler="poisson",
        sampling_rate=0.5,
        noise="central",
        aggregation="plain",
        simulated_noise=True,
    )
    for people in (DEVICES, SILOS):
        witness, local = Bounded(ITEMS), LocalEngine(people, threads=1)
        run_rounds(witness, State(0), local, plan)
        assert 15 < sum(block.n_users for block in witness.seen) < 45


def test_a_fixed_number_of_clients_is_drawn() -> None:
    plan = Plan(
        epsilon=1.0,
        delta=1e-5,
        sampler="fixed",
        sampling_rate=0.25,
        neighbours="replace-one",
        noise="central",
        aggregation="plain",
    )
    witness, local = Bounded(ITEMS), LocalEngine(DEVICES, threads=1)
    run_rounds(witness, State(0), local, plan)
    assert sum(block.n_users for block in witness.seen) == 15


@pytest.mark.parametrize("masks", ["elided", "real"])
def test_a_cohort_with_too_few_shares_of_noise_aborts_and_is_charged(masks: str) -> None:
    plan = Plan(epsilon=1.0, sampler="poisson", sampling_rate=0.1, min_clients=50, masks=masks)
    way, released = Exit(), list[Total]()
    local = LocalEngine(DEVICES, threads=1)
    with pytest.raises((SecureAggregationError, PlanError), match="min_clients = 50"):
        run_rounds(Bounded(ITEMS), State(0), local, plan, lambda b, t, s: released.append(t), exit=way)
    assert not released
    assert len(way.events) == 1


def test_the_usual_cohort_is_no_larger_than_what_is_drawn() -> None:
    for more in ({"sampler": "poisson"}, {"sampler": "fixed", "neighbours": "replace-one"}):
        for noise in ("distributed", "central"):
            plan = Plan(epsilon=1.0, sampling_rate=0.61, noise=noise, aggregation="secure", masks="elided", **more)  # type: ignore[arg-type]
            assert total(DEVICES, plan).finishers > 0
