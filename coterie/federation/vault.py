"""A node's private state, encrypted at rest: user factors, personal models, what it must remember between two starts.

    head.age                      which objects there are, the digest of each, how many changes there have been
    objects/NAME.CHANGE.age       one object, as the change of that number left it; a "/" in its name is a "~" here

Every file is an age file for the vault's key. A change is one replacement of the head, so a kill or a full disk at any
moment leaves the state before the change or after it.

What is noticed of a vault that is not as this node left it:

- An object that was altered, truncated, exchanged for another or put back to an older version is refused when it is
  read, one that is missing when the vault is opened: the head has the digest of each. A head that somebody else wrote
  is refused too: it has a MAC under the vault's key.
- A head that was put back alone is refused when the vault is opened, since the objects that it names are gone, or are
  newer than it knows. One case is not told from a crash in the middle of that change: the head before the last change,
  where that created new objects. They are taken for unfinished, and removed.
- A vault that goes back while it is open is refused at its next use.
- *A whole vault that was put back while it was closed is right in itself*, and nothing in it can tell. Whoever relies
  on it compares `changes` with a number that was noted elsewhere: every line of the egress log has the one of its time,
  and `confirm` refuses a vault that is behind it. So what was put before a message left is confirmed by that message's
  line. Changes after the last line, and a restoration of vault and egress log together, go unnoticed here.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
import secrets
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from coterie.errors import DataError, EnvironmentFault
from coterie.federation.envelope import canonical
from coterie.federation.filelock import locked
from coterie.federation.vaulthead import Entry, Head, read_head, write_head
from coterie.federation.vaultkey import VaultKey
from coterie.federation.vaultstore import VaultStore
from coterie.files import pack_arrays, unpack_arrays, write_bytes
from coterie.types import Array

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)*")
_LONGEST = 200
_FILE = re.compile(r"(?P<name>.+)\.(?P<change>[0-9]{1,18})\.age")


class Vault:
    """The vault in `folder`, made if there is none yet. Several processes and threads may use it: one at a time does.

    Raises (here and from every method):
        DataError: it was made with another key, by a newer version, or is not as it was left; names the file.
        EnvironmentFault: the disk is full or cannot be used, or another process holds the vault for too long. A change
            that failed has happened or has not, and never in part.
    """

    def __init__(self, folder: Path, key: VaultKey) -> None:
        self.folder = folder
        self._key = key
        self._thread = threading.RLock()
        self._head: Head | None = None  # while the lock is held
        self._seen: Head | None = None
        _make(folder / "objects")
        with self.alone():
            self._refuse_missing()
            self._sweep()

    @classmethod
    def open(cls, folder: Path, key_file: Path, passphrase: str | None = None) -> Vault:
        """Open a vault with its key file; both are made on first use, the key never for a vault that holds something.

        Raises:
            ConfigError: the key file is missing, or its passphrase is.
            MissingExtra: pyrage is not installed.
        """
        new = not any(folder.rglob("*.age"))
        return cls(folder, VaultKey.open(key_file, passphrase, create=new))

    # --- objects ----------------------------------------------------------------------------------------------------

    def get(self, name: str) -> bytes | None:
        """An object; None where there is none."""
        with self.alone() as head:
            if (entry := head.objects.get(name)) is None:
                return None
            path = self._file(name, entry.change)
            sealed = self._sealed(path)
            if hashlib.sha256(sealed).hexdigest() != entry.sha256:
                raise DataError(
                    f"{path}: altered, truncated, or put back to an older version; restore the whole vault as it was "
                    "last"
                )
            return self._key.decrypt(sealed, str(path))

    def put(self, name: str, content: bytes) -> None:
        """Replace an object; durable when this returns."""
        self.put_all({name: content})

    def put_all(self, contents: Mapping[str, bytes | None]) -> None:
        """Replace several objects together or not at all; None removes one. It counts as one change."""
        with self.alone() as head:
            objects, change = dict(head.objects), head.changes + 1
            for name, content in contents.items():
                objects.pop(name, None)
                if content is not None:
                    sealed = self._key.encrypt(content)
                    write_bytes(self._file(_checked(name), change), sealed)
                    objects[name] = Entry(change, hashlib.sha256(sealed).hexdigest())
            self._become(replace(head, changes=change, objects=objects))
            for name in contents.keys() & head.objects.keys():
                with contextlib.suppress(OSError):  # no part of the vault any more; the next start removes it
                    self._file(name, head.objects[name].change).unlink()

    def names(self, start: str = "") -> list[str]:
        """The names of all objects that begin with `start`, sorted."""
        with self.alone() as head:
            return sorted(name for name in head.objects if name.startswith(start))

    def written(self, name: str) -> int | None:
        """The number of the change by which an object was last written; None where there is none."""
        with self.alone() as head:
            entry = head.objects.get(name)
            return None if entry is None else entry.change

    # --- kinds of objects -------------------------------------------------------------------------------------------

    def arrays(self, name: str) -> dict[str, Array] | None:
        """Named arrays, which `put_arrays` put; None where there are none."""
        content = self.get(f"arrays/{name}")
        return None if content is None else unpack_arrays(content, f"{self.folder}: {name}")

    def put_arrays(self, name: str, arrays: Mapping[str, Array]) -> None:
        """Replace named arrays, kept as safetensors; durable when this returns."""
        self.put(f"arrays/{name}", pack_arrays(arrays))

    def record(self, name: str) -> dict[str, Any] | None:
        """A small record, which `put_record` put; None where there is none."""
        content = self.get(f"record/{name}")
        return None if content is None else dict(json.loads(content))

    def put_record(self, name: str, content: Mapping[str, Any]) -> None:
        """Replace a record: a JSON object; durable when this returns."""
        self.put(f"record/{name}", canonical(dict(content)))

    def store(self, name: str) -> VaultStore:
        """The local store of a job; several objects of this kind may be open, and see each other's commits."""
        return VaultStore(self, name)

    def forget(self, job: str) -> None:
        """Remove arrays, record and store of this name, if there are any, in one change."""
        with self.alone() as head:
            there = {f"{kind}/{job}" for kind in ("arrays", "record", "store")} & head.objects.keys()
            if there:
                self.put_all(dict.fromkeys(there))

    # --- the whole --------------------------------------------------------------------------------------------------

    @property
    def changes(self) -> int:
        """How many changes there have been: what is noted elsewhere, to know a vault that was put back."""
        with self.alone() as head:
            return head.changes

    def confirm(self, changes: int, source: str) -> None:
        """Refuse a vault that is behind a number of changes that was noted elsewhere.

        Raises:
            DataError: it is; says what `source` noted.
        """
        if (own := self.changes) < changes:
            raise DataError(
                f"{self.folder}: an older copy: {own} changes are in it, and {source} knows of {changes}; restore the "
                "vault as it was last, or, if that is lost, leave the federation and join it anew in a new folder"
            )

    def check(self) -> None:
        """Read every object, and refuse the vault where one is not as it was left."""
        for name in self.names():
            self.get(name)

    @contextmanager
    def alone(self) -> Iterator[Head]:
        """Let nobody else read or write between several operations in the block; gives the head at its beginning."""
        with self._thread:
            if self._head is not None:
                yield self._head
                return
            with locked(self.folder / "lock", f"the vault {self.folder}"):
                try:
                    self._head = self._current()
                    yield self._head
                finally:
                    self._head = None

    # --- files ------------------------------------------------------------------------------------------------------

    def _current(self) -> Head:
        """The head on disk: never an older one than this process has seen."""
        path, seen = self.folder / "head.age", self._seen
        if not path.exists():
            if seen is not None or any(self._files()):
                raise DataError(f"{path}: missing, but there are objects; restore the whole vault as it was last")
            write_head(path, Head(secrets.token_hex(16)), self._key)
        head = read_head(path, self._key)
        if seen is not None and (head.vault != seen.vault or head.changes < seen.changes):
            raise DataError(
                f"{self.folder}: put back to an older copy while it was in use ({head.changes} changes, {seen.changes} "
                "were seen); restore the vault as it was last"
            )
        self._seen = head
        return head

    def _become(self, head: Head) -> None:
        """The moment at which a change has happened."""
        try:
            write_head(self.folder / "head.age", head, self._key)
        finally:  # a disk that fails in the last step may have written it all the same
            self._head = self._current()

    def _refuse_missing(self) -> None:
        """Refuse a head that does not belong to the objects beside it."""
        with self.alone() as head:
            for name, entry in head.objects.items():
                if not (path := self._file(name, entry.change)).exists():
                    raise DataError(f"{path}: missing; restore the whole vault as it was last")
            newest = max((change for _, change in self._files()), default=0)
            if newest > head.changes + 1:
                raise DataError(
                    f"{self.folder / 'head.age'}: an older copy: it knows {head.changes} changes, and there is an "
                    f"object of change {newest}; restore the whole vault as it was last"
                )

    def _sweep(self) -> None:
        """Remove what an interrupted change left: objects that the head does not name."""
        with self.alone() as head:
            named = {self._file(name, entry.change) for name, entry in head.objects.items()}
            unnamed = [path for path, _ in self._files() if path not in named]
            try:
                for path in (*unnamed, *self.folder.glob(".head.age.*"), *self.folder.glob("objects/.*.age.*")):
                    path.unlink()
            except OSError as error:
                raise EnvironmentFault(f"{self.folder}: cannot be written: {error.strerror or error}") from None

    def _files(self) -> Iterator[tuple[Path, int]]:
        """The files of objects, and by which change they say that they were written."""
        for path in (self.folder / "objects").iterdir():
            if found := _FILE.fullmatch(path.name):
                yield path, int(found["change"])

    def _file(self, name: str, change: int) -> Path:
        return self.folder / "objects" / f"{name.replace('/', '~')}.{change}.age"

    def _sealed(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise DataError(f"{path}: missing; restore the whole vault as it was last") from None
        except OSError as error:
            raise EnvironmentFault(f"{path}: cannot be read: {error.strerror or error}") from None


def _checked(name: str) -> str:
    if len(name) > _LONGEST or not _NAME.fullmatch(name):
        raise DataError(f"a vault cannot keep {name!r}: names have letters, digits and . _ - / (at most {_LONGEST})")
    return name


def _make(folder: Path) -> None:
    """A folder that its owner alone may look into, and its own folder likewise, if they are new."""
    try:
        for one in (folder.parent, folder):
            one.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentFault(f"{folder}: the folder cannot be made: {error.strerror or error}") from None
