"""Charges for the tests of the ledger, and processes that make them all at once."""

from __future__ import annotations

import os
import random
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coterie.errors import BudgetExceeded
from coterie.privacy import ledger_rows
from coterie.privacy.events import Event
from coterie.privacy.ledger import Charge, Ledger

DELTA = 1e-6


def charge(round: int = 0, run: str = "run", noise: float = 10.0, attempt: int = 0, **more: object) -> Charge:
    """One Gaussian release."""
    return Charge(run, "final", round, attempt, (Event(noise),), **{"delta": DELTA, "model": "ease", **more})


@contextmanager
def quick_folder() -> Iterator[Path]:
    """A folder in memory where there is such a file system: what is tested is not how fast the disk is."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as folder:
        yield Path(folder)


def charge_until_refused(where: str, released: Path, number: int) -> None:
    """Reserve, and then spend or give back by chance, until nothing more fits; every spent receipt is written down."""
    decide = ledger_rows.decision

    def slowly(*arguments: Any) -> Any:
        decided = decide(*arguments)
        time.sleep(0.01)  # whoever decides without holding the account will be overtaken here
        return decided

    ledger_rows.decision = slowly
    ledger, dice = Ledger.open(where), random.Random(number)
    for round in range(1_000):
        try:
            receipt = ledger.reserve("shop", charge(round, f"run {number}", noise=dice.choice([5.0, 6.0, 7.0])))
        except BudgetExceeded:
            return
        time.sleep(dice.random() / 100)  # clients work
        if dice.random() < 0.3:
            ledger.give_back(receipt, "nobody came")
        else:
            ledger.spend(receipt)
            with released.open("a") as file:
                file.write(f"{receipt.id}\n")
    raise AssertionError("the budget never ended")


def main(where: str, released: str, processes: str) -> None:
    """Fork so many processes that charge one account, and leave with how many of them failed."""
    children, (start, hold) = [], os.pipe()
    for number in range(int(processes)):
        if (child := os.fork()) == 0:
            try:
                os.close(hold)
                os.read(start, 1)  # returns when the parent closes its end: all begin at once
                charge_until_refused(where, Path(released), number)
            except BaseException:  # noqa: BLE001 - a fork must not return into the caller's code
                sys.excepthook(*sys.exc_info())
                os._exit(1)
            os._exit(0)
        children.append(child)
    os.close(hold)
    sys.exit(sum(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != 0 for child in children))


if __name__ == "__main__":
    main(*sys.argv[1:])
