"""Rosters: what is signed is what is read, and what changed is said in words."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.errors import ConfigError, PeerError
from coterie.federation.envelope import canonical
from coterie.federation.roster import Member, Roster, check_name, diff
from coterie.federation.sealed import sealed
from coterie.secure.keys import Identity, fingerprint
from tests.federation.partners import member, roster

COORDINATOR = Identity()
NAMES = st.from_regex(r"[a-z0-9][a-z0-9-]{0,31}", fullmatch=True).filter(lambda name: name != "coordinator")


@given(
    st.lists(st.tuples(NAMES, st.binary(min_size=32, max_size=32), st.text(min_size=1)), unique_by=lambda one: one[0]),
    st.integers(0, 2**40),
)
def test_what_is_signed_is_what_is_read(parts: list[tuple[str, bytes, str]], version: int) -> None:
    distinct = {public: (name, transport) for name, public, transport in parts}
    members = [Member(name, public, f"{n} {line}", n) for n, (public, (name, line)) in enumerate(distinct.items())]
    made = Roster(fingerprint(COORDINATOR.public), version, tuple(sorted(members, key=lambda one: one.name)))
    text = made.seal(COORDINATOR)
    read = Roster.open(text, COORDINATOR.public)
    assert read == made
    assert (read.digest, read.seal(COORDINATOR)) == (made.digest, text)


def test_the_text_is_canonical() -> None:
    text = roster(COORDINATOR, "north", "south").seal(COORDINATOR)
    assert text == canonical(json.loads(text))


def test_members_are_found_by_name() -> None:
    known = roster(COORDINATOR, "north", "south")
    assert known.names == ("north", "south")
    assert known.member("south") is known.members[1]
    assert known.publics == {one.name: one.public for one in known.members}
    with pytest.raises(PeerError, match="'east' is not in roster 1: north, south"):
        known.member("east")


def test_every_part_counts_in_the_digest() -> None:
    one = member("north")
    base = Roster("f" * 32, 1, (one,))
    others = [
        replace(base, version=2),
        replace(base, federation="e" * 32),
        replace(base, members=()),
        *(replace(base, members=(changed,)) for changed in _changes(one)),
    ]
    assert len({base.digest, *(other.digest for other in others)}) == 1 + len(others)


def _changes(one: Member) -> list[Member]:
    other = member("south")
    fields = {"name": other.name, "public": other.public, "transport": other.transport, "since": 1}
    return [replace(one, **{key: value}) for key, value in fields.items()]


def _version(content: dict[str, Any]) -> None:
    content["version"] += 1


def _drop(content: dict[str, Any]) -> None:
    del content["members"][0]


def _rename(content: dict[str, Any]) -> None:
    content["members"][0]["name"] = "middle"


def _unsigned(content: dict[str, Any]) -> None:
    del content["signature"]


def _no_hexadecimal(content: dict[str, Any]) -> None:
    content["signature"] = "x"


def _number(content: dict[str, Any]) -> None:
    content["signature"] = 7


@pytest.mark.parametrize("change", [_version, _drop, _rename, _unsigned, _no_hexadecimal, _number])
def test_a_roster_that_was_altered_is_refused(change: Callable[[dict[str, Any]], None]) -> None:
    content = json.loads(roster(COORDINATOR, "north", "south").seal(COORDINATOR))
    change(content)
    with pytest.raises(PeerError, match="coordinator: the roster is not signed by the key that it should be"):
        Roster.open(json.dumps(content).encode(), COORDINATOR.public)


def test_somebody_else_cannot_sign_it() -> None:
    other = Identity()
    with pytest.raises(PeerError, match="not signed by the key"):
        Roster.open(roster(other, "north").seal(other), COORDINATOR.public)
    with pytest.raises(ConfigError, match=r"restore the coordinator's own identity.pem"):
        roster(COORDINATOR, "north").seal(other)


def test_another_statement_of_the_coordinator_is_no_roster() -> None:
    content = sealed("enrolment answer", roster(COORDINATOR, "north").as_dict(), COORDINATOR)
    with pytest.raises(PeerError, match="not signed by the key"):
        Roster.open(canonical(content), COORDINATOR.public)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b"null"])
def test_what_is_no_json_object_is_refused(text: bytes) -> None:
    with pytest.raises(PeerError, match=r"the roster is (truncated or not JSON|not a JSON object)"):
        Roster.open(text, COORDINATOR.public)


def _signed(**changes: Any) -> bytes:
    return canonical(sealed("roster", {**roster(COORDINATOR, "north").as_dict(), **changes}, COORDINATOR))


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"version": -1}, "its version is not a number from 0"),
        ({"version": True}, "its version is not a number from 0"),
        ({"version": "1"}, "its version is not a number from 0"),
        ({"extra": 1}, "its fields are not federation, version, members"),
        ({"members": 3}, "malformed"),
        ({"members": [{}]}, "the fields of a member are not"),
        ({"members": [None]}, "malformed"),
        ({"federation": "e" * 32}, "the roster is of federation e"),
    ],
)
def test_a_coordinator_that_signs_nonsense_is_refused(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(PeerError, match=sentence):
        Roster.open(_signed(**changes), COORDINATOR.public)


@pytest.mark.parametrize(
    ("key", "value"),
    [("name", "North"), ("name", "coordinator"), ("name", 3), ("public", "00"), ("public", "x"), ("since", 1.5)],
)
def test_a_member_that_can_be_none_is_refused(key: str, value: Any) -> None:
    one = roster(COORDINATOR, "north").as_dict()["members"][0]
    with pytest.raises(PeerError, match="the roster is malformed"):
        Roster.open(_signed(members=[{**one, key: value}]), COORDINATOR.public)


def test_nobody_is_in_a_roster_twice() -> None:
    north, south = member("north"), member("south")
    for twin in (north, replace(south, public=north.public), replace(south, transport=north.transport)):
        with pytest.raises(PeerError, match="two members share one"):
            Roster("f" * 32, 1, (north, twin))
    with pytest.raises(PeerError, match="not in order of their names"):
        Roster("f" * 32, 1, (south, north))


def test_changes_are_told_in_words() -> None:
    north, south, east = member("north"), member("south"), member("east")
    moved, other = replace(south, transport=member("south").transport), member("north")
    before, after = Roster("f" * 32, 1, (north, south)), Roster("f" * 32, 2, (east, other, moved))
    assert diff(before, after) == [
        f"east joined ({east.fingerprint})",
        f"north has another identity: {north.fingerprint} became {other.fingerprint}",
        "south connects with another transport key; its identity is unchanged",
    ]
    assert diff(after, before)[0] == f"east left ({east.fingerprint})"
    assert diff(before, before) == []


@pytest.mark.parametrize("name", ["a", "0", "north", "shop-7", "a" * 32])
def test_names_that_may_be(name: str) -> None:
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "-a", "North", "a_b", "a b", "a" * 33, "é", "a\n", "coordinator", "a/b"])
def test_names_that_may_not_be(name: str) -> None:
    with pytest.raises(ConfigError, match=r"a node's name (must|may not) be"):
        check_name(name)
