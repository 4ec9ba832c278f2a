"""What the shop says of its items. A deleted one stays as a tombstone, because models may know it still."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import fields, replace
from types import MappingProxyType
from typing import Any, NamedTuple

from sqlalchemy import Connection, Row, select

from coterie.errors import DataError, closest
from coterie.serving.store.changes import record
from coterie.serving.store.statements import chunks, storable, upsert
from coterie.serving.store.tables import items
from coterie.serving.words import NOTHING, Attribute, Item

_FIELDS = tuple(field.name for field in fields(Item) if field.init)
_COLUMNS = [items.c[name] for name in _FIELDS]
_CHANGEABLE = frozenset(_FIELDS) - {"id", "updated_at"}
_TEXTS = ("title", "url", "image", "currency", "language", "group")


class ItemsChanged(NamedTuple):
    """How many items were put, patched and deleted, and the ids to patch or delete that were not there."""

    put: int
    patched: int
    deleted: int
    missing: list[str]


def kept(connection: Connection, after: str | None = None, limit: int | None = None) -> list[Item]:
    """Items by id, those with a greater id than `after`."""
    asked = select(*_COLUMNS).where(items.c.deleted.is_(False)).order_by(items.c.id)
    if after is not None:
        asked = asked.where(items.c.id > after)
    return [_item(row) for row in connection.execute(asked.limit(limit))]


def some(connection: Connection, ids: Iterable[str]) -> dict[str, Item]:
    """Those of the ids that are there."""
    found: dict[str, Item] = {}
    for part in chunks(dict.fromkeys(ids)):
        rows = connection.execute(select(*_COLUMNS).where(items.c.id.in_(part), items.c.deleted.is_(False)))
        found.update((row.id, _item(row)) for row in rows)
    return found


def deleted(connection: Connection) -> set[str]:
    """Ids of those that were there once and are not any more."""
    return set(connection.execute(select(items.c.id).where(items.c.deleted.is_(True))).scalars())


def check(put: Iterable[Item], patch: Mapping[str, Mapping[str, Any]], delete: Iterable[str]) -> None:
    """Refuse what cannot be stored before any of it is.

    Raises:
        DataError: a field that items do not have, or a character that databases do not hold.
    """
    for item in put:
        storable(item.id, "item")
        for name in _TEXTS:
            storable(getattr(item, name), f"item '{item.id}': {name}")
    for id in delete:
        storable(id, "item")
    for id, values in patch.items():
        storable(id, "item")
        for name, value in values.items():
            if name not in _CHANGEABLE:
                raise DataError(
                    f"item '{id}': '{name}' is no field that can be changed{closest(name, _CHANGEABLE)}; "
                    f"there are {', '.join(sorted(_CHANGEABLE))}"
                )
            if name in _TEXTS:
                storable(value, f"item '{id}': {name}")


def change(
    connection: Connection,
    put: Sequence[Item],
    patch: Mapping[str, Mapping[str, Any]],
    delete: Collection[str],
    at: int,
) -> ItemsChanged:
    """Put, then patch (what is left out stays), then delete, and tell everyone."""
    here: dict[str, Item] = some(connection, [*patch, *delete])
    here.update((item.id, item if item.updated_at else replace(item, updated_at=at)) for item in put)
    written = dict.fromkeys(item.id for item in put)
    missing: dict[str, None] = {}
    for id, values in patch.items():
        if id in here:
            here[id] = replace(here[id], **values, updated_at=at)
            written[id] = None
        else:
            missing[id] = None
    gone = dict.fromkeys(id for id in delete if id in here)
    missing.update(dict.fromkeys(id for id in delete if id not in here))
    rows = [_row(Item(id, updated_at=at), deleted=True) if id in gone else _row(here[id]) for id in {**written, **gone}]
    upsert(connection, items, rows)
    record(connection, "item", list({**written, **gone}), at)
    patched = sum(id in here for id in patch)
    return ItemsChanged(len({item.id for item in put}), patched, len(gone), list(missing))


def _row(item: Item, deleted: bool = False) -> dict[str, Any]:
    row = {name: getattr(item, name) for name in _FIELDS}
    try:
        row["attributes"] = json.dumps(dict(item.attributes), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"item '{item.id}': attributes must be texts, finite numbers, booleans or lists of texts ({error})"
        ) from None
    return {**row, "deleted": deleted}


def _item(row: Row[Any]) -> Item:
    content: dict[str, Any] = json.loads(row.attributes)
    values: dict[str, Attribute] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in content.items()
    }
    return Item(**{**row._asdict(), "attributes": MappingProxyType(values) if values else NOTHING})
