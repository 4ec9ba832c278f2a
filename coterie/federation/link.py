"""Requests and replies of bytes between processes of one machine, over a Unix socket that only its owner may use.

Whoever calls proves, by HMAC, that it can read the key beside the socket (a file of mode 0600), and so does the server.
Nothing is ever unpickled. A path may be longer than the 100 bytes that systems allow for the name of a socket.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from multiprocessing import AuthenticationError
from multiprocessing.connection import Connection, answer_challenge, deliver_challenge
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, TypeAlias

from coterie import errors
from coterie.errors import CoterieError, EnvironmentFault, PeerError
from coterie.files import write_private

Handle: TypeAlias = Callable[[bytes], bytes]

_LONGEST = 100  # bytes of a socket's name that every system takes
_GREETING = 10.0  # seconds within which both sides prove who they are
_DONE, _FAILED = b"\x00", b"\x01"
_GONE = (OSError, EOFError, AuthenticationError)

_log = logging.getLogger(__name__)


class Session(Protocol):
    """What answers one connection."""

    def answer(self, message: bytes) -> bytes:
        """The reply to a message; a CoterieError that it raises is raised again where `Link.ask` was called."""

    def close(self) -> None:
        """Called once, when the connection has ended."""


class SessionServer:
    """Answers at a path until `close`: every connection on a thread of its own, with a session of its own.

    Raises:
        EnvironmentFault: another process answers there, or the socket or its key cannot be made.
    """

    def __init__(self, path: Path, sessions: Callable[[], Session]) -> None:
        self.path = path
        self._sessions = sessions
        self._key = secrets.token_hex(32).encode()
        self._lock = threading.Lock()
        self._connections: dict[int, socket.socket] = {}
        self._closed = False
        self._listener = _listen(path, self._key)
        threading.Thread(target=self._accept, name=f"link {path.name}", daemon=True).start()

    def close(self) -> None:
        """Answer nobody any more: open connections end, and the socket and its key are gone."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            connections = list(self._connections.values())
        with contextlib.suppress(OSError):  # its thread waits in accept(), which a close alone does not end
            _connected(self.path, 1.0).close()
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for path in (self.path, _key_path(self.path)):
            path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _accept(self) -> None:
        while not self._closed:
            try:
                connected, _ = self._listener.accept()
            except OSError:
                return  # closed
            threading.Thread(target=self._serve, args=(connected,), name="link connection", daemon=True).start()

    def _serve(self, connected: socket.socket) -> None:
        with connected, self._registered(connected), Connection(os.dup(connected.fileno())) as connection:
            try:
                _patience(connected, _GREETING)
                deliver_challenge(connection, self._key)
                answer_challenge(connection, self._key)
                _patience(connected, 0)
            except _GONE:
                return  # a stranger, or nobody: it gets no word
            session = self._sessions()
            try:
                while True:
                    connection.send_bytes(_answered(session, connection.recv_bytes()))
            except _GONE:
                return
            finally:
                session.close()

    @contextlib.contextmanager
    def _registered(self, connected: socket.socket) -> Iterator[None]:
        with self._lock:
            self._connections[id(connected)] = connected
        try:
            yield
        finally:
            with self._lock:
                del self._connections[id(connected)]


class LinkServer(SessionServer):
    """A `SessionServer` with one answer for all: `handle` is given each message, on its connection's thread."""

    def __init__(self, path: Path, handle: Handle) -> None:
        super().__init__(path, lambda: _Stateless(handle))


class Link:
    """A connection to a `LinkServer`; one thread at a time may ask.

    Raises:
        PeerError: nobody answers there, or not in time, or it does not know the key.
    """

    def __init__(self, path: Path, seconds: float = _GREETING) -> None:
        self.path = path
        try:
            key = _key_path(path).read_bytes()
            self._socket = _connected(path, seconds)
        except OSError as error:
            raise PeerError(f"{path}: nobody answers there ({error.strerror or error}); start it first") from None
        self._connection = Connection(os.dup(self._socket.fileno()))
        try:
            answer_challenge(self._connection, key)
            deliver_challenge(self._connection, key)
        except _GONE as error:
            self.close()
            raise PeerError(f"{path}: whoever answers there does not prove to be ours ({_why(error)})") from None

    def ask(self, message: bytes, seconds: float) -> bytes:
        """The reply to a message.

        Raises:
            CoterieError: what the server raised when it answered.
            PeerError: it is gone, or has not answered within `seconds`; ask no more over this connection.
        """
        try:
            _patience(self._socket, seconds)
            self._connection.send_bytes(message)
            reply = self._connection.recv_bytes()
        except BlockingIOError:
            raise PeerError(f"{self.path}: no answer within {seconds:g} s; see whether it still runs") from None
        except _GONE as error:
            raise PeerError(f"{self.path}: gone before it answered ({_why(error)}); see its log") from None
        if reply[:1] == _FAILED:
            raise _raised(reply[1:])
        return reply[1:]

    def close(self) -> None:
        self._connection.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def call(path: Path, message: bytes, seconds: float) -> bytes:
    """One request and its reply over a connection of its own; raises as `Link` and `Link.ask`."""
    with Link(path, min(seconds, _GREETING)) as link:
        return link.ask(message, seconds)


class _Stateless:
    def __init__(self, handle: Handle) -> None:
        self.answer = handle

    def close(self) -> None:
        pass


def _answered(session: Session, message: bytes) -> bytes:
    """The reply to a message, or what went wrong with it: only errors on purpose are told to the other side."""
    try:
        return _DONE + session.answer(message)
    except CoterieError as error:
        return _FAILED + json.dumps([type(error).__name__, str(error)]).encode()
    except Exception:  # noqa: BLE001 - what is not meant for the other side is told as a failure
        _log.exception("a message over a link could not be answered")
        return _FAILED + json.dumps(["EnvironmentFault", "the daemon failed while it answered; see its log"]).encode()


def _raised(content: bytes) -> CoterieError:
    """The error that the other side raised; one that this version does not know is an EnvironmentFault."""
    name, text = json.loads(content)
    kind = getattr(errors, name, None)
    error = CoterieError.__new__(
        kind if isinstance(kind, type) and issubclass(kind, CoterieError) else EnvironmentFault
    )
    error.args = (text,)
    return error


def _listen(path: Path, key: bytes) -> socket.socket:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _remove_stale(path)
        write_private(_key_path(path), key)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        with _short(path) as name:
            listener.bind(name)
        path.chmod(0o600)
        listener.listen(64)
    except OSError as error:
        raise EnvironmentFault(f"{path}: no socket can be made there: {error.strerror or error}") from None
    return listener


def _remove_stale(path: Path) -> None:
    """Remove what a killed server has left; refuse where one still answers."""
    try:
        _connected(path, 1.0).close()
    except FileNotFoundError:
        return
    except OSError:
        path.unlink(missing_ok=True)
        return
    raise EnvironmentFault(f"{path}: another process answers there already; stop it first, or name another folder")


def _connected(path: Path, seconds: float) -> socket.socket:
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connected.settimeout(seconds)
        with _short(path) as name:
            connected.connect(name)
        connected.settimeout(None)
        _patience(connected, seconds)
    except OSError:
        connected.close()
        raise
    return connected


def _patience(connected: socket.socket, seconds: float) -> None:
    """Let reads and writes fail with BlockingIOError after `seconds` (0: never); `Connection` has no such thing."""
    value = struct.pack("@ll", int(seconds), int(seconds % 1 * 1e6))
    for option in (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO):
        connected.setsockopt(socket.SOL_SOCKET, option, value)


@contextlib.contextmanager
def _short(path: Path) -> Iterator[str]:
    """A name for the socket that the system takes, however long its path is."""
    if len(os.fsencode(path)) <= _LONGEST:
        yield str(path)
        return
    if not Path("/proc/self/fd").is_dir():
        raise EnvironmentFault(f"{path}: longer than a socket's name may be here; choose a folder with a shorter path")
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def _key_path(path: Path) -> Path:
    return path.with_name(path.name + ".key")


def _why(error: BaseException) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error) or "the connection was closed"
