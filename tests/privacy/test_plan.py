"""A plan refuses what it cannot hold when it is built, and what cannot be summed when it is bound."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.errors import PlanError
from coterie.privacy import accountant
from coterie.privacy.binding import CLIPPED_SCALE
from coterie.privacy.plan import Plan
from coterie.types import PartSpec, RoundSpec

PARTS = (
    PartSpec("gram", (10, 10), "triangle", math.inf, 100.0, 1, 0.8),
    PartSpec("rows", (1,), "dense", 2.0, 2.0, 1 << 22, 0.2),
)
SPEC = RoundSpec(3, "user_sum", PARTS)
TAME = (replace(PARTS[0], l2=1.0, linf=1.0), replace(PARTS[1], scale=1))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"aggregation": "plane"}, "did you mean 'plain'?"),
        ({"noise": "central"}, "noise = 'central' needs its size: give epsilon"),
        ({"noise": "distributed", "epsilon": 1.0, "aggregation": "plain"}, "it needs aggregation = 'secure'"),
        ({"noise": "none", "epsilon": 1.0}, "epsilon = 1.0 promises differential privacy, but noise = 'none'"),
        ({"noise": "local", "epsilon": 1.0}, "needs neighbours = 'replace-one'"),
        ({"epsilon": 0.0}, "epsilon must be a positive number or 'none'"),
        ({"epsilon": math.inf}, "write epsilon = 'none'"),
        ({"epsilon": 200.0}, "epsilon = 200.0 promises nothing that could be told from nothing; use at most 30"),
        ({"noise_multiplier": 1e-3}, "is so little noise that epsilon would be"),
        ({"epsilon": None}, "write epsilon = 'none'"),
        ({"epsilon": 1.0, "delta": 0.0}, "delta must be a positive number or None, got 0.0"),
        ({"epsilon": 1.0, "delta": 1e-4}, "delta = 0.0001 is too large for max_users = 100,000"),
        ({"epsilon": 1.0, "noise_multiplier": 1.0}, "contradict each other"),
        ({"epsilon": 1.0, "min_clients": 2}, "distributed noise needs two honest clients at least"),
        ({"epsilon": 1.0, "min_clients": 4, "max_colluding": 3}, "leaves 1"),
        ({"epsilon": 1.0, "sampler": "fixed", "sampling_rate": 0.1}, "it needs neighbours = 'replace-one'"),
        (
            {"epsilon": 1.0, "sampler": "fixed", "neighbours": "replace-one", "accountant": "pld"},
            "accountant = 'pld' has no proof for sampler = 'fixed'",
        ),
        ({"epsilon": 1.0, "sampling_rate": 0.5}, "sampling_rate = 0.5 needs a sampler"),
        (
            {"epsilon": 1.0, "sampler": "poisson", "sampling_rate": 0.5, "max_clients_per_user": 2},
            "draws a person's rows at several clients one by one",
        ),
        ({"epsilon": 1.0, "sampler": "poisson", "sampling_rate": 0.0}, "sampling_rate must be above 0"),
        (
            {"epsilon": 1.0, "masks": "elided", "noise": "central", "aggregation": "plain"},
            "masks = 'elided' only means",
        ),
        ({"epsilon": 1.0, "budget": {"gram": -1.0}}, "budget of part 'gram' must be a positive number"),
        ({"delta": 1e-6}, "delta and budget belong to a plan with noise"),
        ({"sampler": "poisson", "sampling_rate": 0.5}, "sampler and simulated_noise belong"),
        ({"clip_norm": 0.0}, "clip_norm must be a positive number or None, got 0.0"),
        ({"clip_norm": -1}, "clip_norm must be a positive number or None, got -1"),
        ({"clip_norm": math.inf}, "clip_norm must be a positive number or None, got inf"),
        ({"clip_norm": math.nan}, "clip_norm must be a positive number or None, got nan"),
        ({"clip_norm": "3"}, "clip_norm must be a positive number or None, got '3'"),
        ({"clip_norm": True}, "clip_norm must be a positive number or None, got True"),
        ({"clip_norm": {"gram": 0.0}}, "clip_norm of part 'gram' must be a positive number or None, got 0.0"),
        ({"ring_bits": 16}, "ring_bits must be one of (32, 64), got 16"),
        ({"ring_bits": "64"}, "ring_bits must be one of (32, 64), got '64'"),
        ({"min_clients": 0}, "min_clients must be a whole number of at least 1, got 0"),
        ({"min_clients": 1.5}, "min_clients must be a whole number of at least 1, got 1.5"),
        ({"min_clients": "2"}, "min_clients must be a whole number of at least 1, got '2'"),
        ({"max_users": 0}, "max_users must be a whole number of at least 1, got 0"),
        ({"max_clients_per_user": 0}, "max_clients_per_user must be a whole number of at least 1, got 0"),
        ({"threshold": 1}, "threshold must be a whole number of at least 2, got 1"),
    ],
)
def test_a_plan_that_cannot_hold_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=re.escape(message)):
        Plan(**values)


@pytest.mark.parametrize(
    ("epsilon", "delta", "multiplier"),
    [
        (1.0, 1e-5, 3.730631634816),
        (0.5, 1e-6, 8.057618480725),
        (2.0, 1e-5, 1.993812445644),
        (4.0, 1e-5, 1.081161849520),
        (8.0, 1e-5, 0.600229072199),
        (0.1, 1e-5, 30.749566132),
    ],
)
def test_epsilon_and_noise_follow_from_each_other(epsilon: float, delta: float, multiplier: float) -> None:
    assert Plan(epsilon=epsilon, delta=delta, rounds=1).noise_multiplier == pytest.approx(multiplier, rel=1e-9)
    assert Plan(noise_multiplier=multiplier, delta=delta).epsilon == pytest.approx(epsilon, rel=1e-9)


def test_sampled_rounds_are_counted_as_they_ran() -> None:
    sampled = {"delta": 1e-5, "rounds": 1000, "sampler": "poisson", "sampling_rate": 0.01, "noise": "central"}
    assert Plan(epsilon=1.0, **sampled).noise_multiplier == pytest.approx(1.414632, rel=2e-5)  # type: ignore[arg-type]
    assert Plan(noise_multiplier=1.0, **sampled).epsilon == pytest.approx(1.828244, rel=1e-5)  # type: ignore[arg-type]
    rdp = Plan(epsilon=1.0, accountant="rdp", **sampled)  # type: ignore[arg-type]
    assert rdp.noise_multiplier == pytest.approx(1.513122, rel=1e-4)


@pytest.mark.parametrize("more", [{"sampler": "poisson", "sampling_rate": 0.1}, {}])
@pytest.mark.parametrize("shares", [(0.1, 0.1, 0.8), (1 / 3, 1 / 3, 1 / 3), (0.05, 0.05, 0.9)])
def test_what_is_stated_for_given_noise_holds_however_rounds_share_it(
    more: dict[str, Any], shares: tuple[float, ...]
) -> None:
    """Under a sampler a round with most of the budget costs more than equal ones: then there is more noise."""
    plan = Plan(noise_multiplier=1.0, rounds=3, delta=1e-6, noise="central", **more)
    assert accountant.epsilon(plan.events(shares), 1e-6) <= float(plan.epsilon) * (1 + 1e-9)


def test_colluders_who_could_unmask_a_client_void_its_share_of_noise() -> None:
    spec = RoundSpec(0, "user_sum", TAME)
    assert Plan(epsilon=1.0, max_colluding=6).bind(spec, users=100, clients=10).shares == 4
    with pytest.raises(PlanError, match="max_colluding = 7 of 10 clients could rebuild the masks of another"):
        Plan(epsilon=1.0, max_colluding=7).bind(spec, users=100, clients=10)
    with pytest.raises(PlanError, match="max_colluding = 9 of 80 clients"):
        Plan(epsilon=1.0, max_colluding=9).bind(spec, users=100, clients=80)


def test_units_of_a_narrow_ring_do_not_tell_how_many_users_there_are() -> None:
    counts = RoundSpec(0, "user_sum", (PartSpec("counts", (50,), "dense", 1.0, 1.0, 1),))
    plan = Plan(epsilon=1.0, ring_bits=32, noise="central")
    assert len({plan.bind(counts, users, 5).spec.parts[0].scale for users in (10, 32_662, 32_663, 99_999)}) == 1


def test_the_default_of_a_private_plan_trusts_nobody_alone() -> None:
    plan = Plan(epsilon=4.0)
    assert (plan.aggregation, plan.noise, plan.delta, plan.accountant) == ("secure", "distributed", 1e-6, "pld")
    assert Plan(epsilon=4.0, aggregation="plain").noise == "central"
    assert Plan(epsilon=4.0, max_users=10_000).delta == pytest.approx(1e-5)


def test_rounds_and_parts_compose_to_the_whole() -> None:
    plan, shares = Plan(epsilon=2.0, delta=1e-5), (0.2, 0.3, 0.5)
    precision = 0.0
    for index in range(3):
        bound = plan.bind(RoundSpec(index, "user_sum", TAME), users=1000, clients=10, shares=shares)
        for part in bound.spec.parts:
            sure = math.sqrt(bound.variance[part.name] * bound.shares) / part.scale
            precision += (part.l2 / sure) ** 2
    assert precision**-0.5 == pytest.approx(1.993812445644, rel=1e-3)
    assert precision**-0.5 >= 1.993812445644


def test_a_slice_and_the_rest_compose_to_the_whole() -> None:
    plan = Plan(epsilon=2.0, delta=1e-5)
    events = [*plan.slice(0.9).events((0.5, 0.5)), *plan.slice(0.1).events((1.0,))]
    assert accountant.epsilon(events, 1e-5) == pytest.approx(2.0, rel=1e-3)
    assert accountant.epsilon(events, 1e-5) <= 2.0 * (1 + 1e-9)


def test_the_noise_of_h_clients_is_enough_without_the_others() -> None:
    bound = Plan(epsilon=1.0, delta=1e-5, max_colluding=2).bind(RoundSpec(0, "user_sum", TAME), users=100, clients=6)
    assert bound.shares == 4
    alone = Plan(epsilon=1.0, delta=1e-5, noise="central", aggregation="plain")
    central = alone.bind(RoundSpec(0, "user_sum", TAME), users=100, clients=6)
    for name, variance in bound.variance.items():
        assert variance * 4 >= central.variance[name]


def test_neighbours_and_users_at_several_clients_raise_the_noise() -> None:
    def noise(**more: Any) -> float:
        plan = Plan(epsilon=1.0, delta=1e-5, noise="central", aggregation="plain", **more)
        return plan.bind(RoundSpec(0, "user_sum", TAME), users=100, clients=6).noise_std(1)["gram"]

    assert noise(neighbours="replace-one") == pytest.approx(2 * noise(), rel=1e-3)
    assert noise(max_clients_per_user=3) == pytest.approx(3 * noise(), rel=1e-3)


def test_what_has_no_bound_cannot_be_hidden() -> None:
    with pytest.raises(PlanError, match="part 'gram' has no bound on what one user adds"):
        Plan(epsilon=1.0).bind(SPEC, users=10, clients=4, shares=(0.25,) * 4)
    with pytest.raises(PlanError, match="round 3 was not announced"):
        Plan(epsilon=1.0).bind(SPEC, users=10, clients=4)


def test_updates_of_whole_clients_protect_users_only_where_clients_are_users() -> None:
    update = RoundSpec(0, "client_update", TAME)
    with pytest.raises(PlanError, match="bounded per client, not per user"):
        Plan(epsilon=1.0).bind(update, users=100, clients=10)
    assert Plan(epsilon=1.0).bind(update, users=100, clients=100, one_user_each=True).event is not None


def test_organisations_cannot_be_drawn_as_a_whole() -> None:
    fixed = Plan(epsilon=1.0, sampler="fixed", sampling_rate=0.5, neighbours="replace-one", noise="central")
    with pytest.raises(PlanError, match="its other users tell whether it was"):
        fixed.bind(RoundSpec(0, "user_sum", TAME), users=100, clients=10)
    assert fixed.bind(RoundSpec(0, "user_sum", TAME), users=10, clients=10, one_user_each=True).event is not None


def test_more_users_than_the_public_bound_are_refused() -> None:
    with pytest.raises(PlanError, match="more users than max_users = 1,000"):
        Plan(epsilon=1.0, max_users=1000).bind(RoundSpec(0, "user_sum", TAME), users=1001, clients=10)


def test_secure_sums_need_three_clients() -> None:
    with pytest.raises(PlanError, match="secure aggregation needs three clients at least, got 2"):
        Plan(aggregation="secure").bind(RoundSpec(0, "user_sum", TAME), users=10, clients=2)
    with pytest.raises(PlanError, match="organisations always run the real protocol"):
        Plan(aggregation="secure", masks="elided").bind(RoundSpec(0, "user_sum", TAME), users=10, clients=4)


def test_masks_are_real_for_organisations_and_elided_for_many_devices() -> None:
    plan = Plan(epsilon=1.0)
    spec = RoundSpec(0, "user_sum", TAME)
    assert plan.bind(spec, users=200, clients=100).real_masks
    assert plan.bind(spec, users=50, clients=50, one_user_each=True).real_masks
    assert not plan.bind(spec, users=51, clients=51, one_user_each=True).real_masks


def test_a_narrow_ring_holds_sum_and_tails_and_pays_for_its_coarse_noise() -> None:
    counts = (PartSpec("counts", (50,), "dense", 1.0, 1.0, 1),)
    plan = Plan(epsilon=1.0, delta=1e-5, ring_bits=32, noise="central", aggregation="plain")
    bound = plan.bind(RoundSpec(0, "user_sum", counts), users=50_000, clients=10)
    part = bound.spec.parts[0]
    std = math.sqrt(bound.variance["counts"])
    assert 50_000 * part.linf * part.scale + 16 * std < 2**31
    assert bound.event is not None
    assert bound.event.mechanism == "concentrated"
    assert std / part.scale > 3.7307  # more than a Gaussian would need
    assert accountant.epsilon([bound.event], 1e-5) <= 1.0
    with pytest.raises(PlanError, match="too coarse"):
        Plan(epsilon=1.0, sampler="poisson", sampling_rate=0.1, ring_bits=32, noise="central")
    with pytest.raises(PlanError, match="more than a 32-bit ring holds"):
        plan.but(max_users=10**10, delta=1e-11).bind(RoundSpec(0, "user_sum", counts), users=10**10, clients=10)


def test_rounds_that_the_model_does_not_take_are_refused() -> None:
    with pytest.raises(PlanError, match="the plan is for rounds = 2, but the model takes 1"):
        Plan(epsilon=1.0, rounds=2).bind(RoundSpec(0, "user_sum", TAME), users=10, clients=4)


def test_a_plan_can_be_changed_and_printed_in_full() -> None:
    plan = Plan(epsilon=4.0)
    assert plan.but(epsilon=1.0) == Plan(epsilon=1.0)
    assert plan.but(noise_multiplier=2.0).noise_multiplier == 2.0
    assert plan.but(epsilon="none") == Plan()
    assert set(plan.as_dict()) == {field.name for field in dataclasses.fields(Plan)}
    assert Plan(**plan.as_dict() | {"epsilon": "none"}).epsilon == pytest.approx(4.0)


def test_without_a_clip_norm_bounds_stay() -> None:
    assert Plan().bind(SPEC, users=10, clients=2).spec == SPEC


@given(clip=st.floats(1e-6, 1e6))
def test_a_clip_norm_lowers_bounds_and_never_raises_them(clip: float) -> None:
    bound = Plan(clip_norm=clip).bind(SPEC, users=10, clients=2)
    assert (bound.spec.index, bound.spec.kind) == (3, "user_sum")
    for before, after in zip(PARTS, bound.spec.parts, strict=True):
        assert after.l2 == min(before.l2, clip)
        assert after.linf == min(before.linf, clip)
        assert after.scale == max(before.scale, CLIPPED_SCALE)
        assert (after.name, after.shape, after.layout, after.budget_share) == (
            before.name,
            before.shape,
            before.layout,
            before.budget_share,
        )


def test_a_sum_that_may_overflow_the_ring_is_refused() -> None:
    one = RoundSpec(0, "user_sum", (PartSpec("n", (4,), "dense", math.inf, 100.0, 1000),))
    largest = (2**31 - 1) // 100_000
    assert Plan(ring_bits=32).bind(one, users=largest, clients=1).ring_bits == 32
    with pytest.raises(PlanError, match=r"part 'n' can reach .* over 21475 users, more than a 32-bit ring holds"):
        Plan(ring_bits=32).bind(one, users=largest + 1, clients=1)
    assert Plan().bind(one, users=largest + 1, clients=1).ring_bits == 64


def test_a_part_without_a_bound_per_entry_needs_a_clip_norm() -> None:
    free = RoundSpec(0, "user_sum", (PartSpec("n", (4,), "dense", math.inf, math.inf, 1),))
    with pytest.raises(PlanError, match=r"part 'n' has no bound per entry \(linf = inf\); set a clip norm"):
        Plan().bind(free, users=1, clients=1)
    assert Plan(clip_norm=1.0).bind(free, users=1, clients=1).spec.parts[0].linf == 1.0


def test_too_few_clients_are_refused() -> None:
    plan = Plan(min_clients=3)
    assert plan.bind(SPEC, users=10, clients=3).clients == 3
    with pytest.raises(PlanError, match="2 clients take part, fewer than min_clients = 3"):
        plan.bind(SPEC, users=10, clients=2)


@pytest.mark.parametrize(("bits", "expected"), [(64, 8 * 56), (32, 4 * 56)])
def test_upload_counts_every_entry_that_travels(bits: int, expected: int) -> None:
    tame = RoundSpec(0, "user_sum", (PARTS[0], PartSpec("rows", (1,), "dense", 1.0, 1.0, 1)))
    assert Plan(ring_bits=bits).bind(tame, users=10, clients=1).upload_bytes == expected
