"""Logs from databases: one query through a SQLAlchemy URL, read-only, streamed into columns.

A LOG that is a URL (``postgresql://reader@db.example/shop``, ``sqlite:///shop.db``), or ``env:NAME`` for the URL in an
environment variable, is a database; ``query`` says which rows. Addresses and passwords are as in `coterie.storage`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeAlias

import polars as pl

from coterie.data.cells import column_of, series_of
from coterie.errors import ConfigError, DataError, EnvironmentFault
from coterie.settings import DataSettings, is_database
from coterie.storage import engine_of, named, url_of
from coterie.storage_faults import said

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine

BATCH = 50_000  # rows that are held as Python objects at a time

_EXAMPLE = "Name a query, as in --query 'SELECT customer, sku, ordered_at FROM order_lines' or --query @lines.sql"
_READ_ONLY = {
    "sqlite": "PRAGMA query_only = ON",
    "mysql": "SET SESSION TRANSACTION READ ONLY",
    "mariadb": "SET SESSION TRANSACTION READ ONLY",
}
"""What makes a session read-only; PostgreSQL's driver has an option for it."""


@dataclass(frozen=True)
class Database:
    """A database as the source of a log. Its text is its address without the password.

    `name` and `parent` are what they are for paths: they name the client where several logs are several clients.
    """

    address: str = field(repr=False)

    def __str__(self) -> str:
        return named(self.address)

    @property
    def name(self) -> str:
        """The database's name; for ``env:NAME`` the variable's."""
        if self.address.startswith("env:"):
            return self.address.removeprefix("env:")
        return PurePosixPath(re.split(r"[?#]", str(self))[0].rpartition("/")[2]).name or "database"

    @property
    def parent(self) -> PurePosixPath:
        """The host."""
        return PurePosixPath(re.sub(r"^.*?://(.*@)?|/.*$", "", str(self)) or "local")


Source: TypeAlias = Path | Database


def source_of(text: str | Path | Database) -> Source:
    """The file or the database that a LOG names."""
    if isinstance(text, Path | Database):
        return text
    return Database(text) if is_database(text) else Path(text)


def refuse_idle_query(logs: Iterable[str | Path | Database], settings: DataSettings) -> None:
    """Refuse a query that no log would be asked.

    Raises:
        ConfigError: there is a query and no database.
    """
    sources = [source_of(log) for log in logs]
    if settings.query is not None and not any(isinstance(source, Database) for source in sources):
        raise ConfigError(
            f"query is for databases, and {', '.join(map(str, sources)) or 'no log'} is none; leave it out, or name a "
            "database's URL as LOG"
        )


def read_query(database: Database, query: str | None, at_most: int | None = None) -> pl.DataFrame:
    """The rows of a query as a frame, or the first `at_most` of them.

    Types are those of the cells: whole numbers Int64 (text beyond 64 bits), other numbers Float64, texts String, dates
    Date, times Datetime("us") (with a zone: UTC), whatever else is there (UUIDs, JSON, bytes) its text. The session is
    read-only where the database knows that (PostgreSQL, MySQL, MariaDB, SQLite), and nothing is ever committed.

    Raises:
        ConfigError: no query, or the URL cannot be used.
        DataError: the query is refused, returns no rows, or two columns of one name.
        EnvironmentFault: the database cannot be reached, or the connection broke.
        MissingExtra: PostgreSQL's driver is not installed.
    """
    statement = _statement(query, database)
    url = url_of(database.address)
    if url.get_backend_name() == "sqlite":
        _refuse_missing_file(url, database)
    engine = engine_of(str(database), url)
    try:
        with _connection(engine, database, url) as connection:
            return _frame(connection, statement, at_most, database)
    finally:
        engine.dispose()


def digest_of(*frames: pl.DataFrame) -> str:
    """Hexadecimal SHA-256 of the rows of `frames`, in their order, as CSV: equal rows give equal digests."""
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(repr(frame.schema).encode())
        for part in frame.iter_slices(BATCH):
            digest.update(part.write_csv(null_value="\0", quote_style="non_numeric").encode())
    return digest.hexdigest()


def _statement(query: str | None, database: Database) -> str:
    if query is None:
        raise ConfigError(f"{database}: which rows? {_EXAMPLE}")
    text = query
    if query.startswith("@"):
        try:
            text = Path(query[1:]).read_text("utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"query {query}: the file cannot be read ({error})") from None
    if not (text := text.strip().rstrip(";").rstrip()):
        raise ConfigError(f"query {query!r}: is empty; write a SELECT statement")
    return text


def _refuse_missing_file(url: URL, database: Database) -> None:
    """SQLite would make the file."""
    path = url.database or ":memory:"
    if path != ":memory:" and not path.startswith("file:") and not Path(path).is_file():
        raise DataError(f"{database}: there is no file {path}; check the path (sqlite:////... is an absolute one)")


@contextmanager
def _connection(engine: Engine, database: Database, url: URL) -> Iterator[Connection]:
    """A read-only session; what the database says against it or its query becomes one sentence."""
    from sqlalchemy.exc import DBAPIError, SQLAlchemyError

    try:
        opened = engine.connect()
    except SQLAlchemyError as error:
        raise EnvironmentFault(
            f"{database}: cannot be connected to ({said(error, url)}); check host, port, user and password, and that "
            "the server runs"
        ) from None
    try:
        with opened:
            yield _read_only(opened)
    except DBAPIError as error:
        if error.connection_invalidated:
            raise EnvironmentFault(f"{database}: the connection broke ({said(error, url)}); try again") from None
        raise DataError(f"{database}: refuses the query ({said(error, url)}); correct --query") from None


def _read_only(connection: Connection) -> Connection:
    backend = connection.dialect.name
    if backend == "postgresql":
        connection = connection.execution_options(postgresql_readonly=True)
    elif backend in _READ_ONLY:
        connection.exec_driver_sql(_READ_ONLY[backend])
        connection.rollback()  # it counts from the next transaction on
    return connection.execution_options(stream_results=True, yield_per=BATCH, no_parameters=True)


def _frame(connection: Connection, statement: str, at_most: int | None, database: Database) -> pl.DataFrame:
    """Run the statement as it is written (no character of it is a placeholder) and collect its rows by column."""
    with connection.exec_driver_sql(statement) as result:
        if not result.returns_rows:
            raise DataError(f"{database}: the query returns no rows: it must be a SELECT statement")
        names = list(result.keys())
        _refuse_names(names, database)
        columns: list[list[pl.Series]] = [[] for _ in names]
        count = 0
        for batch in result.partitions(BATCH if at_most is None else min(at_most, BATCH)):
            _collect(batch, names, columns)
            count += len(batch)
            if at_most is not None and count >= at_most:
                break
    if not count:
        raise DataError(f"{database}: the query returns no rows (columns: {', '.join(names)}); correct --query")
    frame = pl.DataFrame([column_of(parts) for parts in columns])
    return frame if at_most is None else frame.head(at_most)


def _refuse_names(names: Sequence[str], database: Database) -> None:
    if repeated := [name for i, name in enumerate(names) if name in names[:i]]:
        raise DataError(f"{database}: the query returns two columns '{repeated[0]}'; rename one with AS")


def _collect(batch: Sequence[Any], names: Sequence[str], columns: Sequence[list[pl.Series]]) -> None:
    for name, cells, parts in zip(names, zip(*batch, strict=True), columns, strict=True):
        parts.append(series_of(name, cells))
