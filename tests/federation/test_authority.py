"""The certificate authority and the server's certificate: what a TLS client takes is taken here, and nothing else."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from coterie.errors import ConfigError, DataError
from coterie.federation import authority
from coterie.federation.authority import ServerFiles, make_authority, server_certificate
from coterie.federation.certificate import check_certificate

HOSTS = ["localhost", "127.0.0.1", "::1"]


@pytest.fixture
def files(tmp_path: Path) -> ServerFiles:
    make_authority(tmp_path, "shops")
    return server_certificate(tmp_path, HOSTS)


def own(folder: Path, *hosts: str, days: float = 90.0, since: float = 1.0) -> ServerFiles:
    """An operator's own certificate, which signs itself; without hosts it has no alternative names."""
    folder.mkdir()
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "own")])
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=since)).not_valid_after(now + timedelta(days=days))
    if hosts:
        names = x509.SubjectAlternativeName([x509.DNSName(host) for host in hosts])
        builder = builder.add_extension(names, critical=False)
    pem = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
    (folder / "own.pem").write_bytes(pem)
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "own.key").write_bytes(secret)
    (folder / "own.key").chmod(0o600)
    return ServerFiles(folder / "own.pem", folder / "own.key", folder / "own.pem")


def talk(files: ServerFiles, host: str, ca: Path) -> bytes:
    """What a strict TLS client hears from a server with these files, over a real socket."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.certificate, files.key)
    client = ssl.create_default_context(cafile=ca)
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            accepted, _ = listening.accept()
            try:
                with server.wrap_socket(accepted, server_side=True) as secured:
                    secured.sendall(b"welcome")
            except (ssl.SSLError, OSError):
                accepted.close()  # the client has turned it away

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            with (
                socket.create_connection(listening.getsockname(), timeout=10) as raw,
                client.wrap_socket(raw, server_hostname=host) as secured,
            ):
                return secured.recv(100)
        finally:
            thread.join()


@pytest.mark.parametrize("host", HOSTS)
def test_a_client_that_trusts_the_authority_is_served(files: ServerFiles, host: str) -> None:
    assert talk(files, host, files.ca) == b"welcome"


def test_a_client_is_not_fooled_by_another_host_or_authority(files: ServerFiles, tmp_path: Path) -> None:
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        talk(files, "example.org", files.ca)
    with pytest.raises(ssl.SSLCertVerificationError, match=r"self-signed|unable to get local issuer"):
        talk(files, "localhost", make_authority(tmp_path / "other"))


@pytest.mark.skipif(os.name != "posix", reason="file modes are of POSIX")
def test_private_keys_are_their_owners_alone(files: ServerFiles) -> None:
    modes = {path.name: path.stat().st_mode & 0o777 for path in (files.ca.with_name("ca.key"), files.key)}
    assert modes == {"ca.key": 0o600, "server.key": 0o600}


def test_the_authority_stays_and_so_does_a_certificate_that_will_do(files: ServerFiles, tmp_path: Path) -> None:
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    make_authority(tmp_path, "another name")
    assert server_certificate(tmp_path, ["127.0.0.1"]) == files
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_authority_that_was_interrupted_is_finished(tmp_path: Path) -> None:
    make_authority(tmp_path)
    (tmp_path / "ca.pem").unlink()  # the key is written first
    make_authority(tmp_path)
    check_certificate(server_certificate(tmp_path, HOSTS), "localhost")


def _soon(files: ServerFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(authority, "RENEW_DAYS", 500)


def _key_gone(files: ServerFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    files.key.unlink()


def _key_of_another(files: ServerFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copy(files.ca.with_name("ca.key"), files.key)


def _damaged(files: ServerFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    files.certificate.write_text("damaged")


def _open_key(files: ServerFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    files.key.chmod(0o644)


def _foreign(files: ServerFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    made = own(files.ca.parent / "own", "localhost")
    shutil.copy(made.certificate, files.certificate)
    shutil.copy(made.key, files.key)


@pytest.mark.parametrize("spoil", [_soon, _key_gone, _key_of_another, _damaged, _open_key, _foreign])
def test_a_certificate_that_will_not_do_is_made_anew(files: ServerFiles, monkeypatch, spoil) -> None:
    before = files.certificate.read_bytes()
    spoil(files, monkeypatch)
    server_certificate(files.ca.parent, ["localhost"])
    assert files.certificate.read_bytes() != before
    check_certificate(files, "localhost")


def test_another_host_makes_another_certificate(files: ServerFiles) -> None:
    server_certificate(files.ca.parent, [*HOSTS, "train.example.org"])
    assert check_certificate(files, "train.example.org").hosts == ("localhost", "train.example.org", "127.0.0.1", "::1")


def test_what_is_left_is_said(files: ServerFiles) -> None:
    facts = check_certificate(files, "localhost")
    assert (facts.issuer, facts.days_left, set(facts.hosts)) == ("CN=shops", 396, set(HOSTS))
    assert facts.ends - datetime.now(UTC) > timedelta(days=396)


@pytest.mark.parametrize("hosts", [[], ["not a host"], [""], ["a" * 70]])
def test_what_can_be_no_host_is_refused(tmp_path: Path, hosts: list[str]) -> None:
    make_authority(tmp_path)
    with pytest.raises(ConfigError, match=r"neither a host's name nor an IP address|needs a host"):
        server_certificate(tmp_path, hosts)
    assert not (tmp_path / "server.pem").exists()


def test_without_an_authority_nothing_is_signed(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such certificate authority; `coterie coordinator init` makes one"):
        server_certificate(tmp_path, ["localhost"])


def test_an_authority_that_does_not_fit_together_is_refused(files: ServerFiles, tmp_path: Path) -> None:
    make_authority(tmp_path / "other")
    shutil.copy(tmp_path / "other" / "ca.key", tmp_path / "ca.key")
    with pytest.raises(DataError, match=r"ca\.key: not the key of .*ca\.pem; restore both"):
        make_authority(tmp_path)
    (tmp_path / "ca.key").unlink()
    with pytest.raises(ConfigError, match=r"ca\.key: the key of the certificate authority is missing"):
        server_certificate(tmp_path, ["localhost"])
    (tmp_path / "ca.key").write_text("damaged")
    (tmp_path / "ca.key").chmod(0o600)
    with pytest.raises(DataError, match="not a usable private key"):
        make_authority(tmp_path)


def test_an_own_certificate_will_do(tmp_path: Path) -> None:
    files = own(tmp_path / "own", "*.example.org", "example.org")
    for host in ("train.example.org", "EXAMPLE.org"):
        assert check_certificate(files, host).days_left == 89
    for host in ("a.b.example.org", "example.com", "127.0.0.1"):
        with pytest.raises(ConfigError, match=rf"is for \*\.example\.org, example\.org and nodes .* '{host}'"):
            check_certificate(files, host)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"days": -0.5}, "is valid from .* to .* this machine's clock says .* UTC; renew it, or set the clock"),
        ({"since": -1.0}, "is valid from .*; renew it, or set the clock"),
    ],
)
def test_an_own_certificate_out_of_its_time_is_refused(tmp_path: Path, more: dict[str, float], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        check_certificate(own(tmp_path / "own", "localhost", **more), "localhost")


def test_time_is_that_of_the_caller(files: ServerFiles) -> None:
    in_a_year = datetime.now(UTC) + timedelta(days=390)
    assert check_certificate(files, "localhost", in_a_year).days_left == 6
    with pytest.raises(ConfigError, match="renew it"):
        check_certificate(files, "localhost", in_a_year + timedelta(days=7))


def test_an_own_certificate_without_names_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is for no host and nodes reach this server at 'localhost'"):
        check_certificate(own(tmp_path / "own"), "localhost")


def test_files_that_do_not_belong_together_are_refused(files: ServerFiles, tmp_path: Path) -> None:
    mine = own(tmp_path / "own", "localhost")
    with pytest.raises(ConfigError, match=r"own\.key: is not the key of .*server\.pem"):
        check_certificate(ServerFiles(files.certificate, mine.key, files.ca), "localhost")
    with pytest.raises(ConfigError, match=r"server\.pem: a client that trusts .*own\.pem refuses it \(unable to get"):
        check_certificate(ServerFiles(files.certificate, files.key, mine.ca), "localhost")


def _password(key: Path) -> None:
    secret = serialization.load_pem_private_key(key.read_bytes(), None)
    hidden = serialization.BestAvailableEncryption(b"hush")
    key.write_bytes(secret.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, hidden))


@pytest.mark.parametrize(
    ("name", "spoil", "error", "sentence"),
    [
        ("server.pem", Path.unlink, ConfigError, r"server\.pem: no such certificate; correct its name in \[tls\]"),
        ("server.key", Path.unlink, ConfigError, r"server\.key: no such key; correct its name in \[tls\]"),
        ("ca.pem", Path.unlink, ConfigError, r"ca\.pem: no such certificate"),
        ("ca.pem", lambda path: path.write_text("damaged"), DataError, r"ca\.pem: no certificate in PEM format"),
        ("server.key", lambda path: path.write_text("x"), DataError, r"server\.key: no private key in PEM format"),
        ("server.key", _password, DataError, "is protected by a password; a server needs it without"),
        ("server.key", lambda path: path.chmod(0o640), DataError, r"a secret that others may read \(mode 0640\)"),
    ],
)
def test_a_spoilt_file_is_one_sentence(files: ServerFiles, name: str, spoil, error, sentence: str) -> None:
    spoil(files.ca.with_name(name))
    with pytest.raises(error, match=sentence) as caught:
        check_certificate(files, "localhost")
    assert "\n" not in str(caught.value)
