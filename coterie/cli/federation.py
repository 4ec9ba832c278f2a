"""What the commands of a coordinator and of a node have in common."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeAlias

import typer

from coterie.cli.output import Output
from coterie.errors import MissingExtra, PeerError

if TYPE_CHECKING:
    from rich.console import RenderableType

FolderOption: TypeAlias = Annotated[
    Path, typer.Option("--folder", metavar="DIR", help="Its folder. Default: the present one.")
]
WatchFlag: TypeAlias = Annotated[bool, typer.Option("--watch", help="Keep showing it, until Ctrl-C.")]
HERE = Path()
REFRESH = 1.0  # seconds between looks of --watch
ASKED = 10.0  # seconds for a daemon to answer


def at_home(folder: Path) -> None:
    """Make `folder` the home of this process: its key signs, and its ledger is charged.

    Raises:
        MissingExtra: what a federation needs is not installed.
    """
    for module in ("flwr", "pyrage"):
        if find_spec(module) is None:
            raise MissingExtra("training over a network", "flower")
    os.environ["COTERIE_HOME"] = str(folder.resolve())
    if not os.access(Path(__file__).parent, os.W_OK):  # compiled kernels cannot be kept beside a read-only package
        os.environ.setdefault("NUMBA_CACHE_DIR", str(folder.resolve() / "cache"))


def asked_daemon(socket: Path, request: Mapping[str, Any]) -> dict[str, Any] | None:
    """What the daemon behind a control socket answers; None where none runs.

    Raises:
        CoterieError: it refuses; with its reason.
    """
    from coterie.federation.link import call

    if not socket.exists():
        return None
    try:
        answer: dict[str, Any] = json.loads(call(socket, json.dumps(dict(request)).encode(), ASKED))
    except PeerError:
        return None  # a socket that a killed daemon left
    return answer


def show_status(
    status: Callable[[], dict[str, Any]], view: Callable[[Mapping[str, Any]], RenderableType], out: Output, watch: bool
) -> None:
    """Print a status once, or keep it on the screen."""
    if not watch:
        now = status()
        out.result(now, view(now))
        return
    if out.as_json:
        while True:
            out.result(status())
            time.sleep(REFRESH)
    if not out.results.is_terminal:
        _follow(status, out)
    from rich.live import Live

    with Live(view(status()), console=out.results, auto_refresh=False, screen=True) as live:
        while True:
            time.sleep(REFRESH)
            live.update(view(status()), refresh=True)


def _follow(status: Callable[[], dict[str, Any]], out: Output) -> NoReturn:
    """What has changed, a line each: for a pipe or a file."""
    from coterie.report.federation_view import line_of

    last: dict[str, Any] | None = None
    while True:
        now = status()
        for line in line_of(last, now):
            out.results.print(line, soft_wrap=True)
        last = now
        time.sleep(REFRESH)


def serve(run: Callable[[], Any], stop: Callable[[], None]) -> Any:
    """Run a daemon in the foreground; SIGTERM and Ctrl-C stop it in good order."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop())
    return run()


def said(out: Output) -> Callable[[str], None]:
    """A listener that writes what a daemon says to stderr, each line with its time."""
    return lambda text: out.note(f"{time.strftime('%H:%M:%S')} {text}")
