"""Logs from databases: SQLite everywhere, and PostgreSQL where it is installed."""

import sqlite3
import sys
import uuid
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest

import coterie
from coterie.data import sql
from coterie.data.cells import column_of, series_of
from coterie.data.readers import proposal, read_log
from coterie.data.sql import Database, digest_of, read_query, source_of
from coterie.errors import ConfigError, DataError, EnvironmentFault, MissingExtra
from coterie.settings import DataSettings, build
from coterie.storage import shown
from tests.postgres import PASSWORD, Server, postgres

LINES = "SELECT customer, sku, ordered_at, quantity FROM lines ORDER BY id"


@pytest.fixture(autouse=True)
def _no_password(monkeypatch):
    for name in ("COTERIE_DB_PASSWORD", "PGPASSWORD", "PGPASSFILE"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def shop(tmp_path):
    """An SQLite shop of five lines."""
    path = tmp_path / "shop.db"
    with sqlite3.connect(path) as connection:
        connection.execute(
            "CREATE TABLE lines (id INTEGER, customer INTEGER, sku TEXT, ordered_at TEXT, quantity REAL)"
        )
        rows = [(1, 7, "00123", "2024-03-01 10:00:00", 1), (2, 7, "00124", "2024-03-01 10:00:00", 2.5)]
        rows += [
            (3, None, "00123", "2024-03-02", 1),
            (4, 8, "00125", "2024-03-03", 1),
            (5, 8, "00123", "2024-03-03", 3),
        ]
        connection.executemany("INSERT INTO lines VALUES (?, ?, ?, ?, ?)", rows)
    connection.close()
    return path


def settings(**keys):
    return DataSettings(**{"user_column": "customer", "item_column": "sku", "query": LINES, **keys})


def test_a_query_is_a_log(shop):
    log = read_log(f"sqlite:///{shop}", settings(time_column="ordered_at", value_column="quantity"))
    assert log.frame["user"].to_list() == ["7", "7", None, "8", "8"]
    assert log.frame["item"].to_list() == ["00123", "00124", "00123", "00125", "00123"]
    assert log.frame["time"][0] == datetime(2024, 3, 1, 10)  # noqa: DTZ001 - UTC, as logs keep it
    assert log.frame["value"].to_list() == [1, 2.5, 1, 1, 3]
    assert log.source == f"sqlite:///{shop}"


def test_the_python_interface_takes_one_too(shop):
    log = coterie.read_log(f"sqlite:///{shop}", user="customer", item="sku", query=LINES)
    assert len(log) == 5


def test_a_variable_may_hold_the_url(shop, monkeypatch):
    monkeypatch.setenv("SHOP_URL", f"sqlite:///{shop}")
    log = read_log("env:SHOP_URL", settings())
    assert log.source == "env:SHOP_URL"
    assert len(log) == 5


def test_a_file_may_hold_the_query(shop, tmp_path):
    (tmp_path / "lines.sql").write_text(f"-- all of them\n{LINES};\n\n")
    assert len(read_log(f"sqlite:///{shop}", settings(query=f"@{tmp_path / 'lines.sql'}"))) == 5


def test_several_databases_are_several_clients(shop, tmp_path):
    other = tmp_path / "kiosk.db"
    other.write_bytes(shop.read_bytes())
    log = read_log([f"sqlite:///{shop}", f"sqlite:///{other}"], settings())
    assert log.frame["client"].unique(maintain_order=True).to_list() == ["shop", "kiosk"]


def test_databases_and_files_mix(shop, tmp_path):
    (tmp_path / "more.csv").write_text("customer,sku\nann,00999\n")
    log = read_log([f"sqlite:///{shop}", str(tmp_path / "more.csv")], settings())
    assert len(log) == 6


def test_the_mapping_is_proposed_from_the_first_rows(shop):
    asked = DataSettings(query="SELECT customer AS customer_id, sku, ordered_at AS order_date FROM lines")
    guess = proposal(f"sqlite:///{shop}", asked)
    assert guess.columns == {"user": "customer_id", "item": "sku", "time": "order_date"}
    assert read_query(Database(f"sqlite:///{shop}"), asked.query, at_most=2).height == 2


def test_no_character_of_a_query_is_a_placeholder(shop):
    query = "SELECT customer, sku, '%s :x 100% ?' AS note FROM lines WHERE sku LIKE '0012%'"
    assert read_query(Database(f"sqlite:///{shop}"), query)["note"][0] == "%s :x 100% ?"


def test_many_rows_come_in_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(sql, "BATCH", 1000)
    query = (
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3500) SELECT i, 'a' || i AS s FROM n"
    )
    frame = read_query(Database("sqlite://"), query)
    assert frame["i"].to_list() == list(range(1, 3501))
    assert frame["s"][-1] == "a3500"


@pytest.mark.parametrize("query", ["DELETE FROM lines", "INSERT INTO lines (id) VALUES (9)", "DROP TABLE lines"])
def test_nothing_is_written(shop, query):
    before = shop.read_bytes()
    with pytest.raises(DataError, match=r"refuses the query .*readonly"):
        read_query(Database(f"sqlite:///{shop}"), query)
    assert shop.read_bytes() == before


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("SELECT * FROM nowhere", r"refuses the query \(no such table: nowhere\); correct --query"),
        ("SELEKT 1", "refuses the query"),
        ("SELECT * FROM lines WHERE id > 99", r"returns no rows \(columns: id, customer"),
        ("SELECT id, id FROM lines", "returns two columns 'id'"),
        ("PRAGMA nonsense", "returns no rows: it must be a SELECT"),
    ],
)
def test_a_query_that_gives_no_table_is_one_sentence(shop, query, said):
    with pytest.raises(DataError, match=said):
        read_query(Database(f"sqlite:///{shop}"), query)


@pytest.mark.parametrize(
    ("address", "query", "said"),
    [
        ("sqlite:///{shop}", None, "which rows.*--query"),
        ("sqlite:///{shop}", "  ;\n", "is empty"),
        ("sqlite:///{shop}", "@nowhere.sql", "query @nowhere.sql: the file cannot be read"),
        ("env:NO_SUCH_URL", LINES, "environment variable NO_SUCH_URL is not set"),
        ("s3://bucket/log.parquet", LINES, "'s3' is no database that SQLAlchemy knows"),
        ("postgresql://u@h:port/db", LINES, r"postgresql://\.\.\.: is no database URL"),
        ("postgresql://u@h/db?password=x", LINES, "'password' does not belong .* env:SHOP_URL"),
        ("postgresql://u:***@h/db", LINES, "was not written down; put it into COTERIE_DB_PASSWORD"),
    ],
)
def test_an_address_or_query_that_cannot_be_used_is_one_sentence(shop, address, query, said):
    with pytest.raises(ConfigError, match=said):
        read_query(Database(address.format(shop=shop)), query)


def test_a_missing_file_is_not_made(tmp_path):
    with pytest.raises(DataError, match=r"there is no file .*gone.db"):
        read_query(Database(f"sqlite:///{tmp_path / 'gone.db'}"), LINES)
    assert not (tmp_path / "gone.db").exists()


def test_another_file_is_no_database(tmp_path):
    (tmp_path / "notes.db").write_text("not a database, whatever its name is " * 100)
    with pytest.raises(DataError, match="file is not a database"):
        read_query(Database(f"sqlite:///{tmp_path / 'notes.db'}"), LINES)


def test_a_query_without_a_database_is_refused(tmp_path):
    (tmp_path / "log.csv").write_text("user,item\na,b\n")
    with pytest.raises(ConfigError, match=r"query is for databases, and .*log.csv is none"):
        coterie.read_log(tmp_path / "log.csv", query=LINES)


@pytest.mark.parametrize(("section", "key"), [("data", "items"), ("split", "test"), ("split", "candidates")])
def test_what_must_be_a_file_is_no_database(section, key):
    with pytest.raises(ConfigError, match=f"{key} must be a file") as raised:
        build({section: {key: "postgresql://u:secret@h/db"}}, "test")
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize(
    ("url", "seen"),
    [
        ("postgresql://ann:pw@db:5432/shop", "postgresql://ann:***@db:5432/shop"),
        ("postgresql+psycopg://ann@db/shop", "postgresql+psycopg://ann@db/shop"),
        ("postgresql://ann:p%40w@db/shop?sslmode=require", "postgresql://ann:***@db/shop?sslmode=require"),
        ("postgresql://db/shop?user=ann&password=pw", "postgresql://db/shop?password=***&user=ann"),
        ("mysql+pymysql://ann:pw@db/shop", "mysql+pymysql://ann:***@db/shop"),
        ("nonsense://ann:p@ss:w/rd@db:x/shop", "nonsense://***@db:x/shop"),
        ("sqlite:////srv/shop.db", "sqlite:////srv/shop.db"),
    ],
)
def test_a_url_is_shown_without_its_password(url, seen):
    assert shown(url) == seen
    assert str(source_of(url)) == seen
    assert "pw" not in repr(source_of(url))


def test_what_is_shown_can_be_read_again():
    seen = shown("postgresql://ann:pw@db:5432/shop?sslmode=require")
    assert shown(seen) == seen


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("postgresql://ann:pw@db/shop?sslmode=require", "shop"),
        ("sqlite:////srv/shop.db", "shop.db"),
        ("env:SHOP_URL", "SHOP_URL"),
    ],
)
def test_a_database_has_a_name(address, name):
    assert Database(address).name == name


def test_files_stay_files(tmp_path):
    assert source_of("orders.csv") == Path("orders.csv")
    assert source_of(tmp_path) == tmp_path


def test_a_missing_driver_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtra, match=r"pip install 'coterie\[postgres\]'") as raised:
        read_query(Database("postgresql://ann:pw@db/shop"), LINES)
    assert "pw@" not in str(raised.value)


EAST = timezone(timedelta(hours=2))
ID = uuid.UUID("12345678-1234-5678-1234-567812345678")


@pytest.mark.parametrize(
    ("cells", "dtype", "values"),
    [
        ([None, None], pl.Null, [None, None]),
        ([True, None], pl.Boolean, [True, None]),
        ([1, None], pl.Int64, [1, None]),
        ([2**70, 1], pl.String, [str(2**70), "1"]),
        ([1, 2.5], pl.Float64, [1.0, 2.5]),
        ([Decimal(90071992547409931), None], pl.Int64, [90071992547409931, None]),
        ([Decimal("5.00"), Decimal("0.1")], pl.Float64, [5.0, 0.1]),
        (["00123", None], pl.String, ["00123", None]),
        ([date(2024, 3, 1)], pl.Date, [date(2024, 3, 1)]),
        ([datetime(2024, 3, 1, 12), None], pl.Datetime("us"), [datetime(2024, 3, 1, 12), None]),  # noqa: DTZ001
        (
            [datetime(2024, 3, 1, 12, tzinfo=EAST), datetime(2024, 3, 1, tzinfo=UTC)],
            pl.Datetime("us", "UTC"),
            [datetime(2024, 3, 1, 10, tzinfo=UTC), datetime(2024, 3, 1, tzinfo=UTC)],
        ),
        ([ID, None], pl.String, [str(ID), None]),
        ([b"\x01\xff", memoryview(b"\x02")], pl.String, ["01ff", "02"]),
        ([{"a": [1]}, "x"], pl.String, ['{"a": [1]}', "x"]),
        ([1, "a"], pl.String, ["1", "a"]),
    ],
)
def test_cells_become_columns(cells, dtype, values):
    made = series_of("c", cells)
    assert made.dtype == dtype
    assert made.to_list() == values


@pytest.mark.parametrize(
    ("batches", "dtype", "values"),
    [
        ([[None], [1]], pl.Int64, [None, 1]),
        ([[1], [2.5]], pl.Float64, [1.0, 2.5]),
        ([[1], ["a"]], pl.String, ["1", "a"]),
        ([[None], [None]], pl.String, [None, None]),
    ],
)
def test_batches_become_one_column(batches, dtype, values):
    made = column_of([series_of("c", cells) for cells in batches])
    assert (made.dtype, made.to_list()) == (dtype, values)


def test_equal_rows_have_equal_digests():
    frame = pl.DataFrame({"a": ["x", None, ""], "b": [1.5, 2.0, None]})
    assert digest_of(frame) == digest_of(pl.concat([frame[:1], frame[1:]], rechunk=False))
    for other in (frame[::-1], frame.with_columns(a=pl.Series(["x", "", None])), frame.rename({"a": "c"}), frame[:2]):
        assert digest_of(other) != digest_of(frame)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with postgres() as running:
        yield running


@pytest.fixture
def orders(server: Server) -> Server:
    """Order lines in the types that shops use."""
    _execute(
        server,
        "DROP TABLE IF EXISTS lines",
        "CREATE TABLE lines (id bigint PRIMARY KEY, customer numeric(20, 0), sku uuid, price numeric(10, 2), "
        "ordered_at timestamptz, local timestamp, day date, note text, extra jsonb, paid boolean, tags text[])",
        "INSERT INTO lines SELECT i, 9007199254740993 + i % 40, ('00000000-0000-0000-0000-' || lpad((i % 30)::text, "
        "12, '0'))::uuid, 1.25 * i, timestamptz '2024-03-01 12:00:00+02' + i * interval '1 hour', timestamp "
        "'2024-03-01 12:00:00', date '2024-03-01' + i % 7, CASE WHEN i > 5 THEN 'Ä ' || i END, "
        "'{\"a\": 1}', i % 2 = 0, ARRAY['x', 'y'] FROM generate_series(1, 2000) AS i",
    )
    return server


def _execute(server: Server, *statements: str) -> None:
    import psycopg

    with psycopg.connect(server.url()) as connection:
        for statement in statements:
            connection.execute(statement)


def test_postgresql_is_read_in_its_types(orders, monkeypatch):
    monkeypatch.setattr(sql, "BATCH", 300)
    frame = read_query(Database(orders.url()), "SELECT * FROM lines ORDER BY id;")
    assert frame.height == 2000
    assert frame["customer"][0] == 9007199254740994
    assert frame["sku"][0] == "00000000-0000-0000-0000-000000000001"
    assert frame["price"][:2].to_list() == [1.25, 2.5]
    assert frame["ordered_at"][0] == datetime(2024, 3, 1, 11, tzinfo=UTC)
    assert frame.schema["local"] == pl.Datetime("us")
    assert frame.schema["day"] == pl.Date
    assert frame["note"][4:6].to_list() == [None, "Ä 6"]
    assert frame["extra"][0] == '{"a": 1}'
    assert frame["paid"][:2].to_list() == [False, True]
    assert frame["tags"][0] == '["x", "y"]'


def test_a_postgresql_query_is_a_log(orders):
    asked = DataSettings(
        user_column="customer", item_column="sku", time_column="ordered_at", query="SELECT * FROM lines ORDER BY id"
    )
    log = read_log(orders.url(), asked)
    assert log.frame["user"][0] == "9007199254740994"
    assert log.frame["time"][0] == datetime(2024, 3, 1, 11)  # noqa: DTZ001 - UTC, as logs keep it
    assert PASSWORD not in log.source


def test_postgresql_reads_through_a_cursor_on_the_server(orders):
    seen = read_query(Database(orders.url()), "SELECT name, is_binary FROM pg_cursors")
    assert seen.height == 1


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM lines RETURNING id",
        "WITH gone AS (DELETE FROM lines RETURNING id) SELECT * FROM gone",
        "SELECT setval('counter', 5)",
        "SELECT 1; DELETE FROM lines",
        "CREATE TABLE other (id int)",
    ],
)
def test_nothing_is_written_to_postgresql(orders, query):
    _execute(orders, "CREATE SEQUENCE IF NOT EXISTS counter")
    with pytest.raises(DataError, match="refuses the query"):
        read_query(Database(orders.url()), query)
    assert read_query(Database(orders.url()), "SELECT count(*) AS n, last_value FROM lines, counter GROUP BY 2").row(
        0
    ) == (
        2000,
        1,
    )


def test_percent_signs_reach_postgresql_as_they_are(orders):
    frame = read_query(Database(orders.url()), "SELECT count(*) AS n FROM lines WHERE note LIKE 'Ä%' AND id % 2 = 0")
    assert frame["n"][0] == 998


def test_what_postgresql_refuses_is_one_sentence(orders):
    with pytest.raises(DataError, match=r'refuses the query \(relation "nowhere" does not exist\); correct'):
        read_query(Database(orders.url()), "SELECT * FROM nowhere")


@pytest.mark.parametrize("variable", ["COTERIE_DB_PASSWORD", "PGPASSWORD"])
def test_the_password_may_come_from_the_environment(orders, monkeypatch, variable):
    monkeypatch.setenv(variable, PASSWORD)
    assert read_query(Database(orders.url(None)), "SELECT 1 AS one")["one"][0] == 1


def test_a_url_that_was_written_down_works_with_the_password_beside_it(orders, monkeypatch):
    monkeypatch.setenv("COTERIE_DB_PASSWORD", PASSWORD)
    assert read_query(Database(shown(orders.url())), "SELECT 1 AS one")["one"][0] == 1


def test_a_wrong_password_and_a_silent_server_are_one_sentence(server):
    with pytest.raises(EnvironmentFault, match=r"cannot be connected to .*password authentication failed") as raised:
        read_query(Database(server.url("wr0ng")), "SELECT 1")
    assert "wr0ng" not in str(raised.value)
    with pytest.raises(EnvironmentFault, match=r"cannot be connected to .*refused") as raised:
        read_query(Database(server.url().replace(str(server.port), "1")), "SELECT 1")
    assert PASSWORD not in str(raised.value)


def test_a_broken_connection_is_the_environments_fault(orders):
    with pytest.raises(EnvironmentFault, match="the connection broke"):
        read_query(Database(orders.url()), "SELECT id, pg_terminate_backend(pg_backend_pid()) FROM lines")
