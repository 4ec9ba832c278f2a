"""What stays at a client: a folder of safetensors files, changed all together or not at all."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from coterie.files import read_arrays, write_arrays
from coterie.types import Array

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
        kept = np.array(value)
        kept.flags.writeable = False
        self._staged[name] = kept

    def commit(self, round: int, attempt: int) -> None:
        tag = np.array([round, attempt], np.int64)
        current = self._load()
        if TAG in current and np.array_equal(current[TAG], tag):
            self._staged.clear()
            return
        merged = {**current, **self._staged, TAG: tag}
        write_arrays(self.path, merged)
        self._committed = merged
        self._staged.clear()

    def arrays(self) -> dict[str, Array]:
        """All committed arrays."""
        return {name: value for name, value in self._load().items() if name != TAG}

    def _load(self) -> dict[str, Array]:
        if self._committed is None:
            self._committed = read_arrays(self.path) if self.path.exists() else {}
        return self._committed
