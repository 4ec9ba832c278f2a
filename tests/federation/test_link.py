"""Requests over a Unix socket: what was sent comes back, errors are errors there too, and strangers get no word."""

import os
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from coterie.errors import BudgetExceeded, EnvironmentFault, PeerError
from coterie.federation.link import Link, LinkServer, SessionServer, call


@pytest.fixture
def echo(tmp_path: Path) -> Iterator[Path]:
    with LinkServer(tmp_path / "echo.sock", lambda message: message[::-1]) as server:
        yield server.path


def test_the_reply_is_that_of_the_message(echo: Path) -> None:
    assert call(echo, b"abc", 5) == b"cba"
    assert call(echo, b"", 5) == b""
    large = os.urandom(20_000_000)
    assert call(echo, large, 20) == large[::-1]


def test_many_may_ask_at_once(echo: Path) -> None:
    replies: dict[int, bytes] = {}

    def ask(number: int) -> None:
        with Link(echo) as link:
            for _ in range(20):
                replies[number] = link.ask(str(number).encode() * 1000, 20)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert replies == {number: (str(number).encode() * 1000)[::-1] for number in range(10)}


def test_a_path_may_be_longer_than_a_socket_name(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 120) / "link.sock"
    with LinkServer(path, lambda message: message):
        assert call(path, b"far", 5) == b"far"


def test_the_owner_alone_may_use_it(echo: Path) -> None:
    assert stat.S_IMODE(echo.stat().st_mode) == 0o600
    assert stat.S_IMODE((echo.parent / "echo.sock.key").stat().st_mode) == 0o600


def test_who_does_not_know_the_key_is_not_answered(echo: Path) -> None:
    asked = []
    key = echo.parent / "echo.sock.key"
    right = key.read_bytes()
    key.write_bytes(b"0" * 64)
    with pytest.raises(PeerError, match="does not prove to be ours"):
        asked.append(call(echo, b"secret", 5))
    key.write_bytes(right)
    assert not asked
    assert call(echo, b"abc", 5) == b"cba"


def test_a_server_without_the_key_is_not_told_the_message(tmp_path: Path) -> None:
    path, heard = tmp_path / "fake.sock", bytearray()
    (tmp_path / "fake.sock.key").write_bytes(b"1" * 64)
    fake = socket.socket(socket.AF_UNIX)
    fake.bind(str(path))
    fake.listen()

    def listen() -> None:
        from multiprocessing.connection import Connection

        connected, _ = fake.accept()
        with connected, Connection(os.dup(connected.fileno())) as connection:
            connection.send_bytes(b"#CHALLENGE#{sha256}" + bytes(40))
            connection.recv_bytes()
            connection.send_bytes(b"#WELCOME#")
            connection.recv_bytes()  # the caller's own challenge
            connection.send_bytes(b"whatever")
            try:
                heard.extend(connection.recv_bytes())
                heard.extend(connection.recv_bytes())
            except EOFError:
                pass

    thread = threading.Thread(target=listen)
    thread.start()
    with fake, pytest.raises(PeerError, match="does not prove to be ours"):
        call(path, b"secret", 5)
    thread.join()
    assert b"secret" not in heard


def test_an_error_on_purpose_is_raised_where_it_was_asked(tmp_path: Path) -> None:
    def refuse(message: bytes) -> bytes:
        raise BudgetExceeded(f"no {message.decode()} left")

    with LinkServer(tmp_path / "link.sock", refuse) as server, Link(server.path) as link:
        with pytest.raises(BudgetExceeded, match="no epsilon left"):
            link.ask(b"epsilon", 5)
        with pytest.raises(BudgetExceeded, match="no delta left"):
            link.ask(b"delta", 5)


def test_any_other_error_stays_at_home(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def fail(message: bytes) -> bytes:
        raise ValueError("user 4711 bought a book")

    with LinkServer(tmp_path / "link.sock", fail) as server, pytest.raises(EnvironmentFault) as caught:
        call(server.path, b"x", 5)
    assert "4711" not in str(caught.value)
    assert "4711" in caplog.text


def test_waiting_ends(tmp_path: Path) -> None:
    hold = threading.Event()
    with LinkServer(tmp_path / "slow.sock", lambda message: str(hold.wait(20)).encode()) as server:
        begun = time.monotonic()
        with pytest.raises(PeerError, match=r"no answer within 0\.3 s"):
            call(server.path, b"x", 0.3)
        assert time.monotonic() - begun < 5
        hold.set()


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(PeerError, match="nobody answers there"):
        call(tmp_path / "none.sock", b"x", 1)


def test_a_path_belongs_to_one_server(echo: Path) -> None:
    with pytest.raises(EnvironmentFault, match="another process answers there"):
        LinkServer(echo, lambda message: message)
    assert call(echo, b"abc", 5) == b"cba"


def test_what_a_killed_server_left_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "link.sock"
    program = (
        "import sys, time; from pathlib import Path; from coterie.federation.link import LinkServer\n"
        "LinkServer(Path(sys.argv[1]), lambda m: m); print('up', flush=True); time.sleep(60)"
    )
    root = Path(__file__).parents[2]
    killed = subprocess.Popen([sys.executable, "-c", program, path], stdout=subprocess.PIPE, cwd=root)
    assert killed.stdout is not None
    with killed:
        assert killed.stdout.readline() == b"up\n"
        assert call(path, b"other process", 5) == b"other process"
        killed.send_signal(signal.SIGKILL)
    with LinkServer(path, lambda message: b"new"):
        assert call(path, b"x", 5) == b"new"


def test_a_session_sees_its_connection_end(tmp_path: Path) -> None:
    ended = threading.Event()

    class Counting:
        def __init__(self) -> None:
            self.count = 0

        def answer(self, message: bytes) -> bytes:
            self.count += 1
            return str(self.count).encode()

        def close(self) -> None:
            ended.set()

    with SessionServer(tmp_path / "link.sock", Counting) as server:
        with Link(server.path) as first, Link(server.path) as second:
            assert [first.ask(b"", 5), first.ask(b"", 5), second.ask(b"", 5)] == [b"1", b"2", b"1"]
            assert not ended.is_set()
        assert ended.wait(5)


def test_closing_ends_open_connections(tmp_path: Path) -> None:
    server = LinkServer(tmp_path / "link.sock", lambda message: message)
    with Link(server.path) as link:
        assert link.ask(b"x", 5) == b"x"
        server.close()
        with pytest.raises(PeerError):
            link.ask(b"x", 5)
    assert list(tmp_path.iterdir()) == []
