"""The Ray engine: worker processes sum the blocks of a round, on this machine or on a cluster of them.

Everything but that map is what the local engine does (`coterie.engines.simulation`): a model file has the same bytes.
Rows are put into Ray's object store once for all rounds, the state once a round, and sums are added up as they come. A
worker that dies is replaced, and its users are summed again.

Rows travel to a cluster's nodes as they are, so it must be that of whoever owns the rows.
"""

from __future__ import annotations

import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from coterie.engines.raycluster import in_cluster, translated
from coterie.engines.shares import Job, Share, Summed, shares_of, sum_share
from coterie.engines.simulation import Simulation
from coterie.engines.spans import BLOCK, Add, KeptStore, Span, contribution
from coterie.errors import EnvironmentFault
from coterie.federation.localstore import UserStore
from coterie.ring import Accumulator
from coterie.types import Population, RoundSpec, State, Summand, UserBlock

Note = Callable[[str], None]

ATTEMPTS = 3  # times that users are given to a worker, where workers die


class RayEngine(Simulation):
    """Runs the clients of a `Population` on the workers of a cluster; see `Simulation`."""

    def __init__(
        self,
        population: Population,
        cluster: Cluster,
        block: int = BLOCK,
        progress: Callable[[int], None] | None = None,
        store: UserStore | None = None,
        seed: int = 0,
        purpose: str = "",
    ) -> None:
        super().__init__(population, cluster, 0, block, progress, store, seed, purpose)


def contribute_on(
    cluster: Cluster,
    summand: Summand,
    spec: RoundSpec,
    state: State,
    users: UserBlock,
    local: KeptStore | None = None,
    block: int = BLOCK,
) -> Accumulator:
    """One organisation's own contribution, summed on its cluster: see `coterie.engines.spans.contribution`.

    The same `users` are put into the object store once, however many rounds they are summed in.
    """
    return contribution(cluster, summand, spec, state, users, local, block)


def unheard(text: str) -> None:
    """The listener of a cluster of which nobody wants to hear."""


@contextmanager
def open_cluster(
    address: str | None = None, workers: int = 0, note: Note = unheard, store_bytes: int | None = None
) -> Iterator[Cluster]:
    """Worker processes that sum, for as long as the context lasts.

    A process that is in a Ray cluster already uses that one, and leaves it as it was.

    Args:
        address: ``HOST:PORT`` of a running cluster that this machine is a node of, or ``auto`` for the one that runs
            here; None starts one on this machine.
        workers: how many work at the same time, each on one core; 0: as many as there are cores.
        note: told when a worker was lost.
        store_bytes: shared memory of a cluster that is started here, taken as it is needed; what it cannot hold goes to
            disk. None: Ray's own choice, up to three tenths of what is free.

    Raises:
        MissingExtra: Ray is not installed.
        ConfigError: this process is in another cluster already.
        EnvironmentFault: the cluster cannot be started or reached, or its nodes run another version of Coterie.
    """
    with in_cluster(address, workers, store_bytes) as count:
        cluster = Cluster(count, note)
        try:
            yield cluster
        finally:
            cluster.forget()


class Cluster:
    """The workers of the Ray cluster that this process is in (`coterie.engines.spans.Workers`); see `open_cluster`."""

    def __init__(self, count: int, note: Note) -> None:
        import ray

        self.count, self._note = count, note
        self._task = ray.remote(num_cpus=1, max_retries=0)(sum_share)
        self._block: UserBlock | None = None
        self._rows: dict[tuple[int, int, bool], Any] = {}

    def begin(self, summand: Summand, spec: RoundSpec, state: State) -> Add:
        """See `coterie.engines.spans.Workers.begin`.

        Raises (so does what it returns):
            EnvironmentFault: Ray has no room for what it is given, or workers keep dying.
        """
        job: Job = (summand, spec, state)
        with translated():
            import ray

            return functools.partial(self._add, ray.put(job))

    def forget(self) -> None:
        """Let go of the rows in the object store."""
        self._block, self._rows = None, {}

    def _add(self, job: Any, spans: Iterable[Span], block: int, out: Accumulator, done: Callable[[int], None]) -> None:
        waiting = deque(shares_of(list(spans), block, self.count, out.flat.nbytes))
        running: dict[Any, Share] = {}
        with translated(), _cancelled(running):
            while waiting or running:
                while waiting and len(running) < self.count:
                    share = waiting.popleft()
                    running[self._begun(job, share)] = share
                share, summed = self._ended(running)
                if summed is None:
                    waiting.append(share)
                else:
                    share.add(summed, out)
                    done(share.n_users)

    def _begun(self, job: Any, share: Share) -> Any:
        return self._task.remote(job, share.kept(), *(self._placed(part) for part in share.parts))

    def _placed(self, part: Span) -> Any:
        """The rows of a part in the object store, where they stay until those of another block are summed."""
        import ray

        if part.block is not self._block:
            self._block, self._rows = part.block, {}
        key = (part.start, part.stop, part.devices)
        if key not in self._rows:
            self._rows[key] = ray.put(part.users)
        return self._rows[key]

    def _ended(self, running: dict[Any, Share]) -> tuple[Share, Summed | None]:
        """The next share that is done, and its sum; None where its worker was lost, and it is to be done again."""
        import ray

        (reference,), _ = ray.wait(list(running), num_returns=1)
        share = running.pop(reference)
        try:
            return share, ray.get(reference)
        except _losses() as loss:
            share.lost += 1
            if share.lost == ATTEMPTS:
                raise EnvironmentFault(
                    f"{ATTEMPTS} workers of Ray were lost over the same users ({type(loss).__name__}), as happens when "
                    "memory is short; use fewer workers (--threads), a smaller --block or fewer items"
                ) from loss
            self._note(f"a worker of Ray was lost ({type(loss).__name__}); its users are summed again")
            return share, None


@contextmanager
def _cancelled(running: Mapping[Any, Share]) -> Iterator[None]:
    """What still runs when something fails is stopped."""
    import ray

    try:
        yield
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def _losses() -> tuple[type[Exception], ...]:
    """What Ray raises where a worker, or what it returned, is gone."""
    from ray import exceptions as ray

    return ray.WorkerCrashedError, ray.NodeDiedError, ray.ObjectLostError, ray.OutOfMemoryError
