"""Staircases: proposals for discrete noise whose probabilities are known exactly, and the exact decision on each.

A discrete Gaussian or Laplace gives the integer x a probability proportional to f(x) = exp(-energy(x)), with energy
x^2 / (2 variance) or |x| / scale. It is drawn by rejection from a staircase above f:

    propose   block b of a sign with probability weight / total: it holds the integers x whose y is one of
              b B .. (b + 1) B - 1, where B = 2^shift, and x = y or, for the negative sign, x = -1 - y; one of these B
              uniformly: every integer has exactly one way to arise
    accept    with probability a(x) = height f(x) / weight

so that x comes out of a try with probability height f(x) / (B total): proportional to f, whatever the integers `height`
and `weight` are, as long as no a(x) passes 1. The weights are rounded upwards so that none does.

The last block of each sign is the tail: from (blocks - 1) B on, superblock j = 0, 1, 2, ... of blocks B 2^j integers is
proposed with probability 2^-(j + 1), and a(x) = height blocks 2^(2j + 1) f(x) / weight. Nothing is cut off. That a(x)
stays below 1 follows from superblock 0, for which the weight was made: from one superblock to the next 4^j grows by a
factor of 4, while f at its near end falls by more, because energy is convex and grows by more than 2 ln 2 from the
first to the second.

All arithmetic here is in integers and fractions; exponentials are enclosed between integers. The tables of floats are
for `coterie.privacy.noise_kernels`, which decides by them only where they leave no doubt.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import isqrt

import numpy as np

from coterie.types import Floats, Integers

BLOCKS = 256  # of each sign, the tail included; a power of two
WEIGHT_BITS = 32  # weights sum to 2 BLOCKS 2^32: one word of random bits chooses a cell (9 bits) and its half (32) ...
CHANCE_BITS = 23  # ... and its other bits are the first of the chance that is compared with a(x)
TABLE_BITS = 128  # fixed-point precision of the exponentials behind the tables
DECAYS = 64  # exp(-0) .. exp(-63)


@dataclass(frozen=True, eq=False)
class Staircase:
    """Exact proposals for f(x) = exp(-|x|^power / unit), and tables for the kernel.

    Block b is entry 2 b of the tables, and entry 2 b + 1 for the negative sign. `threshold` and `alias` are the alias
    table of `weight`: cell c means entry c where a uniform integer below 2^32 is less than ``threshold[c]``, else
    ``alias[c]``. `sure` is a rigorous lower bound of 2^23 a(x) over the block, `top` (float64) height f / weight at its
    near end, `near` (int64) where that is. All have 2 blocks entries.
    """

    power: int
    unit: Fraction
    shift: int
    height: int
    weight: tuple[int, ...]
    threshold: Integers
    alias: Integers
    sure: Integers
    top: Floats
    near: Integers

    @property
    def blocks(self) -> int:
        return len(self.weight) // 2

    def energy(self, x: int) -> Fraction:
        """-ln f(x), exactly."""
        return Fraction(abs(x) ** self.power) / self.unit

    def accepts(self, x: int, factor: Fraction, chance: int, known: int, word: Callable[[], int]) -> bool:
        """Whether U < factor f(x), for a uniform U in [0, 1) whose first `known` bits are `chance`.

        Decided in integers alone; `word` supplies the next 64 bits of U as often as they matter.
        """
        energy = self.energy(x)
        while True:
            low, high = decay_bounds(energy, known + 64)
            if (chance + 1 << 64) * factor.denominator <= factor.numerator * low:
                return True
            if (chance << 64) * factor.denominator >= factor.numerator * high:
                return False
            chance, known = chance << 64 | word(), known + 64

    def factor(self, entry: int) -> Fraction:
        """a(x) / f(x) in a block."""
        return Fraction(self.height, self.weight[entry])

    def tail(self, entry: int, word: Callable[[], int]) -> int | None:
        """One proposal from the tail of a sign, accepted (an integer of any size) or not (None)."""
        superblock = _leading_zeros(word)
        width = self.blocks << superblock + self.shift
        y = width - (1 << self.shift) + _below_power(width.bit_length() - 1, word)
        factor = self.factor(entry) * (self.blocks << 2 * superblock + 1)
        x = -1 - y if entry % 2 else y
        return x if self.accepts(x, factor, 0, 0, word) else None


@lru_cache(maxsize=128)
def gaussian(variance: Fraction) -> Staircase:
    """The staircase of the discrete Gaussian: between 16 and 32 blocks per standard deviation from 16 on."""
    return build(2, 2 * variance, max(isqrt(int(variance)).bit_length() - 5, 0))


@lru_cache(maxsize=128)
def laplace(scale: Fraction) -> Staircase:
    """The staircase of the discrete Laplace: between 4 and 8 blocks per scale from 4 on."""
    return build(1, scale, max(int(scale).bit_length() - 3, 0))


def build(power: int, unit: Fraction, shift: int, blocks: int = BLOCKS) -> Staircase:
    """A staircase of ``blocks - 1`` blocks of 2^shift integers for each sign, and their tails.

    The caller sees to it that energy grows by more than 2 ln 2 between the near ends of the first two superblocks.
    """
    # A block of one integer has its exact size for both ends; others are bounded from b B to (b + 1) B for either sign.
    near = [(b << shift) + (sign if shift == 0 else 0) for b in range(blocks) for sign in (0, 1)]
    far = [size + (1 << shift if shift else 0) for size in near]
    bounds = {size: decay_bounds(Fraction(size**power) / unit, TABLE_BITS) for size in {*near, *far}}
    needed = [bounds[size][1] for size in near]
    needed[-2:] = [bounds[blocks - 1 << shift][1] * 2 * blocks] * 2
    # Each weight is rounded up by less than 1, so that together they stay within the total; block 0 takes what is left.
    total = 2 * blocks << WEIGHT_BITS
    height = (total - 2 * blocks << TABLE_BITS) // sum(needed)
    weight = [_up(height * one, 1 << TABLE_BITS) for one in needed]
    weight[0] += total - sum(weight)
    threshold, alias = alias_table(weight, 1 << WEIGHT_BITS)
    least = [Fraction(height * bounds[size][0], one << TABLE_BITS) for size, one in zip(far, weight, strict=True)]
    most = [Fraction(height * bounds[size][0], one << TABLE_BITS) for size, one in zip(near, weight, strict=True)]
    return Staircase(
        power,
        unit,
        shift,
        height,
        tuple(weight),
        threshold=np.array(threshold, np.int64),
        alias=np.array(alias, np.int64),
        sure=np.array([int(one * (1 << CHANCE_BITS)) for one in least], np.int64),
        top=np.array([float(one) for one in most]),
        near=np.array(near, np.int64),
    )


def alias_table(weight: list[int], capacity: int) -> tuple[list[int], list[int]]:
    """Walker's alias table of integer weights that sum to ``len(weight) * capacity``, without any rounding.

    Block b is chosen by ``threshold[b]`` of the `capacity` values of cell b, and by ``capacity - threshold[c]`` of
    those of every cell c with ``alias[c] == b``: by `weight[b]` in all (Vose 1991).
    """
    left = list(weight)
    threshold, alias = [capacity] * len(left), list(range(len(left)))
    small = [b for b, one in enumerate(left) if one < capacity]
    large = [b for b, one in enumerate(left) if one >= capacity]
    while small:
        one, other = small.pop(), large.pop()
        threshold[one], alias[one] = left[one], other
        left[other] -= capacity - left[one]
        (small if left[other] < capacity else large).append(other)
    return threshold, alias


def decay_bounds(energy: Fraction, bits: int) -> tuple[int, int]:
    """Integers with low / 2^bits <= exp(-energy) <= high / 2^bits, at most 2 apart; energy >= 0.

    exp(t) with t = energy / 2^halvings < 2^-8 by its series, whose terms are all positive, so that rounding each down
    (up) bounds it from below (above); the reciprocal is then squared `halvings` times. A squaring at most doubles the
    distance of the bounds (they are at most 1), which the guard bits take up.
    """
    halvings = int(energy).bit_length() + 8
    guarded = bits + halvings + 16
    one = 1 << guarded
    t = (energy.numerator << guarded) // (energy.denominator << halvings)
    low, high = one * one // _growth_above(t + 1, guarded), _up(one * one, _growth_below(t, guarded))
    for _ in range(halvings):
        low, high = low * low >> guarded, _up(high * high, one)
    return low >> halvings + 16, _up(high, 1 << halvings + 16)


@lru_cache(maxsize=1)
def decays() -> Floats:
    """exp(-j) for j = 0 .. 63, each within 2^-53."""
    return np.array([float(Fraction(decay_bounds(Fraction(j), TABLE_BITS)[0], 1 << TABLE_BITS)) for j in range(DECAYS)])


def _growth_below(t: int, bits: int) -> int:
    """At most 2^bits exp(t / 2^bits): a partial sum of terms rounded down."""
    total = term = 1 << bits
    k = 1
    while term:
        term = term * t // (k << bits)
        total += term
        k += 1
    return total


def _growth_above(t: int, bits: int) -> int:
    """At least 2^bits exp(t / 2^bits), t < 2^(bits - 7): terms rounded up until one is 1, plus 1 for all that follow.

    Each further term is less than 1/128 of the one before it, so that together they are less than 1.
    """
    total = term = 1 << bits
    k = 1
    while term > 1:
        term = _up(term * t, k << bits)
        total += term
        k += 1
    return total + 1


def _up(numerator: int, denominator: int) -> int:
    """The quotient, rounded upwards."""
    return -(-numerator // denominator)


def _leading_zeros(word: Callable[[], int]) -> int:
    """How many fair coins fall on zero before the first one: j with probability 2^-(j + 1)."""
    zeros = 0
    while not (bits := word()):
        zeros += 64
    return zeros + 64 - bits.bit_length()


def _below_power(bits: int, word: Callable[[], int]) -> int:
    """A uniform integer below 2^bits."""
    value = 0
    for _ in range(_up(bits, 64)):
        value = value << 64 | word()
    return value & (1 << bits) - 1
