"""Fitting one model in every way that is compared: together, alone, mixed, pooled."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from coterie.data.catalogue import Catalogue
from coterie.engines.local import IN_TURN, LocalEngine
from coterie.engines.simulation import Simulation
from coterie.engines.spans import Workers
from coterie.evaluation.metrics import evaluate
from coterie.experiment.cases import CaseTable, FitData
from coterie.experiment.watch import criterion
from coterie.federation.job import opening
from coterie.federation.localstore import UserStore
from coterie.federation.loop import AfterRound, pinned, run_rounds
from coterie.federation.mix import WEIGHTS, MixChoice, choose_weight
from coterie.federation.release import Exit
from coterie.models.base import Model, SumModel, narrow_items
from coterie.models.features import item_features
from coterie.models.text import similarity
from coterie.privacy.plan import Plan
from coterie.types import Array, Cases, Items, Population, Query, Scores, State

Notify = Callable[[str, Mapping[str, Any]], None]


def silent(kind: str, content: Mapping[str, Any]) -> None:
    """The listener of a training that nobody watches."""


@dataclass(frozen=True)
class Bench:
    """Everything that fitting a model needs besides the model: data, plan, and how to work."""

    fit: FitData
    plan: Plan
    threads: int
    block: int
    seed: int
    own_catalogues: bool
    rounds: int | None = None
    """Most rounds of a training; None: as many as the model wants."""
    notify: Notify = silent
    public: Mapping[str, Array] = field(default_factory=dict)
    summed: Population | None = None
    """Whose rows the federation sums, where these are not all: rows that clients keep for a choice at home."""
    exit: Exit = field(default_factory=Exit)
    """The way out of what is summed, and who pays for it."""
    workers: Workers = IN_TURN
    """Who sums what clients contribute together; what one client does alone is done here."""

    @property
    def people(self) -> Population:
        return self.fit.population

    @property
    def silos(self) -> bool:
        """Whether the clients are several organisations, each with users of its own."""
        return len(self.people) > 1 and not self.people.one_user_each

    def items_of(self, client: int) -> Items:
        """The catalogue that a client ranks: its own, or all items."""
        return self.fit.own_items(client) if self.own_catalogues else np.arange(len(self.fit.catalogue), dtype=np.int32)

    def federated(
        self,
        model: Model,
        start: State | None = None,
        after: AfterRound | None = None,
        store: UserStore | None = None,
        what: str = "training",
    ) -> State:
        """Train over all clients by sums; `start` continues from a checkpoint, `store` holds what stays at clients."""
        engine = Simulation(self.taught, self.workers, self.threads, self.block, self._progress, store, self.seed, what)
        state = start or self.start(model)
        return run_rounds(model, state, engine, self.plan, after, self.rounds, self.exit, f"{model.name}: {what}")

    @property
    def taught(self) -> Population:
        """Whose rows the federation sums."""
        return self.fit.training if self.summed is None else self.summed

    def start(self, model: Model) -> State:
        """The state before the first round; under a plan with noise the model knows how much of it there will be."""
        return opening(model, self.plan, len(self.fit.catalogue), self.public, self.seed)

    def alone(self, model: Model, client: int) -> State:
        """Train one client by itself, on the catalogue that it ranks; clipped and quantised as in the federation.

        What stays at home needs no noise, and where the plan has noise, no clipping either.
        """
        items = self.items_of(client)
        users = self.fit.own_block(client, items)
        only = Population(users, np.array([0, users.n_users]), (self.people.names[client],))
        engine = LocalEngine(only, self.threads, self.block)
        start = model.init(len(items), self._narrowed(items), self.seed)
        plan = Plan(clip_norm=None if self.plan.private else self.plan.clip_norm)
        return run_rounds(model, start, engine, plan, rounds=self.rounds)

    def centralised(self, model: Model) -> State:
        """The same model from all rows in one place, by another path."""
        with pinned():
            return model.at_most(self.rounds).pooled(self.fit.training.block, self.public, self.seed)

    def restricted(self, model: Model, state: State, client: int) -> State:
        """The federation's model, solved again on the catalogue that the client ranks."""
        with pinned():
            return model.restrict(state, self.items_of(client))

    def _narrowed(self, items: Items) -> Mapping[str, Array]:
        """What is public, on the catalogue `items`."""
        full = State(0, {"n_items": np.array(len(self.fit.catalogue)), **self.public})
        narrowed = {name: array for name, array in narrow_items(items, full).items() if name != "n_items"}
        return narrowed | {name: array for name, array in self.public.items() if array.ndim == 0}

    def _progress(self, done: int) -> None:
        self.notify("step", {"text": "summing contributions", "done": done, "total": self.people.block.n_users})


def public_of(model: Model, fit: FitData) -> Mapping[str, Array]:
    """`public_from` of what a training's rows are.

    Values are ratings where the log has no baskets; beside baskets they are quantities.
    """
    explicit = fit.log.has("value") and not fit.log.has("basket")
    return public_from(model, fit.catalogue, explicit=explicit, timed=fit.log.has("time"))


def public_from(model: Model, catalogue: Catalogue, *, explicit: bool, timed: bool) -> Mapping[str, Array]:
    """What a model may know without any log: what kind of data it is, and what the texts of items say of them.

    It follows from the arguments alone, so that parties who agree on these agree on it. `explicit` says whether values
    are ratings, `timed` whether logs have times.
    """
    known: dict[str, Array] = {}
    if model.uses_values:
        known["explicit"] = np.array(explicit, np.int64)
    titles = catalogue.titles() if model.terms().text else []
    if sum(title is not None for title in titles) > 1:
        known |= similarity(titles)
    if model.uses_features:
        known["timed"] = np.array(timed, np.int64)
        known |= item_features(catalogue.texts, catalogue.items)
    return known


def scorer(model: Model, state: State) -> Callable[[Query], Scores]:
    """`model.score` with its state."""
    return lambda query: model.score(state, query)


def choose_mix(model: Model, together: State, own: State, cases: Cases, metric: str, k: int) -> MixChoice:
    """The weight of a silo's own model, by its own validation cases (`coterie.federation.mix`)."""

    def scoring(weight: float) -> Callable[[Query], Scores]:
        return scorer(model, model.personalise(together, own, weight))

    return weigh(scoring, cases, metric, k, int(together["n_items"]))


def weigh(
    scoring: Callable[[float], Callable[[Query], Scores]], cases: Cases, metric: str, k: int, n_items: int
) -> MixChoice:
    """The same for any mix: `scoring` gives what scores the `n_items` items of the cases with a weight of the own."""
    gains = {w: evaluate(scoring(w), cases, (k,), n_items).metric(f"{metric}@{k}") for w in WEIGHTS}
    return choose_weight(gains, cases.group)


def tune(model: Model, bench: Bench, valid: CaseTable, metric: str, k: int) -> tuple[Model, list[dict[str, Any]]]:
    """Choose hyper-parameters on validation, from ``model.grid``.

    First every combination of those that need a fit (all from one sum, where the model is a fit of one; else each is a
    training); then, on the best fit, those that enter at scoring time alone, one after the other. Returns the chosen
    model and a record of every trial. What counts is what `criterion` says.
    """
    state, trials = bench.federated(model), list[dict[str, Any]]()
    cases, n_items = valid.all(), len(bench.fit.catalogue)

    def value(candidate: Model, fitted: State) -> float:
        bench.notify("step", {"text": "choosing hyper-parameters on validation", "done": len(trials), "total": None})
        rates = candidate.predicts_values(fitted)
        found = evaluate(scorer(candidate, fitted), cases, (k,), n_items, predicts_values=rates).means()
        name, goodness = criterion(found, f"{metric}@{k}")
        trials.append({**candidate.model_dump(), name: found[name]})
        return goodness

    best = value(model, state)
    fitting = {key: options for key, options in model.grid.items() if key not in model.scoring_only}
    for combination in itertools.product(*fitting.values()):
        candidate = model.model_copy(update=dict(zip(fitting, combination, strict=True)))
        if candidate != model:
            fitted = _refitted(candidate, state, bench)
            if (found := value(candidate, fitted)) > best:
                model, best, state = candidate, found, fitted
    for key in (key for key in model.grid if key in model.scoring_only):
        for option in model.grid[key]:
            candidate = model.model_copy(update={key: option})
            if candidate != model and (found := value(candidate, state)) > best:
                model, best = candidate, found
    return model, trials


def _refitted(model: Model, state: State, bench: Bench) -> State:
    if isinstance(model, SumModel) and model.one_sum:
        with pinned():
            return model.fit(state)
    return bench.federated(model)
