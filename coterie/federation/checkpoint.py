"""Checkpoints: the state after each round, so that a killed training continues and ends with the same model.

A checkpoint is one safetensors file per stage, replaced atomically. It holds the state and nothing else: no secret, no
data of a client, no random generator (streams are named by seed, purpose and round, so they need no saving). What
stays at the clients of a simulation lies in a file of its own beside it, named by the round that it belongs to: clients
of a federation keep theirs at home.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from coterie.errors import EnvironmentFault, RunError
from coterie.files import pack_arrays, read_arrays, unpack_arrays, write_arrays, write_bytes
from coterie.types import Array, State

ROUND = "__round__"


class Checkpoints:
    """The checkpoints of one run, in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, stage: str, state: State, local: Mapping[str, Array] | None = None) -> None:
        """Replace the checkpoint of `stage` by `state`, and by what stays at clients; durable when this returns.

        The state is written last: whatever round it is of, the clients' arrays of that round are there.
        """
        if local:
            write_arrays(self._local(stage, state.round), dict(local))
        save_state(self._path(stage), state)
        for old in self.folder.glob(f"{stage}.clients.*.safetensors"):
            if old != self._local(stage, state.round):
                old.unlink()

    def load(self, stage: str) -> State | None:
        """The last saved state of `stage`; None if no round of it was finished.

        Raises:
            RunError: the file is there but cannot be read.
        """
        path = self._path(stage)
        return load_state(path) if path.exists() else None

    def load_local(self, stage: str, state: State) -> dict[str, Array]:
        """What stays at the clients, as of `state`; empty where nothing does.

        Raises:
            RunError: the file is there but cannot be read.
        """
        path = self._local(stage, state.round)
        return read_arrays(path) if path.exists() else {}

    def clear(self) -> None:
        """Remove the folder with all checkpoints: the model itself is in the run folder."""
        try:
            if self.folder.exists():
                shutil.rmtree(self.folder)
        except OSError as error:
            raise EnvironmentFault(f"{self.folder}: cannot be removed: {error.strerror or error}") from None

    def _path(self, stage: str) -> Path:
        return self.folder / f"{stage}.safetensors"

    def _local(self, stage: str, round: int) -> Path:
        return self.folder / f"{stage}.clients.{round}.safetensors"


def save_state(path: Path, state: State) -> None:
    """Write a model file: the arrays of a state and how many rounds it has seen. No time, engine or run id."""
    write_bytes(path, pack_state(state))


def pack_state(state: State) -> bytes:
    """A state as the content of a model file."""
    return pack_arrays({**state.arrays, ROUND: np.array(state.round, np.int64)})


def unpack_state(content: bytes, source: str) -> State:
    """What `pack_state` wrote; `source` names where it came from.

    Raises:
        RunError: truncated, or not a state.
    """
    return _state_of(unpack_arrays(content, source), source)


def state_digest(state: State) -> bytes:
    """SHA-256 of a state: what all parties of a round must have before them."""
    digest = hashlib.sha256(str(state.round).encode())
    for name in sorted(state.arrays):
        array = np.ascontiguousarray(state.arrays[name])
        digest.update(f"{name}:{array.dtype.str}:{array.shape}".encode())
        digest.update(array.view(np.uint8).reshape(-1).data if array.size else b"")
    return digest.digest()


def load_state(path: Path) -> State:
    """Read what `save_state` or `Checkpoints.save` wrote.

    Raises:
        RunError: missing, truncated, or not a state.
    """
    return _state_of(read_arrays(path), str(path))


def _state_of(arrays: dict[str, Array], source: str) -> State:
    if ROUND not in arrays:
        raise RunError(f"{source}: has no '{ROUND}' array, so it is not a model of Coterie; train again or restore it")
    return State(int(arrays.pop(ROUND)), arrays)
