"""Metrics that are paid for: what each user's questions came to leaves its client in a noised sum alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from coterie.engines.local import LocalEngine
from coterie.evaluation.metrics import evaluate
from coterie.evaluation.private import OWN, PrivateMetrics, means_of
from coterie.experiment.cases import CaseTable
from coterie.experiment.compare import CART_ONLY, METRIC, ClientStates, headline, measure_schemes, usable
from coterie.experiment.fitting import Bench, scorer
from coterie.federation.localstore import UserStore
from coterie.federation.loop import run_rounds
from coterie.models.base import Model, SumModel
from coterie.privacy.counts import Counts
from coterie.privacy.plan import Plan
from coterie.settings import EvaluationSettings
from coterie.types import Floats, Population, State, UserBlock

METRICS = ("ndcg", "hit_rate")
WHAT, CHOICE, COUNTS = "metrics", "choice", "counts"
COUNTS_SHARE = 0.1  # of what pays for metrics


@dataclass(frozen=True)
class Charged:
    """What was released of a comparison: means over users by scheme, and the noise of each (standard deviation)."""

    metrics: dict[str, dict[str, float]]
    noise: dict[str, dict[str, float]]
    users: float
    counts: dict[str, float]
    """Users and baskets that were trained on, and the noise of each, as released."""

    def as_result(self) -> dict[str, Any]:
        """The parts of a result that raw metrics would fill."""
        return {
            "metrics": {"centralised": None, "alone": None, **self.metrics},
            "intervals": {},
            "macro": {},
            "cases": {"evaluated": None, "groups": self.users, "unreachable": None},
            "comparison": None,
            "per_client": [],
            "metrics_noise": self.noise,
            "counts": self.counts,
        }


def charge_metrics(
    model: Model,
    bench: Bench,
    plan: Plan,
    state: State,
    cases: CaseTable,
    settings: EvaluationSettings,
) -> Charged:
    """Measure what was released (the model in `state`, and popularity), and release means over users under `plan`.

    What a user adds depends on its own rows and on what was released before, and on nothing else: the catalogue is the
    whole one, and no model of a client's own is measured.
    """
    at = int(headline(settings.at).rpartition("@")[2])
    own, names = dict[str, Floats](), list[str]()
    available = ClientStates(np.arange(len(bench.fit.catalogue), dtype=np.int32), state)
    for name in bench.people.names if bench.silos else ("",):
        asked = usable(cases.of_client(name, None) if bench.silos else cases.all(), settings)
        if not len(asked):
            continue
        found = measure_schemes(model, available, asked, settings)
        found.pop(CART_ONLY, None)  # not every client has it
        names = [f"{scheme}:{metric}@{at}" for scheme in found for metric in METRICS]
        values = np.stack([found[s].metric(f"{m}@{at}") for s in found for m in METRICS], axis=1)
        own[name] = means_of(values, asked.group)
    metrics, counts = paid_plans(plan)
    released = _released(bench, metrics, names, own, WHAT)
    engine = LocalEngine(bench.taught, bench.threads, bench.block, None, None, bench.seed, COUNTS)
    counted = run_rounds(Counts(), Counts().init(), engine, counts, exit=bench.exit, what=COUNTS)
    return Charged(
        _by_scheme(names, released["means"]),
        _by_scheme(names, released["std"]),
        float(released["users"]),
        {name: float(counted[name]) for name in ("users", "users_noise", "baskets", "baskets_noise")},
    )


def paid_plans(plan: Plan) -> tuple[Plan, Plan]:
    """What pays for metrics, and for counts of users and baskets."""
    return plan.slice(1 - COUNTS_SHARE), plan.slice(COUNTS_SHARE)


def charged_choice(
    model: Model, bench: Bench, plan: Plan, state: State, cases: CaseTable, at: int
) -> tuple[Model, State, list[dict[str, Any]]]:
    """Choose among the model's grid by validation metrics that leave once, as one noised sum.

    Candidates differ from `model` in one hyper-parameter each, and are fits of the sums that are there: nothing is
    trained again. Another than `model` is taken only if it is better by more than the noise.
    """
    candidates = [(model, state)]
    for key, options in model.grid.items():
        refits = key not in model.scoring_only
        if refits and not isinstance(model, SumModel):
            continue
        for option in options:
            other = model.model_copy(update={key: option})
            if other != model:
                candidates.append((other, other.fit(state) if refits and isinstance(other, SumModel) else state))
    if len(candidates) == 1:
        return model, state, []
    names = [f"{METRIC}@{at}:{number}" for number in range(len(candidates))]
    own = dict[str, Floats]()
    clients = list(bench.people.names) if bench.silos else [""]
    for client in clients:
        asked = cases.of_client(client, None) if client else cases.all()
        if len(asked):
            found = [evaluate(scorer(m, s), asked, (at,), len(bench.fit.catalogue)) for m, s in candidates]
            own[client] = means_of(np.stack([f.metric(f"{METRIC}@{at}") for f in found], axis=1), asked.group)
    released = _released(bench, plan, names, own, CHOICE)
    means, std = released["means"], released["std"]
    best = int(np.argmax(means))
    best = best if means[best] - means[0] > std[best] else 0
    trials = [
        {**other.model_dump(), f"{METRIC}@{at}": float(mean), "noise_std": float(one)}
        for (other, _), mean, one in zip(candidates, means, std, strict=True)
    ]
    return *candidates[best], trials


def _released(bench: Bench, plan: Plan, names: Sequence[str], own: Mapping[str, Floats], what: str) -> State:
    """The charged means over users of what each user's questions came to, by client."""
    people, stacked = _population(bench, own, len(names))
    store = UserStore(people.block.n_users)
    store.view(0, people.block.n_users).stage(OWN, stacked)
    store.commit()
    engine = LocalEngine(people, bench.threads, bench.block, None, store, bench.seed, what)
    return run_rounds(PrivateMetrics(tuple(names)), State(0), engine, plan, exit=bench.exit, what=what)


def _population(bench: Bench, own: Mapping[str, Floats], metrics: int) -> tuple[Population, Floats]:
    """Units without rows, at the clients that take part: those that nothing was asked of add nothing but noise."""
    if bench.silos:
        names = bench.people.names
        sizes = [len(own.get(name, ())) for name in names]
    else:
        units = sum(map(len, own.values()))
        sizes, names = [1] * units, ("",) * units
    ptr = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    users = int(ptr[-1])
    block = UserBlock(0, np.zeros(users + 1, np.int64), np.zeros(1, np.int64), np.zeros(0, np.int32))
    rows = [own[name] for name in (names if bench.silos else own) if name in own]
    return Population(block, ptr, names), np.concatenate(rows) if rows else np.zeros((0, metrics))


def _by_scheme(names: Sequence[str], values: Floats) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for name, value in zip(names, values.tolist(), strict=True):
        scheme, _, metric = name.partition(":")
        found.setdefault(scheme, {})[metric] = value
    return found
