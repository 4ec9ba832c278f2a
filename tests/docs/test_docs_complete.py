"""What the program has, the documentation names: models, splits, steps, files, keys."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import polars as pl
import pytest

import coterie
from coterie.data import logsteps, rowsteps
from coterie.data.steps import Step
from coterie.models import registry
from coterie.report.reading import SCHEMES
from coterie.settings import ClientSettings, DataSettings, SplitSettings

ROOT = Path(__file__).parents[2]
PLAN = {field.name for field in dataclasses.fields(coterie.Plan)}  # the reference has these


def text(name: str) -> str:
    return (ROOT / name).read_text("utf-8")


@pytest.mark.parametrize(
    ("page", "section", "key"),
    [
        ("docs/how-to/split-and-compare.md", SplitSettings, "split"),
        ("docs/how-to/clients.md", ClientSettings, "clients"),
        ("docs/how-to/read-your-data.md", DataSettings, "format"),
    ],
)
def test_every_choice_is_explained(page: str, section: Any, key: str) -> None:
    choices = set(get_args(section.model_fields[key].annotation)) - {"auto"}
    assert choices <= set(re.findall(r"`([\w-]+)`", text(page)))


def test_every_cleaning_step_is_explained() -> None:
    steps = {
        member.name
        for module in (rowsteps, logsteps)
        for _, member in inspect.getmembers(module, inspect.isclass)
        if issubclass(member, Step) and member is not Step
    }
    listed = re.findall(r"^\| `([^`]+)` \| (?:row|log) \|", text("docs/how-to/clean.md"), re.MULTILINE)
    assert steps == set(listed)


def test_every_model_has_its_page_and_its_line() -> None:
    for name, model in registry.models().items():
        page = text(f"docs/explanation/models/{name}.md")
        assert set(model.model_fields) <= set(re.findall(r"`(\w+)(?: = [^`]*)?`", page)), name
        assert f"`{name}`" in text("README.md")
        assert f"`{name}`" in text("docs/how-to/choose-a-model.md")


def test_the_grids_are_those_of_the_models() -> None:
    page = text("docs/how-to/tune.md")
    for name, model in registry.models().items():
        for key, values in model.grid.items():
            shown = ", ".join(f"{value:g}" for value in values)
            assert re.search(rf"^\| `{name}` \|.*`{key}` {re.escape(shown)}[; |]", page, re.MULTILINE), (name, key)


def test_every_scheme_is_explained() -> None:
    for page in ("docs/how-to/split-and-compare.md", "docs/explanation/result-json.md"):
        assert set(SCHEMES) <= set(re.findall(r"`(\w+)`", text(page)))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run folder with everything in it: several shops, measured."""
    home = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COTERIE_HOME", str(home / "home"))
        patch.chdir(home)
        made = coterie.market(shops=3, customers=150, items=40, baskets=600)
        made.log.frame.write_parquet("log.parquet")
        from coterie.experiment.train import run_training
        from coterie.settings import build

        run_training(build({"data": {"logs": ["log.parquet"]}, "run": {"output": "run"}}, "test"))
        yield home / "run"


@pytest.fixture(scope="module")
def private(folder: Path) -> Path:
    """The same log under epsilon."""
    return trained_under_epsilon(folder.parent / "private", metrics_share=0.0)


@pytest.fixture(scope="module")
def sealed(folder: Path) -> Path:
    """The same with metrics that are paid for."""
    return trained_under_epsilon(folder.parent / "sealed", metrics_share=0.2)


def trained_under_epsilon(output: Path, metrics_share: float) -> Path:
    from coterie.experiment.train import run_training
    from coterie.settings import build

    asked = {
        "data": {"logs": ["log.parquet"]},
        "model": {"name": "ease"},
        "plan": {"epsilon": 4.0},
        "evaluation": {"metrics_share": metrics_share},
        "run": {"output": str(output)},
    }
    run_training(build(asked, "test"))
    return output


def test_every_file_of_a_run_folder_is_explained(folder: Path, private: Path) -> None:
    named = set(re.findall(r"`([\w./-]+)`", text("docs/explanation/run-folder.md")))
    for run in (folder, private):
        files = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
        assert {re.sub(r"\d{5}", "00000", name) for name in files} <= named


def test_where_metrics_are_paid_for_a_folder_holds_less_as_its_page_says(sealed: Path) -> None:
    assert not list(sealed.glob("clients/*"))
    assert not list(sealed.glob("plots/*"))
    assert "sha256" not in (sealed / "inputs.json").read_text()
    result = coterie.load(sealed, trust="any").result
    assert {key for key, value in result["data"].items() if value is not None} == {"items", "clients", "one_user_each"}
    assert (result["cleaning"], result["per_client"], result["split"]["note"]) == ([], [], None)


def test_every_array_of_a_model_file_is_explained(folder: Path, private: Path) -> None:
    from coterie.files import read_arrays

    named = set(re.findall(r"`(\w+)`", text("docs/explanation/run-folder.md")))
    for run in (folder, private):
        assert set(read_arrays(run / "model.safetensors")) <= named


def test_every_key_of_a_result_is_explained(folder: Path, private: Path, sealed: Path) -> None:
    page = text("docs/explanation/result-json.md")
    named = {part for name in re.findall(r"`([\w.]+)`", page) for part in name.split(".")}
    named |= {name.removesuffix("@k") for name in re.findall(r"`(\w+@k)`", page)}
    shops = [coterie.load(run, trust="any").result for run in (folder, private, sealed)]
    log = coterie.InteractionLog(pl.DataFrame({"user": list("aabbcc") * 2, "item": list("xyyzxz") * 2}))
    devices = coterie.train(log, model="popularity", test="random-users").result
    for result in (*shops, devices):
        assert {key.partition("@")[0] for key in keys(result)} <= named | set(result["hyper_parameters"]) | PLAN


def keys(value: Any) -> Iterator[str]:
    """Every key of every object inside."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner)
