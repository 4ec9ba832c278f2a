"""Sums in the ring wrap, never depend on order, and decode to the true sum whenever it fits."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.errors import PlanError
from coterie.ring import RING_BITS, Accumulator, check_capacity, decode
from coterie.types import PartSpec, RoundSpec

SPEC = RoundSpec(
    0,
    "user_sum",
    (PartSpec("a", (3,), "dense", 1.0, 1.0, 1), PartSpec("b", (2, 2), "triangle", 1.0, 1.0, 1)),
)
elements = st.integers(-(2**63), 2**63 - 1)
vectors = st.lists(elements, min_size=3, max_size=3)
bits_of = st.sampled_from(RING_BITS)


def accumulator(values: list[int]) -> Accumulator:
    out = Accumulator(SPEC)
    out["a"][:] = values
    out["b"][:] = values[::-1]
    return out


def test_an_accumulator_starts_at_zero_with_an_entry_for_each_that_travels() -> None:
    out = Accumulator(SPEC)
    assert {name: (values.dtype, values.tolist()) for name, values in out.parts.items()} == {
        "a": (np.dtype(np.int64), [0, 0, 0]),
        "b": (np.dtype(np.int64), [0, 0, 0]),
    }


@given(terms=st.lists(vectors, min_size=1, max_size=6), data=st.data(), bits=bits_of)
def test_the_merged_sum_is_the_true_sum_in_the_ring_whatever_the_order(
    terms: list[list[int]], data: st.DataObject, bits: int
) -> None:
    total = Accumulator(SPEC)
    for values in data.draw(st.permutations(terms)):
        total.merge(accumulator(values))
    for at in range(3):
        true = sum(values[at] for values in terms)
        wrapped = (true + 2 ** (bits - 1)) % 2**bits - 2 ** (bits - 1)
        assert decode(total["a"], bits)[at] == wrapped
        assert decode(total["b"], bits)[2 - at] == wrapped


def test_merging_leaves_the_other_sum_as_it_was() -> None:
    one, other = accumulator([1, 2, 3]), accumulator([2**63 - 1, 0, -1])
    one.merge(other)
    assert one["a"].tolist() == [-(2**63), 2, 2]
    assert other["a"].tolist() == [2**63 - 1, 0, -1]


@given(value=st.integers(-(2**31), 2**31 - 1), turns=st.integers(-(2**20), 2**20))
def test_a_32_bit_element_decodes_to_itself_after_any_number_of_turns(value: int, turns: int) -> None:
    assert decode(np.array([value + turns * 2**32], np.int64), 32).tolist() == [value]


@given(linf=st.floats(1e-3, 1e6), scale=st.integers(1, 2**20), users=st.integers(1, 10**6), bits=bits_of)
def test_what_is_not_refused_fits(linf: float, scale: int, users: int, bits: int) -> None:
    part = PartSpec("n", (1,), "dense", math.inf, linf, scale)
    largest = users * math.floor(linf * scale)
    try:
        check_capacity(part, users, bits)
    except PlanError:
        assert users * linf * scale >= 2 ** (bits - 1)
    else:
        extreme = np.array([largest, -largest], np.int64)
        assert decode(extreme, bits).tolist() == [largest, -largest]


def test_the_last_value_below_the_limit_fits_and_the_limit_does_not() -> None:
    check_capacity(PartSpec("n", (1,), "dense", 1.0, 1.0, 1), users=2**31 - 1, ring_bits=32)
    with pytest.raises(PlanError, match=r"'n' can reach 2.15e\+09 ring units over 2147483648 users"):
        check_capacity(PartSpec("n", (1,), "dense", 1.0, 1.0, 1), users=2**31, ring_bits=32)
