"""Metrics that are paid for: what one user adds depends on no other user's rows, and all attempts count."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import coterie
from coterie.data.market import market
from coterie.errors import DataError, PlanError
from coterie.experiment import charged
from coterie.experiment.books import LedgerBooks
from coterie.experiment.privacyfacts import privacy_facts
from coterie.experiment.private import cases_that_count
from coterie.experiment.work import Work
from coterie.federation.release import Exit
from coterie.privacy.ledger import Ledger
from coterie.privacy.plan import Plan
from coterie.types import Floats, State

MADE = market(shops=4, customers=120, items=40, baskets=900, seed=0, messy=False).log
LOG = MADE.with_frame(MADE.frame.filter(pl.col("user").is_not_null()))
CUT = LOG.frame["time"].sort()[int(0.8 * len(LOG))]
TRAIN = LOG.with_frame(LOG.frame.filter(pl.col("time") < CUT))
TEST = LOG.with_frame(LOG.frame.filter(pl.col("time") >= CUT))


def test_no_user_moves_what_another_adds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their questions and the released model being the same: models that clients make of their own rows are not."""
    states, added, released = list[State](), list[Mapping[str, Floats]](), charged._released

    def trained(work: Work, stage: str, *rest: Any, **more: Any) -> State:
        work.rounds[stage] = []
        states.append(states[0] if states else before(work, stage, *rest, **more))
        return states[-1]

    def spy(bench: Any, plan: Plan, names: Any, own: Mapping[str, Floats], what: str) -> State:
        added.append(own)
        return released(bench, plan, names, own, what)

    before = Work.train
    monkeypatch.setattr(Work, "train", trained)
    monkeypatch.setattr(charged, "_released", spy)
    busiest = TRAIN.frame.group_by("user").len().sort("len", "user", descending=True)["user"][0]
    test = TEST.with_frame(TEST.frame.filter(pl.col("user") != busiest))
    for log in (TRAIN, TRAIN.with_frame(TRAIN.frame.filter(pl.col("user") != busiest))):
        plan = Plan(epsilon=8.0, simulated_noise=True)
        coterie.train(log, "ease", plan=plan, test=test, settings={"evaluation": {"metrics_share": 0.2}})
    assert added[0].keys() == added[1].keys()
    for name, values in added[0].items():
        np.testing.assert_array_equal(values, added[1][name])


def test_guests_and_people_at_too_many_clients_are_in_no_paid_metric() -> None:
    cases = pl.DataFrame({"user": ["a", "a", None, "b"], "client": ["x", "y", "x", "x"]})
    assert cases_that_count(cases, Plan(epsilon=1.0, max_clients_per_user=2))["user"].to_list() == ["a", "a", "b"]
    assert len(cases_that_count(cases, Plan(epsilon=1.0, guests="basket"))) == 4
    spread = pl.concat([cases, pl.DataFrame({"user": ["a"], "client": ["z"]})])
    with pytest.raises(PlanError, match="held-out questions: a user appears at more clients"):
        cases_that_count(spread, Plan(epsilon=1.0, max_clients_per_user=2))
    with pytest.raises(DataError, match="no held-out question has a user"):
        cases_that_count(cases.filter(pl.col("user").is_null()), Plan(epsilon=1.0))


def test_what_an_earlier_process_spent_is_on_the_card(tmp_path: Path) -> None:
    """A round that left and was lost in a crash is charged again, and both are stated."""
    plan, rounds = Plan(epsilon=2.0), [{"round": 0, "parts": [], "min_clients": 4, "clients": 4, "real_masks": True}]
    (event,) = plan.events((1.0,))
    for _ in range(2):  # two processes
        books = LedgerBooks(Ledger.open(tmp_path / "ledger.sqlite"), "shop", "run", 1e-6, "ease", "")
        books.reserve("ease: final", 0, event).spend()
    facts = privacy_facts(plan, [{**rounds[0], "event": event.to_json()}], Exit(books))
    assert facts["attempts"] == 2
    assert facts["epsilon_spent"] == pytest.approx(books.ledger.statement("shop").spent)
    assert facts["epsilon_spent"] > 2.5
