"""Members and the coordinator are killed between any two steps, and a job goes on: the same model, nothing twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coterie.errors import PeerError
from coterie.federation.checkpoint import Checkpoints, state_digest
from coterie.federation.job import Job
from coterie.federation.journal import FederationJournal
from coterie.federation.localstore import TAG
from coterie.privacy.ledger_tables import SPENT
from coterie.testing.logs import zipf_log
from tests.federation.auditor import Seen, audit, steps_of, watch
from tests.federation.fuses import Killed
from tests.federation.loopback import Federation
from tests.federation.tinydesk import ITEMS
from tests.ledgers import quick_folder

LOGS = [zipf_log(5, len(ITEMS), seed) for seed in range(4)]
IALS = {"name": "ials", "factors": 2, "iterations": 2}
MF = {"name": "mf", "factors": 2, "rounds": 4}
NOISE = {"epsilon": 4.0, "max_users": 1000}
SECURE = {"aggregation": "secure"}


@pytest.fixture
def folder() -> Iterator[Path]:
    with quick_folder() as made:
        yield made


def fresh(folder: Path, members: int = 3) -> tuple[Federation, list[Seen]]:
    """A new federation in `folder`, whose sums are checked."""
    federation = Federation.of(folder, LOGS[:members])
    return federation, watch(federation)


def count_points(folder: Path, settings: dict[str, Any]) -> int:
    """How many points one member passes in a whole job."""
    federation, _ = fresh(folder)
    passed: list[str] = []
    federation.sites["m1"].fuse = passed.append
    federation.conduct(federation.job(**settings))
    return len(passed)


class Once:
    """A fuse that burns at one point, counted from 0."""

    def __init__(self, at: int) -> None:
        self.at, self.passed = at, 0

    def __call__(self, point: str) -> None:
        self.passed += 1
        if self.passed == self.at + 1:
            raise Killed(point)


@pytest.mark.parametrize(("part", "plan"), [(0, NOISE), (1, NOISE), (2, NOISE), (0, SECURE), (1, SECURE), (2, SECURE)])
def test_a_member_that_is_killed_around_any_write_takes_part_again(folder: Path, part: int, plan: Any) -> None:
    settings = {"plan": plan, "evaluate": False}
    for at in range(part, count_points(folder / "count", settings), 3):
        federation, seen = fresh(folder / str(at))
        federation.sites["m1"].fuse = Once(at)
        federation.conduct(federation.job(**settings))
        assert {one.members for one in seen if one.what == "model"} == {("m0", "m1", "m2")}
        audit(federation, killed=True)
        spent = Counter(row["state"] for row in federation.sites["m0"].ledger.charges())[SPENT]
        assert spent == len({one.attempt for one in steps_of(federation) if (one.member, one.step) == ("m0", "sum")}) * (
            plan is NOISE
        )


def conduct_with_a_kill(federation: Federation, job: Job, kill: Callable[[], None]) -> tuple[Any, bool]:
    """Conduct a job whose coordinator is killed once, and started again; whether it was."""
    kill()
    try:
        return federation.conduct(job), False
    except Killed:
        federation.transport.kill_before = federation.transport.kill_after = None
        return federation.conduct(job), True


@pytest.mark.parametrize("where", ["kill_before", "kill_after"])
def test_a_coordinator_that_is_killed_at_any_message_goes_on(folder: Path, where: str) -> None:
    federation, _ = fresh(folder / "whole")
    settings = {"model": IALS, "seed": 5}
    expected = state_digest(federation.conduct(federation.job(**settings)).state)
    messages = len(federation.transport.heard)
    for at in range(1, messages - 3, 3) if where == "kill_after" else range(0, messages - 3, 3):
        federation, seen = fresh(folder / str(at))
        run, killed = conduct_with_a_kill(
            federation, federation.job(**settings), lambda fed=federation, at=at: setattr(fed.transport, where, at)
        )
        assert killed
        assert state_digest(run.state) == expected
        audit(federation)
        check_attempts_of(federation, seen)


def check_attempts_of(federation: Federation, seen: list[Seen]) -> None:
    """No attempt's number is used twice, and what became the model is one sum of each round."""
    tried = [(row["job"], row["round"], row["attempt"]) for row in federation.journal.attempts("job.0")]
    assert len(tried) == len(set(tried))
    for job, round in {(job, round) for job, round, _ in tried}:
        assert sorted(n for j, r, n in tried if (j, r) == (job, round)) == list(range(tried_times(tried, job, round)))


def tried_times(tried: list[tuple[str, int, int]], job: str, round: int) -> int:
    return sum((j, r) == (job, round) for j, r, _ in tried)
