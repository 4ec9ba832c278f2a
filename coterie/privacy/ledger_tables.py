"""The tables of the ledger as the code sees them; `coterie.migrations` makes them.

A charge is ``reserved``, then ``spent`` (for good) or ``returned``. Times are microseconds since 1970 in UTC.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)

RESERVED: Final = "reserved"
SPENT: Final = "spent"
RETURNED: Final = "returned"
COUNTED: Final = (RESERVED, SPENT)  # what has not provably stayed at home counts
LONGEST_NAME: Final = 100

metadata = MetaData()

accounts = Table(
    "ledger_account",
    metadata,
    Column("name", String(LONGEST_NAME), primary_key=True),
    Column("delta", Float, nullable=False),
    Column("epsilon_limit", Float),  # null: none
    Column("period_epsilon", Float),
    Column("period_days", Float),
    Column("opened_at", BigInteger, nullable=False),
)

charges = Table(
    "ledger_charge",
    metadata,
    Column("id", String(32), primary_key=True),
    Column("account", String(LONGEST_NAME), ForeignKey("ledger_account.name"), nullable=False),
    Column("run", Text, nullable=False),
    Column("job", Text, nullable=False),
    Column("round", Integer, nullable=False),
    Column("attempt", Integer, nullable=False),
    Column("model", Text, nullable=False),
    Column("events", Text, nullable=False),  # canonical JSON: equal charges have equal text
    Column("fingerprint", Text, nullable=False),
    Column("state", String(10), nullable=False),
    Column("owner", Text, nullable=False),  # the process that reserved it, then the one that spent it
    Column("reserved_at", BigInteger, nullable=False),
    Column("lapses_at", BigInteger, nullable=False),
    Column("spent_at", BigInteger),
    Column("returned_at", BigInteger),
    Column("reason", Text, nullable=False),
    UniqueConstraint("account", "run", "job", "round", "attempt", name="ledger_charge_once"),
    CheckConstraint("state IN ('reserved', 'spent', 'returned')", name="ledger_charge_state"),
    Index("ledger_charge_counted", "account", "state"),
)
