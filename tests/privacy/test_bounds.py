"""Bounds grow by what inflates them, against the worst cases themselves; unsound orders are refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.errors import PlanError
from coterie.privacy.accountant import Event, epsilon, noise_multiplier
from coterie.privacy.bounds import Bound, final_bound, float_sum_norm, rounded_sum_norm


def test_nothing_inflates_a_plain_sum() -> None:
    assert final_bound(2.5) == 2.5


@given(l2=st.floats(1e-6, 1e6), weight=st.floats(1e-3, 1e3), clients=st.integers(1, 20), replaced=st.booleans())
def test_whatever_inflates_a_bound_multiplies(l2: float, weight: float, clients: int, replaced: bool) -> None:
    found = final_bound(
        l2,
        max_weight=weight,
        max_clients_per_user=clients,
        neighbours="replace-one" if replaced else "add-or-remove-one",
    )
    assert found == pytest.approx(l2 * weight * clients * (2 if replaced else 1), rel=1e-12)


@given(st.integers(0, 2**32 - 1))
def test_no_neighbour_of_a_weighted_sum_is_farther_than_the_bound(seed: int) -> None:
    rng = np.random.default_rng(seed)
    weights = rng.integers(1, 8, size=4) / 2.0
    # One user sends the same vector from two clients, and is replaced by one who sends its opposite.
    vector = rng.normal(size=5)
    vector *= 3.0 / np.linalg.norm(vector)
    heaviest = np.sort(weights)[-2:]
    moved = np.linalg.norm(heaviest.sum() * vector - heaviest.sum() * -vector)
    bound = final_bound(3.0, max_weight=weights.max(), max_clients_per_user=2, neighbours="replace-one")
    assert moved <= bound * (1 + 1e-12)
    if heaviest[0] == heaviest[1]:
        assert moved == pytest.approx(bound)


def test_noise_for_equal_weights_is_too_little_for_unequal_ones() -> None:
    examples = [1, 1, 1, 7]
    weight = max(examples) / (sum(examples) / len(examples))
    assert 1 / final_bound(1.0, max_weight=weight) == pytest.approx(0.36, abs=0.005)


def test_users_at_several_clients_need_so_much_more_noise() -> None:
    sigma = noise_multiplier(4.0, 1e-5)
    for clients, real in ((1, 4.0), (2, 9.08), (3, 15.08)):
        assert epsilon([Event(sigma / final_bound(1.0, max_clients_per_user=clients))], 1e-5) == pytest.approx(
            real, abs=0.005
        )


@pytest.mark.parametrize(
    "call",
    [
        lambda: final_bound(0.0),
        lambda: final_bound(math.inf),
        lambda: final_bound(1.0, max_weight=-1.0),
        lambda: final_bound(1.0, max_clients_per_user=0),
        lambda: final_bound(1.0, neighbours="swap"),
        lambda: rounded_sum_norm(1.0, 0, 8),
        lambda: rounded_sum_norm(1.0, 3, 0),
        lambda: float_sum_norm(-1.0, 3),
    ],
)
def test_nonsense_is_refused(call: Callable[[], float]) -> None:
    with pytest.raises(PlanError, match=r"must be (a number|a whole number|one of)"):
        call()


# --- the order of stages ---------------------------------------------------------------------------------------------


def test_stages_in_a_sound_order_give_the_noise() -> None:
    bound = Bound().weighted().rounded().clipped(5.0).clipped(3.0).truncated(100).weighted(2.0).at_clients(3)
    assert bound.between("replace-one").noise_std(0.5) == 0.5 * 3 * 100 * 2 * 3 * 2
    assert bound.between("replace-one").l2 / 100 == final_bound(
        3.0, max_weight=2.0, max_clients_per_user=3, neighbours="replace-one"
    )


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        (lambda b: b.clipped(1.0).rounded(), "rounding after clipped voids the guarantee: it lengthens vectors"),
        (lambda b: b.clipped(1.0).weighted(), "noise for the clip norm alone is too little; state max_weight"),
        (lambda b: b.clipped(1.0).truncated(8).clipped(1.0), "clipping after clipped -> truncated voids"),
        (lambda b: b.clipped(1.0).at_clients(2).clipped(1.0), "it would bound a client's sum, not one user"),
        (lambda b: b.clipped(1.0).between("replace-one").clipped(1.0), "it would bound a sum, not one user"),
        (lambda b: b.clipped(1.0).at_clients(2).truncated(8), "where one user can move entries that it never touched"),
        (lambda b: b.clipped(1.0).truncated(8).truncated(8), "its input already is in ring units"),
        (lambda b: b.between("add-or-remove-one").weighted(2.0), "weights are part of what neighbours differ in"),
        (lambda b: b.between("add-or-remove-one").at_clients(2), "neighbours are compared over all clients"),
        (lambda b: b.between("replace-one").between("replace-one"), "would double twice"),
        (lambda b: b.truncated(8).between("replace-one").noise_std(1.0), "not final .*: clip each user's vector first"),
        (lambda b: b.clipped(1.0).between("replace-one").noise_std(1.0), "not final .*: quantise each user's vector"),
        (lambda b: b.clipped(1.0).truncated(8).noise_std(1.0), "not final .*: say which neighbours must look alike"),
        (lambda b: b.noise_std(1.0), "the bound is not final .nothing was done."),
    ],
)
def test_an_order_that_voids_the_guarantee_is_refused(order: Callable[[Bound], object], reason: str) -> None:
    with pytest.raises(PlanError, match=reason):
        order(Bound())


# --- rounding a sum --------------------------------------------------------------------------------------------------


def moved_by(units: Fraction, entry: Fraction) -> int:
    """By how much rounding moves, if the others' sum lies just below an edge and one user adds `entry` ring units."""
    return math.floor(units + entry + Fraction(1, 2)) - math.floor(units + Fraction(1, 2))


@pytest.mark.parametrize(
    ("dimension", "scale", "known"), [(40_000, 1 << 8, 1.56), (400_000, 1 << 8, 2.47), (400_000, 1 << 16, 1.004)]
)
def test_rounding_a_float_sum_inflates_an_even_vector_as_known(dimension: int, scale: int, known: float) -> None:
    entry = Fraction(scale) / Fraction(math.isqrt(dimension * 10**12), 10**6)  # of an even vector with norm 1
    moved = moved_by(Fraction(1, 2) - Fraction(1, 10**9), entry)
    even = moved * math.sqrt(dimension) / scale
    assert even == pytest.approx(known, abs=0.005)
    assert even <= rounded_sum_norm(1.0, dimension, scale)


def test_the_worst_vector_is_not_the_even_one() -> None:
    # 31,488 entries just above one ring unit and 8,512 just above two: their norm is that of the even vector.
    edge, tiny = Fraction(1, 2) - Fraction(1, 10**9), Fraction(1, 10**8)
    low, high = moved_by(edge, 1 + tiny), moved_by(edge, 2 + tiny)
    assert (low, high, 31_488 + 8_512, 31_488 + 8_512 * 4) == (2, 3, 40_000, 256**2)
    worst = math.sqrt(31_488 * low**2 + 8_512 * high**2) / 256
    assert rounded_sum_norm(1.0, 40_000, 256) == pytest.approx(worst, rel=1e-9) == pytest.approx(1.758, abs=1e-3)


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 64))
def test_no_vector_is_moved_farther_than_the_bound(seed: int, dimension: int, scale: int) -> None:
    rng = np.random.default_rng(seed)
    vector = rng.normal(size=dimension) * rng.integers(0, 2, size=dimension) + 1e-9
    vector /= np.linalg.norm(vector)
    others = rng.integers(-50, 50, size=dimension) + 0.5 - 1e-12 * np.sign(vector)
    moved = np.floor(others + vector * scale + 0.5) - np.floor(others + 0.5)
    assert np.linalg.norm(moved) / scale <= rounded_sum_norm(1.0, dimension, scale) * (1 + 1e-12)


def test_truncating_each_user_never_inflates() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(200, 50))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    integers = np.trunc(vectors * 256)
    assert (np.linalg.norm(integers, axis=1) <= Bound().clipped(1.0).truncated(256).l2).all()


# --- adding floats ---------------------------------------------------------------------------------------------------


@given(st.integers(0, 2**32 - 1), st.integers(2, 200))
def test_float_sums_move_no_farther_than_the_bound(seed: int, users: int) -> None:
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(users, 3)).astype(np.float32)
    vectors /= np.linalg.norm(vectors.astype(np.float64), axis=1, keepdims=True).astype(np.float32) * np.float32(1.001)
    whole, without = np.zeros(3, np.float32), np.zeros(3, np.float32)
    for row, vector in enumerate(vectors):
        whole += vector
        without += vector if row else np.float32(0)
    moved = np.linalg.norm(whole.astype(np.float64) - without)
    assert moved <= float_sum_norm(1.0, users, 2.0**-24)


def test_the_error_term_grows_with_users_and_ends_where_nothing_is_known() -> None:
    assert float_sum_norm(3.0, 1) == 3.0
    assert float_sum_norm(1.0, 10**6) == pytest.approx(1 + 2e12 * 2.0**-53, rel=1e-6)
    with pytest.raises(PlanError, match="a sum of 100000000 floats with unit roundoff"):
        float_sum_norm(1.0, 10**8, 2.0**-24)
