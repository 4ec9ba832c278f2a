"""What a person decides at a node: who is pinned, which members are accepted, which jobs run and which are stopped."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from coterie.errors import ConfigError, DataError, PeerError
from coterie.federation.approvals import Approvals
from coterie.federation.policy import POLICY_FILE, Policy, policy_template
from coterie.federation.roster import Roster
from tests.federation.asked import FEDERATION, OWN, PINS, ROSTER, Job, policy, refusals
from tests.federation.partners import member, written


@pytest.fixture
def path(tmp_path: Path) -> Path:
    values = {"coordinators": [FEDERATION], "peers": PINS}
    return written(tmp_path / POLICY_FILE, policy_template(**values))


def test_a_person_approves_and_stops(path: Path) -> None:
    mine = Policy.load(path)
    assert mine.waits(Job())
    assert any("waits for a person" in one for one in refusals(mine, Job()))
    mine.approvals.approve("weekly-1", by="ann")
    assert (refusals(mine, Job()), mine.waits(Job())) == ([], False)
    mine.approvals.stop("weekly-1", "sale season", by="bob")
    (reason,) = refusals(Policy.load(path), Job())
    assert reason.startswith("the job was stopped here by bob at ")
    assert "(sale season); to let it run again: coterie node policy approve weekly-1" in reason
    assert (mine.approvals.approved_jobs, mine.approvals.stopped_jobs) == ((), ("weekly-1",))
    assert refusals(mine, replace(Job(), id="weekly-2"))  # what was approved is one job


def test_an_approved_id_is_no_leave_for_another_job(path: Path) -> None:
    Policy.load(path).approvals.note_job("weekly-1", "a" * 64)
    mine = Policy.load(path).approvals
    mine.approve("weekly-1")
    mine.note_job("weekly-1", "a" * 64)
    with pytest.raises(PeerError, match="the coordinator has signed two jobs as 'weekly-1'"):
        mine.note_job("weekly-1", "b" * 64)
    mine.note_job("weekly-2", "b" * 64)


def test_of_two_jobs_under_one_id_the_first_counts_for_every_process(path: Path) -> None:
    one, other = Policy.load(path).approvals, Policy.load(path).approvals
    one.note_job("weekly-1", "a" * 64)
    with pytest.raises(PeerError, match="has signed two jobs"):
        other.note_job("weekly-1", "b" * 64)


def test_a_stopped_job_is_refused_without_a_person_too() -> None:
    mine = policy()
    mine.approvals.stop("weekly-1")
    (reason,) = refusals(mine, Job())
    assert "was stopped here" in reason


def test_decisions_survive_and_the_policy_is_not_rewritten(path: Path) -> None:
    before = path.read_bytes()
    mine = Policy.load(path)
    mine.pin("west", "ABCD " * 8, by="ann")
    mine.approvals.approve("weekly-1")
    mine.approvals.approve_roster(ROSTER)
    again = Policy.load(path)
    assert again.pinned == {**PINS, "west": "abcd" * 8}
    assert again.approvals.approved_jobs == ("weekly-1",)
    assert again.approvals.roster(ROSTER.digest) is not None
    assert path.read_bytes() == before
    assert (path.with_name("approvals.json").stat().st_mode & 0o777) == 0o600


def test_a_command_beside_the_daemon_loses_nothing(path: Path) -> None:
    daemon, command = Policy.load(path), Policy.load(path)
    command.approvals.approve("weekly-1")
    daemon.approvals.note_roster(ROSTER)  # written on what the file says then
    daemon.approvals.refresh()
    assert daemon.approvals.approved_jobs == ("weekly-1",)
    assert Policy.load(path).approvals.shown(FEDERATION) is not None


def test_decisions_at_once_are_all_kept(path: Path) -> None:
    approvals = path.with_name("approvals.json")
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: Approvals.load(approvals).approve(f"job-{n}"), range(24)))
    assert set(Approvals.load(approvals).approved_jobs) == {f"job-{n}" for n in range(24)}


def test_who_decides_is_known(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGNAME", "carla")
    mine = Policy.load(path)
    mine.approvals.approve("weekly-1")
    decided = mine.approvals.job("weekly-1")
    assert decided is not None
    assert decided.by == "carla"
    assert datetime.fromisoformat(decided.at).tzinfo is not None


def test_a_pin_is_not_changed_in_passing(path: Path) -> None:
    mine = Policy.load(path)
    mine.pin("west", "a" * 32, by="ann")
    mine.pin("west", "a" * 32)
    with pytest.raises(
        ConfigError, match=r"'west' is pinned to a{32} since .* \(by .*\), got b{32}; .* unpin the old one"
    ):
        mine.pin("west", "b" * 32)
    mine.approvals.unpin("west")
    mine.pin("west", "b" * 32)
    assert mine.pinned["west"] == "b" * 32
    with pytest.raises(ConfigError, match=rf"'south' is pinned to {PINS['south']} in policy\.toml, got b{{32}}"):
        mine.pin("south", "b" * 32)
    with pytest.raises(ConfigError, match=r"'south' is not pinned in .*; pins in policy.toml stay there"):
        mine.approvals.unpin("south")


@pytest.mark.parametrize(("name", "mark"), [("West", "a" * 32), ("west", "a" * 31), ("west", "g" * 32), ("west", "")])
def test_what_can_be_no_pin_is_refused(path: Path, name: str, mark: str) -> None:
    with pytest.raises(ConfigError, match="must be"):
        Policy.load(path).pin(name, mark)
    assert not path.with_name("approvals.json").exists()


def test_who_is_pinned_to_two_identities_counts_for_nothing(path: Path) -> None:
    Approvals.load(path.with_name("approvals.json")).pin("south", "b" * 32)
    mine = Policy.load(path)
    mine.approvals.approve("weekly-1")
    first, second = refusals(mine, Job())
    assert first.startswith(f"'south' is pinned to {PINS['south']} in policy.toml and to {'b' * 32} in the approvals")
    assert first.endswith("forget the other: coterie node policy unpin south")
    assert second.startswith("2 of 3 nodes are pinned here")
    mine.approvals.unpin("south")
    assert refusals(mine, Job()) == []


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pins": {"a": 3}}', '{"unknown": {}}'])
def test_damaged_approvals_are_one_sentence(path: Path, content: str) -> None:
    written(path.with_name("approvals.json"), content)
    with pytest.raises(
        DataError, match=r"approvals\.json: not a file of approvals .*; restore it from a backup"
    ) as caught:
        Policy.load(path)
    assert "\n" not in str(caught.value)


def test_a_job_without_a_name_cannot_be_decided_on(path: Path) -> None:
    for id in ("", "a\nb"):
        with pytest.raises(ConfigError, match="a job's id must be one that can be printed"):
            Policy.load(path).approvals.approve(id)


# --- members ----------------------------------------------------------------------------------------------------------


def test_puppets_do_not_count() -> None:
    """The coordinator enrols as many as it likes: only those count whose identities were compared."""
    names = ["east", "north", *(f"puppet-{n}" for n in range(8))]
    known = Roster(FEDERATION, 2, tuple(_from(ROSTER, name) for name in names))
    job = replace(Job(), members=known.names)
    mine = policy(peers={name: PINS[name] for name in ("east", "south")})
    mine.approvals.approve_roster(known)  # a person accepts them all, and pins none
    (reason,) = refusals(mine, job, known)
    assert reason.startswith("2 of 10 nodes are pinned here and min_clients = 3 counts only those")
    assert f"puppet-0 ({known.member('puppet-0').fingerprint})" in reason


def _from(known: Roster, name: str) -> Any:
    return known.member(name) if name in known.names else member(name)


def test_one_identity_counts_once() -> None:
    """Neither its own key nor a pinned one helps under a second name."""
    renamed = replace(ROSTER.member("south"), name="west", transport=member("x").transport)
    assert policy(min_clients=3).cohort_refusals([ROSTER.member("north"), ROSTER.member("south"), renamed], OWN)
    pinned_twice = policy(peers={**PINS, "west": PINS["south"]})
    assert pinned_twice.cohort_refusals([ROSTER.member("north"), ROSTER.member("south"), renamed], OWN)


def test_the_cohort_of_each_sum_is_checked() -> None:
    mine = policy(peers={"south": PINS["south"], "east": PINS["east"]})
    assert mine.cohort_refusals(ROSTER.members, OWN) == []
    assert mine.cohort_refusals(ROSTER.members[1:], OWN)
    assert mine.cohort_refusals(ROSTER.members)  # without its own identity there are two


def test_only_who_takes_part_counts() -> None:
    (reason,) = refusals(policy(), replace(Job(), members=("north", "south")))
    assert reason.startswith("2 of 2 nodes are pinned here and min_clients = 3")
    assert "nobody else takes part" in reason


def test_another_identity_under_a_pinned_name_is_refused() -> None:
    other = member("south")
    known = Roster(FEDERATION, 2, (*ROSTER.members[:2], other))
    mine = policy()
    mine.approvals.approve_roster(known)  # even then: a pin is never overruled
    found = refusals(mine, Job(), known)
    assert f"'south' is pinned to {PINS['south']} here and has {other.fingerprint} in roster 2" in found[0]


def test_a_stranger_needs_a_pin_or_a_person() -> None:
    known = Roster(FEDERATION, 2, (*ROSTER.members, member("west")))
    mine = policy()
    (reason,) = refusals(mine, Job(), known)
    assert f"roster 2 has members that nobody here has accepted: west ({known.member('west').fingerprint})" in reason
    mine.pin("west", known.member("west").fingerprint)
    assert refusals(mine, Job(), known) == []
    accepted = policy()
    accepted.approvals.approve_roster(known, by="ann")
    assert refusals(accepted, Job(), known) == []
    decided = accepted.approvals.roster(known.digest)
    assert decided is not None
    assert decided.by == "ann"
    assert refusals(accepted, Job(), replace(known, version=3)) != []  # another roster is another question


def test_a_node_that_is_not_in_the_roster_says_so() -> None:
    known = Roster(FEDERATION, 2, (ROSTER.member("east"), ROSTER.member("south")))
    assert any("does not have this node" in one for one in refusals(policy(), Job(), known))


def test_who_was_revoked_takes_part_in_nothing() -> None:
    mine, later = policy(), Roster(FEDERATION, 2, ROSTER.members[:2])
    mine.approvals.note_roster(ROSTER)
    mine.approvals.note_roster(later)
    (reason,) = mine.roster_refusals(ROSTER, OWN)
    assert f"roster 1 has south ({PINS['south']}), not in roster 2 any more: who was revoked takes part" in reason
    with pytest.raises(PeerError, match="who was revoked"):
        mine.approvals.note_roster(ROSTER)
    assert mine.roster_refusals(later, OWN) == []


def test_an_older_roster_will_do_while_nobody_in_it_was_revoked() -> None:
    mine, later = policy(), Roster(FEDERATION, 2, (*ROSTER.members, member("west")))
    mine.approvals.note_roster(later)
    mine.approvals.note_roster(ROSTER)
    assert mine.roster_refusals(ROSTER, OWN) == []
    shown = mine.approvals.shown(FEDERATION)
    assert shown is not None
    assert shown.version == 2


def test_two_rosters_of_one_version_are_a_lie() -> None:
    mine = policy()
    mine.approvals.note_roster(ROSTER)
    other = Roster(FEDERATION, ROSTER.version, ROSTER.members[:2])
    (reason,) = mine.roster_refusals(other, OWN)
    assert "shows a second roster under version 1: it tells members different things" in reason
