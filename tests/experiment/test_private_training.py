"""A private training from a log to a run folder: what it promises, what it charges, and that nothing else gets out."""

from __future__ import annotations

import io
import json
import logging
import re
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import coterie
from coterie.data.log import InteractionLog
from coterie.data.market import market
from coterie.errors import BudgetExceeded, ConfigError, CoterieError, DataError, PlanError
from coterie.federation import loop, release
from coterie.privacy.ledger import Ledger
from coterie.types import Total

SHOPS, ITEMS = 4, 60
PRIVATE = {"plan": {"epsilon": 4.0}}


def log_of(seed: int, customers: int = 240) -> InteractionLog:
    made = market(shops=SHOPS, customers=customers, items=ITEMS, baskets=6 * customers, seed=seed, messy=False)
    return made.log


LOG = log_of(0)


@pytest.fixture
def ledger(tmp_path: Path) -> str:
    return str(tmp_path / "ledger.sqlite")


def train(log: InteractionLog = LOG, ledger: str | None = None, **more: Any) -> coterie.Run:
    plan = more.pop("plan", coterie.Plan(epsilon=4.0))
    settings = more.pop("settings", {}) | ({} if ledger is None else {"ledger": {"ledger": ledger}})
    return coterie.train(log, more.pop("model", "popularity"), plan=plan, settings=settings, **more)


def test_a_run_states_what_it_promises_and_has_spent(ledger: str) -> None:
    privacy = train(ledger=ledger).result["privacy"]
    assert (privacy["epsilon"], privacy["delta"], privacy["noise"]) == (4.0, 1e-6, "distributed")
    assert (privacy["aggregation"], privacy["masks"], privacy["accountant"]) == ("secure", "real", "pld")
    assert privacy["epsilon_spent"] == pytest.approx(4.0, rel=1e-3)
    assert privacy["noise_source"] == "operating system"
    assert all(part["noise_std"] > 0 for part in privacy["parts"])


def test_every_run_on_an_account_is_charged_and_the_limit_holds(ledger: str) -> None:
    train(ledger=ledger)
    books = Ledger.open(ledger)
    assert books.statement("default").spent == pytest.approx(4.0, rel=1e-3)
    books.limit("default", epsilon=5.0)
    with pytest.raises(BudgetExceeded, match="remains"):
        train(ledger=ledger)
    more = LOG.with_frame(pl.concat([LOG.frame, LOG.frame.head(1)]))
    with pytest.raises(BudgetExceeded):  # one appended row buys no new budget
        train(more, ledger)
    assert books.statement("default").counted == pytest.approx(4.0, rel=1e-3)
    assert train(ledger=ledger, plan=coterie.Plan(epsilon=0.1)).result["privacy"]["epsilon_spent"] <= 0.1


def test_simulated_noise_is_reproducible_charged_nowhere_and_never_releasable(ledger: str, tmp_path: Path) -> None:
    plan = coterie.Plan(epsilon=4.0, simulated_noise=True)
    first = train(ledger=ledger, plan=plan, output=tmp_path / "run")
    again = train(ledger=ledger, plan=plan)
    np.testing.assert_array_equal(first.state["counts"], again.state["counts"])
    assert not Path(ledger).exists()
    assert first.result["privacy"]["releasable"] is False
    assert "Simulated noise: no privacy" in (tmp_path / "run" / "privacy-card.md").read_text("utf-8")
    assert json.loads((tmp_path / "run" / "manifest.json").read_text("utf-8"))["releasable"] is False


def test_the_card_says_what_was_raw(tmp_path: Path) -> None:
    train(test="carts", output=tmp_path / "run")
    card = (tmp_path / "run" / "privacy-card.md").read_text("utf-8")
    assert "Epsilon 4 at delta 1e-06 for each user" in card
    assert "**Outside epsilon**, shown because this is a simulation: raw metrics" in card
    assert "Metrics are raw" in card


@pytest.mark.parametrize(
    ("settings", "kind", "message"),
    [
        ({"clean": {"max_items": 10}}, ConfigError, "max_items looks at all users at once"),
        ({"clean": {"min_item_rows": 5}}, ConfigError, "min_item_rows looks at all users at once"),
        ({"clean": {"max_user_quantile": 0.9}}, ConfigError, "max_user_quantile looks at all users"),
        ({"clean": {"max_basket_quantile": 0.9}}, ConfigError, "max_basket_quantile looks at all users"),
        ({"run": {"patience": 2}}, ConfigError, "patience"),
        ({"model": {"tune": True}}, ConfigError, "tune"),
    ],
)
def test_what_would_be_decided_for_free_is_refused(
    settings: dict[str, Any], kind: type[CoterieError], message: str
) -> None:
    with pytest.raises(kind, match=message):
        train(settings=settings, test="carts")


def test_guests_are_dropped_or_units_of_their_own() -> None:
    half = pl.when(pl.int_range(pl.len()) % 2 == 0).then(pl.col("user")).alias("user")
    guests = LOG.with_frame(LOG.frame.with_columns(half))
    assert train(guests).result["data"]["guests"] == 0
    units = train(guests, plan=coterie.Plan(epsilon=4.0, guests="basket")).result["data"]
    assert units["guests"] > 100
    with pytest.raises(DataError, match="a guest is nobody whom epsilon could protect"):
        train(LOG.with_frame(LOG.frame.with_columns(user=pl.lit(None, pl.String))))


def test_a_user_at_more_clients_than_the_plan_bounds_is_refused() -> None:
    everywhere = LOG.with_frame(LOG.frame.with_columns(user=pl.lit("same")))
    with pytest.raises(PlanError, match="max_clients_per_user = 2"):
        train(everywhere, plan=coterie.Plan(epsilon=4.0, max_clients_per_user=2))


def test_paid_metrics_are_means_over_users_with_noise_of_the_stated_size() -> None:
    asked = {"catalogue": "all", "metrics_share": 0.5}
    paid = train(test="carts", plan=coterie.Plan(epsilon=30.0), settings={"evaluation": asked}).result
    raw = train(test="carts", plan=coterie.Plan(epsilon=30.0), settings={"evaluation": {"catalogue": "all"}}).result
    assert paid["metrics"]["alone"] is None
    for scheme in ("federated", "popularity"):
        noise = paid["metrics_noise"][scheme]["ndcg@10"]
        assert abs(paid["metrics"][scheme]["ndcg@10"] - raw["metrics"][scheme]["ndcg@10"]) < 0.05 + 6 * noise
    assert paid["per_client"] == []
    assert paid["data"]["users"] is None
    assert paid["privacy"]["epsilon_spent"] == pytest.approx(30.0, rel=1e-3)
    assert not any(one["why"] for one in paid["privacy"]["left"])


@pytest.fixture
def sums_are_replaced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Whatever passes the way out is replaced by something that depends on no log; names what did."""
    passed: list[str] = []

    def stand_in(value: Any, door: release.Door) -> Any:
        assert isinstance(value, Total), f"{door.what}: not a sum"
        passed.append(door.what)
        fixed = {name: np.arange(len(array), dtype=np.int64) + 7 for name, array in value.integers.items()}
        return replace(value, integers=fixed)

    monkeypatch.setattr(release, "release", stand_in)
    monkeypatch.setattr(loop, "release", stand_in)
    return passed


@pytest.mark.parametrize("model", ["popularity", "ease", "cart"])
def test_nothing_that_comes_from_the_logs_gets_out_but_through_release(
    model: str, tmp_path: Path, sums_are_replaced: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two logs that share nothing but their items and clients: all that is written, logged and printed is equal."""
    outputs = _of_two_logs(tmp_path, model, monkeypatch, "--metrics-share", "0.2")
    assert len(sums_are_replaced) >= 4  # in each run the model's sums, and its metrics
    for name in outputs[0].keys() | outputs[1].keys():
        one, other = (shown.get(name, b"").splitlines() for shown in outputs)
        assert one == other, name


def test_the_spy_sees_what_gets_out_otherwise(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outputs = _of_two_logs(tmp_path, "popularity", monkeypatch)
    differing = {name for name in outputs[0] if outputs[0][name] != outputs[1].get(name)}
    assert {"stdout", "stderr", "result.json", "model.safetensors", "inputs.json"} <= differing


def _of_two_logs(
    tmp_path: Path, model: str, monkeypatch: pytest.MonkeyPatch, *flags: str
) -> tuple[dict[str, bytes], dict[str, bytes]]:
    logs = log_of(1), log_of(2, customers=300)
    shared = sorted(set(logs[0].frame["item"]) & set(logs[1].frame["item"]))
    titles, outputs = logs[0].texts.select("item", "title").unique("item", maintain_order=True), []
    for at, log in enumerate(logs):
        kept = log.with_frame(log.frame.filter(pl.col("item").is_in(shared)))
        path = tmp_path / f"log{at}" / "orders.parquet"
        path.parent.mkdir()
        kept.frame.join(titles, on="item", how="left").write_parquet(path)
        outputs.append(_everything_shown(path, tmp_path / f"run{at}", model, monkeypatch, *flags))
    return outputs[0], outputs[1]


def _everything_shown(
    path: Path, folder: Path, model: str, monkeypatch: pytest.MonkeyPatch, *more: str
) -> dict[str, bytes]:
    """Every file of a run, stdout, stderr and log records, without what differs anyway: times, names of folders."""
    from coterie.cli import main

    out, err, records = io.StringIO(), io.StringIO(), io.StringIO()
    handler = logging.StreamHandler(records)
    logging.getLogger().addHandler(handler)
    monkeypatch.setenv("COTERIE_DB_PASSWORD", "")
    flags = ["--user-column", "user", "--item-column", "item", "--time-column", "time", "--basket-column", "basket"]
    flags += ["--client-column", "client", "--value-column", "value", "--title-column", "title", "--preset", "none"]
    with redirect_stdout(out), redirect_stderr(err), pytest.raises(SystemExit) as left:
        main([
            "train", str(path), *flags, "--model", model, "--epsilon", "8", "--split", "carts", "--simulated-noise",
            "--output", str(folder), *more,
        ])  # fmt: skip
    logging.getLogger().removeHandler(handler)
    assert left.value.code == 0, err.getvalue()
    shown = {"stdout": out.getvalue(), "stderr": err.getvalue(), "logging": records.getvalue()}
    files = {str(one.relative_to(folder)): one.read_bytes() for one in folder.rglob("*") if one.is_file()}
    files |= {name: text.encode() for name, text in shown.items()}
    del files["manifest.json"]  # digests of the others, and a signature over them
    folders = b"|".join(re.escape(str(one)).encode() for one in (folder, path.parent))
    where = re.compile(folders + rb"|run[01]|log[01]")
    timing = re.compile(rb'"(train_s|evaluate_s)": [0-9.e-]+|[0-9.]+ (s|min)\b|-[0-9a-f]{8}\b')
    return {name: timing.sub(b"", where.sub(b"", content)) for name, content in files.items()}
