"""The clients of a simulation: who takes part in a round, what they send, and the noise that goes with it.

Organisations are visited one by one: no call ever sees two of them. Where every client is one person's device, a block
holds many devices as rows; kernels bound and quantise each row by itself, so the integers are those of one call a
device. What stays at clients is kept in a `UserStore`, of which each call sees the rows of its own users.

Where aggregation is secure and masks are real, every client runs the protocol of `coterie.secure`, and the server's
half of it gets masked vectors alone. Where the masks of simulated devices are left out, so are their single shares of
noise: their sum is drawn at once, with the variance that they have together (a sum of discrete Gaussians is that close
to one: `coterie.privacy.discrete`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numba

from coterie.engines.spans import BLOCK, Span, Workers
from coterie.errors import SecureAggregationError
from coterie.federation.checkpoint import state_digest
from coterie.federation.cohort import cohort, drawn
from coterie.federation.localstore import UserStore
from coterie.federation.release import Leave, nothing
from coterie.privacy.noise import Bits, SimulatedBits, SystemBits, add_discrete_gaussian
from coterie.privacy.plan import BoundRound
from coterie.ring import Accumulator, decode
from coterie.secure.session import SessionConfig, secure_sum
from coterie.types import Integers, Population, State, Summand, Total


class Simulation:
    """Runs the clients of a `Population` in blocks of bounded memory, which `workers` add up: a `RoundEngine`.

    Everything else happens in this process, on `threads` cores (0: all). `progress` is called with the number of users
    done after each block. Without noise the sum does not depend on `workers`, `threads`, `block` or the order of
    clients. `seed` and `purpose` name the stream of simulated noise.
    """

    def __init__(
        self,
        population: Population,
        workers: Workers,
        threads: int = 0,
        block: int = BLOCK,
        progress: Callable[[int], None] | None = None,
        store: UserStore | None = None,
        seed: int = 0,
        purpose: str = "",
    ) -> None:
        self.population = population
        self.workers = workers
        self.store = store or UserStore(population.block.n_users)
        self.threads = at_most_all(threads)
        self.block = block
        self.progress = progress
        self.seed = seed
        self.purpose = purpose

    @property
    def users(self) -> int:
        return self.population.block.n_users

    @property
    def clients(self) -> int:
        return len(self.population)

    @property
    def one_user_each(self) -> bool:
        return self.population.one_user_each

    def collect(self, summand: Summand, bound: BoundRound, state: State, leave: Leave = nothing) -> Total:
        """See `coterie.federation.loop.RoundEngine.collect`."""
        cast = _Round(self, summand, bound, state)
        with kernel_threads(self.threads):
            values, finishers = cast.masked(leave) if bound.real_masks else cast.in_the_clear(leave)
        self.store.commit()
        return Total(
            spec=bound.spec,
            integers={name: decode(array, bound.ring_bits) for name, array in values.items()},
            noise_std=bound.noise_std(cast.noise_shares(finishers)),
            finishers=finishers,
            upload_bytes=bound.upload_bytes,
        )


class _Round:
    """One round of a `Simulation`: who takes part, what they send, and the noise that goes with it."""

    def __init__(self, engine: Simulation, summand: Summand, bound: BoundRound, state: State) -> None:
        self.engine, self.summand, self.bound, self.state = engine, summand, bound, state
        self.rows = drawn(engine.population, bound, self._bits("cohort"))
        self.people = engine.population if self.rows is None else cohort(engine.population, self.rows)
        self.add = engine.workers.begin(summand, bound.spec, state)
        self.done = 0

    def in_the_clear(self, leave: Leave) -> tuple[dict[str, Integers], int]:
        """The sum of all clients in ring elements, with its noise, and how many they are."""
        self._refuse_few(leave)
        out = Accumulator(self.bound.spec)
        self._contribute(self._spans(), out)
        self._add_noise(out, self.noise_shares(len(self.people)), self._bits("noise"))
        leave()
        return out.parts, len(self.people)

    def masked(self, leave: Leave) -> tuple[dict[str, Integers], int]:
        """The same sum by secure aggregation: each client masks what it sends, its share of noise included."""
        bound, spec = self.bound, self.bound.spec
        if bound.noise != "central":
            leave()  # with central noise what the server unmasks is not shown to anybody before it has its noise
        config = SessionConfig(
            job=type(self.summand).__name__,
            round=spec.index,
            attempt=0,
            model_hash=state_digest(self.state),
            plan_hash=bound.plan_digest,
            clients=len(self.people),
            ring_bits=bound.ring_bits,
            size=sum(part.size for part in spec.parts),
            min_clients=bound.min_clients,
            threshold=bound.threshold,
        )
        sending = Accumulator(spec)  # one client's at a time
        summed = secure_sum(config, lambda client: self._sent(client, sending))
        out = Accumulator(spec, summed.integers)
        if bound.noise == "central":
            self._add_noise(out, 1, self._bits("noise"))
            leave()
        return out.parts, len(summed.finishers)

    def noise_shares(self, finishers: int) -> int:
        """How many shares of noise a sum of so many clients holds."""
        return {"none": 0, "central": 1, "distributed": finishers, "local": self.people.block.n_users}[self.bound.noise]

    def _refuse_few(self, leave: Leave) -> None:
        """Abort, charged, where too few were drawn: their shares of noise are fewer than what is counted on."""
        if self.bound.aggregation == "secure" and len(self.people) < self.bound.min_clients:
            leave()
            raise SecureAggregationError(
                f"secure sum aborted: fewer clients were drawn than min_clients = {self.bound.min_clients}; lower it, "
                "or raise the sampling rate"
            )

    def _sent(self, client: int, out: Accumulator) -> Integers:
        """What one client sends before its masks: its sums and its noise, all parts in one vector, written to `out`."""
        out.flat.fill(0)
        span = self._span(client)
        self._contribute([span], out)
        if self.bound.noise in ("distributed", "local"):
            shares = span.n_users if self.bound.noise == "local" else 1
            self._add_noise(out, shares, self._bits("noise", client))
        return out.flat

    def _contribute(self, spans: Iterable[Span], out: Accumulator) -> None:
        self.add(spans, self.engine.block, out, self._count)

    def _count(self, users: int) -> None:
        self.done += users
        if self.engine.progress is not None:
            self.engine.progress(self.done)

    def _spans(self) -> Iterator[Span]:
        """All devices at once, or one organisation after the other."""
        if self.engine.one_user_each:
            users = self.people.block.n_users
            yield Span(self.people.block, 0, users, devices=True, store=self.engine.store, rows=self.rows)
            return
        yield from map(self._span, range(len(self.people)))

    def _span(self, client: int) -> Span:
        start, stop = (int(end) for end in self.people.client_ptr[client : client + 2])
        whole = self.bound.spec.kind == "client_update"
        return Span(self.people.block, start, stop, whole=whole, store=self.engine.store, rows=self.rows)

    def _add_noise(self, out: Accumulator, shares: int, bits: Bits) -> None:
        """Add `shares` shares of noise to each part: their sum, drawn as one."""
        for part in self.bound.spec.parts if shares and self.bound.variance else ():
            add_discrete_gaussian(out[part.name], self.bound.variance[part.name] * shares, bits)

    def _bits(self, *purpose: str | int) -> Bits:
        if not self.bound.simulated_noise:
            return SystemBits()
        kind = type(self.summand).__name__
        return SimulatedBits(self.engine.seed, self.engine.purpose, kind, self.bound.spec.index, *purpose)


@contextmanager
def kernel_threads(threads: int) -> Iterator[None]:
    """Run kernels on `threads` cores (0, or more than there are: all), and leave the process as it was."""
    before = numba.get_num_threads()
    numba.set_num_threads(at_most_all(threads))
    try:
        yield
    finally:
        numba.set_num_threads(before)


def at_most_all(threads: int) -> int:
    """So many cores, or as many as there are (0: all of them)."""
    cores = int(numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]  # set when numba starts
    return min(threads or cores, cores)
