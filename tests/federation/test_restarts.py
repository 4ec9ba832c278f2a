"""Members and the coordinator are killed between any two steps, and a job goes on: the same model, nothing twice."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from coterie.errors import PeerError
from coterie.experiment.joint_books import Asked
from coterie.experiment.outputs import round_records
from coterie.federation.checkpoint import Checkpoints, state_digest
from coterie.federation.journal import FederationJournal
from coterie.federation.localstore import TAG
from coterie.privacy.ledger_tables import SPENT
from coterie.testing.logs import zipf_log
from tests.federation.auditor import Seen, audit, steps_of, watch
from tests.federation.fuses import Killed
from tests.federation.loopback import Federation, blank
from tests.federation.tinydesk import ITEMS
from tests.ledgers import quick_folder

LOGS = [zipf_log(5, len(ITEMS), seed) for seed in range(4)]
IALS = {"model": {"name": "ials", "factors": 2, "iterations": 2}}
MF = {"model": {"name": "mf", "factors": 2, "rounds": 4}}
PAID = {"plan": {"epsilon": 4.0, "max_users": 1000}, "evaluate": True, "metrics_share": 0.2}
GIVEN = {**IALS, "catalogue": "given"}


@pytest.fixture
def folder() -> Iterator[Path]:
    with quick_folder() as made:
        yield made


def fresh(folder: Path, members: int = 3) -> tuple[Federation, list[Seen]]:
    """A new federation in `folder`, whose sums are checked."""
    federation = Federation.of(blank(folder, members), LOGS[:members])
    return federation, watch(federation)


class Fuse:
    """Burns at one point, counted from 0; counts them where there is none."""

    def __init__(self, at: int | None = None) -> None:
        self.at, self.passed = at, 0

    def __call__(self, point: str) -> None:
        self.passed += 1
        if self.at == self.passed - 1:
            raise Killed(point)


def some(count: int, tries: int = 8) -> list[int]:
    """So many of the numbers below `count`, spread over all of them."""
    return sorted({round(at * (count - 1) / (tries - 1)) for at in range(tries)})


# --- members ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("settings", [PAID, MF, GIVEN], ids=["paid", "mf", "given"])
def test_a_member_that_is_killed_around_a_write_takes_part_again(folder: Path, settings: dict[str, Any]) -> None:
    """Without it there are too few: so the job can only be done if it is back."""
    federation, _ = fresh(folder / "whole")
    federation.sites["m1"].fuse = points = Fuse()
    federation.conduct(federation.job(**settings))
    for at in some(points.passed):
        federation, seen = fresh(folder / str(at))
        federation.sites["m1"].fuse = Fuse(at)
        federation.conduct(federation.job(**settings))
        assert {one.members for one in seen if one.what == "model"} == {("m0", "m1", "m2")}
        audit(federation, killed=True)
        check_at_home(federation, seen)


def test_a_member_that_was_away_when_a_round_ended_keeps_what_it_is_of(folder: Path) -> None:
    """Its vector is in the sum, and it hears of that only after another round: what it staged then is final."""
    federation, seen = fresh(folder, members=4)
    site, final = federation.sites["m1"], set[tuple[int, ...]]()

    def fate(name: str, number: int) -> str:
        """Away after its second vector, and there again when another round is over."""
        if (kept := site.vault.store("job.0").get(TAG)) is not None:
            final.add(tuple(kept.tolist()))
        if len(seen) == 1 and name == "m1" and site.desk.said.keys() == {0, 1}:
            return "down"
        return "up" if len(seen) == 3 else "ok"

    federation.transport.fate = fate
    federation.conduct(federation.job(**MF))
    assert [("m1" in one.members) for one in seen] == [True, True, False, False, True]
    assert final == {(1, seen[1].attempt), (4, seen[4].attempt)}
    check_at_home(federation, seen)
    audit(federation)


def check_at_home(federation: Federation, seen: list[Seen]) -> None:
    """What stays at a member is of the last sum of the model that it is in, of that attempt and no other."""
    for site in federation.sites.values():
        kept = site.vault.store("job.0").get(TAG)
        mine = [one for one in seen if one.what == "model" and site.name in one.members]
        if kept is not None:
            assert kept.tolist() == [mine[-1].bound.spec.index, mine[-1].attempt]


def test_what_was_set_aside_for_a_job_that_failed_is_given_back(folder: Path) -> None:
    """For its reports too, which were never asked for; a member that did not hear of the end gives it back later."""
    federation, _ = fresh(folder)
    lost = {"sum": True, "survivors": True}
    federation.transport.before = lambda name, message: b"" if name == "m2" and _step(message) in lost else message
    with pytest.raises(PeerError, match="attempts were lost"):
        federation.conduct(federation.job(**PAID))
    for name, site in federation.sites.items():
        assert site.ledger.statement("default").reservations == (), name
    audit(federation)


def _step(message: bytes) -> str:
    """Which step of a round a message asks for first."""
    found = re.search(rb'"step":"([a-z]+)"', message)
    return found.group(1).decode() if found else ""


# --- the coordinator --------------------------------------------------------------------------------------------------


def conduct_again(federation: Federation, settings: dict[str, Any]) -> tuple[Any, bool]:
    """Conduct a job whose coordinator may be killed, and start it again then; whether it was."""
    job = federation.job(**settings)
    try:
        return federation.conduct(job), False
    except Killed:
        federation.transport.kill_before = federation.transport.kill_after = None
        return federation.conduct(job), True


@pytest.mark.parametrize("where", ["kill_before", "kill_after"])
@pytest.mark.parametrize("settings", [PAID, IALS], ids=["paid", "ials"])
def test_a_coordinator_that_is_killed_at_a_message_goes_on(folder: Path, settings: Any, where: str) -> None:
    federation, _ = fresh(folder / "whole")
    expected = state_digest(federation.conduct(federation.job(**settings)).state)
    for at in some(len(federation.transport.heard) - 3):
        federation, seen = fresh(folder / str(at))
        setattr(federation.transport, where, at)
        run, killed = conduct_again(federation, settings)
        assert killed
        check_after_kill(federation, seen, run, None if settings is PAID else expected)


@pytest.mark.parametrize("settings", [PAID, MF], ids=["paid", "mf"])
def test_a_coordinator_that_is_killed_around_a_write_goes_on(
    folder: Path, settings: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    fuse = Fuse()
    for owner, name in (
        (FederationJournal, "open_attempt"),
        (FederationJournal, "close_attempt"),
        (Checkpoints, "save"),
        (Asked, "spend"),
    ):
        monkeypatch.setattr(owner, name, fused(getattr(owner, name), fuse))
    federation, _ = fresh(folder / "whole")
    expected = state_digest(federation.conduct(federation.job(**settings)).state)
    for at in some(fuse.passed, 10):
        fuse.at, fuse.passed = at, 0
        federation, seen = fresh(folder / str(at))
        run, killed = conduct_again(federation, settings)
        assert killed
        check_after_kill(federation, seen, run, None if settings is PAID else expected)


def fused(method: Callable[..., Any], fuse: Callable[[str], None]) -> Callable[..., Any]:
    """A method with a point before and after it."""

    def called(*arguments: Any, **named: Any) -> Any:
        fuse("before")
        done = method(*arguments, **named)
        fuse("after")
        return done

    return called


def check_after_kill(federation: Federation, seen: list[Seen], run: Any, expected: bytes | None) -> None:
    """The same model, no attempt twice, and what is said to be spent is what left."""
    audit(federation)
    check_at_home(federation, seen)
    if expected is not None:
        assert state_digest(run.state) == expected
    tried = Counter((row["job"], row["round"], row["attempt"]) for row in federation.journal.attempts("job.0"))
    assert set(tried.values()) == {1}
    last = {(one.what, one.bound.spec.index): one.attempt for one in seen}
    records = [(one["round"], one["attempt"]) for one in round_records(run.path)]
    assert records == [(round, last["model", round]) for round in range(len(records))]
    check_cost(federation, run)


def check_cost(federation: Federation, run: Any) -> None:
    """The card says at least what any member has spent on the job, and each member's ledger what left it."""
    for site in federation.sites.values():
        rows = [row for row in site.ledger.charges() if row["state"] == SPENT]
        left = [one for one in steps_of(federation) if (one.member, one.step) == (site.name, "sum")]
        if rows:
            assert len(rows) == len(left)
            spent = site.ledger.statement("default").spent
            assert run.result["privacy"]["epsilon_spent"] >= spent * (1 - 1e-6)
