"""`coterie plan`."""

from __future__ import annotations

import pytest

from coterie.experiment import planning_simulation as simulation

SMALL = ("--users", 200, "--clients", 4, "--items", 40)
QUICK = (*SMALL, "--no-simulate")


@pytest.fixture(autouse=True)
def _installation_of_its_own(monkeypatch, tmp_path):
    """A ladder of one rung, and wide lines."""
    monkeypatch.setattr(simulation, "LADDER", (200,))
    monkeypatch.setattr(simulation, "RESAMPLES", 100)
    monkeypatch.setenv("COLUMNS", "100")


@pytest.fixture
def ledger(tmp_path):
    """Where a ledger may be."""
    return tmp_path / "ledger.sqlite"


def test_one_object_with_every_figure(coterie, ledger):
    result = coterie("plan", "--epsilon", 4, "--ledger", ledger, *QUICK, "--json")
    assert result.code == 0, result.err
    told = result.json
    assert told["plan"]["epsilon"] == {"value": 4.0, "from": "asked", "note": None}
    assert told["cost"]["epsilon_of_releases"] == pytest.approx(4.0, rel=1e-3)
    assert told["cost"]["noise_multiplier"] == told["plan"]["noise_multiplier"]["value"]
    assert told["noise"]["honest"] == 3
    assert told["rounds"][0]["event"]["mechanism"] == "gaussian"
    assert told["year"]["runs"] == 52
    assert told["year"]["epsilon"] < told["year"]["naive_sum"]
    assert told["account"]["accepted"]
    assert told["ledger"] == str(ledger)
    assert told["simulation"] is None
    assert not ledger.exists()


def test_a_person_reads_what_it_means(coterie, ledger):
    result = coterie("plan", "--epsilon", 4, "--ledger", ledger, *QUICK)
    assert result.code == 0, result.err
    for part in (
        "200 users at 4 clients",
        "epsilon 4 at delta 1e-06 for one user (add-or-remove-one)",
        "h = min_clients 4 - max_colluding 1 = 3",
        "drown in it",
        "52 runs on the same users spend epsilon",
        "per run keeps all of them within epsilon 4",
        "does not exist yet",
    ):
        assert part in " ".join(result.out.split()), part
    assert "simulation" not in result.out
    assert max(map(len, result.out.splitlines())) <= 100


def test_the_simulation_says_that_it_is_one(coterie, ledger):
    asked = ("plan", "--epsilon", 8, "--ledger", ledger, *SMALL, "--model", "popularity")
    result = coterie(*asked)
    assert result.code == 0, result.err
    shown = " ".join(result.out.split())
    assert "a simulation on synthetic data" in shown
    assert "made-up market with 40 items, 6 baskets each, seed 0" in shown
    assert "Figures on your own log will differ" in shown
    assert "private federation" in shown
    assert "From how many customers?" in shown
    assert "simulating 200 customers" in result.err
    assert max(map(len, result.out.splitlines())) <= 100
    found = coterie(*asked, "--seed", 1, "--json").json["simulation"]
    assert found["synthetic"]
    assert (found["seed"], found["users"], len(found["ladder"])) == (1, 200, 1)
    assert not ledger.exists()


def test_the_account_decides(coterie, ledger):
    coterie("ledger", "limit", "shop", "--epsilon", 3, "--delta", 1e-6, "--ledger", ledger)
    asked = ("plan", "--ledger", ledger, "--account", "shop", *QUICK)
    refused = coterie(*asked, "--epsilon", 4)
    assert refused.code == 0
    assert "this run would be REFUSED" in refused.out
    accepted = coterie(*asked, "--epsilon", 1)
    assert "this run would be accepted (it fits)" in accepted.out
    assert coterie(*asked, "--epsilon", 1, "--json").json["account"]["runs_left"] >= 3


def test_a_settings_file_is_obeyed_and_flags_override_it(coterie, tmp_path):
    config = tmp_path / "coterie.toml"
    config.write_text('[plan]\nepsilon = 2\nmax_users = 4000\n[model]\nname = "popularity"\ntune = false\n')
    told = coterie("plan", "--config", config, "--epsilon", 3, *QUICK, "--json").json
    assert told["model"] == "popularity"
    assert (told["plan"]["epsilon"]["value"], told["plan"]["max_users"]["value"]) == (3.0, 4000)
    assert told["plan"]["max_users"]["from"] == "asked"


def test_without_epsilon_nothing_is_promised(coterie):
    result = coterie("plan", *QUICK)
    assert result.code == 0, result.err
    assert "nothing is spent, and nothing is promised" in " ".join(result.out.split())
    assert "A year" not in result.out


def test_runs_a_year_have_two_names(coterie):
    by_weeks = coterie("plan", "--epsilon", 1, "--weeks", 4, *QUICK, "--json").json["year"]
    by_runs = coterie("plan", "--epsilon", 1, "--runs-per-year", 4, *QUICK, "--json").json["year"]
    assert by_weeks == by_runs
    assert by_weeks["runs"] == 4


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (("--epsilon", "much"), "epsilon must be a positive number or 'none', got 'much'"),
        (("--users", 0), "at least 1, got '0'"),
        (("--clients", 300), "every organisation needs one"),
        (("--epsilon", 4, "--clients", 2), "min_clients"),
        (("--epsilon", 4, "--noise", "none"), "noise = 'none'"),
        (("--epsilon", 4, "--max-users", 100), "--max-users"),
        (("--model", "cat"), "unknown model 'cat'"),
        (("--epsilon", 4, "--tune"), "no such option: --tune"),
        (("--config", "missing.toml"), "missing.toml"),
    ],
)
def test_what_cannot_be_is_one_sentence(coterie, wrong, said):
    result = coterie("plan", *QUICK, *wrong)
    assert result.code == 2
    assert said in result.sentence


def test_a_ledger_that_cannot_be_read_is_no_ledger(coterie, tmp_path):
    spoilt = tmp_path / "spoilt.sqlite"
    spoilt.write_text("this is no database, whatever it is called" * 100)
    result = coterie("plan", "--epsilon", 4, "--ledger", spoilt, *QUICK)
    assert result.code == 2
    assert str(spoilt) in result.sentence
