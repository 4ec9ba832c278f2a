"""Masks: long vectors of ring elements, each the AES key stream of one 32-byte key.

The key stream is that of AES-256 in counter mode. It is taken from AES-GCM over zeros, which is counter mode from
block 2 on, since OpenSSL runs GCM up to three times faster. Segment s of a mask (4 MiB) starts under the nonce s, so
that threads can work on segments side by side. Blocks of 64 KiB are taken through all masks at once: a vector goes
through memory once whatever the number of masks, and no mask is ever held whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeAlias

import numba
import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from coterie.errors import PlanError
from coterie.secure.kernels import add_four, subtract_four
from coterie.types import Array, Integers

KEY_BYTES = 32
Ring: TypeAlias = Array  # uint32 or uint64, little-endian
Stream: TypeAlias = Callable[[bytes | memoryview, bytearray], int]

_BLOCK = 1 << 16
_SEGMENT = 1 << 22
_FOUR = 4
_STREAMS = 64  # taken through a block together: their cipher states stay in the cache
_ROOM = 15  # what `update_into` wants beyond the bytes that it writes
_ZEROS = memoryview(bytes(_BLOCK))
_ADD, _SUBTRACT = (add_four, np.add), (subtract_four, np.subtract)
_Four: TypeAlias = tuple[Callable[..., None], np.ufunc, list[Stream]]  # up to four masks of one sign


def ring_dtype(ring_bits: int) -> np.dtype[np.uint32] | np.dtype[np.uint64]:
    """Elements as they travel: unsigned, little-endian."""
    return np.dtype("<u4") if ring_bits == 32 else np.dtype("<u8")


def apply_masks(out: Ring, plus: Sequence[bytes], minus: Sequence[bytes] = ()) -> None:
    """Add the masks of the keys `plus` to `out` and subtract those of `minus`, in place, modulo the ring."""
    _over_segments(out, None, plus, minus)


def masked(values: Integers, out: Ring, plus: Sequence[bytes], minus: Sequence[bytes] = ()) -> None:
    """Write `values` (int64) with masks added and subtracted into `out`, which may be the memory of `values`.

    Raises:
        PlanError: a value has no place in the ring of 32 bits; `out` is then of no use.
    """
    _over_segments(out, values, plus, minus)


def key_stream(key: bytes, length: int) -> bytes:
    """The first `length` bytes (at most one segment) of a key's mask."""
    if length > _SEGMENT:
        raise ValueError(f"{length} bytes are more than one segment of {_SEGMENT}")
    out = bytearray(length + _ROOM)
    stream = _stream(key, 0)
    for start in range(0, length, _BLOCK):
        size = min(_BLOCK, length - start)
        block = bytearray(size + _ROOM)
        stream(_ZEROS[:size], block)
        out[start : start + size] = block[:size]
    return bytes(out[:length])


def _over_segments(out: Ring, values: Integers | None, plus: Sequence[bytes], minus: Sequence[bytes]) -> None:
    length = _SEGMENT // out.itemsize
    segments = range(-(-len(out) // length))

    def work(number: int) -> None:
        part = slice(number * length, (number + 1) * length)
        _segment(number, out[part], None if values is None else values[part], plus, minus)

    threads = min(numba.get_num_threads(), len(segments))
    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(work, segments))
        return
    for number in segments:
        work(number)


def _segment(number: int, out: Ring, values: Integers | None, plus: Sequence[bytes], minus: Sequence[bytes]) -> None:
    """One segment, `_STREAMS` masks at a time; the values enter with the first of them."""
    fours = [
        (*change, [_stream(key, number) for key in keys[at : at + _FOUR]])
        for change, keys in ((_ADD, plus), (_SUBTRACT, minus))
        for at in range(0, len(keys), _FOUR)
    ]
    together = _STREAMS // _FOUR
    for first in range(0, max(len(fours), 1), together):
        _blocks(out, values if first == 0 else None, fours[first : first + together])


def _blocks(out: Ring, values: Integers | None, fours: Sequence[_Four]) -> None:
    """Block by block: up to four key streams are written side by side, then added or subtracted at once."""
    length = _BLOCK // out.itemsize
    buffers = [bytearray(_BLOCK + _ROOM) for _ in range(_FOUR)]
    whole = [np.frombuffer(buffer, out.dtype, length) for buffer in buffers]
    for start in range(0, len(out), length):
        block = out[start : start + length]
        if values is not None:
            _enter(values[start : start + length], block)
        zeros, masks = _ZEROS[: block.nbytes], [mask[: len(block)] for mask in whole]
        for all_four, one, streams in fours:
            for stream, buffer in zip(streams, buffers, strict=False):
                stream(zeros, buffer)
            if len(streams) == _FOUR:
                all_four(block, *masks)
            else:
                for mask in masks[: len(streams)]:
                    one(block, mask, block)


def _enter(values: Integers, block: Ring) -> None:
    """Copy int64 values into the ring: modulo 2^64 nothing is lost, and 32 bits must be enough for each."""
    if block.itemsize == 4 and (values.min() < -(1 << 31) or values.max() >= 1 << 31):
        raise PlanError(
            f"a contribution has an entry outside the 32-bit ring ({values.min()} to {values.max()}); "
            f"use ring_bits = 64, a smaller clip norm or a smaller scale"
        )
    np.copyto(block, values, casting="unsafe")


def _stream(key: bytes, segment: int) -> Stream:
    """Writes the next bytes of a mask's segment, as many as it is given zeros, into a buffer with `_ROOM` to spare."""
    nonce = segment.to_bytes(12, "big")
    return Cipher(algorithms.AES(key), modes.GCM(nonce)).encryptor().update_into
