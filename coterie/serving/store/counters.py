"""Whole numbers that the store keeps, and the lock under which everything is written.

Every transaction that writes first takes `lock`: on PostgreSQL that is a row which one of all processes holds, on
SQLite the file's own write lock has been taken before. So what is read inside such a transaction stays true until it
ends.
"""

from __future__ import annotations

from typing import Final, Literal, TypeAlias

from sqlalchemy import Connection, select, update

from coterie.serving.store.tables import counters

Counter: TypeAlias = Literal[
    "change",  # number of the last change
    "change_floor",  # changes up to this number are no longer kept
    "deletion",  # grows with every deletion of what may be personal
    "deletion_urgent",  # its value at the last deletion whose bytes must go soon
    "deletion_scrubbed",  # its value when the bytes of what was deleted were last removed
    "spend_window",  # microseconds over which spent epsilon is summed
]

_LOCK: Final = "lock"


def lock(connection: Connection) -> None:
    """Keep every other writer out until the transaction ends."""
    if connection.dialect.name == "postgresql":
        connection.execute(select(counters.c.value).where(counters.c.name == _LOCK).with_for_update())


def count(connection: Connection, name: Counter) -> int:
    """What a counter stands at."""
    return int(connection.execute(select(counters.c.value).where(counters.c.name == name)).scalar_one())


def put(connection: Connection, name: Counter, value: int) -> None:
    """Set a counter."""
    connection.execute(update(counters).where(counters.c.name == name).values(value=value))


def add(connection: Connection, name: Counter, by: int = 1) -> int:
    """Let a counter grow, and say what it stands at then. Under `lock`, no number is given out twice."""
    value = count(connection, name) + by
    put(connection, name, value)
    return value
