"""API keys as they are kept: hashes, never what opens anything."""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Connection, RowMapping, insert, select, update

from coterie.errors import DataError
from coterie.serving.store.changes import record
from coterie.serving.store.statements import storable
from coterie.serving.store.tables import keys
from coterie.serving.words import ApiKey


def add(connection: Connection, key: ApiKey, at: int) -> None:
    """Keep a new key.

    Raises:
        DataError: there is one of this id, or a character of its name cannot be stored.
    """
    storable(key.name, "the key's name")
    if connection.execute(select(keys.c.id).where(keys.c.id == key.id)).first() is not None:
        raise DataError(f"there is a key '{key.id}' already; make another one")
    row: dict[str, Any] = {
        "id": key.id,
        "name": key.name,
        "publishable": key.publishable,
        "scopes": json.dumps(sorted(key.scopes)),
        "origins": json.dumps(list(key.origins)),
        "created_at": key.created_at,
        "hash": key.hash,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
    }
    connection.execute(insert(keys).values(**row))
    record(connection, "keys", [key.id], at)


def kept(connection: Connection) -> list[ApiKey]:
    """All keys, oldest first, also those that were revoked."""
    return [_key(row) for row in connection.execute(select(keys).order_by(keys.c.created_at, keys.c.id)).mappings()]


def revoke(connection: Connection, id: str, revoked_at: int, at: int) -> None:
    """A key opens nothing from `revoked_at` on; the first revocation counts.

    Raises:
        DataError: there is none of this id.
    """
    row = connection.execute(select(keys.c.revoked_at).where(keys.c.id == id)).first()
    if row is None:
        raise DataError(f"there is no key '{id}'; list them to see which there are")
    if row.revoked_at is None or revoked_at < row.revoked_at:
        connection.execute(update(keys).where(keys.c.id == id).values(revoked_at=revoked_at))
        record(connection, "keys", [id], at)


def _key(row: RowMapping) -> ApiKey:
    scopes, origins = frozenset(json.loads(row["scopes"])), tuple(json.loads(row["origins"]))
    return ApiKey(**{**row, "scopes": scopes, "origins": origins})
