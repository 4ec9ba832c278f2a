"""The exports of what a service answers with: made once for each version, in a folder that goes with the process."""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from coterie.errors import CoterieError
from coterie.experiment.signing import MANIFEST
from coterie.files import read_bytes, sha256_of
from coterie.serving.private.export import Exported, export, refuse
from coterie.serving.served import ServedModel, one_thread

KEPT = 3  # versions whose files are kept: pages that began with an older manifest still get what it names

_log = logging.getLogger(__name__)


class Lineup(Protocol):
    """What is asked of `coterie.serving.versions.Versions`."""

    prepare: Callable[[ServedModel], None]

    def current(self) -> ServedModel: ...


@dataclass(frozen=True)
class ServedExport:
    """One export: its manifest as it was signed, that one's SHA-256, and its files by name."""

    manifest: bytes
    digest: str
    files: dict[str, Path]


class ServedExports:
    """Exports of the champion. A new version is exported before it answers; one that must not be does not answer.

    The folder is deleted with this object, at the latest when the process ends.
    """

    def __init__(self, versions: Lineup) -> None:
        self._versions, self._making = versions, threading.Lock()
        self._made: OrderedDict[str, ServedExport] = OrderedDict()
        self._folder = Path(tempfile.mkdtemp(prefix="coterie-browser-"))
        self.close = weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)

    def begin(self) -> None:
        """Export what answers now, in the background, and from now on each version before it answers.

        Raises:
            ModelError: what answers now must not be exported.
        """
        refuse(self._versions.current().run)
        before = self._versions.prepare

        def prepare(served: ServedModel) -> None:
            before(served)
            self.of(served)

        self._versions.prepare = prepare
        threading.Thread(target=self._first, name="browser export", daemon=True).start()

    def ready(self) -> ServedExport | None:
        """The champion's export, if it is made."""
        return self._made.get(self._versions.current().version.fingerprint)

    def current(self) -> ServedExport:
        """The champion's export; made now where it is not yet.

        Raises:
            ModelError: the champion must not be exported.
            EnvironmentFault: the folder cannot be written, or the signing key not be used.
        """
        return self.of(self._versions.current())

    def of(self, served: ServedModel) -> ServedExport:
        """The export of a version; raises as `current` does."""
        fingerprint = served.version.fingerprint
        with self._making:
            found = self._made.get(fingerprint)
            if found is None:
                with one_thread():  # others are being answered meanwhile
                    found = _served(export(served.run, self._fresh(fingerprint), fingerprint=fingerprint))
                self._made[fingerprint] = found
                self._forget()
            return found

    def file(self, name: str) -> Path | None:
        """A file of one of the kept exports."""
        return next((one.files[name] for one in list(self._made.values()) if name in one.files), None)

    def _fresh(self, fingerprint: str) -> Path:
        """An empty folder; what a failed attempt left is deleted."""
        folder = self._folder / fingerprint
        shutil.rmtree(folder, ignore_errors=True)
        return folder

    def _forget(self) -> None:
        while len(self._made) > KEPT:
            fingerprint, _ = self._made.popitem(last=False)
            shutil.rmtree(self._folder / fingerprint, ignore_errors=True)

    def _first(self) -> None:
        try:
            self.current()
        except CoterieError as error:  # whoever asks for it tries again, and is told
            _log.warning("the model for browsers could not be made: %s", error)


def _served(exported: Exported) -> ServedExport:
    folder = exported.folder
    files = {name: folder / name for name in exported.sizes if name != MANIFEST}
    return ServedExport(read_bytes(folder / MANIFEST), sha256_of(folder / MANIFEST), files)
