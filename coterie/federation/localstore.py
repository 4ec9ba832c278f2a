"""What stays at clients: in a folder, changed all together or not at all, or in memory for a simulation."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from coterie.files import read_arrays, write_arrays
from coterie.types import Array, LocalStore, Pointers

TAG = "__commit__"


class FolderStore:
    """A `coterie.types.LocalStore` on disk: one file `name.safetensors` under `folder`.

    Staged values are read-only copies in memory, so that memory and file never differ; `commit` replaces the file
    atomically, tagged with (round, attempt).
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.path = folder / f"{name}.safetensors"
        self._staged: dict[str, Array] = {}
        self._committed: dict[str, Array] | None = None

    def get(self, name: str) -> Array | None:
        return self._load().get(name)

    def stage(self, name: str, value: Array) -> None:
        self._staged[name] = kept(value)

    def commit(self, round: int, attempt: int) -> None:
        current = self._load()
        after = committed(current, self._staged, round, attempt)
        if after is not current:
            write_arrays(self.path, after)
            self._committed = after
        self._staged.clear()

    def arrays(self) -> dict[str, Array]:
        """All committed arrays."""
        return {name: value for name, value in self._load().items() if name != TAG}

    def _load(self) -> dict[str, Array]:
        if self._committed is None:
            self._committed = read_arrays(self.path) if self.path.exists() else {}
        return self._committed


def kept(value: Array) -> Array:
    """A copy that nobody writes to."""
    copy = np.array(value)
    copy.flags.writeable = False
    return copy


def committed(current: dict[str, Array], staged: Mapping[str, Array], round: int, attempt: int) -> dict[str, Array]:
    """The arrays after a commit, tagged with (round, attempt); `current` itself if that attempt was the last commit."""
    tag = np.array([round, attempt], np.int64)
    if TAG in current and np.array_equal(current[TAG], tag):
        return current
    return {**current, **staged, TAG: tag}


class UserStore:
    """What stays at the clients of a simulation, in memory: arrays with one row per user of the population.

    Clients see the rows of their own users alone, through `view`. `arrays` and `restore` let a checkpoint keep what a
    real client would keep at home.
    """

    def __init__(self, n_users: int) -> None:
        self.n_users = n_users
        self._committed: dict[str, Array] = {}
        self._staged: dict[str, Array] = {}

    def view(self, start: int, stop: int, rows: Pointers | None = None) -> LocalStore:
        """The store of the users `start` to `stop` (exclusive), or of those among `rows` (of the population)."""
        return _View(self, slice(start, stop) if rows is None else rows[start:stop])

    def commit(self) -> None:
        """Make all staged values visible together; users without a staged value keep theirs (zeros at first)."""
        self._committed |= self._staged
        self._staged = {}

    def arrays(self) -> dict[str, Array]:
        """All committed arrays."""
        return dict(self._committed)

    def restore(self, arrays: dict[str, Array]) -> None:
        """Go on from what `arrays` gave."""
        self._committed, self._staged = dict(arrays), {}

    def committed(self, name: str) -> Array | None:
        return self._committed.get(name)

    def staged(self, name: str, like: Array) -> Array:
        """The array that values of the next commit are written to."""
        if name not in self._staged:
            before = self._committed.get(name)
            self._staged[name] = (
                np.zeros((self.n_users, *like.shape[1:]), like.dtype) if before is None else before.copy()
            )
        return self._staged[name]


class _View:
    """Some users' rows of a `UserStore`."""

    def __init__(self, store: UserStore, rows: slice | Pointers) -> None:
        self.store, self.rows = store, rows

    def get(self, name: str) -> Array | None:
        found = self.store.committed(name)
        if found is None:
            return None
        mine = found[self.rows].view()
        mine.flags.writeable = False
        return mine

    def stage(self, name: str, value: Array) -> None:
        self.store.staged(name, value)[self.rows] = value
