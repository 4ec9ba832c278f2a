"""Limits on epsilon that a node's ledger keeps, as its policy says them."""

from __future__ import annotations

from pathlib import Path

import pytest

from coterie.errors import BudgetExceeded, ConfigError
from coterie.federation.policy import POLICY_FILE, Policy, policy_template
from coterie.privacy.ledger import Ledger
from tests.federation.asked import policy
from tests.federation.partners import written
from tests.ledgers import DELTA, charge


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.open(tmp_path / "ledger.sqlite")


def limits(ledger: Ledger) -> tuple[float | None, float | None, float | None]:
    account = ledger.account("shop")
    return account.limit, account.period_limit, account.period_days


def test_the_ledger_keeps_the_limits(ledger: Ledger) -> None:
    mine = policy(max_epsilon_total=3.0, max_epsilon_month=0.9)
    statement = mine.apply_limits(ledger, "shop", DELTA)
    assert (statement.account.name, statement.account.delta) == ("shop", DELTA)
    assert limits(ledger) == (3.0, 0.9, 30.0)
    ledger.spend(ledger.reserve("shop", charge(0)))
    with pytest.raises(BudgetExceeded, match=r"over its limit of 0\.9 in 30 days"):
        ledger.reserve_all("shop", [charge(round) for round in range(1, 9)])
    mine = policy(max_epsilon_total=1.0, max_epsilon_month="none").use(mine.approvals)
    mine.apply_limits(ledger, "shop", DELTA)
    with pytest.raises(BudgetExceeded, match="over its limit of 1;"):
        ledger.reserve_all("shop", [charge(round) for round in range(2, 9)])


def test_limits_follow_the_policy_up_and_down(ledger: Ledger) -> None:
    approvals = policy().approvals
    for total, month in ((8.0, 4.0), (10.0, 5.0), (3.0, 2.0), ("none", "none"), (6.0, 1.0)):
        policy(max_epsilon_total=total, max_epsilon_month=month).use(approvals).apply_limits(ledger, "shop", DELTA)
        wanted = tuple(None if one == "none" else one for one in (total, month))
        assert limits(ledger)[:2] == wanted


def test_a_stricter_limit_that_was_set_by_hand_stays(ledger: Ledger) -> None:
    mine = policy(max_epsilon_total=8.0, max_epsilon_month=4.0)
    mine.apply_limits(ledger, "shop", DELTA)
    ledger.limit("shop", epsilon=2.0, period_epsilon=1.0, period_days=30.0)
    mine.apply_limits(ledger, "shop", DELTA)
    assert limits(ledger) == (2.0, 1.0, 30.0)
    ledger.limit("shop", epsilon=20.0, period_epsilon="none")
    mine.apply_limits(ledger, "shop", DELTA)
    assert limits(ledger) == (8.0, 4.0, 30.0)


def test_the_delta_of_an_account_stays(ledger: Ledger) -> None:
    ledger.account("shop", 1e-7)
    policy().apply_limits(ledger, "shop", 1e-5)
    assert ledger.account("shop").delta == 1e-7


def test_another_period_is_not_overwritten(ledger: Ledger) -> None:
    ledger.limit("shop", period_epsilon=10.0, period_days=365.0, delta=DELTA)
    with pytest.raises(ConfigError, match="a limit of 10 in 365 days, and an account knows one period; set max_eps"):
        policy().apply_limits(ledger, "shop", DELTA)
    policy(max_epsilon_month="none").apply_limits(ledger, "shop", DELTA)
    assert limits(ledger) == (8.0, 10.0, 365.0)


def test_what_the_policy_set_is_known_after_a_restart(tmp_path: Path, ledger: Ledger) -> None:
    path = written(tmp_path / POLICY_FILE, policy_template())
    Policy.load(path).apply_limits(ledger, "shop", DELTA)
    text = path.read_text().replace("max_epsilon_total = 8.0", "max_epsilon_total = 12.0")
    Policy.load(written(path, text)).apply_limits(ledger, "shop", DELTA)
    assert limits(ledger) == (12.0, 4.0, 30.0)
