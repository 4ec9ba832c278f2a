"""Before training: what a plan will cost, what its noise does, what to expect of it, and what a year of it spends.

Nothing here reads a log. Costs and noise follow from the plan and from public sizes; quality comes from a simulation on
a synthetic market (`coterie.experiment.planning_simulation`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from coterie.evaluation.private import PrivateMetrics
from coterie.experiment.estimate import check_size
from coterie.experiment.fitting import Notify, silent
from coterie.experiment.planning_budget import account_facts, cost_facts, year_facts
from coterie.experiment.planning_market import People
from coterie.experiment.planning_rounds import assumption, foreseen_rounds, noise_facts, round_facts
from coterie.experiment.planning_simulation import simulate, simulated_size
from coterie.experiment.private import is_sealed, plan_of, refuse_free_decisions
from coterie.models.registry import build
from coterie.privacy.accountant import Event
from coterie.privacy.ledger import Ledger
from coterie.privacy.plan import BoundRound, Plan
from coterie.privacysettings import PlanSettings
from coterie.settings import Settings
from coterie.types import State

__all__ = ["People", "foresee", "plan_facts"]

SETTING_OF = {"neighbours": "adjacency"}  # where a plan's field has another name among the settings


def foresee(
    settings: Settings,
    people: People,
    *,
    runs_per_year: int = 52,
    ledger: Ledger | None = None,
    seed: int = 0,
    simulated: bool = True,
    notify: Notify = silent,
) -> dict[str, Any]:
    """What a training under these settings would cost and give: the object that ``coterie plan --json`` prints.

    Args:
        settings: the plan, the model and the account; what they say about logs does not matter.
        people: how many users, clients and items.
        runs_per_year: how often such a training runs in a year.
        ledger: the ledger that the account is in, if there is one; it is read and never written.
        seed: seed of the simulation.
        simulated: whether to simulate at all.
        notify: told of progress.

    Raises:
        CoterieError: whatever would refuse the training itself, in the same words.
    """
    model, plan = build(settings.model), plan_of(settings.plan)
    refuse_free_decisions(settings, plan)
    check_size(model, people.items)
    if simulated:
        simulated_size(people)
    training = _of_training(settings, plan)
    shares, bounds = foreseen_rounds(model, training, people, seed)
    content: dict[str, Any] = {
        "model": model.name,
        "users": people.users,
        "clients": people.parties,
        "devices": people.devices,
        "items": people.items,
        "private": plan.private,
        "plan": plan_facts(settings.plan, plan, bounds[0], len(shares)),
        "cost": None,
        "noise": noise_facts(training, bounds[0], people),
        "rounds": round_facts(training, bounds, shares, people),
        "rounds_assume": assumption(bounds, people),
        "upload_bytes_per_client": sum(bound.upload_bytes for bound in bounds),
        "metrics": {"share": settings.evaluation.metrics_share, "releases": len(_measurings(settings, plan))},
        "year": None,
        "account": None,
        "simulation": None,
    }
    if plan.private:
        content |= _spent(settings, plan, shares, runs_per_year, ledger)
    if simulated:
        content["simulation"] = simulate(model, training, people, seed, notify)
    return content


def _spent(
    settings: Settings, plan: Plan, shares: tuple[float, ...], runs: int, ledger: Ledger | None
) -> dict[str, Any]:
    """What one run costs, and a year of them, and what the account says to it."""
    events = _events(settings, plan, shares)
    account = account_facts(plan, events, settings.ledger.account, ledger)
    year = year_facts(plan, events, runs, account["delta"])
    return {"cost": cost_facts(plan, events), "year": year, "account": account}


def plan_facts(asked: PlanSettings, plan: Plan, bound: BoundRound, rounds: int) -> dict[str, dict[str, Any]]:
    """Every field of a plan: its value, where that came from, and what it comes to where it says nothing by itself.

    ``from`` is "asked" (on the command line or in a file), "default", or "follows" (from what was asked).
    """
    notes = _notes(plan, bound, rounds)
    values, facts = plan.as_dict(), {}
    for field in fields(plan):
        origin = "default" if values[field.name] == field.default else "follows"
        given = SETTING_OF.get(field.name, field.name) in asked.model_fields_set
        facts[field.name] = {
            "value": values[field.name],
            "from": "asked" if given else origin,
            "note": notes.get(field.name),
        }
    return facts


def _notes(plan: Plan, bound: BoundRound, rounds: int) -> Mapping[str, str]:
    """What a field comes to for these people, where its value does not say."""
    notes = {}
    if plan.private:
        of = f"in each of {plan.rounds} rounds" if plan.rounds else "of one release with the whole budget"
        notes["noise_multiplier"] = f"noise over one user's bound, {of}"
        notes["delta"] = f"{float(plan.delta or 0) * plan.max_users:.2g} / max_users"
    if plan.rounds is None:
        notes["rounds"] = f"the model takes {rounds}"
    if plan.clip_norm is None:
        notes["clip_norm"] = "the model's own, below" if plan.private else "no clipping"
    if plan.budget is None and plan.private:
        notes["budget"] = "the model's own, below"
    if plan.min_clients is None:
        notes["min_clients"] = f"{bound.min_clients:,} for these clients"
    if plan.aggregation == "secure":
        notes["masks"] = "real" if bound.real_masks else "left out of simulations of so many devices"
        if plan.threshold is None:
            notes["threshold"] = "more than two thirds of the clients, or by the rates of a sparse graph"
    return notes


def _of_training(settings: Settings, plan: Plan) -> Plan:
    """The part of the plan that pays for the training, where another part pays for metrics."""
    return plan.slice(1 - settings.evaluation.metrics_share) if is_sealed(settings, plan) else plan


def _events(settings: Settings, plan: Plan, shares: tuple[float, ...]) -> tuple[Event, ...]:
    """All that one run tells the accountant: its rounds, and what is released of its metrics."""
    rounds = _of_training(settings, plan).events(shares)
    budget = PrivateMetrics(()).budget(State(0))
    measured = [plan.slice(settings.evaluation.metrics_share / n).events(budget) for n in _measurings(settings, plan)]
    return (*rounds, *(event for events in measured for event in events))


def _measurings(settings: Settings, plan: Plan) -> tuple[int, ...]:
    """For each noised release of metrics, how many divide what is set aside for them: tuning needs one of its own."""
    if not is_sealed(settings, plan):
        return ()
    return (2, 2) if settings.model.get("tune") else (1,)
