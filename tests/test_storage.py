"""The one database: durable, migrated once, and clear about what is wrong with it."""

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError, OperationalError

from coterie import storage
from coterie.errors import ConfigError, DataError, EnvironmentFault, MissingExtra
from coterie.federation.journal import metadata as journal
from coterie.federation.tables import metadata as federation
from coterie.migrations import HEAD, VERSION_TABLE
from coterie.privacy.ledger_tables import accounts, metadata
from coterie.serving.store.tables import metadata as serving
from coterie.storage import Storage, Tuning
from tests.postgres import PASSWORD, Server, postgres


@pytest.fixture(autouse=True)
def _no_password(monkeypatch):
    for name in ("COTERIE_DB_PASSWORD", "PGPASSWORD", "PGPASSFILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgres() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgres"])
def address(request, tmp_path) -> Iterator[str]:
    """An empty database of each kind."""
    if request.param == "sqlite":
        yield str(tmp_path / "deep" / "store.sqlite")
        return
    with request.getfixturevalue("server").fresh() as url:
        yield url


def add(opened: Storage, *new: str, first: str = "", last: str = "") -> None:
    """Write accounts in one transaction, between two statements of its own."""
    with opened.writing() as connection:
        if first:
            connection.exec_driver_sql(first)
        for name in new:
            connection.execute(accounts.insert().values(name=name, delta=1e-6, opened_at=0))
        if last:
            connection.exec_driver_sql(last)


def names(opened: Storage) -> list[str]:
    with opened.reading() as connection:
        return list(connection.execute(text("SELECT name FROM ledger_account ORDER BY name")).scalars())


def test_what_was_written_is_there_when_it_is_opened_again(address):
    add(Storage.open(address), "shop")
    assert names(Storage.open(address, create=False)) == ["shop"]


def test_what_an_error_leaves_is_not_there(address):
    opened = Storage.open(address)
    with pytest.raises(IntegrityError):
        add(opened, "shop", "second", "shop")
    assert names(opened) == []


def test_reading_sees_one_state(server):
    count = text("SELECT count(*) FROM ledger_account")
    with server.fresh() as url:
        opened = Storage.open(url)
        with opened.reading() as connection:  # SQLite's writer would wait until this has ended
            assert connection.execute(count).scalar() == 0
            add(opened, "shop")
            assert connection.execute(count).scalar() == 0
        assert names(opened) == ["shop"]


def test_every_transaction_is_synced_to_the_disk(address):
    opened = Storage.open(address)
    with opened.writing() as connection:
        if connection.dialect.name == "sqlite":
            assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 3  # EXTRA
            assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "delete"
            assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1
        else:
            assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"


def test_a_server_that_would_not_sync_is_told_to(server):
    with server.fresh() as url:
        import psycopg

        with psycopg.connect(url, autocommit=True) as connection:
            (name,) = connection.execute("SELECT current_database()").fetchone()
            connection.execute(f"ALTER DATABASE {name} SET synchronous_commit = off")
            connection.execute(f"ALTER DATABASE {name} SET default_transaction_isolation = 'serializable'")
        with Storage.open(url).writing() as connection:
            assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"
            assert connection.exec_driver_sql("SHOW transaction_isolation").scalar() == "read committed"


def test_the_migrations_make_the_tables_that_the_code_expects(address):
    opened = Storage.open(address)

    def ours(_object, name, kind, _reflected, _compared):
        return not (kind == "table" and name == VERSION_TABLE)

    with opened.reading() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": ours, "compare_type": True})
        assert compare_metadata(context, [metadata, federation, journal, serving]) == []


def test_the_head_is_the_last_revision():
    config = Config()
    config.set_main_option("script_location", "coterie:migrations")
    assert ScriptDirectory.from_config(config).get_current_head() == HEAD


def test_many_may_open_a_new_database_at_once(address):
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(Storage.open, [address] * 8))
    add(opened[0], "shop")
    assert names(opened[-1]) == ["shop"]


def test_so_may_processes(tmp_path):
    path = tmp_path / "store.sqlite"
    script = f"from coterie.storage import Storage; Storage.open({str(path)!r})"
    running = [subprocess.Popen([sys.executable, "-c", script], stderr=subprocess.PIPE) for _ in range(4)]
    assert [one.communicate()[1] for one in running] == [b""] * 4
    assert names(Storage.open(path)) == []


def test_a_database_of_a_newer_version_is_refused_and_left_alone(address):
    with Storage.open(address).writing() as connection:
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))
    with pytest.raises(DataError, match=f"of revision '9999', and this version .* up to '{HEAD}'; upgrade Coterie"):
        Storage.open(address)


def test_one_of_an_older_version_is_brought_up_to_date(address, monkeypatch):
    opened = Storage.open(address)
    add(opened, "shop")
    monkeypatch.setattr(storage, "HEAD", "9999")  # a version with one revision more

    def migrate(self, connection, found):
        assert found == HEAD
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '9999'"))

    monkeypatch.setattr(Storage, "_migrate", migrate)
    assert names(Storage.open(address)) == ["shop"]
    monkeypatch.undo()
    with pytest.raises(DataError, match="of revision '9999'"):
        Storage.open(address)


def test_each_revision_follows_the_last_and_keeps_what_was_there(address):
    add(opened := Storage.open(address), "shop")
    with opened.writing() as connection:  # as the first version left it
        for table in (*federation.tables, *journal.tables, *(table.name for table in reversed(serving.sorted_tables))):
            connection.execute(text(f"DROP TABLE {table}"))
        connection.execute(text(f"UPDATE {VERSION_TABLE} SET version_num = '0001'"))
    upgraded = Storage.open(address)
    assert names(upgraded) == ["shop"]
    with upgraded.reading() as connection:
        assert connection.execute(text("SELECT count(*) FROM fed_member")).scalar() == 0
        assert connection.execute(text(f"SELECT version_num FROM {VERSION_TABLE}")).scalar() == HEAD


def test_what_was_spent_is_never_forgotten_by_going_back():
    config = Config()
    config.set_main_option("script_location", "coterie:migrations")
    for script in ScriptDirectory.from_config(config).walk_revisions():
        with pytest.raises(NotImplementedError, match="forget what has been spent"):
            script.module.downgrade()


def test_nothing_is_made_where_nothing_is_to_be_made(tmp_path, server):
    with pytest.raises(DataError, match=r"ledger .*none\.sqlite: there is no such file"):
        Storage.open(tmp_path / "none.sqlite", "ledger", create=False)
    assert list(tmp_path.iterdir()) == []
    sqlite3.connect(tmp_path / "shop.db").execute("CREATE TABLE lines (id INTEGER)").connection.close()
    with pytest.raises(DataError, match="holds nothing of Coterie's yet"):
        Storage.open(tmp_path / "shop.db", create=False)
    with server.fresh() as url, pytest.raises(DataError, match="holds nothing of Coterie's yet"):
        Storage.open(url, create=False)


@pytest.mark.parametrize(
    ("address", "error", "sentence"),
    [
        ("{tmp}", ConfigError, "is a folder; name a file in it"),
        ("{tmp}/text.txt", DataError, "is no SQLite database"),
        ("{tmp}/text.txt/inside.sqlite", EnvironmentFault, "its folder cannot be made: File exists"),
        ("sqlite://", ConfigError, "keeps nothing when the process ends"),
        ("sqlite:///:memory:", ConfigError, "keeps nothing when the process ends"),
        ("sqlite:///file:x?mode=memory&uri=true", ConfigError, "keeps nothing when the process ends"),
        (
            "sqlite:///file:{tmp}/none.sqlite?mode=ro&uri=true",
            EnvironmentFault,
            "cannot be opened; check that its folder",
        ),
        ("mysql://u@h/db", ConfigError, r"'mysql' will not do; it must be a file \(SQLite\) or a postgresql:// URL"),
        ("postgresql://u@h:port/db", ConfigError, r"postgresql://\.\.\.: is no database URL"),
        ("postgresql://u:{secret}@127.0.0.1:1/db", EnvironmentFault, "cannot be connected to .*check host, port"),
        ("postgresql://u@h/db?password={secret}", ConfigError, "'password' does not belong .* env:SHOP_URL"),
        ("env:NO_SUCH_LEDGER", ConfigError, "the environment variable NO_SUCH_LEDGER is not set"),
    ],
)
def test_a_wrong_address_is_one_sentence_without_a_password(tmp_path, address, error, sentence):
    (tmp_path / "text.txt").write_text("a text, and longer than the header of a database by far " * 20)
    with pytest.raises(error, match=sentence) as caught:
        Storage.open(address.format(tmp=tmp_path, secret="hush"), "ledger")
    assert "hush" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_postgres_without_its_driver_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtra, match=r"ledger postgresql://u@h/db needs the extra 'postgres'"):
        Storage.open("postgresql://u@h/db", "ledger")


def test_a_variable_may_hold_the_url(server, monkeypatch):
    with server.fresh() as url:
        monkeypatch.setenv("LEDGER_URL", url)
        add(Storage.open("env:LEDGER_URL"), "shop")
        monkeypatch.setenv("COTERIE_DB_PASSWORD", PASSWORD)
        bare = url.replace(PASSWORD.replace("/", "%2F").replace("@", "%40"), "***")
        assert names(Storage.open(bare, create=False)) == ["shop"]


def test_what_the_server_refuses_is_one_sentence(server, monkeypatch):
    with pytest.raises(EnvironmentFault, match=r"cannot be connected to .*does not exist") as caught:
        Storage.open(server.url().replace("/postgres", "/nowhere"))
    assert PASSWORD not in str(caught.value)
    with server.fresh() as url:
        opened = Storage.open(url)
        with pytest.raises(EnvironmentFault, match="the server is read-only"):
            add(opened, "shop", first="SET TRANSACTION READ ONLY")
        with pytest.raises(EnvironmentFault, match=r"the connection broke|the server stopped"):
            add(opened, "shop", last="SELECT pg_terminate_backend(pg_backend_pid())")
        assert names(opened) == []


def test_a_damaged_file_is_one_sentence(tmp_path):
    path = tmp_path / "store.sqlite"
    opened = Storage.open(path)
    add(opened, *(f"account {i}" for i in range(200)))
    content = bytearray(path.read_bytes())
    content[4096:] = os.urandom(len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(EnvironmentFault, match="is damaged; restore it from a backup"):
        names(Storage.open(path))
    path.write_bytes(content[:50])
    with pytest.raises(EnvironmentFault, match="is damaged"):
        Storage.open(path)


def test_a_file_that_cannot_be_written_is_one_sentence(tmp_path):
    path = tmp_path / "store.sqlite"
    add(Storage.open(path), "shop")
    opened = Storage.open(f"sqlite:///file:{path}?mode=ro&uri=true")
    assert names(opened) == ["shop"]
    with pytest.raises(EnvironmentFault, match="cannot be written; make the file and its folder writable"):
        add(opened, "second")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs a user who may become another")
def test_a_file_of_somebody_else_is_one_sentence(tmp_path):
    path = tmp_path / "store.sqlite"
    add(Storage.open(path), "shop")
    path.chmod(0o444)
    for folder in (tmp_path, *list(tmp_path.parents)[:3]):  # pytest keeps them from others
        folder.chmod(0o755)
    read, write = os.pipe()
    if (child := os.fork()) == 0:
        try:
            os.setuid(65534)
            try:
                add(Storage.open(path), "second")
            except EnvironmentFault as fault:
                os.write(write, str(fault).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write)
    assert b"cannot be written; make the file and its folder writable" in os.read(read, 4096)


def test_a_full_disk_is_one_sentence_and_leaves_nothing(tmp_path):
    path = tmp_path / "store.sqlite"
    opened = Storage.open(path)
    with opened.reading() as connection:
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
    with pytest.raises(EnvironmentFault, match="no space left on the device; nothing was written"):
        add(opened, *(f"account {i}" for i in range(500)), first=f"PRAGMA max_page_count = {pages}")
    assert names(opened) == []
    add(opened, "shop")
    assert names(opened) == ["shop"]


TUNED = Tuning(keep=2, write_ahead=True, wipe=True, private=True)


def test_a_tuned_file_is_as_durable_and_lets_readers_go_on(tmp_path):
    opened = Storage.open(tmp_path / "store.sqlite", tuning=TUNED)
    add(opened, "shop")
    with opened.reading() as connection:
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 3
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA secure_delete").scalar() == 1
    with opened.writing() as writer:
        writer.execute(accounts.insert().values(name="second", delta=1e-6, opened_at=0))
        assert names(opened) == ["shop"]  # and waits for nobody
        assert names(Storage.open(tmp_path / "store.sqlite")) == ["shop"]  # nor does one who knows nothing of it
    assert names(opened) == ["second", "shop"]
    opened.close()
    assert [path.name for path in tmp_path.iterdir()] == ["store.sqlite"]
    assert (tmp_path / "store.sqlite").stat().st_mode & 0o777 == 0o600


def test_what_is_kept_open_is_used_again(address):
    def connection_of(opened):
        with opened.reading() as connection:
            return connection.connection.driver_connection

    tuned, plain = Storage.open(address, tuning=TUNED), Storage.open(address)
    assert connection_of(tuned) is connection_of(tuned)
    assert connection_of(plain) is not connection_of(plain)
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda _: names(tuned), range(8))) == [[]] * 8
    tuned.close()


def test_a_server_that_was_restarted_is_no_fault_of_what_is_kept_open(server):
    import psycopg

    with server.fresh() as url:
        opened = Storage.open(url, tuning=TUNED)
        with psycopg.connect(server.url(), autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", [url.rpartition("/")[2]]
            )
        add(opened, "shop")
        assert names(opened) == ["shop"]
        opened.close()


def test_vacuum_runs_apart_from_transactions(address):
    opened = Storage.open(address, tuning=TUNED)
    add(opened, "shop")
    with opened.apart() as connection:
        connection.exec_driver_sql("VACUUM")
    add(opened, "second")  # the same connection writes in transactions again
    with pytest.raises(IntegrityError):
        add(opened, "third", "shop")
    assert names(opened) == ["second", "shop"]
    opened.close()


def test_many_switch_a_file_over_at_once(tmp_path):
    path = tmp_path / "store.sqlite"
    with ThreadPoolExecutor(8) as pool:
        opened = list(pool.map(lambda _: Storage.open(path, tuning=TUNED), range(8)))
    assert [names(one) for one in opened] == [[]] * 8
    for one in opened:
        one.close()


def test_who_holds_the_file_too_long_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(storage, "PATIENCE", 0.05)
    path = tmp_path / "store.sqlite"
    opened = Storage.open(path)
    with opened.writing(), pytest.raises(EnvironmentFault, match="another process has held it"):
        add(opened, "shop")


def test_our_own_mistakes_stay_what_they_are(tmp_path):
    opened = Storage.open(Path(tmp_path / "store.sqlite"))
    with pytest.raises(OperationalError, match="no such table"), opened.reading() as connection:
        connection.execute(text("SELECT * FROM nowhere"))
