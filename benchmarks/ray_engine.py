"""Worker processes of Ray beside one: the same rounds of iALS, on one worker and on two, and in this process.

Every user is a client of its own, with 50 interactions over 5,000 items. Clusters are started here, one after the
other, and each has done a small round before the clock starts; the time for starting one is told apart. Rows travel to
the object store inside the clock, once. All sums must be the same integers. Ratios of medians of alternating turns are
what counts; times on a shared machine are noise, so beside them stand the processor seconds of this process and of the
busiest worker, added up: what the training takes where nobody else wants the cores (threads of a process count twice).
Exits with 1 if two workers are not 1.6 times as quick as one.

    python benchmarks/ray_engine.py                 the table
    python benchmarks/ray_engine.py 50000 1         fewer users, one turn
"""

from __future__ import annotations

import itertools
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from million_users import users_with_tastes

from coterie.engines.local import IN_TURN
from coterie.engines.ray import open_cluster
from coterie.engines.simulation import Simulation
from coterie.engines.spans import Workers
from coterie.federation.checkpoint import state_digest
from coterie.federation.loop import run_rounds
from coterie.models.ials import Ials
from coterie.privacy.plan import Plan
from coterie.ring import Accumulator
from coterie.types import LocalStore, Population, RoundSpec, State, Total, UserBlock

USERS, TURNS, ITEMS = 300_000, 3, 5_000
LEAST_RATIO = 1.6
MODEL = Ials(factors=64, iterations=3)
KINDS = ("this process, one thread", "this process, two threads", "one worker", "two workers")


@dataclass(frozen=True)
class Timed:
    """The model, whose clients write down what processor time their process has taken so far."""

    folder: Path

    def next_round(self, state: State) -> RoundSpec | None:
        return MODEL.next_round(state)

    def budget(self, state: State) -> tuple[float, ...]:
        return MODEL.budget(state)

    def contribute(
        self, spec: RoundSpec, state: State, users: UserBlock, local: LocalStore | None, out: Accumulator
    ) -> None:
        MODEL.contribute(spec, state, users, local, out)
        (self.folder / str(os.getpid())).write_text(str(time.process_time()))

    def apply(self, spec: RoundSpec, state: State, total: Total) -> State:
        return MODEL.apply(spec, state, total)


def main(users: int, turns: int) -> int:
    """Print a line a kind; 1 where two workers are too slow."""
    people, small = (_devices(users_with_tastes(n, ITEMS)) for n in (users, 2_000))
    seconds: dict[str, list[tuple[float, float]]] = {kind: [] for kind in KINDS}
    opened, digests = list[float](), set[bytes]()
    for _, kind in itertools.product(range(turns), KINDS):
        threads = 2 if "two" in kind else 1
        with _workers(kind, threads, opened) as workers, tempfile.TemporaryDirectory() as folder:
            model = Timed(Path(folder))
            _train(model, small, workers, threads)
            started, before = time.perf_counter(), _busy(model.folder)
            digests.add(_train(model, people, workers, threads))
            after = _busy(model.folder)
            here = after.pop(os.getpid()) - before.pop(os.getpid())
            busiest = max((after[pid] - before.get(pid, 0.0) for pid in after), default=0.0)
            seconds[kind].append((time.perf_counter() - started, here + busiest))
    if len(digests) > 1:
        raise SystemExit("models differ")
    medians = {kind: tuple(map(statistics.median, zip(*found, strict=True))) for kind, found in seconds.items()}
    print(f"{'':28s} seconds  processor seconds")
    for kind, (wall, busy) in medians.items():
        print(f"{kind:28s}{wall:8.1f}{busy:8.1f}")
    ratio, path = (one / two for one, two in zip(medians["one worker"], medians["two workers"], strict=True))
    print(
        f"two workers are {ratio:.2f} times as quick as one (at least {LEAST_RATIO}), by processor seconds {path:.2f}; "
    )
    print(f"a cluster starts in {statistics.median(opened):.1f} s; models are equal")
    return int(ratio < LEAST_RATIO)


def _busy(folder: Path) -> dict[int, float]:
    """Processor seconds so far, by process: this one, and those that have contributed."""
    return {int(path.name): float(path.read_text()) for path in folder.iterdir()} | {os.getpid(): time.process_time()}


def _devices(block: UserBlock) -> Population:
    return Population(block, np.arange(block.n_users + 1), tuple(map(str, range(block.n_users))))


@contextmanager
def _workers(kind: str, threads: int, opened: list[float]) -> Iterator[Workers]:
    if "process" in kind:
        yield IN_TURN
        return
    started = time.perf_counter()
    with open_cluster(workers=threads) as cluster:
        opened.append(time.perf_counter() - started)
        yield cluster


def _train(model: Timed, people: Population, workers: Workers, threads: int) -> bytes:
    start = MODEL.init(people.block.n_items, {}, 0)
    return state_digest(run_rounds(model, start, Simulation(people, workers, threads), Plan()))


if __name__ == "__main__":
    asked = [int(word) for word in sys.argv[1:]]
    raise SystemExit(main(*(asked or (USERS, TURNS))))
