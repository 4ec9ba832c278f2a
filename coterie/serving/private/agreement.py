"""How often an exported model suggests what the exact one does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from coterie.evaluation.ranking import top_k
from coterie.experiment.run import Run, by_popularity_where_unknown
from coterie.rng import stream
from coterie.types import Query, Ragged, Scores

BASKETS, LONGEST, AT = 400, 8, 10
HOW = f"{BASKETS} baskets of 1 to {LONGEST} items, drawn by popularity"


def agreement(run: Run, scores: Callable[[Ragged], Scores]) -> dict[str, Any]:
    """The mean share of the exact model's ten best that `scores` has among its ten best, and on what it was measured.

    `scores` gives float32 [baskets, items] in the order of the run's items. Equal runs are asked the same baskets.
    """
    cart = random_baskets(run, BASKETS)
    steps = [np.arange(len(cart[q]))[::-1] for q in range(len(cart))]
    exact = run.model.score(run.state, Query(cart, step=np.concatenate(steps).astype(np.int32)))
    return {f"overlap@{AT}": round(overlap(run, cart, exact, scores(cart)), 4), "measured_on": HOW}


def overlap(run: Run, cart: Ragged, exact: Scores, found: Scores) -> float:
    """The mean share of the exact ten best that are found; 1 for a basket to which nothing can be added."""
    both = [top_k(by_popularity_where_unknown(one, run.state), cart, None, AT).tolist() for one in (exact, found)]
    shares = list[float]()
    for want, got in zip(*both, strict=True):
        wanted = {i for i in want if i >= 0}
        shares.append(len(wanted & set(got)) / len(wanted) if wanted else 1.0)
    return float(np.mean(shares))


def random_baskets(run: Run, number: int) -> Ragged:
    """Baskets of different sizes, their items drawn by popularity without replacement."""
    rng, n = stream(0, "export", "agreement"), len(run.items)
    share = np.maximum(run.state["popularity"].astype(np.float64), 0.0)
    share = share + share.mean() * 1e-3 if share.any() else np.ones(n)
    sizes = rng.integers(1, max(min(LONGEST, n - 1), 1) + 1, number)
    return Ragged.of([rng.choice(n, size, replace=False, p=share / share.sum()).tolist() for size in sizes.tolist()])
