"""The ledger: what is charged counts, what counts is never over the limit, and only what never left comes back."""

import math
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from scipy.optimize import brentq
from scipy.stats import norm

from coterie.errors import BudgetExceeded, ConfigError, DataError, EnvironmentFault, LedgerError, PlanError
from coterie.privacy import ledger_rows
from coterie.privacy.accountant import epsilon, noise_multiplier
from coterie.privacy.events import Event
from coterie.privacy.ledger import FILE, LEASE, Charge, Ledger
from coterie.privacy.ledger_owner import is_gone, this_process
from coterie.privacy.ledger_statement import events_of, text_of
from tests.ledgers import DELTA, charge, quick_folder
from tests.postgres import Server, postgres

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _no_password(monkeypatch):
    for name in ("COTERIE_DB_PASSWORD", "PGPASSWORD", "PGPASSFILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgres() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgres"])
def where(request) -> Iterator[str]:
    """A place for a ledger, of each kind."""
    if request.param == "sqlite":
        with quick_folder() as folder:
            yield str(folder / FILE)
        return
    with request.getfixturevalue("server").fresh() as url:
        yield url


@pytest.fixture
def ledger(where) -> Ledger:
    return Ledger.open(where)


@pytest.fixture
def small() -> Iterator[Ledger]:
    """An SQLite ledger, where the kind of database makes no difference."""
    with quick_folder() as folder:
        yield Ledger.open(folder / FILE)


class Clock:
    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = time.time_ns() // 1000
        monkeypatch.setattr(ledger_rows, "now", lambda: self.now)

    def advance(self, **by: float) -> None:
        self.now += timedelta(**by) // timedelta(microseconds=1)


@pytest.fixture
def clock(monkeypatch) -> Clock:
    return Clock(monkeypatch)


def spend(ledger: Ledger, *asked: Charge, account: str = "shop") -> None:
    for receipt in ledger.reserve_all(account, asked):
        ledger.spend(receipt)


def gaussian(noise: float, count: int, delta: float = DELTA) -> float:
    """Epsilon of `count` Gaussians, from their exact trade-off (Balle & Wang 2018): an oracle of its own."""
    mu = math.sqrt(count) / noise

    def excess(eps: float) -> float:
        return norm.cdf(mu / 2 - eps / mu) - math.exp(eps) * norm.cdf(-mu / 2 - eps / mu) - delta

    return brentq(excess, 0, 100, xtol=1e-12)


def together(*noises: float) -> float:
    return gaussian(1 / math.sqrt(sum(1 / noise**2 for noise in noises)), 1)


def dead_owner() -> str:
    """The name of a process that was here and has ended."""
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        os.write(write, this_process().encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    with os.fdopen(read) as name:
        return name.read()


def test_what_is_spent_is_composed_over_rounds_and_runs(ledger):
    spend(ledger, *(charge(round, "a") for round in range(3)))
    spend(ledger, *(charge(round, "b") for round in range(2)))
    said = ledger.statement("shop")
    assert said.spent == said.counted == pytest.approx(gaussian(10, 5), rel=1e-9)
    assert [(run.run, run.model, run.rounds, run.charges) for run in said.runs] == [
        ("a", "ease", 3, 3),
        ("b", "ease", 2, 2),
    ]
    assert [run.epsilon for run in said.runs] == pytest.approx([gaussian(10, 3), gaussian(10, 2)], rel=1e-9)
    assert (said.remaining, said.period_counted, said.reservations) == (None, None, ())
    assert said.runs[0].first <= said.runs[0].last <= said.runs[1].first


def test_it_is_all_there_when_the_ledger_is_opened_again(ledger, where):
    spend(ledger, charge())
    assert Ledger.open(where).statement("shop") == ledger.statement("shop")


def test_the_default_is_a_file_of_the_installation(tmp_path, monkeypatch):
    monkeypatch.setenv("COTERIE_HOME", str(tmp_path / "home"))
    spend(Ledger.open(), charge())
    assert (tmp_path / "home" / FILE).is_file()
    with pytest.raises(DataError, match="there is no such file"):
        Ledger.open(tmp_path / "other.sqlite", create=False)


def test_a_reservation_counts_before_it_is_spent(ledger):
    ledger.limit("shop", epsilon=gaussian(10, 1) * 1.01, delta=DELTA)
    receipt = ledger.reserve("shop", charge())
    said = ledger.statement("shop")
    assert (said.spent, said.counted) == (0, pytest.approx(gaussian(10, 1)))
    assert [(one.receipt, one.run, one.round) for one in said.reservations] == [(receipt.id, "run", 0)]
    assert said.reservations[0].lapses - said.reservations[0].since == LEASE
    with pytest.raises(BudgetExceeded):
        ledger.reserve("shop", charge(1))


def test_a_refusal_says_what_was_spent_by_whom_and_what_remains(ledger):
    for number in range(7):
        spend(ledger, charge(run=f"runs/{number}", noise=10.0 - number))
    ledger.limit("shop", epsilon=2.0)
    ledger.reserve("shop", charge(run="waiting", noise=50.0))
    with pytest.raises(BudgetExceeded) as refused:
        ledger.reserve_all("shop", [charge(0, "next", 5.0), charge(1, "next", 5.0)])
    spent = [10.0 - number for number in range(7)]
    dearest = ", ".join(f"runs/{number}: {gaussian(spent[number], 1):.4g}" for number in (6, 5, 4, 3, 2))
    held, asked = together(*spent, 50), together(*spent, 50, 5, 5)
    assert str(refused.value) == (
        f"account 'shop': next (2 charges) would bring epsilon to {asked:.4g} at delta 1e-06, over its limit of 2; "
        f"{held:.4g} is spent or reserved ({dearest}, 2 more runs, 1 reserved) and {2 - held:.4g} remains: ask for "
        "less, or raise the limit (coterie ledger limit)"
    )
    assert refused.value.exit_code == 2
    assert len(ledger.charges()) == 8  # of what is refused nothing is kept


def test_several_charges_are_reserved_together_or_not_at_all(ledger):
    ledger.limit("shop", epsilon=gaussian(10, 3), delta=DELTA)
    with pytest.raises(BudgetExceeded, match=r"run \(4 charges\) would bring"):
        ledger.reserve_all("shop", [charge(round) for round in range(4)])
    assert ledger.statement("shop").counted == 0
    assert [one.round for one in ledger.reserve_all("shop", [charge(round) for round in range(3)])] == [0, 1, 2]
    assert ledger.reserve_all("shop", []) == ()


@pytest.mark.parametrize("shares", [(1.0,), (1 / 7,) * 7, (*(2.0**-i for i in range(1, 13)), 2.0**-12)])
@pytest.mark.parametrize("target", [0.1, 4.0, 20.0])
def test_a_run_that_was_planned_for_the_whole_limit_fits_it_exactly_once(small, shares, target):
    small.limit("shop", epsilon=target, delta=DELTA)
    z = noise_multiplier(target, DELTA, shares)
    for round, share in enumerate(shares):
        small.spend(small.reserve("shop", charge(round, noise=z / math.sqrt(share))))
    assert small.statement("shop").spent == pytest.approx(target, rel=1e-9)
    with pytest.raises(BudgetExceeded, match="and 0 remains"):
        small.reserve("shop", charge(run="again", noise=z))


def test_sampled_releases_compose_as_the_accountant_says(small):
    rounds = [Event(1.2, sampler="poisson", rate=0.02)] * 20
    spend(small, *(replace(charge(round), events=(event,)) for round, event in enumerate(rounds)))
    assert small.statement("shop").spent == pytest.approx(epsilon(rounds, DELTA), rel=1e-9)


def test_one_appended_row_buys_no_new_budget(ledger):
    ledger.limit("shop", epsilon=gaussian(10, 1), delta=DELTA)
    spend(ledger, charge(fingerprint="ab" * 32))
    with pytest.raises(BudgetExceeded):
        ledger.reserve("shop", charge(run="after one more row", fingerprint="cd" * 32))


def test_the_same_content_in_another_account_is_noticed(ledger):
    spend(ledger, charge(fingerprint="ab" * 32), account="shop")
    spend(ledger, charge(fingerprint="ab" * 32), account="shop of 2025")
    spend(ledger, charge(run="other", fingerprint="cd" * 32), account="third")
    assert ledger.elsewhere("shop", "ab" * 32) == ("shop of 2025",)
    assert ledger.elsewhere("shop", "cd" * 32) == ("third",)
    assert ledger.elsewhere("third", "cd" * 32) == ledger.elsewhere("shop", "") == ()


def test_accounts_do_not_touch_each_other(ledger):
    ledger.limit("a", epsilon=gaussian(10, 1), delta=DELTA)
    spend(ledger, charge(), account="a")
    spend(ledger, *(charge(round) for round in range(5)), account="b")
    assert [(one.account.name, one.spent) for one in ledger.statements()] == [
        ("a", pytest.approx(gaussian(10, 1))),
        ("b", pytest.approx(gaussian(10, 5))),
    ]
    assert {row["account"] for row in ledger.charges("b")} == {"b"}


# --- spending and giving back ----------------------------------------------------------------------------------------


def test_spending_again_changes_nothing(ledger):
    receipt = ledger.reserve("shop", charge())
    ledger.spend(receipt)
    before = ledger.charges()
    ledger.spend(receipt)
    assert ledger.charges() == before


def test_what_another_process_has_spent_may_have_left_and_is_refused(ledger, monkeypatch):
    receipt = ledger.reserve("shop", charge())
    ledger.spend(receipt)
    monkeypatch.setattr(ledger_rows, "this_process", lambda: "another/1/2")
    with pytest.raises(LedgerError, match="run, final round 0, attempt 0: was spent by another process"):
        ledger.spend(receipt)


def test_what_was_reserved_can_be_given_back_and_no_longer_spent(ledger):
    receipt = ledger.reserve("shop", charge())
    ledger.give_back(receipt, "too few clients")
    ledger.give_back(receipt, "again")
    assert ledger.statement("shop").counted == 0
    assert [(row["state"], row["reason"]) for row in ledger.charges()] == [("returned", "too few clients")]
    with pytest.raises(EnvironmentFault, match=r"was returned at .* UTC \(too few clients\); nothing may be released"):
        ledger.spend(receipt)


def test_what_was_spent_is_never_returned(ledger, clock):
    receipt = ledger.reserve("shop", charge())
    ledger.spend(receipt)
    with pytest.raises(LedgerError, match="was spent, and what is spent is never returned"):
        ledger.give_back(receipt, "nobody saw it")
    clock.advance(days=1000)
    assert ledger.recover() == 0
    assert ledger.statement("shop").spent > 0


def test_every_attempt_is_a_charge_of_its_own(ledger):
    spend(ledger, charge(attempt=0), charge(attempt=1))
    assert ledger.statement("shop").spent == pytest.approx(gaussian(10, 2))
    assert ledger.statement("shop").runs[0].rounds == 1
    with pytest.raises(LedgerError, match="'shop': run, final round 0, attempt 1 was charged before"):
        ledger.reserve("shop", charge(attempt=1))
    assert [ledger.next_attempt("shop", "run", "final", round) for round in (0, 1)] == [2, 0]
    ledger.give_back(ledger.reserve("shop", charge(1)), "late")
    assert ledger.next_attempt("shop", "run", "final", 1) == 1


def test_a_receipt_of_another_ledger_is_refused(small, tmp_path):
    receipt = small.reserve("shop", charge())
    other = Ledger.open(tmp_path / "other.sqlite")
    for use in (other.spend, lambda one: other.give_back(one, "why")):
        with pytest.raises(LedgerError, match="this ledger has given no such receipt"):
            use(receipt)


# --- reservations that nobody will spend -----------------------------------------------------------------------------


def test_what_a_dead_process_reserved_comes_back(ledger, monkeypatch):
    owner = dead_owner()
    with monkeypatch.context() as patch:
        patch.setattr(ledger_rows, "this_process", lambda: owner)
        receipt = ledger.reserve("shop", charge())
    assert ledger.statement("shop").counted > 0
    assert ledger.recover() == 1
    assert ledger.statement("shop").counted == 0
    with pytest.raises(EnvironmentFault, match="its process ended without spending it"):
        ledger.spend(receipt)


def test_a_flapping_node_does_not_drain_the_year(ledger, monkeypatch):
    ledger.limit("shop", epsilon=gaussian(10, 1), delta=DELTA)
    for attempt in range(20):
        owner = dead_owner()
        with monkeypatch.context() as patch:
            patch.setattr(ledger_rows, "this_process", lambda owner=owner: owner)
            ledger.reserve("shop", charge(attempt=attempt))
    ledger.spend(ledger.reserve("shop", charge(attempt=20)))
    assert ledger.statement("shop").spent == pytest.approx(gaussian(10, 1))


def test_what_a_dead_process_spent_does_not(ledger, monkeypatch):
    owner = dead_owner()
    with monkeypatch.context() as patch:
        patch.setattr(ledger_rows, "this_process", lambda: owner)
        spend(ledger, charge())
    assert ledger.recover() == 0
    assert ledger.statement("shop").spent > 0


def test_a_lease_ends_even_where_nobody_can_tell_who_is_gone(ledger, clock, monkeypatch):
    monkeypatch.setattr(ledger_rows, "this_process", lambda: "another-machine/7/7")
    first = ledger.reserve("shop", charge(0))
    second = ledger.reserve("shop", charge(1), lease=timedelta(days=3))
    clock.advance(hours=23)
    assert ledger.recover() == 0
    clock.advance(hours=2)
    ledger.reserve("shop", charge(2))  # returns what has lapsed, and nothing else
    assert [one.round for one in ledger.statement("shop").reservations] == [1, 2]
    with pytest.raises(EnvironmentFault, match="its lease has ended"):
        ledger.spend(first)
    ledger.spend(second)


def test_a_lease_that_has_ended_may_still_be_spent_if_nobody_took_it_back(ledger, clock):
    receipt = ledger.reserve("shop", charge())
    clock.advance(days=30)
    ledger.spend(receipt)
    assert ledger.recover() == 0


def test_who_lives_is_never_taken_for_gone():
    own = this_process()
    assert not is_gone(own)
    here, _, rest = own.rpartition("/")
    assert is_gone(f"{here}/{int(rest) + 1}")  # the number belongs to another process now
    time.sleep(0.05)  # starts are counted in ticks of 10 ms
    with subprocess.Popen(["sleep", "60"]) as other:
        assert is_gone(own.replace(f"/{os.getpid()}/", f"/{other.pid}/"))  # its start is another
        other.kill()


def test_who_cannot_be_seen_from_here_is_never_taken_for_gone():
    dead = dead_owner()
    assert is_gone(dead)
    boot, rest = dead.split("/", maxsplit=1)
    space, rest = rest.split("/", maxsplit=1)
    for other in (
        f"{boot[::-1]}/{space}/{rest}",
        f"{boot}/pid:[1]/{rest}",
        "unknown/abc/1",
        "x",
        "",
        f"{boot}/{space}",
    ):
        assert not is_gone(other)


def test_without_proc_nobody_is_provably_gone(monkeypatch, tmp_path):
    from coterie.privacy import ledger_owner

    dead = dead_owner()
    monkeypatch.setattr(ledger_owner, "_BOOT", tmp_path / "none")
    own = this_process()
    assert own.startswith("unknown/")
    assert own == this_process()
    assert not is_gone(own)
    assert not is_gone(dead)


# --- limits and periods ----------------------------------------------------------------------------------------------


def test_a_period_rolls_and_life_does_not(ledger, clock):
    ledger.limit("shop", epsilon=gaussian(10, 3), period_epsilon=gaussian(10, 1), period_days=30, delta=DELTA)
    spend(ledger, charge(run="january"))
    with pytest.raises(BudgetExceeded, match=r"over its limit of [\d.]+ in 30 days; .*wait until \d{4}-\d\d-\d\d"):
        ledger.reserve("shop", charge(run="february"))
    clock.advance(days=29)
    with pytest.raises(BudgetExceeded, match=r"\(january: "):
        ledger.reserve("shop", charge(run="february"))
    clock.advance(days=1, seconds=1)
    spend(ledger, charge(run="february"))
    said = ledger.statement("shop")
    assert said.spent == pytest.approx(gaussian(10, 2))
    assert said.period_spent == said.period_counted == pytest.approx(gaussian(10, 1))
    remains = gaussian(10, 3) - gaussian(10, 2)
    assert (said.period_remaining, said.remaining) == pytest.approx((0, remains), abs=1e-9)
    clock.advance(days=31)
    spend(ledger, charge(run="march"))
    clock.advance(days=31)
    with pytest.raises(BudgetExceeded, match=r"over its limit of [\d.]+; .*january.*ask for less, or raise"):
        ledger.reserve("shop", charge(run="april"))


def test_a_refusal_of_a_period_names_its_runs_alone(small, clock):
    small.limit("shop", period_epsilon=gaussian(10, 1), period_days=30, delta=DELTA)
    spend(small, charge(run="january"))
    clock.advance(days=31)
    spend(small, charge(run="february"))
    with pytest.raises(BudgetExceeded) as refused:
        small.reserve("shop", charge(run="february again"))
    assert "january" not in str(refused.value)


def test_what_is_reserved_counts_in_every_period(small, clock):
    small.limit("shop", period_epsilon=gaussian(10, 1), period_days=30, delta=DELTA)
    small.reserve("shop", charge(), lease=timedelta(days=400))
    clock.advance(days=90)
    with pytest.raises(BudgetExceeded):
        small.reserve("shop", charge(1))


def test_a_limit_below_what_is_spent_stops_all_spending(ledger):
    spend(ledger, charge(0), charge(1))
    waiting = ledger.reserve("shop", charge(2))
    said = ledger.limit("shop", epsilon=gaussian(10, 1))
    assert said.counted == pytest.approx(gaussian(10, 3))
    assert said.remaining == 0
    with pytest.raises(BudgetExceeded):
        ledger.reserve("shop", charge(3, noise=1e6))
    ledger.spend(waiting)  # it had its place
    ledger.limit("shop", epsilon="none")
    ledger.reserve("shop", charge(3))


def test_what_is_not_named_stays_as_it_is(ledger):
    ledger.limit("shop", epsilon=8, period_epsilon=2, period_days=365, delta=DELTA)
    account = ledger.limit("shop", epsilon=9).account
    assert (account.limit, account.period_limit, account.period_days, account.delta) == (9, 2, 365, DELTA)
    account = ledger.limit("shop", period_days=180).account
    assert (account.limit, account.period_limit, account.period_days) == (9, 2, 180)
    account = ledger.limit("shop", period_epsilon="none").account
    assert (account.limit, account.period_limit, account.period_days) == (9, None, None)


def test_a_limit_of_nothing_refuses_everything(small):
    small.limit("shop", epsilon=0, delta=DELTA)
    with pytest.raises(BudgetExceeded):
        small.reserve("shop", charge())


def test_delta_is_the_accounts_own_until_it_is_changed(ledger):
    spend(ledger, charge(0), charge(1, delta=1e-3))
    assert ledger.account("shop").delta == DELTA
    assert ledger.statement("shop").spent == pytest.approx(gaussian(10, 2))
    assert ledger.limit("shop", delta=1e-4).spent == pytest.approx(gaussian(10, 2, 1e-4))


def test_an_account_is_opened_on_purpose(ledger):
    with pytest.raises(LedgerError, match="there is no account 'shop'; its first charge opens it"):
        ledger.account("shop")
    assert ledger.account("shop", DELTA) == ledger.account("shop", 1e-3) == ledger.account("shop")
    for ask in (
        lambda: ledger.limit("shpo", epsilon=1),
        lambda: ledger.statement("shpo"),
        lambda: ledger.charges("shpo"),
    ):
        with pytest.raises(LedgerError, match="there is no account 'shpo'; did you mean 'shop'"):
            ask()


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ({"epsilon": -1}, "epsilon must be a number, at least 0, got -1"),
        ({"epsilon": math.nan}, "epsilon must be a number, at least 0, got nan"),
        ({"period_epsilon": math.inf}, "period_epsilon must be a number, at least 0, got inf"),
        ({"period_days": 0}, "period_days must be a number, more than 0, got 0"),
        ({"period_epsilon": 1}, "a limit for a period needs its length"),
        ({"period_days": 30}, "30 days of what"),
    ],
)
def test_a_limit_that_is_none_is_refused(small, asked, sentence):
    small.account("shop", DELTA)
    with pytest.raises(ConfigError, match=sentence):
        small.limit("shop", **asked)
    assert small.account("shop") == small.limit("shop", epsilon="none").account


@pytest.mark.parametrize("name", ["", " shop", "shop\n", "sh\x1bop", "s" * 101])
def test_a_name_that_cannot_be_shown_is_refused(small, name):
    for use in (lambda: small.account(name, DELTA), lambda: small.reserve(name, charge())):
        with pytest.raises(ConfigError, match="an account's name must be 1 to 100 characters"):
            use()


@pytest.mark.parametrize(
    ("changed", "error", "sentence"),
    [
        ({"run": ""}, LedgerError, "the run of a charge must have a name"),
        ({"job": "a\nb"}, LedgerError, "the job of a charge must have a name"),
        ({"model": "\x00"}, LedgerError, "the model of a charge must be printable"),
        ({"round": -1}, LedgerError, "the round of a charge counts from 0"),
        ({"attempt": -1}, LedgerError, "the attempt of a charge counts from 0"),
        ({"events": ()}, PlanError, "has no events"),
        ({"delta": 0.0}, PlanError, "delta must be between 0 and 1"),
        ({"delta": math.nan}, PlanError, "delta must be between 0 and 1"),
        ({"events": (Event(1.0), Event(1.0, neighbours="replace-one"))}, PlanError, "different neighbours"),
    ],
)
def test_a_charge_that_says_nothing_is_refused(changed, error, sentence):
    with pytest.raises(error, match=sentence):
        replace(charge(), **changed)


def test_epsilons_about_different_neighbours_do_not_compose(ledger):
    other = replace(charge(1), events=(Event(10.0, neighbours="replace-one"),))
    receipt = ledger.reserve("shop", charge(0))
    with pytest.raises(PlanError, match="epsilons about add-or-remove-one and replace-one neighbours do not compose"):
        ledger.reserve("shop", other)
    ledger.give_back(receipt, "the other was meant")
    spend(ledger, other)
    assert ledger.statement("shop").spent > 0


# --- what is written down --------------------------------------------------------------------------------------------


def test_events_are_written_in_one_way_and_read_as_they_were():
    events = [Event(2.0, 3), Event(1.5, sampler="poisson", rate=0.1), Event(2.0, 2, total_variation=1e-12)]
    assert (
        text_of(events)
        == text_of([events[2], events[0], events[1]])
        == text_of([Event(2.0), Event(2.0, 2), *events[1:]])
    )
    assert sorted(events_of({text_of(events): 4}), key=repr) == sorted(
        (replace(event, count=4 * event.count) for event in events), key=repr
    )


def test_thousands_of_charges_are_composed_in_no_time(small):
    many = [charge(round, f"run {round % 40}", noise=100.0 + round % 13) for round in range(4000)]
    for receipt in small.reserve_all("shop", many)[:10]:
        small.spend(receipt)
    small.limit("shop", epsilon=5.0)
    started = time.perf_counter()
    small.reserve("shop", charge(run="one more", noise=100.0))
    said = small.statement("shop")
    assert time.perf_counter() - started < 2.0
    assert said.counted == pytest.approx(
        gaussian(1 / math.sqrt(sum(1 / (100 + r % 13) ** 2 for r in range(4000))), 1), rel=1e-3
    )


def test_a_statement_is_plain_and_says_nothing_of_users(ledger):
    ledger.limit("shop", epsilon=8, period_epsilon=4, period_days=365, delta=DELTA)
    spend(ledger, charge(0, fingerprint="ab" * 32))
    ledger.reserve("shop", charge(1))
    said = ledger.statement("shop").as_dict()
    assert set(said) == {
        *("account", "delta", "limit", "period_limit", "period_days", "opened"),
        *("spent", "counted", "remaining", "period_spent", "period_counted", "period_remaining"),
        *("runs", "reservations"),
    }
    assert set(said["runs"][0]) == {"run", "model", "epsilon", "charges", "rounds", "first", "last"}
    assert set(said["reservations"][0]) == {"receipt", "run", "job", "round", "attempt", "since", "lapses"}
    assert said["runs"][0]["first"].endswith("+00:00")


# --- many at once ----------------------------------------------------------------------------------------------------


def test_eight_processes_at_once_never_overspend(where, tmp_path):
    limit = gaussian(6, 14)
    ledger = Ledger.open(where)
    ledger.limit("shop", epsilon=limit, delta=DELTA)
    released = tmp_path / "released"
    done = subprocess.run(
        [sys.executable, "-m", "tests.ledgers", where, str(released), "8"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = ledger.statement("shop")
    assert said.reservations == ()
    assert said.spent <= limit * (1 + 1e-9)
    with pytest.raises(BudgetExceeded):  # they did not stop early either
        ledger.reserve("shop", charge(run="one more", noise=5.0))
    spent = [row["id"] for row in ledger.charges() if row["state"] == "spent"]
    assert sorted(spent) == sorted(released.read_text().split())
    assert len({row["run"] for row in ledger.charges()}) > 1
