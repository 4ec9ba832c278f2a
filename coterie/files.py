"""Files that are either whole or not there: atomic writes, digests, named arrays as safetensors; and where home is."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load as load_bytes
from safetensors.numpy import save as save_bytes

from coterie.errors import DataError, EnvironmentFault, RunError
from coterie.types import Array


def home() -> Path:
    """The folder of this installation: its key, the keys it trusts, its ledger.

    ``$COTERIE_HOME``, by default ``$XDG_CONFIG_HOME/coterie`` or ``~/.config/coterie``.
    """
    if named := os.environ.get("COTERIE_HOME"):
        return Path(named)
    base = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(base) / "coterie"


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file so that a crash leaves the old content or the new, never a part: temporary file, fsync, rename.

    The mode is what the umask leaves, as for any file: who keeps files private keeps these private.

    Raises:
        EnvironmentFault: the disk is full, read-only or not permitted; names the file and the reason.
    """
    _make_folder(path.parent)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    try:
        with temporary.open("xb") as handle:
            handle.write(content)
            handle.flush()
            os.fsync(handle.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise EnvironmentFault(f"{path}: cannot be written: {error.strerror or error}") from None
    finally:
        with contextlib.suppress(OSError):  # nothing is left where it was renamed, or where it could not be made
            temporary.unlink(missing_ok=True)


def write_text(path: Path, content: str) -> None:
    """`write_bytes` for UTF-8 text."""
    write_bytes(path, content.encode())


def put_in_place(temporary: Path, path: Path) -> None:
    """Give a whole file that was written elsewhere on the same disk its name, durably.

    Raises:
        OSError: the disk is full, read-only or not permitted.
    """
    with temporary.open("rb") as handle:
        os.fsync(handle.fileno())
    temporary.replace(path)
    _sync_folder(path.parent)


def write_private(path: Path, content: bytes, *, replace: bool = True) -> None:
    """`write_bytes` for what its owner alone may read (mode 0600, whatever the umask): keys and tokens.

    Raises:
        FileExistsError: there is such a file and `replace` is false; two writers cannot both succeed then.
        EnvironmentFault: the disk is full, read-only or not permitted; names the file and the reason.
    """
    _make_folder(path.parent)
    try:
        # Whole under another name first; a link, unlike a rename, never takes the place of what is there.
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as handle:
            temporary = Path(handle.name)
            try:
                handle.write(content)
                handle.flush()
                os.fsync(handle.fileno())
                temporary.replace(path) if replace else path.hardlink_to(temporary)
                _sync_folder(path.parent)
            finally:
                temporary.unlink(missing_ok=True)
    except FileExistsError:
        raise
    except OSError as error:
        raise EnvironmentFault(f"{path}: cannot be written: {error.strerror or error}") from None


def require_private(path: Path) -> None:
    """Refuse a secret that others may read, as OpenSSH does.

    A file that somebody else owns may be read by a group: so secrets are handed to a service, which cannot change their
    mode (root:ssl-cert with 0640; a credential of systemd, whose access list looks like 0440).

    Raises:
        DataError: its mode lets others read or write it.
        EnvironmentFault: it cannot be looked at.
    """
    try:
        found = path.stat()
    except OSError as error:
        raise EnvironmentFault(f"{path}: cannot be read: {error.strerror or error}") from None
    mode = stat.S_IMODE(found.st_mode)
    if os.name == "posix" and mode & (0o077 if found.st_uid == os.geteuid() else 0o037):
        raise DataError(f"{path}: a secret that others may read (mode {mode:04o}); run: chmod 600 {path}")


def append_line(path: Path, line: str) -> None:
    """Append one line and make it durable; a last line that a crash left without its newline is dropped first."""
    _make_folder(path.parent)
    try:
        with path.open("a+b") as handle:
            _drop_torn_line(handle)
            handle.write(line.encode() + b"\n")
            handle.flush()
            os.fsync(handle.fileno())
    except OSError as error:
        raise EnvironmentFault(f"{path}: cannot be written: {error.strerror or error}") from None


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        EnvironmentFault: it cannot be read; names the file and the reason.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise EnvironmentFault(f"{path}: cannot be read: {error.strerror or error}") from None


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file's content, read in blocks."""
    try:
        with path.open("rb") as handle:
            return hashlib.file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        raise EnvironmentFault(f"{path}: cannot be read: {error.strerror or error}") from None


def write_arrays(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write named arrays as safetensors; equal arrays give equal bytes."""
    write_bytes(path, pack_arrays(arrays))


def pack_arrays(arrays: Mapping[str, Array]) -> bytes:
    """Named arrays as safetensors; equal arrays give equal bytes."""
    return save_bytes({name: np.array(arrays[name], order="C") for name in sorted(arrays)})


def unpack_arrays(content: bytes, source: str) -> dict[str, Array]:
    """What `pack_arrays` wrote; `source` names where it came from.

    Raises:
        RunError: truncated or not safetensors.
    """
    try:
        return load_bytes(content)
    except (SafetensorError, ValueError, KeyError) as error:  # KeyError: a type that numpy does not have
        raise RunError(f"{source}: truncated or not a safetensors file ({error}); train again or restore it") from None


def read_arrays(path: Path) -> dict[str, Array]:
    """Read named arrays.

    Raises:
        RunError: the file is missing, truncated or not safetensors.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise RunError(f"{path}: no such file; the run folder is not complete") from None
    except OSError as error:
        raise EnvironmentFault(f"{path}: cannot be read: {error.strerror or error}") from None
    return unpack_arrays(content, str(path))


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentFault(f"{folder}: the folder cannot be made: {error.strerror or error}") from None


def _drop_torn_line(handle: BinaryIO) -> None:
    size = handle.seek(0, os.SEEK_END)
    if not size:
        return
    handle.seek(-1, os.SEEK_END)
    if handle.read(1) != b"\n":
        handle.seek(0)
        handle.truncate(handle.read().rfind(b"\n") + 1)


def _sync_folder(folder: Path) -> None:
    """Make a rename durable; platforms that cannot open folders (Windows) do it with the file."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
