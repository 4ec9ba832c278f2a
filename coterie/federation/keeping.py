"""What a member keeps between two messages, as its rounds need it (`coterie.federation.vault` is how it is kept)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from coterie.types import Array, LocalStore


class Kept(LocalStore, Protocol):
    """A local store that can say all that it holds: blocks of users may be summed elsewhere."""

    def arrays(self) -> dict[str, Array]:
        """All committed arrays."""


class Store(Kept, Protocol):
    """What stays at this organisation, on its disk (`coterie.federation.vault`)."""

    def commit(self, round: int, attempt: int) -> None:
        """Make all staged values visible and durable together; doing so again changes nothing."""


class Memory(Protocol):
    """What a member must not forget between two starts."""

    def store(self, name: str) -> Store:
        """The local store of this name."""

    def record(self, name: str) -> dict[str, Any] | None:
        """A small record, or None."""

    def put_record(self, name: str, content: Mapping[str, Any]) -> None:
        """Replace a record; durable when this returns."""


class Staged:
    """A local store whose changes are put aside: nothing is final before the round is."""

    def __init__(self, store: Kept | None) -> None:
        self._store = store
        self.values: dict[str, Array] = {}

    def arrays(self) -> dict[str, Array]:
        return {} if self._store is None else self._store.arrays()

    def get(self, name: str) -> Array | None:
        return None if self._store is None else self._store.get(name)

    def stage(self, name: str, value: Array) -> None:
        self.values[name] = value.copy()
