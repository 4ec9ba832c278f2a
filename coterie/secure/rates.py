"""Degree and threshold of a random graph, from how many clients may be corrupt and how many may drop out.

A client's k neighbours hold the shares of its secrets, t of which rebuild them. Where the graph is drawn after the
corrupt clients are fixed, and drop-outs do not depend on it, the corrupt among k neighbours are hypergeometric, as are
those who are left. Three things may go wrong, each bounded by the union over all clients (Bell et al. 2020, section 3):

- privacy: the corrupt neighbours of some client have enough shares. Against a server that follows the protocol that is
  t; one that lies may ask honest neighbours for one kind of share or the other, and needs 2t - k corrupt ones.
- privacy: corrupt and dropped-out clients cut the honest ones in two. On a Harary graph that takes two runs of k/2 such
  clients, side by side on the ring.
- failure: fewer than t neighbours of some client are left, so that the round cannot be unmasked.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, TypeAlias

import numpy as np

from coterie.types import Array, Floats

ServerModel: TypeAlias = Literal["semi-honest", "lying"]
PRIVACY_BITS, FAILURE_BITS = 40.0, 30.0
_log_gamma = np.vectorize(math.lgamma, otypes=[np.float64])  # a few hundred values: not worth importing scipy


@dataclass(frozen=True, slots=True)
class Odds:
    """A round's privacy fails with probability at most 2^-privacy_bits, its unmasking with 2^-failure_bits.

    That is while at most `corrupt` clients work for the server and at most `dropped` drop out; infinitely many bits say
    that so few cannot do it.
    """

    privacy_bits: float
    failure_bits: float
    corrupt: int
    dropped: int

    @property
    def enough(self) -> bool:
        return self.privacy_bits >= PRIVACY_BITS and self.failure_bits >= FAILURE_BITS


@lru_cache(maxsize=64)
def sparsest(
    clients: int, corrupt_rate: float, dropout_rate: float, server: ServerModel = "semi-honest"
) -> tuple[int, int] | None:
    """The smallest degree, and its smallest threshold, that give 2^-40 for privacy and 2^-30 for failure.

    None where only the full graph does.

    >>> sparsest(1000, 0.1, 0.1), sparsest(1000, 0.1, 0.1, "lying")
    ((52, 28), (113, 77))
    """
    for degree in range(2, clients - 1):
        threshold = smallest_threshold(clients, degree, corrupt_rate, dropout_rate, server)
        if threshold is not None:
            return degree, threshold
    return None


def smallest_threshold(
    clients: int, degree: int, corrupt_rate: float, dropout_rate: float, server: ServerModel = "semi-honest"
) -> int | None:
    """The smallest threshold above half of `degree` that is `Odds.enough`; None where there is none."""
    if clients * degree % 2:  # no graph has an odd number of odd vertices
        return None
    privacy, failure = _bits(clients, degree, corrupt_rate, dropout_rate, server)
    good = np.flatnonzero((privacy >= PRIVACY_BITS) & (failure >= FAILURE_BITS))
    good = good[2 * good > degree]
    return int(good[0]) if len(good) else None


def odds(
    clients: int,
    degree: int,
    threshold: int,
    corrupt_rate: float,
    dropout_rate: float,
    server: ServerModel = "semi-honest",
) -> Odds:
    """What a degree and a threshold (1 to `degree`) promise at these rates."""
    privacy, failure = _bits(clients, degree, corrupt_rate, dropout_rate, server)
    return Odds(
        float(privacy[threshold]),
        float(failure[threshold]),
        share_of(clients, corrupt_rate),
        share_of(clients, dropout_rate),
    )


def share_of(clients: int, rate: float) -> int:
    """How many of `clients` a rate stands for, rounded up."""
    return min(clients, math.ceil(round(rate * clients, 6)))


def _bits(
    clients: int, degree: int, corrupt_rate: float, dropout_rate: float, server: ServerModel
) -> tuple[Floats, Floats]:
    """Bits of privacy and against failure of every threshold from 0 to `degree`: float64 [degree + 1] each."""
    corrupt, dropped = share_of(clients, corrupt_rate), share_of(clients, dropout_rate)
    others, thresholds = clients - 1, np.arange(degree + 1)
    at_least = np.cumsum(_hypergeometric(corrupt, others, degree)[::-1])[::-1]
    needed = thresholds if server == "semi-honest" else np.maximum(2 * thresholds - degree, 0)
    below = np.concatenate([[0.0], np.cumsum(_hypergeometric(others - dropped, others, degree))[:-1]])
    leaked = clients * at_least[needed] + _cut(clients, degree, corrupt + dropped)
    with np.errstate(divide="ignore"):
        return -np.log2(leaked), -np.log2(clients * below)


def _hypergeometric(marked: int, total: int, drawn: int) -> Floats:
    """Probability of each number of marked ones among `drawn` of `total`: float64 [drawn + 1]."""
    marked, k = min(marked, total), np.arange(drawn + 1)
    possible = (k <= marked) & (drawn - k <= total - marked)
    out = np.zeros(drawn + 1)
    k = k[possible]
    out[possible] = np.exp(
        _log_choose(marked, k) + _log_choose(total - marked, drawn - k) - _log_choose(total, np.array(drawn))
    )
    return out


def _log_choose(n: int, k: Array) -> Floats:
    found: Floats = _log_gamma(n + 1.0) - _log_gamma(k + 1.0) - _log_gamma(n - k + 1.0)
    return found


def _cut(clients: int, degree: int, gone: int) -> float:
    """Bound on the probability that two runs of ``degree // 2`` places on the ring are all among `gone` clients."""
    run = 2 * (degree // 2)
    return math.comb(clients, 2) * math.prod(max(gone - i, 0) / (clients - i) for i in range(run))
