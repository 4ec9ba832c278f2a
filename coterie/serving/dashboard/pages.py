"""How a page is rendered: the templates, what every page shows, and the headers that keep it to itself."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from coterie import __version__
from coterie.errors import UsageError
from coterie.report import reading
from coterie.serving.dashboard import statics

if TYPE_CHECKING:
    from coterie.serving.deployment import Deployment

NAVIGATION = (
    ("Overview", "/dashboard/"),
    ("Runs", "/dashboard/runs"),
    ("Data", "/dashboard/data"),
    ("Playground", "/dashboard/playground"),
    ("People", "/dashboard/people"),
    ("Feedback", "/dashboard/feedback"),
    ("Federation", "/dashboard/federation"),
    ("API", "/dashboard/api"),
)
POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
HEADERS = {  # same-origin: with no referrer at all, browsers would not say where a form comes from
    "Content-Security-Policy": POLICY,
    "Cache-Control": "no-store",
    "Referrer-Policy": "same-origin",
}
LARGEST_FORM = 1_000_000  # bytes


class Pages:
    """Renders the pages of one deployment."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment

    def page(self, request: Request, template: str, *, http_status: int = 200, **values: Any) -> HTMLResponse:
        """A whole page."""
        signed_in = not self.deployment.open_access
        shared = {"here": request.url.path, "nav": NAVIGATION, "signed_in": signed_in}
        content = templates().get_template(template).render(shared | values)
        return HTMLResponse(content, http_status, HEADERS)

    def fragment(self, template: str, **values: Any) -> str:
        """A part of a page."""
        return templates().get_template(template).render(values)


@cache
def templates() -> Environment:
    """The templates; no value is ever read as markup."""
    environment = Environment(
        loader=PackageLoader("coterie.serving.dashboard"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "figure": reading.figure,
        "count": reading.count,
        "size": reading.size,
        "epsilon": epsilon,
        "share": share,
        "share2": lambda value: f"{100 * value:.2f} %",
        "share0": lambda value: f"{100 * value:.0f} %",
        "bound": lambda value: "unbounded" if reading.known(value) is None else f"{value:,.4g}",
        "noise": lambda value: f"{value:.4g}" if reading.known(value) else "none",
        "moment": moment,
        "iso": lambda micros: _time(micros).isoformat(),
        "tojson": _json,
        "segment": lambda text: quote(str(text), safe=""),
    }
    environment.globals |= {
        "coterie_version": __version__,
        "static": statics.address,
        "inline_style_ids": statics.inline_style_ids,
    }
    return environment


async def form(request: Request) -> dict[str, list[str]]:
    """The fields of a form that a browser has posted.

    Raises:
        UsageError: it is too large, or not a form.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip()
    body = await request.body()
    if kind != "application/x-www-form-urlencoded" or len(body) > LARGEST_FORM:
        raise UsageError(
            f"a form of at most {LARGEST_FORM:,} bytes is expected, got {len(body):,} bytes of {kind or 'nothing'}"
        )
    try:
        return parse_qs(body.decode(), keep_blank_values=True, max_num_fields=10_000, errors="strict")
    except ValueError as error:
        raise UsageError(f"the form cannot be read ({error}); send it as a browser does") from None


def first(fields: dict[str, list[str]], name: str, default: str = "") -> str:
    """The first value of a field, without spaces around it."""
    return (fields.get(name) or [default])[0].strip()


def download(content: str | bytes, name: str, media_type: str) -> Response:
    """A file to keep."""
    ascii_name = "".join(c if c.isalnum() or c in "-_." else "_" for c in name if c.isascii()) or "download"
    disposition = f"attachment; filename=\"{ascii_name}\"; filename*=UTF-8''{quote(name, safe='')}"
    return Response(content, headers={**HEADERS, "Content-Disposition": disposition}, media_type=media_type)


def moment(micros: int | None) -> str:
    """A time that people read, in UTC.

    >>> moment(1_700_000_000_000_000)
    '2023-11-14 22:13 UTC'
    """
    return reading.MISSING if micros is None else f"{_time(micros):%Y-%m-%d %H:%M} UTC"


def epsilon(value: float | None) -> str:
    """An epsilon in four figures; None is none.

    >>> epsilon(3.99982), epsilon(None), epsilon(float("inf"))
    ('4', 'none', 'unbounded')
    """
    if value is None:
        return "none"
    return "unbounded" if value == float("inf") else f"{value:.4g}"


def share(value: float) -> str:
    """A share in per cent.

    >>> share(0.5), share(0.123), share(0.001)
    ('50 %', '12.3 %', '0.1 %')
    """
    return f"{100 * value:.1f}".removesuffix(".0") + " %"


def _time(micros: int) -> datetime:
    return datetime.fromtimestamp(micros / 1e6, UTC)


def _json(value: Any) -> Markup:
    """JSON inside a script element of type application/json: nothing in it can end the element."""
    text = json.dumps(value, allow_nan=False)
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 - nothing in it can be markup
