"""How long one question takes inside a serving process: EASE weights over 20,000 items, baskets of five, no HTTP.

Weights are random: the time does not depend on what they say. Each line is the median and the 99th percentile of
questions asked one after the other.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from coterie.data.catalogue import Catalogue
from coterie.experiment.run import Run
from coterie.models.ease import Ease
from coterie.serving.engine import ServedModel, answer
from coterie.serving.live import LiveCatalogue
from coterie.serving.words import Ask, BasketLine, Item, Version
from coterie.types import State

ITEMS, BASKET, QUESTIONS = 20_000, 5, 2_000


def random_run(rng: np.random.Generator) -> Run:
    """A run whose weights are random float32."""
    weights = np.empty((ITEMS, ITEMS), np.float32)
    for row in weights:
        row[:] = rng.standard_normal(ITEMS, dtype=np.float32)
    state = State(1, {"n_items": np.array(ITEMS), "popularity": rng.random(ITEMS), "weights": weights})
    return Run(Ease(), state, Catalogue(tuple(f"i{at:05d}" for at in range(ITEMS))))


def shop(ids: tuple[str, ...]) -> LiveCatalogue:
    """Every item with a price, a stock (one in fifty is gone) and tags; half of them in groups."""
    return LiveCatalogue(
        Item(
            id,
            price=float(at % 300),
            stock=at % 50,
            group=f"g{at // 3}" if at % 2 else None,
            attributes={"tags": ("vegan",) if at % 3 else ("new",)},
        )
        for at, id in enumerate(ids)
    )


def main() -> None:
    """Print one line for each kind of question."""
    rng = np.random.default_rng(0)
    run = random_run(rng)
    served = ServedModel.of(run, Version(1, "", "", "ease", None, 0))
    full = shop(run.items)
    baskets = [
        tuple(BasketLine(run.items[at]) for at in rng.choice(ITEMS, BASKET, replace=False)) for _ in range(QUESTIONS)
    ]
    cases: dict[str, tuple[LiveCatalogue, dict[str, Any]]] = {
        "the shop said nothing": (LiveCatalogue(), {}),
        "stock and groups": (full, {}),
        "and a filter": (full, {"filter": "price < 200 && 'vegan' in tags"}),
        "and a boost": (full, {"boost": "price > 100.0 ? 1.5 : 1.0"}),
        "and 100 suggestions": (full, {"k": 100}),
        "and reasons": (full, {"explain": True}),
        "and diversity": (full, {"diversity": 0.3}),
    }
    for name, (live, options) in cases.items():
        questions = [Ask("basket", lines, **options) for lines in baskets]
        first = seconds(served, live, questions[:1])[0]
        taken = seconds(served, live, questions)
        middle, late = np.percentile(taken, [50, 99])
        print(
            f"{name:22s} median {middle * 1e3:6.3f} ms   p99 {late * 1e3:6.3f} ms   (the first {first * 1e3:6.1f} ms)"
        )


def seconds(served: ServedModel, live: LiveCatalogue, questions: list[Ask]) -> list[float]:
    """What each question took."""
    taken = []
    for question in questions:
        started = time.perf_counter()
        answer(served, live, question)
        taken.append(time.perf_counter() - started)
    return taken


if __name__ == "__main__":
    main()
