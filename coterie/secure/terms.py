"""What all parties of a round agree on, and the phases that it goes through.

`Terms` open a round. `Summed` says of which model the vectors are and how long; it comes with the last message before
they are sent, so that a round's keys can be exchanged before the model that they are for is there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

from coterie.errors import PlanError
from coterie.ring import RING_BITS
from coterie.secure.rates import Odds

DIGEST_BYTES = 32
MAX_CLIENTS = 1 << 18
MAX_UPLOAD_BYTES = (1 << 31) - 1024
_WORD = 1 << 32


class Phase(IntEnum):
    """What a client does next; one who drops out in a phase does not send that phase's message."""

    ADVERTISE = 1
    SHARE = 2
    MASK = 3
    SIGN = 4
    UNMASK = 5
    DONE = 6


@dataclass(frozen=True, slots=True)
class Terms:
    """One attempt at one round: by which plan, over whom, and how many must stay.

    `plan_hash` is the SHA-256 digest of the plan that a client agreed to; ring elements of `ring_bits` bits are summed.
    `degree` is the number of neighbours of each of the `clients` in the roster (``clients - 1``: the full graph),
    `threshold` how many share holders rebuild a client's secrets, `min_clients` the smallest number of clients whose
    sum may be unmasked.

    Raises:
        PlanError: a value is out of range, or the threshold is too low for the graph.
    """

    job: bytes
    round: int
    attempt: int
    plan_hash: bytes
    ring_bits: int
    clients: int
    degree: int
    threshold: int
    min_clients: int

    def __post_init__(self) -> None:
        self._check_names()
        self._check_cohort()
        self._check_graph()

    @property
    def full(self) -> bool:
        """Whether everybody is everybody's neighbour."""
        return self.degree == self.clients - 1

    def _check_names(self) -> None:
        if len(self.job) > 255:
            raise PlanError(f"a job's name has at most 255 bytes, not {len(self.job)}")
        _check_digest("plan_hash", self.plan_hash)
        for name, number in (("round", self.round), ("attempt", self.attempt)):
            if not 0 <= number < _WORD:
                raise PlanError(f"{name} {number} is not between 0 and {_WORD - 1}")

    def _check_cohort(self) -> None:
        if self.ring_bits not in RING_BITS:
            raise PlanError(f"ring_bits = {self.ring_bits} is none of {', '.join(map(str, RING_BITS))}")
        if not 2 <= self.clients <= MAX_CLIENTS:
            raise PlanError(f"secure aggregation takes 2 to {MAX_CLIENTS:,} clients, not {self.clients}")
        if not 2 <= self.min_clients <= self.clients:
            raise PlanError(
                f"min_clients = {self.min_clients} is not between 2 and the {self.clients} clients: "
                f"the sum of one client is that client's own vector"
            )

    def _check_graph(self) -> None:
        if not 2 <= self.degree <= self.clients - 1 and not self.full:
            raise PlanError(f"degree = {self.degree} is not between 2 and {self.clients - 1}, the number of others")
        if self.clients * self.degree % 2:
            raise PlanError(
                f"no graph gives an odd number of clients ({self.clients}) an odd degree, as degree = {self.degree}"
            )
        least, most = least_threshold(self.clients, self.degree), self.degree + self.full
        if not least <= self.threshold <= most:
            raise PlanError(
                f"threshold = {self.threshold} is not between {least} and {most}: below it, a server could have both "
                f"kinds of share of one client rebuilt; above it, nobody could rebuild any"
            )


@dataclass(frozen=True, slots=True)
class Summed:
    """What a round sums: vectors of `size` ring elements, computed on the model whose SHA-256 digest is `model_hash`.

    Raises:
        PlanError: the digest has another length, or there is nothing to sum.
    """

    model_hash: bytes
    size: int

    def __post_init__(self) -> None:
        _check_digest("model_hash", self.model_hash)
        if self.size < 1:
            raise PlanError(f"secure aggregation sums vectors of at least one value, not {self.size}")

    def upload_bytes(self, ring_bits: int) -> int:
        """Length of one masked vector, in bytes.

        Raises:
            PlanError: it is more than one message takes.
        """
        length = self.size * ring_bits // 8
        if length > MAX_UPLOAD_BYTES:
            raise PlanError(
                f"secure aggregation sums up to {MAX_UPLOAD_BYTES * 8 // ring_bits:,} values of {ring_bits} bits, "
                f"not {self.size:,}; use a smaller model or fewer items"
            )
        return length


def least_threshold(clients: int, degree: int) -> int:
    """More than two thirds of all clients on the full graph, else more than half of the neighbours.

    >>> least_threshold(3, 2), least_threshold(20, 19), least_threshold(1000, 52)
    (3, 14, 27)
    """
    return 2 * clients // 3 + 1 if degree == clients - 1 else degree // 2 + 1


def describe_graph(terms: Terms) -> str:
    """The graph and its threshold in a few words.

    >>> describe_graph(Terms(b"", 0, 0, bytes(32), 64, 20, 19, 14, 2))
    'full graph of 20 clients, threshold 14'
    """
    if terms.full:
        return f"full graph of {terms.clients} clients, threshold {terms.threshold}"
    return f"{terms.degree} neighbours for each of {terms.clients:,} clients, threshold {terms.threshold}"


def claim(terms: Terms, odds: Odds | None) -> str:
    """Against whom single vectors are protected; `odds` are those of a graph that is not full.

    >>> claim(Terms(b"", 0, 0, bytes(32), 64, 20, 19, 14, 2), None)
    'lying server, even together with 7 of the 20 clients'
    """
    if odds is None:
        # To get both kinds of share of one client rebuilt, 2t holders must answer, and only colluders answer twice.
        colluders = min(2 * terms.threshold - terms.clients - 1, terms.clients - 2)
        return f"lying server, even together with {colluders} of the {terms.clients} clients"
    bits = odds.privacy_bits
    broken = "cannot fail" if math.isinf(bits) else f"fails with probability 2^-{bits:.0f}"
    return (
        f"semi-honest server, which draws the graph at random; with {odds.corrupt} corrupt and {odds.dropped} "
        f"dropped-out clients it {broken}"
    )


def _check_digest(name: str, digest: bytes) -> None:
    if len(digest) != DIGEST_BYTES:
        raise PlanError(f"{name} is a SHA-256 digest of {DIGEST_BYTES} bytes, not of {len(digest)}")
