"""The runs in a folder, as the dashboard lists them: finished, unfinished, or not trusted and why.

Nothing of a run that is not trusted is shown but its name and the reason.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeAlias

from coterie.errors import CoterieError, RunError
from coterie.experiment.run import RESULT_FILE
from coterie.experiment.signing import MANIFEST, verify_folder
from coterie.files import read_bytes

State: TypeAlias = Literal["finished", "unfinished", "not trusted"]
_CONFIG = "config.toml"

_Stamp: TypeAlias = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True)
class RunEntry:
    """One run folder: `reason` says why it is not finished or not trusted, `result` is empty then.

    `changed` is when its manifest (or its folder) was written, in microseconds since 1970; `files` are those that were
    signed.
    """

    name: str
    folder: Path
    state: State
    changed: int
    reason: str = ""
    result: Mapping[str, Any] = field(default_factory=dict)
    files: tuple[str, ...] = ()


class RunFolder:
    """The run folders directly below `folder`. What was verified is verified again when any file's stamp changes."""

    def __init__(self, folder: Path, trust: str | None) -> None:
        self.folder, self._trust = folder, trust
        self._seen: dict[str, tuple[_Stamp, RunEntry]] = {}
        self._lock = threading.Lock()

    def entries(self) -> list[RunEntry]:
        """All runs, by name."""
        return [self._entry(folder) for folder in self._folders()]

    def find(self, name: str) -> RunEntry | None:
        """The run of that name, None where there is none; the name is compared and never made part of a path."""
        return next((self._entry(folder) for folder in self._folders() if folder.name == name), None)

    def of(self, folder: str | Path) -> RunEntry | None:
        """The run in a given folder, wherever it is; None where it is gone."""
        path = Path(folder)
        return self._entry(path) if _is_run(path) else None

    def _folders(self) -> list[Path]:
        try:
            return sorted(path for path in self.folder.iterdir() if _is_run(path))
        except OSError:
            return []

    def _entry(self, folder: Path) -> RunEntry:
        key, stamp = str(folder), _stamp(folder)
        with self._lock:
            held = self._seen.get(key)
        if held is None or held[0] != stamp:
            held = stamp, _read(folder, self._trust)
            with self._lock:
                self._seen[key] = held
        return held[1]


def _is_run(path: Path) -> bool:
    return path.is_dir() and any((path / name).is_file() for name in (MANIFEST, _CONFIG))


def _stamp(folder: Path) -> _Stamp:
    """What tells whether anything in the folder has changed."""
    found = []
    for path in sorted(folder.rglob("*")):
        try:
            stat = path.stat()
        except OSError:
            continue  # it went between listing and looking, as temporary files do: the next look sees that
        found.append((str(path), stat.st_mtime_ns, stat.st_size))
    return tuple(found)


def _read(folder: Path, trust: str | None) -> RunEntry:
    if not (folder / MANIFEST).exists():
        return RunEntry(folder.name, folder, "unfinished", _changed(folder), _reason_unfinished(folder))
    try:
        manifest = verify_folder(folder, trust)
        result = json.loads(read_bytes(folder / RESULT_FILE))
        if not isinstance(result, dict):
            raise RunError(f"{folder / RESULT_FILE}: holds no object; train again")
    except CoterieError as error:
        return RunEntry(folder.name, folder, "not trusted", _changed(folder / MANIFEST), str(error))
    except ValueError as error:
        why = f"{folder / RESULT_FILE}: not JSON ({error}); restore the run folder or train again"
        return RunEntry(folder.name, folder, "not trusted", _changed(folder / MANIFEST), why)
    files = tuple(sorted([*manifest["files"], MANIFEST]))
    return RunEntry(folder.name, folder, "finished", _changed(folder / MANIFEST), "", result, files)


def _reason_unfinished(folder: Path) -> str:
    return f"its training has not ended, or was interrupted; finish it with: coterie train --resume {folder}"


def _changed(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns // 1000
    except OSError:
        return 0
