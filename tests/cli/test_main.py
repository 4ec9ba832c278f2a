"""The entry point: help, version, usage errors, exit codes, one JSON object."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from rich.text import Text

import coterie as package
from coterie.cli import app, output
from coterie.errors import DataError, EnvironmentFault

COMMANDS = (
    (),
    ("demo",),
    ("init",),
    ("data",),
    ("data", "describe"),
    ("data", "clean"),
    ("data", "market"),
    ("data", "get"),
    ("plan",),
    ("train",),
    ("compare",),
    ("evaluate",),
    ("recommend",),
    ("audit",),
    ("ledger",),
    ("ledger", "show"),
    ("ledger", "limit"),
    ("ledger", "export"),
)


@pytest.mark.parametrize("command", COMMANDS, ids=" ".join)
def test_every_command_has_help(coterie, command):
    for flag in ("--help", "-h"):
        result = coterie(*command, flag)
        assert (result.code, result.err) == (0, "")
        assert result.out.startswith(f"Usage: {' '.join(('coterie', *command))}")


@pytest.mark.parametrize("command", [(), ("data",), ("ledger",)], ids=["coterie", "data", "ledger"])
def test_a_group_without_a_command_shows_its_help(coterie, command):
    result = coterie(*command)
    assert result.code == 0
    assert "Commands:" in result.out


def test_version(coterie):
    assert coterie("--version").out == f"coterie {package.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("tarin",), "no such command 'tarin'; did you mean 'train'? (see `coterie --help`)"),
        (("data", "descibe"), "no such command 'descibe'; did you mean 'describe'? (see `coterie data --help`)"),
        (("train", "--modle", "x"), "no such option: --modle; did you mean '--model'? (see `coterie train --help`)"),
        (("train", "x", "--client-colum=a"), "no such option: --client-colum; did you mean '--client-column'?"),
        (("recommend",), "missing argument 'RUN' (see `coterie recommend --help`)"),
        (("recommend", "r", "--k", "0"), "it must be a whole number of at least 1, got '0'"),
        (("recommend", "r", "--k", "ten"), "it must be a whole number of at least 1, got 'ten'"),
        (("demo", "--shops", "2"), "it must be a whole number of at least 3, got '2'"),
    ],
)
def test_wrong_usage_is_one_sentence_with_the_nearest_word(coterie, arguments, sentence):
    result = coterie(*arguments)
    assert result.code == 2
    assert sentence in result.sentence
    assert result.out == ""


def test_with_json_an_error_is_the_one_object_on_stdout(coterie):
    result = coterie("train", "--json", "--modle", "ease")
    assert result.code == 2
    assert result.json == {
        "error": {
            "type": "UsageError",
            "message": "no such option: --modle; did you mean '--model'? (see `coterie train --help`)",
        },
        "exit_code": 2,
    }
    missing = coterie("recommend", "nowhere", "--json")
    assert missing.json["error"]["type"] == "RunError"
    assert missing.json["exit_code"] == missing.code == 2


@pytest.mark.parametrize(
    ("error", "code", "part"),
    [
        (DataError("orders.csv: empty"), 2, "orders.csv: empty"),
        (EnvironmentFault("disk gone"), 1, "disk gone"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (MemoryError(), 1, "not enough memory"),
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), 1, "runs/x: no space left on the device"),
        (PermissionError(errno.EACCES, "Permission denied", "runs/x"), 1, "runs/x: Permission denied"),
        (ZeroDivisionError("division by zero"), 1, "unexpected ZeroDivisionError: division by zero"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else None,
)
def test_every_failure_becomes_a_sentence_and_a_code(capsys, monkeypatch, error, code, part):
    monkeypatch.delenv("COTERIE_DEBUG", raising=False)

    def fail():
        raise error

    assert output.guarded(fail, as_json=False) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert part in captured.err
    assert captured.err.count("\n") == 1


def test_a_traceback_is_shown_only_when_asked_for(capsys, monkeypatch):
    monkeypatch.setenv("COTERIE_DEBUG", "1")
    assert output.guarded(lambda: 1 / 0, as_json=True) == 1
    captured = capsys.readouterr()
    assert "Traceback" in captured.err
    assert json.loads(captured.out)["error"]["type"] == "ZeroDivisionError"


def test_json_never_says_nan(capsys):
    output.print_json({"a": float("nan"), "b": [float("inf"), 1.5], "c": {"d": (float("-inf"),)}, "path": Path("runs")})
    assert json.loads(capsys.readouterr().out) == {"a": None, "b": [None, 1.5], "c": {"d": [None]}, "path": "runs"}


def test_help_is_quick_because_heavy_libraries_wait(home):
    script = (
        "import sys\nfrom coterie.cli import app\nprint(*sorted({'numba', 'polars', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
    assert app.info.name == "coterie"


def test_the_module_is_the_command(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "coterie", "train", "nothing.csv", "--json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(package.__file__).parents[1])},
        check=False,
    )
    assert done.returncode == 2
    assert "nothing.csv" in json.loads(done.stdout)["error"]["message"]
    assert "Traceback" not in done.stderr


def test_an_interrupt_from_the_keyboard_is_exit_code_130(tmp_path):
    env = {**os.environ, "PYTHONPATH": str(Path(package.__file__).parents[1])}
    script = (
        "import sys, time, coterie.cli.init as one\n"
        "def wait(*_):\n    print('ready', file=sys.stderr, flush=True)\n    time.sleep(60)\n"
        "one.template = wait\n"
        "from coterie.cli import main\nmain(['init'])"
    )
    running = subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, env=env, stderr=subprocess.PIPE, text=True)
    assert running.stderr is not None
    assert running.stderr.readline() == "ready\n"
    time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=30)
    assert running.returncode == 130
    assert err.strip() == "error: interrupted"


def test_nothing_that_a_command_says_steers_the_terminal(capsys):
    out = output.Output(as_json=False)
    out.result({}, "an id: A\x1b[31m1", Text("two\nlines\x9b"))
    out.note("note\x07")
    out.warn("beware \x1b]0;title\x07")

    def fail():
        raise DataError("item 'A\x1b[2J' is unknown")

    output.guarded(fail, as_json=False)
    said = capsys.readouterr()
    assert said.out == "an id: A\\x1b[31m1\ntwo\nlines\\x9b\n"
    assert "\x1b" not in said.err
    assert "\x07" not in said.err
    assert r"item 'A\x1b[2J' is unknown" in said.err
