"""What every child process of Flower's is started with: its own home, no telemetry, no updates, no installations."""

from __future__ import annotations

import os
import sys
import sysconfig
from pathlib import Path

import coterie
from coterie.errors import MissingExtra

PUMP_LINK = "COTERIE_PUMP_LINK"
SECRET_HEADER = "coterie-secret"  # noqa: S105 - the name of a header
CHUNK = 4 << 20  # bytes that Flower sends in one request

_LOOPBACK = "127.0.0.1,localhost,::1"


def environment(folder: Path, **more: str) -> dict[str, str]:
    """The environment of a child whose Flower lives in `folder`; proxies are honoured, but not for this machine."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("FLWR_", "COTERIE_"))}
    paths = [_scripts(), inherited.get("PATH", "")]
    imports = [str(Path(coterie.__file__).parents[1]), inherited.get("PYTHONPATH", "")]
    direct = ",".join(filter(None, (inherited.get("NO_PROXY") or inherited.get("no_proxy"), _LOOPBACK)))
    return inherited | {
        "PATH": os.pathsep.join(filter(None, paths)),
        "PYTHONPATH": os.pathsep.join(filter(None, imports)),
        "PYTHONUNBUFFERED": "1",
        "NO_PROXY": direct,
        "no_proxy": direct,
        "FLWR_HOME": str(folder),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE": str(CHUNK),
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.25",
        "RAY_USAGE_STATS_ENABLED": "0",
        **more,
    }


def module(name: str, *arguments: str) -> list[str]:
    """The command that runs one of our modules."""
    return [sys.executable, "-m", f"coterie.engines.flower.{name}", *arguments]


def program(name: str, *arguments: str) -> list[str]:
    """The command that runs one of Flower's programs.

    Raises:
        MissingExtra: it is not installed beside this interpreter.
    """
    path = Path(_scripts()) / name
    if not path.is_file():
        raise MissingExtra(f"{name}", "flower")
    return [str(path), *arguments]


def _scripts() -> str:
    return sysconfig.get_path("scripts")
