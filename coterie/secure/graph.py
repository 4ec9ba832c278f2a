"""Who masks with whom, and who holds whose shares.

Up to a few dozen clients everybody is everybody's neighbour. Thousands sit on a ring in a random order, each the
neighbour of the k who sit nearest: a Harary graph (Bell et al. 2020). The order follows from a seed of 32 bytes that
the server draws from the operating system once the roster is fixed, so that all parties compute the same graph.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from coterie.secure.masks import key_stream
from coterie.types import Array

SEED_BYTES = 32
MAX_FULL = 50  # beyond, a full graph is taken where it is asked for, or where rates leave nothing sparser


@dataclass(frozen=True, slots=True)
class Graph:
    """The graph of a round: `degree` neighbours a client; clients are positions in the roster."""

    clients: int
    degree: int
    seed: bytes

    @property
    def full(self) -> bool:
        return self.degree == self.clients - 1

    def neighbours(self, client: int) -> tuple[int, ...]:
        """Whom a client masks with, ascending."""
        if self.full:
            return (*range(client), *range(client + 1, self.clients))
        order, place = _ring(self.clients, self.seed)
        half = self.degree // 2
        steps = [*range(-half, 0), *range(1, half + 1), *([self.clients // 2] if self.degree % 2 else [])]
        return tuple(sorted(order[(int(place[client]) + np.array(steps)) % self.clients].tolist()))

    def holders(self, client: int) -> tuple[int, ...]:
        """Who holds shares of a client's secrets, ascending: its neighbours; on the full graph also itself.

        With its own share a client of three can be rebuilt by three, which a threshold above 2n/3 asks for.
        """
        return tuple(range(self.clients)) if self.full else self.neighbours(client)


@lru_cache(maxsize=8)
def _ring(clients: int, seed: bytes) -> tuple[Array, Array]:
    """The order of clients on the ring, and each client's place in it: int64 [clients] each.

    Sorting random words of 64 bits draws every order with the same probability, but for ties (n^2 / 2^65).
    """
    order = np.argsort(np.frombuffer(key_stream(seed, 8 * clients), "<u8"), kind="stable")
    place = np.empty_like(order)
    place[order] = np.arange(clients)
    return order, place
