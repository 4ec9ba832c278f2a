"""The local engine: clients of a simulation, in this process.

Organisations are visited one by one: no call ever sees two of them. Where every client is one person's device, a block
holds many devices as rows; kernels bound and quantise each row by itself, so the integers are those of one call a
device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numba

from coterie.privacy.plan import BoundRound
from coterie.ring import Accumulator, decode
from coterie.types import Population, State, Summand, Total, UserBlock


class LocalEngine:
    """Runs the clients of a `Population` in blocks of bounded memory, on `threads` cores (0: all).

    `progress` is called with the number of users done after each block. The sum does not depend on `threads`, `block`
    or the order of clients.
    """

    def __init__(
        self,
        population: Population,
        threads: int = 0,
        block: int = 2_000_000,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        self.population = population
        self.threads = _at_most_all(threads)
        self.block = block
        self.progress = progress

    @property
    def users(self) -> int:
        return self.population.block.n_users

    @property
    def clients(self) -> int:
        return len(self.population)

    def collect(self, summand: Summand, bound: BoundRound, state: State) -> Total:
        """See `coterie.federation.loop.RoundEngine.collect`."""
        out, done = Accumulator(bound.spec), 0
        with kernel_threads(self.threads):
            for users in self._blocks():
                summand.contribute(bound.spec, state, users, None, out)
                done += users.n_users
                if self.progress is not None:
                    self.progress(done)
        return Total(
            spec=bound.spec,
            integers={name: decode(values, bound.ring_bits) for name, values in out.parts.items()},
            noise_std={part.name: 0.0 for part in bound.spec.parts},
            finishers=bound.clients,
            upload_bytes=bound.upload_bytes,
        )

    def _blocks(self) -> Iterator[UserBlock]:
        if self.population.one_user_each:
            yield from self.population.block.blocks(self.block)
            return
        for c in range(len(self.population)):
            yield from self.population.client(c).blocks(self.block)


@contextmanager
def kernel_threads(threads: int) -> Iterator[None]:
    """Run kernels on `threads` cores (0, or more than there are: all), and leave the process as it was."""
    before = numba.get_num_threads()
    numba.set_num_threads(_at_most_all(threads))
    try:
        yield
    finally:
        numba.set_num_threads(before)


def _at_most_all(threads: int) -> int:
    cores = int(numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]  # set when numba starts
    return min(threads or cores, cores)
