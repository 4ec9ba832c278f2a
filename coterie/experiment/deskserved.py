"""What a node could serve: its own model alone, the federation's, or a mix of both. All of it is made at home."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from coterie.data.catalogue import Catalogue
from coterie.evaluation.metrics import Measured, evaluate
from coterie.experiment.compare import METRIC
from coterie.experiment.deskrows import Lens, Rows
from coterie.experiment.fitting import weigh
from coterie.federation.mix import DEFAULT_WEIGHT, MixChoice
from coterie.models.base import Model
from coterie.models.mixing import mixed
from coterie.models.popularity import Popularity
from coterie.types import Cases, Floats, Query, Scores, State

ALONE, FEDERATED, MIX, POPULARITY = "alone", "federated", "mix", "popularity"
CHOICES = (MIX, FEDERATED, ALONE)
"""What may be kept; of equally good ones the first."""


@dataclass(frozen=True)
class Scheme:
    """One way of serving: a model's state, and how it ranks the node's own catalogue."""

    model: Model
    state: State
    lens: Lens
    catalogue: Catalogue
    """The items of the state, by own ids."""

    def scorer(self) -> Callable[[Query], Scores]:
        """What scores the own catalogue: float32 [queries, own items]."""
        return self.lens.scorer(self.model, self.state)

    def measure(self, cases: Cases, at: tuple[int, ...], popularity: Floats) -> Measured:
        """Every metric on `cases` over the own catalogue; `popularity` (float64 [own items]) adds novelty."""
        rates = self.model.predicts_values(self.state) and self.lens.covers_all
        n_items = len(self.lens.place)
        return evaluate(self.scorer(), cases, at, n_items, popularity=popularity, predicts_values=rates)


@dataclass(frozen=True)
class Ends:
    """What a mix is made of: the federation's model on the agreed items that the rows have, and the node's own.

    The own model is of all own items: alone a node learns also from those that nobody else has, and a mix goes on
    serving them. Where every own item was agreed, both are of the same.
    """

    model: Model
    together: State
    own: State
    rows: Rows

    @classmethod
    def of(cls, model: Model, state: State, rows: Rows) -> Ends:
        """From the federation's `state` and the rows; trains the own model."""
        bench = rows.bench() if rows.lens.covers_all else rows.bench_of_all(model)
        return cls(model, rows.bench().restricted(model, state, 0), bench.alone(model, 0), rows)

    def federated(self) -> Scheme:
        """The federation's model as it is."""
        return Scheme(self.model, self.together, self.rows.lens, self.rows.served_catalogue())

    def alone(self) -> Scheme:
        """The own model as it is."""
        return self._on_own_items(self.own)

    def mix(self, weight: float) -> Scheme:
        """Both, with this weight of the own model."""
        if self.rows.lens.covers_all:
            return self._on_own_items(self.model.personalise(self.together, self.own, weight))
        return self._on_own_items(mixed(self.together, self.own, weight, self.rows.lens.place))

    def popularity(self) -> Scheme:
        """What sells best in the federation."""
        arrays = {name: self.together[name] for name in ("n_items", "popularity")}
        return replace(self.federated(), model=Popularity(), state=State(1, arrays))

    def _on_own_items(self, state: State) -> Scheme:
        """A state that is of the agreed items where these are all, else of the own ones."""
        rows = self.rows
        if rows.lens.covers_all:
            return Scheme(self.model, state, rows.lens, rows.served_catalogue())
        whole = np.arange(len(rows.whole.catalogue), dtype=np.int32)
        return Scheme(self.model, state, Lens(whole), rows.whole.catalogue)


def schemes(model: Model, state: State, rows: Rows, weight: float) -> Mapping[str, Scheme]:
    """Every way of serving, from the federation's `state`; `weight` is that of the own model in the mix."""
    ends = Ends.of(model, state, rows)
    return {ALONE: ends.alone(), FEDERATED: ends.federated(), MIX: ends.mix(weight), POPULARITY: ends.popularity()}


def chosen_mix(model: Model, others: State, rows: Rows, cases: Cases, k: int) -> MixChoice:
    """The weight of the own model, by the node's own validation.

    Args:
        model: what was trained.
        others: the federation's model, of rows that were not validated on.
        rows: the own rows without those of validation.
        cases: the questions of validation, over the own catalogue of `rows`.
        k: cut-off of the metric that decides.
    """
    if not len(cases):
        return MixChoice(DEFAULT_WEIGHT, "default: no validation question can be answered from the rows before it")
    ends = Ends.of(model, others, rows)
    return weigh(lambda weight: ends.mix(weight).scorer(), cases, METRIC, k, len(rows.whole.catalogue))
