"""Exact discrete noise from random bits: discrete Gaussian and discrete Laplace, in ring units.

Exact means: if the bits are uniform and independent, each integer is drawn with precisely the probability of its
definition; there is no floating-point bias and no cut tail, so that nothing of the noiseless value survives in the low
bits. `coterie.privacy.staircase` says how and proves it.

Real runs draw from `SystemBits`, the operating system's generator. `SimulatedBits` are reproducible and not secret:
noise from them protects nobody.
"""

from __future__ import annotations

import os
from fractions import Fraction
from numbers import Rational
from typing import ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from coterie.errors import PlanError
from coterie.privacy.noise_kernels import LATE, MARGIN, SPENT, TAIL, add_draws
from coterie.privacy.staircase import CHANCE_BITS, Staircase, decays, gaussian, laplace
from coterie.rng import stream
from coterie.types import Array, Integers

SMALLEST = Fraction(1, 4)
# P(|x| > 2^62) <= 2 exp(-2^124 / (2 variance)), and <= 2 exp(-2^62 / scale): below 2^-100 up to these.
LARGEST_VARIANCE = 2**116
LARGEST_SCALE = 2**55

_BLOCK = 1 << 15  # words that are asked for at once: 256 kB stay in the cache


class Bits(Protocol):
    """A source of random 64-bit words."""

    @property
    def simulated(self) -> bool:
        """Whether anybody who knows a seed knows the words: such noise is never fit for release."""

    def words(self, n: int) -> NDArray[np.uint64]:
        """`n` independent, uniformly random words."""


class SystemBits:
    """The operating system's cryptographic generator (`os.urandom`); nothing is kept between calls or across a fork."""

    simulated: ClassVar[bool] = False

    def words(self, n: int) -> NDArray[np.uint64]:
        return np.frombuffer(os.urandom(8 * n), np.uint64)


class SimulatedBits:
    """The named stream (`seed`, "noise", *`purpose`) of `coterie.rng`: for simulations and tests.

    The words do not depend on the sizes in which they are asked for.
    """

    simulated: ClassVar[bool] = True

    def __init__(self, seed: int, *purpose: str | int) -> None:
        self._raw = stream(seed, "noise", *purpose).bit_generator

    def words(self, n: int) -> NDArray[np.uint64]:
        found: NDArray[np.uint64] = self._raw.random_raw(n)
        return found


def discrete_gaussian(variance: int | Fraction, size: int, bits: Bits) -> Integers:
    """`size` independent draws of N_Z(0, variance): int64, ``P(x) ~ exp(-x^2 / (2 variance))`` over all integers.

    Canonne, Kamath, Steinke 2020, definition 1. The parameter is called the variance as there: from 1 on that is what
    the draws have (to 1e-7, and soon to more digits than a float holds); below, theirs is a little smaller.

    Args:
        variance: in squared ring units, from 1/4 to 2^116.
        size: how many.
        bits: where randomness comes from.

    Raises:
        PlanError: a variance out of range.
        TypeError: a float: it is not clear which number was meant; say ``Fraction(value)``.

    >>> discrete_gaussian(10**12, 3, SimulatedBits(0, "example")).dtype
    dtype('int64')
    """
    out = np.zeros(size, np.int64)
    add_discrete_gaussian(out, variance, bits)
    return out


def add_discrete_gaussian(out: Integers, variance: int | Fraction, bits: Bits) -> None:
    """Add independent draws of N_Z(0, variance) to `out` in place (int64 of any shape, C order), modulo 2^64.

    No array of noise is made. Arguments and errors are those of `discrete_gaussian`.
    """
    exact = _checked("noise variance", variance, LARGEST_VARIANCE)
    add_noise(gaussian(exact), out, bits)


def discrete_laplace(scale: int | Fraction, size: int, bits: Bits) -> Integers:
    """`size` independent draws of the discrete Laplace distribution: int64, ``P(x) ~ exp(-|x| / scale)``.

    Adding one to an integer of sensitivity D is D / scale-differentially private (Ghosh, Roughgarden, Sundararajan
    2009).

    Args:
        scale: in ring units, from 1/4 to 2^55.
        size: how many.
        bits: where randomness comes from.

    Raises:
        PlanError: a scale out of range.
        TypeError: a float; say ``Fraction(value)``.
    """
    out = np.zeros(size, np.int64)
    add_noise(laplace(_checked("noise scale", scale, LARGEST_SCALE)), out, bits)
    return out


def add_noise(stairs: Staircase, out: Integers, bits: Bits, margin: float = MARGIN) -> None:
    """Add draws by `stairs` to `out` in place, modulo 2^64.

    `margin` (at least `coterie.privacy.noise_kernels.MARGIN`) is how near the bits may come to a probability before
    exact arithmetic decides. It changes the time that is taken and nothing else: tests widen it to 2, which leaves
    every decision to exact arithmetic, and compare.
    """
    if out.dtype != np.int64 or not out.flags.c_contiguous:
        raise TypeError(f"noise is added to int64 arrays in C order, got {out.dtype} with strides {out.strides}")
    flat, words, filled = out.reshape(-1), _Words(bits), 0
    tables = (stairs.shift, stairs.threshold, stairs.alias, stairs.sure, stairs.top, stairs.near)
    law = (decays(), float(1 / stairs.unit), stairs.power == 2)
    while filled < len(flat):
        words.ready(3, 2 * (len(flat) - filled) + 16)
        filled, words.at, stopped, *tried = add_draws(flat, filled, words.buffer, words.at, *tables, *law, margin)
        if stopped != SPENT and (drawn := _decided(stairs, stopped, tried, words)) is not None:
            flat[filled : filled + 1] += np.array(_wrapped(drawn), np.int64)
            filled += 1


def _decided(stairs: Staircase, stopped: int, tried: list[int], words: _Words) -> int | None:
    """What a try that the kernel left open comes to: an integer, or None where it is rejected."""
    entry, x, chance, third = (int(one) for one in tried)
    if stopped == TAIL:
        return stairs.tail(entry, words.next)
    known = CHANCE_BITS
    if stopped == LATE:
        chance, known = chance << 64 | third, known + 64
    return x if stairs.accepts(x, stairs.factor(entry), chance, known, words.next) else None


class _Words:
    """Words from `bits`, fetched in blocks. What is left when more are needed at once is thrown away unread."""

    def __init__(self, bits: Bits) -> None:
        self._bits = bits
        self.buffer: Array = np.zeros(0, np.uint64)
        self.at = 0

    def ready(self, least: int, wished: int) -> None:
        """Have at least `least` words in the buffer from `at` on."""
        if self.at + least > len(self.buffer):
            self.buffer = self._bits.words(max(min(wished, _BLOCK), least)).view()
            self.buffer.flags.writeable = False  # as those of the operating system: one kernel for both
            self.at = 0

    def next(self) -> int:
        self.ready(1, 16)
        self.at += 1
        return int(self.buffer[self.at - 1])


def _wrapped(value: int) -> int:
    """The representative modulo 2^64 that int64 holds: the value itself, unless it is as rare as 2^-100."""
    return (value + 2**63) % 2**64 - 2**63


def _checked(name: str, value: int | Fraction, largest: int) -> Fraction:
    if not isinstance(value, Rational):
        raise TypeError(f"{name} must be an int or a Fraction, which are exact, got {value!r}; say Fraction(value)")
    exact = Fraction(int(value.numerator), int(value.denominator))
    if not SMALLEST <= exact <= largest:
        raise PlanError(
            f"{name} must be from {SMALLEST} to 2^{largest.bit_length() - 1} (in ring units, or their squares), got "
            f"{float(exact):.6g}; change the ring's scale or the noise multiplier"
        )
    return exact
