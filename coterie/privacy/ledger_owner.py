"""Which process holds a reservation, and whether it is provably gone.

A process is named by the boot of its machine, its PID namespace, its number and when it started: another process that
was given the number since, another container or another machine is never taken for it. Where the system does not tell
(no ``/proc``), nobody is ever provably gone, and only the lease of a reservation ends it.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NAMESPACE = Path("/proc/self/ns/pid")
_UNKNOWN = "unknown"
_TOKEN = secrets.token_hex(8)


def this_process() -> str:
    """The name of this process; a fork has one of its own."""
    here, start = _here(), _start_of(os.getpid())
    if here is None or start is None:
        return f"{_UNKNOWN}/{_TOKEN}/{os.getpid()}"
    return f"{here}/{os.getpid()}/{start}"


def is_gone(owner: str) -> bool:
    """Whether the process surely runs no more; False where that cannot be known from here."""
    place, _, start = owner.rpartition("/")
    here, _, number = place.rpartition("/")
    if here != _here() or not number.isdecimal():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except PermissionError:  # it is somebody's
        pass
    now = _start_of(int(number))
    return now is not None and now != start


def _here() -> str | None:
    """The boot and the PID namespace: what makes a process number mean the same process."""
    try:
        return f"{_BOOT.read_text('ascii').strip()}/{_NAMESPACE.readlink()}"
    except OSError:
        return None


def _start_of(number: int) -> str | None:
    """When a process started, in clock ticks since boot: the 22nd field, counted after the name in parentheses."""
    try:
        return Path(f"/proc/{number}/stat").read_text("utf-8", "replace").rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return None
