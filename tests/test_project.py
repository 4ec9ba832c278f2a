"""The project as a whole: what it declares is what it uses, and what it offers is documented."""

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

import coterie
from coterie.settings import fields

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "coterie").rglob("*.py"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# Where the name that is imported is not the name that is installed.
INSTALLED_AS = {
    "tomli_w": "tomli-w",
    "jinja2": "Jinja2",
    "markupsafe": "Jinja2",
    "sqlalchemy": "SQLAlchemy",
    "charset_normalizer": "charset-normalizer",
    "llvmlite": "numba",
    "dp_accounting": "dp-accounting",
    "google": "protobuf",
    "prometheus_client": "prometheus-client",
    "cel": "common-expression-language",
    "markdown_it": "markdown-it-py",
    "mlflow": "mlflow-skinny",
    "pydantic_core": "pydantic",
    "starlette": "fastapi",
}


def imported(path: Path) -> set[str]:
    """Top-level names of all modules that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            found.add(node.module.split(".")[0])
    return found


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[\[<>=!~ ]", one)[0] for one in requirements}


def test_the_base_dependencies_are_those_that_are_imported():
    extras = PROJECT["project"]["optional-dependencies"]
    used = set().union(*(imported(path) for path in SOURCES)) - set(sys.stdlib_module_names) - {"coterie"}
    used = {INSTALLED_AS.get(name, name) for name in used}
    optional = names([one for requirements in extras.values() for one in requirements])
    data = {"tzdata"}  # time zones for zoneinfo, where the system has none
    assert names(PROJECT["project"]["dependencies"]) - data <= used
    assert used - names(PROJECT["project"]["dependencies"]) <= optional


def test_all_is_every_extra_but_those_for_developers():
    extras = PROJECT["project"]["optional-dependencies"]
    (everything,) = extras["all"]
    named = set(everything.removeprefix("coterie[").removesuffix("]").split(","))
    assert named == set(extras) - {"all", "bench", "dev", "docs", "testing"}


@pytest.mark.parametrize("requirement", PROJECT["project"]["dependencies"])
def test_every_dependency_has_a_lower_and_an_upper_bound(requirement):
    assert re.search(r">=[\d.]+,<\d", requirement)


def test_the_version_is_written_once():
    assert "version" not in PROJECT["project"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", coterie.__version__)


def test_every_public_name_can_be_imported():
    for name in coterie.__all__:
        assert getattr(coterie, name) is not None
    assert set(dir(coterie)) == set(coterie.__all__)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_can_be_read_in_one_go(path):
    assert len(path.read_text().splitlines()) < 400


def test_no_path_of_one_machine():
    files = [*SOURCES, *(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), ROOT / "Makefile", ROOT / "pyproject.toml"]
    named = {
        str(path.relative_to(ROOT)) for path in files if re.search(r"(?<![\w.])/(work|root|tmp)/", path.read_text())
    }
    assert named == set()


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_offers_what_the_project_promises():
    done = subprocess.run(["make", "-s", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {line.split()[1] for line in done.stdout.splitlines()} >= {"demo", "test", "check", "bench", "docs", "clean"}


def test_continuous_integration_checks_and_tests():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert script.read_text().split("\n\n")[-1].split("\n")[:2] == ["make check", "make test"]


@pytest.fixture(scope="module")
def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "docs" / "gen" / "reference.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_command_and_option_is_documented(reference):
    page = reference.command_line()
    for path, command, context in reference.commands():
        section = page.split(f"\n## {path}\n")[1].split("\n## ")[0]
        assert command.help.strip()
        for param in command.get_params(context):
            row = next(line for line in section.splitlines() if line.startswith("| `") and documents(line, param))
            assert len(row.split("` | ")[1].removesuffix(" |").split()) >= 2, f"{path}: {row} says nothing"


def documents(row: str, param: object) -> bool:
    """Whether a row of the reference is about this parameter."""
    shown = row.split("`")[1]
    option = param.opts[0] if param.param_type_name == "option" else (param.metavar or param.name.upper())
    return option in re.split(r"[ ,]+", shown)


def test_every_setting_is_documented(reference):
    page = reference.settings()
    for section, key, info in fields():
        assert f"| `{key}` |" in page.split(f"\n## {section}\n")[1].split("\n## ")[0]
        assert info.description


def test_every_model_and_hyper_parameter_is_documented(reference):
    from coterie.models import registry

    page = reference.models()
    for name, model in registry.models().items():
        section = page.split(f"\n## {name}\n")[1].split("\n## ")[0]
        for key, info in model.model_fields.items():
            assert f"| `{key}` | {info.default} | {info.description.split('|')[0]}" in section


def test_every_module_is_in_the_reference(reference):
    pages = reference.pages()
    listed = {line[4:] for text in pages.values() for line in text.splitlines() if line.startswith("::: ")}
    inside = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in SOURCES
        if path.name not in ("__init__.py", "__main__.py") and not {"cli", "migrations"} & set(path.parts)
    }
    assert inside <= listed
