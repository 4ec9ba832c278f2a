"""The buyer's table for people: sentences, tables for the terminal, Markdown, CSV, and a plot by epsilon.

All read the object that ``coterie compare --json`` prints. What is missing or null in it is shown as missing.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from rich import box
from rich.table import Table
from rich.text import Text

from coterie.report.plots import ALONE, FEDERATED, HURT, MIX, canvas
from coterie.report.printable import cell, printable
from coterie.report.reading import MISSING, Result, change, count, figure, known

KINDS: Mapping[str, str] = {
    "alone": "each organisation learns from its own log only, without noise",
    "texts": "items with similar texts: nothing is learned from any log",
    "federated": "one model from the sum over all organisations",
    "mix": "the federated model, mixed at home with the organisation's own",
    "centralised": "one model from all logs in one place: what pooling would give",
}
NOISELESS, SAME_ROWS = "none", "same-rows"
_WHERE = {NOISELESS: "Without noise", SAME_ROWS: "Without noise, over the rows that private sums are over,"}
NAMED = 6  # organisations that a sentence names
WIDE = 4  # mixes that a table of 80 columns holds


def column(epsilon: str) -> str:
    """What a federation is called, from its name in a result: "none", "same-rows" or a number.

    >>> column("none"), column("8")
    ('no noise', 'epsilon 8')
    """
    return {NOISELESS: "no noise", SAME_ROWS: "no noise, same rows"}.get(epsilon, f"epsilon {epsilon}")


def sentence(row: Mapping[str, Any], others: Mapping[str, Mapping[str, Any]], alone: float) -> str:
    """Who gains at one epsilon, and what privacy takes.

    Args:
        row: an entry of ``by_epsilon``.
        others: all of them, by epsilon.
        alone: the mean over organisations of training alone.
    """
    better, worse = row["surely_better"], row["surely_worse"]
    where = _WHERE.get(row["epsilon"], f"At epsilon {row['epsilon']}")
    helps = f"joining helps {len(better) or 'none'} of {row['clients']} beyond chance{_named(better)}"
    hurts = f"hurts {len(worse) or 'none'}{_named(worse)}"
    gain = row["gain"]["mean"]
    means = f"the mean goes from {alone:.4f} alone to {alone + gain:.4f} ({change(alone, alone + gain)})"
    price = "" if row["epsilon"] == NOISELESS or NOISELESS not in others else f"; {_price(row, others.get(SAME_ROWS))}"
    return f"{where} {helps} and {hurts}; {means}{price}."


def tables(result: Result, most: int = 20) -> list[Table]:
    """For the terminal, 80 columns wide: means by scheme, then the mixes of the `most` largest organisations."""
    epsilons = [epsilon for epsilon in epsilons_of(result) if epsilon != SAME_ROWS]
    parts = [epsilons[start : start + WIDE] for start in range(0, len(epsilons), WIDE)]
    return [_means_table(result), *(_clients_table(result, part, most) for part in parts)]


def markdown(result: Result) -> str:
    """Everything on one page: sentences, means, each organisation under each scheme, gains, and what differs."""
    metric = result["metric"]
    lines = ["# What joining is worth", "", *(f"- {_plain(row['sentence'])}" for row in result["by_epsilon"]), ""]
    lines += [f"{metric}: 0 to 1, more is better. In brackets: {_percent(result['confidence'])} intervals.", ""]
    lines += ["## Mean over organisations", "", "| scheme | what it is | mean | change |", "|---|---|---|---|"]
    alone = result["macro"]["alone"]["mean"]
    for kind, epsilon, estimate in _schemes(result["macro"]):
        label = _label(kind, epsilon)
        lines.append(f"| {label} | {KINDS[kind]} | {_bracketed(estimate)} | {change(alone, estimate['mean'])} |")
    lines += ["", "## By organisation", "", *_markdown_clients(result)]
    lines += ["", "## What the mix gains over training alone", "", *_markdown_gains(result)]
    for title, key in (("What differs between the columns", "differences"), ("To know", "caveats")):
        if result.get(key):
            lines += ["", f"## {title}", "", *(f"- {_plain(text)}" for text in result[key])]
    return "\n".join(lines) + "\n"


def as_csv(result: Result) -> str:
    """One row for each organisation (and for the mean over them, client ``*``) and scheme."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    names = ("gain", "gain_low", "gain_high", "p_value", "beyond_chance", "mix_weight", "kept")
    writer.writerow(["client", "cases", "scheme", "epsilon", result["metric"], "low", "high", *names])
    rows = {row["epsilon"]: row for row in result["by_epsilon"]}
    for kind, epsilon, one in _schemes(result["macro"]):
        gain, kept = (rows[epsilon]["gain"], rows[epsilon]["kept"]) if kind == "mix" else (None, None)
        tail = [*_limits(gain), None, None, None, None if kept is None else kept["mean"]]
        writer.writerow(["*", None, kind, epsilon, *_limits(one), *tail])
    for client in result["per_client"]:
        for kind, epsilon, one in _schemes(client):
            tail = [None] * len(names)
            if kind == "mix":
                gain = client["gain"][epsilon]
                tail = [gain["difference"], gain["low"], gain["high"], gain["p_value"], gain["beyond_chance"]]
                tail += [client["mix_weight"][epsilon], None]
            writer.writerow([client["client"], client["cases"], kind, epsilon, *_limits(one), *tail])
    return out.getvalue()


def plot_by_epsilon(result: Result, path: Path) -> None:
    """Plot the mean over organisations of each scheme by epsilon to `path` (SVG), the strictest promise on the left."""
    macro = result["macro"]
    asked = [name for name in epsilons_of(result) if name != SAME_ROWS]
    names = sorted(asked, key=lambda name: float("inf") if name == NOISELESS else float(name))
    with canvas("What joining is worth", (7.2, 3.8), path) as axes:
        for kind, colour, style in (("alone", ALONE, "-"), ("texts", HURT, ":"), ("centralised", ALONE, "--")):
            if kind in macro:
                axes.axhline(macro[kind]["mean"], color=colour, linestyle=style, label=kind)
        _draw(axes, [macro["federated"][name] for name in names], FEDERATED, "o", "federated")
        _draw(axes, [macro["mix"][name] for name in names], MIX, "D", "mix")
        axes.set_xticks(range(len(names)), [column(name) for name in names])
        axes.set_xlim(-0.5, len(names) - 0.5)
        axes.set_ylabel(f"{result['metric']}, mean over organisations")
        axes.figure.legend(loc="outside lower center", ncols=5, frameon=False)


def epsilons_of(result: Result) -> list[str]:
    """Names of the epsilons, in the order in which they were asked for."""
    return [row["epsilon"] for row in result["by_epsilon"]]


# --- sentences --------------------------------------------------------------------------------------------------------


def _price(row: Mapping[str, Any], same_rows: Mapping[str, Any] | None) -> str:
    """What is taken of the gain without noise, and by what."""
    kept, gain, whole = row["kept"], row["gain"], "what joining without noise would give"
    taker = "leaving those rows out" if row is same_rows else "privacy"
    if kept is None:
        return "joining gains nothing on average even without noise"
    if gain["mean"] <= 0:
        return f"{taker} eats all of {whole}"
    if kept["mean"] >= 1:
        return f"{taker} takes nothing of {whole} that these cases could show"
    limits = "" if kept["low"] is None else f", interval {_percent(kept['low'])} to {_percent(kept['high'])}"
    told = f"{taker} takes {_percent(1 - kept['mean'])} of {whole} ({_percent(kept['mean'])} is kept{limits})"
    if row is not same_rows and same_rows is not None and kept["mean"] < same_rows["kept"]["mean"] < 1:
        rows, noise = 1 - same_rows["kept"]["mean"], same_rows["kept"]["mean"] - kept["mean"]
        told += f", {_percent(rows)} by the rows it leaves out and {_percent(noise)} by its noise"
    unsure = gain["low"] is not None and gain["low"] <= 0
    return told + ("; what is left cannot be told from chance" if unsure else "")


def _named(names: Sequence[str]) -> str:
    if not names:
        return ""
    more = len(names) - NAMED
    shown = ", ".join(printable(name) for name in names[:NAMED])
    return f" ({shown}{f' and {more} more' if more > 0 else ''})"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %"


# --- terminal ---------------------------------------------------------------------------------------------------------


def _means_table(result: Result) -> Table:
    """One row a scheme: the mean over organisations, its interval, and the change against training alone."""
    macro = result["macro"]
    alone = macro["alone"]["mean"]
    table = _table(f"What joining is worth: {result['metric']}, mean over {len(result['per_client'])} organisations")
    table.add_column("scheme", no_wrap=True)
    for name in ("mean", "interval", "change", "gain kept"):
        table.add_column(name, justify="right", no_wrap=True)
    rows = {row["epsilon"]: row for row in result["by_epsilon"]}
    for kind, epsilon, one in _schemes(macro):
        kept = rows[epsilon]["kept"] if kind == "mix" and epsilon != NOISELESS else None
        share = "" if kept is None else _percent(kept["mean"])
        cells = [figure(one["mean"]), _interval(one), "" if kind == "alone" else change(alone, one["mean"]), share]
        style = "bold cyan" if kind == "mix" else ""
        table.add_row(Text(_label(kind, epsilon), style=style), *map(Text, cells))
    return table


def _clients_table(result: Result, epsilons: Sequence[str], most: int) -> Table:
    """One row an organisation: alone, texts, and its mix at each epsilon; green and red are beyond chance."""
    rows = sorted(result["per_client"], key=lambda row: (-(known(row.get("cases")) or 0), str(row["client"])))
    left = len(rows) - most
    notes = [f"{left:,} with fewer cases not shown"] if left > 0 else []
    notes.append("* beyond chance against alone (paired test, Holm's correction over organisations)")
    table = _table(f"{result['metric']} of each organisation: alone, and its mix", "; ".join(notes))
    table.add_column("client", overflow="fold", max_width=12)
    table.add_column("cases", justify="right", no_wrap=True)
    texts = ["texts"] if "texts" in result["macro"] else []
    mixes = ["no noise" if epsilon == NOISELESS else f"eps {epsilon}" for epsilon in epsilons]
    for name in ("alone", *texts, *mixes):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows[:most]:
        cells = [_with_interval(row[kind]) for kind in ("alone", *texts)]
        cells += [_with_interval(row["mix"][epsilon], row["gain"][epsilon]) for epsilon in epsilons]
        table.add_row(cell(row["client"]), Text(count(row["cases"])), *cells)
    return table


def _with_interval(one: Mapping[str, Any], gain: Mapping[str, Any] | None = None) -> Text:
    sure = gain is not None and gain["beyond_chance"]
    style = ("green" if gain["difference"] > 0 else "red") if gain is not None and sure else ""
    text = Text(_short(one["mean"]) + ("*" if sure else ""), style=style)
    if one["low"] is not None:
        text.append(f"\n{_short(one['low'])}–{_short(one['high'])}", style="not bold dim")
    return text


def _short(number: float) -> str:
    """Three decimals without the leading zero: eight of them fit a line."""
    return f"{number:.3f}".removeprefix("0")


def _table(title: str, caption: str | None = None) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption=caption,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=0,
        min_width=48,
    )


# --- Markdown, CSV, plot ----------------------------------------------------------------------------------------------


def _markdown_clients(result: Result) -> Iterator[str]:
    schemes = [(kind, epsilon) for kind, epsilon, _ in _schemes(result["macro"])]
    yield f"| client | cases | {' | '.join(_label(kind, epsilon) for kind, epsilon in schemes)} |"
    yield "|---" * (len(schemes) + 2) + "|"
    for row in result["per_client"]:
        cells = [_bracketed(row[kind][epsilon] if epsilon else row[kind]) for kind, epsilon in schemes]
        yield f"| {_plain(row['client'])} | {count(row['cases'])} | {' | '.join(cells)} |"


def _markdown_gains(result: Result) -> Iterator[str]:
    epsilons = epsilons_of(result)
    yield f"| client | {' | '.join(map(column, epsilons))} | weight of its own model |"
    yield "|---" * (len(epsilons) + 2) + "|"
    for row in result["per_client"]:
        cells = []
        for gain in (row["gain"][epsilon] for epsilon in epsilons):
            one = {"mean": gain["difference"], "low": gain["low"], "high": gain["high"]}
            cells.append(_bracketed(one, "+") + (" **beyond chance**" if gain["beyond_chance"] else ""))
        weights = ", ".join(f"{row['mix_weight'][epsilon]:g}" for epsilon in epsilons)
        yield f"| {_plain(row['client'])} | {' | '.join(cells)} | {weights} |"


def _draw(axes: Axes, estimates: Sequence[Mapping[str, Any]], colour: str, marker: str, label: str) -> None:
    """A line through the means, with intervals; the two lines stand a little apart."""
    shift = -0.04 if label == "federated" else 0.04
    place = [at + shift for at in range(len(estimates))]
    means = [one["mean"] for one in estimates]
    axes.plot(place, means, color=colour, marker=marker, markersize=5, linewidth=2, label=label)
    for x, one in zip(place, estimates, strict=True):
        if one["low"] is not None:
            axes.vlines(x, one["low"], one["high"], color=colour, linewidth=1.2, alpha=0.6)


# --- reading ----------------------------------------------------------------------------------------------------------


def _schemes(values: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """(kind, epsilon or "", estimate), in the order in which people read them."""
    for kind in ("alone", "texts"):
        if kind in values:
            yield kind, "", values[kind]
    for epsilon in values["mix"]:
        yield "federated", epsilon, values["federated"][epsilon]
        yield "mix", epsilon, values["mix"][epsilon]
    yield "centralised", "", values["centralised"]


def _label(kind: str, epsilon: str) -> str:
    if not epsilon:
        return "texts only" if kind == "texts" else kind
    return f"{kind}, {column(epsilon)}"


def _interval(one: Mapping[str, Any]) -> str:
    return MISSING if one["low"] is None else f"{one['low']:.4f}–{one['high']:.4f}"


def _bracketed(one: Mapping[str, Any], sign: str = "") -> str:
    mean = f"{one['mean']:{sign}.4f}"
    return mean if one["low"] is None else f"{mean} [{one['low']:{sign}.4f}, {one['high']:{sign}.4f}]"


def _limits(one: Mapping[str, Any] | None) -> list[float | None]:
    return [None, None, None] if one is None else [one["mean"], one["low"], one["high"]]


def _plain(text: str) -> str:
    """Text of strangers in Markdown: on one line, and no table, link or markup of its own."""
    safe = printable(str(text))
    for character in "\\`*_[]<>|":
        safe = safe.replace(character, f"\\{character}")
    return safe
