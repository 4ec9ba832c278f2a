"""When a coordinator's daemon starts which job: by itself, when asked, again, and never the same one twice."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from coterie.errors import ConfigError
from coterie.experiment.coordinator import Coordinator
from coterie.federation.enrolment import Enrolment
from coterie.federation.identity import Identities
from coterie.federation.job import DAY, read_job
from tests.parties import command

NAMES = ("east", "north", "south")


class Net:
    """Who is connected."""

    def __init__(self) -> None:
        self.there = dict.fromkeys(NAMES, 0.0)

    def online(self) -> dict[str, float]:
        return self.there


def daemon(folder: Path, jobs: str, *wanted: str) -> Coordinator:
    """A coordinator with three members, none of whose processes run."""
    hub = folder / "hub"
    if not hub.exists():
        command("coordinator", "init", "--folder", str(hub))
        (hub / "plain.toml").write_text((hub / "federation.toml").read_text())
    (hub / "federation.toml").write_text((hub / "plain.toml").read_text() + jobs)
    made = Coordinator(hub / "federation.toml", wanted)
    made.net = Net()  # type: ignore[assignment]
    if not made.members.members():
        for name in NAMES:
            enrol(made, folder, name)
    return made


def enrol(made: Coordinator, folder: Path, name: str) -> None:
    keys = Identities.open(folder / name, create=True)
    token = made.members.invite(name, timedelta(days=1))
    made.members.enrol(Enrolment(name, token, keys.public, keys.transport_public))
    made.members.approve(name)


def job(name: str = "weekly", **keys: Any) -> str:
    lines = [f"{key} = {value}" for key, value in {"start": '"ready"', **keys}.items()]
    return "\n".join(["", f"[jobs.{name}]", *lines, ""])


def test_a_job_that_is_ready_starts_once_enough_are_connected(tmp_path: Path) -> None:
    made = daemon(tmp_path, job())
    made.net.there = dict.fromkeys(NAMES[:2], 0.0)  # type: ignore[attr-defined]
    assert made._next() is None
    assert made.progress.snapshot()["waiting_for"] == ["south"]
    made.net.there = dict.fromkeys(NAMES, 0.0)  # type: ignore[attr-defined]
    record = made._next()
    assert record is not None
    signed = read_job(record.spec, made.identities.public)
    assert (record.name, record.state, record.occurrence, signed.members) == ("weekly", "waiting", 0, NAMES)
    assert signed.roster_sha256 == made.members.roster().digest


def test_what_was_begun_comes_before_all_else_even_after_a_restart(tmp_path: Path) -> None:
    first = daemon(tmp_path, job())._next()
    assert first is not None
    again = daemon(tmp_path, job(), "weekly")
    again.journal.become(first.id, "running")
    found = again._next()
    assert found is not None
    assert found.id == first.id


def test_a_job_that_is_done_is_not_done_again(tmp_path: Path) -> None:
    made = daemon(tmp_path, job())
    record = made._next()
    assert record is not None
    for state in ("done", "failed", "stopped"):
        made.journal.become(record.id, state)  # type: ignore[arg-type]
        assert made._next() is None


@pytest.mark.parametrize("changed", [{"seed": 1}, {"model": '{name = "cosine"}'}, {"plan": "{epsilon = 2.0}"}])
def test_other_settings_make_another_job(tmp_path: Path, changed: dict[str, Any]) -> None:
    made = daemon(tmp_path, job())
    record = made._next()
    assert record is not None
    made.journal.become(record.id, "done")
    other = daemon(tmp_path, job(**changed))._next()
    assert other is not None
    assert other.id != record.id
    assert other.occurrence == 0


def test_another_roster_makes_another_job_when_the_next_is_due(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, began = daemon(tmp_path, job(every_days=7, times=3)), time.time()
    record = made._next()
    assert record is not None
    made.journal.become(record.id, "done")
    enrol(made, tmp_path, "west")
    assert made._next() is None  # nobody's coming or leaving trains all anew
    monkeypatch.setattr(time, "time", lambda: began + 8 * DAY)
    other = made._next()
    assert other is not None
    assert read_job(other.spec, made.identities.public).members == (*NAMES, "west")


def test_a_job_that_recurs_is_signed_once_and_comes_when_it_is_due(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = job(every_days=7, times=3)
    made, began = daemon(tmp_path, settings), time.time()
    record = made._next()
    assert record is not None
    for occurrence in (1, 2):
        made.journal.become(record.id, "running")
        made.journal.become(record.id, "done")
        monkeypatch.setattr(time, "time", lambda at=occurrence: began + (at * 7 - 1) * DAY)
        assert made._next() is None
        monkeypatch.setattr(time, "time", lambda at=occurrence: began + at * 7 * DAY + 60)
        monkeypatch.setattr(time, "time_ns", lambda at=occurrence: int((began + at * 7 * DAY + 60) * 1e9))
        due = daemon(tmp_path, settings)._next()
        assert due is not None
        assert due.spec == record.spec
        assert due.occurrence == occurrence
        record = due
    made.journal.become(record.id, "done")
    monkeypatch.setattr(time, "time", lambda: began + 1000 * DAY)
    assert made._next() is None  # three times were signed


def test_who_stops_a_job_stops_all_its_recurrences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made, began = daemon(tmp_path, job(every_days=7, times=3)), time.time()
    record = made._next()
    assert record is not None
    made.journal.become(record.id, "stopped")
    monkeypatch.setattr(time, "time", lambda: began + 8 * DAY)
    assert made._next() is None


def test_a_job_by_hand_starts_when_it_is_asked_for_and_not_before(tmp_path: Path) -> None:
    assert daemon(tmp_path, job(start='"manual"'))._next() is None
    record = daemon(tmp_path, job(start='"manual"'), "weekly")._next()
    assert record is not None
    with pytest.raises(ConfigError, match=r"no \[jobs.dayly\]; it has: weekly"):
        daemon(tmp_path, job(start='"manual"'), "dayly")
