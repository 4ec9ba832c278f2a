"""The record of members: single-use tokens, one roster for each version, on both databases and under many at once."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from coterie.errors import ConfigError, CoterieError, EnvironmentFault, PeerError
from coterie.federation.enrolment import Enrolment
from coterie.federation.members import Members
from coterie.federation.roster import Roster
from coterie.secure.keys import Identity, fingerprint
from coterie.storage import Storage
from tests.federation.partners import enrolment, transport_key
from tests.ledgers import quick_folder
from tests.postgres import Server, postgres

COORDINATOR = Identity()
FEDERATION = fingerprint(COORDINATOR.public)
WEEK = timedelta(days=7)


class Clock:
    """A time that passes when it is told to; in seconds since 1970."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgres() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgres"])
def address(request) -> Iterator[str]:
    """An empty database of each kind."""
    if request.param == "sqlite":
        with quick_folder() as folder:
            yield str(folder / "federation.sqlite")
        return
    with request.getfixturevalue("server").fresh() as url:
        yield url


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def members(address: str, clock: Clock) -> Members:
    return Members(Storage.open(address), FEDERATION, clock)


def joined(members: Members, *names: str) -> list[Enrolment]:
    """These enrol and are approved."""
    requests = [enrolment(name, members.invite(name, WEEK)) for name in names]
    for request in requests:
        members.enrol(request)
        members.approve(request.name)
    return requests


def test_a_federation_begins_with_nobody(members: Members) -> None:
    assert members.roster() == Roster(FEDERATION, 0)
    assert (members.members(), members.invitations()) == ((), ())


def test_from_invitation_to_roster(members: Members, clock: Clock, address: str) -> None:
    request = enrolment("north", members.invite("north", WEEK))
    clock.now += 60
    assert members.enrol(request) == "pending"
    assert len(members.roster()) == 0
    clock.now += 60
    roster = members.approve("north", request.fingerprint)
    assert roster.version == 1
    (north,) = roster.members
    assert (north.name, north.public, north.transport) == ("north", request.public, request.transport)
    assert north.since == 1_800_000_120
    reopened = Members.open(address, FEDERATION)
    assert reopened.roster() == roster
    (record,) = reopened.members()
    assert (record.state, record.fingerprint, record.revoked_at) == ("approved", request.fingerprint, None)
    assert record.approved_at is not None
    assert (record.approved_at - record.enrolled_at).total_seconds() == 60
    (invited,) = reopened.invitations()
    assert (invited.state(record.enrolled_at), invited.used_by) == ("used", request.fingerprint)


def test_every_change_is_a_version_and_none_is_forgotten(members: Members) -> None:
    joined(members, "north", "south")
    before = members.roster()
    after = members.revoke("north", "left the business")
    assert (before.names, after.names) == (("north", "south"), ("south",))
    assert (before.version, after.version) == (2, 3)
    assert members.roster() == after
    assert members.roster(before.digest) == before
    assert [one.reason for one in members.members()] == ["left the business", ""]
    with pytest.raises(ConfigError, match="never had a roster with the digest 00"):
        members.roster("00")


def test_what_changes_nothing_makes_no_version(members: Members) -> None:
    joined(members, "north")
    assert members.approve("north").version == 1
    members.enrol(enrolment("south", members.invite("south", WEEK)))
    assert members.revoke("south").version == 1  # it never was in one


def test_asking_again_gets_the_same_answer(members: Members) -> None:
    request = enrolment("north", members.invite("north", WEEK))
    assert [members.enrol(request) for _ in range(2)] == ["pending", "pending"]
    members.approve("north")
    assert members.enrol(request) == "approved"
    members.revoke("north")
    assert members.enrol(request) == "revoked"
    assert len(members.members()) == 1


def test_a_token_is_used_up_by_one(members: Members) -> None:
    token = members.invite("north", WEEK)
    first = enrolment("north", token)
    members.enrol(first)
    with pytest.raises(
        PeerError, match="'north': this invitation was used already, by other keys; if that was not you"
    ):
        members.enrol(enrolment("north", token))
    with pytest.raises(PeerError, match="used already, by other keys"):
        members.enrol(Enrolment("north", token, first.public, transport_key()))
    assert [one.fingerprint for one in members.members()] == [first.fingerprint]


@pytest.mark.parametrize("who", ["others", "the same"])
def test_a_token_is_used_up_by_one_when_many_come_at_once(address: str, who: str) -> None:
    token = Members.open(address, FEDERATION).invite("north", WEEK)
    one = Identity() if who == "the same" else None
    line = transport_key()
    requests = [enrolment("north", token, one, line if one else None) for _ in range(8)]
    opened = [Members.open(address, FEDERATION) for _ in requests]

    def enrol(members: Members, request: Enrolment) -> str:
        try:
            return members.enrol(request)
        except PeerError as error:
            return "used" if "used already" in str(error) else str(error)

    with ThreadPoolExecutor(len(requests)) as pool:
        answers = list(pool.map(enrol, opened, requests))
    assert sorted(answers) == (["pending"] * 8 if one else ["pending", *["used"] * 7])
    assert len(opened[0].members()) == 1


def test_a_token_is_used_up_by_one_process(address: str) -> None:
    token = Members.open(address, FEDERATION).invite("north", WEEK)
    script = (
        "import sys; from coterie.federation.members import Members\n"
        "from coterie.errors import PeerError\n"
        "from tests.federation.partners import enrolment\n"
        f"members = Members.open({address!r}, {FEDERATION!r})\n"
        "try:\n    print(members.enrol(enrolment('north', bytes.fromhex(sys.argv[1]))))\n"
        "except PeerError:\n    print('used')\n"
    )
    root = str(Path(__file__).parents[2])
    command = [sys.executable, "-c", script, token.hex()]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": root}, text=True)
        for _ in range(3)
    ]
    assert sorted(one.communicate(timeout=60)[0].strip() for one in running) == ["pending", "used", "used"]


def test_changes_at_once_make_versions_one_after_the_other(address: str) -> None:
    members, names = Members.open(address, FEDERATION), [f"shop-{n}" for n in range(6)]
    for name in names:
        members.enrol(enrolment(name, members.invite(name, WEEK)))
    with ThreadPoolExecutor(len(names)) as pool:
        made = list(pool.map(lambda name: Members.open(address, FEDERATION).approve(name), names))
    assert sorted(one.version for one in made) == list(range(1, 7))
    assert members.roster().names == tuple(names)


def test_an_invitation_expires(members: Members, clock: Clock) -> None:
    token = members.invite("north", timedelta(hours=1))
    clock.now += 3601
    with pytest.raises(PeerError, match=r"this invitation expired at 2027-01-15 09:00 UTC; ask .* for a new one"):
        members.enrol(enrolment("north", token))
    assert members.members() == ()


def test_a_new_invitation_makes_the_old_one_worthless(members: Members, clock: Clock) -> None:
    old = members.invite("north", WEEK)
    clock.now += 1
    new = members.invite("north", WEEK)
    with pytest.raises(PeerError, match="this invitation was withdrawn"):
        members.enrol(enrolment("north", old))
    assert members.enrol(enrolment("north", new)) == "pending"


def test_an_invitation_can_be_withdrawn(members: Members) -> None:
    token = members.invite("north", WEEK)
    members.withdraw("north")
    with pytest.raises(PeerError, match="was withdrawn"):
        members.enrol(enrolment("north", token))
    with pytest.raises(ConfigError, match="there is no open invitation for 'north'"):
        members.withdraw("north")


@pytest.mark.parametrize(("name", "token"), [("south", None), ("north", bytes(32))])
def test_a_token_of_something_else_is_worth_nothing(members: Members, name: str, token: bytes | None) -> None:
    right = members.invite("north", WEEK)
    with pytest.raises(PeerError, match=f"'{name}': this token is not of an invitation for that name"):
        members.enrol(enrolment(name, token or right))
    assert members.enrol(enrolment("north", right)) == "pending"


def test_no_token_is_in_the_database(members: Members, address: str) -> None:
    token = members.invite("north", WEEK)
    with Storage.open(address).reading() as connection:
        rows = connection.execute(text("SELECT * FROM fed_invitation")).all()
    assert token.hex() not in str(rows)
    assert str(token) not in str(rows)


def test_keys_belong_to_one_member(members: Members) -> None:
    (north,) = joined(members, "north")
    token = members.invite("south", WEEK)
    identity, line = Identity(), transport_key()
    for public, transport in ((north.public, line), (identity.public, north.transport)):
        with pytest.raises(PeerError, match="'south': its identity, its transport key or its name is in use or was"):
            members.enrol(Enrolment("south", token, public, transport))
    assert members.enrol(Enrolment("south", token, identity.public, line)) == "pending"  # the token was not used up


def test_a_revoked_identity_never_comes_back_and_its_name_may(members: Members) -> None:
    (north,) = joined(members, "north")
    members.revoke("north")
    token = members.invite("north", WEEK)
    with pytest.raises(PeerError, match="is in use or was revoked; enrol with new keys in a new folder"):
        members.enrol(Enrolment("north", token, north.public, transport_key()))
    members.enrol(enrolment("north", token))
    assert members.approve("north").version == 3
    assert [one.state for one in members.members()] == ["revoked", "approved"]


def test_nobody_is_invited_in_a_members_place(members: Members) -> None:
    (north,) = joined(members, "north")
    with pytest.raises(
        ConfigError, match=f"'north' has enrolled already .{north.fingerprint}, approved.; choose another"
    ):
        members.invite("north", WEEK)
    with pytest.raises(ConfigError, match="a node's name must be"):
        members.invite("North", WEEK)


def test_who_took_somebody_elses_place_is_not_approved(members: Members) -> None:
    members.enrol(enrolment("north", members.invite("north", WEEK)))
    with pytest.raises(ConfigError, match=f"not {'0' * 32}; somebody else may have used its invitation: coterie coord"):
        members.approve("north", "0" * 32)
    assert len(members.roster()) == 0


def test_a_name_that_nobody_has_is_said_with_the_nearest(members: Members) -> None:
    with pytest.raises(ConfigError, match="there is no member 'north'; nobody has enrolled yet"):
        members.approve("north")
    joined(members, "north", "zebra")
    for change in (members.approve, members.revoke):
        with pytest.raises(ConfigError, match=r"there is no member 'nroth'; did you mean 'north'?"):
            change("nroth")
    with pytest.raises(ConfigError, match="there is no member 'xyz'; enrolled: north, zebra"):
        members.revoke("xyz")


def test_a_database_of_another_federation_is_refused(members: Members, address: str) -> None:
    other = fingerprint(Identity().public)
    with pytest.raises(ConfigError, match=f"holds federation {FEDERATION} and the identity here is {other}; restore"):
        Members.open(address, other)


def test_a_roster_that_was_changed_by_hand_is_noticed(members: Members, address: str) -> None:
    joined(members, "north")
    with Storage.open(address).writing() as connection:
        connection.execute(text("UPDATE fed_roster SET content = replace(content, 'north', 'south')"))
    with pytest.raises(EnvironmentFault, match="roster 1 in the database was changed by hand"):
        members.roster()


def test_what_failed_half_way_never_was(members: Members, monkeypatch: pytest.MonkeyPatch) -> None:
    members.enrol(enrolment("north", members.invite("north", WEEK)))

    def fail(*_: object) -> Roster:
        raise CoterieError("the disk is gone")

    monkeypatch.setattr("coterie.federation.members_rows.next_roster", fail)
    with pytest.raises(CoterieError, match="the disk is gone"):
        members.approve("north")
    monkeypatch.undo()
    assert [one.state for one in members.members()] == ["pending"]
    assert members.approve("north").version == 1
