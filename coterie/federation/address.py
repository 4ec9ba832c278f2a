"""Where a coordinator is reached: HOST:PORT."""

from __future__ import annotations

import ipaddress

LARGEST_PORT = 65535


def check_address(address: str) -> str:
    """HOST:PORT as it was given.

    Raises:
        ValueError: it is not a host and a port.
    """
    split_address(address)
    return address


def split_address(address: str) -> tuple[str, int]:
    """Host and port of an address; an IPv6 address stands in brackets there, and without them here.

    >>> split_address("[::1]:9443")
    ('::1', 9443)

    Raises:
        ValueError: it is not a host and a port.
    """
    host, _, port = address.rpartition(":")
    bare = host[1:-1] if host[:1] == "[" and host[-1:] == "]" and _is_ipv6(host[1:-1]) else host
    plain = bare != host or (host and not any(one.isspace() or one in "/@?#[]:" for one in host))
    if not plain or not (port.isascii() and port.isdigit()) or not 1 <= int(port) <= LARGEST_PORT:
        raise ValueError(f"address must be HOST:PORT, such as train.example.org:9443 or [::1]:9443, got {address!r}")
    return bare, int(port)


def _is_ipv6(text: str) -> bool:
    try:
        ipaddress.IPv6Address(text)
    except ValueError:
        return False
    return True
