"""Style sheets and scripts of the dashboard, and plotly's bundled script from the installed package.

Every address carries a digest of its content, so that browsers may keep it for good.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from pathlib import PurePath

from fastapi import APIRouter, Request
from starlette.responses import Response

from coterie.errors import DataError
from coterie.report.html import templates as report_templates

BASE = "/dashboard/static"
FOR_GOOD = "public, max-age=31536000, immutable"
BRIEFLY = "public, max-age=300"
_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}
OWN = ("dashboard.css", "plotly.css", "icon.svg", "live.js", "plots.js", "playground.js")
# A library inside plotly's bundle adds an inline style sheet, unless an element has this id: a policy refuses the one.
_INLINE_STYLES = re.compile(rb'getElementById\("([0-9a-f]{64})"\)')


@dataclass(frozen=True)
class Static:
    """A file with its type; `content` and what follows from it are computed when first asked for."""

    name: str
    read: Callable[[], bytes]

    @property
    def media_type(self) -> str:
        return _TYPES[PurePath(self.name).suffix]

    @cached_property
    def content(self) -> bytes:
        return self.read()

    @cached_property
    def digest(self) -> str:
        return hashlib.sha256(self.content).hexdigest()[:16]

    @cached_property
    def gzipped(self) -> bytes:
        return gzip.compress(self.content, compresslevel=6, mtime=0)


def router() -> APIRouter:
    """Routes to the files; nobody has to log in for them."""
    routes = APIRouter(include_in_schema=False)

    @routes.api_route(BASE + "/{name}", methods=["GET", "HEAD"])
    def file(name: str, request: Request) -> Response:
        found = statics().get(name)
        if found is None:
            return Response("There is no such file.\n", 404, media_type="text/plain")
        return _answer(found, request)

    return routes


def address(name: str) -> str:
    """Where a page finds one of the files.

    Raises:
        DataError: there is no such file.
    """
    found = statics().get(name)
    if found is None:
        raise DataError(f"the dashboard has no file '{name}'; it has {', '.join(statics())}")
    return f"{BASE}/{name}?v={found.digest}"


@cache
def statics() -> dict[str, Static]:
    """All files by name."""
    made = {"page.css": _page_style, "plotly.js": _plotly}
    return {name: Static(name, read) for name, read in ({name: _own(name) for name in OWN} | made).items()}


@cache
def inline_style_ids() -> tuple[str, ...]:
    """Ids of the style sheets that plotly's bundle would put into a page; an element with the id keeps it from that."""
    found = _INLINE_STYLES.findall(statics()["plotly.js"].content)
    return tuple(dict.fromkeys(one.decode() for one in found))


def _answer(found: Static, request: Request) -> Response:
    tag = f'"{found.digest}"'
    current = request.query_params.get("v") == found.digest
    headers = {"ETag": tag, "Cache-Control": FOR_GOOD if current else BRIEFLY, "Vary": "Accept-Encoding"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    content = found.content
    if "gzip" in request.headers.get("accept-encoding", ""):
        headers["Content-Encoding"], content = "gzip", found.gzipped
    return Response(content, headers=headers, media_type=found.media_type)


def _own(name: str) -> Callable[[], bytes]:
    return (files("coterie.serving.dashboard") / "static" / name).read_bytes


def _page_style() -> bytes:
    """The style of reports, which the dashboard shares."""
    return report_templates().get_template("page.css.j2").render().encode()


def _plotly() -> bytes:
    return (files("plotly") / "package_data" / "plotly.min.js").read_bytes()
