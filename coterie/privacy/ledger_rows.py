"""Reading and writing the ledger's rows, inside a transaction that the caller has begun.

Whoever decides on an account's budget holds its row (PostgreSQL) or the whole file (SQLite) until the decision is
written down, so that no two decisions rest on the same remainder.
"""

from __future__ import annotations

import json
import secrets
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, func, insert, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from coterie.errors import EnvironmentFault, LedgerError, PlanError, closest
from coterie.privacy.ledger_owner import is_gone, this_process
from coterie.privacy.ledger_records import Charge, Receipt
from coterie.privacy.ledger_statement import ROUNDING, Account, Groups, moment, price, text_of
from coterie.privacy.ledger_tables import COUNTED, RESERVED, RETURNED, SPENT, accounts, charges

MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Overdraft:
    """A limit, the epsilon that was asked for, and when the oldest charge of the period ceases to count."""

    limit: float
    asked: float
    period_days: float | None = None
    until: datetime | None = None


def now() -> int:
    """The time, in microseconds since 1970 in UTC."""
    return time.time_ns() // 1000


@dataclass(frozen=True, slots=True)
class Decision:
    """What an account's limits are compared with: everything that would count, in its life and in its period."""

    account: Account
    life: Groups
    period: Groups
    oldest: int | None

    def overdraft(self) -> Overdraft | None:
        """The limit that would be broken, if any; the one for life first.

        Raises:
            PlanError: the releases do not compose.
        """
        account = self.account
        asked = price(self.life, account.delta)  # without a limit too: what cannot be priced is never charged
        if account.limit is not None and asked > account.limit * (1 + ROUNDING):
            return Overdraft(account.limit, asked)
        if account.period_limit is None or account.period_days is None:
            return None
        asked = price(self.period, account.delta)
        if asked <= account.period_limit * (1 + ROUNDING):
            return None
        until = None if self.oldest is None else moment(self.oldest + _length(account))
        return Overdraft(account.period_limit, asked, account.period_days, until)


def decision(connection: Connection, account: Account, batch: Sequence[Charge]) -> Decision:
    """All that there is to decide on, whether the account may be charged.

    Raises:
        PlanError: the charges are about other neighbours than what the account holds.
    """
    held, since = _held(connection, account.name), now() - _length(account)
    _refuse_other_neighbours(account.name, held, batch)
    added = Counter(text_of(charge.events) for charge in batch)
    if account.period_days is None:
        return Decision(account, held + added, {}, None)
    first = select(func.min(charges.c.spent_at)).where(*_counted(account.name, since))
    recent = _held(connection, account.name, since)
    return Decision(account, held + added, recent + added, connection.execute(first).scalar())


def account_of(connection: Connection, name: str) -> Account:
    """An account.

    Raises:
        LedgerError: there is none of this name; names the nearest.
    """
    row = connection.execute(select(accounts).where(accounts.c.name == name)).one_or_none()
    if row is None:
        names = connection.execute(select(accounts.c.name)).scalars().all()
        how = closest(name, names) or "; its first charge opens it, or a limit with its delta"
        raise LedgerError(f"there is no account '{name}'{how}")
    return _account(row)


def locked_account(connection: Connection, name: str, delta: float) -> Account:
    """An account, which nobody else decides on until this transaction ends; opened if there is none."""
    asked = select(accounts).where(accounts.c.name == name).with_for_update()
    row = connection.execute(asked).one_or_none()
    if row is None:
        dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
        new = dialect.insert(accounts).values(name=name, delta=delta, opened_at=now())
        connection.execute(new.on_conflict_do_nothing())  # another process may have opened it meanwhile
        row = connection.execute(asked).one()
    return _account(row)


def record(connection: Connection, account: str, charge: Charge, lease: timedelta) -> Receipt:
    """Reserve a charge.

    Raises:
        LedgerError: this attempt was charged before.
    """
    receipt = Receipt(secrets.token_hex(16), account, charge.run, charge.job, charge.round, charge.attempt)
    at = now()
    values = {
        "id": receipt.id,
        "account": account,
        "run": charge.run,
        "job": charge.job,
        "round": charge.round,
        "attempt": charge.attempt,
        "model": charge.model,
        "events": text_of(charge.events),
        "fingerprint": charge.fingerprint,
        "state": RESERVED,
        "owner": this_process(),
        "reserved_at": at,
        "lapses_at": at + lease // MICROSECOND,
        "reason": "",
    }
    try:
        connection.execute(insert(charges).values(values))
    except IntegrityError:
        raise LedgerError(
            f"account '{account}': {charge} was charged before; every attempt has noise of its own, so take the next "
            "number, or another name for another run"
        ) from None
    return receipt


def spend(connection: Connection, receipt: Receipt) -> None:
    """Make a reservation final; see `coterie.privacy.ledger.Ledger.spend`."""
    own = this_process()
    values = {"state": SPENT, "spent_at": now(), "owner": own}
    if _change(connection, receipt.id, values):
        return
    row = row_of(connection, receipt)
    if row.state == RETURNED:
        raise EnvironmentFault(
            f"{receipt}: its reservation was returned at {moment(row.returned_at):%Y-%m-%d %H:%M} UTC ({row.reason}); "
            "nothing may be released on it: reserve a new attempt"
        )
    if row.owner != own:
        raise LedgerError(
            f"{receipt}: was spent by another process, and what that has released is unknown; reserve a new attempt"
        )


def give_back(connection: Connection, id: str, reason: str) -> bool:
    """Return a reservation; False where it is none (any more)."""
    return _change(connection, id, {"state": RETURNED, "returned_at": now(), "reason": reason})


def return_stale(connection: Connection, *where: ColumnElement[bool]) -> int:
    """Return the reservations whose process is gone or whose lease has ended; one after the other."""
    columns = charges.c.id, charges.c.owner, charges.c.lapses_at
    found = connection.execute(select(*columns).where(charges.c.state == RESERVED, *where).order_by(charges.c.id)).all()
    at, returned = now(), 0
    for id, owner, lapses_at in found:
        if lapses_at <= at:
            returned += give_back(connection, id, "its lease has ended")
        elif is_gone(owner):
            returned += give_back(connection, id, "its process ended without spending it")
    return returned


def row_of(connection: Connection, receipt: Receipt) -> Row[Any]:
    """The charge that a receipt is for.

    Raises:
        LedgerError: this ledger has none.
    """
    row = connection.execute(select(charges).where(charges.c.id == receipt.id)).one_or_none()
    if row is None:
        raise LedgerError(f"{receipt}: this ledger has given no such receipt; open the one that it was reserved in")
    return row


def _change(connection: Connection, id: str, values: dict[str, Any]) -> bool:
    """Change a charge if it is still reserved when its turn comes; whatever else it is, it stays."""
    asked = update(charges).where(charges.c.id == id, charges.c.state == RESERVED).values(values)
    return connection.execute(asked).rowcount == 1


def _counted(name: str, since: int | None = None) -> tuple[ColumnElement[bool], ...]:
    """What counts: everything that was not returned; of the spent, in a period, those since it began."""
    counted = charges.c.account == name, charges.c.state.in_(COUNTED)
    if since is None:
        return counted
    return (*counted, (charges.c.state == RESERVED) | (charges.c.spent_at > since))


def _held(connection: Connection, name: str, since: int | None = None) -> Counter[str]:
    """What counts on an account: how often each charge was made, by the text of its events."""
    asked = select(charges.c.events, func.count()).where(*_counted(name, since)).group_by(charges.c.events)
    return Counter({row[0]: row[1] for row in connection.execute(asked)})


def _length(account: Account) -> int:
    """The length of the account's period in microseconds."""
    return timedelta(days=account.period_days or 0.0) // MICROSECOND


def _account(row: Row[Any]) -> Account:
    opened = moment(row.opened_at)
    return Account(row.name, row.delta, row.epsilon_limit, row.period_epsilon, row.period_days, opened)


def _refuse_other_neighbours(name: str, held: Groups, batch: Sequence[Charge]) -> None:
    """Epsilons about different neighbours have no common meaning."""
    known = {event["neighbours"] for text in held for event in json.loads(text)}
    asked = {event.neighbours for charge in batch for event in charge.events}
    if len(known | asked) > 1:
        words = " and ".join(sorted(known | asked))
        raise PlanError(f"account '{name}': epsilons about {words} neighbours do not compose; plan with the same ones")
