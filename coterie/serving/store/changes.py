"""What changed, in the order in which it did: how the processes of a deployment follow one another's writes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, TypeAlias

from sqlalchemy import Connection, delete, insert, select

from coterie.serving.store.counters import add, count, put
from coterie.serving.store.tables import changes
from coterie.serving.words import Change

KEPT: Final = 100_000  # whoever is further behind reads everything anew, which is then not slower
KEPT_FOR: Final = 24 * 3600 * 1_000_000

Kind: TypeAlias = Literal["item", "rollout", "keys", "consent"]


def record(connection: Connection, kind: Kind, keys: Sequence[str], at: int) -> None:
    """Add a change for each key, numbered onwards from the last. Others see them when the transaction has ended."""
    if keys:
        first = add(connection, "change", len(keys)) - len(keys) + 1
        rows = [{"number": first + i, "kind": kind, "key": key, "at": at} for i, key in enumerate(keys)]
        connection.execute(insert(changes), rows)


def since(connection: Connection, number: int) -> list[Change] | None:
    """The changes after `number`, in order; None where not all of them are kept any more."""
    if not count(connection, "change_floor") <= number <= count(connection, "change"):
        return None
    asked = select(changes.c.number, changes.c.kind, changes.c.key).where(changes.c.number > number)
    return [Change(*row) for row in connection.execute(asked.order_by(changes.c.number))]


def prune(connection: Connection, at: int) -> int:
    """Forget changes of more than a day ago, and all but the last 100,000; says how many."""
    last, floor = count(connection, "change"), count(connection, "change_floor")
    old = select(changes.c.number).where(changes.c.at < at - KEPT_FOR).order_by(changes.c.number.desc()).limit(1)
    floor = max(floor, last - KEPT, int(connection.execute(old).scalar() or 0))
    put(connection, "change_floor", floor)
    return connection.execute(delete(changes).where(changes.c.number <= floor)).rowcount
