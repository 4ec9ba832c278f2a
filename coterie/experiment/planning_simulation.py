"""What quality to expect of a plan: trainings on a synthetic market of about the size that was asked for.

Noise takes the real path (drawn from the seed, charged to nobody). First everything that can be compared at one size,
with and without noise; then the same plan on a ladder of sizes, to find from how many customers joining pays. It is a
simulation on synthetic data: it shows how the noise compares with what there is to learn, and promises no figure.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from coterie.data.log import InteractionLog
from coterie.data.splits import split
from coterie.errors import ConfigError, DataError, PlanError
from coterie.experiment.api import train
from coterie.experiment.fitting import Notify, silent
from coterie.experiment.planning_market import BASKETS_EACH, People, made_up
from coterie.models.base import Model
from coterie.privacy.plan import Plan
from coterie.settings import SplitSettings

LADDER = (250, 500, 1_000, 2_000, 4_000, 8_000, 16_000)
MOST_USERS, MOST_CLIENTS, MOST_ITEMS = LADDER[-1], 20, 1_000
LEAST_USERS, LEAST_PER_CLIENT = 100, 20  # with fewer there is hardly a case to measure
PATIENCE = 90.0  # seconds of processor time after which no further step of the ladder is begun
METRIC, SCHEMES = "ndcg@10", ("alone", "mix", "federated", "popularity")
RESAMPLES = 500
TARGETS = 2  # items that are left out, one at a time, of each basket of the test


@dataclass(frozen=True)
class Asked:
    """Rows to train on, and questions for validation and test."""

    log: InteractionLog
    valid: pl.DataFrame | None
    test: pl.DataFrame


def simulate(model: Model, plan: Plan, people: People, seed: int = 0, notify: Notify = silent) -> dict[str, Any]:
    """Train on synthetic data of this size (no more than one minute allows), and on a ladder of sizes.

    Returns ``schemes`` (name -> value, low, high of `METRIC`), ``gain`` (what the mix adds to training alone, with and
    without noise), ``ladder``, ``pays_from`` (customers in all; None: nowhere) and the sentences that say so.
    """
    started, begun = time.perf_counter(), time.process_time()
    size = simulated_size(people)
    notify("step", {"text": f"simulating {size.users:,} customers", "done": 0, "total": None})
    asked = _asked(size, seed)
    runs = {"": _trained(model, Plan() if plan.private else plan, asked, size, seed)}
    if plan.private:
        runs["private_"] = _trained(model, plan, asked, size, seed)
    served = runs.get("private_", runs[""])
    rungs, left = _climbed(model, plan, size, seed, served, begun + PATIENCE, notify)
    pays_from, sentence = joining(rungs, size, plan.private)
    if not (model.personal or size.organisations):
        pays_from, sentence = None, f"'{model.name}' asks nothing of the user, so there is nothing to set it against"
    return {
        "synthetic": True,
        "seed": seed,
        "metric": METRIC,
        "users": size.users,
        "clients": size.parties,
        "items": size.items,
        "baskets_per_user": BASKETS_EACH,
        "capped": _capped(people, size, left),
        "schemes": _schemes(runs),
        "gain": _gains(runs),
        "ladder": rungs,
        "pays_from": pays_from,
        "sentence": sentence,
        "seconds": time.perf_counter() - started,
    }


def simulated_size(people: People) -> People:
    """The size of a simulation: what was asked for, or as much of it as takes about a minute.

    Raises:
        ConfigError: so few users that hardly anything could be measured.
    """
    clients = 0 if people.devices else min(people.clients, MOST_CLIENTS)
    least = max(LEAST_USERS, LEAST_PER_CLIENT * clients)
    if people.users < least:
        raise ConfigError(
            f"a simulation needs at least {least:,} users here to measure anything, got {people.users:,}; "
            "--no-simulate leaves it out"
        )
    return People(min(people.users, MOST_USERS), clients, min(people.items, MOST_ITEMS), people.titles)


def joining(rungs: Sequence[Mapping[str, Any]], size: People, private: bool) -> tuple[int | None, str]:
    """From how many customers on joining pays (None: it does not show), and a sentence about it.

    It pays where the interval of the gain lies above 0 at two rungs in a row: at one alone it may be the luck of a draw
    of the noise. With more customers it may end: then clients learn enough by themselves, and the sentence says so.
    """
    what = "joining pays" if size.organisations else f"the {'private ' * private}federation beats popularity"
    known = [rung for rung in rungs if rung["low"] is not None]
    if not known:
        return None, "no size of the ladder could be trained"
    first, last = _longest([rung["low"] > 0 for rung in known])
    if last - first + 1 < min(2, len(known)):
        span = f"{known[0]['users']:,} to {known[-1]['users']:,} customers"
        return None, f"within the simulated range ({span}) it does not show that {what}"
    start = known[first]
    text = f"{what} {'already with' if first == 0 else 'from about'} {start['users']:,} customers"
    text += f" ({start['per_client']:,} a client)" if size.organisations else ""
    if last + 1 < len(known):
        text += f", up to about {known[last]['users']:,}; with more it does not show reliably"
    return start["users"], text


def _longest(pays: Sequence[bool]) -> tuple[int, int]:
    """First and last place of the longest stretch of True, the first of equals; (0, -1): there is none.

    >>> _longest([True, False, True, True])
    (2, 3)
    """
    best, first = (0, -1), 0
    for place, one in enumerate(pays):
        if not one:
            first = place + 1
        elif place - first > best[1] - best[0]:
            best = (first, place)
    return best


# --- the trainings ---------------------------------------------------------------------------------------------------


def _trained(model: Model, plan: Plan, asked: Asked, size: People, seed: int) -> dict[str, Any]:
    """The result of one training, its noise drawn from the seed."""
    clients = asked.log.frame["client"].n_unique()  # of devices, not all have rows that train
    settings = {
        "model": model.model_dump(),
        "clients": {"clients": "users" if size.devices else "column"},
        "evaluation": {"at": (10,), "resamples": RESAMPLES},
    }
    run = train(
        asked.log,
        model.name,
        plan=_seeded(plan, clients, devices=size.devices),
        valid=asked.valid,
        test=asked.test,
        seed=seed,
        settings={**settings, "split": {"split": "given"}},
    )
    result: dict[str, Any] = run.result
    return result


def _asked(size: People, seed: int) -> Asked:
    """Later baskets of made-up people as questions, the same with and without noise; the rest trains."""
    divided = split(made_up(size, seed), SplitSettings(split="carts", max_targets=TARGETS), seed)
    if divided.test is None:
        raise DataError(f"a market of {size.users:,} customers is too small to hold anything out")
    return Asked(divided.train, None if divided.valid is None else divided.valid.cases, divided.test.cases)


def _seeded(plan: Plan, clients: int, *, devices: bool) -> Plan:
    """The plan of a simulation: noise from the seed, no masks between devices, and no more clients than there are."""
    changes: dict[str, Any] = {}
    if plan.private:
        changes["simulated_noise"] = True
    if plan.aggregation == "secure" and devices:
        changes["masks"] = "elided"
    if plan.min_clients is not None:
        changes["min_clients"] = min(plan.min_clients, clients)
    if plan.threshold is not None:
        changes["threshold"] = min(plan.threshold, clients)
    return plan.but(**changes)


def _climbed(
    model: Model, plan: Plan, size: People, seed: int, measured: Mapping[str, Any], until: float, notify: Notify
) -> tuple[list[dict[str, Any]], list[int]]:
    """The plan on a ladder of sizes, and the sizes for which there was no time left (a moment in processor time).

    `measured` is the result at `size`, which is one of the rungs.
    """
    rungs, left = list[dict[str, Any]](), list[int]()
    for users in sorted({*LADDER, size.users}):
        if (plan.private and users > plan.max_users) or users < LEAST_PER_CLIENT * size.clients:
            continue
        if users != size.users and time.process_time() > until:
            left.append(users)
            continue
        notify("step", {"text": f"simulating {users:,} customers", "done": 0, "total": None})
        known = measured if users == size.users else None
        rungs.append(_rung(model, plan, replace(size, users=users), seed, known))
    return rungs, left


def _rung(model: Model, plan: Plan, size: People, seed: int, measured: Mapping[str, Any] | None) -> dict[str, Any]:
    """One size: every scheme's metric, and what is gained by joining, with its interval."""
    facts: dict[str, Any] = {"users": size.users, "per_client": size.users // size.parties, "refused": None}
    try:
        result = measured or _trained(model, plan, _asked(size, seed), size, seed)
    except (PlanError, DataError) as error:
        return facts | {"schemes": {}, "gain": None, "low": None, "high": None, "refused": str(error)}
    schemes = {name: found[METRIC] for name in SCHEMES if (found := result["metrics"].get(name))}
    return facts | {"schemes": schemes, **_gain(result)}


def _gain(result: Mapping[str, Any]) -> dict[str, float | None]:
    """What is served against training alone, case by case; where nobody can train alone, against popularity.

    The latter is no paired comparison: its interval is as wide as both intervals together, so it errs on the safe side.
    """
    if result["comparison"] is not None:
        over = result["comparison"]["over_cases"]
        return {"gain": over["difference"], "low": over["low"], "high": over["high"]}
    ours, floor = (result["metrics"][scheme][METRIC] for scheme in ("federated", "popularity"))
    intervals = (result["intervals"].get(scheme, {}).get(METRIC) for scheme in ("federated", "popularity"))
    (low, high), (floor_low, floor_high) = (found or (None, None) for found in intervals)
    if low is None or floor_low is None:
        return {"gain": ours - floor, "low": None, "high": None}
    return {"gain": ours - floor, "low": low - floor_high, "high": high - floor_low}


# --- what is said of them --------------------------------------------------------------------------------------------


def _schemes(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, float | None]]:
    """Every scheme with and without noise; training alone needs none, so it is one scheme."""
    found = {}
    for prefix, result in runs.items():
        for scheme in SCHEMES:
            values = result["metrics"].get(scheme)
            name = scheme if scheme == "alone" else prefix + scheme
            if values:
                low, high = result["intervals"].get(scheme, {}).get(METRIC, (None, None))
                found[name] = {"value": values[METRIC], "low": low, "high": high}
    return found


def _gains(runs: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What joining adds with and without noise, and the share of the latter that the noise leaves."""
    gains: dict[str, Any] = {f"{prefix}served": _gain(result) for prefix, result in runs.items()}
    private, exact = gains.get("private_served"), gains["served"]
    kept = private["gain"] / exact["gain"] if private and exact["gain"] > 0 else None
    return gains | {"kept": kept}


def _capped(people: People, size: People, left: Sequence[int]) -> list[str]:
    """Where the simulation is smaller than what was asked for, and which way that errs."""
    found = []
    if people.users > size.users:
        found.append(
            f"simulated with {size.users:,} of {people.users:,} users, so that it takes a minute: the same noise "
            "weighs more on fewer users, and quality under noise is understated"
        )
    if people.parties > size.parties and not people.devices:
        found.append(
            f"simulated with {size.parties} of {people.parties:,} clients: each has more customers than it would have, "
            "and what joining gains is understated"
        )
    if people.items > size.items:
        found.append(f"simulated with {size.items:,} of {people.items:,} items: quality under noise is overstated")
    if left:
        sizes = ", ".join(f"{users:,}" for users in left)
        found.append(f"no time was left for {sizes} customers")
    return found
