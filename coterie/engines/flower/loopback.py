"""A certificate for this machine alone, so that not even processes of one machine talk in the clear."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from coterie.files import write_bytes, write_private

_LIFE = timedelta(days=3650)  # it is made anew at each start


@dataclass(frozen=True)
class LoopbackTls:
    """Files of a certificate for 127.0.0.1 that signs for itself, and of its key."""

    certificate: Path
    key: Path

    @classmethod
    def make(cls, folder: Path) -> LoopbackTls:
        """Make a new one in `folder`; the key is readable by its owner alone."""
        made = cls(folder / "loopback.pem", folder / "loopback.key")
        key = ec.generate_private_key(ec.SECP256R1())
        write_private(
            made.key,
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
        )
        write_bytes(made.certificate, _certificate(key).public_bytes(serialization.Encoding.PEM))
        return made


def _certificate(key: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "coterie on this machine")])
    now = datetime.now(UTC)
    address = x509.IPAddress(ipaddress.ip_address("127.0.0.1"))
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + _LIFE)
        .add_extension(x509.SubjectAlternativeName([address]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .sign(key, hashes.SHA256())
    )
