"""Organisations for the tests of who may take part: identities, members, rosters, requests to enrol."""

from __future__ import annotations

from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from coterie.federation.enrolment import Enrolment
from coterie.federation.roster import Member, Roster
from coterie.secure.keys import Identity, fingerprint


def transport_key() -> str:
    """A fresh public transport key."""
    public = ec.generate_private_key(ec.SECP384R1()).public_key()
    return public.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def member(name: str, identity: Identity | None = None, since: int = 0) -> Member:
    """A member with fresh keys."""
    return Member(name, (identity or Identity()).public, transport_key(), since)


def roster(coordinator: Identity, *names: str, version: int = 1) -> Roster:
    """A roster of members with fresh keys."""
    return Roster(fingerprint(coordinator.public), version, tuple(member(name) for name in sorted(names)))


def enrolment(name: str, token: bytes, identity: Identity | None = None, transport: str | None = None) -> Enrolment:
    """A request to enrol, with fresh keys where none are given."""
    return Enrolment(name, token, (identity or Identity()).public, transport or transport_key())


def written(path: Path, text: str) -> Path:
    """The file with this text."""
    path.write_text(text, "utf-8")
    return path
