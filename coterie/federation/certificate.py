"""Whether a server's certificate will do, found out before any node is turned away by it.

The last word has TLS itself: a handshake in memory between these files and a client that trusts the authority alone, as
nodes will.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization

from coterie.errors import ConfigError, DataError
from coterie.federation.authority import ServerFiles, general_name, read_certificates
from coterie.files import read_bytes, require_private

MOST_FLIGHTS = 10  # of a handshake in memory; TLS 1.3 takes two


@dataclass(frozen=True)
class CertificateFacts:
    """What a checked certificate says: for whom it is, who signed it, until when, and whole days left."""

    hosts: tuple[str, ...]
    issuer: str
    ends: datetime
    days_left: int


def check_certificate(files: ServerFiles, host: str, now: datetime | None = None) -> CertificateFacts:
    """Check that a server with these files will be accepted at `host` by whoever trusts ``files.ca``.

    Args:
        files: the server's certificate (with intermediate ones), its key, the authority.
        host: where nodes reach it: a name or an IP address, without a port.
        now: the time; by default this machine's.

    Raises:
        ConfigError: a file is missing, or the certificate is not for this host, has expired or is not valid yet, has
            another key, or was not signed by the authority.
        DataError: a file is not what it should be, or others may read the key.
    """
    certificate = read_certificates(files.certificate)[0]
    read_certificates(files.ca)
    _check_key(files, certificate)
    hosts = _hosts(certificate)
    if not _covers(certificate, host):
        raise ConfigError(
            f"{files.certificate}: is for {', '.join(hosts) or 'no host'} and nodes reach this server at '{host}'; "
            "take a certificate that names it (subject alternative name), or change the address"
        )
    at = now or datetime.now(UTC)
    start, end = certificate.not_valid_before_utc, certificate.not_valid_after_utc
    if not start <= at <= end:
        raise ConfigError(
            f"{files.certificate}: is valid from {start:%Y-%m-%d} to {end:%Y-%m-%d} and this machine's clock says "
            f"{at:%Y-%m-%d %H:%M} UTC; renew it, or set the clock if that is wrong"
        )
    if now is None:
        _shake_hands(files, host)
    return CertificateFacts(hosts, certificate.issuer.rfc4514_string(), end, (end - at).days)


def _check_key(files: ServerFiles, certificate: x509.Certificate) -> None:
    if not files.key.is_file():
        raise ConfigError(f"{files.key}: no such key; correct its name in [tls]")
    content = read_bytes(files.key)
    require_private(files.key)
    try:
        key = serialization.load_pem_private_key(content, password=None)
    except TypeError:
        raise DataError(f"{files.key}: is protected by a password; a server needs it without (openssl pkey)") from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise DataError(f"{files.key}: no private key in PEM format ({error}); convert it with openssl pkey") from None
    if key.public_key() != certificate.public_key():
        raise ConfigError(f"{files.key}: is not the key of {files.certificate}; name the two that belong together")


def _hosts(certificate: x509.Certificate) -> tuple[str, ...]:
    names = _alternative_names(certificate)
    addresses = names.get_values_for_type(x509.IPAddress)
    return (*names.get_values_for_type(x509.DNSName), *(str(address) for address in addresses))


def _covers(certificate: x509.Certificate, host: str) -> bool:
    """Whether a client that asks for `host` takes the certificate for it (RFC 9525: a * stands for one whole label)."""
    names, asked = _alternative_names(certificate), general_name(host)
    if isinstance(asked, x509.IPAddress):
        return asked in names
    wild = f"*.{asked.value.partition('.')[2]}"
    return bool({asked.value, wild} & {name.lower() for name in names.get_values_for_type(x509.DNSName)})


def _alternative_names(certificate: x509.Certificate) -> x509.SubjectAlternativeName:
    try:
        return certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return x509.SubjectAlternativeName([])


def _shake_hands(files: ServerFiles, host: str) -> None:
    """A TLS handshake in memory, with a client that trusts the authority and nothing else."""
    try:
        server, client = _contexts(files)
        to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
        sides = [
            client.wrap_bio(to_client, to_server, server_hostname=host),
            server.wrap_bio(to_server, to_client, server_side=True),
        ]
        for _ in range(MOST_FLIGHTS):
            sides = [side for side in sides if not _done(side)]
            if not sides:
                return
    except ssl.SSLCertVerificationError as error:
        raise ConfigError(
            f"{files.certificate}: a client that trusts {files.ca} refuses it ({error.verify_message}); take the "
            "authority that signed it, and put intermediate certificates behind the server's in one file"
        ) from None
    except ssl.SSLError as error:
        raise ConfigError(f"{files.certificate}: no TLS server can be run with it ({error.reason or error})") from None
    raise ConfigError(f"{files.certificate}: a TLS handshake with it does not end; take another certificate")


def _contexts(files: ServerFiles) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(files.certificate, files.key)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(files.ca)
    return server, client


def _done(side: ssl.SSLObject) -> bool:
    try:
        side.do_handshake()
    except ssl.SSLWantReadError:
        return False
    return True
