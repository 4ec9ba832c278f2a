"""The tables of a deployment's store as the code sees them; `coterie.migrations` makes them.

Times are microseconds since 1970 in UTC. A user's id stands in ``serve_event`` alone; everywhere else a user is a
keyed hash.
"""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

metadata = MetaData()

_NUMBER = BigInteger().with_variant(Integer, "sqlite")

counters = Table(
    "serve_counter",
    metadata,
    Column("name", String(30), primary_key=True),  # see `coterie.serving.store.counters`
    Column("value", BigInteger, nullable=False),
)

secrets = Table(
    "serve_secret",
    metadata,
    Column("name", String(30), primary_key=True),
    Column("value", LargeBinary, nullable=False),
)

changes = Table(
    "serve_change",
    metadata,
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("kind", String(10), nullable=False),
    Column("key", Text, nullable=False),
    Column("at", BigInteger, nullable=False),
)

items = Table(
    "serve_item",
    metadata,
    Column("id", Text, primary_key=True),
    Column("title", Text),
    Column("url", Text),
    Column("image", Text),
    Column("price", Float),
    Column("currency", Text),
    Column("stock", BigInteger),
    Column("language", Text),
    Column("group", Text),
    Column("attributes", Text, nullable=False),  # JSON
    Column("updated_at", BigInteger, nullable=False),
    Column("deleted", Boolean, nullable=False),  # a tombstone: the model may know it still
)

events = Table(
    "serve_event",
    metadata,
    Column("id", _NUMBER, primary_key=True),  # in the order in which they were written
    Column("event_id", Text, nullable=False),
    Column("line", Integer, nullable=False),  # one row for each article of an event, from 0
    Column("kind", String(20), nullable=False),
    Column("time", BigInteger, nullable=False),
    Column("held_from", BigInteger, nullable=False),  # when it happened or arrived, the earlier: retention counts here
    Column("user_id", Text),  # null: a guest
    Column("basket", Text),
    Column("recommendation", Text),
    Column("value", Float),
    Column("item", Text, nullable=False),
    Column("quantity", Float),
    Column("price", Float),
    Column("position", Integer),
    UniqueConstraint("event_id", "line", name="serve_event_once"),
)

_GUESTS = events.c.user_id.is_(None)
_USERS = events.c.user_id.is_not(None)
Index("serve_event_user", events.c.user_id, events.c.time, sqlite_where=_USERS, postgresql_where=_USERS)
Index("serve_event_users_age", events.c.held_from, sqlite_where=_USERS, postgresql_where=_USERS)
Index("serve_event_guests_age", events.c.held_from, sqlite_where=_GUESTS, postgresql_where=_GUESTS)
Index("serve_event_guests_basket", events.c.basket, sqlite_where=_GUESTS, postgresql_where=_GUESTS)

consents = Table(
    "serve_consent",
    metadata,
    Column("user_hash", String(64), primary_key=True),
    Column("allowed", Boolean, nullable=False),
    Column("changed_at", BigInteger, nullable=False),
)

erasures = Table(
    "serve_erasure",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("time", BigInteger, nullable=False),
    Column("erased", Text, nullable=False),  # JSON: rows by kind of record
    Column("proof", String(64), nullable=False),
    Column("note", Text, nullable=False),
)

spends = Table(
    "serve_spend",
    metadata,
    Column("id", _NUMBER, primary_key=True),
    Column("user_hash", String(64), nullable=False),
    Column("epsilon", Float, nullable=False),
    Column("at", BigInteger, nullable=False),
    Index("serve_spend_user", "user_hash", "at"),
    Index("serve_spend_age", "at"),
)

keys = Table(
    "serve_key",
    metadata,
    Column("id", String(100), primary_key=True),
    Column("name", Text, nullable=False),
    Column("publishable", Boolean, nullable=False),
    Column("scopes", Text, nullable=False),  # JSON, as are origins
    Column("origins", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("hash", Text, nullable=False),
    Column("expires_at", BigInteger),
    Column("revoked_at", BigInteger),
)

versions = Table(
    "serve_version",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("run", Text, nullable=False),
    Column("fingerprint", String(64), nullable=False),
    Column("model", Text, nullable=False),
    Column("signed_at", BigInteger),
    Column("loaded_at", BigInteger, nullable=False),
    Column("allowed", Text, nullable=False),  # JSON
    UniqueConstraint("run", "fingerprint", name="serve_version_once"),
)

rollouts = Table(
    "serve_rollout",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),  # 1: there is one roll-out
    Column("champion", Integer, ForeignKey("serve_version.id"), nullable=False),
    Column("challenger", Integer, ForeignKey("serve_version.id")),
    Column("share", Float, nullable=False),
    Column("previous", Integer, ForeignKey("serve_version.id")),
    Column("changed_at", BigInteger, nullable=False),
)
