"""A federation's coordinator: invitations, members, rosters, jobs, and the attempts at their rounds."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make the five tables. Times are microseconds since 1970 in UTC."""
    _members()
    _jobs()


def downgrade() -> None:
    """Never: it would forget who was revoked."""
    raise NotImplementedError(
        "a database is never taken back to an older version: it would forget what has been spent, and who was revoked"
    )


def _members() -> None:
    op.create_table(
        "fed_invitation",
        sa.Column("token_hash", sa.String(64), primary_key=True),
        sa.Column("member", sa.String(32), nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("expires_at", sa.BigInteger, nullable=False),
        sa.Column("used_at", sa.BigInteger),
        sa.Column("used_by", sa.String(32)),
        sa.Column("withdrawn_at", sa.BigInteger),
    )
    op.create_index("fed_invitation_member", "fed_invitation", ["member"])
    op.create_table(
        "fed_member",
        sa.Column("fingerprint", sa.String(32), primary_key=True),
        sa.Column("name", sa.String(32), nullable=False),
        sa.Column("public", sa.String(64), nullable=False),
        sa.Column("transport", sa.Text, nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("reason", sa.Text, nullable=False, server_default=""),
        sa.Column("enrolled_at", sa.BigInteger, nullable=False),
        sa.Column("approved_at", sa.BigInteger),
        sa.Column("revoked_at", sa.BigInteger),
        sa.CheckConstraint("state IN ('pending', 'approved', 'revoked')", name="fed_member_state"),
    )
    active = sa.text("state <> 'revoked'")  # a name and a key are free again once their member was revoked
    for name, column in (("fed_member_name", "name"), ("fed_member_transport", "transport")):
        op.create_index(name, "fed_member", [column], unique=True, sqlite_where=active, postgresql_where=active)
    op.create_table(
        "fed_roster",
        sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("federation", sa.String(32), nullable=False),
        sa.Column("digest", sa.String(64), nullable=False),
        sa.Column("content", sa.Text, nullable=False),
        sa.Column("made_at", sa.BigInteger, nullable=False),
    )


def _jobs() -> None:
    op.create_table(
        "fed_job",
        sa.Column("id", sa.String(100), primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("spec", sa.Text, nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("folder", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("started_at", sa.BigInteger),
        sa.Column("finished_at", sa.BigInteger),
        sa.CheckConstraint("state IN ('waiting', 'running', 'done', 'stopped', 'failed')", name="fed_job_state"),
    )
    op.create_table(
        "fed_attempt",
        sa.Column("job", sa.String(150), primary_key=True),
        sa.Column("round", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("opened_at", sa.BigInteger, nullable=False),
        sa.Column("closed_at", sa.BigInteger),
        sa.CheckConstraint("state IN ('open', 'done', 'lost')", name="fed_attempt_state"),
    )
