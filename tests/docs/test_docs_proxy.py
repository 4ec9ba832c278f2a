"""The nginx configurations of the page on reverse proxies work, with TLS on both sides of them."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from coterie.engines.flower.environment import CHUNK
from coterie.federation.authority import ServerFiles, make_authority, server_certificate
from tests.services import missing, program

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "behind-a-reverse-proxy.md"
HOST = "train.example.org"
STREAM = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
TEMPORARY = "".join(f"{kind}_temp_path {kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))


@dataclass
class Behind:
    """A coordinator's stand-in: it answers with the length of what it was sent."""

    files: ServerFiles
    port: int
    seen: list[dict[str, str]]


@pytest.fixture
def behind(tmp_path: Path) -> Iterator[Behind]:
    make_authority(tmp_path)
    files = server_certificate(tmp_path, [HOST])
    seen: list[dict[str, str]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            seen.append({key.lower(): value for key, value in self.headers.items()})
            body = str(len(self.rfile.read(int(self.headers["content-length"])))).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(files.certificate, files.key)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    yield Behind(files, server.server_address[1], seen)
    server.shutdown()
    server.server_close()


def shown(kind: str) -> str:
    """The configuration on the page that has a line of this kind."""
    blocks = re.findall(r"^```nginx[^\n]*\n(.*?)^```$", PAGE.read_text("utf-8"), re.DOTALL | re.MULTILINE)
    (found,) = (block for block in blocks if kind in block)
    return found


@pytest.fixture(params=["stream {", "proxy_ssl_verify"], ids=["pass-through", "termination"])
def front(request: pytest.FixtureRequest, behind: Behind, tmp_path: Path) -> Iterator[int]:
    """The port of an nginx that is configured as the page says, apart from ports and folders."""
    nginx, port, text = program("nginx", "nginx-light"), free_port(), shown(request.param)
    passes = request.param == "stream {"
    if passes and not STREAM.exists():
        missing("nginx has no stream module (Debian: libnginx-mod-stream)")
    text = re.sub(r"^ *listen \[::\].*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"listen 443\b", f"listen 127.0.0.1:{port}", text).replace(
        "127.0.0.1:9443", f"127.0.0.1:{behind.port}"
    )
    for name, file in (("fullchain", "server.pem"), ("key", "server.key"), ("ca", "ca.pem")):
        text = text.replace(f"/etc/ssl/train/{name}.pem", str(tmp_path / file))
    head = f"load_module {STREAM};\n" if passes else ""
    head += f"daemon off; pid {tmp_path}/nginx.pid; worker_processes 1; events {{ worker_connections 64; }}\n"
    whole = text if passes else f"http {{ access_log off; {TEMPORARY} {text} }}"
    (tmp_path / "nginx.conf").write_text(f"{head}error_log {tmp_path}/error.log;\n{whole}")
    command = [nginx, "-p", str(tmp_path), "-c", f"{tmp_path}/nginx.conf", "-e", f"{tmp_path}/error.log"]
    tried = subprocess.run([*command, "-t"], capture_output=True, text=True, check=False)
    assert tried.returncode == 0, tried.stderr
    assert "[warn]" not in tried.stderr
    process = subprocess.Popen(command)
    wait_for(port)
    yield port
    process.terminate()
    assert process.wait(10) == 0


def test_a_node_reaches_the_coordinator_through_it(front: int, behind: Behind) -> None:
    status, answer, certificate = asked(front, behind, b"x" * (CHUNK + (1 << 20)))  # the largest that nodes send
    assert (status, answer) == (200, str(CHUNK + (1 << 20)).encode())
    assert certificate == ssl.PEM_cert_to_DER_cert(behind.files.certificate.read_text())


def test_what_nodes_sign_arrives_as_it_was_sent(front: int, behind: Behind) -> None:
    asked(front, behind, b"x", {"flwr-signature": "c2ln", "flwr-public-key": "a2V5", "flwr-timestamp": "now"})
    (seen,) = behind.seen
    assert (seen["flwr-signature"], seen["flwr-public-key"], seen["flwr-timestamp"]) == ("c2ln", "a2V5", "now")


class Resolved(HTTPSConnection):
    """A connection that asks for HOST, and goes to this machine for it."""

    def __init__(self, port: int, trusted: ssl.SSLContext) -> None:
        super().__init__(HOST, port, timeout=10)
        self.trusted = trusted

    def connect(self) -> None:
        plain = socket.create_connection(("127.0.0.1", self.port), 10)
        self.sock = self.trusted.wrap_socket(plain, server_hostname=HOST)


def asked(
    port: int, behind: Behind, body: bytes, headers: dict[str, str] | None = None
) -> tuple[int, bytes, bytes | None]:
    """Status, answer, and the certificate that was shown; trusting the federation's authority alone."""
    trusted = ssl.create_default_context(cafile=str(behind.files.ca))
    connection = Resolved(port, trusted)
    try:
        connection.request("POST", "/v1/fleet/push-object", body, headers or {})
        certificate = connection.sock.getpeercert(binary_form=True)
        response = connection.getresponse()
        return response.status, response.read(), certificate
    finally:
        connection.close()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def wait_for(port: int) -> None:
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return
        time.sleep(0.02)
    raise AssertionError("nginx does not listen")
