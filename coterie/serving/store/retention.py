"""What is old goes, some thousand rows at a time, so that nobody who writes waits long."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, TypeAlias

from sqlalchemy import ColumnElement, Connection, delete, select

from coterie.serving.config import StoreSettings
from coterie.serving.store import changes, counters, spends
from coterie.serving.store.tables import erasures, events

DAY: Final = 86_400_000_000
AT_ONCE: Final = 2_000  # rows of one transaction

Step: TypeAlias = Callable[[Connection], int]


def steps(settings: StoreSettings, now: int) -> Iterator[tuple[str, Step, bool]]:
    """Kind of record, what deletes some of it and says how many rows, and whether to call that until there are none."""
    for kind, days, which in (
        ("events", settings.events_days, events.c.user_id.is_not(None)),
        ("guest_events", settings.guest_events_days, events.c.user_id.is_(None)),
    ):
        if days is not None:
            yield kind, _old_events(which, now - days * DAY), True
    if (days := settings.receipts_days) is not None:
        before = now - days * DAY
        yield "receipts", lambda connection: _old_receipts(connection, before), False
    yield "spends", lambda connection: spends.prune(connection, now), False
    yield "changes", lambda connection: changes.prune(connection, now), False


def _old_events(which: ColumnElement[bool], before: int) -> Step:
    old = select(events.c.id).where(which, events.c.held_from < before).limit(AT_ONCE)

    def some(connection: Connection) -> int:
        gone = connection.execute(delete(events).where(events.c.id.in_(old))).rowcount
        if gone:
            counters.add(connection, "deletion")
        return gone

    return some


def _old_receipts(connection: Connection, before: int) -> int:
    return connection.execute(delete(erasures).where(erasures.c.time < before)).rowcount
