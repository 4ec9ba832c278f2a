"""`coterie feedback`: what came of the answers, per model version."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

from coterie.cli.output import JsonFlag, Output
from coterie.cli.serving import ConfigOption, SinceOption, StoreOption, config_of, microseconds, opened_store, place

if TYPE_CHECKING:
    from rich.table import Table

    from coterie.serving.feedback import Comparison, Feedback, Share


def feedback(
    store: StoreOption = None, config: ConfigOption = None, since: SinceOption = None, json: JsonFlag = False
) -> None:
    """Show clicks, carts and purchases per model version, freed of positions, and how a challenger compares."""
    from coterie.serving.feedback import feedback as read

    begun = microseconds("--since", since)
    settings = config_of(config, store)
    with closing(opened_store(settings)) as opened:
        found = read(opened, begun)
    out = Output(json)
    for note in found.notes:
        out.note(note)
    out.result({"store": place(settings), **found.as_dict()}, *_shown(found))


def _shown(found: Feedback) -> list[Any]:
    if not found.versions:
        return ["nothing to tell yet"]
    parts: list[Any] = [versions_table(found)]
    if found.examination is not None:
        looked = ", ".join(f"{theta:.2f}" for theta in found.examination.theta[:10])
        parts.append(f"looked at, by position ({found.examination.method}): {looked}")
    if found.comparison:
        parts.append(comparison_table(found))
        parts += [f"{_spoken(one)}: {one.note}" for one in found.comparison]
    return parts


def versions_table(found: Feedback) -> Table:
    """One row per version: shares of the answers that were shown, with 95 % intervals."""
    from coterie.report.printable import cell

    table = _table("Of the answers that were shown")
    for name in ("version", "model", "answers", "clicked", "carted", "bought from", "quality"):
        table.add_column(name, justify="left" if name == "model" else "right")
    for one in found.versions:
        shares = (one.click_through, one.add_to_cart, one.conversion, one.quality)
        role = {found.champion: " (champion)", found.challenger: " (challenger)"}.get(one.version, "")
        name = f"{one.model or 'unknown'}{role}"
        table.add_row(str(one.version), cell(name), f"{one.shown:,}", *map(_share, shares))
    return table


def comparison_table(found: Feedback) -> Table:
    """One row per measure: champion, challenger, difference and p-value."""
    table = _table(f"Version {found.challenger} against {found.champion}, while both answered")
    table.add_column("measure")
    for name in ("champion", "challenger", "difference", "p"):
        table.add_column(name, justify="right")
    for one in found.comparison:
        difference = "" if one.difference is None else f"{one.difference:+.2%} [{one.low:+.2%}, {one.high:+.2%}]"
        p_value = "" if one.p_value is None else f"{one.p_value:.3g}"
        table.add_row(_spoken(one), _rate(one.champion), _rate(one.challenger), difference, p_value)
    return table


def _spoken(one: Comparison) -> str:
    return one.measure.replace("_", " ")


def _rate(share: Share) -> str:
    return "" if share.rate is None else f"{share.rate:.2%}"


def _share(share: Share | None) -> str:
    if share is None or share.rate is None:
        return "unknown"
    if share.low is None or share.high is None:
        return f"{share.rate:.2%}"
    return f"{share.rate:.2%} [{share.low:.2%}, {share.high:.2%}]"


def _table(title: str) -> Table:
    from rich import box
    from rich.table import Table

    return Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
