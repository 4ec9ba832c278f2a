"""What the pages on serving print works as printed, against a service over the README's own run."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs the extra 'serve'")

import httpx

from coterie.cli import main
from tests.services import program
from tests.serving.service import PATIENCE, Service

SHOWN = "http://127.0.0.1:8080"
STATUS = "\nstatus "
README, CHINESE, SERVE = "README.md", "README.zh-CN.md", "docs/how-to/serve.md"
CURL = re.compile(r"^curl (?:.|\n)*?(?=^curl |\Z)", re.MULTILINE)


@dataclass(frozen=True)
class Answer:
    """Of one printed command: the method and path that it asks, its status and content."""

    command: str
    status: int
    content: Any


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, orders: str) -> Path:
    """A folder with runs/first, trained as the README does."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "orders.csv").write_text(orders)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert code(["train", "orders.csv", "--yes", "--output", "runs/first"]) == 0
    return folder


@pytest.fixture
def service(home: Path, tmp_path: Path) -> Iterator[Service]:
    with Service(home / "runs" / "first", tmp_path / "store.sqlite") as made:
        yield made


@pytest.fixture
def asked(pages: list[Any], service: Service) -> Callable[[str], list[Answer]]:
    """`asked(page)`: the answers to all curl lines of a page, from top to bottom."""
    program("curl", "curl")

    def run(name: str) -> list[Answer]:
        page = next(one for one in pages if one.name == name)
        return [answer(command, service) for block in page.blocks("sh") for command in CURL.findall(block.text)]

    return run


def answer(command: str, service: Service) -> Answer:
    """A command, run by a shell; only the address is another."""
    assert SHOWN in command, command
    line = command.replace(SHOWN, service.address).replace("curl ", f"curl -w '{STATUS}%{{http_code}}' ", 1)
    done = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=PATIENCE, check=True)
    content, _, status = done.stdout.rpartition(STATUS)
    return Answer(command, int(status), json.loads(content))


def code(arguments: list[str]) -> int:
    """The exit code of a command."""
    with pytest.raises(SystemExit) as left:
        main(arguments)
    return int(left.value.code or 0)


def suggested(service: Service) -> list[str]:
    """Everything that is suggested for the basket of the pages."""
    asked = {"items": ["0101", "0102"], "k": 100}
    reply = httpx.post(f"{service.address}/v1/recommend/basket", json=asked, timeout=PATIENCE)
    return [one["item"] for one in reply.raise_for_status().json()["items"]]


@pytest.mark.parametrize("name", [README, CHINESE])
def test_the_readmes_curl_lines_do_what_it_says(name: str, asked: Any, service: Service) -> None:
    assert "0103" in suggested(service)
    answers = asked(name)
    assert [one.status for one in answers] == [200] * 4, answers
    basket, item, event, receipt = (one.content for one in answers)
    assert len(basket["items"]) == 2
    assert basket["fallback"] is None
    assert (item["title"], item["stock"]) == ("Milk jug", 0)
    assert "0103" not in suggested(service)
    assert event["stored"] == 1
    assert receipt["erased"]["events"] == 1
    assert receipt["proof"]
    held = httpx.get(f"{service.address}/v1/users/C17/export", timeout=PATIENCE).json()
    assert held["events"] == []


def test_the_curl_lines_of_the_page_on_serving_do_what_it_says(asked: Any, service: Service) -> None:
    before = suggested(service)
    answers = asked(SERVE)
    assert all(200 <= one.status < 300 for one in answers), answers
    basket, put, patched, events = (one.content for one in answers)
    assert len(basket["items"]) == 3
    assert all(one["because"] for one in basket["items"])
    assert (put["stock"], patched["stock"]) == (4, 0)
    assert put["attributes"] == patched["attributes"] == {"tags": ["white"]}
    assert "0103" in before
    assert "0103" not in suggested(service)
    assert events == {"stored": 1, "duplicates": 0, "declined": 0}


def test_the_page_on_serving_shows_what_is_printed(pages: list[Any], home: Path, tmp_path: Path) -> None:
    page = next(one for one in pages if one.name == SERVE)
    shown = next(page.blocks("text")).text
    command = [sys.executable, "-m", "coterie", "serve", "runs/first", "--store", str(tmp_path / "s"), "--port", "0"]
    with subprocess.Popen(command, cwd=home, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        printed = "".join(process.stdout.readline() for _ in shown.splitlines())
        process.terminate()
        assert process.wait(PATIENCE) == 0
    assert re.sub(r"http://127\.0\.0\.1:\d+", SHOWN, printed) == shown


def test_the_keys_of_the_page_can_be_made_and_revoked(
    pages: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    page = next(one for one in pages if one.name == SERVE)
    commands = [one for block in page.blocks("sh") for one in block.commands() if one[0] == "keys"]
    assert [one[1] for one in commands] == ["create", "create", "list", "revoke"]
    made = ""
    for arguments in commands:
        assert code([made if one == "KEY_ID" else one for one in arguments]) == 0
        said = capsys.readouterr().out
        made = made or (found[1] if (found := re.match(r"c[sp]k_([0-9a-f]{12})", said)) else "")
    assert made
