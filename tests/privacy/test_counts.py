"""Noisy counts are bounded per user, exact before noise, and nothing but sums."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.errors import PlanError
from coterie.privacy.counts import Counts, basket_counts, item_counts, unit
from coterie.ring import Accumulator
from coterie.types import PartSpec, RoundSpec, State, Total, UserBlock

baskets_of_a_user = st.lists(st.integers(0, 3), max_size=6)  # how many items each basket has
people = st.lists(baskets_of_a_user, max_size=8)


def block(users: list[list[int]]) -> UserBlock:
    """Users with baskets of so many items; a user's empty baskets repeat a pointer, as in real blocks."""
    sizes = [size for user in users for size in user]
    user_ptr = np.concatenate([[0], np.cumsum([sum(user) for user in users])]).astype(np.int64)
    basket_ptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return UserBlock(3, user_ptr, basket_ptr, np.zeros(int(user_ptr[-1]), np.int32))


def summed(counts: Counts, spec: RoundSpec, users: UserBlock) -> Accumulator:
    out = Accumulator(spec)
    counts.contribute(spec, counts.init(), users, None, out)
    return out


def spec_of(counts: Counts, scale: int = 1, clip: float = np.inf) -> RoundSpec:
    spec = counts.next_round(counts.init())
    assert spec is not None
    parts = [replace(part, scale=scale, l2=min(part.l2, clip), linf=min(part.linf, clip)) for part in spec.parts]
    return replace(spec, parts=tuple(parts))


def total(spec: RoundSpec, sums: Accumulator, noise: float = 0.0) -> Total:
    return Total(spec, sums.parts, {part.name: noise for part in spec.parts}, 1, 0)


@given(users=people, most=st.integers(1, 5), scale=st.sampled_from([1, 1024]))
def test_without_noise_the_counts_are_the_clipped_ones(users, most, scale):
    counts = Counts(max_baskets=most)
    spec = spec_of(counts, scale)
    state = counts.apply(spec, counts.init(), total(spec, summed(counts, spec, block(users)), 0.5))
    assert state["users"] == len(users)
    assert state["baskets"] == sum(min(sum(size > 0 for size in user), most) for user in users)
    assert state["users_noise"] == state["baskets_noise"] == 0.5
    assert all(state[name].dtype == np.float64 for name in state.arrays)
    assert counts.next_round(state) is None


@given(users=people.filter(len), at=st.integers(0, 100), most=st.integers(1, 5), clip=st.floats(1.0, 9.0))
def test_removing_any_user_moves_each_part_by_at_most_its_bound(users, at, most, clip):
    counts = Counts(max_baskets=most)
    spec = spec_of(counts, 1024, clip)
    at %= len(users)
    whole, less = summed(counts, spec, block(users)), summed(counts, spec, block(users[:at] + users[at + 1 :]))
    for part in spec.parts:
        moved = abs(int(whole[part.name][0] - less[part.name][0]))
        assert moved <= part.scale * min(part.l2, part.linf)


@given(users=people, cut=st.integers(0, 8))
def test_the_sum_does_not_depend_on_the_partition(users, cut):
    counts = Counts()
    spec = spec_of(counts)
    whole = summed(counts, spec, block(users))
    apart = summed(counts, spec, block(users[:cut]))
    apart.merge(summed(counts, spec, block(users[cut:])))
    assert all(np.array_equal(whole[name], apart[name]) for name in whole.parts)


@given(users=people)
def test_statistics_of_users(users):
    found = block(users)
    assert item_counts(found).tolist() == [sum(user) for user in users]
    assert basket_counts(found).tolist() == [sum(size > 0 for size in user) for user in users]


def test_a_smaller_bound_on_users_does_not_bias_their_count():
    counts = Counts()
    spec = spec_of(counts, 1024, clip=0.25)
    state = counts.apply(spec, counts.init(), total(spec, summed(counts, spec, block([[1], [2], [1, 1]]))))
    assert state["users"] == 3.0


def test_one_round_takes_the_whole_budget():
    assert Counts().budget(State(0)) == (1.0,)


@pytest.mark.parametrize("most", [0, -1, 2.5, True])
def test_a_bound_that_counts_nothing_is_refused(most):
    with pytest.raises(PlanError, match="max_baskets must be a whole number of at least 1"):
        Counts(max_baskets=most)


def test_a_part_too_coarse_for_one_user_is_refused():
    with pytest.raises(PlanError, match=r"part 'users'.*less than a ring unit"):
        unit(PartSpec("users", (1,), "dense", 0.5, 1.0, 1), 1.0)
