"""Who takes part in a round: everybody, each user by a coin, or so many clients drawn without replacement.

A promise that counts on sampling holds only where nobody can guess who was drawn, so draws come from the operating
system. A simulation may draw from its seed instead, and says so.
"""

from __future__ import annotations

import math

import numpy as np

from coterie.privacy.binding import BoundRound
from coterie.privacy.noise import Bits
from coterie.types import Integers, Population


def drawn(people: Population, bound: BoundRound, bits: Bits) -> Integers | None:
    """Rows of the users who take part (ascending int64); None: all of them.

    With "poisson" each user takes part with probability ``floor(rate 2^64) / 2^64``; with "fixed" so many clients do,
    each set of them as likely as any other.
    """
    if bound.sampler == "all":
        return None
    if bound.sampler == "poisson":
        limit = np.uint64(min(math.floor(bound.sampling_rate * 2.0**64), 2**64 - 1))
        return np.flatnonzero(bits.words(people.block.n_users) < limit).astype(np.int64)
    wanted = math.floor(bound.sampling_rate * len(people))
    clients = np.sort(_without_replacement(len(people), wanted, bits))
    spans = [np.arange(people.client_ptr[c], people.client_ptr[c + 1]) for c in clients.tolist()]
    return np.concatenate(spans).astype(np.int64)


def cohort(people: Population, rows: Integers) -> Population:
    """The population that consists of these users alone. Devices that were not drawn are not there; an organisation
    of whose users none was drawn still is.
    """
    block = people.block.take(rows)
    if people.one_user_each:
        return Population(block, np.arange(len(rows) + 1), tuple(people.names[row] for row in rows.tolist()))
    return Population(block, np.searchsorted(rows, people.client_ptr).astype(np.int64), people.names)


def _without_replacement(n: int, wanted: int, bits: Bits) -> Integers:
    """A uniformly random subset: the places of the smallest of n random words (ties: drawn again)."""
    while True:
        words = bits.words(n)
        order = np.argsort(words, kind="stable")
        if wanted == n or words[order[wanted - 1]] != words[order[wanted]]:
            return order[:wanted].astype(np.int64)
