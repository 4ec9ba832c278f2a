"""The two plots of a run, as SVG: a metric by round, and what each client gains.

Figures are drawn with matplotlib's object interface on its SVG backend: no window, no global state, and equal input
gives equal bytes. Colours are those of Okabe & Ito (2008), and every series also has its own marker. Paper, text and
lines have the colours of `coterie.report.colours`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from coterie.errors import DataError
from coterie.report.colours import INK, LINE, PAPER
from coterie.report.reading import change, known
from coterie.types import Floats

ALONE, FEDERATED, MIX, HURT = "#8a8f96", "#0072b2", "#e69f00", "#d55e00"
MOST_BARS = 60

_STYLE: Any = {  # matplotlib types the keys as literals that differ between its versions
    "svg.hashsalt": "coterie",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.linewidth": 0.6,
    **dict.fromkeys(("figure.facecolor", "axes.facecolor", "savefig.facecolor", "legend.facecolor"), PAPER),
    **dict.fromkeys(("text.color", "axes.labelcolor", "axes.titlecolor", "xtick.color", "ytick.color"), INK),
    **dict.fromkeys(("axes.edgecolor", "grid.color", "legend.edgecolor"), LINE),
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
}


def metric_by_round(records: Sequence[Mapping[str, Any]], metric: str, path: Path) -> None:
    """Plot `metric` after each round to `path` (SVG).

    Each record has ``round`` (0-based) and, in rounds that were measured, the metric under its name.

    Raises:
        DataError: no record has the metric.
    """
    points = [(int(record["round"]) + 1, v) for record in records if (v := known(record.get(metric))) is not None]
    if not points:
        raise DataError(f"metric '{metric}' is in none of the {len(records)} round records, so it cannot be plotted")
    rounds, values = zip(*points, strict=True)
    with canvas(f"{metric} by round", (6.4, 3.4), path) as axes:
        axes.plot(rounds, values, color=FEDERATED, marker="o", markersize=5, linewidth=2)
        axes.annotate(
            f"{values[-1]:.4f}", (rounds[-1], values[-1]), xytext=(0, 8), textcoords="offset points", ha="center"
        )
        axes.set_xlabel("round")
        axes.set_ylabel(_unit(metric))
        axes.set_xlim(min(rounds) - 0.5, max(rounds) + 0.5)
        axes.set_ylim(0, 1.15 * max(*values, 1e-6))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))


def gain_by_client(rows: Sequence[Mapping[str, Any]], metric: str, path: Path) -> None:
    """Plot what each client has alone and after joining to `path` (SVG), the largest gain on top.

    Rows have ``client``, ``alone``, ``federated`` and, where known, ``mix`` and the interval ``low``, ``high`` of the
    gain. The gain is what the client is served (its mix, or the federated model where it has none) minus what it has
    alone. Clients without figures are left out, and the plot says how many. Above 60 clients it is a histogram.

    Raises:
        DataError: no client has both figures.
    """
    usable = [row for row in rows if known(row.get("alone")) is not None and known(row.get("federated")) is not None]
    if not usable:
        raise DataError(
            f"none of the {len(rows)} clients has '{metric}' both alone and federated, so there is no gain to plot"
        )
    usable.sort(key=lambda row: (_served(row) - row["alone"], str(row["client"])))
    many = len(usable) > MOST_BARS
    height = 3.6 if many else 1.7 + 0.27 * len(usable)
    with canvas("What each client gains by joining", (7.2, height), path) as axes:
        (_draw_histogram if many else _draw_clients)(axes, usable, metric)
        if left_out := len(rows) - len(usable):
            axes.set_xlabel(f"{axes.get_xlabel()}\n{left_out:,} more without figures to compare")


@contextmanager
def canvas(title: str, inches: tuple[float, float], path: Path) -> Iterator[Axes]:
    """Axes of a titled figure that goes to `path` when the caller is done: the same bytes for the same drawing."""
    with mpl.rc_context(_STYLE), warnings.catch_warnings():
        # The font that measures the layout lacks some scripts; the SVG carries text, which the viewer's fonts draw.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure = Figure(figsize=inches, layout="constrained")
        FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        axes.set_title(title, pad=10)
        yield axes
        figure.savefig(path, format="svg", metadata={"Title": title, "Date": None, "Creator": "Coterie"})


def _draw_clients(axes: Axes, rows: Sequence[Mapping[str, Any]], metric: str) -> None:
    """A dumbbell per client: from alone to what it is served, in the colour of loss where it lost."""
    place = np.arange(len(rows))
    alone, served = _column(rows, "alone"), np.array([_served(row) for row in rows])
    low, high = alone + _column(rows, "low"), alone + _column(rows, "high")
    if np.isfinite(low).any():
        axes.hlines(place, low, high, color=LINE, linewidth=6, zorder=1, label="interval of the gain")
    colour = [HURT if after < before else FEDERATED for before, after in zip(alone, served, strict=True)]
    axes.hlines(place, alone, served, color=colour, linewidth=2.5, alpha=0.6)
    axes.scatter(alone, place, s=36, facecolor=PAPER, edgecolor=ALONE, linewidth=1.8, zorder=3, label="alone")
    axes.scatter(_column(rows, "federated"), place, s=36, color=FEDERATED, zorder=4, label="federated")
    mix = _column(rows, "mix")
    if np.isfinite(mix).any():
        axes.scatter(mix, place, s=30, marker="D", color=MIX, zorder=5, label="mix")
    axes.set_yticks(place, [_label(row["client"]) for row in rows])
    axes.set_ylim(-0.7, len(rows) - 0.3)
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(_unit(metric))
    for y, before, after in zip(place, alone, served, strict=True):
        axes.annotate(
            change(before, after),
            (1, y),
            xycoords=("axes fraction", "data"),
            xytext=(6, 0),
            textcoords="offset points",
            va="center",
            fontsize=9,
            color=HURT if after < before else INK,
            annotation_clip=False,
        )
    axes.figure.legend(loc="outside lower center", ncols=4, frameon=False)


def _draw_histogram(axes: Axes, rows: Sequence[Mapping[str, Any]], metric: str) -> None:
    """How many clients gain how much; losses have their own colour and hatching."""
    gain = np.array([_served(row) for row in rows]) - _column(rows, "alone")
    reach = max(float(np.abs(gain).max()), 1e-6)
    parts = (("lose", gain < 0, HURT, "///"), ("unchanged", gain == 0, ALONE, ""), ("gain", gain > 0, FEDERATED, ""))
    edges = np.linspace(-reach, reach, 42)  # 41 bins: the middle one holds the clients that did not change
    below = np.zeros(41)
    for name, members, colour, hatch in parts:
        heights = np.histogram(gain[members], edges)[0].astype(np.float64)
        label = f"{name} ({members.sum():,})"
        axes.bar(
            edges[:-1],
            heights,
            np.diff(edges),
            below,
            align="edge",
            color=colour,
            hatch=hatch,
            edgecolor=PAPER,
            label=label,
        )
        below += heights
    axes.axvline(0, color=INK, linewidth=1)
    axes.grid(visible=False, axis="x")
    axes.set_xlabel(f"change in {metric} by joining")
    axes.set_ylabel("clients")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(frameon=False)


def _served(row: Mapping[str, Any]) -> float:
    """What the client gets once it has joined."""
    mix = known(row.get("mix"))
    return float(row["federated"]) if mix is None else mix


def _column(rows: Sequence[Mapping[str, Any]], name: str) -> Floats:
    """A key of all rows as float64, NaN where missing."""
    return np.array([np.nan if (v := known(row.get(name))) is None else v for row in rows], np.float64)


def _label(client: Any, most: int = 28) -> str:
    """A client's name as one short printable line."""
    text = "".join(c if c.isprintable() else " " for c in str(client))
    return text if len(text) <= most else text[: most - 1] + "…"


def _unit(metric: str) -> str:
    return f"{metric} (0 to 1, more is better)"
