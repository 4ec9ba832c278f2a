"""What runs of a plan cost: one of them, a year of them, and what the account that pays has left."""

from __future__ import annotations

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from coterie.errors import LedgerError, PlanError
from coterie.privacy import accountant
from coterie.privacy.accountant import Event
from coterie.privacy.ledger import Ledger
from coterie.privacy.ledger_owner import is_gone
from coterie.privacy.ledger_statement import ROUNDING, Account, micros, moment, price, text_of
from coterie.privacy.ledger_tables import RESERVED, SPENT
from coterie.privacy.plan import Plan

APART = 0.01  # share of delta that is left to what the integer noise of all runs may differ from a Gaussian
MOST_RUNS = 1_000  # of which it is said how many an account has room for


def cost_facts(plan: Plan, events: Sequence[Event]) -> dict[str, Any]:
    """What one run costs: towards those who see what is released, and towards the coordinator."""
    delta = _delta(plan)
    seen = [event.towards("coordinator") for event in events]
    return {
        "epsilon": plan.epsilon,
        "delta": delta,
        "noise_multiplier": plan.noise_multiplier,
        "releases": sum(event.count for event in events),
        "epsilon_of_releases": accountant.epsilon(events, delta, plan.accountant),
        "epsilon_towards_coordinator": accountant.epsilon(seen, delta, plan.accountant),
        "accountant": plan.accountant,
        "neighbours": plan.neighbours,
        "unit": plan.unit,
    }


def year_facts(plan: Plan, events: Sequence[Event], runs: int, delta: float) -> dict[str, Any]:
    """What so many runs on the same users spend at the account's `delta`, and what one may cost to keep to one epsilon.

    ``naive_sum`` is what adding up epsilons would say; ``by_zcdp``, whether the year had to be counted by zCDP
    (`composed`). ``epsilon_per_run`` is the largest (to three figures) at which all runs of the year together stay
    within the plan's epsilon.
    """
    alone, together = composed(events, delta), _times(events, runs)
    return {
        "runs": runs,
        "delta": delta,
        "epsilon_of_one": alone,
        "epsilon": composed(together, delta),
        "by_zcdp": accountant.epsilon(together, delta) == math.inf,
        "naive_sum": runs * alone,
        "epsilon_kept": plan.epsilon,
        "epsilon_per_run": _per_run(plan, events, runs, delta),
    }


def composed(events: Sequence[Event], delta: float) -> float:
    """Epsilon of all events together.

    What integer noise may differ from a Gaussian counts with e^epsilon, and can use up `delta` where many runs compose.
    Then they are accounted for by zCDP, without sampling: that holds for the integers as they are
    (`coterie.privacy.binding` refuses a round of which it does not), and gives a somewhat larger epsilon.
    """
    found = accountant.epsilon(events, delta)
    return found if found < math.inf else accountant.epsilon(_concentrated(events), delta)


def account_facts(plan: Plan, events: Sequence[Event], name: str, ledger: Ledger | None) -> dict[str, Any]:
    """What the account that pays has spent, what remains, and whether it would take this run.

    Without the account its first charge opens it, at the plan's delta and without a limit.
    """
    account, rows = _account(name, ledger)
    facts: dict[str, Any] = {"account": name, "exists": account is not None, "charged": not plan.simulated_noise}
    if account is None or ledger is None:
        opened = {
            "delta": _delta(plan),
            "limit": None,
            "spent": 0.0,
            "after": None,
            "accepted": True,
            "runs_left": None,
        }
        return (
            facts | opened | {"why": f"account '{name}' does not exist yet: the first charge opens it, with no limit"}
        )
    held = _held(rows)
    spent = price(held, account.delta)
    facts |= {
        "delta": account.delta,
        "limit": account.limit,
        "period_limit": account.period_limit,
        "period_days": account.period_days,
        "spent": spent,
        "remaining": None if account.limit is None else max(account.limit - spent, 0.0),
    }
    return facts | _verdict(account, rows, held, events)


def _verdict(account: Account, rows: Sequence[Mapping[str, Any]], held: Counter[str], events: Sequence[Event]) -> Any:
    """Whether the run fits, and how many of its kind do; as the ledger itself decides when it reserves."""
    run, recent = Counter(text_of((event,)) for event in events), held
    if account.period_days is not None:
        since = moment(time.time_ns() // 1000) - timedelta(days=account.period_days)
        recent = _held(rows, micros(since))
    spans = (("", account.limit, held), (_span(account), account.period_limit, recent))
    limits = [(span, limit, groups) for span, limit, groups in spans if limit is not None]
    try:
        after = price(held + run, account.delta)
        broken = [
            f"it would bring epsilon{span} to {price(groups + run, account.delta):.4g}, over the limit of {limit:.6g}"
            for span, limit, groups in limits
            if not _fits(groups, run, 1, account.delta, limit)
        ]
    except PlanError as error:
        return {"after": None, "accepted": False, "runs_left": 0, "why": str(error)}
    room = [_room(groups, run, account.delta, limit) for _, limit, groups in limits]
    why = broken[0] if broken else "it fits" if limits else "the account has no limit"
    return {"after": after, "accepted": not broken, "runs_left": min(room, default=None), "why": why}


def _span(account: Account) -> str:
    return f" of {account.period_days:g} days" if account.period_days is not None else ""


def _fits(groups: Counter[str], run: Counter[str], times: int, delta: float, limit: float) -> bool:
    runs = Counter({text: count * times for text, count in run.items()})
    return price(groups + runs, delta) <= limit * (1 + ROUNDING)


def _room(groups: Counter[str], run: Counter[str], delta: float, limit: float) -> int:
    """How many such runs fit, at most `MOST_RUNS`."""
    low, high = 0, 1
    while high <= MOST_RUNS and _fits(groups, run, high, delta, limit):
        low, high = high, 2 * high
    high = min(high, MOST_RUNS + 1)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if _fits(groups, run, middle, delta, limit) else (low, middle)
    return low


def _account(name: str, ledger: Ledger | None) -> tuple[Account | None, list[dict[str, Any]]]:
    if ledger is None:
        return None, []
    try:
        return ledger.account(name), ledger.charges(name)
    except LedgerError:
        return None, []


def _held(rows: Sequence[Mapping[str, Any]], since: int | None = None) -> Counter[str]:
    """What counts on the account: spent charges (since then), and reservations that the ledger would not return."""
    now = time.time_ns() // 1000
    return Counter(
        row["events"]
        for row in rows
        if (row["state"] == SPENT and (since is None or row["spent_at"] > since))
        or (row["state"] == RESERVED and row["lapses_at"] > now and not is_gone(row["owner"]))
    )


def _per_run(plan: Plan, events: Sequence[Event], runs: int, delta: float) -> float | None:
    """The largest epsilon of one run at which `runs` of them cost the plan's epsilon, rounded down; None: none is.

    All runs divide one budget as their releases divide that of a run. Integer noise of a smaller epsilon may differ
    more from a Gaussian, since that counts with e^epsilon.
    """
    limit = float(plan.epsilon)
    for counted in (list(events), _concentrated(events)):
        noise = _noise_for(counted, runs, limit, delta)
        if noise is None:
            continue
        exact = [replace(e, noise_multiplier=z, total_variation=0.0) for e, z in zip(events, noise, strict=True)]
        found = _rounded_down(accountant.epsilon(exact, _delta(plan), plan.accountant))
        coarser = (1 + _exp(limit)) / (1 + _exp(found))
        apart = [min(event.total_variation * coarser, 1.0) for event in events]
        own = [replace(event, total_variation=t) for event, t in zip(exact, apart, strict=True)]
        if composed(_times(own, runs), delta) <= limit:
            return found
    return None


def _noise_for(events: Sequence[Event], runs: int, epsilon: float, delta: float) -> list[float] | None:
    """The noise multiplier of each release that keeps `runs` of such runs to `epsilon`; None where none does."""
    precision = [event.noise_multiplier**-2 for event in events]
    shares = [one / math.fsum(precision) / runs for one in precision]
    like = events[0]
    try:
        total = accountant.noise_multiplier(
            epsilon,
            delta * (1 - APART),
            shares=[share for share in shares for _ in range(runs)],
            sampler=like.sampler,
            rate=like.rate,
            sample_size=like.sample_size,
            population=like.population,
            neighbours=like.neighbours,
            mechanism=like.mechanism,
        )
    except PlanError:
        return None
    return [total / math.sqrt(share) for share in shares]


def _concentrated(events: Sequence[Event]) -> list[Event]:
    seen = [event.towards("coordinator") for event in events]
    return [replace(event, mechanism="concentrated", total_variation=0.0) for event in seen]


def _times(events: Sequence[Event], runs: int) -> list[Event]:
    return [replace(event, count=event.count * runs) for event in events]


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))


def _rounded_down(number: float) -> float:
    place = 10.0 ** (2 - math.floor(math.log10(number)))
    return math.floor(number * place) / place


def _delta(plan: Plan) -> float:
    return float(plan.delta or 0.0)
