"""What stays at one organisation between two rounds of a job, in its vault."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Protocol

from coterie.federation.localstore import TAG, committed, kept
from coterie.files import pack_arrays, unpack_arrays
from coterie.types import Array


class _Objects(Protocol):
    """What a store needs of a vault."""

    def get(self, name: str) -> bytes | None: ...

    def put(self, name: str, content: bytes) -> None: ...

    def written(self, name: str) -> int | None: ...

    def alone(self) -> AbstractContextManager[object]: ...


class VaultStore:
    """A `coterie.types.LocalStore` in a vault: all arrays of a job are one object, changed together or not at all."""

    def __init__(self, vault: _Objects, job: str) -> None:
        self._vault = vault
        self._name = f"store/{job}"
        self._staged: dict[str, Array] = {}
        self._read: tuple[int | None, dict[str, Array]] = (None, {})

    def get(self, name: str) -> Array | None:
        """The committed array, read-only; None before the first commit of it."""
        return self._load().get(name)

    def stage(self, name: str, value: Array) -> None:
        """Put aside a copy of a new value, in memory: a crash before the commit forgets it."""
        self._staged[name] = kept(value)

    def commit(self, round: int, attempt: int) -> None:
        """Make all staged values visible and durable together; what the same attempt committed before stays."""
        with self._vault.alone():
            current = self._load()
            after = committed(current, self._staged, round, attempt)
            if after is not current:
                self._vault.put(self._name, pack_arrays(after))
        self._staged.clear()

    def arrays(self) -> dict[str, Array]:
        """All committed arrays."""
        return {name: value for name, value in self._load().items() if name != TAG}

    def _load(self) -> dict[str, Array]:
        """What is in the vault, which is read again only if somebody has written it since."""
        with self._vault.alone():
            written = self._vault.written(self._name)
            if written != self._read[0]:
                content = self._vault.get(self._name)
                found = {} if content is None else unpack_arrays(content, self._name)
                for value in found.values():
                    value.flags.writeable = False
                self._read = (written, found)
            return self._read[1]
