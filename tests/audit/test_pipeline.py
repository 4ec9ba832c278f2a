"""The audit of whole trainings: an honest one is not contradicted, one with a planted fault is."""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest

from coterie.audit.canaries import Design
from coterie.audit.pipeline import Audit, audit_training
from coterie.engines import simulation
from coterie.engines.local import LocalEngine
from coterie.errors import PlanError
from coterie.federation.loop import RoundEngine
from coterie.models.base import Model
from coterie.models.ease import Ease
from coterie.models.popularity import Popularity
from coterie.privacy.plan import Plan
from coterie.ring import Accumulator
from coterie.testing.logs import population_of, zipf_log
from coterie.types import LocalStore, PartSpec, Population, RoundSpec, State, Summand, Total, UserBlock

N_ITEMS, CANARIES = 300, 1000
USERS = zipf_log(120, N_ITEMS)
MANY_ITEMS = population_of([[user] for user in zipf_log(120, 2000)], 2000)
DEVICES = population_of([[user] for user in USERS], N_ITEMS)
SAMPLED = {"sampling_rate": 0.4, "epsilon": "none", "noise_multiplier": 2.0}
SHOPS = population_of([USERS[at::4] for at in range(4)], N_ITEMS)


@dataclass(frozen=True)
class Directions:
    """Each user adds the sum of its items' random directions, in two rounds, clipped unless `unclipped`."""

    width: int = 300
    unclipped: bool = False

    def next_round(self, state: State) -> RoundSpec | None:
        if state.round == 2:
            return None
        part = PartSpec("direction", (self.width,), "dense", math.inf, 100.0, 1 << 20, clip=1.0)
        return RoundSpec(state.round, "user_sum", (part, replace(part, name="other", budget_share=0.5)))

    def budget(self, state: State) -> tuple[float, ...]:
        return (0.3, 0.7)

    def contribute(
        self, spec: RoundSpec, state: State, users: UserBlock, local: LocalStore | None, out: Accumulator
    ) -> None:
        for at, part in enumerate(spec.parts):
            towards, added = directions(users.n_items, self.width, spec.index, at), out[part.name]
            for u in range(users.n_users):
                mine = towards[users.item[users.user_ptr[u] : users.user_ptr[u + 1]]].sum(axis=0)
                length = max(float(np.linalg.norm(mine)), 1e-12)
                factor = min(1.0, (4.0 if self.unclipped else 1.0) * part.l2 * 0.999 / length)
                added += np.trunc(part.scale * factor * mine).astype(np.int64)

    def apply(self, spec: RoundSpec, state: State, total: Total) -> State:
        return state.updated(round=spec.index + 1)


@functools.cache
def directions(n_items: int, width: int, *purpose: int) -> Any:
    """A random direction for each item, about of length 1."""
    return np.random.default_rng(purpose).normal(size=(n_items, width)) * width**-0.5


class Weighing(LocalEngine):
    """An engine that counts heavy users four times, and tells nobody."""

    def collect(self, summand: Summand, *rest: Any) -> Total:
        return super().collect(Weighted(summand), *rest)


@dataclass(frozen=True)
class Weighted:
    summand: Summand

    def contribute(self, spec: RoundSpec, state: State, users: UserBlock, *rest: Any) -> None:
        *others, out = rest
        for u in range(users.n_users):
            one, alone = users.users(u, u + 1), Accumulator(spec)
            self.summand.contribute(spec, state, one, *others, alone)
            for name, values in alone.parts.items():
                out.parts[name] += values * (4 if len(one.item) >= 40 else 1)


def plan(**changes: Any) -> Plan:
    usual: dict[str, Any] = {"epsilon": 2.0, "delta": 1e-5, "aggregation": "plain", "noise": "central"}
    return Plan(**(usual | {"clip_norm": 3.0, "max_users": 5000, "simulated_noise": True} | changes))


def audited(model: Any, people: Population = DEVICES, start: State | None = None, **changes: Any) -> Audit:
    asked = {key: changes.pop(key) for key in ("engine", "canaries", "seed", "design") if key in changes}
    if isinstance(model, Model):
        start = model.init(people.block.n_items, {}, 0)
    return audit_training(
        model, people, plan(**changes), start or State(0), threads=1, **({"canaries": CANARIES} | asked)
    )


# --- honest -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [Popularity(), Ease(), Directions()], ids=lambda model: type(model).__name__)
def test_an_honest_training_is_not_contradicted(model: Any) -> None:
    for seed in range(2):
        found = audited(model, DEVICES if isinstance(model, Ease) else MANY_ITEMS, seed=seed)
        assert found.verdict == "consistent", found.reasons
        assert found.bounds.epsilon < 1.5
        assert found.measured_epsilon is not None
        assert 0.1 < found.measured_epsilon <= 2.0
        assert found.charged_epsilon == pytest.approx(2.0, rel=1e-3)
        assert found.strength > 0.97
        assert found.bounds.auc > 0.55  # the canaries are strong enough for a fault to show


@pytest.mark.parametrize(
    ("people", "changes"),
    [
        (SHOPS, {}),
        (SHOPS, {"aggregation": "secure", "noise": "distributed"}),
        (DEVICES, {"aggregation": "secure", "noise": "distributed"}),
        (DEVICES, {"max_clients_per_user": 2}),
        (SHOPS, {"max_clients_per_user": 3}),
        (DEVICES, {"neighbours": "replace-one"}),
        (DEVICES, {"noise": "local", "neighbours": "replace-one"}),
        (DEVICES, {"sampler": "poisson", **SAMPLED}),
        (DEVICES, {"sampler": "fixed", "neighbours": "replace-one", **SAMPLED}),
    ],
    ids=["silos", "secure silos", "secure", "two devices", "three shops", "replace one", "local", "poisson", "fixed"],
)
def test_honest_plans_of_every_kind(people: Population, changes: dict[str, Any]) -> None:
    found = audited(Popularity(), people, canaries=300, **changes)
    assert not found.contradicted, found.reasons
    assert (found.measured_epsilon is None) == ("sampler" in changes)


# --- faults -----------------------------------------------------------------------------------------------------------


def quarter_of_the_noise(patch: pytest.MonkeyPatch) -> None:
    honest = simulation.add_discrete_gaussian
    patch.setattr(simulation, "add_discrete_gaussian", lambda out, v, bits: honest(out, max(v // 16, 1), bits))


def no_noise(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(simulation, "add_discrete_gaussian", lambda out, variance, bits: None)


def no_clip(patch: pytest.MonkeyPatch) -> None:
    for module in ("popularity", "gram"):
        patch.setattr(f"coterie.models.{module}.clip_factors", lambda norms, largest, part: np.ones(len(norms)))


def no_weights_in_the_bound(patch: pytest.MonkeyPatch) -> None:
    patch.setattr("coterie.audit.pipeline.LocalEngine", Weighing)


FAULTS = [quarter_of_the_noise, no_noise, no_clip, no_weights_in_the_bound]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
@pytest.mark.parametrize("model", [Popularity(), Ease()], ids=lambda model: model.name)
def test_a_fault_is_found(
    model: Model, fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    fault(monkeypatch)
    found = audited(model, MANY_ITEMS if isinstance(model, Popularity) else DEVICES, epsilon=1.0)
    assert found.verdict == "CONTRADICTED"
    assert found.bounds.epsilon > 0.8  # 1.0 to 4.7 over seeds
    assert found.bounds.gaussian_epsilon > 1.0, "guesses alone should have told"
    assert any("guessed" in reason for reason in found.reasons)
    assert any("measured" in reason or "holds more" in reason for reason in found.reasons)


@pytest.mark.parametrize("fault", FAULTS[:3], ids=lambda fault: fault.__name__)
def test_a_large_claim_is_measured_where_guesses_say_little(
    fault: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = audited(Ease(), epsilon=8.0)
    assert not honest.contradicted
    assert any("beyond what guesses contradict" in one for one in honest.cannot_see)
    fault(monkeypatch)
    found = audited(Ease(), epsilon=8.0)
    assert found.bounds.epsilon < 8.0
    assert found.measured_epsilon is not None
    assert found.measured_epsilon > 8.0
    assert found.contradicted


def test_faults_of_a_summand_of_several_rounds_and_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    unclipped = audited(Directions(unclipped=True), MANY_ITEMS, epsilon=1.0, clip_norm=None)
    assert unclipped.bounds.gaussian_epsilon > 1.0
    quarter_of_the_noise(monkeypatch)
    found = audited(Directions(), MANY_ITEMS, epsilon=1.0, clip_norm=None)
    assert found.bounds.gaussian_epsilon > 1.0
    assert found.noise_found is not None
    assert found.noise_found == pytest.approx((0.25, 0.25), rel=0.1)
    assert found.rounds == 2
    assert {(one.round, one.part.name) for one in found.measured} == {
        (r, p) for r in (0, 1) for p in ("direction", "other")
    }


@pytest.mark.parametrize("sampler", ["poisson", "fixed"])
def test_missing_noise_is_found_where_only_a_sample_takes_part(sampler: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody knows who was drawn, so nothing is measured, and only those who surely are in are guessed."""
    no_noise(monkeypatch)
    changes = {"sampler": sampler, "neighbours": "replace-one" if sampler == "fixed" else "add-or-remove-one"}
    found = audited(Popularity(), MANY_ITEMS, **changes, **SAMPLED)
    assert found.contradicted
    assert found.measured_epsilon is None
    assert all(one.correct == one.made for one in found.bounds.guesses[1:])


def test_a_user_at_more_clients_than_the_plan_knows_is_found() -> None:
    """The engine lets each device take part three times."""

    class Thrice(LocalEngine):
        def collect(self, summand: Summand, *rest: Any) -> Total:
            once = super().collect
            total = once(summand, *rest)
            more = [once(summand, replace(rest[0], variance={}, noise="none"), *rest[1:]) for _ in range(2)]
            summed = {name: sum((one.integers[name] for one in more), total.integers[name]) for name in total.integers}
            return replace(total, integers=summed)

    def thrice(people: Population) -> RoundEngine:
        return Thrice(people, threads=1)

    found = audited(Ease(), epsilon=1.0, engine=thrice)
    assert found.contradicted
    assert max(one.effect for one in found.measured) > 2.5


# --- what is reported, and what is refused ----------------------------------------------------------------------------


def test_a_report_is_plain_json() -> None:
    found = audited(Popularity(), canaries=60).as_dict()
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert found["claimed"] == {"epsilon": 2.0, "delta": 1e-5}
    assert found["canaries"]["drawn"] == 60


def test_real_users_make_room_for_canaries() -> None:
    found = audited(Popularity(), canaries=100, max_users=150)
    assert found.users == 50
    with pytest.raises(PlanError, match="do not fit max_users"):
        audited(Popularity(), canaries=200, max_users=150)


def test_what_is_refused() -> None:
    with pytest.raises(PlanError, match="no claim to audit"):
        audit_training(Popularity(), DEVICES, Plan(), State(0))
    with pytest.raises(PlanError, match="20 canaries"):
        audited(Popularity(), canaries=5)


def test_weak_canaries_are_said_to_be_weak() -> None:
    found = audited(Popularity(), canaries=100, clip_norm=50.0, design=Design(4, 1))
    assert found.strength < 0.2
    assert any("heaviest user" in one for one in found.cannot_see)
