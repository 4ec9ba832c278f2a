"""Models that somebody slipped in are refused: pickles, torn files, other runs' models, unsigned ones."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import polars as pl
import pytest

import coterie
from coterie.errors import RunError
from coterie.experiment.run import MODEL_FILE
from coterie.experiment.signing import MANIFEST, sign_folder


class Trap:
    """Whoever unpickles this makes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return Path.touch, (self.path,)  # type: ignore[return-value]


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Two finished runs of the same model: yesterday's, and today's with more rows."""
    monkeypatch.setenv("COTERIE_HOME", str(tmp_path / "home"))
    rows = pl.DataFrame({"user": [f"u{n % 9}" for n in range(60)], "item": [f"i{n * n % 7}" for n in range(60)]})
    folders = tmp_path / "yesterday", tmp_path / "today"
    for folder, frame in zip(folders, (rows.head(50), rows), strict=True):
        coterie.train(coterie.InteractionLog(frame), model="popularity", test=None).save(folder)
    return folders


def signed_again(folder: Path) -> None:
    """Sign whatever is in the folder now, with the key that is trusted: the files themselves must be refused."""
    manifest = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).unlink()
    sign_folder(folder, {key: manifest[key] for key in ("coterie", "model", "clients")})


def test_the_runs_themselves_are_fine(runs: tuple[Path, Path]) -> None:
    assert [len(coterie.load(folder).items) for folder in runs] == [4, 4]


def test_a_pickle_is_neither_run_nor_read(runs: tuple[Path, Path]) -> None:
    today = runs[1]
    sprung = today.parent / "sprung"
    (today / MODEL_FILE).write_bytes(pickle.dumps(Trap(sprung)))
    with pytest.raises(RunError, match="changed since it was signed"):
        coterie.load(today)
    signed_again(today)
    with pytest.raises(RunError, match="not a safetensors file"):
        coterie.load(today)
    assert not sprung.exists()
    pickle.loads((today / MODEL_FILE).read_bytes())
    assert sprung.exists()  # the trap works


@pytest.mark.parametrize("keep", [0, 7, -1])
def test_a_torn_model_is_refused_even_where_it_is_signed(runs: tuple[Path, Path], keep: int) -> None:
    today = runs[1]
    content = (today / MODEL_FILE).read_bytes()
    (today / MODEL_FILE).write_bytes(content[:keep])
    with pytest.raises(RunError, match="changed since it was signed"):
        coterie.load(today)
    signed_again(today)
    with pytest.raises(RunError, match="truncated or not a safetensors file"):
        coterie.load(today)


def test_the_model_of_another_run_is_refused(runs: tuple[Path, Path]) -> None:
    yesterday, today = runs
    shutil.copy(yesterday / MODEL_FILE, today / MODEL_FILE)
    with pytest.raises(RunError, match="changed since it was signed"):
        coterie.load(today)


def test_the_manifest_of_another_run_does_not_vouch_for_the_rest(runs: tuple[Path, Path]) -> None:
    yesterday, today = runs
    for name in (MODEL_FILE, MANIFEST):
        shutil.copy(yesterday / name, today / name)
    with pytest.raises(RunError, match="changed since it was signed"):
        coterie.load(today)


def test_a_run_without_a_signature_is_refused(runs: tuple[Path, Path]) -> None:
    (runs[1] / MANIFEST).unlink()
    with pytest.raises(RunError, match="no manifest"):
        coterie.load(runs[1])


def test_a_run_of_a_stranger_is_refused(runs: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COTERIE_HOME", str(runs[0].parent / "elsewhere"))
    with pytest.raises(RunError, match="unknown key"):
        coterie.load(runs[1])
