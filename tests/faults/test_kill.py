"""A ledger whose processes are killed (SIGKILL) around every write and commit: what was released is never uncounted.

COTERIE_FAULTS says how many kills there are (`make faults`: 200); without it there are a few, to see that it works.
"""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict
from itertools import count, cycle
from pathlib import Path
from typing import Any

import pytest

from coterie.privacy.accountant import epsilon
from coterie.privacy.events import Event
from coterie.privacy.ledger import Ledger
from tests.faults.victim import FULL, STEPS, Order
from tests.ledgers import DELTA, quick_folder
from tests.postgres import Server, postgres

ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("COTERIE_FAULTS", "10"))
PER_LEDGER = 10  # kills after which a new ledger is begun
LIMIT = epsilon([Event(20.0, count=20)], DELTA)  # ends before the kills do


class Victims:
    """The program that forks victims."""

    def __init__(self) -> None:
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        self._running = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", "tests.faults.victim"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )
        self.sqlite_is_watched = self._answer()["ready"]

    def run(self, order: Order) -> dict[str, Any]:
        """How the victim of an order ended."""
        assert self._running.stdin is not None
        self._running.stdin.write(json.dumps(asdict(order)) + "\n")
        self._running.stdin.flush()
        return self._answer()

    def stop(self) -> str:
        """What the victims said on stderr."""
        return self._running.communicate(timeout=30)[1]

    def _answer(self) -> dict[str, Any]:
        assert self._running.stdout is not None
        line = self._running.stdout.readline()
        assert line, self._running.communicate()[1]
        return json.loads(line)


@pytest.fixture(scope="module")
def victims() -> Iterator[Victims]:
    started = Victims()
    yield started
    assert started.stop() == ""


@pytest.fixture
def watched(victims: Victims) -> Victims:
    """Victims whose SQLite is watched; where that cannot be, a run that is about it fails and others skip."""
    if not victims.sqlite_is_watched and "COTERIE_FAULTS" not in os.environ:
        pytest.skip("SQLite is built into this Python: its system calls cannot be watched")
    assert victims.sqlite_is_watched
    return victims


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgres() as running:
        yield running


@pytest.fixture
def folder() -> Iterator[Path]:
    with quick_folder() as made:
        yield made


def verify(where: str, folder: Path, kills: int) -> None:
    """What must hold whenever processes have died: restart, look, and compare with what has left."""
    if not where.startswith("postgresql") and Path(where).exists():
        with closing(sqlite3.connect(where)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    ledger = Ledger.open(where)
    states = {row["id"]: row["state"] for row in ledger.charges()}
    released, giving = lines(folder / "released"), lines(folder / "giving")
    assert len(released) == len(set(released))
    assert [one for one in released if states.get(one) != "spent"] == [], "released, and not counted"
    assert [one for one in giving if states.get(one) == "spent"] == [], "given back, and counted"
    spent = [one for one, state in states.items() if state == "spent"]
    assert len(set(spent) - set(released)) <= kills, "each kill may cost one charge that was not released"
    price = epsilon([Event(20.0, count=len(spent))], DELTA) if spent else 0.0
    ledger.recover()
    for said in ledger.statements():  # nobody lives who could spend what was reserved
        assert said.reservations == ()
        assert said.counted == said.spent == pytest.approx(price)
        assert said.spent <= LIMIT * (1 + 1e-9)


def lines(path: Path) -> list[str]:
    return path.read_text().split() if path.exists() else []


class Killer:
    """Kills one victim after the other: at every kind of point in turn, at any of all points, or at any moment."""

    def __init__(self, victims: Victims, points: Counter[str], seed: int) -> None:
        self._victims, self._points = victims, points
        self._dice, self._kinds = random.Random(seed), cycle(sorted(points))

    def kill(self, where: str, folder: Path) -> str:
        """One kill; says where it was. A victim that never came to its point is left, and another one made."""
        kind, all_points = next(self._kinds), sorted(self._points.elements())
        for attempt in count():
            seed, style = self._dice.randrange(1_000_000), self._dice.random()
            name = kind if style < 0.5 and attempt < 6 else self._dice.choice(all_points)
            after = self._dice.random() / 8 if style > 0.9 else None
            point = None if after is not None else (name, self._dice.randrange(self._points[name]))
            crowd = 2 if self._dice.random() < 0.1 else 0
            done = self._victims.run(Order(where, str(folder), seed, point, after, crowd=crowd))
            assert done["others"] == [0] * crowd
            assert done["code"] in (0, -signal.SIGKILL)
            if done["code"]:
                return "any moment" if point is None else name
        raise AssertionError("unreachable")


def points_of(victims: Victims, where: str, folder: Path) -> Counter[str]:
    """The points that a victim passes when nobody kills it, all of its steps taken."""
    found = Counter[str]()
    for seed in range(3):  # some give back and some spend
        done = victims.run(Order(where, str(folder), seed))
        assert done["code"] == 0
        found |= Counter(done["points"])
    assert found["after reserve"] == STEPS
    return found


def test_nothing_that_was_released_is_lost_to_a_kill(watched, folder):
    points = points_of(watched, str(folder / "dry.sqlite"), folder)
    killer, at = Killer(watched, points, seed=20), Counter[str]()
    for number in range(0, KILLS, PER_LEDGER):
        here = folder / str(number)
        here.mkdir()
        where = str(here / "ledger.sqlite")
        for kill in range(1, min(PER_LEDGER, KILLS - number) + 1):
            at[killer.kill(where, here)] += 1
            verify(where, here, kill)
            Ledger.open(where).limit("shop", epsilon=LIMIT, delta=DELTA)
    assert at.total() == KILLS
    if KILLS >= 200:  # every kind of point was met
        assert set(at) == {*points, "any moment"}


def test_neither_is_it_on_a_server(victims, server):
    with quick_folder() as folder, server.fresh() as dry:
        killer = Killer(victims, points_of(victims, dry, folder), seed=21)
    with quick_folder() as folder, server.fresh() as where:
        Ledger.open(where).limit("shop", epsilon=LIMIT, delta=DELTA)
        for kill in range(1, max(3, KILLS // 10) + 1):
            killer.kill(where, folder)
            verify(where, folder, kill)


def test_whoever_releases_before_the_charge_is_spent_is_found_out(victims, folder):
    where = str(folder / "ledger.sqlite")
    done = victims.run(Order(where, str(folder), 0, kill=("after release", 0), hasty=True))
    assert done["code"] == -signal.SIGKILL
    with pytest.raises(AssertionError, match="released, and not counted"):
        verify(where, folder, kills=1)


def test_a_disk_that_fills_up_at_any_write_releases_nothing_uncounted(watched, folder):
    writes = {"before pwrite", "before pwrite64", "before write"}
    points = points_of(watched, str(folder / "dry.sqlite"), folder)
    most, told = max(points[name] for name in writes), 0
    for full in range(0, most, max(1, most // max(5, KILLS // 5))):
        here = folder / str(full)
        here.mkdir()
        where = str(here / "ledger.sqlite")
        done = watched.run(Order(where, str(here), 1, full=full))
        assert done["code"] in (0, FULL)
        told += done["code"] == FULL
        verify(where, here, kills=0)
        assert watched.run(Order(where, str(here), 2))["code"] == 0  # there is room again
        verify(where, here, kills=0)
    assert told >= 4
