"""What secure aggregation costs: clients beside their own key stream, the server, and the masks of twenty silos.

Every sum is checked. The key stream that a client is compared with is AES-256-CTR over as many bytes as its masks have,
taken in the same blocks, in the same run; nothing is added up there. Times on a shared machine are noise, ratios within
one run are less so.
"""

from __future__ import annotations

import time

import numba
import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from coterie.ring import decode
from coterie.secure.session import SecureSum, SessionConfig, secure_sum
from coterie.secure.terms import Phase

BLOCK = 1 << 16


def config(clients: int, size: int, bits: int, degree: int | None = None) -> SessionConfig:
    """One round over `clients`, the graph as the product chooses it unless `degree` says otherwise."""
    return SessionConfig(
        job="benchmark",
        round=0,
        attempt=0,
        model_hash=bytes(32),
        plan_hash=bytes(32),
        clients=clients,
        ring_bits=bits,
        size=size,
        min_clients=2,
        degree=degree,
    )


def summed(asked: SessionConfig, dropped: int) -> SecureSum:
    """The sum over all but `dropped` clients, who leave once they have shared their secrets (the dearest moment)."""
    base = np.random.default_rng(0).integers(-1000, 1000, asked.size)
    found = secure_sum(asked, lambda c: base * (c % 7), dict.fromkeys(range(dropped), Phase.MASK))
    assert found.finishers == tuple(range(dropped, asked.clients))
    assert np.array_equal(decode(found.integers, asked.ring_bits), base * sum(c % 7 for c in found.finishers))
    return found


def key_stream_seconds(mode: modes.CTR | modes.GCM, masks: int, length: int) -> float:
    """Median seconds for the key streams of `masks` masks of `length` bytes, nothing else."""
    zeros, out, found = bytes(BLOCK), bytearray(BLOCK + 15), []
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(masks):
            stream = Cipher(algorithms.AES(bytes(32)), mode).encryptor().update_into
            for _ in range(-(-length // BLOCK)):
                stream(zeros, out)
        found.append(time.perf_counter() - started)
    return float(np.median(found))


def clients_beside_their_key_stream(degree: int | None) -> None:
    """100 clients, one million 32-bit values, 10 % drop out."""
    asked = config(100, 1_000_000, 32, degree)
    found = summed(asked, 10)
    masks, length = asked.terms().degree + 1, asked.summed().upload_bytes(asked.ring_bits)
    own, counter, galois = (
        found.client_seconds / 100,
        key_stream_seconds(modes.CTR(bytes(16)), masks, length),
        key_stream_seconds(modes.GCM(bytes(12)), masks, length),
    )
    print(
        f"100 clients, {found.graph.split(',')[0]}: client {own * 1000:.1f} ms; key stream of its {masks} masks "
        f"{counter * 1000:.1f} ms by CTR, {galois * 1000:.1f} ms by GCM; ratio {own / counter:.2f} and "
        f"{own / galois:.2f}; server {found.server_seconds:.2f} s; {found.upload_bytes / 1e6:.2f} MB sent",
        flush=True,
    )


def server_of_a_thousand() -> None:
    """1,000 clients, 100,000 values, 10 % drop out, the graph for a tenth corrupt and a tenth dropping out."""
    found = summed(config(1000, 100_000, 32), 100)
    print(
        f"1,000 clients, {found.graph}: server {found.server_seconds:.2f} s, a client "
        f"{found.client_seconds:.1f} ms; {found.upload_bytes / 1e6:.2f} MB sent",
        flush=True,
    )


def masks_of_twenty_silos(threads: int) -> None:
    """20 silos, 6.9 million 64-bit values: 420 masks of 55 MB."""
    asked = config(20, 6_900_000, 64)
    before = numba.get_num_threads()
    numba.set_num_threads(min(threads, before))
    started = time.perf_counter()
    found = summed(asked, 0)
    took = time.perf_counter() - started
    numba.set_num_threads(before)
    masked = (20 * 20 + 20) * asked.summed().upload_bytes(asked.ring_bits)
    print(
        f"20 silos, {threads} thread{'s' if threads > 1 else ''}: masks {found.mask_seconds:.2f} s "
        f"({masked / found.mask_seconds / 1e9:.1f} GB/s); the whole sum {took:.2f} s, {found.claim}",
        flush=True,
    )


if __name__ == "__main__":
    summed(config(60, 10, 32), 1)  # compiles, and is not counted
    summed(config(5, 10, 64), 0)
    clients_beside_their_key_stream(degree=99)
    clients_beside_their_key_stream(degree=None)
    server_of_a_thousand()
    for count in (1, numba.get_num_threads()):
        masks_of_twenty_silos(count)
