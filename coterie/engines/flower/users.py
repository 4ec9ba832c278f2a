"""Whose process is at the other end of a connection of this machine: Flower shows a pump's token to all its users.

Linux lists the user of each socket in /proc/net; where there is no such list, or it does not even show our own socket,
nothing can be told, and nobody is refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_NET = Path("/proc/net")
# 127.0.0.1 as the kernel writes it (on little-endian machines), for sockets of IPv4, and of IPv6 that speak IPv4
_TABLES = {"tcp": "0100007F", "tcp6": "0000000000000000FFFF00000100007F"}
_LOCAL, _REMOTE, _USER = 1, 2, 7  # columns


@dataclass(frozen=True)
class Users:
    """Tells who is connected to a port of 127.0.0.1."""

    port: int
    known: bool
    net: Path = _NET

    @classmethod
    def of(cls, port: int, net: Path = _NET) -> Users:
        """For a port that this process listens at."""
        return cls(port, any(row[_LOCAL].endswith(f":{port:04X}") for row, _ in _rows(net)), net)

    def ours(self, client_port: int) -> bool:
        """Whether the process that connected from a port of 127.0.0.1 is this user's, or the administrator's."""
        if not self.known:
            return True
        for row, address in _rows(self.net):
            if (row[_LOCAL], row[_REMOTE]) == (f"{address}:{client_port:04X}", f"{address}:{self.port:04X}"):
                return int(row[_USER]) in {0, os.getuid()}
        return False


def _rows(net: Path) -> Iterator[tuple[list[str], str]]:
    for name, address in _TABLES.items():
        try:
            lines = (net / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            yield line.split(), address
