"""Stores that a member may be killed at: around every durable write of its vault, ledger and egress log."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

from coterie.federation.egress import EgressLog, Line
from coterie.federation.vault import Vault
from coterie.privacy.ledger import Ledger, Receipt
from coterie.privacy.ledger_owner import this_process
from coterie.privacy.ledger_tables import RESERVED, charges


class Killed(BaseException):
    """What SIGKILL is in one process: nobody catches it but the tests."""


def unharmed(point: str) -> None:
    """Nobody is killed."""


class FusedVault(Vault):
    """A vault with a point before and after each change."""

    fuse: Callable[[str], None] = staticmethod(unharmed)

    def put_all(self, contents: Mapping[str, bytes | None]) -> None:
        self.fuse("before put")
        super().put_all(contents)
        self.fuse("after put")


class FusedEgress(EgressLog):
    """An egress log with a point before and after each line; what is noted as paid must have been paid before."""

    fuse: Callable[[str], None] = staticmethod(unharmed)
    counts: Counter[str]

    def append(self, *what: Any, **more: Any) -> Line:
        self.fuse("before line")
        line = super().append(*what, **more)
        if line.epsilon is not None:
            self.counts["noted"] += 1
            assert self.counts["noted"] <= self.counts["spent"], "a sum was about to leave before it was charged"
        self.fuse("after line")
        return line


class FusedLedger(Ledger):
    """A ledger with a point before and after each charge that is spent."""

    fuse: Callable[[str], None] = staticmethod(unharmed)
    counts: Counter[str]

    def spend(self, receipt: Receipt) -> None:
        self.fuse("before spend")
        super().spend(receipt)
        self.counts["spent"] += 1
        self.fuse("after spend")


def bury(ledger: Path) -> None:
    """Let what is reserved in a ledger be of a process that has ended: one of this number that began before it."""
    if ledger.exists():
        gone = f"{this_process().rpartition('/')[0]}/1"
        with closing(sqlite3.connect(ledger)) as connection, connection:
            connection.execute(f"UPDATE {charges.name} SET owner = ? WHERE state = ?", (gone, RESERVED))
