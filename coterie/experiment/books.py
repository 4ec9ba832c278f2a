"""A training's side of the ledger: all of its rounds are set aside before it begins, each is spent when it leaves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from coterie.errors import LedgerError
from coterie.privacy.accountant import Event
from coterie.privacy.ledger import Charge, Ledger, Receipt
from coterie.privacy.ledger_tables import SPENT


@dataclass
class LedgerBooks:
    """`coterie.federation.release.Books` on a `Ledger`: charges of one run to one account."""

    ledger: Ledger
    account: str
    run: str
    delta: float
    model: str
    fingerprint: str
    _aside: dict[tuple[str, int], tuple[Event, Receipt]] = field(default_factory=dict)

    def prepare(self, what: str, events: Mapping[int, Event]) -> None:
        """Set aside what the rounds of a training will cost, all of it or nothing: what cannot end need not begin."""
        wanted = {round: event for round, event in events.items() if (what, round) not in self._aside}
        receipts = self.ledger.reserve_all(self.account, [self._charge(what, r, e) for r, e in wanted.items()])
        for (round, event), receipt in zip(wanted.items(), receipts, strict=True):
            self._aside[what, round] = (event, receipt)

    def reserve(self, what: str, round: int, event: Event) -> Payment:
        """The charge of one attempt: what was set aside for it, else a new reservation."""
        kept = self._aside.pop((what, round), None)
        if kept is not None and kept[0] == event:
            return Payment(self.ledger, kept[1])
        if kept is not None:
            self.ledger.give_back(kept[1], "the round came to be another than was announced")
        return Payment(self.ledger, self.ledger.reserve(self.account, self._charge(what, round, event)))

    def settle(self, what: str) -> None:
        """Give back what was set aside for rounds that were not needed."""
        for key in [key for key in self._aside if key[0] == what]:
            self.ledger.give_back(self._aside.pop(key)[1], "not needed")

    def spent(self) -> list[Event]:
        """All that this run has spent, by whatever process: what left before a crash too, and is not in any record."""
        mine = (row for row in self.ledger.charges(self.account) if (row["run"], row["state"]) == (self.run, SPENT))
        return [Event.from_json(values) for row in mine for values in json.loads(row["events"])]

    def balance(self) -> dict[str, float | str | None]:
        """What the account has come to, over all runs: for the privacy card."""
        now = self.ledger.statement(self.account)
        return {
            "name": self.account,
            "epsilon": now.spent,
            "limit": now.account.limit,
            "remaining": now.remaining,
            "period_epsilon": now.period_spent,
            "period_days": now.account.period_days,
        }

    def _charge(self, what: str, round: int, event: Event) -> Charge:
        attempt = self.ledger.next_attempt(self.account, self.run, what, round)
        return Charge(self.run, what, round, attempt, (event,), self.delta, self.model, self.fingerprint)


@dataclass
class Payment:
    """`coterie.federation.release.Ticket`: one reserved charge."""

    ledger: Ledger
    receipt: Receipt

    def spend(self) -> None:
        self.ledger.spend(self.receipt)

    def give_back(self, reason: str) -> None:
        try:
            self.ledger.give_back(self.receipt, reason)
        except LedgerError:
            return  # it was spent after all: then it stays spent
