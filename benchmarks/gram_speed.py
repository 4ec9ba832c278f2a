"""The Gram kernel side by side with scipy's sparse product, on the same rows in the same process.

The kernel bounds every user and sums integers; scipy multiplies float64. Sums must be equal. Ratios below 1 mean that
the kernel is faster; times on a shared machine are noise, ratios of medians in one run are less so.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import data
import numpy as np
import scipy.sparse as sp

from coterie.data.market import market
from coterie.engines.local import LocalEngine
from coterie.models.ease import Ease
from coterie.models.kernels.gram import dense
from coterie.privacy.plan import Plan
from coterie.types import Population, UserBlock

REPEATS = 5


def timed(work: Callable[[], object]) -> float:
    """Median seconds of `work`, after one run that is not counted."""
    work()
    found = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        work()
        found.append(time.perf_counter() - started)
    return statistics.median(found)


def compare(name: str, block: UserBlock, clip_norm: float | None) -> None:
    """Print the ratio for one population of one-user clients."""
    model, plan = Ease(), Plan(clip_norm=clip_norm)
    people = Population(block, np.arange(block.n_users + 1), tuple(str(u) for u in range(block.n_users)))
    engine = LocalEngine(people)
    state = model.init(block.n_items, {}, 0)
    spec = model.next_round(state)
    assert spec is not None
    bound = plan.bind(spec, engine.users, engine.clients)
    matrix = sp.csr_matrix(
        (np.ones(len(block.item)), block.item, block.basket_ptr), shape=(block.n_baskets, block.n_items)
    )
    ours = timed(lambda: engine.collect(model, bound, state))
    theirs = timed(lambda: _product(matrix))
    if clip_norm is None:
        total = engine.collect(model, bound, state)
        assert np.array_equal(dense(total.integers["gram"], block.n_items), (matrix.T @ matrix).toarray())
    label = "unclipped" if clip_norm is None else f"clip norm {clip_norm:g}"
    print(f"{name:28s} {label:14s} kernel {ours:.3f} s, scipy {theirs:.3f} s, ratio {ours / theirs:.2f}", flush=True)


def _product(matrix: sp.csr_matrix) -> np.ndarray:
    return (matrix.T @ matrix).toarray()


def ml_1m() -> UserBlock:
    """MovieLens 1M, one row a user, items ascending."""
    split = np.load(data.folder("ml-1m") / "ncf_loo_split.npz")
    matrix = sp.csr_matrix((np.ones(len(split["indices"])), split["indices"], split["indptr"]))
    matrix.sort_indices()
    ptr = matrix.indptr.astype(np.int64)
    return UserBlock(matrix.shape[1], ptr, ptr, matrix.indices.astype(np.int32))


if __name__ == "__main__":
    films = ml_1m()
    for norm in (None, 50.0):
        compare("ml-1m, 6,040 one-user clients", films, norm)
    from coterie.data.blocks import population
    from coterie.data.catalogue import Catalogue

    log = market(shops=1, customers=200_000, items=5_000, baskets=400_000, seed=0).log
    made = population(log.with_frame(log.frame.drop("client", "basket")), Catalogue.of(log))[0].block
    compare("market, 200,000 customers", made, None)
