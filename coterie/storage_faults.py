"""What databases say when they fail, as sentences that name the remedy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coterie.errors import CoterieError, DataError, EnvironmentFault

if TYPE_CHECKING:
    from sqlalchemy import URL
    from sqlalchemy.exc import DBAPIError

HIDDEN = "***"
PATIENCE = 60  # seconds to wait for another process that writes

_SQLITE_FAULTS = {
    "SQLITE_FULL": "no space left on the device; nothing was written: free some and call again",
    "SQLITE_READONLY": "cannot be written; make the file and its folder writable, or name another one",
    "SQLITE_PERM": "cannot be written; make the file and its folder writable, or name another one",
    "SQLITE_CANTOPEN": "cannot be opened; check that its folder exists and may be written",
    "SQLITE_BUSY": f"another process has held it for {PATIENCE} seconds; call again when that has ended",
    "SQLITE_LOCKED": f"another process has held it for {PATIENCE} seconds; call again when that has ended",
    "SQLITE_CORRUPT": "is damaged; restore it from a backup (a new one would not know what has been spent)",
    "SQLITE_IOERR": "the disk failed, and whether anything was written is unknown; check it and call again",
}
_POSTGRES_FAULTS = {
    "08": "the connection broke; call again",
    "53": "the server has no space, memory or connections left; nothing was written: call again when it has",
    "57": "the server stopped; call again when it runs",
    "40": "another process was in the way; call again",
    "25006": "the server is read-only; name the one that may be written",
    "28": "the user is refused; check user and password",
    "3D000": "there is no such database; check its name",
    "42501": "the user may not do that; grant it, or let a user who may make tables run this once",
}


def fault_of(name: str, error: DBAPIError, url: URL) -> CoterieError | None:
    """The sentence for an error of the database; None where it is a fault of Coterie."""
    code = str(getattr(error.orig, "sqlite_errorname", None) or getattr(error.orig, "sqlstate", None) or "")
    reason = said(error, url)
    if code == "SQLITE_NOTADB":
        return DataError(f"{name}: is no SQLite database; name another file")
    for start, sentence in (*_SQLITE_FAULTS.items(), *_POSTGRES_FAULTS.items()):
        if code.startswith(start):
            return EnvironmentFault(f"{name}: {sentence} ({reason})")
    if error.connection_invalidated:
        return EnvironmentFault(f"{name}: the connection broke ({reason}); call again")
    if not code and url.get_backend_name() == "postgresql":  # the server was never reached
        return EnvironmentFault(
            f"{name}: cannot be connected to ({reason}); check host, port, user and password, and that the server runs"
        )
    return None


def said(error: Exception, url: URL) -> str:
    """The first line of what the driver says, without the password even if the driver repeats it."""
    lines = str(getattr(error, "orig", None) or error).strip().splitlines() or [type(error).__name__]
    text = lines[0]
    return text.replace(str(url.password), HIDDEN) if url.password else text
