"""The buyer's table: the same figures as trainings of their own, fair columns, and charges that add up."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import coterie
from coterie.data.log import InteractionLog
from coterie.data.market import market
from coterie.errors import BudgetExceeded, ConfigError, CoterieError, PlanError
from coterie.evaluation.metrics import Measured
from coterie.experiment.buyers import EPSILONS, compare_log, epsilons_of, write_table
from coterie.experiment.buyers_figures import ALONE, MIX, Member, figures
from coterie.experiment.buyers_schemes import BY_TEXTS, texts_alone
from coterie.experiment.work import Work
from coterie.models.text import similarity
from coterie.privacy.ledger import Ledger
from coterie.settings import EvaluationSettings, build
from coterie.types import Query, Ragged

METRIC = "ndcg@10"
FAST: dict[str, dict[str, Any]] = {"evaluation": {"resamples": 100}}
LIKE_PRIVATE = {
    "clean": {"preset": "none"},
    "split": {"max_targets": 100},
}  # nothing that plans with noise do otherwise


def log_of(guests: float, seed: int = 3) -> InteractionLog:
    return market(shops=3, customers=120, items=40, baskets=800, seed=seed, guests=guests).log


KNOWN, MIXED = log_of(guests=0.0), log_of(guests=0.3)


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    return str(tmp_path / "ledger.sqlite")


def compared(log: InteractionLog, *epsilons: str, heard: list[str] | None = None, **sections: Any) -> dict[str, Any]:
    """The table, with simulated noise unless a ledger says otherwise."""
    plan = {"simulated_noise": "ledger" not in sections, **sections.pop("plan", {})}
    settings = build({**FAST, "plan": plan, **sections}, "test")

    def notify(kind: str, content: Any) -> None:
        if heard is not None and kind == "step":
            heard.append(content["text"])

    return compare_log(log, settings, epsilons, notify=notify)


@pytest.fixture(scope="module")
def known() -> dict[str, Any]:
    return compared(KNOWN, "none", "8", **LIKE_PRIVATE)


@pytest.fixture(scope="module")
def mixed() -> dict[str, Any]:
    return compared(MIXED, "8", "none")


# --- the same figures as trainings of their own -----------------------------------------------------------------------


@pytest.mark.parametrize("epsilon", ["none", "8"])
def test_columns_are_what_trainings_of_their_own_would_give(known: dict[str, Any], epsilon: str) -> None:
    plan = coterie.Plan() if epsilon == "none" else coterie.Plan(epsilon=8.0, simulated_noise=True)
    run = coterie.train(KNOWN, plan=plan, test="auto", settings=FAST | LIKE_PRIVATE)
    for ours, theirs in zip(known["per_client"], run.result["per_client"], strict=True):
        assert ours["client"] == theirs["client"]
        assert ours["cases"] == theirs["cases"]
        assert ours["mix_weight"][epsilon] == theirs["mix_weight"]
        assert ours["alone"]["mean"] == pytest.approx(theirs["alone"][METRIC], abs=1e-9)
        for kind in ("federated", "mix"):
            assert ours[kind][epsilon]["mean"] == pytest.approx(theirs[kind][METRIC], abs=1e-9)


def test_centralised_equals_the_federation_without_noise(known: dict[str, Any]) -> None:
    for row in known["per_client"]:
        assert row["centralised"]["mean"] == pytest.approx(row["federated"]["none"]["mean"], abs=1e-6)


def test_columns_come_as_they_were_asked_for(mixed: dict[str, Any]) -> None:
    assert [row["epsilon"] for row in mixed["by_epsilon"]] == ["8", "none", "same-rows"]
    assert set(mixed["macro"]) == {"alone", "texts", "federated", "mix", "centralised"}


def test_means_over_organisations_weigh_all_alike(mixed: dict[str, Any]) -> None:
    for scheme in ("alone", "texts", "centralised"):
        mean = np.mean([row[scheme]["mean"] for row in mixed["per_client"]])
        assert mixed["macro"][scheme]["mean"] == pytest.approx(mean)
    assert mixed["macro"]["alone"]["low"] < mixed["macro"]["alone"]["mean"] < mixed["macro"]["alone"]["high"]


# --- what differs is said ---------------------------------------------------------------------------------------------


def test_guests_stay_at_home_and_the_same_rows_are_compared_without_noise(mixed: dict[str, Any]) -> None:
    rows = sum(row["interactions"] for row in mixed["per_client"])
    assert mixed["data"]["interactions"] == rows  # of guests too: organisations learn from them
    assert sum(row["guests"] for row in mixed["per_client"]) > 0
    (told,) = [text for text in mixed["differences"] if text.startswith("Private sums are over")]
    assert "of guests" in told
    same = next(row for row in mixed["by_epsilon"] if row["epsilon"] == "same-rows")
    assert same["privacy"]["epsilon"] == "none"
    assert mixed["per_client"][0]["federated"]["same-rows"] != mixed["per_client"][0]["federated"]["none"]


def test_rows_that_mixes_are_chosen_with_stay_at_home_where_sums_cannot_be_told_apart() -> None:
    result = compared(KNOWN, "none", "8", model={"name": "gfcf"})
    (told,) = [text for text in result["differences"] if text.startswith("Private sums are over")]
    assert "guests" not in told
    assert "of validation, with which organisations choose their mix at home" in told
    assert result["by_epsilon"][1]["epsilon"] == "same-rows"


def test_where_private_sums_lack_no_row_nothing_more_is_trained() -> None:
    result = compared(MIXED, "none", "8", plan={"guests": "basket"}, split={"valid_share": 0.0})
    assert compared(KNOWN, "none", "8")["differences"] == result["differences"]  # its sums hold the validation rows too
    assert [row["epsilon"] for row in result["by_epsilon"]] == ["none", "8"]
    assert not any("Private sums" in text for text in result["differences"])
    assert {weight for row in result["per_client"] for weight in row["mix_weight"].values()} == {0.25}


def test_simulated_noise_is_marked(known: dict[str, Any]) -> None:
    private = known["by_epsilon"][-1]["privacy"]
    assert private["releasable"] is False
    assert private["masks"] == "real"
    assert known["account"] is None
    assert any(text.startswith("Simulated noise: no privacy") for text in known["caveats"])
    assert {"what": "raw metrics, counts of rows, and what each client keeps", "charged": False} in [
        {"what": one["what"], "charged": one["charged"]} for one in private["left"]
    ]


def test_items_without_texts_have_no_such_column() -> None:
    bare = InteractionLog(KNOWN.frame)
    result = compared(bare, "none")
    assert "texts" not in result["macro"]
    assert any("no texts" in text for text in result["differences"])
    assert result["by_epsilon"][0]["kept"]["mean"] == 1.0


def test_texts_alone_rank_by_similarity_of_texts() -> None:
    titles = ["red mug", "blue mug", "red plate", "green lamp", "blue lamp"]
    public, items = similarity(titles), np.array([0, 1, 3, 4], np.int32)
    state = texts_alone(public, len(titles), items)
    dense = np.zeros((5, 5))
    for i in range(5):
        entries = slice(public["similarity_ptr"][i], public["similarity_ptr"][i + 1])
        dense[i, public["similarity_item"][entries]] = public["similarity"][entries]
    scores = BY_TEXTS.score(state, Query(Ragged.of([[0, 3], [1], []])))
    expected = np.stack([dense[items][:, items][[0, 3]].sum(0), dense[items][:, items][1], np.zeros(4)])
    np.testing.assert_allclose(scores, expected, rtol=1e-5)
    assert expected.any()


# --- what is charged --------------------------------------------------------------------------------------------------


def test_every_private_training_is_charged_once(ledger: str) -> None:
    result = compared(KNOWN, "none", "2", "1", ledger={"ledger": ledger}, model={"name": "popularity"})
    books = Ledger.open(ledger)
    statement = books.statement("default")
    assert [one.epsilon for one in statement.runs] == pytest.approx([2.0, 1.0], rel=1e-3)
    assert not statement.reservations
    assert {row["state"] for row in books.charges()} == {"spent"}
    assert result["account"]["epsilon"] == pytest.approx(statement.spent)
    private = [row["privacy"] for row in result["by_epsilon"] if row["privacy"]["epsilon"] != "none"]
    assert [facts["epsilon_spent"] for facts in private] == pytest.approx([2.0, 1.0], rel=1e-3)
    assert {facts["noise_source"] for facts in private} == {"operating system"}


def test_an_account_that_cannot_pay_for_all_pays_for_nothing(ledger: str) -> None:
    books, heard = Ledger.open(ledger), list[str]()
    books.limit("default", epsilon=2.1, delta=1e-6)
    with pytest.raises(BudgetExceeded, match=r"over its limit of 2\.1"):
        compared(KNOWN, "none", "2", "1", ledger={"ledger": ledger}, model={"name": "popularity"}, heard=heard)
    assert books.statement("default").counted == 0
    assert not any("training" in text for text in heard)


def test_what_was_set_aside_for_trainings_that_never_came_is_given_back(
    ledger: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    honest = Work.train

    def interrupted(work: Work, *arguments: Any) -> Any:
        if work.plan.private and work.plan.epsilon == 1.0:
            raise KeyboardInterrupt
        return honest(work, *arguments)

    monkeypatch.setattr(Work, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        compared(KNOWN, "2", "1", ledger={"ledger": ledger}, model={"name": "popularity"})
    statement = Ledger.open(ledger).statement("default")
    assert statement.spent == statement.counted == pytest.approx(2.0, rel=1e-3)


# --- figures ----------------------------------------------------------------------------------------------------------


def measured(values: Any) -> Measured:
    array = np.asarray(values, np.float64)
    return Measured({METRIC: array}, np.arange(len(array)), {10: np.zeros(1, np.int64)})


@pytest.fixture
def planted() -> tuple[list[Member], np.ndarray]:
    """Two organisations: the first gains .2 without noise and half of that at epsilon 8; the second loses at 8."""
    base = np.random.default_rng(0).uniform(0.2, 0.6, 60)
    first = {ALONE: measured(base), (MIX, "none"): measured(base + 0.2), (MIX, "8"): measured(base + 0.1)}
    second = {ALONE: measured(base), (MIX, "none"): measured(base), (MIX, "8"): measured(base - 0.05)}
    return [Member("a", {}, first, {}), Member("b", {}, second, {})], base


def test_who_gains_and_what_is_kept_of_it(planted: tuple[list[Member], np.ndarray]) -> None:
    members, base = planted
    found = figures(members, ["none", "8"], METRIC, EvaluationSettings(resamples=200), seed=0)
    free, private = found["by_epsilon"]
    assert (free["surely_better"], free["surely_worse"]) == (["a"], [])
    assert (private["surely_better"], private["surely_worse"]) == (["a"], ["b"])
    assert (private["better"], private["worse"], private["clients"]) == (1, 1, 2)
    assert free["gain"]["mean"] == pytest.approx(0.1)
    assert private["kept"]["mean"] == pytest.approx(0.25)
    assert private["kept"]["low"] == pytest.approx(0.25)  # every case gains alike: nothing varies
    assert found["macro"]["alone"]["mean"] == pytest.approx(base.mean())
    assert found["macro"]["alone"]["low"] < base.mean() < found["macro"]["alone"]["high"]
    assert found["per_client"][0]["gain"]["8"]["difference"] == pytest.approx(0.1)


def test_a_share_of_a_gain_that_may_be_none_has_no_limits() -> None:
    noise = np.random.default_rng(1).normal(0.001, 0.3, 80)
    schemes = {ALONE: measured(np.zeros(80)), (MIX, "none"): measured(noise - noise.mean() + 0.001)}
    schemes[MIX, "8"] = measured(np.full(80, 0.0005))
    settings = EvaluationSettings(resamples=200)
    kept = figures([Member("a", {}, schemes, {})], ["none", "8"], METRIC, settings, 0)["by_epsilon"][1]["kept"]
    assert kept == {"mean": pytest.approx(0.5), "low": None, "high": None}
    schemes[MIX, "none"] = measured(np.full(80, -0.1))
    assert figures([Member("a", {}, schemes, {})], ["none", "8"], METRIC, settings, 0)["by_epsilon"][1]["kept"] is None


def test_one_user_alone_has_no_interval() -> None:
    one = Measured({METRIC: np.array([0.1, 0.3])}, np.zeros(2, np.int64), {10: np.zeros(1, np.int64)})
    members = [Member("a", {}, {ALONE: one, (MIX, "none"): one}, {})]
    found = figures(members, ["none"], METRIC, EvaluationSettings(), 0)
    assert found["macro"]["alone"] == {"mean": pytest.approx(0.2), "low": None, "high": None}


# --- what is refused --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sections", "kind", "message"),
    [
        ({"model": {"name": "cart", "tune": True}}, ConfigError, "tune"),
        ({"run": {"patience": 2}}, ConfigError, "patience"),
        ({"evaluation": {"metrics_share": 0.1}}, ConfigError, "metrics_share"),
        ({"evaluation": {"compare": False}}, ConfigError, "compare = false"),
        ({"split": {"split": "none"}}, ConfigError, "split"),
        ({"clients": {"clients": "users"}}, ConfigError, "several organisations"),
        ({"clean": {"max_items": 10}}, ConfigError, "max_items"),
        ({"plan": {"min_clients": 2}}, PlanError, "two honest clients"),
        ({"plan": {"min_clients": 9}}, PlanError, "fewer than min_clients"),
    ],
)
def test_what_would_not_be_a_comparison_is_refused(
    sections: dict[str, Any], kind: type[CoterieError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        compared(KNOWN, "none", "8", **sections)


def test_epsilons_are_numbers_or_none() -> None:
    assert epsilons_of("none, 8,0.5") == ("none", "8", "0.5")
    assert epsilons_of(",".join(EPSILONS)) == EPSILONS
    for text, message in (
        ("8,8.0", "twice"),
        ("", "at least one"),
        ("-1", "positive"),
        ("nan", "positive"),
        ("x", "x"),
    ):
        with pytest.raises(ConfigError, match=message):
            epsilons_of(text)


def test_the_epsilon_of_the_settings_gives_way() -> None:
    result = compared(KNOWN, "none", plan={"epsilon": 4.0, "simulated_noise": False})
    assert [row["privacy"]["epsilon"] for row in result["by_epsilon"]] == ["none"]


def test_a_table_is_written_whole_and_never_over_another(known: dict[str, Any], tmp_path: Path) -> None:
    write_table(tmp_path / "table", known)
    assert json.loads((tmp_path / "table" / "result.json").read_text("utf-8")) == known
    rows = pl.read_csv(tmp_path / "table" / "table.csv")
    mix = rows.filter((pl.col("client") == "shop1") & (pl.col("scheme") == "mix") & (pl.col("epsilon") == "8"))
    assert mix[METRIC].item() == pytest.approx(known["per_client"][0]["mix"]["8"]["mean"])
    assert (tmp_path / "table" / "by-epsilon.svg").read_text("utf-8").startswith("<?xml")
    with pytest.raises(ConfigError, match="not empty"):
        write_table(tmp_path / "table", known)
