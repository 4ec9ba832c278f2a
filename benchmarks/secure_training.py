"""Secure aggregation beside plain sums, in whole trainings on MovieLens 1M dealt to 20 silos, masks real.

EASE is to cost at most 1.5 times the plain training, iALS the plain training and 1.5 times its own time for masks.
Trainings take turns in one process; ratios of medians are what counts, times on a shared machine are noise. The sums
must be the same integers.
"""

from __future__ import annotations

import statistics
import time

import data
import numpy as np
from ials_speed import films

from coterie.engines import simulation
from coterie.engines.local import LocalEngine
from coterie.federation.loop import run_rounds
from coterie.models.base import Model
from coterie.models.ease import Ease
from coterie.models.ials import Ials
from coterie.privacy.plan import Plan
from coterie.types import Population, State

TURNS, SILOS = 3, 20
masking: list[float] = []


def main() -> None:
    """Print a row per model."""
    data.folder("ml-1m")
    block = films()
    ends = np.linspace(0, block.n_users, SILOS + 1).astype(np.int64)
    people = Population(block, ends, tuple(f"silo {c}" for c in range(SILOS)))
    _note_mask_times()
    print("model                      plain s  secure s  ratio  masks s  (secure - plain) / masks")
    for model in (Ease(), Ials(iterations=2), Ials(factors=128, iterations=1)):
        plain, secure, masks = [], [], []
        for _ in range(TURNS):
            before, seconds = train(model, people, Plan())
            plain.append(seconds)
            masking.clear()
            after, seconds = train(model, people, Plan(aggregation="secure"))
            secure.append(seconds)
            masks.append(sum(masking))
            assert all(np.array_equal(before[name], after[name]) for name in before.arrays), "sums differ"
        one, other, mask = map(statistics.median, (plain, secure, masks))
        name = f"{model.name} {getattr(model, 'factors', '')}".strip()
        print(f"{name:<26} {one:7.2f} {other:9.2f} {other / one:6.2f} {mask:8.2f} {(other - one) / mask:8.2f}")


def train(model: Model, people: Population, plan: Plan) -> tuple[State, float]:
    """A whole training, and how many seconds it took."""
    started = time.perf_counter()
    state = run_rounds(model, model.init(people.block.n_items, {}, 0), LocalEngine(people), plan)
    return state, time.perf_counter() - started


def _note_mask_times() -> None:
    """Write down how long masking took in each secure sum."""
    summed = simulation.secure_sum

    def noting(*args, **more):  # type: ignore[no-untyped-def]
        result = summed(*args, **more)
        masking.append(result.mask_seconds)
        return result

    simulation.secure_sum = noting  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
