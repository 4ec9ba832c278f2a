"""The examples in the README and the documentation do what they say."""

from __future__ import annotations

import doctest
import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
import typer

from coterie import settings
from coterie.cli import main
from coterie.models import registry
from coterie.report.reading import SCHEMES
from coterie.serving.config import ServeConfig

FLAGS = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, orders: str) -> Path:
    """A working directory with the README's orders.csv, and a signing key of its own."""
    monkeypatch.setenv("COTERIE_HOME", str(tmp_path / "home"))
    folder = tmp_path / "work"
    folder.mkdir()
    monkeypatch.chdir(folder)
    (folder / "orders.csv").write_text(orders)
    return folder


def test_the_examples_of_a_page_run_from_top_to_bottom(page: Any, scratch: Path) -> None:
    names: dict[str, Any] = {}
    for block in page.blocks("csv", "python", "bash"):
        where = f"{page.name}:{block.line}"
        if block.language == "csv" and block.title:
            (scratch / block.title).write_text(block.text)
        elif block.language == "bash":
            run_all(block, where)
        elif ">>>" in block.text:
            names = run_doctest(block.text, names, where)
        elif block.language == "python":
            exec(compile(block.text, where, "exec"), names)


def run_all(block: Any, where: str) -> None:
    for arguments in block.commands():
        if arguments[0] != "demo":  # it has a test of its own
            assert run(arguments) == 0, f"{where}: coterie {' '.join(arguments)}"


def test_the_tutorial_shows_the_table_of_its_market(pages: list[Any], scratch: Path) -> None:
    tutorial = next(page for page in pages if page.name == "docs/tutorial/your-orders.md")
    block = next(block for block in tutorial.blocks("bash") if "data market" in block.text)
    run_all(block, tutorial.name)
    result = json.loads((scratch / "runs" / "big" / "result.json").read_text())
    assert sum(refuse_stale(shown.text, result, tutorial.name) for shown in tutorial.blocks("text")) == 5


def test_the_readme_shows_the_table_of_the_demo(
    pages: list[Any], scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["demo", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    shown = next(block.text for block in pages[0].blocks("text") if "centralised" in block.text)
    assert refuse_stale(shown, result, "README.md") == 5
    sentence = result["comparison"]["sentence"]
    assert sentence[0].upper() + sentence[1:] + "." in shown


@pytest.mark.parametrize("name", ["docs/tutorial/your-orders.md", "docs/how-to/train-with-privacy.md"])
def test_a_page_shows_what_plan_prints(
    name: str, pages: list[Any], scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = next(page for page in pages if page.name == name)
    commands = [arguments for block in page.blocks("bash") for arguments in block.commands()]
    (plan,) = (arguments for arguments in commands if arguments[0] == "plan")
    capsys.readouterr()
    assert run(plan) == 0
    printed = " ".join(capsys.readouterr().out.split())
    (shown,) = (block.text for block in page.blocks("text") if "drown" in block.text)
    assert " ".join(shown.split()) in printed


def refuse_stale(text: str, result: dict[str, Any], where: str) -> int:
    """Compare the rows of a shown comparison table with what was measured; how many there were."""
    names = ("ndcg@10", "hit_rate@10", "recall@20", "mrr@10")
    rows = [line.split() for line in text.splitlines() if line.split()[:1] and line.split()[0] in SCHEMES]
    rows = [row for row in rows if len(row) == 1 + len(names)]
    for scheme, *cells in rows:
        measured = [result["metrics"][scheme][name] for name in names]
        assert [float(cell) for cell in cells] == pytest.approx(measured, abs=2e-4), f"{where}: {scheme}"
    return len(rows)


def run(arguments: list[str]) -> int:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as left:
        main(arguments)
    return int(left.value.code or 0)


def run_doctest(text: str, names: dict[str, Any], where: str) -> dict[str, Any]:
    test = doctest.DocTestParser().get_doctest(text, names, where, where, 0)
    said: list[str] = []
    result = doctest.DocTestRunner(optionflags=FLAGS, verbose=False).run(test, out=said.append, clear_globs=False)
    assert result.failed == 0, "".join(said)
    return test.globs


def test_the_readme_leads_from_orders_to_ten_titled_suggestions(
    pages: list[Any], scratch: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    commands = [arguments for block in pages[0].blocks("bash") for arguments in block.commands()]
    assert [arguments[0] for arguments in commands] == ["data", "train", "recommend"]
    for arguments in commands:
        capsys.readouterr()
        assert run([*arguments, "--json"]) == 0
    suggestions = json.loads(capsys.readouterr().out)["recommendations"]
    shown = next(block.text for block in pages[0].blocks("text") if "Suggestions" in block.text)
    lines = [line.split() for line in shown.splitlines() if line.strip()[:1].isdigit()]
    assert len(suggestions) == len(lines) == 10
    for suggestion, line in zip(suggestions, lines, strict=True):
        assert suggestion["title"] != suggestion["item"]
        assert line[:2] == [str(suggestion["rank"]), suggestion["item"]]
        assert f" {suggestion['title']} " in " ".join(line) + " "
        assert f"{suggestion['score']:.4f}" in line


def test_shown_commands_have_only_options_that_exist(page: Any, command_line: Any) -> None:
    for block in page.blocks("bash", "sh", "console"):
        for arguments in block.commands():
            resolve(command_line, arguments, f"{page.name}:{block.line}")


def resolve(command: Any, arguments: list[str], where: str) -> None:
    """Follow a command line down to its command without running it, and look up its options."""
    context, rest = typer.Context(command, info_name="coterie"), list(arguments)
    while hasattr(command, "commands"):
        name = rest.pop(0) if rest else ""
        assert name in command.commands, f"{where}: no such command: coterie {' '.join(arguments)}"
        command = command.commands[name]
        context = typer.Context(command, info_name=name, parent=context)
    known = {name for param in command.get_params(context) for name in (*param.opts, *param.secondary_opts)}
    for word in rest:
        if word.startswith("-"):
            assert word.partition("=")[0] in known, f"{where}: coterie {' '.join(arguments)}: no option {word}"


def test_shown_settings_are_valid(page: Any) -> None:
    for block in page.blocks("toml"):
        content, where = tomllib.loads(block.text), f"{page.name}:{block.line}"
        if block.title == "serve.toml":
            settings.build_as(ServeConfig, content, where)
        else:
            registry.build(settings.build(content, where).model)


def test_shown_json_is_valid(page: Any) -> None:
    for block in page.blocks("json"):
        json.loads(block.text)
