"""Origins (scheme, host and port) as browsers write them in their Origin header (RFC 6454, section 6.2)."""

from __future__ import annotations

import ipaddress
import re
from urllib.parse import urlsplit

from coterie.errors import ConfigError

_PORTS = {"https": 443, "http": 80}
_HOST = re.compile(r"[a-z0-9]([a-z0-9._-]{0,251}[a-z0-9])?")


def origin_of(text: str) -> str:
    """The origin as a browser sends it: lower case, punycode, without the scheme's own port and without a path.

    >>> origin_of("https://Shop.Example.org:443/")
    'https://shop.example.org'
    >>> origin_of("http://[::1]:8080")
    'http://[::1]:8080'

    Raises:
        ConfigError: it is no origin: a pattern, another scheme, a path.
    """
    try:
        parts = urlsplit(text)
        port, host = parts.port, parts.hostname or ""
        name = _bare(host)
    except (ValueError, UnicodeError):
        raise _wrong(text) from None
    whole = not (parts.path.strip("/") or parts.query or parts.fragment or "@" in parts.netloc or text != text.strip())
    if parts.scheme not in _PORTS or not name or not whole or port == 0:
        raise _wrong(text)
    return f"{parts.scheme}://{name}" + (f":{port}" if port not in (None, _PORTS[parts.scheme]) else "")


def _bare(host: str) -> str:
    """The host as it stands in an origin; empty where it is none."""
    if ":" in host:
        return f"[{ipaddress.IPv6Address(host).compressed}]"
    name = host.encode("idna").decode() if not host.isascii() else host
    return name if _HOST.fullmatch(name) else ""


def _wrong(text: str) -> ConfigError:
    return ConfigError(f"origin {text!r}: must be scheme, host and port alone, as in https://shop.example.org")
