"""The privacy ledger beside a run: what was spent on its account, by which runs, and what is left."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coterie.errors import CoterieError
from coterie.files import home
from coterie.privacy.ledger import FILE, Ledger
from coterie.privacy.ledger_statement import Statement
from coterie.report.reading import known

if TYPE_CHECKING:
    from coterie.serving.deployment import Deployment


def ledger_of(deployment: Deployment, result: Mapping[str, Any]) -> dict[str, Any]:
    """``statement`` of the account that paid for a run (None where there is none) and ``why`` not."""
    account = (result.get("privacy") or {}).get("account")
    if not account:
        promised = known((result.get("privacy") or {}).get("epsilon")) is not None
        why = (
            "it was charged to no account"
            if promised
            else "it promises no epsilon, so nothing was charged to any account"
        )
        return {"statement": None, "name": None, "recorded": None, "why": why}
    told = {"name": str(account.get("name")), "recorded": account}
    try:
        statement = _statement(deployment, told["name"])
    except CoterieError as error:
        return {"statement": None, "why": str(error), **told}
    return {"statement": statement, "why": "" if statement else "no ledger is here", **told}


def statement_of_run(deployment: Deployment, result: Mapping[str, Any]) -> Statement | None:
    """What the ledger says now of the account that paid for a run; None where it cannot be asked."""
    found: Statement | None = ledger_of(deployment, result)["statement"]
    return found


def _statement(deployment: Deployment, account: str) -> Statement | None:
    where = deployment.config.federation.ledger
    if where is None and not Path(home() / FILE).exists():
        return None
    return Ledger.open(where, create=False).statement(account)
