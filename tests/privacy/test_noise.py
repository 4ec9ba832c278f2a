"""Discrete noise is what its definition says, to the last bit, and comes from where it should."""

import decimal
import os
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from coterie.errors import PlanError
from coterie.privacy import noise, staircase
from coterie.privacy.noise import (
    LARGEST_SCALE,
    LARGEST_VARIANCE,
    SimulatedBits,
    SystemBits,
    add_discrete_gaussian,
    add_noise,
    discrete_gaussian,
    discrete_laplace,
)
from coterie.privacy.noise_kernels import MARGIN, _acceptance
from coterie.privacy.staircase import CHANCE_BITS, Staircase, alias_table, build, decay_bounds, decays

DIGITS = decimal.Context(prec=80)
PROVEN_ERROR = 2.0**-43  # of the floating-point acceptance, as its module says
SMALL = [Fraction(1, 4), Fraction(1), Fraction(4), Fraction(10, 3), Fraction(100), Fraction(2500), Fraction(10**6, 3)]
SCALES = [Fraction(1, 4), Fraction(1), Fraction(7, 3), Fraction(5), Fraction(50), Fraction(200)]
HUGE = [2**36, 2**40, 3 * 10**15, 2**60, 2**90, LARGEST_VARIANCE]


def bits(*purpose: str | int) -> SimulatedBits:
    return SimulatedBits(0, *purpose)


# --- the oracle: probabilities in eighty digits -----------------------------------------------------------------------


def decay(energy: Fraction) -> Decimal:
    return DIGITS.exp(DIGITS.divide(Decimal(-energy.numerator), Decimal(energy.denominator)))


def law(power: int, unit: Fraction) -> dict[int, float]:
    """The probability of every integer that has more than 1e-30 of the most likely one's."""
    sizes = [Decimal(1)]
    while sizes[-1] > Decimal(10) ** -30:
        sizes.append(decay(Fraction(len(sizes) ** power) / unit))
    whole = sizes[0] + 2 * sum(sizes[1:])
    return {sign * x: float(one / whole) for x, one in enumerate(sizes) for sign in (-1, 1)}


def p_value(drawn: np.ndarray, expected: dict[int, float]) -> float:
    """Of a chi-square test; integers that are too rare for it are taken together."""
    n, counts = len(drawn), dict(zip(*np.unique(drawn, return_counts=True), strict=True))
    common = [x for x, p in expected.items() if p * n >= 10]
    seen = [counts.get(x, 0) for x in common]
    wanted = [expected[x] * n for x in common]
    seen, wanted = [*seen, n - sum(seen)], [*wanted, n - sum(wanted)]
    if wanted[-1] < 5:  # merge what is left into the rarest
        seen, wanted = [*seen[:-2], seen[-2] + seen[-1]], [*wanted[:-2], wanted[-2] + wanted[-1]]
    statistic = sum((s - w) ** 2 / w for s, w in zip(seen, wanted, strict=True))
    return float(stats.chi2.sf(statistic, len(wanted) - 1))


def test_the_oracle_has_the_published_low_order_probabilities():
    assert law(2, Fraction(2))[0] == pytest.approx(0.398942278, abs=1e-9)
    assert law(2, Fraction(8))[0] == pytest.approx(0.199471140, abs=1e-9)


# --- goodness of fit --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variance", SMALL)
def test_draws_fit_the_discrete_gaussian(variance):
    drawn = discrete_gaussian(variance, 300_000, bits("fit", str(variance)))
    assert p_value(drawn, law(2, 2 * variance)) > 1e-3


@pytest.mark.parametrize("scale", SCALES)
def test_draws_fit_the_discrete_laplace(scale):
    drawn = discrete_laplace(scale, 300_000, bits("fit laplace", str(scale)))
    assert p_value(drawn, law(1, scale)) > 1e-3


def test_the_test_of_fit_knows_a_rounded_normal_from_a_discrete_gaussian():
    rounded = np.rint(np.random.default_rng(0).normal(size=300_000)).astype(np.int64)
    assert p_value(rounded, law(2, Fraction(2))) < 1e-9


@pytest.mark.parametrize(("variance", "zero", "one"), [(1, 0.398942278, 0.241970723), (4, 0.199471140, 0.176032663)])
def test_low_order_probabilities(variance, zero, one):
    n = 2_000_000
    drawn = discrete_gaussian(variance, n, bits("low order", variance))
    for share, p in [((drawn == 0).mean(), zero), ((drawn == 1).mean(), one), ((drawn == -1).mean(), one)]:
        assert abs(share - p) < 4 * np.sqrt(p / n)


@pytest.mark.parametrize("variance", HUGE)
def test_large_variances_have_the_shape_of_a_normal_and_uniform_low_bits(variance):
    """Above 2^30 a discrete Gaussian's distribution function is a normal's to 1e-9, and its residues are uniform."""
    drawn = discrete_gaussian(variance, 200_000, bits("large", str(variance)))
    assert stats.kstest(drawn / float(variance) ** 0.5, "norm").pvalue > 1e-3
    assert stats.chisquare(np.bincount(drawn & 255, minlength=256)).pvalue > 1e-3


@pytest.mark.parametrize("scale", [2**20, 10**12, LARGEST_SCALE])
def test_large_scales_have_the_shape_of_a_laplace_and_uniform_low_bits(scale):
    drawn = discrete_laplace(scale, 200_000, bits("large laplace", str(scale)))
    assert stats.kstest(drawn / float(scale), "laplace").pvalue > 1e-3
    assert stats.chisquare(np.bincount(drawn & 255, minlength=256)).pvalue > 1e-3


def test_moments_at_two_to_the_forty():
    n = 1_000_000
    scaled = discrete_gaussian(2**40, n, bits("moments")) / 2.0**20
    assert abs(scaled.mean()) < 4 / np.sqrt(n)
    assert abs(scaled.var() - 1) < 4 * np.sqrt(2 / n)
    assert abs((scaled**3).mean()) < 4 * np.sqrt(15 / n)
    assert abs((scaled**4).mean() - 3) < 4 * np.sqrt(96 / n)


@pytest.mark.parametrize("draw", [discrete_gaussian, discrete_laplace])
def test_both_signs_are_alike(draw):
    drawn = draw(4, 200_000, bits("signs"))
    table = [[(sign * drawn == size).sum() for size in range(1, 7)] for sign in (-1, 1)]
    assert stats.chi2_contingency(table).pvalue > 1e-3


def test_draws_that_follow_each_other_are_independent():
    drawn = np.clip(discrete_gaussian(4, 400_000, bits("pairs")), -4, 4) + 4
    table = np.bincount(drawn[:-1:2] * 9 + drawn[1::2], minlength=81).reshape(9, 9)
    assert stats.chi2_contingency(table).pvalue > 1e-3


# --- the proof, line by line ------------------------------------------------------------------------------------------

fractions = st.fractions(Fraction(1, 4), 2**70, max_denominator=10**6) | st.integers(0, 110).map(
    lambda b: Fraction(2**b + b)
)


def stairs_of(power: int, parameter: Fraction) -> Staircase:
    return staircase.gaussian(parameter) if power == 2 else staircase.laplace(min(parameter, Fraction(LARGEST_SCALE)))


@given(energy=st.fractions(0, 2000, max_denominator=10**9), precision=st.integers(16, 200))
def test_exponentials_lie_between_their_bounds(energy, precision):
    low, high = decay_bounds(energy, precision)
    assert 0 <= high - low <= 2
    with decimal.localcontext(DIGITS):
        assert Decimal(low) <= decay(energy) * 2**precision * (1 + Decimal(10) ** -75)
        assert Decimal(high) >= decay(energy) * 2**precision * (1 - Decimal(10) ** -75)


@given(share=st.floats(0, 2.0**-7, exclude_max=True), precision=st.integers(16, 200))
def test_series_lie_on_their_side(share, precision):
    t = int(Fraction(share) * 2**precision)
    with decimal.localcontext(DIGITS):
        true = decay(Fraction(-t, 2**precision)) * 2**precision
        assert Decimal(staircase._growth_below(t, precision)) <= true * (1 + Decimal(10) ** -75)
        assert Decimal(staircase._growth_above(t, precision)) >= true


@given(parts=st.lists(st.integers(0, 10**6), min_size=1, max_size=60))
def test_the_alias_table_chooses_with_the_weights_exactly(parts):
    capacity = 2**20
    weight = [*parts, 0]
    weight[-1] = len(weight) * capacity - sum(weight)
    threshold, alias = alias_table(weight, capacity)
    chosen = list(threshold)
    for cell, other in enumerate(alias):
        assert 0 <= threshold[cell] <= capacity
        chosen[other] += capacity - threshold[cell]
    assert chosen == weight


@settings(max_examples=25)
@given(power=st.sampled_from([1, 2]), parameter=fractions)
def test_the_weights_are_chosen_exactly_and_no_acceptance_passes_one(power, parameter):
    stairs = stairs_of(power, parameter)
    assert sum(stairs.weight) == 2 * stairs.blocks << 32
    chosen = stairs.threshold.tolist()
    for cell, other in enumerate(stairs.alias.tolist()):
        chosen[other] += 2**32 - int(stairs.threshold[cell])
    assert tuple(chosen) == stairs.weight
    size = 1 << stairs.shift
    for entry in [*range(0, 2 * stairs.blocks - 2, 37), 0, 1, 2 * stairs.blocks - 4]:
        nearest, farthest = (entry // 2) * size + entry % 2, (entry // 2 + 1) * size - 1 + entry % 2
        assert acceptance(stairs, entry, nearest) <= 1
        assert acceptance(stairs, entry, farthest) * 2**CHANCE_BITS >= int(stairs.sure[entry])


@settings(max_examples=25)
@given(power=st.sampled_from([1, 2]), parameter=fractions)
def test_no_acceptance_in_the_tail_passes_one(power, parameter):
    stairs = stairs_of(power, parameter)
    starts = [((stairs.blocks << j) - 1) << stairs.shift for j in range(4)]
    for entry in (-1, -2):
        for j, start in enumerate(starts):
            assert acceptance(stairs, entry, start) * stairs.blocks * 2 ** (2 * j + 1) <= 1
    growth = [stairs.energy(b) - stairs.energy(a) for a, b in pairwise(starts)]
    assert growth[0] > Fraction(14, 10)  # 2 ln 2 = 1.386...
    assert growth == sorted(growth)


@settings(max_examples=300)
@given(power=st.sampled_from([1, 2]), parameter=fractions, entry=st.integers(0, 509), inside=st.integers(0, 2**63))
def test_the_kernels_acceptance_is_as_near_as_is_proven(power, parameter, entry, inside):
    stairs = stairs_of(power, parameter)
    size = ((entry >> 1) << stairs.shift) + inside % (1 << stairs.shift) + entry % 2
    rate, near, top = float(1 / stairs.unit), stairs.near[entry], stairs.top[entry]
    found = _acceptance(size, near, top, decays(), rate, power == 2)
    if np.isnan(found):
        assert stairs.energy(size) - stairs.energy(int(near)) > 63
    else:
        with decimal.localcontext(DIGITS):
            assert abs(Decimal(float(found)) - acceptance(stairs, entry, size)) < Decimal(PROVEN_ERROR)


def test_the_margin_is_well_above_the_proven_error():
    assert 8 * PROVEN_ERROR <= MARGIN


def acceptance(stairs: Staircase, entry: int, x: int) -> Decimal:
    """a(x) in eighty digits (in the tail: without the factor of its superblock)."""
    factor = stairs.factor(entry)
    with decimal.localcontext(DIGITS):
        return Decimal(factor.numerator) / Decimal(factor.denominator) * decay(stairs.energy(x))


# --- exact decisions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("margin", [2.0, 2.0**-6, 2.0**-12])
@pytest.mark.parametrize(
    "stairs",
    [
        *(staircase.gaussian(v) for v in (Fraction(1, 4), Fraction(4), Fraction(10**7, 3), Fraction(2**60))),
        *(staircase.laplace(s) for s in (Fraction(1), Fraction(50), Fraction(2**50 + 1))),
    ],
    ids=lambda stairs: f"{stairs.power}-{float(stairs.unit):.3g}",
)
def test_exact_decisions_equal_the_fast_ones_bit_for_bit(stairs, margin):
    fast, slow = np.zeros(1500, np.int64), np.zeros(1500, np.int64)
    add_noise(stairs, fast, bits("both"))
    add_noise(stairs, slow, bits("both"), margin)
    assert np.array_equal(fast, slow)


def test_the_exact_way_alone_fits_the_distribution():
    drawn = np.zeros(20_000, np.int64)
    add_noise(staircase.gaussian(Fraction(10, 3)), drawn, bits("slow"), 2.0)
    assert p_value(drawn, law(2, Fraction(20, 3))) > 1e-3


@pytest.mark.parametrize("margin", [2.0, MARGIN])
def test_the_exact_way_is_taken_where_it_should_be(margin, monkeypatch):
    asked = []
    honest = Staircase.accepts
    monkeypatch.setattr(Staircase, "accepts", lambda *given: asked.append(given[1]) or honest(*given))
    add_noise(staircase.gaussian(Fraction(2**40)), np.zeros(2000, np.int64), bits("how often"), margin)
    assert len(asked) == 0 if margin == MARGIN else len(asked) >= 2000


@given(deviations=st.floats(-3, 3), known=st.sampled_from([23, 87]), variance=fractions.filter(lambda v: v > 10**4))
def test_a_chance_that_equals_the_probability_so_far_is_decided_by_further_bits(deviations, known, variance):
    stairs, x = staircase.gaussian(variance), int(deviations * float(variance) ** 0.5)
    with decimal.localcontext(DIGITS):
        chance = int(acceptance(stairs, 0, x) * 2**known)

    def decide(words: list[int]) -> tuple[bool, int]:
        left = list(words)
        return stairs.accepts(x, stairs.factor(0), chance, known, lambda: left.pop(0)), len(words) - len(left)

    assert decide([0, 0, 0]) == (True, 1)
    assert decide([2**64 - 1] * 3) == (False, 1)
    assert stairs.accepts(x, stairs.factor(0), chance - 1, known, list[int]().pop)
    assert not stairs.accepts(x, stairs.factor(0), chance + 1, known, list[int]().pop)


@pytest.mark.parametrize("place", [0, 77, 2**16 - 1])
@pytest.mark.parametrize("entry", [0, 1, 21, 60])
def test_at_the_usual_margin_doubt_is_resolved_by_bits_far_below_it(entry, place):
    """U agrees with a(x) in its first 60 bits: the kernel cannot know, and bit 67 decides."""
    stairs = staircase.gaussian(Fraction(2**40))
    y = ((entry >> 1) << stairs.shift) + place
    x = -1 - y if entry % 2 else y
    with decimal.localcontext(DIGITS):
        edge = int(acceptance(stairs, entry, x) * 2**87)
    assert edge >> 64 >= stairs.sure[entry]
    for chance, accepted in ((edge - 2**20, True), (edge + 2**20, False)):
        first = (chance >> 64 << 41) | entry  # half 0: the cell's own entry
        certain = [2, 0, 0]  # the first integer of block 1, at a chance of 0
        words = np.array([first, place, chance % 2**64, *certain], np.uint64)
        out = np.zeros(1, np.int64)
        add_noise(stairs, out, Tape(words))
        assert out[0] == (x if accepted else 1 << stairs.shift)


def coarse(power: int, unit: Fraction, shift: int) -> Staircase:
    """A staircase so short that a good share of draws comes from its tail."""
    return build(power, unit, shift, blocks=4)


@pytest.mark.parametrize(("power", "unit", "shift"), [(2, Fraction(2), 0), (2, Fraction(200), 2), (1, Fraction(11), 2)])
def test_the_tail_fits_too(power, unit, shift):
    drawn = np.zeros(20_000, np.int64)
    stairs = coarse(power, unit, shift)
    add_noise(stairs, drawn, bits("tail", str(unit)))
    assert (np.abs(drawn) > 3 << shift).sum() > 3
    assert p_value(drawn, law(power, unit)) > 1e-3


def test_the_tail_has_no_end():
    """Superblock 2 of a standard Gaussian starts at 15 standard deviations, which three words of luck accept."""
    stairs, third, zeros = coarse(2, Fraction(2), 0), 1 << 61, [0] * 15
    assert stairs.tail(6, iter([third, 0, *zeros]).__next__) == 15
    assert stairs.tail(7, iter([third, 0, *zeros]).__next__) == -16
    assert stairs.tail(6, iter([third, 15, *zeros]).__next__) == 30
    assert stairs.tail(6, iter([third, 0, 0, 1, *zeros]).__next__) is None
    assert stairs.tail(6, iter([0, third, 0, 0, 2**63, *zeros]).__next__) is None  # superblock 66, at 3e20


def test_a_value_beyond_the_ring_wraps_as_the_ring_does():
    assert noise._wrapped(2**63) == -(2**63)
    assert noise._wrapped(-(2**64) - 5) == -5


# --- randomness -------------------------------------------------------------------------------------------------------


def test_real_noise_is_read_from_the_operating_system(monkeypatch):
    read = []
    tape = np.random.default_rng(5)

    def urandom(n: int) -> bytes:
        read.append(n)
        return tape.bytes(n)

    monkeypatch.setattr(os, "urandom", urandom)
    drawn = discrete_gaussian(2**40, 50_000, SystemBits())
    assert 16 * 50_000 <= sum(read) < 17.5 * 50_000  # two words a try, few tries rejected
    assert max(read) <= 8 << 15
    words = np.frombuffer(np.random.default_rng(5).bytes(sum(read)), np.uint64)
    replayed = np.zeros(50_000, np.int64)
    add_noise(staircase.gaussian(Fraction(2**40)), replayed, Tape(words))
    assert np.array_equal(drawn, replayed)


class Tape:
    """Words written in advance."""

    simulated = True

    def __init__(self, words: np.ndarray) -> None:
        self.left = words

    def words(self, n: int) -> np.ndarray:
        found, self.left = self.left[:n], self.left[n:]
        return found


def test_no_two_reads_of_the_operating_system_are_alike():
    assert not np.array_equal(SystemBits().words(4), SystemBits().words(4))
    assert not np.array_equal(discrete_gaussian(2**40, 8, SystemBits()), discrete_gaussian(2**40, 8, SystemBits()))
    assert p_value(discrete_gaussian(4, 100_000, SystemBits()), law(2, Fraction(8))) > 1e-9  # once in a billion runs


def test_simulated_bits_say_so_and_depend_on_seed_and_purpose_alone():
    assert SimulatedBits(0).simulated
    assert not SystemBits().simulated
    whole, apart = SimulatedBits(3, "noise", 1), SimulatedBits(3, "noise", 1)
    assert np.array_equal(whole.words(10), np.concatenate([apart.words(3), apart.words(7)]))
    others = [SimulatedBits(4, "noise", 1), SimulatedBits(3, "noise", 2), SimulatedBits(3)]
    first = SimulatedBits(3, "noise", 1).words(4)
    assert not any(np.array_equal(first, other.words(4)) for other in others)


# --- the interface ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("variance", [0, -1, Fraction(1, 5), LARGEST_VARIANCE + 1])
def test_variances_out_of_range_are_refused(variance):
    with pytest.raises(PlanError, match=r"noise variance must be from 1/4 to 2\^116"):
        discrete_gaussian(variance, 1, bits())


@pytest.mark.parametrize("scale", [0, -3, Fraction(1, 5), LARGEST_SCALE + 1])
def test_scales_out_of_range_are_refused(scale):
    with pytest.raises(PlanError, match=r"noise scale must be from 1/4 to 2\^55"):
        discrete_laplace(scale, 1, bits())


def test_the_largest_parameters_stay_within_sixty_two_bits():
    """ln P(|x| > 2^62) <= ln 2 - energy(2^62), which must be below -100 ln 2."""
    nats = 101 * np.log(2)
    assert nats < 2.0**124 / (2 * LARGEST_VARIANCE)
    assert nats < 2.0**62 / LARGEST_SCALE


@pytest.mark.parametrize("draw", [discrete_gaussian, discrete_laplace])
def test_a_float_is_refused_because_it_is_not_the_number_that_was_meant(draw):
    with pytest.raises(TypeError, match=r"say Fraction\(value\)"):
        draw(0.3, 1, bits())


def test_numpy_integers_are_exact_too():
    variance = np.int64(2**62)  # twice that would overflow
    assert np.array_equal(discrete_gaussian(variance, 5, bits("np")), discrete_gaussian(2**62, 5, bits("np")))


@given(size=st.integers(0, 300), seed=st.integers(0, 2**32))
def test_noise_is_added_in_place_modulo_two_to_the_sixty_four(size, seed):
    start = np.random.default_rng(seed).integers(-(2**63), 2**63, size=(size, 2), dtype=np.int64)
    out = start.copy()
    add_discrete_gaussian(out, 2**100, SimulatedBits(seed))
    drawn = discrete_gaussian(2**100, 2 * size, SimulatedBits(seed)).reshape(size, 2)
    assert np.array_equal(out, start + drawn)


def test_arrays_that_could_not_be_written_in_place_are_refused():
    for out in (np.zeros((4, 4), np.int64)[:, 1], np.zeros(4, np.int32), np.zeros(4)):
        with pytest.raises(TypeError, match="int64 arrays in C order"):
            add_discrete_gaussian(out, 4, bits())


def test_no_draw_is_no_work(monkeypatch):
    monkeypatch.setattr(os, "urandom", None)
    assert discrete_gaussian(4, 0, SystemBits()).shape == (0,)


# --- low bits ---------------------------------------------------------------------------------------------------------

UNIT = 2**20  # ring units that stand for 1


def off_grid(released: np.ndarray) -> float:
    """Share of all outputs that are below 1/4 in size and no multiple of 2^-53."""
    return float(((np.abs(released) < 0.25) & (released * 2.0**53 % 1 != 0)).mean())


@pytest.mark.parametrize("draw", ["laplace", "normal"])
def test_the_low_bits_of_float_noise_tell_the_secret(draw):
    rng = np.random.default_rng(0)
    zero, one = (off_grid(secret + getattr(rng, draw)(size=300_000)) for secret in (0.0, 1.0))
    assert zero == pytest.approx(0.186 if draw == "laplace" else 0.165, abs=0.003)
    assert one == 0.0


@pytest.mark.parametrize(("draw", "parameter"), [(discrete_laplace, UNIT), (discrete_gaussian, UNIT**2)])
def test_the_low_bits_of_released_integers_tell_nothing(draw, parameter):
    released = [secret * UNIT + draw(parameter, 400_000, bits("secret", secret)) for secret in (0, 1)]
    assert [off_grid(one / UNIT) for one in released] == [0.0, 0.0]
    near = [one[np.abs(one) < UNIT // 4] for one in released]
    for low in (0xFF, 0x3):
        table = [np.bincount(one & low, minlength=low + 1) for one in near]
        assert stats.chi2_contingency(table).pvalue > 1e-3
    trailing = [np.bincount([int(x & -x).bit_length() for x in one[:20_000]], minlength=22)[1:9] for one in near]
    assert stats.chi2_contingency(trailing).pvalue > 1e-3
