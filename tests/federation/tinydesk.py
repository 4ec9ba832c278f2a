"""A member's desk over a log of nested lists, for federations in one process."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from coterie.experiment.desk import JobFacts, MetricsInput, NodeResult
from coterie.experiment.deskmetrics import metric_names
from coterie.federation.alignment import Alignment
from coterie.federation.assortment import Assortment
from coterie.models.base import Model
from coterie.ring import Accumulator
from coterie.testing.logs import Log, block_of
from coterie.types import Integers, LocalStore, RoundSpec, State, Summand, UserBlock

ITEMS = tuple(f"item{i:02d}" for i in range(12))
GAIN = 0.125  # what every member of these tests gains


def table_of(items: Sequence[str]) -> pl.DataFrame:
    """What is said of items."""
    return pl.DataFrame({"item": list(items), "title": [f"title {item}" for item in items]})


@dataclass
class TinyDesk:
    """A desk over a log whose entries are positions in `items`; `carried` are those of its assortment.

    `said` keeps the last sums that it made of a round of the model, before any noise.
    """

    users: Log
    items: Sequence[str] = ITEMS
    carried: Sequence[str] | None = None
    works: list[TinyWork] = field(default_factory=list)
    said: dict[int, Integers] = field(default_factory=dict)

    @property
    def own_users(self) -> int:
        return len(self.users)

    def assortment(self, *, private: bool) -> Assortment:
        return Assortment.listed(table_of(self.items if self.carried is None else self.carried))

    def open(self, facts: JobFacts, alignment: Alignment | None = None) -> TinyWork:
        assert alignment is not None
        place = alignment.index(self.items)
        kept = [[[int(place[i]) for i in basket if place[i] >= 0] for basket in user] for user in self.users]
        users = block_of([[basket for basket in user if basket] for user in kept], len(facts.items))
        self.works.append(TinyWork(self, facts, users))
        return self.works[-1]

    def close(self) -> None:
        """Nothing is held that costs anything."""


@dataclass
class TinyWork:
    """The rows of a small log on the agreed items."""

    desk: TinyDesk
    facts: JobFacts
    users: UserBlock
    coverage: Mapping[str, float] = field(default_factory=lambda: {"items": 1.0})

    def contribute(self, summand: Summand, spec: RoundSpec, state: State, store: LocalStore | None) -> Accumulator:
        out = Accumulator(spec)
        summand.contribute(spec, state, self.users, store, out)
        self.desk.said[spec.index] = out.flat.copy()
        return out

    def evaluate(self, model: Model, state: State, folder: Path | None, **_: Any) -> NodeResult:
        """A result that says the same of every model."""
        values = {"alone": {"ndcg@10": 0.5}, "mix": {"ndcg@10": 0.5 + GAIN}}
        words = f"you gain {GAIN} by joining"
        rest = (0.0, 2 * GAIN, 0.5, 1, 1, 0.5, "", "mix", self.coverage, folder)
        return NodeResult(words, values, "ndcg@10", GAIN, *rest)

    def metrics_input(self, model: Model, state: State) -> MetricsInput:
        """Every user's questions came to a half."""
        names = metric_names(self.facts.evaluate_at, private=self.facts.plan.private)
        return MetricsInput.of(names, np.full((self.users.n_users, len(names)), 0.5))
