"""Run folders: what is in them, that they load as they were, and that evaluating them elsewhere agrees."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import coterie
from coterie.data.market import market
from coterie.errors import DataError, RunError
from coterie.experiment.evaluating import evaluate_run
from coterie.settings import build, read_toml

SMALL = {"shops": 3, "customers": 240, "items": 80, "baskets": 1500, "seed": 5}


@pytest.fixture(scope="module")
def log() -> coterie.InteractionLog:
    return market(**SMALL).log


@pytest.fixture(scope="module")
def folder(log: coterie.InteractionLog, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from coterie.experiment.train import run_training

    base = tmp_path_factory.mktemp("run")
    table = log.frame.join(log.texts, on="item", how="left").rename({"title": "name"})
    table.write_parquet(base / "orders.parquet")
    columns = {f"{role}_column": role for role in ("user", "item", "time", "value", "basket", "client")}
    settings = build(
        {
            "data": {"logs": [str(base / "orders.parquet")], **columns, "title_column": "name"},
            "run": {"output": str(base / "run")},
        },
        "test",
    )
    run_training(settings)
    return base / "run"


def test_a_run_folder_has_what_it_promises(folder: Path) -> None:
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names >= {
        *("config.toml", "metrics.jsonl", "model.safetensors", "manifest.json", "report.html", "privacy-card.md"),
        *("result.json", "catalogue.parquet", "plots/metric-by-round.svg", "plots/gain-by-client.svg"),
    }
    manifest = json.loads((folder / "manifest.json").read_text())
    assert set(manifest["files"]) == names - {"manifest.json"}
    settings = build(read_toml(folder / "config.toml"), "config.toml")
    assert settings.data.client_column == "client"
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [record["stage"] for record in records] == ["selection", "final"]
    assert records[0]["validation"]["ndcg@10"] > 0


def test_the_model_file_holds_no_time_and_no_run_id(log: coterie.InteractionLog, folder: Path, tmp_path: Path) -> None:
    paths = [coterie.train(log, seed=seed, output=tmp_path / str(seed)).path for seed in (0, 1)]
    models = [(path / "model.safetensors").read_bytes() for path in paths if path is not None]
    assert models[0] == models[1]


def test_a_loaded_run_answers_as_the_trained_one(log: coterie.InteractionLog, tmp_path: Path) -> None:
    run = coterie.train(log, model="cart", test="carts")
    loaded = coterie.load(run.save(tmp_path / "run"))
    carts = [[run.items[1]], [run.items[5], run.items[9]], []]
    assert np.array_equal(run.scores(carts), loaded.scores(carts))
    assert loaded.items == run.items
    assert loaded.result == run.result
    assert list(loaded.clients) == list(run.clients)
    for client in run.clients:
        asked = {"basket": [run.items[int(run.clients[client].items[0])]], "k": 5, "client": client}
        assert loaded.recommend(**asked) == run.recommend(**asked)


def test_typed_words_are_resolved(folder: Path) -> None:
    run = coterie.load(folder)
    title = run.catalogue.title(run.items[0])
    assert run.resolve([run.items[0].lower(), "no such thing"]) == ([run.items[0]], ["no such thing"])
    unique = [i for i in run.items if [run.catalogue.title(j) for j in run.items].count(run.catalogue.title(i)) == 1]
    assert run.resolve([f" {run.catalogue.title(unique[0]).upper()} "])[0] == [unique[0]]
    assert title != run.items[0]


def test_evaluating_on_another_log(folder: Path, log: coterie.InteractionLog) -> None:
    orders = folder.parent / "orders.parquet"
    found = evaluate_run(folder, orders)
    assert found["metrics"]["federated"]["ndcg@10"] > 1.3 * found["metrics"]["popularity"]["ndcg@10"]
    assert {row["client"] for row in found["per_client"]} == {"shop1", "shop2", "shop3"}
    known = evaluate_run(folder, orders, history=orders)
    assert known["metrics"]["federated"]["ndcg@10"] > found["metrics"]["federated"]["ndcg@10"]


def test_evaluating_on_cases_and_candidates(folder: Path, tmp_path: Path) -> None:
    items = coterie.load(folder).items
    cases = pl.DataFrame({"user": ["a", "b"], "cart": [[items[0]], [items[1].lower()]], "target": [items[2], items[3]]})
    cases.write_parquet(tmp_path / "cases.parquet")
    users = pl.DataFrame({"user": ["a"] * 2 + ["b"] * 2, "item": [items[4], items[5]] * 2})
    users.write_csv(tmp_path / "candidates.csv")
    found = evaluate_run(folder, tmp_path / "cases.parquet", candidates=tmp_path / "candidates.csv")
    assert found["cases"] == {"evaluated": 2, "unreachable": 0}
    assert found["metrics"]["federated"]["hit_rate@5"] == 1.0  # three are ranked
    pl.DataFrame({"cart": [["x"]], "target": ["nothing known"]}).write_parquet(tmp_path / "foreign.parquet")
    with pytest.raises(DataError, match="no held-out item is in the catalogue"):
        evaluate_run(folder, tmp_path / "foreign.parquet")


def test_a_client_file_that_was_changed_is_refused(folder: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    victim = next((copy / "clients").iterdir())
    victim.write_bytes(victim.read_bytes()[:-1] + b"\x01")
    with pytest.raises(RunError, match="changed since it was signed"):
        coterie.load(copy)


def test_evaluating_with_a_known_log_asks_what_training_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from coterie.experiment.train import run_training

    monkeypatch.setenv("COTERIE_HOME", str(tmp_path / "home"))
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({"user": [f"u{n % 60}" for n in range(900)], "item": rng.zipf(1.4, 900) % 40})
    frame = frame.cast({"item": pl.String}).unique(maintain_order=True)
    held = pl.Series(rng.random(len(frame)) < 0.3)
    for name, part in (("train", ~held), ("test", held)):
        frame.filter(part).write_csv(tmp_path / f"{name}.csv")
    settings = {"data": {"logs": [str(tmp_path / "train.csv")]}, "split": {"test": str(tmp_path / "test.csv")}}
    asked = {**settings, "model": {"name": "ease"}, "run": {"output": str(tmp_path / "run")}}
    done = run_training(build(asked, "test"))
    again = evaluate_run(tmp_path / "run", tmp_path / "test.csv", history=tmp_path / "train.csv")
    ours, theirs = again["metrics"]["federated"], done.result["metrics"]["federated"]
    assert ours["ndcg@10"] == pytest.approx(theirs["ndcg@10"])
    assert again["cases"]["evaluated"] == done.result["cases"]["evaluated"]


def test_a_manifest_says_when_the_run_was_signed(folder: Path) -> None:
    from datetime import UTC, datetime, timedelta

    signed = datetime.fromisoformat(json.loads((folder / "manifest.json").read_text())["signed_at"])
    assert timedelta(0) <= datetime.now(UTC) - signed < timedelta(hours=1)


def test_a_run_opens_despite_faults_that_are_named(log: coterie.InteractionLog, tmp_path: Path) -> None:
    run = coterie.train(log, model="ease")
    folder = run.save(tmp_path / "run")
    (folder / "manifest.json").unlink()
    with pytest.raises(RunError, match="has no manifest"):
        coterie.load(folder, despite=("tampered",))
    opened = coterie.load(folder, despite=("unsigned",))
    assert np.array_equal(opened.scores([[run.items[1]]]), run.scores([[run.items[1]]]))
    assert dict(opened.clients) == {}, "nobody says whose the models of clients are"
    assert len(run.clients) > 0
