"""The buyer's table: what each organisation gains by joining, and how much of it privacy takes, at several epsilons.

    read -> clean -> split, once -> all pooled, and each organisation alone, once
         -> for each epsilon: one charged training, and each organisation's mix, chosen at home
         -> every scheme on the same cases

A private training takes the way that those of `coterie.experiment.train` take: bound by its plan, charged before
anything of it leaves, with real masks. All of them are reserved before the first one begins: an account that cannot pay
for the whole table pays for nothing.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from coterie.data.log import InteractionLog
from coterie.data.splits import Given
from coterie.errors import ConfigError, DataError
from coterie.experiment.buyers_figures import Member, figures
from coterie.experiment.buyers_notes import caveats, differences
from coterie.experiment.buyers_schemes import members_of
from coterie.experiment.buyers_trainings import STAGE, Joined, Market, federations_of, market_of, trained
from coterie.experiment.compare import headline
from coterie.experiment.fitting import Notify, silent
from coterie.experiment.prepare import read_inputs
from coterie.experiment.privacyfacts import privacy_facts
from coterie.experiment.private import RAW, WHY, plan_of
from coterie.experiment.request import require_empty
from coterie.experiment.tidy import finite
from coterie.experiment.workers import workers_of
from coterie.federation.release import disclose
from coterie.files import write_text
from coterie.models.registry import build
from coterie.privacy.plan import Plan
from coterie.report.buyers_table import NOISELESS, as_csv, markdown, plot_by_epsilon, sentence
from coterie.settings import Settings

EPSILONS = (NOISELESS, "8", "4", "1")


def run_comparison(
    settings: Settings,
    epsilons: Sequence[str] = EPSILONS,
    *,
    folder: Path | None = None,
    accept_proposal: bool = False,
    notify: Notify = silent,
) -> dict[str, Any]:
    """The buyer's table of the logs that `settings` name: the object that ``coterie compare --json`` prints.

    Args:
        settings: as of a training; `epsilons` take the place of the plan's.
        epsilons: numbers or "none", as text; every number is a training that is charged to the account.
        folder: where to write ``result.json``, ``table.md``, ``table.csv`` and ``by-epsilon.svg``; None writes nothing.
        accept_proposal: take the proposed column mapping where none is given.
        notify: told of progress.

    Raises:
        CoterieError: bad input or settings, or an account that cannot pay for all trainings; nothing is charged then.
    """
    plans = _checked(settings, epsilons)
    if folder is not None:
        require_empty(folder)
    log, given, candidates = read_inputs(settings, accept_proposal=accept_proposal)
    name = "compare" if folder is None else folder.name
    result = compare_log(log, settings, tuple(plans), given=given, candidates=candidates, name=name, notify=notify)
    if folder is not None:
        write_table(folder, result)
    return result


def compare_log(
    log: InteractionLog,
    settings: Settings,
    epsilons: Sequence[str] = EPSILONS,
    *,
    given: Mapping[str, Given] | None = None,
    candidates: pl.DataFrame | None = None,
    name: str = "compare",
    notify: Notify = silent,
) -> dict[str, Any]:
    """The same for a log in memory; `name` is what the ledger calls these trainings, with a number of their own."""
    started, plans = time.perf_counter(), _checked(settings, epsilons)
    if settings.plan.epsilon != "none" or settings.plan.noise_multiplier is not None:
        notify("note", {"text": "epsilon and noise_multiplier of the settings give way to the epsilons of the table"})
    for note in log.notes:
        notify("note", {"text": note})
    with workers_of(settings.run, notify) as workers:
        market = market_of(log, settings, plans, dict(given or {}), candidates, notify, workers)
        federations = federations_of(market, log, plans, name, notify)
        joined = trained(market, federations, notify)
        members = list(members_of(market, joined, notify))
    if not members:
        raise DataError(f"{log.source}: no organisation has a test case that its own catalogue can answer")
    for one in federations:
        if one.plan.private:
            members = disclose(members, RAW, one.work.exit, WHY)
    notify("step", {"text": "intervals and tests", "done": 0, "total": None})
    return _result(market, joined, members, time.perf_counter() - started)


def epsilons_of(text: str) -> tuple[str, ...]:
    """The epsilons that a text lists, as they are called: "none", or a number.

    Raises:
        ConfigError: one is neither "none" nor a positive number, or is named twice.

    >>> epsilons_of("none,8, 4.0")
    ('none', '8', '4')
    """
    found = list[str]()
    for word in (part.strip() for part in text.split(",") if part.strip()):
        name = word if word == NOISELESS else f"{_number(word):.12g}"
        if name in found:
            raise ConfigError(f"epsilons name {name} twice, got '{text}'")
        found.append(name)
    if not found:
        raise ConfigError(f"epsilons must name at least one, such as none,8,4,1; got '{text}'")
    return tuple(found)


def write_table(folder: Path, result: Mapping[str, Any]) -> None:
    """Write the table into a new folder: as JSON, Markdown and CSV, and a plot of the means by epsilon."""
    require_empty(folder)
    write_text(folder / "result.json", json.dumps(result, indent=2, allow_nan=False) + "\n")
    write_text(folder / "table.md", markdown(result))
    write_text(folder / "table.csv", as_csv(result))
    plot_by_epsilon(result, folder / "by-epsilon.svg")


def _checked(settings: Settings, epsilons: Sequence[str]) -> dict[str, Plan]:
    """The plan of each epsilon, in order.

    Raises:
        ConfigError: a setting under which columns could not be compared.
        PlanError: a plan that cannot hold.
    """
    refusals = {
        "tune = true gives columns different hyper-parameters; set them instead": bool(settings.model.get("tune")),
        "patience (early stopping) gives columns different numbers of rounds; set the number": settings.run.patience,
        "metrics_share hides the metrics that the table is made of": settings.evaluation.metrics_share,
        "compare = false leaves nothing to show": not settings.evaluation.compare,
        "split = none holds nothing out to measure on": settings.split.split == "none",
    }
    for reason, refused in refusals.items():
        if refused:
            raise ConfigError(f"the buyer's table compares trainings that differ in epsilon alone, and {reason}")
    build(settings.model)
    return {name: _plan(settings, name) for name in epsilons_of(",".join(epsilons))}


def _plan(settings: Settings, epsilon: str) -> Plan:
    """Without noise sums are exact and unclipped, whatever bounds a private plan sets: what noise is measured by."""
    if epsilon == NOISELESS:
        return Plan()
    return plan_of(settings.plan.model_copy(update={"epsilon": float(epsilon), "noise_multiplier": None}))


def _number(word: str) -> float:
    try:
        number = float(word)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise ConfigError(f"epsilons must be positive numbers or 'none', got '{word}'")
    return number


def _result(market: Market, joined: Sequence[Joined], members: Sequence[Member], seconds: float) -> dict[str, Any]:
    settings, bench = market.settings, market.bench
    metric, names = headline(settings.evaluation.at), [one.federation.epsilon for one in joined]
    measured = figures(members, names, metric, settings.evaluation, settings.run.seed)
    others = {row["epsilon"]: row for row in measured["by_epsilon"]}
    for row, one in zip(measured["by_epsilon"], joined, strict=True):
        way = one.federation.work
        row["sentence"] = sentence(row, others, measured["macro"]["alone"]["mean"])
        row["privacy"] = privacy_facts(one.federation.plan, way.rounds[STAGE], way.exit)
        row["upload_bytes_per_client"] = sum(r["upload_bytes_per_client"] for r in way.rounds[STAGE])
        row["seconds"] = one.seconds
    books = next((one.federation.books for one in joined if one.federation.books is not None), None)
    private = [one.federation.bench for one in joined if one.federation.plan.private]
    result = {
        "model": market.model.name,
        "hyper_parameters": market.model.model_dump(),
        "seed": settings.run.seed,
        "scope": "simulation",
        "metric": metric,
        "confidence": settings.evaluation.confidence,
        "data": {
            "clients": len(bench.people),
            "items": len(bench.fit.catalogue),
            "interactions": len(bench.people.block.item),
            "users": len(bench.fit.index) - int(bench.fit.index.user.null_count()),
        },
        **measured,
        "clients_without_cases": sorted(set(bench.people.names) - {member.name for member in members}),
        "split": {"method": market.prepared.split.method, "note": market.prepared.split.note},
        "cleaning": market.cleaning,
        "differences": differences(settings, bench, private[0] if private else None),
        "caveats": caveats(settings, private=bool(private)),
        "account": None if books is None else books.balance(),
        "seconds": seconds,
    }
    tidy: dict[str, Any] = finite(result)
    return tidy
