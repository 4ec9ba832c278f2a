"""A policy's limits on epsilon, set on the account of the node's own ledger, which then keeps them for all jobs.

Somebody may have set stricter limits on the account by hand (`coterie ledger limit`): those stay. What this policy
itself has set before is known from the approvals, and follows the policy up as well as down.
"""

from __future__ import annotations

from typing import Literal

from coterie.errors import ConfigError
from coterie.federation.approvals import Approvals, Limits
from coterie.privacy.ledger import Account, Ledger, Limit, Statement

MONTH_DAYS = 30.0


def apply_limits(
    ledger: Ledger,
    name: str,
    delta: float,
    total: float | Literal["none"],
    month: float | Literal["none"],
    approvals: Approvals,
) -> Statement:
    """Set the limits on an account, which is opened at `delta` if there is none; see `Policy.apply_limits`."""
    account, before = ledger.account(name, delta), approvals.limits(name)
    wanted = Limits(total=_number(total), month=_number(month))
    life = _stricter(account.limit, before.total if before else None, wanted.total)
    period: Limit = None
    if not _other_period(account):
        month_limit = _stricter(account.period_limit, before.month if before else None, wanted.month)
        period = "none" if month_limit is None else month_limit
    elif wanted.month is not None:
        raise _two_periods(account, wanted.month)
    days = MONTH_DAYS if isinstance(period, float) else None
    statement = ledger.limit(name, "none" if life is None else life, period, days)
    # Noted last: if the process dies before, what the ledger has is what the policy wants, and is found to be so.
    approvals.note_limits(name, wanted.total, wanted.month)
    return statement


def _other_period(account: Account) -> bool:
    """Whether somebody has limited the account for another period than ours."""
    return account.period_limit is not None and account.period_days != MONTH_DAYS


def _two_periods(account: Account, month: float) -> ConfigError:
    return ConfigError(
        f"account '{account.name}' has a limit of {account.period_limit:g} in {account.period_days:g} days, and an "
        f'account knows one period; set max_epsilon_month = "none" instead of {month:g} in policy.toml, or lift the '
        f"other: coterie ledger limit --account {account.name} --period-epsilon none"
    )


def _stricter(found: float | None, applied: float | None, wanted: float | None) -> float | None:
    """The limit to have: the policy's, unless somebody else has set a lower one."""
    if found is None or found == applied:
        return wanted
    return found if wanted is None else min(found, wanted)


def _number(limit: float | Literal["none"]) -> float | None:
    return None if limit == "none" else limit
