"""Exact discrete noise: draws a second on one core, beside the usual exact sampler written in numpy.

Both read the operating system's generator and draw from the same distribution without any rounding. The other one is
the algorithm of Canonne, Kamath and Steinke 2020 (a discrete Laplace from uniform integers and Bernoulli(exp(-p / q))
trials in integer arithmetic, thinned to a Gaussian), vectorised over candidates. Its 64-bit integers hold variances up
to about 2^27. A line without a figure beside it is out of its range. Times are processor time of one thread, the
system's share included, so that they say the same on a busy machine; "seeded" draws from the reproducible stream of
simulations.
"""

from __future__ import annotations

import math
import os
import statistics
import time
from collections.abc import Callable
from fractions import Fraction
from functools import partial

import numpy as np

from coterie.privacy.noise import SimulatedBits, SystemBits, discrete_gaussian, discrete_laplace

DRAWS = 1_000_000
REPEATS = 5
VARIANCES: dict[str, int | Fraction] = {
    "1/4": Fraction(1, 4),
    "1": 1,
    "4": 4,
    "100": 100,
    "10^6": 10**6,
    "2^36": 2**36,
    "2^48": 2**48,
    "2^60": 2**60,
    "2^90": 2**90,
}


def speed(draw: Callable[..., object], size: int = DRAWS) -> float:
    """Million draws a second of processor time: the median of some repeats, after one that is not counted."""
    draw(size=size)
    seconds = []
    for _ in range(REPEATS):
        started = time.process_time()
        draw(size=size)
        seconds.append(time.process_time() - started)
    return size / statistics.median(seconds) / 1e6


def main() -> None:
    """Print the table."""
    print(f"million draws a second of processor time, {DRAWS:,} draws (the numpy loop: a tenth), median of {REPEATS}")
    print(f"{'discrete Gaussian':<20}{'ours':>8}{'seeded':>8}{'numpy':>8}{'ratio':>8}")
    for name, variance in VARIANCES.items():
        ours = speed(partial(discrete_gaussian, variance, bits=SystemBits()))
        seeded = speed(partial(discrete_gaussian, variance, bits=SimulatedBits(0)))
        line = f"variance {name:<11}{ours:8.1f}{seeded:8.1f}"
        if isinstance(variance, int) and variance <= 2**27:
            theirs = speed(partial(numpy_gaussian, variance), DRAWS // 10)
            line += f"{theirs:8.2f}{ours / theirs:8.0f}"
        print(line, flush=True)
    print("discrete Laplace")
    for name, scale in {"1": 1, "50": 50, "2^20": 2**20, "2^50": 2**50}.items():
        ours = speed(partial(discrete_laplace, scale, bits=SystemBits()))
        seeded = speed(partial(discrete_laplace, scale, bits=SimulatedBits(0)))
        line = f"scale {name:<14}{ours:8.1f}{seeded:8.1f}"
        if scale <= 2**27:
            theirs = speed(partial(numpy_laplace, scale), DRAWS // 10)
            line += f"{theirs:8.2f}{ours / theirs:8.0f}"
        print(line, flush=True)
    random = speed(lambda size: SystemBits().words(size))
    print(f"the operating system's generator alone: {random:.0f} million words a second; two words are a draw")


# --- the algorithm of Canonne, Kamath and Steinke ---------------------------------------------------------------------


def numpy_gaussian(variance: int, size: int) -> np.ndarray:
    """Discrete Laplace of scale t = floor(sigma) + 1, kept with exp(-(|y| - variance / t)^2 / (2 variance))."""
    t, kept, found = math.isqrt(variance) + 1, [], 0
    while found < size:
        y = numpy_laplace(t, int((size - found) * 1.5) + 64)
        distance = (np.abs(y) * t - variance).astype(np.int64)
        coins = bernoulli_exp((distance * distance).astype(np.uint64), np.uint64(2 * variance * t * t))
        kept.append(y[coins])
        found += int(coins.sum())
    return np.concatenate(kept)[:size]


def numpy_laplace(scale: int, size: int) -> np.ndarray:
    """The sum u + scale v with u < scale, kept with exp(-u / scale), v geometric of exp(-1); a sign, but no minus 0."""
    kept, found = [], 0
    whole, one = np.uint64(scale), np.uint64(1)
    while found < size:
        tried = int((size - found) * 2) + 64
        u = below(np.full(tried, whole))
        u = u[bernoulli_small(u, whole)]
        v, left = np.zeros(len(u), np.uint64), np.arange(len(u))
        while len(left):
            left = left[bernoulli_small(np.ones(len(left), np.uint64), one)]
            v[left] += one
        y, minus = (u + whole * v).astype(np.int64), below(np.full(len(u), np.uint64(2))) == 1
        y = np.where(minus, -y, y)[~(minus & (y == 0))]
        kept.append(y)
        found += len(y)
    return np.concatenate(kept)[:size]


def bernoulli_exp(p: np.ndarray, q: np.uint64) -> np.ndarray:
    """Whether each of independent events of probability exp(-p / q) happens."""
    happens, times = np.ones(len(p), bool), p // q
    for done in range(int(times.max())):
        asked = np.flatnonzero(happens & (times > done))
        happens[asked] = bernoulli_small(np.ones(len(asked), np.uint64), np.uint64(1))
    asked = np.flatnonzero(happens)
    happens[asked] = bernoulli_small(p[asked] % q, q)
    return happens


def bernoulli_small(p: np.ndarray, q: np.uint64) -> np.ndarray:
    """The same for p <= q: how many coins of p / (k q), k = 1, 2, ... fall in a row is even with that probability."""
    even, left, k = np.ones(len(p), bool), np.arange(len(p)), 1
    while len(left):
        left = left[below(np.full(len(left), q * np.uint64(k))) < p[left]]
        even[left] = ~even[left]
        k += 1
    return even


def below(limits: np.ndarray) -> np.ndarray:
    """Uniform integers below `limits`, by throwing away what would favour some of them."""
    drawn, left = np.empty(len(limits), np.uint64), np.arange(len(limits))
    while len(left):
        limit = limits[left]
        words = np.frombuffer(os.urandom(8 * len(left)), np.uint64)
        fair = words >= (np.uint64(0) - limit) % limit
        drawn[left[fair]] = words[fair] % limit[fair]
        left = left[~fair]
    return drawn


if __name__ == "__main__":
    main()
