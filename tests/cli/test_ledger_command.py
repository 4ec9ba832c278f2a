"""`coterie ledger`: what was spent, what may be, and the record; in a file, or on a server."""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from coterie.privacy.events import Event
from coterie.privacy.ledger import FILE, Ledger
from tests.ledgers import DELTA, charge
from tests.postgres import PASSWORD, Server, postgres


@pytest.fixture(autouse=True)
def _no_password(monkeypatch):
    for name in ("COTERIE_DB_PASSWORD", "PGPASSWORD", "PGPASSFILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def home(tmp_path) -> Path:
    """An installation of its own for each test: its ledger is empty."""
    return tmp_path / "home"


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgres() as running:
        yield running


@pytest.fixture
def spent(coterie) -> Ledger:
    """The installation's ledger: two runs of a shop, and a reservation."""
    return filled(Ledger.open())


def filled(ledger: Ledger) -> Ledger:
    for receipt in ledger.reserve_all("shop", [charge(round, "runs/a") for round in range(3)]):
        ledger.spend(receipt)
    ledger.spend(ledger.reserve("shop", charge(run="runs/b", noise=5.0)))
    ledger.give_back(ledger.reserve("shop", charge(1, "runs/b")), "too few clients")
    ledger.reserve("shop", charge(2, "runs/b"))
    return ledger


@pytest.mark.parametrize("command", [(), ("show",), ("export",), ("limit",)], ids=" ".join)
def test_every_command_has_help(coterie, command):
    result = coterie("ledger", *command, "--help")
    assert (result.code, result.err) == (0, "")
    assert result.out.startswith(f"Usage: {' '.join(('coterie', 'ledger', *command))}")


def test_without_a_command_it_shows_its_help(coterie):
    assert "Commands:" in coterie("ledger").out


def test_before_anything_was_charged_nothing_is_made(coterie, home):
    assert coterie("ledger", "show", "--json").json == {"ledger": str(home / FILE), "accounts": []}
    assert "nothing has been charged" in coterie("ledger", "show").out
    assert (
        "there is no account 'shop': nothing has been charged"
        in coterie("ledger", "show", "--account", "shop").sentence
    )
    assert "nothing has been charged: there is no" in coterie("ledger", "export").sentence
    assert "--delta opens both" in coterie("ledger", "limit", "shop", "--epsilon", "8").sentence
    assert not home.exists()


def test_show_says_what_the_ledger_says(coterie, spent, home):
    said = coterie("ledger", "show", "--json").json
    assert said == {"ledger": str(home / FILE), "accounts": [spent.statement("shop").as_dict()]}
    (account,) = said["accounts"]
    assert account["counted"] > account["spent"] > 0
    assert [run["run"] for run in account["runs"]] == ["runs/a", "runs/b"]


def test_a_person_reads_it_in_a_table(coterie, spent):
    spent.limit("shop", epsilon=8, period_epsilon=2, period_days=365)
    shown = coterie("ledger", "show").out
    said = spent.statement("shop")
    life, year = (line.split() for line in shown.splitlines() if " life " in line or "365 days" in line)
    assert life == ["shop", "1e-06", "life", f"{said.spent:.4g}", "1", "8", f"{8 - said.counted:.4g}", "2"]
    assert year == ["365", "days", f"{said.spent:.4g}", "2", f"{2 - said.counted:.4g}"]
    assert "runs/a" not in shown
    assert max(map(len, shown.splitlines())) <= 80


def test_with_an_account_it_names_runs_and_reservations(coterie, spent):
    shown = coterie("ledger", "show", "--account", "shop").out
    first = next(line.split() for line in shown.splitlines() if line.strip().startswith("runs/a"))
    assert first[:4] == ["runs/a", "ease", f"{spent.statement('shop').runs[0].epsilon:.4g}", "3"]
    assert "Reserved" in shown
    assert max(map(len, shown.splitlines())) <= 80
    assert "did you mean 'shop'" in coterie("ledger", "show", "--account", "shpo").sentence


def test_what_cannot_be_bounded_says_so(coterie, spent):
    rough = replace(charge(run="rough"), events=(Event(9.0, sampler="poisson", rate=0.5, total_variation=0.5),))
    spent.spend(spent.reserve("shop", rough))
    assert " unbounded " in coterie("ledger", "show").out
    assert coterie("ledger", "show", "--json").json["accounts"][0]["spent"] is None


# --- export ----------------------------------------------------------------------------------------------------------


def test_export_is_the_whole_record(coterie, spent, tmp_path):
    rows = list(csv.DictReader(io.StringIO(coterie("ledger", "export").out)))
    assert [(row["run"], row["round"], row["state"]) for row in rows] == [
        *(("runs/a", str(round), "spent") for round in range(3)),
        ("runs/b", "0", "spent"),
        ("runs/b", "1", "returned"),
        ("runs/b", "2", "reserved"),
    ]
    assert [Event.from_json(one) for one in json.loads(rows[0]["events"])] == [Event(10.0)]
    assert datetime.fromisoformat(rows[0]["spent_at"]).utcoffset().total_seconds() == 0
    assert rows[4]["reason"] == "too few clients"
    told = coterie("ledger", "export", "--json").json
    assert len(told["charges"]) == 6
    assert told["charges"][0]["events"] == [Event(10.0).to_json()]


@pytest.mark.parametrize("name", ["record.csv", "record.json"])
def test_export_writes_a_file(coterie, spent, tmp_path, name):
    target = tmp_path / "out" / name
    told = coterie("ledger", "export", "--account", "shop", "--output", target, "--json").json
    assert told == {"output": str(target), "charges": 6}
    whole = coterie("ledger", "export", "--json").json["charges"]
    if name.endswith(".json"):
        assert json.loads(target.read_text()) == whole
    else:
        assert target.read_text() == coterie("ledger", "export").out
    assert "exists already; --force replaces it" in coterie("ledger", "export", "--output", target).sentence
    assert coterie("ledger", "export", "--output", target, "--force").code == 0


def test_export_refuses_what_it_cannot_write(coterie, spent, tmp_path):
    assert "must end in .csv or .json" in coterie("ledger", "export", "--output", tmp_path / "record.txt").sentence
    (tmp_path / "folder.csv").mkdir()
    assert "is a folder" in coterie("ledger", "export", "--output", tmp_path / "folder.csv").sentence
    assert "did you mean 'shop'" in coterie("ledger", "export", "--account", "shpo").sentence


# --- limit -----------------------------------------------------------------------------------------------------------


def test_a_limit_is_set_before_the_first_charge(coterie):
    done = coterie("ledger", "limit", "shop", "--epsilon", "8", "--delta", "1e-6", "--json")
    assert done.code == 0, done.err
    assert {"account": "shop", "limit": 8.0, "delta": 1e-6, "spent": 0.0, "remaining": 8.0, "warnings": []}.items() <= (
        done.json.items()
    )
    asked = ("--epsilon", "10", "--period-epsilon", "2.5", "--period-days", "365")
    assert " 365 days " in coterie("ledger", "limit", "shop", *asked).out
    said = Ledger.open().account("shop")
    assert (said.limit, said.period_limit, said.period_days, said.delta) == (10, 2.5, 365, DELTA)
    assert coterie("ledger", "limit", "shop", "--epsilon", "none", "--json").json["limit"] is None


def test_a_limit_below_what_is_spent_says_what_follows(coterie, spent):
    asked = ("--epsilon", "0.5", "--period-epsilon", "0.1", "--period-days", "30")
    done = coterie("ledger", "limit", "shop", *asked)
    assert done.code == 0
    warned = done.err.replace("\n", " ")
    assert "is spent or reserved already, more than the limit of 0.5: nothing more can be reserved" in warned
    assert "in the last 30 days, more than the limit of 0.1: nothing more can be reserved for now" in warned
    assert len(coterie("ledger", "limit", "shop", *asked, "--json").json["warnings"]) == 2


@pytest.mark.parametrize(
    ("asked", "sentence"),
    [
        ((), "what may be spent on 'shop'? Give --epsilon"),
        (("--epsilon", "lots"), "--epsilon must be a number or none, got 'lots'"),
        (("--epsilon", "nan"), "--epsilon must be a number or none, got 'nan'"),
        (("--epsilon", "-1"), "epsilon must be a number, at least 0, got -1"),
        (("--period-days", "none"), "--period-days must be a number, got 'none'"),
        (("--period-epsilon", "1"), "a limit for a period needs its length"),
        (("--delta", "2"), "delta must be between 0 and 1"),
        (("--epsilno", "2"), "did you mean '--epsilon'"),
    ],
)
def test_a_wrong_limit_is_one_sentence(coterie, spent, asked, sentence):
    refused = coterie("ledger", "limit", "shop", *asked)
    assert refused.code == 2
    assert sentence in refused.sentence
    assert spent.account("shop").limit is None


def test_a_misspelt_account_opens_no_second_budget(coterie, spent):
    assert "did you mean 'shop'" in coterie("ledger", "limit", "shpo", "--epsilon", "8").sentence
    assert [one.account.name for one in spent.statements()] == ["shop"]


# --- other ledgers ---------------------------------------------------------------------------------------------------


def test_another_file_can_be_named(coterie, tmp_path):
    filled(Ledger.open(tmp_path / "other.sqlite"))
    for where in (tmp_path / "other.sqlite", f"sqlite:///{tmp_path / 'other.sqlite'}"):
        assert coterie("ledger", "show", "--ledger", where, "--json").json["ledger"] == str(where)
    assert "there is no such file" in coterie("ledger", "show", "--ledger", tmp_path / "none.sqlite").sentence
    (tmp_path / "text.txt").write_text("no database, but long enough to be looked at " * 50)
    assert "is no SQLite database" in coterie("ledger", "show", "--ledger", tmp_path / "text.txt").sentence


def test_a_server_can_be_named_and_its_password_is_nowhere(coterie, server, monkeypatch):
    with server.fresh() as url:
        filled(Ledger.open(url))
        monkeypatch.setenv("LEDGER_URL", url)
        for where in (url, "env:LEDGER_URL"):
            for command in (("show",), ("export",), ("limit", "shop", "--epsilon", "8")):
                done = coterie("ledger", *command, "--ledger", where, "--json")
                assert done.code == 0, done.err
                assert PASSWORD not in done.out + done.err
                assert "%2F" not in done.out + done.err
        assert done.json["ledger"] == "env:LEDGER_URL"
        monkeypatch.setenv("COTERIE_DEBUG", "1")
        for broken in (url.replace(str(server.port), "1"), url.replace("/t", "/nowhere")):
            failed = coterie("ledger", "show", "--ledger", broken, "--json")
            assert failed.code == 1
            assert "cannot be connected to" in failed.json["error"]["message"]
            assert PASSWORD not in failed.out
