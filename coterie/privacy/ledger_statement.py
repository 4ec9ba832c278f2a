"""What a ledger says: accounts and their limits, what was spent by which runs, and what remains.

Epsilons are compositions at the account's delta, so those of runs do not simply add up to that of the account. Nothing
here is derived from a log: names, counts, times and prices of releases.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any

from coterie.privacy.accountant import epsilon
from coterie.privacy.events import Event
from coterie.privacy.ledger_tables import RESERVED, SPENT

ROUNDING = 1e-9  # relative: a run that was planned for just what remains must not fail on the last bit of a sum

Groups = Mapping[str, int]
"""How often each charge was made, by the canonical text of its events."""


@dataclass(frozen=True, slots=True)
class Account:
    """One controller's users in one namespace, and what may be spent on them; None: no limit.

    `delta` is what every epsilon of the account is stated at. The period is rolling: the last `period_days` days,
    whenever one asks.
    """

    name: str
    delta: float
    limit: float | None = None
    period_limit: float | None = None
    period_days: float | None = None
    opened: datetime | None = None


@dataclass(frozen=True, slots=True)
class RunSpent:
    """What one run has spent: its epsilon alone, at the account's delta, and in how many charged releases."""

    run: str
    model: str
    epsilon: float
    charges: int
    rounds: int
    first: datetime
    last: datetime


@dataclass(frozen=True, slots=True)
class Reservation:
    """A charge that counts although nothing of it was released yet."""

    receipt: str
    run: str
    job: str
    round: int
    attempt: int
    since: datetime
    lapses: datetime


@dataclass(frozen=True, slots=True)
class Statement:
    """An account at one moment.

    `spent` is the epsilon of everything that was spent, `counted` that with the reservations, on which limits are
    enforced; `period_spent` and `period_counted` are the same for the period (None without one). `remaining` and
    `period_remaining` are limit minus counted, at least 0; None: no limit. What fits may be a little more, since
    releases compose to less than their sum.
    """

    account: Account
    spent: float
    counted: float
    remaining: float | None
    period_spent: float | None
    period_counted: float | None
    period_remaining: float | None
    runs: tuple[RunSpent, ...]
    reservations: tuple[Reservation, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON, times in ISO 8601."""
        content = asdict(self)
        account = content.pop("account")
        return {key: _plain(value) for key, value in {"account": account.pop("name"), **account, **content}.items()}


def statement_of(account: Account, rows: Iterable[Mapping[str, Any]], now: datetime) -> Statement:
    """The statement from the account's counted charges, oldest first."""
    held = [dict(row) for row in rows]
    spent = [row for row in held if row["state"] == SPENT]
    counted, total = _price(held, account), _price(spent, account)
    period_spent = period_counted = None
    if account.period_days is not None:
        since = micros(now - timedelta(days=account.period_days))
        period_spent = _price((row for row in spent if row["spent_at"] > since), account)
        period_counted = _price((row for row in held if row["state"] == RESERVED or row["spent_at"] > since), account)
    return Statement(
        account,
        total,
        counted,
        _remaining(account.limit, counted),
        period_spent,
        period_counted,
        _remaining(account.period_limit, period_counted),
        tuple(_run(name, rows, account) for name, rows in _by_run(spent).items()),
        tuple(_reservation(row) for row in held if row["state"] == RESERVED),
    )


def price(groups: Groups, delta: float) -> float:
    """Epsilon of charges at `delta`, all together; equal releases are composed as one.

    Raises:
        PlanError: they cannot be composed.
    """
    return _price_of(tuple(sorted(groups.items())), delta)


def text_of(events: Iterable[Event]) -> str:
    """The canonical text of a charge's events: equal charges have equal text."""
    merged = Counter[Event]()
    for event in events:
        merged[replace(event, count=1)] += event.count
    texts = sorted(json.dumps(replace(one, count=n).to_json(), sort_keys=True) for one, n in merged.items())
    return f"[{', '.join(texts)}]"


def events_of(groups: Groups) -> list[Event]:
    """All events of the charges, equal ones as one with their count."""
    merged = Counter[Event]()
    for text, times in groups.items():
        for values in json.loads(text):
            event = Event.from_json(values)
            merged[replace(event, count=1)] += event.count * times
    return [replace(one, count=count) for one, count in merged.items()]


def micros(time: datetime) -> int:
    """Microseconds since 1970 in UTC, exactly."""
    return (time - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def moment(micro: int) -> datetime:
    """The time of `micros`."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micro)


@lru_cache(maxsize=1024)
def _price_of(groups: tuple[tuple[str, int], ...], delta: float) -> float:
    return epsilon(events_of(dict(groups)), delta)


def _price(rows: Iterable[Mapping[str, Any]], account: Account) -> float:
    return price(Counter(row["events"] for row in rows), account.delta)


def _remaining(limit: float | None, counted: float | None) -> float | None:
    if limit is None or counted is None:
        return None
    return limit - counted if counted < limit * (1 - ROUNDING) else 0.0


def _by_run(rows: Iterable[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        found.setdefault(row["run"], []).append(row)
    return found


def _run(name: str, rows: list[dict[str, Any]], account: Account) -> RunSpent:
    times = [row["spent_at"] for row in rows]
    models = sorted({row["model"] for row in rows} - {""})
    rounds = {(row["job"], row["round"]) for row in rows}
    alone = _price(rows, account)
    return RunSpent(name, ", ".join(models), alone, len(rows), len(rounds), moment(min(times)), moment(max(times)))


def _reservation(row: Mapping[str, Any]) -> Reservation:
    since, lapses = moment(row["reserved_at"]), moment(row["lapses_at"])
    return Reservation(row["id"], row["run"], row["job"], row["round"], row["attempt"], since, lapses)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, tuple | list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    return value
