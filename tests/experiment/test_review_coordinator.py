"""A coordinator's daemon goes on with other jobs, whatever becomes of one of them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from coterie.experiment.conductor import Conductor
from coterie.experiment.coordinator import Coordinator
from coterie.federation.job import DAY
from tests.experiment.test_coordinator import NAMES, daemon, job


class Transport:
    """Nobody answers."""

    def online(self) -> dict[str, float]:
        return {}

    def exchange(self, messages: dict[str, bytes], *_: Any) -> Any:
        return iter(())


def ready(folder: Path, jobs: str) -> Coordinator:
    made = daemon(folder, jobs)
    made.net.transport = Transport  # type: ignore[method-assign, assignment]
    return made


def test_a_job_whose_list_of_items_has_changed_fails_alone(tmp_path: Path) -> None:
    """It would otherwise end the daemon, at this start and at every one after it."""
    items = tmp_path / "items.csv"
    items.write_text("item,title\na,A\nb,B\n")
    made = ready(tmp_path, job(catalogue='"given"', items=f'"{items}"') + job("other", seed=4))
    record = made._next()
    assert record is not None
    items.write_text("item,title\na,A\nc,C\n")
    made._conduct(record)
    found = made.journal.job(record.id)
    assert found.state == "failed"
    assert "changed since job" in found.reason
    following = made._next()
    assert following is not None
    assert following.id != record.id


def test_a_fault_of_ours_fails_the_job_and_not_the_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = ready(tmp_path, job())
    record = made._next()
    assert record is not None

    def trip(_: Conductor) -> None:
        raise RecursionError("too deep")

    monkeypatch.setattr(Conductor, "conduct", trip)
    made._conduct(record)
    assert made.journal.job(record.id).reason == "RecursionError: too deep; the log has more"
    assert made._failed == [record.id]


def test_a_federation_that_lost_its_members_waits(tmp_path: Path) -> None:
    made = daemon(tmp_path, job())
    record = made._next()
    assert record is not None
    made.journal.become(record.id, "done")
    for name in NAMES[1:]:
        made.members.revoke(name, "left")
    assert not made._pending()
    assert made._next() is None


def test_a_job_that_comes_again_is_stopped_between_two_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = job(every_days=7, times=3)
    made, began = daemon(tmp_path, settings), time.time()
    record = made._next()
    assert record is not None
    made.journal.become(record.id, "running")
    made.journal.become(record.id, "done")
    made._stop_job(record.id)
    monkeypatch.setattr(time, "time", lambda: began + 8 * DAY)
    assert daemon(tmp_path, settings)._next() is None  # by another start, too
    assert [one.state for one in made.journal.all()] == ["done", "stopped"]
