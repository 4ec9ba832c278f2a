"""Who may connect to a coordinator: the transport key of each member, kept durably beside Flower's database."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path

from coterie.errors import ConfigError, DataError
from coterie.files import read_bytes, write_private


@dataclass
class Seats:
    """Keys (PEM) by member, and keys that may connect no more."""

    keys: dict[str, str] = field(default_factory=dict)
    revoked: list[str] = field(default_factory=list)

    @classmethod
    def read(cls, path: Path) -> Seats:
        """Read them; nobody has a seat where there is no file.

        Raises:
            DataError: the file is not one of ours.
        """
        if not path.exists():
            return cls()
        try:
            content = json.loads(read_bytes(path))
            return cls(dict(content["keys"]), list(content["revoked"]))
        except (ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path}: not a list of seats ({error}); restore it from a backup") from None

    def write(self, path: Path) -> None:
        """Write them durably."""
        write_private(path, json.dumps({"keys": self.keys, "revoked": self.revoked}, indent=1).encode())

    def give(self, name: str, key: str) -> None:
        """Give a member a seat; its former key, if it had another, loses it.

        Raises:
            ConfigError: the key was revoked, or belongs to another member.
        """
        if key in self.revoked:
            raise ConfigError(
                f"the transport key of '{name}' was revoked; let it join again from a new folder, which makes a new key"
            )
        owner = next((one for one, held in self.keys.items() if held == key and one != name), None)
        if owner is not None:
            raise ConfigError(f"the transport key of '{name}' is that of '{owner}'; each node needs a key of its own")
        if self.keys.get(name, key) != key:
            self.take(name)
        self.keys[name] = key

    def take(self, name: str) -> str | None:
        """Take a member's seat for good; its key, or None where it had none."""
        key = self.keys.pop(name, None)
        if key is not None:
            self.revoked.append(key)
        return key
