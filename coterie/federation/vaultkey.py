"""The key of a vault: an age X25519 identity in a file of its own, in the clear (mode 0600) or under a passphrase.

The file is one that `age-keygen` could have made, and what is encrypted with it is in age's format: the vault can be
read with the `age` program alone. Whoever knows the public key could encrypt too, so what must be authentic has a MAC
besides, under a key that is derived from the secret.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coterie.errors import ConfigError, DataError, MissingExtra
from coterie.files import read_bytes, require_private, write_private
from coterie.secure.keys import hkdf, hmac_sha256

PASSPHRASE = "COTERIE_VAULT_PASSPHRASE"  # noqa: S105 - the name of a variable
_PROTECTED = (b"age-encryption.org/", b"-----BEGIN AGE ENCRYPTED FILE-----")
_SECRET = "AGE-SECRET-KEY-1"  # noqa: S105 - how any such key begins


class VaultKey:
    """An age identity (``AGE-SECRET-KEY-1...``); `source` names where it came from.

    Raises:
        DataError: it is not one.
        MissingExtra: pyrage is not installed.
    """

    def __init__(self, secret: str, source: str = "the key") -> None:
        x25519 = _pyrage().x25519
        try:
            self._identity = x25519.Identity.from_str(secret)
        except _pyrage().IdentityError as error:
            raise DataError(f"{source}: not an age identity ({error}); restore the vault's key file") from None
        self.source = source
        self._recipient = self._identity.to_public()
        self._mac_key = hkdf(secret.encode(), b"coterie vault head 1", 32)

    @classmethod
    def open(cls, path: Path, passphrase: str | None = None, create: bool = False) -> VaultKey:
        """Read a key file; with `create` make one where there is none.

        Args:
            path: the key file.
            passphrase: what protects it; by default that of the environment variable COTERIE_VAULT_PASSPHRASE, if it
                is set. A file that is made is protected by it.
            create: whether to make a file that is missing.

        Raises:
            ConfigError: missing, or a passphrase is missing, empty, or given for a file that has none.
            DataError: not a key, damaged, readable by others, or the passphrase is wrong.
            EnvironmentFault: it cannot be read or written; MissingExtra where pyrage is not installed.
        """
        given = os.environ.get(PASSPHRASE) if passphrase is None else passphrase
        if given == "":
            raise ConfigError(f"{path}: the passphrase is empty; give one, or unset {PASSPHRASE} for a key without")
        if not path.exists():
            if not create:
                raise ConfigError(f"{path}: no such key file; restore it: without it the vault cannot be read")
            return _made(path, given)
        content = read_bytes(path)
        require_private(path)
        return cls(_secret(_unprotected(path, content, given), path), str(path))

    def encrypt(self, content: bytes) -> bytes:
        """`content` as an age file that this key opens."""
        return bytes(_pyrage().encrypt(content, [self._recipient]))

    def decrypt(self, sealed: bytes, source: str) -> bytes:
        """What was encrypted; `source` names the file.

        Raises:
            DataError: made for another key, altered or truncated.
        """
        try:
            return bytes(_pyrage().decrypt(sealed, [self._identity]))
        except _pyrage().DecryptError as error:
            raise DataError(
                f"{source}: {self.source} does not decrypt it ({error}): it is damaged, or belongs to another key; "
                "restore the file, or name the key file that the vault was made with"
            ) from None

    def mac(self, content: bytes) -> bytes:
        """HMAC-SHA-256 under a key that only the owner of this identity can derive."""
        return hmac_sha256(self._mac_key, content)


def _made(path: Path, passphrase: str | None) -> VaultKey:
    """A new key file; if another process was first, that one's."""
    identity = _pyrage().x25519.Identity.generate()
    made = f"# created: {datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}\n# public key: {identity.to_public()}\n{identity}\n"
    content = made.encode()
    if passphrase is not None:
        content = bytes(_pyrage().passphrase.encrypt(content, passphrase))
    try:
        write_private(path, content, replace=False)
    except FileExistsError:
        return VaultKey.open(path, passphrase)
    return VaultKey(str(identity), str(path))


def _unprotected(path: Path, content: bytes, passphrase: str | None) -> bytes:
    if not content.startswith(_PROTECTED):
        if passphrase is not None:
            raise ConfigError(
                f"{path}: this key file has no passphrase, though one was given; protect it with `age -p`, or unset "
                f"{PASSPHRASE}"
            )
        return content
    if passphrase is None:
        raise ConfigError(f"{path}: protected by a passphrase; put it into the environment variable {PASSPHRASE}")
    try:
        return bytes(_pyrage().passphrase.decrypt(content, passphrase))
    except _pyrage().DecryptError as error:
        raise DataError(
            f"{path}: the passphrase does not open it ({error}): correct it, or restore the file if it is damaged"
        ) from None


def _secret(content: bytes, path: Path) -> str:
    """The one identity in a key file."""
    lines = [line.strip() for line in content.decode(errors="replace").splitlines()]
    found = [line for line in lines if line and not line.startswith("#")]
    if len(found) != 1 or not found[0].startswith(_SECRET):
        raise DataError(
            f"{path}: holds {len(found)} lines where one '{_SECRET}...' is due; restore the vault's key file"
        )
    return found[0]


def _pyrage() -> Any:
    try:
        import pyrage
    except ImportError:
        raise MissingExtra("a vault", "atrest") from None
    return pyrage
