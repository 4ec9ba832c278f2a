"""Integers modulo 2^b: where contributions are summed.

A sum in the ring does not depend on order, threads, blocks or partition, which no floating-point sum can promise. Ring
elements are kept as int64 (two's complement; additions wrap, as they should); `check_capacity` refuses in advance any
round whose true sum could leave the range, so a decoded sum is always the true one.
"""

from __future__ import annotations

import math

import numpy as np

from coterie.errors import PlanError
from coterie.types import Integers, PartSpec, RoundSpec

RING_BITS = (32, 64)


class Accumulator:
    """A running sum of contributions: one flat int64 array per part, written in place by the kernels.

    The parts lie one after the other in `flat`, which is what travels.
    """

    def __init__(self, spec: RoundSpec, flat: Integers | None = None) -> None:
        self.spec = spec
        ends = np.cumsum([0, *(part.size for part in spec.parts)]).tolist()
        self.flat: Integers = np.zeros(ends[-1], np.int64) if flat is None else flat
        self.parts: dict[str, Integers] = {
            part.name: self.flat[start:end] for part, start, end in zip(spec.parts, ends[:-1], ends[1:], strict=True)
        }

    def __getitem__(self, name: str) -> Integers:
        return self.parts[name]

    def merge(self, other: Accumulator) -> None:
        """Add another accumulator of the same round; wraps modulo 2^64."""
        for name, values in self.parts.items():
            np.add(values, other.parts[name], out=values)


def check_capacity(part: PartSpec, users: int, ring_bits: int, noise: float = 0.0) -> None:
    """Refuse a part whose sum over `users` users could overflow a ring of `ring_bits` bits.

    The largest possible entry is ``users * linf * scale`` plus `noise`, the tails of noise in ring units; a signed ring
    holds values below ``2^(ring_bits - 1)``.

    Raises:
        PlanError: the bound is not finite or does not fit.

    >>> check_capacity(PartSpec("n", (3,), "dense", 1.0, 1.0, 1), users=1000, ring_bits=32)
    """
    if not math.isfinite(part.linf):
        raise PlanError(f"part '{part.name}' has no bound per entry (linf = {part.linf}); set a clip norm")
    largest = users * part.linf * part.scale + noise
    if largest >= 2.0 ** (ring_bits - 1):
        raise PlanError(
            f"part '{part.name}' can reach {largest:.3g} ring units over {users} users, more than a {ring_bits}-bit "
            f"ring holds; use ring_bits = 64, a smaller clip norm or a smaller scale"
        )


def decode(values: Integers, ring_bits: int) -> Integers:
    """Read ring elements as signed integers: the representative in [-2^(b-1), 2^(b-1)).

    >>> decode(np.array([2**32 - 1, 5]), 32).tolist()
    [-1, 5]
    """
    if ring_bits == 64:
        return values
    half = np.int64(1) << np.int64(ring_bits - 1)
    mask = (np.int64(1) << np.int64(ring_bits)) - np.int64(1)
    return ((values + half) & mask) - half
