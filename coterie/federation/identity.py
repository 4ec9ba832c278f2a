"""The keys of a party: an Ed25519 identity that others pin, and a transport key that may open a connection.

The identity signs everything and is what a person compares. The transport key (ECDSA P-384, in the format of OpenSSH)
is what Flower's node authentication asks for; it proves nothing but who may connect.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from coterie.errors import ConfigError, DataError, EnvironmentFault
from coterie.files import read_bytes, require_private, write_private
from coterie.secure.keys import Identity, fingerprint

IDENTITY, TRANSPORT = "identity.pem", "transport.pem"
_PEM = serialization.Encoding.PEM
_PLAIN = serialization.NoEncryption()


class Identities:
    """The two keys in a folder, each readable by its owner alone."""

    def __init__(self, folder: Path, identity: Identity, transport: ec.EllipticCurvePrivateKey) -> None:
        self.folder = folder
        self.identity = identity
        self._transport = transport

    @classmethod
    def open(cls, folder: Path, create: bool = False) -> Identities:
        """Read the keys of a party; with `create` those that are missing are made.

        Raises:
            ConfigError: a key is missing and none is to be made.
            DataError: a file is not such a key, or others may read it.
            EnvironmentFault: it cannot be read or written.
        """
        if create:
            _make_folder(folder)
            _make(folder / IDENTITY, _new_identity)
            _make(folder / TRANSPORT, _new_transport)
        return cls(folder, _identity(folder / IDENTITY), _transport(folder / TRANSPORT))

    @property
    def public(self) -> bytes:
        """The identity's public key: 32 bytes."""
        return self.identity.public

    @property
    def fingerprint(self) -> str:
        """What others pin of the identity: 32 hexadecimal characters."""
        return fingerprint(self.public)

    @property
    def transport_path(self) -> Path:
        """The file of the private transport key."""
        return self.folder / TRANSPORT

    @property
    def transport_public(self) -> str:
        """The public transport key as an OpenSSH line."""
        public = self._transport.public_key()
        return public.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def check_transport(line: str) -> str:
    """A public transport key in its one spelling: "ecdsa-sha2-nistp384 AAAA...", without a comment.

    Raises:
        DataError: it is no ECDSA P-384 key in OpenSSH's format.
    """
    try:
        key = serialization.load_ssh_public_key(line.encode())
    except (ValueError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP384R1):
        raise DataError(f"a transport key must be an OpenSSH line 'ecdsa-sha2-nistp384 AAAA...', got {line[:40]!r}")
    return key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH).decode()


def _make_folder(folder: Path) -> None:
    """A folder that its owner alone may look into, if it is new: models made of own rows will lie in it."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentFault(f"{folder}: the folder cannot be made: {error.strerror or error}") from None


def _identity(path: Path) -> Identity:
    key = _loaded(path, "Ed25519 private key (PKCS 8, PEM)", serialization.load_pem_private_key)
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise _no_key(path, "Ed25519 private key (PKCS 8, PEM)", "it is of another kind")
    return Identity(key.private_bytes_raw())


def _transport(path: Path) -> ec.EllipticCurvePrivateKey:
    key = _loaded(path, "ECDSA P-384 private key in OpenSSH's format", serialization.load_ssh_private_key)
    if not isinstance(key, ec.EllipticCurvePrivateKey) or not isinstance(key.curve, ec.SECP384R1):
        raise _no_key(path, "ECDSA P-384 private key in OpenSSH's format", "it is of another kind")
    return key


def _loaded(path: Path, kind: str, load: Callable[..., object]) -> object:
    """A key without a password from a file that its owner alone may read."""
    if not path.exists():
        raise ConfigError(
            f"{path}: no such key; `coterie coordinator init` or `coterie node join` makes one, or restore the folder"
        )
    content = read_bytes(path)
    require_private(path)
    try:
        return load(content, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:  # TypeError: it has a password
        raise _no_key(path, kind, str(error)) from None


def _no_key(path: Path, kind: str, reason: str) -> DataError:
    return DataError(f"{path}: not a usable {kind} ({reason}); restore it from a backup, or enrol anew in a new folder")


def _make(path: Path, new: Callable[[], bytes]) -> None:
    """Write a new key; if there is one already, or another process was first, that one stays."""
    if not path.exists():
        with contextlib.suppress(FileExistsError):
            write_private(path, new(), replace=False)


def _new_identity() -> bytes:
    return ed25519.Ed25519PrivateKey.generate().private_bytes(_PEM, serialization.PrivateFormat.PKCS8, _PLAIN)


def _new_transport() -> bytes:
    key = ec.generate_private_key(ec.SECP384R1())
    return key.private_bytes(_PEM, serialization.PrivateFormat.OpenSSH, _PLAIN)
