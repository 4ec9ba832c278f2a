"""Shares rebuild secrets, kernels equal plain Python arithmetic, and what is not a set of honest shares is refused."""

from __future__ import annotations

import contextlib
import secrets
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.errors import ProtocolViolation, SecureAggregationError
from coterie.secure import field
from coterie.secure.field import SHARE_BYTES, recover, share
from coterie.secure.kernels import PRIME, evaluate, lagrange_at_zero, weighted_sums

elements = st.one_of(st.integers(0, PRIME - 1), st.sampled_from([0, 1, 2**31 - 1, 2**31, 2**60, PRIME - 2, PRIME - 1]))


@st.composite
def sharings(draw: st.DrawFn) -> tuple[bytes, int, list[int], list[int]]:
    """A secret, a threshold, the points of its shares, and those that come back."""
    points = draw(st.lists(st.integers(1, 2000), min_size=1, max_size=12, unique=True))
    threshold = draw(st.integers(1, len(points)))
    back = draw(st.permutations(points))[: draw(st.integers(threshold, len(points)))]
    return draw(st.binary(min_size=32, max_size=32)), threshold, points, back


@given(sharings())
def test_any_threshold_of_shares_gives_the_secret(sharing: tuple[bytes, int, list[int], list[int]]) -> None:
    secret, threshold, points, back = sharing
    shares = share(secret, threshold, points)
    assert sorted(shares) == sorted(points)
    assert recover([{point: shares[point] for point in back}], threshold) == [bytearray(secret)]


@given(coefficients=st.lists(elements, min_size=1, max_size=6), point=elements)
def test_polynomials_are_evaluated_as_in_plain_arithmetic(coefficients: list[int], point: int) -> None:
    got = evaluate(np.array(coefficients, np.uint64)[:, None], np.array([point], np.uint64))
    assert int(got[0, 0]) == sum(c * pow(point, k, PRIME) for k, c in enumerate(coefficients)) % PRIME


@given(points=st.lists(st.integers(1, PRIME - 1), min_size=1, max_size=6, unique=True))
def test_weights_are_lagranges_at_zero(points: list[int]) -> None:
    got = lagrange_at_zero(np.array([points], np.uint64))[0]
    for i, own in enumerate(points):
        above = below = 1
        for other in points[:i] + points[i + 1 :]:
            above, below = above * other % PRIME, below * (other - own) % PRIME
        assert int(got[i]) == above * pow(below, -1, PRIME) % PRIME


@given(rows=st.lists(st.tuples(elements, elements), min_size=1, max_size=8))
def test_weighted_sums_are_those_of_plain_arithmetic(rows: list[tuple[int, int]]) -> None:
    weights, values = (np.array(column, np.uint64) for column in zip(*rows, strict=True))
    got = weighted_sums(weights[None], np.zeros(1, np.int64), values[None, :, None])
    assert int(got[0, 0]) == sum(w * v for w, v in rows) % PRIME


def test_many_secrets_are_rebuilt_in_one_batch_with_weights_once_for_each_set_of_points() -> None:
    originals = [secrets.token_bytes(32) for _ in range(6)]
    held = []
    for at, secret in enumerate(originals):
        shares = share(secret, 3, range(1, 6))
        held.append({point: shares[point] for point in ((1, 2, 3) if at % 2 else (2, 4, 5))})
    with patch.object(field, "lagrange_at_zero", side_effect=lagrange_at_zero) as weights:
        assert recover(held, 3) == [bytearray(one) for one in originals]
    (points,) = weights.call_args.args
    assert points.tolist() == [[2, 4, 5], [1, 2, 3]]


def test_two_sharings_of_one_secret_have_nothing_in_common() -> None:
    one, other = share(bytes(32), 2, [1, 2, 3]), share(bytes(32), 2, [1, 2, 3])
    assert not {*one.values()} & {*other.values()}


def test_fewer_shares_than_the_threshold_say_nothing_of_the_secret() -> None:
    """One of two shares: its top bits are uniform whatever the secret (chi-square, 15 degrees of freedom)."""
    for secret in (bytes(32), bytes([255] * 32)):
        words = np.concatenate([np.frombuffer(share(secret, 2, [1, 2])[1], "<u8") for _ in range(1000)])
        counts = np.bincount((words >> np.uint64(57)).astype(np.int64), minlength=16)
        assert ((counts - 500) ** 2 / 500).sum() < 60  # exceeded with probability 2e-7


@given(st.integers(0, 8 * SHARE_BYTES - 1), st.integers(0, 2))
def test_an_altered_share_never_gives_the_secret_unnoticed(bit: int, which: int) -> None:
    secret = bytes(range(32))
    shares = share(secret, 3, [1, 2, 3])
    altered = bytearray(shares[which + 1])
    altered[bit // 8] ^= 1 << bit % 8
    with contextlib.suppress(ProtocolViolation):
        assert recover([{**shares, which + 1: bytes(altered)}], 3) != [bytearray(secret)]


def test_too_few_shares_are_refused() -> None:
    shares = share(bytes(32), 3, [1, 2, 3])
    del shares[2]
    with pytest.raises(SecureAggregationError, match="2 of the 3 shares"):
        recover([shares], 3)


def test_a_share_at_zero_would_be_the_secret_and_is_refused() -> None:
    shares = share(bytes(32), 2, [1, 2])
    with pytest.raises(ProtocolViolation, match="point 0"):
        recover([{0: shares[1], 2: shares[2]}], 2)


@pytest.mark.parametrize("bad", [PRIME, PRIME + 1, 2**64 - 1])
def test_a_share_outside_the_field_is_refused(bad: int) -> None:
    shares = share(bytes(32), 2, [1, 2])
    shares[1] = bad.to_bytes(8, "little") + shares[1][8:]
    with pytest.raises(ProtocolViolation, match="outside its field"):
        recover([shares], 2)


@pytest.mark.parametrize("length", [0, SHARE_BYTES - 1, SHARE_BYTES + 8])
def test_a_share_of_another_length_is_refused(length: int) -> None:
    shares = share(bytes(32), 2, [1, 2])
    shares[2] = bytes(length)
    with pytest.raises(ProtocolViolation, match="bytes long"):
        recover([shares], 2)


@pytest.mark.parametrize(("threshold", "points"), [(2, [0, 1]), (2, [1, 1]), (3, [1, 2]), (0, [1]), (1, [PRIME])])
def test_no_secret_is_shared_at_zero_twice_at_one_point_or_at_too_few(threshold: int, points: list[int]) -> None:
    with pytest.raises(ValueError, match="cannot share"):
        share(bytes(32), threshold, points)


def test_the_prime_itself_is_never_drawn() -> None:
    drawn = [b"\xff" * 8 * 8, *[bytes([7] * 8)] * 8]
    with patch.object(field.secrets, "token_bytes", side_effect=lambda n: drawn.pop(0).ljust(n, b"\7")[:n]):
        assert (field._random_elements(1) < PRIME).all()
