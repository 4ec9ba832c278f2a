"""The head of a vault: which objects it holds, the digest of each, and how many changes there have been.

The head is what makes a change happen: objects are written under new names first, and belong to the vault once the head
names them. So whatever a crash leaves is either whole or not part of it.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coterie.errors import DataError
from coterie.federation.envelope import canonical
from coterie.federation.vaultkey import VaultKey
from coterie.files import read_bytes, write_bytes

FORMAT = 1


@dataclass(frozen=True)
class Entry:
    """One object: the change by which it was written, and the SHA-256 of its file."""

    change: int
    sha256: str


@dataclass(frozen=True)
class Head:
    """What a vault holds after `changes` changes; `vault` tells one vault from another."""

    vault: str
    changes: int = 0
    objects: Mapping[str, Entry] = field(default_factory=dict)


def write_head(path: Path, head: Head, key: VaultKey) -> None:
    """Replace the head; durable when this returns.

    Raises:
        EnvironmentFault: the disk is full or cannot be written; the old head is as it was.
    """
    objects = {name: [entry.change, entry.sha256] for name, entry in head.objects.items()}
    content = {"format": FORMAT, "vault": head.vault, "changes": head.changes, "objects": objects}
    text = canonical({"head": content, "mac": key.mac(canonical(content)).hex()})
    write_bytes(path, key.encrypt(text))


def read_head(path: Path, key: VaultKey) -> Head:
    """The head in a file.

    Raises:
        DataError: altered, truncated, of another key, or written by a newer version.
        EnvironmentFault: it cannot be read.
    """
    text = key.decrypt(read_bytes(path), str(path))
    try:
        found = json.loads(text)
        content, mac = found["head"], bytes.fromhex(found["mac"])
        if not hmac.compare_digest(mac, key.mac(canonical(content))):
            raise ValueError("its MAC is not that of this key")
        if content["format"] != FORMAT:
            raise DataError(
                f"{path}: of format {content['format']}, and this version of Coterie knows format {FORMAT}; upgrade"
            )
        return _head_of(content)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: not the head of a vault of this key ({error}); restore the vault") from None


def _head_of(content: Mapping[str, Any]) -> Head:
    objects = {str(name): Entry(int(change), str(sha256)) for name, (change, sha256) in content["objects"].items()}
    return Head(str(content["vault"]), int(content["changes"]), objects)
