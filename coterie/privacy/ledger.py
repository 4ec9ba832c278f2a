"""The ledger: what has been spent on whom, durable and enforced.

One account per controller and user namespace, named by its owner, composes every run whose users may overlap. A charge
is reserved before any client works, and spent before the first share is released:

    receipt = ledger.reserve("shop", Charge(run, job, round, attempt, events, delta))     # or BudgetExceeded
    ...                                                                                   # clients work
    ledger.spend(receipt)                                                                 # durable when it returns
    release(share)

So a charge that is still reserved proves that nothing of it was released, and only such a charge is ever returned: by
`give_back`, or because its process is gone or its lease has ended. Whoever holds its receipt can then spend it no more:
returning is safe whatever a process believes of itself, and nothing that was released goes uncounted.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import func, select, update

from coterie.errors import BudgetExceeded, ConfigError, LedgerError
from coterie.files import home
from coterie.privacy import ledger_rows as rows
from coterie.privacy.ledger_records import Charge, Limit, Receipt, check_delta, check_limit, check_name
from coterie.privacy.ledger_rows import Overdraft
from coterie.privacy.ledger_statement import Account, RunSpent, Statement, moment, statement_of
from coterie.privacy.ledger_tables import COUNTED, SPENT, accounts, charges
from coterie.storage import Storage

__all__ = ["FILE", "LEASE", "Account", "Charge", "Ledger", "Limit", "Receipt", "Statement"]

FILE = "ledger.sqlite"
LEASE = timedelta(days=1)
NAMED_RUNS = 5  # how many runs a refusal names


class Ledger:
    """The accounts of one database; see the module for the order of things.

    Every method raises EnvironmentFault where the database fails. Then nothing was charged, or that is unknown and
    counts as charged; in neither case may anything be released.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    @classmethod
    def open(cls, where: str | Path | None = None, create: bool = True) -> Ledger:
        """Open a ledger: a file, a ``postgresql://`` URL or ``env:NAME``; by default the installation's own file.

        Raises:
            ConfigError, DataError, EnvironmentFault, MissingExtra: see `coterie.storage.Storage.open`.
        """
        return cls(Storage.open(home() / FILE if where is None else where, "ledger", create))

    def account(self, name: str, delta: float | None = None) -> Account:
        """An account; opened if there is none of this name and `delta` says at which delta it is to count.

        Raises:
            LedgerError: there is no such account.
        """
        check_name(name)
        if delta is None:
            with self._storage.reading() as connection:
                return rows.account_of(connection, name)
        with self._storage.writing() as connection:
            return rows.locked_account(connection, name, check_delta(delta))

    def reserve(self, account: str | Account, charge: Charge, lease: timedelta = LEASE) -> Receipt:
        """Set the cost of a charge aside, before any work is done; see `reserve_all`."""
        return self.reserve_all(account, [charge], lease)[0]

    def reserve_all(
        self, account: str | Account, batch: Sequence[Charge], lease: timedelta = LEASE
    ) -> tuple[Receipt, ...]:
        """Set the cost of several charges aside, of all or of none: a training that cannot end need not begin.

        An account that does not exist is opened at the delta of the first charge. Reservations whose process is gone,
        or whose lease has ended, are returned first.

        Raises:
            BudgetExceeded: more than remains, in the account's life or in its period.
            PlanError: they do not compose with what the account holds.
            LedgerError: one of these attempts was charged before.
        """
        name = check_name(account if isinstance(account, str) else account.name)
        if not batch:
            return ()
        with self._storage.writing() as connection:
            opened = rows.locked_account(connection, name, batch[0].delta)
            rows.return_stale(connection, charges.c.account == name)
        with self._storage.reading() as connection:
            expected = rows.decision(connection, opened, batch)
        expected.overdraft()  # what was priced once is known: nobody waits for that while the account is held
        with self._storage.writing() as connection:
            opened = rows.locked_account(connection, name, batch[0].delta)
            if (over := rows.decision(connection, opened, batch).overdraft()) is None:
                return tuple(rows.record(connection, name, charge, lease) for charge in batch)
        raise BudgetExceeded(_refusal(self.statement(name), batch, over))

    def spend(self, receipt: Receipt) -> None:
        """Make a charge final; when this returns, and not before, its first share may be released.

        The process that has spent it may say so again. To any other it is refused: what left is then unknown, and a
        new attempt needs a charge of its own.

        Raises:
            EnvironmentFault: the reservation was returned meanwhile, or the database failed.
            LedgerError: this ledger does not know it, or another process has spent it.
        """
        with self._storage.writing() as connection:
            rows.spend(connection, receipt)

    def give_back(self, receipt: Receipt, reason: str) -> None:
        """Return a charge of which nothing was released, because it was never spent; doing so again changes nothing.

        Raises:
            LedgerError: it was spent, so that something may have left; or this ledger does not know it.
        """
        with self._storage.writing() as connection:
            returned = rows.give_back(connection, receipt.id, reason)
            if not returned and rows.row_of(connection, receipt).state == SPENT:
                raise LedgerError(f"{receipt}: was spent, and what is spent is never returned")

    def recover(self) -> int:
        """Return all reservations whose process is gone, or whose lease has ended; how many there were."""
        with self._storage.writing() as connection:
            return rows.return_stale(connection)

    def limit(
        self,
        name: str,
        epsilon: Limit = None,
        period_epsilon: Limit = None,
        period_days: float | None = None,
        delta: float | None = None,
    ) -> Statement:
        """Set what may be spent on an account ("none": no limit; None: as it is), and the delta at which it counts.

        A limit below what is spent stops all spending; charges that are reserved keep their place. An account that does
        not exist is opened if `delta` is given.

        Raises:
            LedgerError: there is no such account.
            ConfigError: a value out of range, or a period limit without a period.
        """
        for what, value in (("epsilon", epsilon), ("period_epsilon", period_epsilon), ("period_days", period_days)):
            check_limit(what, value)
        check_name(name)
        with self._storage.writing() as connection:
            known = rows.account_of(connection, name).delta if delta is None else check_delta(delta)
            before = rows.locked_account(connection, name, known)
            limits = _new_limits(before, epsilon, period_epsilon, period_days)
            connection.execute(update(accounts).where(accounts.c.name == name).values(delta=known, **limits))
        return self.statement(name)

    def statement(self, name: str) -> Statement:
        """What was spent on an account, by which runs, and what remains.

        Raises:
            LedgerError: there is no such account.
        """
        counted = charges.c.account == name, charges.c.state.in_(COUNTED)
        with self._storage.reading() as connection:
            opened = rows.account_of(connection, name)
            found = connection.execute(select(charges).where(*counted).order_by(charges.c.reserved_at)).mappings().all()
        return statement_of(opened, [dict(row) for row in found], moment(rows.now()))

    def statements(self) -> tuple[Statement, ...]:
        """The statements of all accounts, by name."""
        with self._storage.reading() as connection:
            names = connection.execute(select(accounts.c.name).order_by(accounts.c.name)).scalars().all()
        return tuple(self.statement(name) for name in names)

    def charges(self, name: str | None = None) -> list[dict[str, Any]]:
        """Every charge that was ever reserved, returned ones too, oldest first, as it is recorded.

        Raises:
            LedgerError: there is no such account.
        """
        asked = select(charges).order_by(charges.c.reserved_at, charges.c.id)
        with self._storage.reading() as connection:
            if name is not None:
                asked = asked.where(charges.c.account == rows.account_of(connection, name).name)
            return [dict(row) for row in connection.execute(asked).mappings()]

    def next_attempt(self, name: str, run: str, job: str, round: int) -> int:
        """The number of the next attempt at a round: none is made twice, not even one that was returned."""
        asked = charges.c.account == name, charges.c.run == run, charges.c.job == job, charges.c.round == round
        with self._storage.reading() as connection:
            last = connection.execute(select(func.max(charges.c.attempt)).where(*asked)).scalar()
        return 0 if last is None else int(last) + 1

    def elsewhere(self, name: str, fingerprint: str) -> tuple[str, ...]:
        """Other accounts that were charged for the same content: a sign that people are counted in parts."""
        same = charges.c.fingerprint == fingerprint, charges.c.account != name, charges.c.state.in_(COUNTED)
        with self._storage.reading() as connection:
            found = connection.execute(select(charges.c.account).where(*same).distinct()).scalars().all()
        return tuple(sorted(found)) if fingerprint else ()


def _new_limits(
    before: Account, epsilon: Limit, period_epsilon: Limit, period_days: float | None
) -> dict[str, float | None]:
    """The limits of an account as they are to be."""
    life = before.limit if epsilon is None else _number(epsilon)
    period = before.period_limit if period_epsilon is None else _number(period_epsilon)
    days = before.period_days if period_days is None else period_days
    if period is not None and days is None:
        raise ConfigError(f"account '{before.name}': a limit for a period needs its length; give period_days too")
    if period is None and period_days is not None:
        raise ConfigError(f"account '{before.name}': {period_days:g} days of what? give period_epsilon too")
    return {"epsilon_limit": life, "period_epsilon": period, "period_days": None if period is None else days}


def _number(limit: float | Literal["none"]) -> float | None:
    return None if limit == "none" else limit


def _refusal(statement: Statement, batch: Sequence[Charge], over: Overdraft) -> str:
    """What was spent, by which runs, what remains, and what can be done."""
    account, asked = statement.account, f"{batch[0].run} ({len(batch)} charge{'s' if len(batch) > 1 else ''})"
    span, counted, remains, runs = "", statement.counted, statement.remaining, statement.runs
    if over.period_days is not None:
        span, since = f" in {over.period_days:g} days", moment(rows.now()) - timedelta(days=over.period_days)
        runs = tuple(one for one in runs if one.last > since)
        counted, remains = statement.period_counted or 0.0, statement.period_remaining
    held = f"{counted:.4g} is spent or reserved{_runs(runs, len(statement.reservations))}"
    wait = f", wait until {over.until:%Y-%m-%d %H:%M} UTC" if over.until else ""
    return (
        f"account '{account.name}': {asked} would bring epsilon to {over.asked:.4g} at delta {account.delta:.3g}, over "
        f"its limit of {over.limit:.6g}{span}; {held} and {remains or 0:.4g} remains: ask for less{wait}, or raise the "
        "limit (coterie ledger limit)"
    )


def _runs(runs: Sequence[RunSpent], reserved: int) -> str:
    """The dearest runs, each with its epsilon alone."""
    dearest = sorted(runs, key=lambda one: -one.epsilon)
    parts = [f"{one.run}: {one.epsilon:.4g}" for one in dearest[:NAMED_RUNS]]
    parts += [f"{len(runs) - NAMED_RUNS} more runs"] if len(runs) > NAMED_RUNS else []
    parts += [f"{reserved} reserved"] if reserved else []
    return f" ({', '.join(parts)})" if parts else ""
