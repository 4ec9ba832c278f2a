"""What a run promises about privacy, and what it spent: the ``privacy`` object of a result."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from coterie.experiment.books import LedgerBooks
from coterie.federation.release import Exit
from coterie.privacy import accountant
from coterie.privacy.accountant import Event
from coterie.privacy.binding import REAL_MASKS
from coterie.privacy.plan import Plan

NO_PROMISE = {
    "plain": "no differential privacy: sums are exact and the server sees each client's contribution",
    "secure": "no differential privacy: the server sees the sum of all clients alone, and that sum is exact",
}


def privacy_facts(plan: Plan, rounds: Sequence[Mapping[str, Any]], way: Exit) -> dict[str, Any]:
    """Everything that the privacy card states.

    Args:
        rounds: the records of the rounds of the model that is served, as in ``metrics.jsonl``.
        way: how things left in this training; a resumed run's earlier events are in `rounds`.
    """
    parts = {(part["name"], record["round"]): part for record in rounds for part in record["parts"]}
    facts: dict[str, Any] = {
        "unit": plan.unit,
        "epsilon": plan.epsilon,
        "delta": plan.delta,
        "noise": plan.noise,
        "aggregation": plan.aggregation,
        "accountant": plan.accountant if plan.private else None,
        "neighbours": plan.neighbours,
        "rounds": len(rounds),
        "clip_norm": plan.as_dict()["clip_norm"],
        "min_clients": rounds[0]["min_clients"] if rounds else plan.min_clients or 1,
        "ring_bits": plan.ring_bits,
        "parts": [{**part, "round": index} for (_, index), part in parts.items()],
        "masks": _masks(plan, rounds),
        "holds_against": _server(plan, rounds),
        "statement": _statement(plan),
    }
    if plan.private:
        facts |= _promised(plan, rounds, way)
    return facts | {"left": [{"what": one.what, "charged": one.charged, "why": one.why} for one in _distinct(way)]}


def _promised(plan: Plan, rounds: Sequence[Mapping[str, Any]], way: Exit) -> dict[str, Any]:
    events = [Event.from_json(record["event"]) for record in rounds if record.get("event")]
    spent = _all_events(events, way)
    delta, kind = float(plan.delta or 0), plan.accountant
    return {
        "noise_multiplier": plan.noise_multiplier,
        "noise_source": "simulated: drawn from the seed" if plan.simulated_noise else "operating system",
        "releasable": not plan.simulated_noise,
        "sampler": plan.sampler,
        "sampling_rate": plan.sampling_rate,
        "epsilon_spent": accountant.epsilon(spent, delta, kind) if spent else 0.0,
        "epsilon_towards_coordinator": accountant.epsilon([e.towards("coordinator") for e in spent], delta, kind)
        if spent
        else 0.0,
        "attempts": len(spent),
        "max_colluding": plan.max_colluding,
        "max_clients_per_user": plan.max_clients_per_user,
        "max_users": plan.max_users,
        "guests": plan.guests,
        "schedule": plan.schedule,
        "plan": plan.as_dict(),
    }


def _all_events(recorded: list[Event], way: Exit) -> list[Event]:
    """All that the run has spent, as its account has it; without one, finished rounds and what this process lost."""
    if isinstance(way.books, LedgerBooks):
        return way.books.spent()
    lost = list(way.events)
    for event in recorded:
        if event in lost:
            lost.remove(event)
    return [*recorded, *lost]


def _masks(plan: Plan, rounds: Sequence[Mapping[str, Any]]) -> str:
    if plan.aggregation != "secure":
        return "none"
    return "real" if rounds and all(record.get("real_masks") for record in rounds) else "elided"


def _server(plan: Plan, rounds: Sequence[Mapping[str, Any]]) -> str | None:
    """Which server the secrecy of single contributions holds against, and how many clients may help it."""
    if _masks(plan, rounds) != "real":
        return None
    clients = min(record["clients"] for record in rounds)
    if max(record["clients"] for record in rounds) > REAL_MASKS:
        return "a semi-honest server, while at most a tenth of the clients helps it"
    # Both kinds of share of one client take 2t answers of its n holders, and only those who help answer twice.
    threshold = plan.threshold or 2 * clients // 3 + 1
    helping = max(min(2 * threshold - clients - 1, clients - 2), 0)
    return f"a server that lies to clients, even with the help of {helping} of the {clients} clients"


def _statement(plan: Plan) -> str:
    if not plan.private:
        return NO_PROMISE[str(plan.aggregation)]
    noise = "simulated noise, worth nothing as privacy: " if plan.simulated_noise else ""
    towards = {"central": "whoever gets the sums from the server", "local": "everybody, the server included"}
    who = towards.get(str(plan.noise), "everybody, the server included, who sees sums alone")
    if plan.sampler != "all":
        who = "whoever cannot know who took part; the coordinator may, and towards it epsilon is larger"
    return (
        f"{noise}epsilon {float(plan.epsilon):.4g} at delta {float(plan.delta or 0):.3g} for one {plan.unit} "
        f"({plan.neighbours}) towards {who}"
    )


def _distinct(way: Exit) -> list[Any]:
    seen: dict[tuple[str, bool], Any] = {}
    for one in way.left:
        seen.setdefault((one.what, one.charged), one)
    return list(seen.values())
