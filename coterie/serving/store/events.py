"""What happened in the shop: a row for each line of an event, written once by its id, read back in bounded memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from typing import Any, Final

import polars as pl
from sqlalchemy import Connection, insert, select

from coterie.errors import DataError
from coterie.serving.store.people import People
from coterie.serving.store.statements import chunks, storable
from coterie.serving.store.tables import events
from coterie.serving.words import Event, EventReceipt

ROWS: Final = 20_000  # of a frame: some megabytes
LINES: Final = 20_000  # of a user's history that are looked at

FRAME: Final[dict[str, type[pl.DataType]]] = {
    "event": pl.String,
    "line": pl.Int64,
    "kind": pl.String,
    "time": pl.Int64,  # microseconds since 1970 in UTC
    "user": pl.String,
    "basket": pl.String,
    "recommendation": pl.String,
    "value": pl.Float64,
    "item": pl.String,
    "quantity": pl.Float64,
    "price": pl.Float64,
    "position": pl.Int64,
}

_READ = [events.c["event_id" if name == "event" else "user_id" if name == "user" else name] for name in FRAME]
_PAST = ("purchase", "rating")


def check(batch: Sequence[Event]) -> None:
    """Refuse events that cannot be stored, before any of the batch is.

    Raises:
        DataError: an event without a line, or a character that databases do not hold.
    """
    for event in batch:
        storable(event.id, "event")
        if not event.lines:
            raise DataError(f"event '{event.id}' names no item; give it at least one")
        for name in ("user", "basket", "recommendation"):
            storable(getattr(event, name), f"event '{event.id}': {name}")
        for line in event.lines:
            storable(line.item, f"event '{event.id}': item")


def write(connection: Connection, people: People, batches: Sequence[Sequence[Event]], at: int) -> list[EventReceipt]:
    """Insert what is new of whom may be stored, with one statement for all batches; says what became of each."""
    known = _known(connection, [event.id for batch in batches for event in batch])
    allowed = people.stored(connection, [event.user for batch in batches for event in batch if event.user is not None])
    rows: list[dict[str, Any]] = []
    receipts = []
    for batch in batches:
        fate: Counter[str] = Counter()
        for event in batch:
            if event.user is not None and event.user not in allowed:
                fate["declined"] += 1
            elif event.id in known:
                fate["duplicates"] += 1
            else:
                fate["stored"] += 1
                known.add(event.id)
                rows.extend(_rows(event, at))
        receipts.append(EventReceipt(**fate))
    if rows:
        connection.execute(insert(events), rows)
    return receipts


def past(connection: Connection, user: str, limit: int) -> list[tuple[str, ...]]:
    """The last baskets of a user, oldest first: purchases and ratings by basket, without one by day (UTC)."""
    asked = select(events.c.basket, events.c.time, events.c.item).where(
        events.c.user_id == user, events.c.kind.in_(_PAST)
    )
    newest = asked.order_by(events.c.time.desc(), events.c.id.desc()).limit(LINES)
    baskets: dict[tuple[str, str], dict[str, None]] = {}
    for basket, time, item in connection.execute(newest):
        key = ("day", str(time // 86_400_000_000)) if basket is None else ("basket", basket)
        if key not in baskets and len(baskets) >= limit:
            break
        baskets.setdefault(key, {})[item] = None
    return [tuple(reversed(basket)) for basket in reversed(baskets.values())]


def frames(
    reading: Callable[[], AbstractContextManager[Connection]], people: People, since: int | None
) -> Iterator[pl.DataFrame]:
    """Frames of at most 20,000 rows (see `FRAME`), in the order of writing, each read in a transaction of its own.

    So that whoever reads slowly keeps nobody from writing; what is written meanwhile comes last.
    """
    last = -1
    while True:
        asked = select(events.c.id, *_READ).where(events.c.id > last).order_by(events.c.id).limit(ROWS)
        with reading() as connection:
            rows = connection.execute(asked if since is None else asked.where(events.c.time >= since)).all()
            users = {row.user_id for row in rows if row.user_id is not None}
            refused = users - people.stored(connection, users)
        if not rows:
            return
        last = rows[-1].id
        if used := [tuple(row)[1:] for row in rows if row.user_id not in refused]:
            yield pl.DataFrame(used, schema=FRAME, orient="row")


def iso(time: int) -> str:
    """ISO 8601 with its offset, as in the API.

    >>> iso(1_700_000_000_000_001)
    '2023-11-14T22:13:20.000001+00:00'
    """
    return datetime.fromtimestamp(time // 1_000_000, UTC).replace(microsecond=time % 1_000_000).isoformat()


def _known(connection: Connection, ids: Sequence[str]) -> set[str]:
    found: set[str] = set()
    for part in chunks(dict.fromkeys(ids)):
        asked = select(events.c.event_id).where(events.c.event_id.in_(part), events.c.line == 0)
        found.update(connection.execute(asked).scalars())
    return found


def _rows(event: Event, at: int) -> Iterator[dict[str, Any]]:
    for number, line in enumerate(event.lines):
        yield {
            "event_id": event.id,
            "line": number,
            "kind": event.kind,
            "time": event.time,
            "held_from": min(event.time, at),
            "user_id": event.user,
            "basket": event.basket,
            "recommendation": event.recommendation,
            "value": event.value,
            "item": line.item,
            "quantity": line.quantity,
            "price": line.price,
            "position": line.position,
        }
