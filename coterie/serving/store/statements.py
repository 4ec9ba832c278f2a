"""Statements that both databases write differently, lists that are too long for one, and what cannot be stored."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy import Connection, Table
from sqlalchemy.dialects import postgresql, sqlite

from coterie.errors import DataError

PARAMETERS = 500  # in one statement: well below what any database takes

T = TypeVar("T")


def now() -> int:
    """Microseconds since 1970 in UTC."""
    return time.time_ns() // 1000


def upsert(connection: Connection, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert rows, or replace those with the same primary key. Every row names the same columns."""
    if not rows:
        return
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(table)
    key = [column.name for column in table.primary_key]
    values = {name: statement.excluded[name] for name in rows[0] if name not in key}
    connection.execute(statement.on_conflict_do_update(index_elements=key, set_=values), list(rows))


def chunks(values: Iterable[T], size: int = PARAMETERS) -> Iterator[list[T]]:
    """Lists of at most `size`, in order.

    >>> list(chunks("abc", 2))
    [['a', 'b'], ['c']]
    """
    iterator = iter(values)
    while chunk := list(islice(iterator, size)):
        yield chunk


def storable(text: str | None, what: str) -> None:
    """Refuse text that not every database can hold.

    Raises:
        DataError: it has a NUL character, or half of a surrogate pair.
    """
    if text is None or text.isascii():
        if text is None or "\x00" not in text:
            return
    elif "\x00" not in text and not any("\ud800" <= one <= "\udfff" for one in text):
        return
    raise DataError(f"{what} {text!r} has a character that cannot be stored (NUL or a lone surrogate); leave it out")
