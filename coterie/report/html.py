"""The run report: one HTML file with everything in it, for a browser, a printer or a screen reader, online or not."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from coterie.errors import DataError
from coterie.report import colours, reading
from coterie.report.reading import Result

MOST_CLIENTS = 200


def render_report(result: Result, path: Path, plots: Mapping[str, Path]) -> None:
    """Write the report of a run to `path`: self-contained HTML, no script, no reference to anything outside.

    `result` is what ``coterie train --json`` prints, with ``cleaning``, ``split``, ``comparison``, ``intervals`` and
    ``caveats`` where known; what is missing is left out or said to be missing. `plots` maps a caption to an SVG file,
    which is copied into the page.

    Raises:
        DataError: a plot is not a readable SVG file.
    """
    path.write_text(report_page(result, plots), encoding="utf-8")


def report_page(result: Result, plots: Mapping[str, Path]) -> str:
    """What `render_report` writes. Raises as it does."""
    return templates().get_template("report.html.j2").render(_view(result, plots))


@cache
def templates() -> Environment:
    """The templates of reports, with filters for figures; in those of HTML no value is read as markup."""
    environment = Environment(
        loader=PackageLoader("coterie.report"),
        autoescape=select_autoescape(enabled_extensions=("html.j2",)),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"figure": reading.figure, "count": reading.count, "size": reading.size}
    return environment


def _view(result: Result, plots: Mapping[str, Path]) -> dict[str, Any]:
    """What the template shows; every key is always there."""
    return {
        "title": f"{result.get('model') or 'Coterie'} run",
        "simulation": result.get("scope") == "simulation",
        "sentence": (result.get("comparison") or {}).get("sentence"),
        "facts": _facts(result),
        "metrics": reading.headline(result),
        "served": "mix" if "mix" in reading.schemes(result) else "federated",
        "schemes": [_scheme(result, name) for name in reading.schemes(result)],
        "all_metrics": _all_metrics(result),
        "clients": _clients(result if result.get("comparison") else {}),
        "cleaning": result.get("cleaning") or [],
        "split": result.get("split") or {},
        "caveats": result.get("caveats") or [],
        "privacy": result.get("privacy") or {},
        "traffic": result.get("traffic") or {},
        "neutral": {"paper": colours.PAPER, "ink": colours.INK, "line": colours.LINE},
        "timing": {k: v for k, v in (result.get("timing") or {}).items() if reading.known(v) is not None},
        "plots": [(caption, _inlined(svg, f"plot{i}-")) for i, (caption, svg) in enumerate(plots.items())],
    }


def _facts(result: Result) -> list[tuple[str, str]]:
    """Name and value of the figures at the head of the page."""
    data = result.get("data") or {}
    facts = [
        (name, reading.count(data[name])) for name in ("clients", "users", "items", "interactions") if name in data
    ]
    return facts + [
        (name, str(result[name])) for name in ("model", "engine", "seed", "run") if result.get(name) is not None
    ]


def _scheme(result: Result, name: str) -> dict[str, Any]:
    metrics = reading.headline(result)
    cells = [(reading.value(result, name, m), reading.interval(result, name, m)) for m in metrics]
    return {"name": name, "meaning": reading.SCHEMES.get(name, ""), "cells": cells}


def _all_metrics(result: Result) -> list[tuple[str, list[float | None]]]:
    """Every metric of every scheme: the table behind the headline."""
    schemes = reading.schemes(result)
    names = dict.fromkeys(name for scheme in schemes for name in result["metrics"][scheme])
    return [(name, [reading.value(result, scheme, name) for scheme in schemes]) for name in names]


def _clients(result: Result) -> dict[str, Any]:
    """The table by client on the first headline metric, the largest clients first."""
    rows = sorted(
        result.get("per_client") or [], key=lambda r: (-(reading.known(r.get("users")) or 0), str(r.get("client")))
    )
    metric = reading.main_metric(result) or ""
    shown = reading.clients_with(rows, metric)
    return {
        "metric": metric,
        "schemes": shown,
        "left_out": max(0, len(rows) - MOST_CLIENTS),
        "rows": [_client(row, metric, shown) for row in rows[:MOST_CLIENTS]],
    }


def _client(row: Mapping[str, Any], metric: str, shown: list[str]) -> dict[str, Any]:
    values = {scheme: reading.client_value(row, scheme, metric) for scheme in shown}
    return {
        "name": str(row.get("client", "")),
        "users": row.get("users"),
        "cases": row.get("cases"),
        "values": list(values.values()),
        "change": reading.change(values.get("alone"), reading.served(row, metric)),
    }


def _inlined(path: Path, prefix: str) -> Markup:
    """An SVG file that `coterie.report.plots` wrote, as an element of the page that is announced as an image."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: the plot cannot be read: {error}") from None
    start = text.find("<svg")
    if start < 0:
        raise DataError(f"{path}: not an SVG file, so it cannot be put into the report")
    svg = re.sub(r"<metadata>.*?</metadata>\s*", "", text[start:], flags=re.DOTALL)
    svg = re.sub(r"<[^>]*>", lambda tag: _own_ids(tag[0], prefix), svg)
    return Markup(svg.replace("<svg ", '<svg role="img" ', 1))  # noqa: S704  (our own file, in which names are escaped)


def _own_ids(tag: str, prefix: str) -> str:
    """One tag of a plot with its ids, and what refers to them, made unique in the page."""
    return (
        tag.replace(' id="', f' id="{prefix}').replace("url(#", f"url(#{prefix}").replace('href="#', f'href="#{prefix}')
    )
