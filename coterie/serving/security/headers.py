"""The security headers of every answer, by what it is and whether it goes over TLS; made once."""

from __future__ import annotations

from coterie.serving.security.exchange import Headers

# What needs 'unsafe-inline' in styles is plotly, which draws with style elements and attributes of its own making; no
# page may run an inline script, and templates escape, so that nobody but plotly puts styles there.
PAGE_CSP = (
    "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "connect-src 'self'; font-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
DATA_CSP = "default-src 'none'; frame-ancestors 'none'"
PERMISSIONS = "camera=(), geolocation=(), microphone=(), payment=(), usb=()"
HSTS = "max-age=31536000"  # this host alone: what else is under its name is not ours to bind

_EVERY = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "x-frame-options": "DENY",
    "permissions-policy": PERMISSIONS,
}
_PAGE = _EVERY | {
    "content-security-policy": PAGE_CSP,
    "cache-control": "no-store",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
}
# Pages of other origins call /v1 by CORS, which the resource policy does not touch; it forbids embedding an answer.
_DATA = _EVERY | {
    "content-security-policy": DATA_CSP,
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "vary": "Origin",
}
# The snippet is loaded by pages of shops; revalidated each time, so that an upgrade reaches them.
_STATIC = _EVERY | {
    "content-security-policy": PAGE_CSP,
    "cache-control": "no-cache",
    "cross-origin-resource-policy": "cross-origin",
    "vary": "Origin",
}


def _raw(headers: dict[str, str], secure: bool) -> Headers:
    whole = headers | ({"strict-transport-security": HSTS} if secure else {})
    return tuple((name.encode(), value.encode()) for name, value in whole.items())


_TABLES = {
    kind: (_raw(headers, secure=False), _raw(headers, secure=True))
    for kind, headers in (("page", _PAGE), ("data", _DATA), ("static", _STATIC))
}


def table_for(path: str, secure: bool) -> Headers:
    """The headers of an answer to this path."""
    return _TABLES[kind_of(path)][secure]


def kind_of(path: str) -> str:
    """What is behind a path: data, static files, or pages.

    >>> kind_of("/v1/items/7"), kind_of("/static/coterie.js"), kind_of("/dashboard"), kind_of("/metrics")
    ('data', 'static', 'page', 'data')
    """
    if path.startswith("/v1/"):
        return "data"
    if path.startswith("/static/"):
        return "static"
    return "page" if path == "/" or path.startswith(("/dashboard", "/example/")) else "data"


def shared(path: str) -> bool:
    """Whether pages of other origins may use what is there, by CORS: the API and the snippet."""
    return path.startswith(("/v1/", "/static/"))
