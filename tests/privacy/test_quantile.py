"""The private quantile: its formulae, its bound, and what it finds."""

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.errors import PlanError
from coterie.privacy.counts import item_counts
from coterie.privacy.noise import SimulatedBits, discrete_gaussian
from coterie.privacy.quantile import ClippingQuantile, adapted, update_multiplier
from coterie.ring import Accumulator
from coterie.types import RoundSpec, State, Total, UserBlock


def people(sizes: np.ndarray) -> UserBlock:
    """Users with so many interactions."""
    ptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return UserBlock(1, ptr, ptr, np.zeros(int(ptr[-1]), np.int32))


def searched(search: ClippingQuantile, users: UserBlock, noise_multiplier: float = 0.0, scale: int = 2**20) -> State:
    """All rounds, noised as the plan would: z / sqrt(round's share * part's share) times the bound."""
    state, shares = search.init(), search.budget(search.init())
    while (asked := search.next_round(state)) is not None:
        spec = replace(asked, parts=tuple(replace(part, scale=scale) for part in asked.parts))
        out, stds = Accumulator(spec), {}
        search.contribute(spec, state, users, None, out)
        for part in spec.parts:
            share = part.budget_share / sum(one.budget_share for one in spec.parts)
            stds[part.name] = noise_multiplier / math.sqrt(shares[spec.index] * share) * part.l2
            if noise_multiplier:
                variance = round((stds[part.name] * part.scale) ** 2)
                out[part.name][:] += discrete_gaussian(variance, 1, SimulatedBits(spec.index, part.name))
        state = search.apply(spec, state, Total(spec, out.parts, stds, 1, 0))
    return state


# --- the formulae -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("z", "count_noise", "left"), [(1.0, 5.0, 1.005037815), (0.8, 2.0, 0.816496581)])
def test_the_update_multiplier_is_the_published_one(z, count_noise, left):
    assert update_multiplier(z, count_noise) == pytest.approx(left, abs=5e-10)


@given(z=st.floats(0.05, 50), ratio=st.floats(0.51, 100))
def test_the_update_and_the_count_together_are_what_was_asked_for(z, ratio):
    """The count of +-1/2 with noise sigma_b has multiplier 2 sigma_b: 1/z^2 = 1/z_delta^2 + 1/(2 sigma_b)^2."""
    left = update_multiplier(z, z * ratio)
    assert left**-2 + (2 * z * ratio) ** -2 == pytest.approx(z**-2)
    assert left > z


@pytest.mark.parametrize(("z", "count_noise"), [(2.0, 1.0), (2.0, 0.5), (0.0, 1.0), (-1.0, 1.0)])
def test_a_count_that_takes_the_whole_budget_is_refused(z, count_noise):
    with pytest.raises(PlanError, match="leaves nothing"):
        update_multiplier(z, count_noise)


def test_a_clip_norm_moves_towards_the_quantile_and_rests_on_it():
    assert adapted(10.0, 0.5, 0.5, 0.2) == 10.0
    assert adapted(10.0, 1.0, 0.5, 0.2) == pytest.approx(10 * math.exp(-0.1))
    assert adapted(10.0, 0.0, 0.5, 0.2) == pytest.approx(10 * math.exp(0.1))


# --- the rounds -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quantile", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("noise_multiplier", [0.0, 4.0])
@pytest.mark.parametrize("middle", [4, 40, 250])
def test_it_finds_the_quantile_of_a_statistic(quantile, noise_multiplier, middle):
    sizes = np.random.default_rng(1).lognormal(math.log(middle), 1.0, 5000).astype(np.int64) + 1
    state = searched(ClippingQuantile(item_counts, quantile), people(sizes), noise_multiplier)
    assert abs((sizes <= state["clip"]).mean() - quantile) < 0.06
    assert abs(state["users"] - 5000) < (200 if noise_multiplier else 1e-9)
    assert 0 <= state["below"] <= 1


def test_where_all_users_are_alike_it_ends_near_them():
    state = searched(ClippingQuantile(item_counts), people(np.full(1000, 30)))
    assert 25 < state["clip"] < 36


def test_the_median_is_found_as_far_away_as_is_promised():
    users = people(np.full(200, 7))
    for initial in (7 * 600, 7 / 600):
        state = searched(ClippingQuantile(item_counts, initial=initial), users)
        assert state["clip"] == pytest.approx(7, rel=0.1)


def test_drowned_in_noise_it_stays_within_its_reach():
    search = ClippingQuantile(item_counts)
    reach = math.exp(sum(0.5 * search.rate * search.decay**t for t in range(search.rounds)))
    state = searched(search, people(np.full(3, 30)), noise_multiplier=1000.0)
    assert search.initial / reach <= state["clip"] <= search.initial * reach


@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=12), at=st.integers(0, 11), clip=st.floats(0.3, 2.0))
def test_removing_any_user_moves_each_part_by_at_most_its_bound(sizes, at, clip):
    search = ClippingQuantile(item_counts)
    spec = clipped(search, clip)
    at %= len(sizes)
    whole, less = Accumulator(spec), Accumulator(spec)
    search.contribute(spec, search.init(), people(np.array(sizes)), None, whole)
    search.contribute(spec, search.init(), people(np.array(sizes[:at] + sizes[at + 1 :], np.int64)), None, less)
    for part in spec.parts:
        assert abs(int(whole[part.name][0] - less[part.name][0])) <= part.scale * min(part.l2, part.linf)


def clipped(search: ClippingQuantile, clip: float) -> RoundSpec:
    spec = search.next_round(search.init())
    assert spec is not None
    return replace(
        spec, parts=tuple(replace(p, l2=min(p.l2, clip), linf=min(p.linf, clip), scale=1024) for p in spec.parts)
    )


@given(sizes=st.lists(st.integers(0, 40), min_size=1, max_size=12), clip=st.floats(0.3, 2.0))
def test_a_smaller_bound_does_not_bias_the_share(sizes, clip):
    search = ClippingQuantile(item_counts)
    spec = clipped(search, clip)
    out = Accumulator(spec)
    search.contribute(spec, search.init(), people(np.array(sizes)), None, out)
    state = search.apply(spec, search.init(), Total(spec, out.parts, {"below": 0.0, "users": 0.0}, 1, 0))
    assert state["users"] == len(sizes)
    assert state["below"] == pytest.approx(np.mean(np.array(sizes) <= search.initial))


def test_bounds_are_a_half_and_one_and_rounds_share_alike():
    search = ClippingQuantile(item_counts, rounds=5)
    spec = search.next_round(search.init())
    assert spec is not None
    assert [(part.name, part.l2, part.linf) for part in spec.parts] == [("below", 0.5, 0.5), ("users", 1.0, 1.0)]
    assert search.budget(search.init()) == (0.2,) * 5
    assert search.next_round(State(5)) is None


def test_a_statistic_that_is_not_one_number_per_user_is_refused():
    search = ClippingQuantile(lambda users: users.item)
    spec = search.next_round(search.init())
    assert spec is not None
    with pytest.raises(ValueError, match=r"shape \(7,\) for 2 users"):
        search.contribute(spec, search.init(), people(np.array([3, 4])), None, Accumulator(spec))


@pytest.mark.parametrize(
    ("name", "value"),
    [("quantile", 0.0), ("quantile", 1.0), ("initial", 0.0), ("rate", -1.0), ("rounds", 0), ("decay", 1.5)],
)
def test_settings_out_of_range_are_refused(name, value):
    with pytest.raises(PlanError, match=name):
        ClippingQuantile(item_counts, **{name: value})
