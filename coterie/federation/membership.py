"""Whose federation a node has joined: the coordinator's public identity, kept beside the node's own keys."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from coterie.errors import ConfigError, DataError
from coterie.files import read_bytes, write_bytes
from coterie.secure.keys import PUBLIC_BYTES, fingerprint

FILE = "coordinator.json"


@dataclass(frozen=True)
class Membership:
    """The federation's name, as people call it, and the coordinator's public identity (32 bytes)."""

    federation: str
    coordinator: bytes

    @property
    def fingerprint(self) -> str:
        """What is compared of the coordinator's identity."""
        return fingerprint(self.coordinator)

    def write(self, folder: Path) -> None:
        """Keep it in the node's folder."""
        content = {"federation": self.federation, "coordinator": self.coordinator.hex()}
        write_bytes(folder / FILE, json.dumps(content, indent=2).encode() + b"\n")

    @classmethod
    def read(cls, folder: Path) -> Membership:
        """What `write` wrote.

        Raises:
            ConfigError: the folder is not one of a node.
            DataError: the file is damaged.
        """
        path = folder / FILE
        if not path.exists():
            raise ConfigError(f"{folder}: not the folder of a node ({FILE} is missing); `coterie node join` makes one")
        try:
            content = json.loads(read_bytes(path))
            found = cls(str(content["federation"]), bytes.fromhex(content["coordinator"]))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: damaged ({error}); restore it from a backup") from None
        if len(found.coordinator) != PUBLIC_BYTES:
            raise DataError(f"{path}: holds a key of {len(found.coordinator)} bytes; restore it from a backup")
        return found
