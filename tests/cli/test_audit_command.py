"""`coterie audit`: what it says, with which exit code, and what it leaves alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

import coterie as library
from coterie.files import sha256_of


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("audited") / "log.csv"
    rows = [
        {"user": f"u{n % 60}", "item": f"i{(n * n + n % 7) % 90}", "time": f"2024-01-01T00:{n % 60:02d}:00"}
        for n in range(900)
    ]
    pl.DataFrame(rows).write_csv(path)
    return path


@pytest.fixture(scope="module")
def runs(log: Path, home: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run with a promise of epsilon 1, and one without."""
    from coterie.experiment.train import run_training
    from coterie.settings import build

    folder = tmp_path_factory.mktemp("runs")
    asked: dict[str, dict[str, Any]] = {
        "data": {"logs": [str(log)], "user_column": "user", "item_column": "item", "time_column": "time"},
        "clients": {"clients": "users"},
        "split": {"split": "none"},
        "model": {"name": "popularity"},
    }
    plans = {"private": {"epsilon": 1.0, "clip_norm": 2.0, "max_users": 5000}, "open": {}}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COTERIE_HOME", str(home))
        for name, plan in plans.items():
            run_training(build(asked | {"plan": plan, "run": {"output": str(folder / name)}}, "test"))
    return {name: folder / name for name in plans}


def digests(folder: Path) -> dict[str, str]:
    return {path.name: sha256_of(path) for path in folder.rglob("*") if path.is_file()}


def test_an_honest_run_is_consistent_and_nothing_is_left_behind(
    coterie: Any, runs: dict[str, Path], home: Path
) -> None:
    before, ledger = digests(runs["private"]), coterie("ledger", "show", "--json").json
    done = coterie("audit", runs["private"], "--canaries", 300, "--json")
    assert done.code == 0
    found = done.json["audit"]
    assert found["verdict"] == "consistent"
    assert found["claimed"]["epsilon"] == 1.0
    assert found["canaries"]["drawn"] == 300
    assert done.json["attack"] is None
    assert digests(runs["private"]) == before
    assert coterie("ledger", "show", "--json").json == ledger


def test_a_faulty_training_is_contradicted(
    coterie: Any, runs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coterie.engines.simulation.add_discrete_gaussian", lambda out, variance, bits: None)
    done = coterie("audit", runs["private"], "--canaries", 300)
    assert done.code == 1
    assert "verdict: CONTRADICTED" in done.out
    assert "coins were guessed too well" in done.out
    assert "what this audit cannot see" in done.out


def test_seeds_draw_other_coins(coterie: Any, runs: dict[str, Path]) -> None:
    included = {
        coterie("audit", runs["private"], "--canaries", 100, "--seed", seed, "--json").json["audit"]["canaries"][
            "included"
        ]
        for seed in range(4)
    }
    assert len(included) > 1


def test_real_users_are_attacked(coterie: Any, runs: dict[str, Path]) -> None:
    told = coterie("audit", runs["open"], "--attack", "--json").json
    assert told["audit"] is None
    assert told["attack"]["membership"] == 1.0
    assert [part["noised"] for part in told["attack"]["parts"]] == [1.0]
    done = coterie("audit", runs["private"], "--attack", "--canaries", 50)
    assert "items, from 'counts'" in done.out
    assert "most exposed user" in done.out


def test_a_run_without_a_promise_has_none_to_contradict(coterie: Any, runs: dict[str, Path]) -> None:
    done = coterie("audit", runs["open"])
    assert done.code == 2
    assert "nothing to contradict; --attack shows" in done.sentence


def test_too_few_canaries_are_refused(coterie: Any, runs: dict[str, Path]) -> None:
    done = coterie("audit", runs["private"], "--canaries", 5)
    assert done.code == 2
    assert "at least 20" in done.sentence


def test_other_inputs_are_refused(coterie: Any, runs: dict[str, Path], log: Path, tmp_path: Path) -> None:
    content = log.read_bytes()
    log.write_bytes(content + b"u1,i1,2024-01-01T00:00:00\n")
    try:
        done = coterie("audit", runs["private"])
    finally:
        log.write_bytes(content)
    assert done.code == 2
    assert "changed since" in done.sentence
    frame = library.InteractionLog(pl.DataFrame({"user": list("aabb"), "item": list("xyxy")}))
    library.train(frame, model="popularity", test=None).save(tmp_path / "memory")
    done = coterie("audit", tmp_path / "memory")
    assert done.code == 2
    assert "trained in memory" in done.sentence
