"""`coterie export`: what it writes, what it says of it, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from coterie.experiment.signing import verify_folder
from coterie.files import sha256_of


def test_it_writes_a_model_for_browsers_and_states_its_size(
    coterie: Any, finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    said = coterie("export", finished[0], "--output", tmp_path / "out", "--json").json
    manifest = verify_folder(tmp_path / "out")
    assert said["manifest"] == manifest
    assert manifest["layout"] == "coterie-browser-1"
    assert manifest["fingerprint"] == sha256_of(finished[0] / "manifest.json")
    assert said["sizes"] == {path.name: path.stat().st_size for path in (tmp_path / "out").iterdir()}
    assert said["bytes"] == sum(said["sizes"].values())


def test_a_person_is_told_sizes_agreement_and_signer(
    coterie: Any, finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    done = coterie("export", finished[0], "--output", tmp_path / "out", "--neighbours", 5)
    assert done.code == 0
    assert " kB" in done.out
    assert "% are those of the run itself" in done.out
    assert "signed by " in done.out
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["neighbours"] == 5


def test_a_poor_agreement_is_a_warning(coterie: Any, finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    done = coterie("export", finished[0], "--output", tmp_path / "out", "--neighbours", 1)
    assert "warning: the exported model often suggests other items" in done.err
    assert "--neighbours" in done.err


def test_it_writes_onnx(coterie: Any, finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    assert coterie("export", finished[0], "--output", tmp_path / "out", "--format", "onnx").code == 0
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"model.onnx", "items.json", "manifest.json"}


def test_refusals_are_one_sentence(coterie: Any, finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    run, out = finished[0], tmp_path / "out"
    refused = {
        "did you mean 'onnx'": ("export", run, "--output", out, "--format", "onxx"),
        "at least 1": ("export", run, "--output", out, "--neighbours", 0),
        "--output": ("export", run),
        "no such run folder": ("export", tmp_path / "nowhere", "--output", out),
        "not empty": ("export", run, "--output", run),
    }
    for sentence, arguments in refused.items():
        done = coterie(*arguments)
        assert done.code == 2, sentence
        assert sentence in done.sentence
    assert not out.exists()


def test_a_run_that_was_changed_is_not_exported(
    coterie: Any, finished: tuple[Path, dict[str, Any]], tmp_path: Path
) -> None:
    changed = tmp_path / "run"
    shutil.copytree(finished[0], changed)
    (changed / "result.json").write_text((changed / "result.json").read_text() + " ")
    done = coterie("export", changed, "--output", tmp_path / "out")
    assert done.code == 2
    assert "changed since it was signed" in done.sentence
