"""Shamir's secret sharing (1979) over the prime field of 2^61 - 1, for secrets of 32 bytes.

A secret is eight words of 32 bits, each the value at 0 of a random polynomial of degree t - 1 of its own; a share is
the eight polynomials at one point. Any t shares give the secret, and t - 1 are independent of it.
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping, Sequence

import numpy as np

from coterie.errors import ProtocolViolation, SecureAggregationError
from coterie.secure.kernels import PRIME, evaluate, lagrange_at_zero, weighted_sums
from coterie.types import Array

SECRET_BYTES = 32
LIMBS = 8
SHARE_BYTES = 8 * LIMBS


def share(secret: bytes | bytearray, threshold: int, points: Sequence[int]) -> dict[int, bytes]:
    """One share of `SHARE_BYTES` for each point (distinct, positive, below 2^61 - 1), any `threshold` of which suffice.

    Coefficients come from the operating system and are overwritten before this returns.

    >>> shares = share(bytes(range(32)), 2, [1, 5, 9])
    >>> recover([{1: shares[1], 9: shares[9]}], 2)[0] == bytes(range(32))
    True
    """
    if not 1 <= threshold <= len(points) or len(set(points)) < len(points) or min(points) < 1 or max(points) >= PRIME:
        raise ValueError(f"cannot share at {len(points)} points with threshold {threshold}")
    coefficients = np.empty((threshold, LIMBS), np.uint64)
    coefficients[0] = np.frombuffer(secret, "<u4", LIMBS)
    coefficients[1:] = _random_elements(threshold - 1)
    values = evaluate(coefficients, np.array(points, np.uint64)).astype("<u8")
    coefficients[:] = 0
    return {point: values[row].tobytes() for row, point in enumerate(points)}


def recover(holdings: Sequence[Mapping[int, bytes]], threshold: int) -> list[bytearray]:
    """The secrets whose shares are `holdings`: for each secret, point -> share; the `threshold` lowest points are used.

    Weights are computed once for each distinct set of points, and all sets and secrets go through one batch.

    Raises:
        SecureAggregationError: a secret has fewer than `threshold` shares.
        ProtocolViolation: a point is zero, or shares are not those of one secret of 32 bytes.
    """
    if not holdings:
        return []
    chosen = [_lowest_points(held, threshold) for held in holdings]
    sets = {points: row for row, points in enumerate(dict.fromkeys(chosen))}
    row = np.array([sets[points] for points in chosen], np.int64)
    pairs = zip(holdings, chosen, strict=True)
    values = np.frombuffer(b"".join(held[point] for held, points in pairs for point in points), "<u8")
    if (values >= PRIME).any():
        raise ProtocolViolation("a Shamir share is outside its field: some party altered it")
    weights = lagrange_at_zero(np.array(list(sets), np.uint64))
    limbs = weighted_sums(weights, row, values.astype(np.uint64).reshape(len(holdings), threshold, LIMBS))
    if (limbs >> np.uint64(32)).any():
        raise ProtocolViolation("Shamir shares do not belong to one secret: some party altered one")
    return [bytearray(secret.tobytes()) for secret in limbs.astype("<u4")]


def _lowest_points(held: Mapping[int, bytes], threshold: int) -> tuple[int, ...]:
    if len(held) < threshold:
        raise SecureAggregationError(f"a secret has {len(held)} of the {threshold} shares that rebuild it")
    points = tuple(sorted(held)[:threshold])
    if points[0] < 1 or points[-1] >= PRIME:
        raise ProtocolViolation(f"a Shamir share at point {points[0]} would be the secret itself or none")
    if any(len(held[point]) != SHARE_BYTES for point in points):
        raise ProtocolViolation(f"a Shamir share is not {SHARE_BYTES} bytes long")
    return points


def _random_elements(rows: int) -> Array:
    """Uniform field elements: uint64 [rows, LIMBS]; 2^61 - 1 itself, which is no element, is drawn again."""
    drawn = np.frombuffer(bytearray(secrets.token_bytes(rows * SHARE_BYTES)), np.uint64) & np.uint64(PRIME)
    while (none := drawn == PRIME).any():
        drawn[none] = np.frombuffer(secrets.token_bytes(8 * int(none.sum())), np.uint64) & np.uint64(PRIME)
    return drawn.reshape(rows, LIMBS)
