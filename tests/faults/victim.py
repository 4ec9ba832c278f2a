"""Processes that charge a ledger and are killed: a program that forks one for every line that it reads.

A line is a JSON object, answered by another: see `Order`. What is released is written to ``released`` in the folder and
synced, after the charge was spent; what is to be given back is written to ``giving`` before.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coterie.errors import BudgetExceeded, EnvironmentFault
from coterie.privacy.ledger import Ledger
from tests.faults.points import Points, reach_into_sqlite
from tests.ledgers import charge, quick_folder

STEPS = 3
FULL = 3  # exit code: the disk was full, and the victim was told so


@dataclass(frozen=True)
class Order:
    """What the next victim does, and how it ends.

    `kill`: the point, by name and number, at which it kills itself; `after`: seconds after which it is killed from
    outside; `full`: how many writes the disk takes; `crowd`: how many others charge at the same time, unharmed;
    `hasty`: it releases before it spends, as no program may.
    """

    where: str
    folder: str
    seed: int
    kill: tuple[str, int] | None = None
    after: float | None = None
    full: int | None = None
    crowd: int = 0
    hasty: bool = False


def main() -> None:
    """Answer every line with how the victim ended (the signal negative), and which points it passed."""
    with quick_folder() as folder:  # what is imported and compiled on first use is there before anybody forks
        charge_and_release(Order(str(folder / "ledger.sqlite"), str(folder), 0), 0, Points())
    answer(ready=reach_into_sqlite())
    for line in sys.stdin:
        order = Order(**json.loads(line))
        others = [_fork(order, order.seed + 1_000_000 * (i + 1), Points()) for i in range(order.crowd)]
        kill = tuple(order.kill) if order.kill else None
        victim = _fork(order, order.seed, Points(kill, order.full))
        if order.after is not None:
            time.sleep(order.after)
            os.kill(victim, signal.SIGKILL)
        codes = [os.waitstatus_to_exitcode(os.waitpid(one, 0)[1]) for one in (victim, *others)]
        passed = Path(order.folder) / "passed"
        points = json.loads(passed.read_text()) if passed.exists() and codes[0] == 0 else {}
        answer(code=codes[0], others=codes[1:], points=points)


def answer(**content: Any) -> None:
    """One line on stdout."""
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()


def charge_and_release(order: Order, seed: int, points: Points) -> None:
    """Reserve, then spend and release, or give back, a few times."""
    dice = random.Random(seed)
    ledger = Ledger.open(order.where)
    points("after open")
    for round in range(STEPS):
        try:
            receipt = ledger.reserve("shop", charge(round, f"run {seed}", noise=20.0))
        except BudgetExceeded:
            return
        points("after reserve")
        if dice.random() < 0.3:
            note(order, "giving", receipt.id)
            ledger.give_back(receipt, "nobody came")
            points("after give_back")
            continue
        for act in ("release", "spend") if order.hasty else ("spend", "release"):
            if act == "spend":
                ledger.spend(receipt)
            else:
                note(order, "released", receipt.id)
            points(f"after {act}")


def note(order: Order, name: str, text: str) -> None:
    """Write a line that is on the disk when this returns."""
    handle = os.open(Path(order.folder) / name, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(handle, f"{text}\n".encode())
    os.fsync(handle)
    os.close(handle)


def _fork(order: Order, seed: int, points: Points) -> int:
    if child := os.fork():
        return child
    code: Any = 1
    try:
        points.install()
        charge_and_release(order, seed, points)
        if seed == order.seed:
            (Path(order.folder) / "passed").write_text(json.dumps(points.passed))
        code = 0
    except EnvironmentFault as fault:
        code = FULL if "no space left on the device" in str(fault) else 1
        sys.stderr.write(f"{fault}\n" if code == 1 else "")
    except BaseException:  # noqa: BLE001 - a fork must not return into the caller's code
        sys.excepthook(*sys.exc_info())
    finally:
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
