"""Reading and writing the rows of members, inside a transaction that the caller has begun."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, insert, select

from coterie.errors import ConfigError, EnvironmentFault, PeerError, closest
from coterie.federation.enrolment import Standing
from coterie.federation.envelope import canonical
from coterie.federation.roster import Member, Roster
from coterie.federation.tables import APPROVED, REVOKED, invitations, members, rosters


@dataclass(frozen=True, slots=True)
class MemberRecord:
    """A node that has enrolled, with where it stands and since when."""

    name: str
    fingerprint: str
    public: bytes
    transport: str
    state: Standing
    reason: str
    enrolled_at: datetime
    approved_at: datetime | None
    revoked_at: datetime | None


@dataclass(frozen=True, slots=True)
class InvitationRecord:
    """An invitation; its token is known to nobody here."""

    member: str
    created_at: datetime
    expires_at: datetime
    used_at: datetime | None
    used_by: str | None
    withdrawn_at: datetime | None

    def state(self, now: datetime) -> str:
        """One of "open", "used", "withdrawn" and "expired"."""
        if self.used_at is not None:
            return "used"
        if self.withdrawn_at is not None:
            return "withdrawn"
        return "expired" if now > self.expires_at else "open"


def alone(connection: Connection) -> None:
    """Hold the rosters until the transaction ends, so that no two changes make the same version; SQLite does anyway."""
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("LOCK TABLE fed_roster IN EXCLUSIVE MODE")


def newest(connection: Connection) -> Roster | None:
    """The roster that counts; None in a database that is nobody's yet."""
    row = connection.execute(select(rosters).order_by(rosters.c.version.desc()).limit(1)).one_or_none()
    return None if row is None else roster_of(row)


def roster_of(row: Row[Any]) -> Roster:
    """A roster as it was recorded.

    Raises:
        EnvironmentFault: the row was changed by somebody else: its digest is another.
    """
    roster = Roster.from_dict(json.loads(row.content))
    if roster.digest != row.digest:
        raise EnvironmentFault(f"roster {row.version} in the database was changed by hand; restore it from a backup")
    return roster


def next_roster(connection: Connection, now: int) -> Roster:
    """Make the roster of those who are approved now, one version up."""
    before = newest(connection)
    if before is None:
        raise EnvironmentFault("the database has no roster; restore it from a backup")
    asked = select(members).where(members.c.state == APPROVED).order_by(members.c.name)
    return record_roster(
        connection,
        Roster(before.federation, before.version + 1, tuple(_member(row) for row in connection.execute(asked))),
        now,
    )


def record_roster(connection: Connection, roster: Roster, now: int) -> Roster:
    """Write a roster down, for ever."""
    values = {
        "version": roster.version,
        "federation": roster.federation,
        "digest": roster.digest,
        "content": canonical(roster.as_dict()).decode(),
        "made_at": now,
    }
    connection.execute(insert(rosters).values(values))
    return roster


def active(connection: Connection, name: str) -> Row[Any] | None:
    """The row of whoever has this name now, pending or approved; held until the transaction ends."""
    asked = select(members).where(members.c.name == name, members.c.state != REVOKED).with_for_update()
    return connection.execute(asked).one_or_none()


def required(connection: Connection, name: str) -> Row[Any]:
    """The row of whoever has this name now.

    Raises:
        ConfigError: nobody has; names the nearest.
    """
    if (row := active(connection, name)) is None:
        names = connection.execute(select(members.c.name).where(members.c.state != REVOKED)).scalars().all()
        known = f"; enrolled: {', '.join(sorted(names))}" if names else "; nobody has enrolled yet"
        raise ConfigError(f"there is no member '{name}'{closest(name, names) or known}")
    return row


def invitation_of(connection: Connection, token_hash: str, name: str) -> Row[Any]:
    """The invitation that a token belongs to, held until the transaction ends.

    Raises:
        PeerError: there is none, or it is for another name.
    """
    asked = select(invitations).where(invitations.c.token_hash == token_hash).with_for_update()
    row = connection.execute(asked).one_or_none()
    if row is None or row.member != name:
        raise PeerError(f"'{name}': this token is not of an invitation for that name; ask the coordinator's operator")
    return row


def member_record(row: Row[Any]) -> MemberRecord:
    """A member as others see it."""
    return MemberRecord(
        row.name,
        row.fingerprint,
        bytes.fromhex(row.public),
        row.transport,
        row.state,
        row.reason,
        moment(row.enrolled_at),
        _optional(row.approved_at),
        _optional(row.revoked_at),
    )


def invitation_record(row: Row[Any]) -> InvitationRecord:
    """An invitation as others see it."""
    return InvitationRecord(
        row.member,
        moment(row.created_at),
        moment(row.expires_at),
        _optional(row.used_at),
        row.used_by,
        _optional(row.withdrawn_at),
    )


def moment(micros: int) -> datetime:
    """A time of the database."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)


def _optional(micros: int | None) -> datetime | None:
    return None if micros is None else moment(micros)


def _member(row: Row[Any]) -> Member:
    return Member(row.name, bytes.fromhex(row.public), row.transport, row.approved_at // 1_000_000)
