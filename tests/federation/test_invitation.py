"""Invitations: whole and unaltered, private, and clear about what is wrong with them."""

from __future__ import annotations

import os
import tomllib
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import tomli_w

from coterie.errors import ConfigError, DataError, PeerError
from coterie.federation import enrolment as enrolling
from coterie.federation.authority import make_authority
from coterie.federation.enrolment import Enrolment
from coterie.federation.identity import Identities
from coterie.federation.invitation import Invitation, new_token, token_hash
from coterie.secure.keys import Identity, fingerprint

COORDINATOR = Identity()
EXPIRES = datetime(2030, 1, 8, 12, 0, tzinfo=UTC)


@pytest.fixture(scope="module")
def ca(tmp_path_factory) -> str:
    return make_authority(tmp_path_factory.mktemp("ca")).read_text()


@pytest.fixture
def invitation(ca: str) -> Invitation:
    name = 'the "shops" of Zürich'
    return Invitation(name, "north", "train.example.org:9443", COORDINATOR.public, ca, new_token(), EXPIRES)


@pytest.fixture
def path(tmp_path: Path, invitation: Invitation) -> Path:
    invitation.write(tmp_path / "north.toml", COORDINATOR)
    return tmp_path / "north.toml"


def test_what_is_written_is_read(path: Path, invitation: Invitation) -> None:
    assert Invitation.read(path) == invitation
    assert invitation.fingerprint == fingerprint(COORDINATOR.public)


def test_it_explains_itself(path: Path, invitation: Invitation) -> None:
    heading = path.read_text().split("\n\n")[0]
    for told in (invitation.federation, "north", invitation.fingerprint, "2030-01-08", "coterie node join"):
        assert told in heading


@pytest.mark.skipif(os.name != "posix", reason="file modes are of POSIX")
def test_only_its_owner_may_read_it_and_none_is_written_over(path: Path, invitation: Invitation) -> None:
    assert path.stat().st_mode & 0o777 == 0o600
    before = path.read_bytes()
    with pytest.raises(ConfigError, match="exists already"):
        replace(invitation, token=new_token()).write(path, COORDINATOR)
    assert path.read_bytes() == before


def test_it_survives_what_mail_does_to_files(path: Path, invitation: Invitation) -> None:
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert Invitation.read(path) == invitation


@pytest.mark.parametrize(
    "key", ["federation", "member", "address", "coordinator", "token", "expires", "ca", "signature"]
)
def test_no_part_of_it_can_be_exchanged(path: Path, invitation: Invitation, key: str, tmp_path: Path) -> None:
    other = Identity()
    replace(
        invitation,
        federation="other",
        member="south",
        address="127.0.0.1:9443",
        coordinator=other.public,
        token=new_token(),
        expires=EXPIRES + timedelta(days=1),
        ca=invitation.ca.replace("A", "B"),
    ).write(tmp_path / "other.toml", other)
    values, changed = tomllib.loads(path.read_text()), tomllib.loads((tmp_path / "other.toml").read_text())
    values[key] = changed[key]
    if key == "coordinator":
        values["fingerprint"] = changed["fingerprint"]
    path.write_text(tomli_w.dumps(values))
    with pytest.raises(
        DataError, match=r"north\.toml: the invitation was altered or damaged on its way; ask for it again"
    ):
        Invitation.read(path)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"format": 2}, "an invitation of format 2, and this version knows 1; upgrade Coterie"),
        ({"fingerprint": "0" * 32}, "its fingerprint is not that of its coordinator"),
        ({"token": "00"}, "its key or token has another length than 32 bytes"),
        ({"token": 3}, "malformed"),
        ({"expires": "soon"}, "malformed"),
        ({"expires": "2030-01-08T12:00:00"}, "a value is of the wrong kind"),
        ({"expires": EXPIRES}, "malformed"),
        ({"address": "example.org"}, "address must be HOST:PORT"),
        ({"address": 3}, "malformed"),
        ({"member": "North"}, "a node's name must be"),
        ({"ca": 3}, "a value is of the wrong kind"),
    ],
)
def test_a_malformed_one_is_refused(path: Path, changes: dict[str, object], sentence: str) -> None:
    path.write_text(tomli_w.dumps({**tomllib.loads(path.read_text()), **changes}))
    with pytest.raises(DataError, match=sentence) as caught:
        Invitation.read(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, "no such invitation"),
        (b"", r"not a whole invitation \(format, federation, member, .* missing\)"),
        (b"dear north,", "not an invitation, or damaged"),
        (b"\xff\xfe\x00", "not an invitation, or damaged"),
    ],
)
def test_what_is_no_invitation_is_one_sentence(path: Path, content: bytes | None, sentence: str) -> None:
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(DataError, match=sentence):
        Invitation.read(path)


def test_a_truncated_one_is_refused(path: Path) -> None:
    content = path.read_bytes()
    for end in range(0, len(content) - 2, 97):
        path.write_bytes(content[:end])
        with pytest.raises(DataError):
            Invitation.read(path)


def test_it_expires(invitation: Invitation) -> None:
    invitation.check(EXPIRES)
    for zone in (UTC, timezone(timedelta(hours=-9))):
        with pytest.raises(
            DataError, match=r"north expired at 2030-01-08 12:00 UTC, .* clock says 2030-01-08 12:01; ask"
        ):
            invitation.check((EXPIRES + timedelta(minutes=1)).astimezone(zone))


def test_a_token_is_kept_as_a_hash_alone() -> None:
    token = new_token()
    assert len(token) == 32
    assert new_token() != token
    assert len(token_hash(token)) == 64
    assert token.hex() not in token_hash(token)


# --- joining with it --------------------------------------------------------------------------------------------------


def test_a_request_says_who_asks(invitation: Invitation, tmp_path: Path) -> None:
    own = Identities.open(tmp_path, create=True)
    asked = Enrolment.read(enrolling.request(invitation, own), invitation.fingerprint)
    assert asked == Enrolment("north", invitation.token, own.public, own.transport_public)
    assert asked.fingerprint == own.fingerprint


def test_nobody_enrols_a_key_that_they_do_not_hold(invitation: Invitation, tmp_path: Path) -> None:
    text = enrolling.request(invitation, Identities.open(tmp_path, create=True))
    with pytest.raises(PeerError, match="not signed by the key"):
        Enrolment.read(text.replace(b'"name":"north"', b'"name":"south"'), invitation.fingerprint)
    other = Identity().public.hex().encode()
    own = Identities.open(tmp_path).public.hex().encode()
    with pytest.raises(PeerError, match="not signed by the key"):
        Enrolment.read(text.replace(own, other), invitation.fingerprint)
    with pytest.raises(PeerError, match="asks to join another federation"):
        Enrolment.read(text, "0" * 32)


@pytest.mark.parametrize("text", [b"", b"{}", b"[]", b'{"public":"00","token":"00"}', b'{"public":3,"token":"00"}'])
def test_a_request_that_is_none_is_refused(text: bytes) -> None:
    with pytest.raises(PeerError, match=r"a node that enrols: the (request|enrolment) is"):
        Enrolment.read(text, "0" * 32)


@pytest.mark.parametrize("standing", enrolling.STANDINGS)
def test_the_answer_is_the_coordinators(invitation: Invitation, standing: enrolling.Standing) -> None:
    text = enrolling.answer("north", standing, COORDINATOR)
    assert enrolling.read_answer(text, invitation) == standing
    with pytest.raises(PeerError, match=r"coordinator at train\.example\.org:9443: .* not signed by the key"):
        enrolling.read_answer(enrolling.answer("north", standing, Identity()), invitation)
    with pytest.raises(PeerError, match="its answer is not about 'south'"):
        enrolling.read_answer(text, replace(invitation, member="south"))


def test_a_refusal_comes_with_its_reason(invitation: Invitation) -> None:
    with pytest.raises(PeerError, match=r"the coordinator at .* refuses: this invitation expired"):
        enrolling.read_answer(enrolling.refusal("this invitation expired", COORDINATOR), invitation)
