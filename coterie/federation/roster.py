"""Who is in a federation: a list of members that the coordinator signs, and that every node approves for itself.

A roster proves what the coordinator said, not who the members are: a coordinator could enrol puppets of its own. Nodes
therefore count only members whose identity they have pinned (`coterie.federation.policy`), and ask a person about every
other change.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from coterie.errors import ConfigError, PeerError
from coterie.federation.envelope import canonical
from coterie.federation.sealed import opened, parsed, sealed
from coterie.secure.keys import PUBLIC_BYTES, Identity, fingerprint, sha256

COORDINATOR = "coordinator"  # what the coordinator is called in messages; no member may be
_NAME = re.compile(r"[a-z0-9][a-z0-9-]{0,31}")
_KIND = "roster"
_FIELDS = ("federation", "version", "members")
_MEMBER_FIELDS = ("name", "public", "transport", "since")


@dataclass(frozen=True, slots=True)
class Member:
    """One organisation.

    Args:
        name: what the coordinator calls it; lower-case letters, digits and dashes.
        public: its Ed25519 identity, 32 bytes.
        transport: the key that may open a connection, as an OpenSSH line ("ecdsa-sha2-nistp384 AAAA...").
        since: when it was approved, in whole seconds since 1970 UTC.
    """

    name: str
    public: bytes
    transport: str
    since: int

    @property
    def fingerprint(self) -> str:
        """What is pinned of its identity: 32 hexadecimal characters."""
        return fingerprint(self.public)

    def __str__(self) -> str:
        return f"{self.name} ({self.fingerprint})"


@dataclass(frozen=True)
class Roster:
    """The members of a federation, by name. `version` grows by one with every change.

    Args:
        federation: fingerprint of the coordinator's identity.
        version: from 0, which has no members.
        members: in order of their names.

    Raises:
        PeerError: two members share a name, an identity or a transport key, or are not in order.
    """

    federation: str
    version: int
    members: tuple[Member, ...] = ()

    def __post_init__(self) -> None:
        names = [one.name for one in self.members]
        if names != sorted(names):
            raise PeerError(f"roster {self.version}: its members are not in order of their names; have it sent again")
        for what in ("name", "public", "transport"):
            if len({getattr(one, what) for one in self.members}) < len(self.members):
                raise PeerError(f"roster {self.version}: two members share one {what}; the coordinator must remove one")

    def __len__(self) -> int:
        return len(self.members)

    @property
    def names(self) -> tuple[str, ...]:
        """The members' names, in order."""
        return tuple(one.name for one in self.members)

    @property
    def publics(self) -> dict[str, bytes]:
        """The members' identities by name."""
        return {one.name: one.public for one in self.members}

    @property
    def digest(self) -> str:
        """SHA-256 of its canonical text, in hexadecimal: what is approved."""
        return sha256(canonical(self.as_dict())).hex()

    def member(self, name: str) -> Member:
        """The member of this name.

        Raises:
            PeerError: there is none.
        """
        for one in self.members:
            if one.name == name:
                return one
        raise PeerError(f"'{name}' is not in roster {self.version}: {', '.join(self.names) or 'nobody is'}")

    def seal(self, identity: Identity) -> bytes:
        """The signed roster as canonical JSON.

        Raises:
            ConfigError: the identity is not that of this federation's coordinator.
        """
        if fingerprint(identity.public) != self.federation:
            raise ConfigError(
                f"roster of federation {self.federation}: the identity here is {fingerprint(identity.public)}; restore "
                "the coordinator's own identity.pem"
            )
        return canonical(sealed(_KIND, self.as_dict(), identity))

    @classmethod
    def open(cls, text: bytes, public: bytes, source: str = COORDINATOR) -> Roster:
        """Read a signed roster.

        Args:
            text: as `seal` made it.
            public: the coordinator's identity, as it is pinned.
            source: who sent it, for messages.

        Raises:
            PeerError: not signed by that identity, of another federation, or malformed.
        """
        content = opened(_KIND, parsed(_KIND, text, source), public, source)
        try:
            roster = cls.from_dict(content)
        except (KeyError, TypeError, ValueError, ConfigError) as error:
            raise PeerError(f"{source}: the roster is malformed ({error}); upgrade whichever side is older") from None
        if roster.federation != fingerprint(public):
            raise PeerError(f"{source}: the roster is of federation {roster.federation}, not {fingerprint(public)}")
        return roster

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Roster:
        """What `as_dict` gave. Other fields are refused, since they would not be part of what is approved.

        Raises:
            KeyError, TypeError, ValueError, ConfigError, PeerError: it is no roster.
        """
        if set(content) != set(_FIELDS):
            raise ValueError(f"its fields are not {', '.join(_FIELDS)}")
        if type(content["version"]) is not int or content["version"] < 0:
            raise ValueError("its version is not a number from 0")
        return cls(str(content["federation"]), content["version"], tuple(_member(one) for one in content["members"]))

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        members = [
            {"name": one.name, "public": one.public.hex(), "transport": one.transport, "since": one.since}
            for one in self.members
        ]
        return {"federation": self.federation, "version": self.version, "members": members}


def check_name(name: str, what: str = "a node's name") -> str:
    """The name of a member, or of something else that is named like one.

    Raises:
        ConfigError: it has other characters than lower-case letters, digits and dashes, is too long or reserved.
    """
    if name == COORDINATOR:
        raise ConfigError(f"{what} may not be '{COORDINATOR}', which is what the coordinator is called; choose another")
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"{what} must be 1 to 32 lower-case letters, digits and dashes, and begin with a letter or digit, got "
            f"{name!r}"
        )
    return name


def diff(old: Roster | None, new: Roster) -> list[str]:
    """What changed between two rosters, in words; without an old one everybody has joined.

    >>> one = Member("north", bytes(32), "ecdsa-sha2-nistp384 AAAA", 0)
    >>> diff(None, Roster("f", 1, (one,)))
    ['north joined (66687aadf862bd776c8fc18b8e9f8e20)']
    >>> diff(Roster("f", 1, (one,)), Roster("f", 2))
    ['north left (66687aadf862bd776c8fc18b8e9f8e20)']
    """
    before = {} if old is None else {one.name: one for one in old.members}
    after = {one.name: one for one in new.members}
    changes: list[str] = []
    for name in sorted(before.keys() | after.keys()):
        if name not in after:
            changes.append(f"{name} left ({before[name].fingerprint})")
        elif name not in before:
            changes.append(f"{name} joined ({after[name].fingerprint})")
        elif before[name].public != after[name].public:
            changes.append(f"{name} has another identity: {before[name].fingerprint} became {after[name].fingerprint}")
        elif before[name].transport != after[name].transport:
            changes.append(f"{name} connects with another transport key; its identity is unchanged")
    return changes


def _member(content: Mapping[str, Any]) -> Member:
    if set(content) != set(_MEMBER_FIELDS) or type(content["since"]) is not int:
        raise ValueError(f"the fields of a member are not {', '.join(_MEMBER_FIELDS)}")
    public = bytes.fromhex(content["public"])
    if len(public) != PUBLIC_BYTES:
        raise ValueError("a member's identity is not 32 bytes")
    return Member(check_name(content["name"]), public, str(content["transport"]), content["since"])
