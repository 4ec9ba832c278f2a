"""The coordinator's own certificate authority, and the server's certificate that it signs.

Nodes trust this authority alone: its certificate travels in the invitation. It signs nothing but servers' certificates
of this coordinator. An operator who has a certificate already uses that (`coterie.federation.certificate`).
"""

from __future__ import annotations

import contextlib
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from coterie.errors import ConfigError, DataError
from coterie.files import read_bytes, require_private, write_bytes, write_private

CA, CA_KEY, SERVER, SERVER_KEY = "ca.pem", "ca.key", "server.pem", "server.key"
CA_YEARS, SERVER_DAYS = 10, 397  # what other implementations of TLS accept at most of a server
RENEW_DAYS = 30  # a certificate with less left is made anew
SKEW = timedelta(days=1)  # clocks of nodes may be behind
LONGEST_NAME = 64  # of a common name (RFC 5280)
_LABEL = r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?"
_HOST = re.compile(rf"{_LABEL}(\.{_LABEL})*")


@dataclass(frozen=True)
class ServerFiles:
    """What a TLS server needs, as PEM files: its certificate, the private key of that, and who signed it."""

    certificate: Path
    key: Path
    ca: Path


def make_authority(folder: Path, name: str = "Coterie federation") -> Path:
    """Make a certificate authority in `folder` (``ca.pem``, and ``ca.key`` for its owner alone); returns ``ca.pem``.

    One that is there stays: nodes trust it.

    Raises:
        DataError: what is there is damaged, or its two files do not belong together.
        ConfigError: its certificate is there without its key.
        EnvironmentFault: the folder cannot be written.
    """
    path, key_path = folder / CA, folder / CA_KEY
    if path.exists():
        _authority(folder)
        return path
    # The key first: a key without a certificate is finished at the next call, the other way round would be lost.
    if not key_path.exists():
        with contextlib.suppress(FileExistsError):
            write_private(key_path, _pem(_new_key()), replace=False)
    key = _key(key_path)
    subject = _named(name)
    now = datetime.now(UTC)
    builder = _builder(subject, subject, key.public_key(), now - SKEW, now + timedelta(days=365.25 * CA_YEARS))
    certificate = (
        builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(signs_certificates=True), critical=True)
        .sign(key, hashes.SHA256())
    )
    write_bytes(path, certificate.public_bytes(serialization.Encoding.PEM))
    return path


def server_certificate(folder: Path, hosts: Sequence[str]) -> ServerFiles:
    """A certificate of the authority in `folder` for a server that is reached at `hosts` (names or IP addresses).

    The one that is there stays while it covers all of them and has more than 30 days left; otherwise ``server.pem`` and
    ``server.key`` are made anew.

    Raises:
        ConfigError: no hosts, one that can be none, or no authority; `make_authority` makes it.
        DataError: the authority's files are damaged.
        EnvironmentFault: the folder cannot be written.
    """
    files = ServerFiles(folder / SERVER, folder / SERVER_KEY, folder / CA)
    wanted = [general_name(host) for host in dict.fromkeys(hosts)]
    if not wanted:
        raise ConfigError("a server's certificate needs a host that it is reached at; give its name or IP address")
    authority, authority_key = _authority(folder)
    if _serves(files, wanted, authority):
        return files
    key, now = _new_key(), datetime.now(UTC)
    end = min(now + timedelta(days=SERVER_DAYS), authority.not_valid_after_utc)
    builder = _builder(_named(hosts[0]), authority.subject, key.public_key(), now - SKEW, end)
    certificate = (
        builder.add_extension(x509.SubjectAlternativeName(wanted), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(signs_certificates=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority_key.public_key()), critical=False)
        .sign(authority_key, hashes.SHA256())
    )
    # A crash between the two leaves a pair that does not match, which is noticed and made anew at the next call.
    write_private(files.key, _pem(key))
    write_bytes(files.certificate, certificate.public_bytes(serialization.Encoding.PEM))
    return files


def read_certificates(path: Path) -> list[x509.Certificate]:
    """The certificates in a PEM file, in order.

    Raises:
        ConfigError: there is no such file.
        DataError: it holds none.
    """
    if not path.is_file():
        raise ConfigError(
            f"{path}: no such certificate; correct its name in [tls], or leave [tls] out to have one made"
        )
    try:
        return x509.load_pem_x509_certificates(read_bytes(path))
    except ValueError as error:
        raise DataError(f"{path}: no certificate in PEM format ({error}); convert it with openssl x509") from None


def general_name(host: str) -> x509.DNSName | x509.IPAddress:
    """A host as it stands in a certificate: an IP address, or a name in lower case and ASCII.

    Raises:
        ConfigError: it is neither.
    """
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    try:
        name = host.encode("idna").decode().lower()
    except UnicodeError:
        name = ""
    if not _HOST.fullmatch(name):
        raise ConfigError(f"'{host}' is neither a host's name nor an IP address; correct the address")
    return x509.DNSName(name)


def _authority(folder: Path) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    if not (folder / CA).exists():
        raise ConfigError(f"{folder / CA}: no such certificate authority; `coterie coordinator init` makes one")
    certificate, key = read_certificates(folder / CA)[0], _key(folder / CA_KEY)
    if certificate.public_key() != key.public_key():
        raise DataError(f"{folder / CA_KEY}: not the key of {folder / CA}; restore both from one backup")
    return certificate, key


def _key(path: Path) -> ec.EllipticCurvePrivateKey:
    if not path.exists():
        raise ConfigError(f"{path}: the key of the certificate authority is missing; restore it from a backup")
    content = read_bytes(path)
    require_private(path)
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: it has a password
        raise DataError(f"{path}: not a usable private key ({error}); restore it from a backup") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise DataError(f"{path}: not an elliptic-curve key, as Coterie makes them; restore it from a backup")
    return key


def _serves(files: ServerFiles, wanted: Sequence[x509.GeneralName], authority: x509.Certificate) -> bool:
    """Whether the server's files are there, belong together and to the authority, cover the hosts and last."""
    if not files.certificate.exists() or not files.key.exists():
        return False
    try:
        certificate, key = read_certificates(files.certificate)[0], _key(files.key)
        certificate.verify_directly_issued_by(authority)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (DataError, ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound):
        return False  # nothing rests on these two files: new ones are as good
    left = certificate.not_valid_after_utc - datetime.now(UTC)
    lasts = left > timedelta(days=RENEW_DAYS) or certificate.not_valid_after_utc == authority.not_valid_after_utc
    return lasts and set(wanted) <= set(names) and certificate.public_key() == key.public_key()


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, start: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _usage(signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name[:LONGEST_NAME])])


def _new_key() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
