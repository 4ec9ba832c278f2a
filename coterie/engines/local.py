"""The local engine: clients of a simulation, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from coterie.engines.simulation import Simulation, kernel_threads
from coterie.engines.spans import BLOCK, Add, Span
from coterie.federation.localstore import UserStore
from coterie.ring import Accumulator
from coterie.types import Population, RoundSpec, State, Summand

__all__ = ["IN_TURN", "InTurn", "LocalEngine", "kernel_threads"]


class InTurn:
    """Workers that are this process: one block after the other, each on all threads of the kernels."""

    def begin(self, summand: Summand, spec: RoundSpec, state: State) -> Add:
        """See `coterie.engines.spans.Workers.begin`."""

        def add(spans: Iterable[Span], block: int, out: Accumulator, done: Callable[[int], None]) -> None:
            for span in spans:
                for part in span.cut(block):
                    summand.contribute(spec, state, part.users, part.local, out)
                    done(part.n_users)

        return add


IN_TURN = InTurn()


class LocalEngine(Simulation):
    """Runs the clients of a `Population` in this process; see `Simulation`."""

    def __init__(
        self,
        population: Population,
        threads: int = 0,
        block: int = BLOCK,
        progress: Callable[[int], None] | None = None,
        store: UserStore | None = None,
        seed: int = 0,
        purpose: str = "",
    ) -> None:
        super().__init__(population, IN_TURN, threads, block, progress, store, seed, purpose)
