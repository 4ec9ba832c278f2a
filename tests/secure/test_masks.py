"""Masks are AES-256 key streams, cancel exactly, and have nothing in common where their keys differ in anything."""

from __future__ import annotations

import secrets
import tracemalloc

import numba
import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from hypothesis import given
from hypothesis import strategies as st

from coterie.errors import PlanError
from coterie.secure import masks
from coterie.secure.masks import apply_masks, key_stream, masked, ring_dtype
from coterie.types import Array

BITS = (32, 64)
KEYS = [bytes([k]) * 32 for k in range(1, 6)]


def counter_mode(key: bytes, start: bytes, content: bytes) -> bytes:
    """AES-256-CTR from a first counter block: the slow, obvious key stream."""
    return Cipher(algorithms.AES(key), modes.CTR(start)).encryptor().update(content)


def reference(key: bytes, length: int, segment: int = 1 << 22) -> bytes:
    """A mask as its docstring has it: counter mode from block 2 of nonce s, for each segment s."""
    parts = [
        counter_mode(key, number.to_bytes(12, "big") + (2).to_bytes(4, "big"), bytes(min(segment, length - at)))
        for number, at in enumerate(range(0, length, segment))
    ]
    return b"".join(parts)


def mask_of(key: bytes, size: int, bits: int) -> Array:
    out = np.zeros(size, ring_dtype(bits))
    apply_masks(out, [key])
    return out


def test_the_reference_is_counter_mode_as_nist_has_it() -> None:
    """SP 800-38A, F.5.5, first block."""
    key = bytes.fromhex("603deb1015ca71be2b73aef0857d77811f352c073b6108d72d9810a30914dff4")
    block = bytes.fromhex("6bc1bee22e409f96e93d7e117393172a")
    assert counter_mode(key, bytes(range(0xF0, 0x100)), block).hex() == "601ec313775789a5b7a7f504bbf3d228"


def test_a_key_stream_begins_with_the_published_ciphertext_of_zeros() -> None:
    """AES-GCM test case 14 of McGrew and Viega: key, nonce and text all zero."""
    assert key_stream(bytes(32), 16).hex() == "cea7403d4d606b6e074ec5d3baf39d18"


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("length", [8, 24, (1 << 16) - 8, 1 << 16, (1 << 16) + 8, (1 << 22) + 40])
def test_a_mask_is_the_reference_across_blocks_and_segments(bits: int, length: int) -> None:
    assert mask_of(KEYS[0], length * 8 // bits, bits).tobytes() == reference(KEYS[0], length)


def test_a_key_stream_is_the_start_of_the_mask() -> None:
    assert key_stream(KEYS[1], 100_000) == reference(KEYS[1], 100_000)
    with pytest.raises(ValueError, match="segment"):
        key_stream(KEYS[1], (1 << 22) + 1)


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("streams", [0, 1, 5, 64, 65])
def test_masked_is_values_plus_and_minus_masks_in_the_ring(bits: int, streams: int) -> None:
    values = np.random.default_rng(0).integers(-(2**31), 2**31, 50_000)
    plus, minus = [secrets.token_bytes(32) for _ in range(streams)], KEYS[:3]
    out = np.empty(len(values), ring_dtype(bits))
    masked(values, out, plus, minus)
    expected = values.astype(out.dtype)
    for key in plus:
        expected += np.frombuffer(reference(key, out.nbytes), out.dtype)
    for key in minus:
        expected -= np.frombuffer(reference(key, out.nbytes), out.dtype)
    assert np.array_equal(out, expected)


@given(values=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=20), count=st.integers(0, 4))
def test_masks_that_are_added_and_taken_away_leave_the_values(values: list[int], count: int) -> None:
    given_values = np.array(values)
    out = given_values.view("<u8").copy()
    masked(given_values, out, KEYS[:count], KEYS[3:])
    apply_masks(out, KEYS[3:], KEYS[:count])
    assert np.array_equal(out.view(np.int64), given_values)


def test_a_vector_may_be_masked_where_it_lies() -> None:
    values = np.arange(10_000)
    apart = np.empty(10_000, "<u8")
    masked(values, apart, KEYS)
    masked(values, values.view("<u8"), KEYS)
    assert np.array_equal(values.view("<u8"), apart)


@pytest.mark.parametrize("value", [-(2**31) - 1, 2**31, 2**40, -(2**63)])
def test_what_has_no_place_in_32_bits_is_refused(value: int) -> None:
    values = np.zeros(20_000, np.int64)
    values[17_000] = value
    with pytest.raises(PlanError, match="outside the 32-bit ring"):
        masked(values, np.empty(20_000, "<u4"), KEYS)


def test_the_number_of_threads_changes_nothing() -> None:
    values, found = np.arange(1_200_000), []
    before = numba.get_num_threads()
    for threads in (1, before):
        numba.set_num_threads(threads)
        out = np.empty(len(values), "<u8")
        masked(values, out, KEYS[:2], KEYS[2:])
        found.append(out)
    numba.set_num_threads(before)
    assert np.array_equal(*found)


@pytest.mark.parametrize("byte", range(32))
def test_keys_that_differ_in_any_one_byte_give_unrelated_masks(byte: int) -> None:
    """Half of all bits differ (a tenth more or less is 25 standard deviations), wherever the keys differ."""
    altered = bytearray(KEYS[0])
    altered[byte] ^= 1
    one, other = mask_of(KEYS[0], 2048, 64), mask_of(bytes(altered), 2048, 64)
    different = np.unpackbits((one ^ other).view(np.uint8)).reshape(8, -1).mean(axis=1)
    assert ((different > 0.45) & (different < 0.55)).all()


def test_memory_stays_flat_whatever_the_number_of_masks() -> None:
    values = np.zeros(500_000, np.int64)
    out = np.empty(len(values), "<u8")
    masked(values, out, KEYS)
    tracemalloc.start()
    masked(values, out, [secrets.token_bytes(32) for _ in range(200)])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1_000_000  # the vector alone has 4,000,000 bytes


def test_blocks_and_segments_hold_whole_elements_and_cipher_blocks() -> None:
    assert masks._BLOCK % 16 == masks._SEGMENT % masks._BLOCK == 0
