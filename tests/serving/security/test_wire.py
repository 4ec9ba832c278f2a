"""Over a real socket and a real server: what a client can put on the wire, byte by byte."""

import re
import socket
import threading
import time
from collections.abc import Iterator

import pytest

uvicorn = pytest.importorskip("uvicorn", reason="needs the extra 'serve'")

from tests.serving.security.guardedapp import Deployed, guarded  # noqa: E402


class Wire:
    """A running server, and raw bytes to it."""

    def __init__(self, deployed: Deployed, port: int) -> None:
        self.deployed, self.port = deployed, port

    def send(self, *parts: bytes, pause: float = 0.0) -> bytes:
        """All that comes back until the server closes, or is silent for a while."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
            connection.settimeout(1.0)
            received = b""
            try:
                for part in parts:
                    connection.sendall(part)
                    time.sleep(pause)
            except OSError:  # refused before we had said everything
                pass
            try:
                while chunk := connection.recv(65536):
                    received += chunk
                    if b"\r\n\r\n" in received and b"connection: close" not in received.lower():
                        connection.settimeout(0.2)
            except TimeoutError:
                pass
            except ConnectionError:
                pass
            return received

    def ask(self, line: str, *headers: str, body: bytes = b"") -> bytes:
        head = "\r\n".join([line, f"Host: 127.0.0.1:{self.port}", "Connection: close", *headers])
        return self.send(head.encode("latin-1") + b"\r\n\r\n" + body)


@pytest.fixture(scope="module")
def wire() -> Iterator[Wire]:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    deployed, app = guarded({"server": {"port": port}, "access": {"request_bytes": 5000}}, body_seconds=0.5)
    deployed.secret_key = deployed.key("recommend", "items")
    server = uvicorn.Server(
        uvicorn.Config(
            app, http="httptools", ws="none", lifespan="off", log_config=None, proxy_headers=False, server_header=False
        )
    )
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    while thread.is_alive() and not server.started:
        time.sleep(0.01)
    assert server.started
    yield Wire(deployed, port)
    server.should_exit = True
    thread.join()
    listener.close()


def status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def test_a_plain_request_is_answered_with_every_header(wire):
    answer = wire.ask("GET /v1/items/7 HTTP/1.1", f"Authorization: Bearer {wire.deployed.secret_key}")
    assert status(answer) == 200
    head = answer.partition(b"\r\n\r\n")[0].lower()
    for name in (b"content-security-policy:", b"x-request-id:", b"x-content-type-options: nosniff", b"vary: origin"):
        assert head.count(name) == 1
    assert b"server: uvicorn" not in head


def chunked(wire: Wire) -> bytes:
    return (
        f"POST /v1/recommend/basket HTTP/1.1\r\nHost: 127.0.0.1:{wire.port}\r\nAuthorization: Bearer "
        f"{wire.deployed.secret_key}\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    ).encode()


def test_chunks_over_the_limit_are_refused_while_they_still_come(wire):
    answer = wire.send(chunked(wire), *[b"64\r\n" + b"x" * 100 + b"\r\n"] * 80)
    assert status(answer) == 413


def test_chunks_that_drip_are_given_up(wire):
    began = time.monotonic()
    answer = wire.send(chunked(wire), *[b"1\r\n{\r\n"] * 12, pause=0.1)
    assert status(answer) == 408
    assert time.monotonic() - began < 4


def test_who_leaves_in_the_middle_of_a_body_leaves_no_trace_but_a_line(wire):
    before = len(wire.deployed.metrics.requests)
    with socket.create_connection(("127.0.0.1", wire.port), 5) as connection:
        connection.sendall(chunked(wire) + b"1\r\n{\r\n")
        time.sleep(0.1)
    for _ in range(50):
        if len(wire.deployed.metrics.requests) > before:
            break
        time.sleep(0.05)
    assert wire.deployed.metrics.requests[before:] == [("(none)", "POST", 499)]


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "localhost@evil.example"])
def test_dns_rebinding_ends_at_the_host_header(wire, host):
    answer = wire.send(f"GET /health/live HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
    assert status(answer) == 421


def test_two_hosts_are_not_believed(wire):
    answer = wire.ask("GET /health/live HTTP/1.1", "Host: evil.example")
    assert status(answer) in (400, 421)


@pytest.mark.parametrize(
    "header",
    [
        "Origin: https://a.example\r\n\tX-Evil: 1", "Origin: a\x00b", "X-Request-Id: a\x0bb", "Origin: \xff\xfe\x80",
        "Authorization: Bearer \xe9\xff", "X-Api-Key: " + "k" * 30_000, "Cookie: " + "a=b; " * 5000,
    ],
)  # fmt: skip
def test_hostile_headers_are_refused_and_come_back_nowhere(wire, header):
    answer = wire.ask("GET /v1/items/7 HTTP/1.1", header)
    assert answer == b"" or 400 <= status(answer) < 500
    assert not re.search(rb"(?i)x-evil|\x00|\x0b|\xff\xfe", answer)


def test_the_server_has_outlived_all_that(wire):
    assert status(wire.ask("GET /health/live HTTP/1.1")) == 200
