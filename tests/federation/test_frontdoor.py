"""A node's first request to its coordinator, and what is said when it fails: real TLS servers, loopback."""

import ipaddress
import json
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from coterie.errors import DataError, PeerError
from coterie.federation.authority import make_authority, server_certificate
from coterie.federation.frontdoor import ENROL, ROSTER, ask, trouble


class Handler(BaseHTTPRequestHandler):
    """Echoes; refuses what it does not like; its clock may be off."""

    ahead = 0.0

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if body == b"no":
            self._reply(403, json.dumps({"detail": "the invitation has expired"}).encode())
        elif body == b"odd":
            self._reply(502, b"<html>a proxy's page</html>")
        else:
            self._reply(200, b"posted " + body)

    def do_GET(self) -> None:
        self._reply(200, b"the roster") if self.path == ROSTER else self._reply(404, b'{"detail": "nothing here"}')

    def date_time_string(self, timestamp: float | None = None) -> str:
        return formatdate(time.time() + self.ahead, usegmt=True)

    def log_message(self, format: str, *arguments: object) -> None:
        pass

    def _reply(self, status: int, content: bytes) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@contextmanager
def serving(certificate: Path | None, key: Path | None, ahead: float = 0.0) -> Iterator[str]:
    """A server's address; without a certificate it speaks in the clear."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (Handler,), {"ahead": ahead}))
    server.handle_error = lambda *_: None  # type: ignore[method-assign]
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(scope="module")
def ca(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_authority(tmp_path_factory.mktemp("ca"))


@pytest.fixture(scope="module")
def address(ca: Path) -> Iterator[str]:
    made = server_certificate(ca.parent, ["127.0.0.1"])
    with serving(made.certificate, made.key) as address:
        yield address


def test_requests_are_answered(address: str, ca: Path) -> None:
    assert ask(address, ca, ENROL, b"me") == b"posted me"
    assert ask(address, ca, ROSTER) == b"the roster"
    assert trouble(address, ca) == ""


def test_a_refusal_is_told(address: str, ca: Path) -> None:
    with pytest.raises(PeerError, match=re.escape(f"{address} refuses: the invitation has expired")):
        ask(address, ca, ENROL, b"no")
    with pytest.raises(PeerError, match=r"refuses: status 502 .*; is this the address of a coordinator\?"):
        ask(address, ca, ENROL, b"odd")


def test_another_ca_is_not_trusted(address: str, tmp_path: Path) -> None:
    other = make_authority(tmp_path)
    with pytest.raises(
        PeerError, match=r"its certificate is not of the invitation's CA .* ask it for a new invitation"
    ):
        ask(address, other, ENROL, b"me")
    assert "somebody may stand between" in trouble(address, other)


def test_a_certificate_for_another_address(ca: Path) -> None:
    made = server_certificate(ca.parent, ["elsewhere.example"])
    with serving(made.certificate, made.key) as elsewhere:
        assert trouble(elsewhere, ca) == "its certificate is for another address; use the one in the invitation"


@pytest.mark.parametrize(
    ("begins", "ends", "said"),
    [(-2, -1, "its certificate has expired"), (1, 2, "its certificate is not valid yet; set this machine's clock")],
)
def test_a_certificate_of_another_time(tmp_path: Path, begins: int, ends: int, said: str) -> None:
    certificate, key = dated(tmp_path, begins, ends)
    with serving(certificate, key) as address:
        assert trouble(address, certificate).startswith(said)


@pytest.mark.parametrize(("ahead", "said"), [(-60.0, "60 s ahead of"), (400.0, "400 s behind")])
def test_a_clock_that_is_off_is_noticed(ca: Path, ahead: float, said: str) -> None:
    made = server_certificate(ca.parent, ["127.0.0.1"])
    with serving(made.certificate, made.key, ahead) as address:
        found = trouble(address, ca)
    assert found.startswith("this machine's clock is ")
    assert abs(float(found.split()[4]) - abs(ahead)) <= 2
    assert said.split(maxsplit=2)[2] in found


def test_nobody_there(ca: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    with pytest.raises(PeerError, match=rf"127\.0\.0\.1:{port}: nobody listens there; check address and port"):
        ask(f"127.0.0.1:{port}", ca, ENROL, b"me")


def test_no_answer_in_time(ca: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        assert trouble(address, ca, 0.3) == "no answer in time; check the address, firewalls and HTTPS_PROXY"


def test_no_tls_there(ca: Path) -> None:
    with serving(None, None) as address:
        assert "does not speak TLS" in trouble(address, ca)


def test_no_such_host(ca: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    assert trouble("no-such-host.invalid:443", ca).startswith("there is no such host")


def test_no_proxy_stands_between_processes_of_one_machine(
    address: str, ca: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    assert ask(address, ca, ROSTER) == b"the roster"
    assert trouble("coordinator.example:443", ca).startswith("nobody listens there")


def test_a_damaged_ca(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("no certificate")
    with pytest.raises(DataError, match=r"ca\.pem: not a CA certificate \(PEM\): .*; restore it from the invitation"):
        ask("127.0.0.1:1", tmp_path / "ca.pem", ENROL, b"")


def dated(folder: Path, begins: int, ends: int) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 that is its own CA, valid from and until so many days from now, and its key."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now + timedelta(days=begins))
        .not_valid_after(now + timedelta(days=ends))
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = folder / "certificate.pem", folder / "key.pem"
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    paths[1].write_bytes(key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain))
    return paths
