"""What a training says and writes names no user, and names items in the catalogue alone."""

from __future__ import annotations

import logging
from pathlib import Path

import polars as pl
import pytest

from coterie.cli import main

USER, ITEM = "Quetzalcoatlus", "Zyzzyva"


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Sixty people and twenty items, whose ids are words that nothing else would say."""
    rows = [
        {
            "user": f"{USER}-{person:03d}",
            "item": f"{ITEM}-{(7 * person + step * step) % 20:02d}",
            "time": f"2024-01-{1 + basket:02d}T10:{step:02d}:00",
            "basket": f"{USER}-{person:03d}/{basket}",
        }
        for person in range(60)
        for basket in range(6)
        for step in range(2 + (person + basket) % 4)
    ]
    path = tmp_path / "log.csv"
    pl.DataFrame(rows).write_csv(path)
    return path


@pytest.mark.parametrize(
    "flags",
    [
        ["--clients", "users", "--model", "ease"],
        ["--shops", "4", "--model", "cart"],
        ["--shops", "4", "--model", "ials", "--json"],
        ["--shops", "4", "--model", "popularity", "--epsilon", "4", "--clip-norm", "3", "--simulated-noise"],
        ["--clients", "users", "--model", "popularity", "--epsilon", "4", "--clip-norm", "3", "--split", "none"],
    ],
    ids=["devices", "shops", "json", "private shops", "private devices"],
)
def test_nobody_is_named(
    log: Path,
    flags: list[str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COTERIE_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    columns = [f"--{role}-column={role}" for role in ("user", "item", "time", "basket")]
    with caplog.at_level(logging.DEBUG), pytest.raises(SystemExit) as left:
        main(["train", log.name, *columns, "--output", "run", "--resamples", "100", *flags])
    said = capfd.readouterr()
    assert left.value.code in (0, None), said.err
    for text in (said.out, said.err, caplog.text):
        assert USER not in text
        assert ITEM not in text
    allowed = {tmp_path / "run" / "catalogue.parquet", log}
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path not in allowed]
    assert len(written) > 5
    for path in written:
        content = path.read_bytes()
        assert USER.encode() not in content, path
        assert ITEM.encode() not in content, path
    assert ITEM in pl.read_parquet(tmp_path / "run" / "catalogue.parquet")["item"][0]


def test_a_refused_training_names_nobody(
    log: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as left:
        main(["train", log.name, "--user-column=user", "--item-column=item", "--max-users", "10", "--epsilon", "2"])
    said = capfd.readouterr()
    assert left.value.code == 2
    assert USER not in said.out + said.err
    assert ITEM not in said.out + said.err
