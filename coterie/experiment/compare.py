"""The comparison that operators ask for: each client alone, federated, mixed, centralised, and plain popularity."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from coterie.evaluation.metrics import Measured, evaluate
from coterie.evaluation.significance import ClientGain, Paired, joining, paired
from coterie.experiment.cases import CaseTable
from coterie.experiment.fitting import Bench, scorer
from coterie.models.base import Model
from coterie.models.popularity import Popularity
from coterie.settings import EvaluationSettings
from coterie.types import Cases, Floats, Items, State

METRIC, AT = "ndcg", 10
MOST_LISTED = 1_000
CART_ONLY = "federated_cart_only"


@dataclass(frozen=True)
class ClientStates:
    """What one client could serve, all on the catalogue `items` that it ranks; None where it was not trained."""

    items: Items
    federated: State
    alone: State | None = None
    mix: State | None = None
    centralised: State | None = None


@dataclass(frozen=True)
class Comparison:
    """Measured schemes, over all cases and per client; `left_out` counts devices beyond those that are listed."""

    together: Mapping[str, Measured]
    per_client: list[dict[str, Any]]
    gains: list[ClientGain]
    macro: Mapping[str, Mapping[str, float]]
    skipped: list[str]
    unreachable: int
    left_out: int = 0


def headline(at: tuple[int, ...]) -> str:
    """The metric that decides and that sentences quote: ``ndcg@10``, or nDCG at the nearest measured cut-off."""
    return f"{METRIC}@{min(at, key=lambda k: (abs(k - AT), k))}"


def compare_silos(
    model: Model,
    bench: Bench,
    cases: CaseTable,
    states: Iterator[tuple[int, ClientStates]],
    settings: EvaluationSettings,
) -> Comparison:
    """Measure every scheme at every organisation, each on the catalogue that it ranks."""
    measured: dict[str, list[Measured]] = {}
    rows, gains, skipped = list[dict[str, Any]](), list[ClientGain](), list[str]()
    metric = headline(settings.at)
    for client, available in states:
        name = bench.people.names[client]
        own = usable(cases.of_client(name, available.items), settings)
        if not len(own):
            skipped.append(name)
            gains.append(ClientGain(name, None, None))
            continue
        found = measure_schemes(model, available, own, settings)
        for scheme, result in found.items():
            measured.setdefault(scheme, []).append(result)
        gain = paired_gain(found, metric, settings, bench.seed)
        rows.append(_client_row(bench, client, available, own, found) | {
            "intervals": {scheme: _interval(result, metric, settings, bench.seed) for scheme, result in found.items()},
            "gain": None if gain is None else {"metric": metric, **asdict(gain)},
        })  # fmt: skip
        gains.append(client_gain(name, found, metric, gain))
        bench.notify("step", {"text": "evaluating clients", "done": len(rows), "total": len(bench.people)})
    n_items = len(bench.fit.catalogue)
    together = {scheme: Measured.merge(parts, n_items) for scheme, parts in measured.items()}
    macro = {scheme: _macro([part.means() for part in parts]) for scheme, parts in measured.items()}
    strangers = sorted(set(cases.client.unique()) - set(bench.people.names))
    reached = sum(row["targets"] for row in rows)
    return Comparison(together, rows, gains, macro, [*skipped, *strangers], int(cases.asked.sum()) - reached)


def compare_devices(
    model: Model, bench: Bench, cases: CaseTable, states: ClientStates, settings: EvaluationSettings
) -> Comparison:
    """Measure the schemes over clients that are one person each (or one organisation): one catalogue, all at once.

    A single person's log cannot rank what that person never touched, so nobody is compared with training alone.
    """
    own = usable(cases.all(), settings)
    together = measure_schemes(model, states, own, settings)
    clients = cases.answerable_clients()
    names, label = np.unique(clients.to_numpy(), return_inverse=True)
    by_client = {scheme: result.means_by(label, len(names)) for scheme, result in together.items()}
    rows = [_device_row(bench, str(name), at, by_client) for at, name in enumerate(names[:MOST_LISTED])]
    if bench.people.one_user_each:  # a device is called as its user is, and whoever reads a result need not know users
        rows = [{**row, "client": f"device {at + 1}"} for at, row in enumerate(rows)]
    macro = {
        scheme: {metric: float(np.nanmean(values)) for metric, values in found.items()}
        for scheme, found in by_client.items()
        if len(names)
    }
    return Comparison(together, rows, [], macro, [], own.unreachable, max(0, len(names) - MOST_LISTED))


def summarise(comparison: Comparison, settings: EvaluationSettings, seed: int, silos: bool) -> dict[str, Any]:
    """The parts of a result that people read: metrics, intervals, macro means, and whether joining helped."""
    metrics: dict[str, dict[str, float] | None] = {}
    intervals: dict[str, dict[str, list[float]]] = {}
    wanted = [f"{name}@{k}" for name in ("ndcg", "hit_rate", "recall", "mrr") for k in settings.at]
    for scheme, measured in comparison.together.items():
        summary = measured.summary(settings.confidence, settings.resamples, seed, wanted)
        metrics[scheme] = {name: estimate.mean for name, estimate in summary.items()}
        intervals[scheme] = {n: [e.low, e.high] for n, e in summary.items() if e.low is not None and e.high is not None}
    for scheme in ("centralised", "alone"):
        metrics.setdefault(scheme, None)
    any_measured = next(iter(comparison.together.values()), None)
    return {
        "metrics": metrics,
        "intervals": intervals,
        "macro": comparison.macro,
        "cases": {
            "evaluated": any_measured.cases if any_measured else 0,
            "groups": any_measured.groups if any_measured else 0,
            "unreachable": comparison.unreachable,
        },
        "comparison": _joining(comparison, settings, seed) if silos else None,
        "per_client": comparison.per_client,
        "per_client_left_out": comparison.left_out,
        "clients_without_cases": comparison.skipped,
    }


def usable(cases: Cases, settings: EvaluationSettings) -> Cases:
    """The cases as the settings let them be asked: with or without past baskets."""
    return cases if settings.history else replace(cases, query=cases.query.without_history())


def measure_schemes(
    model: Model, states: ClientStates, cases: Cases, settings: EvaluationSettings
) -> dict[str, Measured]:
    """Every scheme that has a state, on the same cases."""
    popularity: Floats = states.federated["popularity"]
    n_items = len(popularity)

    def measure(scored_by: Model, state: State, asked: Cases) -> Measured:
        return evaluate(
            scorer(scored_by, state),
            asked,
            settings.at,
            n_items,
            popularity=popularity,
            items=states.items,
            predicts_values=scored_by.predicts_values(state),
        )

    found = {}
    for scheme in ("alone", "federated", "mix", "centralised"):
        state = getattr(states, scheme)
        if state is not None:
            found[scheme] = measure(model, state, cases)
    floor = State(1, {"n_items": states.federated["n_items"], "popularity": popularity})
    found["popularity"] = measure(Popularity(), floor, cases)
    if model.terms().history and cases.query.history is not None and len(cases.query.history.item):
        found[CART_ONLY] = measure(model, states.federated, replace(cases, query=cases.query.without_history()))
    return found


def _client_row(
    bench: Bench, client: int, states: ClientStates, cases: Cases, found: Mapping[str, Measured]
) -> dict[str, Any]:
    users = bench.people.client(client)
    return {
        "client": bench.people.names[client],
        "users": users.n_users - bench.fit.guests_of(client),
        "guests": bench.fit.guests_of(client),
        "baskets": users.n_baskets,
        "interactions": len(users.item),
        "items": len(states.items),
        "cases": len(cases),
        "targets": len(cases.target.item),
        "unreachable": cases.unreachable,
        **{scheme: measured.means() for scheme, measured in found.items()},
    }


def _device_row(bench: Bench, name: str, at: int, by_client: Mapping[str, Mapping[str, Floats]]) -> dict[str, Any]:
    values = {
        scheme: {metric: float(column[at]) for metric, column in found.items()} for scheme, found in by_client.items()
    }
    return {
        "client": name,
        "users": 1 if bench.people.one_user_each else bench.people.block.n_users,
        "alone": None,
        **values,
    }


def _interval(
    measured: Measured, metric: str, settings: EvaluationSettings, seed: int
) -> dict[str, list[float | None]]:
    """Confidence interval of the headline metric; null bounds where a client has fewer than two users with cases."""
    estimate = measured.summary(settings.confidence, settings.resamples, seed, [metric])[metric]
    return {metric: [estimate.low, estimate.high]}


def paired_gain(found: Mapping[str, Measured], metric: str, settings: EvaluationSettings, seed: int) -> Paired | None:
    """What a client would serve (the mix where there is one) against training alone, on the same cases."""
    if "alone" not in found:
        return None
    served = found.get("mix", found["federated"])
    return paired(found["alone"], served, metric, confidence=settings.confidence, seed=seed)


def client_gain(name: str, found: Mapping[str, Measured], metric: str, gain: Paired | None) -> ClientGain:
    """One client's metric alone and together; None where it was not compared."""
    if gain is None:
        return ClientGain(name, None, None)
    alone = float(found["alone"].metric(metric).mean())
    return ClientGain(name, alone, alone + gain.difference, gain.p_value, found["alone"].cases)


def _joining(comparison: Comparison, settings: EvaluationSettings, seed: int) -> dict[str, Any] | None:
    """Did joining help? Counts, the worst change, significance, and one plain sentence."""
    if not any(gain.alone is not None for gain in comparison.gains):
        return None
    metric = headline(settings.at)
    served = "mix" if "mix" in comparison.together else "federated"
    result = joining(comparison.gains, metric)
    overall = paired(comparison.together["alone"], comparison.together[served], metric, seed=seed)
    numbers = {k: v for k, v in asdict(result).items() if k not in ("noun", "worst", "best", "metric")}
    return {
        "metric": metric,
        "served": served,
        "sentence": result.sentence(),
        **numbers,
        "worst": asdict(result.worst) if result.worst else None,
        "best": asdict(result.best) if result.best else None,
        "over_cases": asdict(overall),
    }


def _macro(means: list[dict[str, float]]) -> dict[str, float]:
    """The mean over clients of each metric, over those that have it: errors need held-out values."""
    names = dict.fromkeys(name for one in means for name in one)
    return {name: float(np.mean([one[name] for one in means if name in one])) for name in names}
