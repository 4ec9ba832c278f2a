"""A training that is killed with SIGKILL goes on where it was and ends with the same model, byte for byte."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from coterie.data.market import market
from coterie.files import sha256_of

STEP = 0.002


@pytest.fixture(scope="module")
def orders(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("orders") / "orders.parquet"
    market(shops=6, customers=900, items=500, baskets=9000, seed=2).log.frame.write_parquet(path)
    return path


@pytest.fixture(scope="module")
def uninterrupted(orders: Path) -> Path:
    folder = orders.parent / "whole"
    finished = start(orders, folder).communicate(timeout=120)
    assert (folder / "manifest.json").exists(), finished
    return folder


def start(orders: Path, folder: Path, *extra: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "coterie", "train", str(orders), "--client-column", "client", "--yes", "--json"]
    return _spawn([*command, "--output", str(folder), *extra], orders.parent)


def resume(folder: Path) -> subprocess.Popen[str]:
    return _spawn([sys.executable, "-m", "coterie", "train", "--resume", str(folder), "--json"], folder.parent)


def _spawn(command: list[str], cwd: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ.copy()
    )


def kill_when(process: subprocess.Popen[str], path: Path) -> None:
    """SIGKILL as soon as `path` exists."""
    deadline = time.monotonic() + 90
    while not path.exists():
        assert process.poll() is None, f"ended before {path} appeared: {process.communicate()}"
        assert time.monotonic() < deadline, f"{path} never appeared"
        time.sleep(STEP)
    process.send_signal(signal.SIGKILL)
    process.communicate()


@pytest.mark.parametrize(
    "moment",
    ["config.toml", "checkpoint/selection.safetensors", "checkpoint/choices.json", "checkpoint/final.safetensors"],
)
def test_resume_after_kill_gives_the_same_model(orders: Path, uninterrupted: Path, tmp_path: Path, moment: str) -> None:
    folder = tmp_path / "run"
    kill_when(start(orders, folder), folder / moment)
    assert not (folder / "manifest.json").exists()
    done = resume(folder)
    out, errors = done.communicate(timeout=120)
    assert done.returncode == 0, errors
    assert sha256_of(folder / "model.safetensors") == sha256_of(uninterrupted / "model.safetensors")
    assert not (folder / "checkpoint").exists()
    resumed, whole = json.loads(out), json.loads((uninterrupted / "result.json").read_text())
    assert resumed["metrics"] == whole["metrics"]
    assert {row["client"]: row["mix_weight"] for row in resumed["per_client"]} == {
        row["client"]: row["mix_weight"] for row in whole["per_client"]
    }


def test_an_unfinished_run_is_refused_with_the_way_out(orders: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    kill_when(start(orders, folder), folder / "checkpoint" / "final.safetensors")
    command = [sys.executable, "-m", "coterie", "recommend", str(folder), "--basket", "A00001", "--json"]
    refused = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert refused.returncode == 2
    assert "--resume" in json.loads(refused.stdout)["error"]["message"]


def test_what_cannot_be_resumed_is_said(orders: Path, uninterrupted: Path, tmp_path: Path) -> None:
    finished = resume(uninterrupted)
    out, _ = finished.communicate(timeout=60)
    assert finished.returncode == 2
    assert "is finished" in json.loads(out)["error"]["message"]
    folder, copy = tmp_path / "run", tmp_path / "orders.parquet"
    copy.write_bytes(orders.read_bytes())
    kill_when(start(copy, folder), folder / "config.toml")
    market(shops=2, customers=50, items=40, baskets=300, seed=9).log.frame.write_parquet(copy)
    changed = resume(folder)
    out, _ = changed.communicate(timeout=60)
    assert changed.returncode == 2
    assert "changed since" in json.loads(out)["error"]["message"]
