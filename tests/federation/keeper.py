"""Processes that keep things and are killed: a program that forks one for every line that it reads.

A line is a JSON object, see `Order`, answered by how the victim ended and which points it passed. What a victim knows
to be kept it says in the file ``known``, one number a line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from coterie.federation.egress import EgressLog
from coterie.federation.vault import Vault
from tests.faults.points import Points

ROOT = Path(__file__).parents[2]
STEPS = 3


@dataclass(frozen=True)
class Order:
    """What the next victim does in `folder` ("vault" or "egress"), and the point at which it kills itself."""

    what: str
    folder: str
    kill: tuple[str, int] | None = None


class Keeper:
    """The program, as seen by the tests."""

    def __init__(self, running: subprocess.Popen[str]) -> None:
        self._running = running

    def run(self, order: Order) -> dict[str, Any]:
        """How the victim of an order ended."""
        self.start(order)
        return self.answer()

    def points(self, order: Order) -> list[tuple[str, int]]:
        """Every point that an unharmed victim passes."""
        done = self.run(order)
        assert done["code"] == 0
        return [(name, at) for name, times in done["points"].items() for at in range(times)]

    def start(self, order: Order) -> None:
        """Give an order, and do not wait."""
        assert self._running.stdin is not None
        self._running.stdin.write(json.dumps(asdict(order)) + "\n")
        self._running.stdin.flush()

    def answer(self) -> dict[str, Any]:
        """How the victim of the last order ended."""
        assert self._running.stdout is not None
        answer = json.loads(self._running.stdout.readline())
        assert isinstance(answer, dict)
        return answer


@contextmanager
def keeper() -> Iterator[Keeper]:
    """Start the program, and end it."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-m", "tests.federation.keeper"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, cwd=ROOT, env=environment, **pipes) as running:
        yield Keeper(running)


def known(folder: Path) -> list[int]:
    """What the victims of a folder knew to be kept."""
    path = folder / "known"
    return [int(line) for line in path.read_text().split()] if path.exists() else []


def open_vault(folder: Path) -> Vault:
    return Vault.open(folder / "vault", folder / "vault.key")


def keep_in_vault(folder: Path) -> Iterator[int]:
    vault = open_vault(folder)
    store, done = vault.store("job"), vault.record("done") or {"number": 0}
    for number in range(done["number"] + 1, done["number"] + 1 + STEPS):
        store.stage("x", np.full(number, number))
        store.commit(number, 0)
        vault.put_record("done", {"number": number})
        yield number


def append_to_log(folder: Path) -> Iterator[int]:
    log = EgressLog(folder / "egress.jsonl")
    for _ in range(STEPS):
        yield log.append("job", 0, "sum", 3, "ab" * 32, "three masked bytes", masked=True, epsilon=0.5).line


WORK = {"vault": keep_in_vault, "egress": append_to_log}


def main() -> None:
    """Answer every line."""
    for line in sys.stdin:
        order = Order(**json.loads(line))
        victim = _fork(order)
        code = os.waitstatus_to_exitcode(os.waitpid(victim, 0)[1])
        passed = Path(order.folder) / "passed"
        sys.stdout.write(
            json.dumps({"code": code, "points": json.loads(passed.read_text()) if code == 0 else {}}) + "\n"
        )
        sys.stdout.flush()


def _fork(order: Order) -> int:
    if child := os.fork():
        return child
    code, folder = 1, Path(order.folder)
    try:
        points = Points(tuple(order.kill) if order.kill else None)
        points._watch_fsync()
        _watch_names(points)
        for number in WORK[order.what](folder):
            with (folder / "known").open("a") as file:
                file.write(f"{number}\n")
        (folder / "passed").write_text(json.dumps(points.passed))
        code = 0
    except BaseException:  # noqa: BLE001 - a fork must not return into the caller's code
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)


def _watch_names(points: Points) -> None:
    """Points around every change of a name in a folder."""
    for name in ("replace", "unlink"):
        real = getattr(Path, name)

        def call(self: Path, *arguments: Any, _name: str = name, _real: Any = real, **named: Any) -> Any:
            points(f"before {_name}")
            done = _real(self, *arguments, **named)
            points(f"after {_name}")
            return done

        setattr(Path, name, call)


if __name__ == "__main__":
    main()
