"""The one database: an SQLite file, or PostgreSQL by URL. Addresses and passwords, transactions, migrations, faults.

A URL may be ``env:NAME`` for the URL in an environment variable. What is shown or written of a URL never has its
password: it is ``***`` there, and whoever reads such a URL again takes the password from COTERIE_DB_PASSWORD.

What a transaction of `Storage.writing` has committed survives the end of the process and of the machine: SQLite syncs
the file, its journal and the folder (``synchronous = EXTRA``), PostgreSQL its log (``synchronous_commit = on``).

A service that reads and writes all the time asks for `Tuning`; everything else opens, writes and is gone.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coterie.errors import ConfigError, DataError, EnvironmentFault, MissingExtra
from coterie.migrations import HEAD, VERSION_TABLE
from coterie.storage_faults import HIDDEN, PATIENCE, fault_of

if TYPE_CHECKING:
    from sqlalchemy import URL, Connection, Engine

PASSWORD = "COTERIE_DB_PASSWORD"  # noqa: S105 - the name of a variable, no password

_SECRET = re.compile(r"pass|pwd|secret|token|odbc_connect", re.IGNORECASE)
_WRITES = "coterie_writes"
_LOCK = 0x436F7465726965  # PostgreSQL's advisory lock under which the schema is brought up to date
_SURVIVES = (
    "SELECT set_config('synchronous_commit', 'on', false) "
    "WHERE current_setting('synchronous_commit') NOT IN ('on', 'remote_apply')"
)


@dataclass(frozen=True)
class Tuning:
    """How a database is held that a service reads and writes all the time.

    `keep`: connections that stay open between transactions, of which further ones may be made; 0: every transaction
    has its own, so that forks are safe, which they are not otherwise. The rest is for SQLite: `write_ahead`: readers
    and the writer do not wait for each other; `wipe`: what is deleted is overwritten with zeros where it lay;
    `private`: a file that is made is for its owner alone.
    """

    keep: int = 0
    write_ahead: bool = False
    wipe: bool = False
    private: bool = False


class Storage:
    """One database whose schema is up to date. Every transaction has its own connection, so that forks are safe.

    Raises (from `open` and from every transaction):
        EnvironmentFault: the server, the disk or the file failed; nothing of the transaction was written, or, where the
            connection broke while it was committed, that is unknown.
    """

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self._name = name

    @classmethod
    def open(
        cls, address: str | Path, what: str = "database", create: bool = True, tuning: Tuning = Tuning()
    ) -> Storage:
        """Open a file or a URL and bring its schema up to date; several processes may do so at once.

        Args:
            address: a path, a URL (sqlite or postgresql), or ``env:NAME``.
            what: what messages call it.
            create: make it where there is none.
            tuning: how it is held; by default nothing stays open.

        Raises:
            ConfigError: no URL, no such kind of database, or a database that keeps nothing.
            DataError: not a database, nothing there to open, or made by a newer version.
            EnvironmentFault: it cannot be reached, read or written.
            MissingExtra: PostgreSQL's driver is not installed.
        """
        url = _file_url(Path(address)) if is_path(address) else url_of(str(address))
        shown_as = str(address) if is_path(address) else named(str(address))
        storage = cls(_storage_engine(url, f"{what} {shown_as}", create, tuning), f"{what} {shown_as}")
        try:
            storage._bring_up_to_date(create)
            if tuning.write_ahead and storage.backend == "sqlite":
                storage._write_ahead()
        except BaseException:
            storage.close()
            raise
        return storage

    @property
    def backend(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self._engine.dialect.name

    def close(self) -> None:
        """Close the connections that were kept."""
        self._engine.dispose()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """A transaction that sees one state of the database and writes nothing."""
        with self._transaction(writes=False) as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """A transaction that is durable when the block has ended, and has never been when an error leaves it.

        SQLite lets one process in at a time; PostgreSQL many: lock the rows that a decision rests on.
        """
        with self._transaction(writes=True) as connection:
            yield connection

    @contextmanager
    def apart(self) -> Iterator[Connection]:
        """A connection outside any transaction, for what databases do not do inside one (VACUUM, checkpoints)."""
        with self._faults(), self._engine.connect() as opened:
            if self.backend == "postgresql":
                yield opened.execution_options(isolation_level="AUTOCOMMIT")
            else:
                yield opened.execution_options(**{_WRITES: None})

    @contextmanager
    def _transaction(self, writes: bool) -> Iterator[Connection]:
        with self._faults(), self._engine.connect() as opened:
            connection = opened.execution_options(**{_WRITES: writes})
            if not writes and connection.dialect.name == "postgresql":
                connection = connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            with connection.begin():
                yield connection

    def _bring_up_to_date(self, create: bool) -> None:
        with self.reading() as connection:
            found = _revision(connection)
        if found == HEAD:
            return
        if found is None and not create:
            raise DataError(f"{self._name}: holds nothing of Coterie's yet; check the name")
        with self.writing() as connection:
            if connection.dialect.name == "postgresql":
                connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_LOCK})")
            if (found := _revision(connection)) != HEAD:  # nobody else did it meanwhile
                self._migrate(connection, found)

    def _write_ahead(self) -> None:
        """Switch the file over, for good; SQLite itself does not wait for others who have it open just now."""
        from sqlalchemy.exc import OperationalError

        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                with self.apart() as connection:
                    mode = connection.exec_driver_sql("PRAGMA journal_mode = WAL").scalar()
                break
            except (EnvironmentFault, OperationalError):
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
        if mode != "wal":
            raise EnvironmentFault(
                f"{self._name}: its file system cannot share memory between processes (SQLite's mode is '{mode}'); put "
                "it on a disk of this machine, or name a postgresql:// URL"
            )

    def _migrate(self, connection: Connection, found: str | None) -> None:
        from alembic import command
        from alembic.config import Config
        from alembic.script import ScriptDirectory

        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", "coterie:migrations")
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        if found is not None and found not in known:
            raise DataError(
                f"{self._name}: its tables are of revision '{found}', and this version of Coterie knows them up to "
                f"'{HEAD}'; upgrade Coterie"
            )
        command.upgrade(config, "head")

    @contextmanager
    def _faults(self) -> Iterator[None]:
        """What the database says against a transaction as one sentence; what is our own mistake stays as it is."""
        from sqlalchemy.exc import DBAPIError

        try:
            yield
        except DBAPIError as error:
            if (fault := fault_of(self._name, error, self._engine.url)) is None:
                raise
            raise fault from None


def is_path(address: str | Path) -> bool:
    """Whether it names a file as such, and not by a URL."""
    return isinstance(address, Path) or not ("://" in address or address.startswith("env:"))


def named(address: str) -> str:
    """A database's address as it may be seen: ``env:NAME`` as it is, a URL as `shown`."""
    return address if address.startswith("env:") else shown(address)


def shown(url: str) -> str:
    """A database URL as it may be seen: ``***`` for its password, and for whatever its options may hide.

    >>> shown("postgresql://ann:secret@db/shop?sslmode=require")
    'postgresql://ann:***@db/shop?sslmode=require'
    """
    try:
        parsed = _parsed(url)
    except ConfigError:  # whatever it is: nothing before its last @ is shown
        return re.sub(r"://.*@", f"://{HIDDEN}@", url)
    hidden = {key: HIDDEN if _SECRET.search(key) else value for key, value in parsed.query.items()}
    return parsed.set(query=hidden).render_as_string(hide_password=True).replace("%2A%2A%2A", HIDDEN)


def url_of(address: str) -> URL:
    """The URL to connect to, with its password.

    Raises:
        ConfigError: the variable or the password is missing, or it is no URL; nothing secret is in the message.
    """
    text = address
    if text.startswith("env:"):
        variable = text.removeprefix("env:")
        text = os.environ.get(variable, "")
        if "://" not in text:
            state = "holds no database URL" if text else "is not set"
            raise ConfigError(
                f"{address}: the environment variable {variable} {state}; set it to a URL such as "
                "postgresql://user:password@host/database"
            )
    url = _parsed(text)
    if not address.startswith("env:") and (keys := [key for key in url.query if _SECRET.search(key)]):
        raise ConfigError(
            f"{named(address)}: '{keys[0]}' does not belong into an address that is written down; put the whole URL "
            "into an environment variable and name it, as in env:SHOP_URL"
        )
    if url.drivername in ("postgresql", "postgres"):  # versions of SQLAlchemy differ in its driver: ours is the extra's
        url = url.set(drivername="postgresql+psycopg")
    return _with_password(url, address)


def engine_of(name: str, url: URL, **options: Any) -> Engine:
    """An engine whose connections are not pooled unless asked, and whose errors do not repeat parameters.

    Raises:
        ConfigError: no such dialect.
        EnvironmentFault: its driver is not installed; MissingExtra for PostgreSQL's.
    """
    from sqlalchemy import create_engine
    from sqlalchemy.exc import NoSuchModuleError
    from sqlalchemy.pool import NullPool

    if url.drivername == "postgresql+psycopg" and "connect_timeout" not in url.query:
        options["connect_args"] = {"connect_timeout": 15, **options.get("connect_args", {})}
    try:
        return create_engine(url, **{"poolclass": NullPool, "hide_parameters": True, **options})
    except NoSuchModuleError:
        raise ConfigError(
            f"{name}: '{url.drivername}' is no database that SQLAlchemy knows here; install its dialect, or name a "
            "file on this machine"
        ) from None
    except ImportError as error:
        if url.drivername == "postgresql+psycopg":
            raise MissingExtra(name, "postgres") from None
        raise EnvironmentFault(
            f"{name}: the driver for '{url.drivername}' is not installed ({error}); pip install it"
        ) from None


def _parsed(text: str) -> URL:
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError

    try:
        return make_url(text)
    except (ArgumentError, ValueError):
        start = text.split("://", maxsplit=1)[0]
        raise ConfigError(
            f"{start}://...: is no database URL; it should look like postgresql://user@host:5432/database or "
            "sqlite:///shop.db, with % @ : / in names and passwords written as %25 %40 %3A %2F"
        ) from None


def _with_password(url: URL, address: str) -> URL:
    given = os.environ.get(PASSWORD)
    if url.password == HIDDEN and not given:
        raise ConfigError(f"{named(address)}: its password was not written down; put it into {PASSWORD} and call again")
    return url.set(password=given) if given and url.host and url.password in (None, "", HIDDEN) else url


def _file_url(path: Path) -> URL:
    from sqlalchemy import URL

    return URL.create("sqlite", database=str(path.expanduser()))


def _storage_engine(url: URL, name: str, create: bool, tuning: Tuning) -> Engine:
    backend = url.get_backend_name()
    if backend == "sqlite":
        return _sqlite_engine(url, name, create, tuning)
    if backend == "postgresql":
        return _postgres_engine(url, name, tuning)
    raise ConfigError(f"{name}: '{backend}' will not do; it must be a file (SQLite) or a postgresql:// URL")


def _pool(tuning: Tuning) -> dict[str, Any]:
    """Nobody waits for a connection: one more than are kept is made, and closed after its use."""
    from sqlalchemy.pool import QueuePool

    if not tuning.keep:
        return {}
    return {"poolclass": QueuePool, "pool_size": tuning.keep, "max_overflow": -1, "pool_use_lifo": True}


def _sqlite_engine(url: URL, name: str, create: bool, tuning: Tuning) -> Engine:
    from sqlalchemy import event

    path = url.database or ":memory:"
    if path == ":memory:" or "mode=memory" in path or url.query.get("mode") == "memory":
        raise ConfigError(f"{name}: keeps nothing when the process ends; name a file")
    if not path.startswith("file:"):
        _prepare_file(Path(path), name, create, tuning.private)
    pragmas = ["synchronous = EXTRA", "fullfsync = ON", "foreign_keys = ON"]
    pragmas += ["secure_delete = ON"] if tuning.wipe else []
    shared = {"check_same_thread": False} if tuning.keep else {}
    engine = engine_of(name, url, connect_args={"timeout": PATIENCE, **shared}, **_pool(tuning))

    @event.listens_for(engine, "connect")
    def _durable(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions begin where we say so
        for pragma in pragmas:
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        writes = connection.get_execution_options().get(_WRITES, False)
        if writes is not None:
            connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _postgres_engine(url: URL, name: str, tuning: Tuning) -> Engine:
    from sqlalchemy import event

    # A row lock then waits for its holder and sees what that has committed, whatever the server's default is.
    pool = {**_pool(tuning), "pool_pre_ping": True} if tuning.keep else {}  # a server that was restarted is no fault
    engine = engine_of(name, url, isolation_level="READ COMMITTED", **pool)

    @event.listens_for(engine, "connect")
    def _durable(connection: Any, _: Any) -> None:
        connection.execute(_SURVIVES)
        connection.commit()

    return engine


def _prepare_file(path: Path, name: str, create: bool, private: bool) -> None:
    if path.is_dir():
        raise ConfigError(f"{name}: is a folder; name a file in it")
    if path.exists():
        return
    if not create:
        raise DataError(f"{name}: there is no such file; check the path")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentFault(f"{name}: its folder cannot be made: {error.strerror or error}") from None
    if private:
        try:
            path.touch(mode=0o600)
        except OSError as error:
            raise EnvironmentFault(f"{name}: cannot be made: {error.strerror or error}") from None


def _revision(connection: Connection) -> str | None:
    """The revision of the tables that are there; None where there are none."""
    from sqlalchemy import inspect, text

    if not inspect(connection).has_table(VERSION_TABLE):
        return None
    found = connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar()  # noqa: S608 - a constant
    return None if found is None else str(found)
