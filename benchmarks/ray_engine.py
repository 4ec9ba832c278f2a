"""Worker processes of Ray beside one: the same rounds of iALS, on one worker and on two, and in this process.

Every user is a client of its own, with 50 interactions over 5,000 items. Clusters are started here, one after the
other, and each has done a small round before the clock starts; the time for starting one is told apart. Rows travel to
the object store inside the clock, once. All sums must be the same integers. Ratios of medians of alternating turns are
what counts; times on a shared machine are noise. Exits with 1 if two workers are not 1.6 times as quick as one.

    python benchmarks/ray_engine.py                 the table
    python benchmarks/ray_engine.py 50000 1         fewer users, one turn
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

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
from coterie.types import Population, UserBlock

USERS, TURNS, ITEMS = 300_000, 3, 5_000
LEAST_RATIO = 1.6
MODEL = Ials(factors=64, iterations=3)
KINDS = ("this process, one thread", "this process, two threads", "one worker", "two workers")


def main(users: int, turns: int) -> int:
    """Print a line a kind; 1 where two workers are too slow."""
    people, small = (_devices(users_with_tastes(n, ITEMS)) for n in (users, 2_000))
    seconds: dict[str, list[float]] = {kind: [] for kind in KINDS}
    opened, digests = list[float](), set[bytes]()
    for _ in range(turns):
        for kind in KINDS:
            threads = 2 if "two" in kind else 1
            with _workers(kind, threads, opened) as workers:
                _train(small, workers, threads)
                started = time.perf_counter()
                digests.add(_train(people, workers, threads))
                seconds[kind].append(time.perf_counter() - started)
    if len(digests) > 1:
        raise SystemExit("models differ")
    medians = {kind: statistics.median(found) for kind, found in seconds.items()}
    for kind, found in medians.items():
        print(f"{kind:28s}{found:8.1f} s")
    ratio = medians["one worker"] / medians["two workers"]
    print(f"two workers are {ratio:.2f} times as quick as one (at least {LEAST_RATIO}); a cluster starts in ", end="")
    print(f"{statistics.median(opened):.1f} s; models are equal")
    return int(ratio < LEAST_RATIO)


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


def _train(people: Population, workers: Workers, threads: int) -> bytes:
    start = MODEL.init(people.block.n_items, {}, 0)
    return state_digest(run_rounds(MODEL, start, Simulation(people, workers, threads), Plan()))


if __name__ == "__main__":
    asked = [int(word) for word in sys.argv[1:]]
    raise SystemExit(main(*(asked or (USERS, TURNS))))
