"""The privacy ledger: accounts, and what was charged to them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Make both tables. Times are microseconds since 1970 in UTC: the same whole number in every database."""
    op.create_table(
        "ledger_account",
        sa.Column("name", sa.String(100), primary_key=True),
        sa.Column("delta", sa.Float, nullable=False),
        sa.Column("epsilon_limit", sa.Float),
        sa.Column("period_epsilon", sa.Float),
        sa.Column("period_days", sa.Float),
        sa.Column("opened_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "ledger_charge",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("account", sa.String(100), sa.ForeignKey("ledger_account.name"), nullable=False),
        sa.Column("run", sa.Text, nullable=False),
        sa.Column("job", sa.Text, nullable=False),
        sa.Column("round", sa.Integer, nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("events", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.Text, nullable=False),
        sa.Column("state", sa.String(10), nullable=False),
        sa.Column("owner", sa.Text, nullable=False),
        sa.Column("reserved_at", sa.BigInteger, nullable=False),
        sa.Column("lapses_at", sa.BigInteger, nullable=False),
        sa.Column("spent_at", sa.BigInteger),
        sa.Column("returned_at", sa.BigInteger),
        sa.Column("reason", sa.Text, nullable=False),
        sa.UniqueConstraint("account", "run", "job", "round", "attempt", name="ledger_charge_once"),
        sa.CheckConstraint("state IN ('reserved', 'spent', 'returned')", name="ledger_charge_state"),
    )
    op.create_index("ledger_charge_counted", "ledger_charge", ["account", "state"])


def downgrade() -> None:
    """Never: it would forget what has been spent."""
    raise NotImplementedError("a ledger is never taken back to an older version: it would forget what has been spent")
