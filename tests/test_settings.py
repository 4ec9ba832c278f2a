"""Every mistake in the settings is refused in one sentence, with the nearest valid word."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from pydantic import ValidationError

from coterie.errors import ConfigError
from coterie.models.registry import parameters
from coterie.settings import Settings, build, fields, read_toml


def test_nothing_given_means_the_defaults() -> None:
    assert build({}, "f") == Settings()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"modle": {}}, "f.toml: unknown section [modle]; did you mean 'model'?"),
        ({"data": 3}, "f.toml: [data] must be a table of keys, got 3"),
        (
            {"data": {"client-colum": "x"}},
            "f.toml: unknown key 'client-colum' in [data]; did you mean 'client_column'?",
        ),
        ({"data": {"clip_norm": 1.0}}, "unknown key 'clip_norm' in [data]; 'clip_norm' belongs to [plan]"),
        (
            {"run": {"zzz": 1}},
            "unknown key 'zzz' in [run]; valid keys: seed, output, engine, ray_address, threads, patience, block",
        ),
        ({"run": {"seed": "many"}}, "f.toml: run.seed: input should be a valid integer"),
        ({"run": {"seed": -1}}, "run.seed: input should be greater than or equal to 0, got -1"),
        ({"run": {"seed": 1.5}}, "run.seed: input should be a valid integer"),
        ({"data": {"logs": "a.csv"}}, "data.logs: input should be a valid tuple, got 'a.csv'"),
        (
            {"data": {"format": "xls"}},
            "data.format: input should be 'auto', 'parquet', 'csv', 'udata', 'baskets', ",
        ),
        ({"split": {"test_share": 1.0}}, "split.test_share: input should be less than 1, got 1.0"),
        (
            {"split": {"test_share": 0.6, "valid_share": 0.4}},
            "f.toml: test_share + valid_share must be below 1, got 0.6 + 0.4: nothing is left to train on",
        ),
        ({"clients": {"shops": 0}}, "clients.shops: input should be greater than or equal to 1, got 0"),
        ({"clients": {"skew": float("inf")}}, "clients.skew: input should be a finite number, got inf"),
        ({"clean": {"min_value": float("nan")}}, "clean.min_value: input should be a finite number, got nan"),
        ({"plan": {"epsilon": -4.0}}, "epsilon must be a positive number or 'none', got -4.0"),
        ({"plan": {"clip_norm": 0}}, "clip_norm must be at least 1e-06, got 0"),
        ({"plan": {"ring_bits": 16}}, "plan.ring_bits: input should be 32 or 64, got 16"),
        ({"evaluation": {"at": []}}, "f.toml: at must name cut-offs of at least 1, got []"),
        ({"evaluation": {"at": [10, 0]}}, "f.toml: at must name cut-offs of at least 1, got [10, 0]"),
    ],
)
def test_a_mistake_is_refused_in_one_sentence(values: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)) as caught:
        build(values, "f.toml")
    assert "\n" not in str(caught.value)


def test_cut_offs_are_sorted_and_distinct() -> None:
    assert build({"evaluation": {"at": [20, 5, 20]}}, "f").evaluation.at == (5, 20)


def test_every_setting_is_described() -> None:
    undescribed = [
        f"[{section}] {key}" for section, key, info in fields() if not (info.description or "").endswith(".")
    ]
    assert undescribed == []


def test_names_are_unique_across_sections_and_models() -> None:
    names = Counter([key for _, key, _ in fields()] + [*parameters(), "name", "tune"])
    assert [name for name, times in names.items() if times > 1] == []


def test_the_fields_are_those_of_every_section_but_the_model() -> None:
    assert {section for section, _, _ in fields()} == set(Settings.model_fields) - {"model"}
    assert all(key in Settings.model_fields[section].annotation.model_fields for section, key, _ in fields())  # type: ignore[union-attr]


def test_settings_survive_a_round_trip_through_toml(tmp_path: Path) -> None:
    before = build({"run": {"seed": 3}, "clean": {"guest_ids": ["0"]}, "model": {"name": "ease"}}, "f")
    path = tmp_path / "coterie.toml"
    path.write_text(tomli_w.dumps(before.model_dump(exclude_none=True)), "utf-8")
    assert build(read_toml(path), str(path)) == before


def test_a_toml_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    (tmp_path / "c.toml").write_bytes(b"\xef\xbb\xbf[run]\nseed = 4\n")
    assert read_toml(tmp_path / "c.toml") == {"run": {"seed": 4}}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file; `coterie init` writes one"),
        (b"[run\nseed = 1", "not valid TOML: "),
        (b"[run]\nseed = 1\nseed = 2\n", "not valid TOML: "),
        (b"\xff\xfe[\x00", "cannot be read: "),
    ],
)
def test_a_file_that_is_not_toml_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "coterie.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(f"{path}: {message}")):
        read_toml(path)


def test_a_folder_is_no_settings_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_toml(tmp_path)


def test_settings_cannot_be_changed_afterwards() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        Settings().run.seed = 2  # type: ignore[misc]
