"""Everything of one user: taken out, handed out, and proof that it is gone.

What a database deletes it does not wipe: SQLite's ``secure_delete`` zeroes a deleted row, but copies of it may lie in
the unused space of pages that rows have moved out of. So that nothing stays, the file is written anew (VACUUM) after an
erasure, and its write-ahead log emptied. Several erasures that wait share that.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, delete, func, insert, select

from coterie.errors import EnvironmentFault
from coterie.serving.store import counters
from coterie.serving.store.events import iso
from coterie.serving.store.people import People
from coterie.serving.store.tables import erasures, events, spends
from coterie.serving.words import ErasureReceipt
from coterie.storage import Storage

_NOTE = (
    "Not reached: models trained before from these events (train again to leave them out), files that were exported, "
    "backups of the store."
)
_SQLITE_NOTE = " The file was written anew; what the file system or the disk keep of old blocks is theirs."
_POSTGRES_NOTE = (
    " The rows are deleted and vacuumed; the server's write-ahead log, archives and replicas, and the free space of "
    "its files, keep their bytes until these are reused or recycled (VACUUM FULL serve_event frees the space at once)."
)
_OBJECTION_NOTE = (
    " That this user objects to being stored is kept, under a keyed hash, so that it goes on being heeded."
)


def remove_events(connection: Connection, user: str) -> dict[str, int]:
    """Delete the user's events, and a guest's that share a basket with them; says how many events of each."""
    mine = events.c.user_id == user
    baskets = select(events.c.basket).where(mine, events.c.basket.is_not(None))
    as_guest = and_(events.c.user_id.is_(None), events.c.basket.in_(baskets))
    gone = {"guest_events": _delete_events(connection, as_guest), "events": _delete_events(connection, mine)}
    if any(gone.values()):
        counters.put(connection, "deletion_urgent", counters.add(connection, "deletion"))
    return gone


def remove_all(connection: Connection, people: People, user: str, at: int) -> dict[str, int]:
    """Delete everything of a user but an objection; says how many of each kind."""
    gone = remove_events(connection, user)
    mine = spends.c.user_hash == people.hashed(user)
    gone["spent_answers"] = connection.execute(delete(spends).where(mine)).rowcount
    gone["consent"] = people.forget_consent(connection, user, at)
    return gone


def scrub(storage: Storage, urgent: bool = False) -> None:
    """Remove the bytes of what was deleted, where that has not been done; with `urgent`, where it must be done soon.

    SQLite needs free space of twice its file meanwhile, and keeps writers waiting, not readers.

    Raises:
        EnvironmentFault: no space, or somebody reads the store without end; what was deleted stays deleted.
    """
    with storage.reading() as connection:
        deleted = counters.count(connection, "deletion")
        due = counters.count(connection, "deletion_urgent") if urgent else deleted
        if due <= counters.count(connection, "deletion_scrubbed"):
            return
    with storage.apart() as connection:
        if storage.backend == "sqlite":
            connection.exec_driver_sql("VACUUM")
            _empty_log(connection)
        else:
            for table in (events, spends):
                connection.exec_driver_sql(f"VACUUM {table.name}")
    with storage.writing() as connection:
        counters.lock(connection)
        if counters.count(connection, "deletion_scrubbed") < deleted:
            counters.put(connection, "deletion_scrubbed", deleted)


def prove(storage: Storage, people: People, user: str, erased: dict[str, int], at: int) -> ErasureReceipt:
    """Write down that a user was erased, in words from which nobody learns who that was without the receipt."""
    salt = secrets.token_hex(16)
    proof = hashlib.sha256(salt.encode() + user.encode("utf-8", "surrogatepass")).hexdigest()
    with storage.writing() as connection:
        counters.lock(connection)
        note = _NOTE + (_SQLITE_NOTE if storage.backend == "sqlite" else _POSTGRES_NOTE)
        note += _OBJECTION_NOTE if people.consent(connection, user) is False else ""
        receipt = ErasureReceipt(secrets.token_hex(16), at, erased, proof, note, user, salt)
        row = {"id": receipt.id, "time": at, "erased": json.dumps(erased), "proof": proof, "note": note}
        connection.execute(insert(erasures).values(**row))
    return receipt


def receipts(connection: Connection) -> list[ErasureReceipt]:
    """All receipts that are kept, oldest first, without user and salt."""
    rows = connection.execute(select(erasures).order_by(erasures.c.time, erasures.c.id))
    return [ErasureReceipt(**{**row, "erased": json.loads(row["erased"])}) for row in rows.mappings()]


def export(connection: Connection, people: People, user: str, at: int) -> dict[str, Any]:
    """Everything that is held of a user, as JSON values; events are in the form in which the API takes them."""
    asked = select(events).where(events.c.user_id == user).order_by(events.c.time, events.c.id)
    found: dict[str, dict[str, Any]] = {}
    for row in connection.execute(asked).mappings():
        event = found.setdefault(row["event_id"], _event(row))
        line = {name: row[name] for name in ("item", "quantity", "price", "position")}
        event["items"].append({name: value for name, value in line.items() if value is not None})
    mine = spends.c.user_hash == people.hashed(user)
    answers, epsilon = connection.execute(select(func.count(), func.sum(spends.c.epsilon)).where(mine)).one()
    return {
        "user": user,
        "exported_at": iso(at),
        "consent": people.consent(connection, user),
        "events": list(found.values()),
        "other": {"noisy_answers": {"answers": int(answers), "epsilon": float(epsilon or 0.0)}} if answers else {},
    }


def _delete_events(connection: Connection, which: ColumnElement[bool]) -> int:
    number = connection.execute(select(func.count()).select_from(events).where(which, events.c.line == 0)).scalar_one()
    connection.execute(delete(events).where(which))
    return int(number)


def _empty_log(connection: Connection) -> None:
    """SQLite waits for readers of the log itself, for as long as for a lock."""
    row = connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)").one()
    if row[0]:
        raise EnvironmentFault(
            "the store: what was erased is deleted, but its bytes stay in SQLite's write-ahead log as long as another "
            "process goes on reading; end that, and erase again"
        )


def _event(row: Any) -> dict[str, Any]:
    names = {"event_id": "eventId", "kind": "type", "basket": "basket", "recommendation": "recommendationId"}
    event = {shown: row[name] for name, shown in names.items() if row[name] is not None}
    event |= {"time": iso(row["time"]), "user": row["user_id"], "items": []}
    return event if row["value"] is None else {**event, "value": row["value"]}
