"""The tables of members as the code sees them; `coterie.migrations` makes them, and those of jobs besides.

Times are microseconds since 1970 in UTC. Nothing of a member is ever deleted: who was in which roster stays known.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    text,
)

PENDING: Final = "pending"
APPROVED: Final = "approved"
REVOKED: Final = "revoked"

metadata = MetaData()

invitations = Table(
    "fed_invitation",
    metadata,
    Column("token_hash", String(64), primary_key=True),
    Column("member", String(32), nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("expires_at", BigInteger, nullable=False),
    Column("used_at", BigInteger),
    Column("used_by", String(32)),  # fingerprint of who used it
    Column("withdrawn_at", BigInteger),
    Index("fed_invitation_member", "member"),
)

members = Table(
    "fed_member",
    metadata,
    Column("fingerprint", String(32), primary_key=True),
    Column("name", String(32), nullable=False),
    Column("public", String(64), nullable=False),
    Column("transport", Text, nullable=False),
    Column("state", String(10), nullable=False),
    Column("reason", Text, nullable=False, server_default=""),
    Column("enrolled_at", BigInteger, nullable=False),
    Column("approved_at", BigInteger),
    Column("revoked_at", BigInteger),
    CheckConstraint("state IN ('pending', 'approved', 'revoked')", name="fed_member_state"),
)

_ACTIVE = text("state <> 'revoked'")
Index("fed_member_name", members.c.name, unique=True, sqlite_where=_ACTIVE, postgresql_where=_ACTIVE)
Index("fed_member_transport", members.c.transport, unique=True, sqlite_where=_ACTIVE, postgresql_where=_ACTIVE)

rosters = Table(
    "fed_roster",
    metadata,
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("federation", String(32), nullable=False),
    Column("digest", String(64), nullable=False),
    Column("content", Text, nullable=False),  # canonical JSON of the members
    Column("made_at", BigInteger, nullable=False),
)
