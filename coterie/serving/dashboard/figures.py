"""The plots of the dashboard: what plotly draws, as plain values, each with the same figures as a table.

Colours are names of the style sheet ("@s1"), which the page's script looks up, so that plots follow light and dark.
Names come from shops and clients; plotly reads a kind of markup in texts, so that they are escaped for it here.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from coterie.report.reading import change, figure, known

Point: TypeAlias = tuple[int, float]
MOST_BARS = 60
_SERIES = ("@s1", "@s2", "@s3", "@s4", "@s5", "@s6")
_DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
_MARKS = ("circle", "diamond", "square", "triangle-up", "x", "cross")
_ROW, _MARGIN = 26, 110  # pixels of a client's row, and of what stands around all rows


@dataclass(frozen=True)
class Plotted:
    """A figure: `plot` for plotly, `head` and `rows` for the table beside it."""

    id: str
    caption: str
    plot: Mapping[str, Any]
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    note: str = ""


def by_round(
    id: str, caption: str, series: Mapping[str, Sequence[Point]], metric: str, *, legend: bool = False
) -> Plotted:
    """A metric after each round, one line for each name; rounds count from 1. One line needs no `legend`."""
    traces = [_line(name, points, at) for at, (name, points) in enumerate(series.items())]
    layout = _layout(360) | {
        "xaxis": {"title": {"text": "round"}, "rangemode": "tozero", "tickformat": "d", **_whole(series)},
        "yaxis": {"title": {"text": safe(metric)}, "rangemode": "tozero"},
        "hovermode": "x unified" if len(traces) > 1 else "closest",
        "showlegend": legend or len(traces) > 1,
    }
    rounds = sorted({round for points in series.values() for round, _ in points})
    values = [dict(points) for points in series.values()]
    rows = [[str(round), *(figure(of.get(round)) for of in values)] for round in rounds]
    return Plotted(id, caption, {"data": traces, "layout": layout}, ["round", *series], rows)


def gain_by_client(rows: Sequence[Mapping[str, Any]], metric: str) -> Plotted | None:
    """What each client has alone and after joining; None where no client has both.

    Rows have ``client``, ``alone``, ``served`` and, where known, ``low`` and ``high`` of the gain.
    """
    usable = [row for row in rows if known(row["alone"]) is not None and known(row["served"]) is not None]
    if not usable:
        return None
    usable.sort(key=lambda row: (row["served"] - row["alone"], str(row["client"])))
    many = len(usable) > MOST_BARS
    plot = _histogram(usable, metric) if many else _dumbbells(usable, metric)
    left = len(rows) - len(usable)
    note = "The largest gain stands on top." if not many else "How many clients gain how much."
    note += f" {left:,} more have no figures to compare." if left else ""
    table = [
        [str(row["client"]), figure(row["alone"]), figure(row["served"]), change(row["alone"], row["served"])]
        for row in reversed(usable)
    ]
    return Plotted(
        "gain", f"{metric} by client, alone and joined", plot, ["client", "alone", "joined", "change"], table, note
    )


def bars(id: str, caption: str, values: Mapping[str, float], unit: str) -> Plotted:
    """One horizontal bar for each name, the first on top."""
    names = list(values)
    trace = {
        "type": "bar",
        "orientation": "h",
        "x": [values[name] for name in names],
        "y": list(range(len(names))),
        "marker": {"color": "@s1"},
        "customdata": [safe(name) for name in names],
        "hovertemplate": "%{customdata}: %{x:,}<extra></extra>",
    }
    layout = _layout(_ROW * len(names) + _MARGIN) | {
        "xaxis": {"title": {"text": safe(unit)}, "rangemode": "tozero"},
        "yaxis": {**_names(names), "autorange": "reversed"},
        "bargap": 0.35,
    }
    return Plotted(
        id, caption, {"data": [trace], "layout": layout}, ["client", unit], [[n, f"{values[n]:,.0f}"] for n in names]
    )


def safe(text: str, most: int = 60) -> str:
    """A text of strangers for plotly: one printable line without markup.

    >>> safe("<b>Mug</b>")
    '&lt;b&gt;Mug&lt;/b&gt;'
    """
    line = "".join(c if c.isprintable() else " " for c in text)
    return html.escape(line if len(line) <= most else line[: most - 1] + "…", quote=False)


def _line(name: str, points: Sequence[Point], at: int) -> dict[str, Any]:
    look = at % len(_SERIES)
    return {
        "type": "scatter",
        "mode": "lines+markers",
        "name": safe(name),
        "x": [round for round, _ in points],
        "y": [value for _, value in points],
        "line": {"color": _SERIES[look], "width": 2, "dash": _DASHES[look]},
        "marker": {"color": _SERIES[look], "size": 7, "symbol": _MARKS[look]},
        "hovertemplate": "round %{x}: %{y:.4f}<extra></extra>" if not at else "%{y:.4f}",
    }


def _whole(series: Mapping[str, Sequence[Point]]) -> dict[str, Any]:
    """Ticks of whole rounds alone, where there are few."""
    last = max((round for points in series.values() for round, _ in points), default=1)
    return {"dtick": 1} if last <= 20 else {}


def _dumbbells(rows: Sequence[Mapping[str, Any]], metric: str) -> dict[str, Any]:
    place = list(range(len(rows)))
    alone, served = [row["alone"] for row in rows], [row["served"] for row in rows]
    lines: dict[str, list[float | None]] = {"x": [], "y": []}
    for at in place:
        lines["x"] += [alone[at], served[at], None]
        lines["y"] += [at, at, None]
    traces = [
        {
            "type": "scatter",
            "mode": "lines",
            **lines,
            "line": {"color": "@field", "width": 3},
            "hoverinfo": "skip",
            "showlegend": False,
        },
        _dots("alone", alone, place, rows, {"color": "@paper", "line": {"color": "@s5", "width": 2}, "size": 14}),
        _dots("joined", served, place, rows, {"color": [_side(row) for row in rows], "size": 10, "symbol": "diamond"}),
    ]
    layout = _layout(_ROW * len(rows) + _MARGIN) | {
        "xaxis": {"title": {"text": safe(metric)}},
        "yaxis": {**_names([str(row["client"]) for row in rows]), "range": [-0.7, len(rows) - 0.3], "showgrid": False},
        "showlegend": True,
    }
    return {"data": traces, "layout": layout}


def _dots(
    name: str,
    values: Sequence[float],
    place: Sequence[int],
    rows: Sequence[Mapping[str, Any]],
    marker: Mapping[str, Any],
) -> dict[str, Any]:
    told = [f"{safe(str(row['client']))}: {name} {value:.4f}" for row, value in zip(rows, values, strict=True)]
    return {
        "type": "scatter",
        "mode": "markers",
        "name": name,
        "x": list(values),
        "y": list(place),
        "marker": dict(marker),
        "customdata": told,
        "hovertemplate": "%{customdata}<extra></extra>",
    }


def _side(row: Mapping[str, Any]) -> str:
    return "@s2" if row["served"] < row["alone"] else "@s1"


def _histogram(rows: Sequence[Mapping[str, Any]], metric: str) -> dict[str, Any]:
    gains = [row["served"] - row["alone"] for row in rows]
    sides = {"lose": [g for g in gains if g < 0], "do not lose": [g for g in gains if g >= 0]}
    traces = [
        {"type": "histogram", "name": f"{name} ({len(values):,})", "x": values, "marker": {"color": colour}}
        for (name, values), colour in zip(sides.items(), ("@s2", "@s1"), strict=True)
    ]
    layout = _layout(360) | {
        "xaxis": {"title": {"text": f"change in {safe(metric)} by joining"}},
        "yaxis": {"title": {"text": "clients"}},
        "barmode": "overlay",
        "showlegend": True,
    }
    return {"data": traces, "layout": layout}


def _names(names: Sequence[str]) -> dict[str, Any]:
    return {
        "tickmode": "array",
        "tickvals": list(range(len(names))),
        "ticktext": [safe(name, 28) for name in names],
        "ticksuffix": "  ",
    }


def _layout(height: int) -> dict[str, Any]:
    return {
        "height": max(height, 200),
        "margin": {"l": 60, "r": 20, "t": 16, "b": 48},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
    }
