"""The coordinator's record of who may take part: invitations, members, and every roster there ever was.

    invite -> (the node enrols with the token) -> pending -> approve -> approved -> revoke -> revoked

A token is used up by one node, whatever happens at once. Approving and revoking make the next roster in the same
transaction, so a version means one list of members for ever. A revoked identity never comes back; its name may.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Row, insert, select, update
from sqlalchemy.exc import IntegrityError

from coterie.errors import ConfigError, PeerError
from coterie.federation import members_rows as rows
from coterie.federation.enrolment import Enrolment, Standing
from coterie.federation.invitation import new_token, token_hash
from coterie.federation.members_rows import InvitationRecord, MemberRecord
from coterie.federation.roster import Roster, check_name
from coterie.federation.tables import APPROVED, PENDING, REVOKED, invitations, members, rosters
from coterie.storage import Storage

__all__ = ["InvitationRecord", "MemberRecord", "Members"]

MICROSECOND = timedelta(microseconds=1)


class Members:
    """The members of one federation in a database that is its own.

    Every method raises EnvironmentFault where the database fails; nothing was changed then, or that is unknown.

    Args:
        storage: the database.
        federation: fingerprint of the coordinator's identity.
        clock: the time in seconds since 1970 UTC.

    Raises:
        ConfigError: the database is another federation's.
    """

    def __init__(self, storage: Storage, federation: str, clock: Callable[[], float] = time.time) -> None:
        self._storage, self._clock, self.federation = storage, clock, federation
        with storage.reading() as connection:
            known = rows.newest(connection)
        if known is None:
            known = self._first()
        if known.federation != federation:
            raise ConfigError(
                f"the database holds federation {known.federation} and the identity here is {federation}; restore the "
                "identity that belongs to it, or name another database"
            )

    @classmethod
    def open(cls, address: str | Path, federation: str) -> Members:
        """Open a database (a file, a URL or ``env:NAME``), which is made or brought up to date first.

        Raises:
            ConfigError, DataError, EnvironmentFault, MissingExtra: see `coterie.storage.Storage.open`.
        """
        return cls(Storage.open(address, "federation"), federation)

    def invite(self, name: str, lifetime: timedelta) -> bytes:
        """Make a token (32 bytes) with which one node may enrol under `name`; earlier ones for it are withdrawn.

        Raises:
            ConfigError: the name cannot be one, or a member has it.
        """
        check_name(name)
        token, now = new_token(), self._now()
        with self._storage.writing() as connection:
            if (row := rows.active(connection, name)) is not None:
                raise ConfigError(
                    f"'{name}' has enrolled already ({row.fingerprint}, {row.state}); choose another name, or revoke "
                    f"it first: coterie coordinator revoke {name}"
                )
            self._withdraw(connection, name, now)
            values = {"token_hash": token_hash(token), "member": name, "created_at": now}
            values["expires_at"] = now + lifetime // MICROSECOND
            connection.execute(insert(invitations).values(values))
        return token

    def withdraw(self, name: str) -> None:
        """Make the open invitation for a name worthless.

        Raises:
            ConfigError: there is none.
        """
        with self._storage.writing() as connection:
            if not self._withdraw(connection, name, self._now()):
                raise ConfigError(
                    f"there is no open invitation for '{name}'; if it was used: coterie coordinator revoke"
                )

    def enrol(self, request: Enrolment) -> Standing:
        """Take a node in, to wait for approval; the same node with the same token and keys may ask again.

        Raises:
            PeerError: the token is unknown, used, withdrawn or expired, or the keys or the name are somebody's already;
                the token is not used up then.
        """
        now = self._now()
        try:
            with self._storage.writing() as connection:
                invitation = rows.invitation_of(connection, token_hash(request.token), request.name)
                if invitation.used_at is not None:
                    return _again(connection, request, invitation)
                self._check_open(request, invitation, now)
                connection.execute(insert(members).values(_pending(request, now)))
                used = {"used_at": now, "used_by": request.fingerprint}
                mine = invitations.c.token_hash == invitation.token_hash
                connection.execute(update(invitations).where(mine).values(used))
        except IntegrityError:
            raise PeerError(
                f"'{request.name}': its identity, its transport key or its name is in use or was revoked; enrol with "
                "new keys in a new folder"
            ) from None
        return PENDING

    def approve(self, name: str, fingerprint: str | None = None) -> Roster:
        """Take a pending node into the roster; returns the new one (or the present one, if it was in already).

        Args:
            name: of the node.
            fingerprint: that its owner has told; None where that was compared before.

        Raises:
            ConfigError: there is no such node, or it has another fingerprint.
        """
        with self._storage.writing() as connection:
            rows.alone(connection)
            row = rows.required(connection, name)
            if fingerprint is not None and fingerprint != row.fingerprint:
                raise ConfigError(
                    f"'{name}' has the fingerprint {row.fingerprint}, not {fingerprint}; somebody else may have used "
                    f"its invitation: coterie coordinator revoke {name}"
                )
            if row.state == PENDING:
                self._move(connection, row, {"state": APPROVED, "approved_at": self._now()})
                return rows.next_roster(connection, self._now())
            return self._newest(connection)

    def revoke(self, name: str, reason: str = "") -> Roster:
        """Put a node out for good, pending or approved; returns the roster without it.

        Raises:
            ConfigError: there is no such node.
        """
        with self._storage.writing() as connection:
            rows.alone(connection)
            row = rows.required(connection, name)
            self._move(connection, row, {"state": REVOKED, "revoked_at": self._now(), "reason": reason})
            return rows.next_roster(connection, self._now()) if row.state == APPROVED else self._newest(connection)

    def roster(self, digest: str | None = None) -> Roster:
        """The present roster, or a former one by its digest.

        Raises:
            ConfigError: there never was one with this digest.
        """
        with self._storage.reading() as connection:
            if digest is None:
                return self._newest(connection)
            asked = select(rosters).where(rosters.c.digest == digest)
            if (row := connection.execute(asked).one_or_none()) is None:
                raise ConfigError(f"this federation never had a roster with the digest {digest}; check the database")
            return rows.roster_of(row)

    def members(self) -> tuple[MemberRecord, ...]:
        """Everybody who ever enrolled, by name and then by time."""
        asked = select(members).order_by(members.c.name, members.c.enrolled_at)
        with self._storage.reading() as connection:
            return tuple(rows.member_record(row) for row in connection.execute(asked))

    def invitations(self) -> tuple[InvitationRecord, ...]:
        """Every invitation that was made, oldest first."""
        asked = select(invitations).order_by(invitations.c.created_at, invitations.c.token_hash)
        with self._storage.reading() as connection:
            return tuple(rows.invitation_record(row) for row in connection.execute(asked))

    # --- inside a transaction ---------------------------------------------------------------------------------------

    def _first(self) -> Roster:
        """The roster that a new database begins with, unless another process has begun it meanwhile."""
        with self._storage.writing() as connection:
            rows.alone(connection)
            empty = Roster(self.federation, 0)
            return rows.newest(connection) or rows.record_roster(connection, empty, self._now())

    def _newest(self, connection: Connection) -> Roster:
        return rows.newest(connection) or Roster(self.federation, 0)

    def _withdraw(self, connection: Connection, name: str, now: int) -> int:
        """Withdraw what is open for a name; how many there were."""
        c = invitations.c
        still_open = c.member == name, c.used_at.is_(None), c.withdrawn_at.is_(None), c.expires_at > now
        return connection.execute(update(invitations).where(*still_open).values(withdrawn_at=now)).rowcount

    def _move(self, connection: Connection, row: Row[Any], values: dict[str, Any]) -> None:
        connection.execute(update(members).where(members.c.fingerprint == row.fingerprint).values(values))

    def _check_open(self, request: Enrolment, invitation: Row[Any], now: int) -> None:
        if invitation.withdrawn_at is not None:
            raise PeerError(
                f"'{request.name}': this invitation was withdrawn; ask the coordinator's operator for a new one"
            )
        if now > invitation.expires_at:
            raise PeerError(
                f"'{request.name}': this invitation expired at {rows.moment(invitation.expires_at):%Y-%m-%d %H:%M} "
                "UTC; ask the coordinator's operator for a new one"
            )

    def _now(self) -> int:
        return int(self._clock() * 1_000_000)


def _again(connection: Connection, request: Enrolment, invitation: Row[Any]) -> Standing:
    """Where a node stands that asks again with a token that was used: if it was the one who used it.

    Raises:
        PeerError: it was another one.
    """
    asked = select(members).where(members.c.fingerprint == request.fingerprint)
    row = connection.execute(asked).one_or_none()
    if row is None or invitation.used_by != request.fingerprint or row.transport != request.transport:
        raise PeerError(
            f"'{request.name}': this invitation was used already, by other keys; if that was not you, tell the "
            "coordinator's operator, who should revoke them and invite you again"
        )
    return rows.member_record(row).state


def _pending(request: Enrolment, now: int) -> dict[str, Any]:
    return {
        "fingerprint": request.fingerprint,
        "name": request.name,
        "public": request.public.hex(),
        "transport": request.transport,
        "state": PENDING,
        "enrolled_at": now,
    }
