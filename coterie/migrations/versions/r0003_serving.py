"""A deployment's store: items, events, consent, receipts of erasures, keys, versions, and what answers spent."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")  # SQLite numbers rows only in an INTEGER PRIMARY KEY
_COUNTERS = ("lock", "change", "change_floor", "deletion", "deletion_urgent", "deletion_scrubbed", "spend_window")


def upgrade() -> None:
    """Make the eleven tables. Times are microseconds since 1970 in UTC."""
    _base()
    _items()
    _events()
    _people()
    _models()


def downgrade() -> None:
    """Never: it would forget who has objected."""
    raise NotImplementedError(
        "a database is never taken back to an older version: it would forget what has been spent, and who has objected"
    )


def _base() -> None:
    counters = op.create_table(
        "serve_counter",
        sa.Column("name", sa.String(30), primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(counters, [{"name": name, "value": 0} for name in _COUNTERS])
    op.create_table(
        "serve_secret",
        sa.Column("name", sa.String(30), primary_key=True),
        sa.Column("value", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "serve_change",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String(10), nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
    )


def _items() -> None:
    op.create_table(
        "serve_item",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("title", sa.Text),
        sa.Column("url", sa.Text),
        sa.Column("image", sa.Text),
        sa.Column("price", sa.Float),
        sa.Column("currency", sa.Text),
        sa.Column("stock", sa.BigInteger),
        sa.Column("language", sa.Text),
        sa.Column("group", sa.Text),
        sa.Column("attributes", sa.Text, nullable=False),
        sa.Column("updated_at", sa.BigInteger, nullable=False),
        sa.Column("deleted", sa.Boolean, nullable=False),
    )


def _events() -> None:
    op.create_table(
        "serve_event",
        sa.Column("id", _NUMBER, primary_key=True),
        sa.Column("event_id", sa.Text, nullable=False),
        sa.Column("line", sa.Integer, nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("held_from", sa.BigInteger, nullable=False),
        sa.Column("user_id", sa.Text),
        sa.Column("basket", sa.Text),
        sa.Column("recommendation", sa.Text),
        sa.Column("value", sa.Float),
        sa.Column("item", sa.Text, nullable=False),
        sa.Column("quantity", sa.Float),
        sa.Column("price", sa.Float),
        sa.Column("position", sa.Integer),
        sa.UniqueConstraint("event_id", "line", name="serve_event_once"),
    )
    guests, users = sa.text("user_id IS NULL"), sa.text("user_id IS NOT NULL")
    for name, columns, where in (
        ("serve_event_user", ["user_id", "time"], users),
        ("serve_event_users_age", ["held_from"], users),
        ("serve_event_guests_age", ["held_from"], guests),
        ("serve_event_guests_basket", ["basket"], guests),
    ):
        op.create_index(name, "serve_event", columns, sqlite_where=where, postgresql_where=where)


def _people() -> None:
    op.create_table(
        "serve_consent",
        sa.Column("user_hash", sa.String(64), primary_key=True),
        sa.Column("allowed", sa.Boolean, nullable=False),
        sa.Column("changed_at", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "serve_erasure",
        sa.Column("id", sa.String(32), primary_key=True),
        sa.Column("time", sa.BigInteger, nullable=False),
        sa.Column("erased", sa.Text, nullable=False),
        sa.Column("proof", sa.String(64), nullable=False),
        sa.Column("note", sa.Text, nullable=False),
    )
    op.create_table(
        "serve_spend",
        sa.Column("id", _NUMBER, primary_key=True),
        sa.Column("user_hash", sa.String(64), nullable=False),
        sa.Column("epsilon", sa.Float, nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
    )
    op.create_index("serve_spend_user", "serve_spend", ["user_hash", "at"])
    op.create_index("serve_spend_age", "serve_spend", ["at"])


def _models() -> None:
    op.create_table(
        "serve_key",
        sa.Column("id", sa.String(100), primary_key=True),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("publishable", sa.Boolean, nullable=False),
        sa.Column("scopes", sa.Text, nullable=False),
        sa.Column("origins", sa.Text, nullable=False),
        sa.Column("created_at", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.Text, nullable=False),
        sa.Column("expires_at", sa.BigInteger),
        sa.Column("revoked_at", sa.BigInteger),
    )
    op.create_table(
        "serve_version",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("run", sa.Text, nullable=False),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("model", sa.Text, nullable=False),
        sa.Column("signed_at", sa.BigInteger),
        sa.Column("loaded_at", sa.BigInteger, nullable=False),
        sa.Column("allowed", sa.Text, nullable=False),
        sa.UniqueConstraint("run", "fingerprint", name="serve_version_once"),
    )
    op.create_table(
        "serve_rollout",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("champion", sa.Integer, sa.ForeignKey("serve_version.id"), nullable=False),
        sa.Column("challenger", sa.Integer, sa.ForeignKey("serve_version.id")),
        sa.Column("share", sa.Float, nullable=False),
        sa.Column("previous", sa.Integer, sa.ForeignKey("serve_version.id")),
        sa.Column("changed_at", sa.BigInteger, nullable=False),
    )
