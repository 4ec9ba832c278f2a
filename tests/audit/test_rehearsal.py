"""The rehearsal finds canaries that show, whatever the training looks at."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from coterie.audit.canaries import DESIGNS, Design, draw
from coterie.audit.rehearsal import LOOSER, best_design
from coterie.models.ease import Ease
from coterie.models.popularity import Popularity
from coterie.privacy.plan import Plan
from coterie.ring import Accumulator
from coterie.testing.logs import population_of, zipf_log
from coterie.types import LocalStore, PartSpec, RoundSpec, State, Total, UserBlock

N_ITEMS = 400
PEOPLE = population_of([[user] for user in zipf_log(100, N_ITEMS)], N_ITEMS)


def plan(clip_norm: float = 1.0) -> Plan:
    return Plan(epsilon=1.0, delta=1e-5, aggregation="plain", clip_norm=clip_norm, max_users=5000, simulated_noise=True)


@dataclass(frozen=True)
class Head:
    """Counts which of the first items (the popular ones, in this log) go together, and no others."""

    head: int = 30

    def next_round(self, state: State) -> RoundSpec | None:
        if state.round:
            return None
        return RoundSpec(0, "user_sum", (PartSpec("head", (self.head**2,), "dense", math.inf, 1e4, 1 << 20),))

    def budget(self, state: State) -> tuple[float, ...]:
        return (1.0,)

    def contribute(
        self, spec: RoundSpec, state: State, users: UserBlock, local: LocalStore | None, out: Accumulator
    ) -> None:
        (part,) = spec.parts
        for u in range(users.n_users):
            mine = users.item[users.user_ptr[u] : users.user_ptr[u + 1]]
            counts = np.bincount(mine[mine < self.head], minlength=self.head).astype(np.float64)
            pairs = np.triu(np.outer(counts, counts), 1).ravel()
            factor = min(1.0, 0.999 * part.l2 / max(float(np.linalg.norm(pairs)), 1e-12))
            total = out["head"]
            total += np.trunc(part.scale * factor * pairs).astype(np.int64)

    def apply(self, spec: RoundSpec, state: State, total: Total) -> State:
        return state.updated(round=1)


def test_a_training_that_looks_at_popular_items_gets_canaries_that_have_them() -> None:
    assert best_design(Head(), PEOPLE, plan(), State(0), canaries=200).popular
    assert not best_design(Popularity(), PEOPLE, plan(), Popularity().init(N_ITEMS, {}, 0), canaries=200).popular


@pytest.mark.parametrize("clip_norm", [1.0, 20.0])
def test_canaries_fill_bounds_that_are_wider_than_the_real_ones(clip_norm: float) -> None:
    model = Popularity()
    design = best_design(model, PEOPLE, plan(clip_norm), model.init(N_ITEMS, {}, 0), canaries=200)
    user = draw(PEOPLE.block, design, 20, seed=0).block.users(0, 1)
    assert np.linalg.norm(np.bincount(user.item)) >= 0.9 * LOOSER * clip_norm


def test_the_lightest_of_equals_is_taken() -> None:
    found = best_design(Ease(), PEOPLE, plan(), Ease().init(N_ITEMS, {}, 0), canaries=200)
    assert DESIGNS.index(found) < DESIGNS.index(Design(24, 32))
