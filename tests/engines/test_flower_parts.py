"""The small parts of the network: the stub app, payloads, seats, environments, and what errors say."""

import hashlib
import os
import socket
import ssl
import stat
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="needs the extra 'flower'")

from cryptography import x509
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from flwr.cli.config_utils import get_fab_config
from hypothesis import given
from hypothesis import strategies as st

from coterie.engines.flower.app import SHA256, bundle, stub
from coterie.engines.flower.environment import environment, program
from coterie.engines.flower.errors import PORT_TAKEN, UNKNOWN_KEY, explain
from coterie.engines.flower.loopback import LoopbackTls
from coterie.engines.flower.payload import SHORT, packed, unpacked
from coterie.engines.flower.seats import Seats
from coterie.engines.flower.users import Users
from coterie.errors import ConfigError, DataError, MissingExtra


def test_the_stub_is_the_one_that_nodes_know() -> None:
    assert hashlib.sha256(stub()).hexdigest() == SHA256
    components = get_fab_config(stub())["tool"]["flwr"]["app"]["components"]
    for name in components.values():
        module, _, attribute = name.partition(":")
        assert hasattr(__import__(module, fromlist=[attribute]), attribute)


def test_another_app_is_another() -> None:
    assert hashlib.sha256(bundle({"pyproject.toml": b"[project]"})).hexdigest() != SHA256


@given(st.binary(max_size=2000) | st.integers(SHORT - 1, SHORT + 1).map(bytes))
def test_payloads_are_bytes_again(content: bytes) -> None:
    assert unpacked(packed(content)) == content


@pytest.mark.parametrize(
    "record",
    [
        RecordDict(),
        RecordDict({"coterie": ConfigRecord({"bytes": "text"})}),
        RecordDict({"coterie": ConfigRecord({"other": b"x"})}),
        RecordDict({"coterie": ArrayRecord({"bytes": Array("uint8", (3,), "numpy.ndarray", b"abc")})}),
        RecordDict({"coterie": ArrayRecord({"bytes": Array("uint8", (4,), "coterie.bytes", b"abc")})}),
        RecordDict({"coterie": ArrayRecord({"other": Array("uint8", (3,), "coterie.bytes", b"abc")})}),
    ],
)
def test_what_is_no_payload_is_refused(record: RecordDict) -> None:
    with pytest.raises(ValueError, match="of Coterie's"):
        unpacked(record)


def test_seats_are_durable_and_private(tmp_path: Path) -> None:
    path = tmp_path / "seats.json"
    seats = Seats.read(path)
    seats.give("anna", "KEY A")
    seats.give("bert", "KEY B")
    seats.give("anna", "KEY A")
    assert seats.take("bert") == "KEY B"
    assert seats.take("nobody") is None
    seats.write(path)
    assert Seats.read(path) == Seats({"anna": "KEY A"}, ["KEY B"])
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_key_has_one_owner_and_is_never_given_twice() -> None:
    seats = Seats({"anna": "KEY A"}, ["KEY B"])
    with pytest.raises(ConfigError, match="the transport key of 'bert' was revoked"):
        seats.give("bert", "KEY B")
    with pytest.raises(ConfigError, match="is that of 'anna'"):
        seats.give("bert", "KEY A")
    seats.give("anna", "KEY C")
    assert seats == Seats({"anna": "KEY C"}, ["KEY B", "KEY A"])


@pytest.mark.parametrize("content", ["", "[]", '{"keys": {}}', '{"keys": 3, "revoked": []}'])
def test_seats_that_are_damaged_are_not_taken_for_none(tmp_path: Path, content: str) -> None:
    (tmp_path / "seats.json").write_text(content)
    with pytest.raises(DataError, match=r"seats\.json: not a list of seats .* restore it from a backup"):
        Seats.read(tmp_path / "seats.json")


def test_children_are_told_nothing_but_what_is_theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COTERIE_DB_PASSWORD", "secret")
    monkeypatch.setenv("FLWR_OIDC_ENABLED", "1")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:3128")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("NO_PROXY", "intern.example")
    found = environment(tmp_path, EXTRA="1")
    assert "COTERIE_DB_PASSWORD" not in found
    assert "FLWR_OIDC_ENABLED" not in found
    assert (found["FLWR_TELEMETRY_ENABLED"], found["FLWR_DISABLE_UPDATE_CHECK"]) == ("0", "1")
    assert (found["FLWR_HOME"], found["EXTRA"]) == (str(tmp_path), "1")
    assert found["HTTPS_PROXY"] == "http://proxy:3128"
    assert found["NO_PROXY"] == found["no_proxy"] == "intern.example,127.0.0.1,localhost,::1"


def test_a_program_of_flowers_is_the_one_beside_this_interpreter() -> None:
    path, *rest = program("flower-superexec", "--version")
    assert os.access(path, os.X_OK)
    assert rest == ["--version"]
    with pytest.raises(MissingExtra, match=r"pip install 'coterie\[flower\]'"):
        program("flower-of-another-time")


def test_the_certificate_of_this_machine_is_for_this_machine_alone(tmp_path: Path) -> None:
    made = LoopbackTls.make(tmp_path)
    certificate = x509.load_pem_x509_certificate(made.certificate.read_bytes())
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert [str(one) for one in names.get_values_for_type(x509.IPAddress)] == ["127.0.0.1"]
    assert stat.S_IMODE(made.key.stat().st_mode) == 0o600
    ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(made.certificate, made.key)


HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def table(folder: Path, uid: int, *, six: bool = False) -> Path:
    """What Linux would list: a listener at port 8000, and a connection from port 5000 to it by a user."""
    net = folder / f"net{uid}{six}"
    net.mkdir()
    listener = "   0: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1\n"
    address = "0000000000000000FFFF00000100007F" if six else "0100007F"
    row = f"   1: {address}:1388 {address}:1F40 01 00000000:00000000 02:00000000 00000000  {uid}  0 2 2\n"
    (net / "tcp").write_text(HEAD + listener + ("" if six else row))
    (net / "tcp6").write_text(HEAD + (row if six else ""))
    return net


@pytest.mark.parametrize("six", [False, True])
def test_whose_process_is_at_the_other_end(tmp_path: Path, six: bool) -> None:
    own, other = os.getuid(), os.getuid() + 1
    assert Users.of(8000, table(tmp_path, own, six=six)).ours(5000)
    assert not Users.of(8000, table(tmp_path, other, six=six)).ours(5000)
    assert not Users.of(8000, tmp_path / f"net{own}{six}").ours(5001)


def test_where_nothing_can_be_told_nobody_is_refused(tmp_path: Path) -> None:
    assert Users.of(8000, tmp_path / "no proc").ours(5000)
    assert Users.of(9000, table(tmp_path, os.getuid() + 1)).ours(5000)  # a list without our own socket is none


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="this system does not list sockets")
def test_a_connection_of_our_own_is_known_to_be_ours() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        users = Users.of(server.getsockname()[1])
        with socket.create_connection(server.getsockname()) as client:
            assert users.known
            assert users.ours(client.getsockname()[1])
            assert not users.ours(1)


@pytest.mark.parametrize(
    ("status", "lines", "sentence"),
    [
        (1, ["ERROR : Exit Code: 305", "[code: 1104] Failed to activate SuperNode."], UNKNOWN_KEY),
        (
            1,
            ["Exit Code: 305", "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: unable to get local"],
            "CA",
        ),
        (1, ["[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: certificate has expired"], "expired"),
        (1, ["CERTIFICATE_VERIFY_FAILED] Hostname mismatch, certificate is not valid for"], "for another address"),
        (1, ["ERROR: [Errno 98] error while attempting to bind on address: address already in use"], PORT_TAKEN),
        (1, ["sqlalchemy.exc.OperationalError: (sqlite3.OperationalError) database or disk is full"], "disk is full"),
        (1, ["sqlite3.DatabaseError: file is not a database"], "damaged"),
        (0, ["INFO : SuperNode terminated gracefully."], "revoked its key, or a clock is wrong"),
        (1, ["ERROR : Exit Code: 606"], "versions of Flower that do not fit"),
        (-9, ["INFO : all is well"], "it was ended by signal 9; it is started again"),
        (
            1,
            ["Traceback", "ValueError: something new", "", "For more information, visit: x"],
            "something new; see its log",
        ),
        (3, [], "it ended with status 3; see its log"),
        (1, ["Exit Code: 999"], "it ended with status 999: Exit Code: 999; see its log"),
    ],
)
def test_errors_are_sentences(status: int, lines: list[str], sentence: str) -> None:
    found = explain(status, lines)
    assert sentence in found
    assert "\n" not in found
