"""The demonstration of `make serve-demo`, as a process: what it prints works, and Ctrl-C ends all of it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs the extra 'serve'")

import httpx

from tests.services import program
from tests.serving.service import PATIENCE

SCRIPT = Path(__file__).parents[2] / "scripts" / "serve_demo.py"


class Demo:
    """The script, and what it has printed so far."""

    def __init__(self, folder: Path) -> None:
        command = [sys.executable, str(SCRIPT), "--port", "0", "--folder", str(folder)]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        )
        self.printed = ""
        self._said = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        assert self._said.wait(PATIENCE), self.printed

    @property
    def address(self) -> str:
        found = re.search(r"the service: +(\S+)", self.printed)
        assert found is not None, self.printed
        return found[1]

    def commands(self) -> list[str]:
        """The shell commands among what it printed."""
        return re.findall(r"^  (curl (?:.*\\\n)*.*)$", self.printed, re.MULTILINE)

    def processes(self) -> set[int]:
        """Itself, and what it has started."""
        listed = subprocess.run(["ps", "-eo", "pid=,sid="], capture_output=True, text=True, check=True).stdout
        rows = [tuple(map(int, line.split())) for line in listed.splitlines()]
        return {pid for pid, session in rows if session == self.process.pid}

    def _read(self) -> None:
        for line in self.process.stdout or ():
            self.printed += line
            if line.startswith("Ctrl-C"):
                self._said.set()
        self._said.set()


@contextmanager
def demonstrated(folder: Path) -> Iterator[Demo]:
    demo = Demo(folder)
    try:
        yield demo
    finally:
        if demo.process.poll() is None:
            os.killpg(demo.process.pid, signal.SIGKILL)
        demo.process.wait()
        demo._reader.join()
        if demo.process.stdout is not None:
            demo.process.stdout.close()


def run(command: str) -> dict[str, object]:
    """What a printed command answers, as a shell runs it."""
    done = subprocess.run(command, shell=True, capture_output=True, text=True, timeout=PATIENCE, check=True)
    return dict(json.loads(done.stdout))


def suggested(answer: dict[str, object]) -> list[str]:
    assert isinstance(answer["items"], list), answer
    return [one["item"] for one in answer["items"]]


def test_what_it_prints_works_and_a_second_start_goes_on_where_the_first_ended(tmp_path: Path) -> None:
    program("curl", "curl")
    with demonstrated(tmp_path) as demo:
        ask, sell_out = demo.commands()
        before = suggested(run(ask))
        assert len(before) == 3
        assert run(sell_out)["stock"] == 0
        after = suggested(run(ask))
        assert after[:2] == before[1:]
        assert before[0] not in after
        for page in ("/dashboard/", "/example/shop.html"):
            assert demo.address + page in demo.printed
            assert httpx.get(demo.address + page, follow_redirects=True, timeout=PATIENCE).status_code == 200
        event = {"eventId": "kept", "type": "view", "time": "2026-01-01T00:00:00Z", "user": "u", "item": before[0]}
        assert httpx.post(f"{demo.address}/v1/events", json=event, timeout=PATIENCE).json()["stored"] == 1
        os.killpg(demo.process.pid, signal.SIGINT)  # a terminal tells every process of the group
        assert demo.process.wait(PATIENCE) == 0
        assert until_gone(demo)
    manifest = (tmp_path / "run" / "manifest.json").stat().st_mtime_ns
    with demonstrated(tmp_path) as again:
        assert "training" not in again.printed
        assert (tmp_path / "run" / "manifest.json").stat().st_mtime_ns == manifest
        held = httpx.get(f"{again.address}/v1/users/u/export", timeout=PATIENCE).json()
        assert [one["eventId"] for one in held["events"]] == ["kept"]
        again.process.send_signal(signal.SIGTERM)  # told to the script alone, it ends the service too
        assert again.process.wait(PATIENCE) == 0
        assert until_gone(again)


def until_gone(demo: Demo) -> bool:
    """Whether no process of the demonstration is left after a while."""
    end = time.monotonic() + 10
    while demo.processes() and time.monotonic() < end:
        time.sleep(0.05)
    return not demo.processes()
