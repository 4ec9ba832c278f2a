"""The list of runs: sorted by any column, with what cannot be trusted shown as such, and a choice to compare."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

from coterie.report.reading import figure, known, main_metric, schemes, value
from coterie.serving.dashboard.pages import Pages, epsilon
from coterie.serving.dashboard.runfolder import RunEntry, RunFolder

if TYPE_CHECKING:
    from coterie.serving.deployment import Deployment

CHIPS = {"finished": "good", "unfinished": "warn", "not trusted": "bad"}


@dataclass(frozen=True)
class Column:
    """A column: its heading, the value that orders it (None comes last), and whether it is a number."""

    name: str
    heading: str
    key: Callable[[RunEntry], Any]
    number: bool = False


def add_to(routes: APIRouter, pages: Pages, folder: RunFolder) -> None:
    """Add the page."""

    @routes.get("/dashboard/runs")
    def runs(request: Request, sort: str = "changed", order: str = "desc") -> HTMLResponse:
        entries = folder.entries()
        metric = shared_metric(entries)
        columns = _columns(metric)
        column = next((one for one in columns if one.name == sort), columns[-1])
        rows = [_row(entry, metric) for entry in ordered(entries, column, descending=order == "desc")]
        return pages.page(
            request,
            "runs.html.j2",
            rows=rows,
            columns=columns,
            sort=column.name,
            order=order,
            metric=metric,
            folder=str(folder.folder),
            shares=shares(pages.deployment),
            chips=CHIPS,
        )


def shares(deployment: Deployment) -> dict[str, float]:
    """The share of the traffic that each run folder answers now, by its path."""
    return {str(served.version.run): share for served, share in deployment.versions.all_loaded()}


def served_scheme(result: Mapping[str, Any]) -> str:
    """What of a run is served: the mix where there is one."""
    return "mix" if "mix" in schemes(result) else "federated"


def shared_metric(entries: list[RunEntry]) -> str | None:
    """The metric by which runs are listed: the main one of most of them."""
    found = [name for one in entries if one.result and (name := main_metric(one.result))]
    return max(sorted(set(found)), key=found.count, default=None)


def measured(entry: RunEntry, metric: str | None) -> float | None:
    """The metric of what the run serves."""
    return None if metric is None or not entry.result else value(entry.result, served_scheme(entry.result), metric)


def ordered(entries: list[RunEntry], column: Column, *, descending: bool) -> list[RunEntry]:
    """The runs by a column; where it has no value, a run comes last either way."""
    having = [one for one in entries if column.key(one) is not None]
    having.sort(key=lambda one: (column.key(one), one.name), reverse=descending)
    return having + [one for one in entries if column.key(one) is None]


def _columns(metric: str | None) -> list[Column]:
    return [
        Column("name", "run", lambda one: one.name.casefold()),
        Column("state", "state", lambda one: one.state),
        Column("model", "model", lambda one: one.result.get("model")),
        Column("metric", metric or "metric", lambda one: measured(one, metric), number=True),
        Column("epsilon", "epsilon", lambda one: known(_of(one, "privacy").get("epsilon")), number=True),
        Column("clients", "clients", lambda one: known(_of(one, "data").get("clients")), number=True),
        Column("users", "users", lambda one: known(_of(one, "data").get("users")), number=True),
        Column("items", "items", lambda one: known(_of(one, "data").get("items")), number=True),
        Column("changed", "written", lambda one: one.changed),
    ]


def _row(entry: RunEntry, metric: str | None) -> dict[str, Any]:
    promised = known(_of(entry, "privacy").get("epsilon"))
    return {
        "entry": entry,
        "model": entry.result.get("model"),
        "metric": figure(measured(entry, metric)),
        "epsilon": "–" if not entry.result else epsilon(promised),
        **{name: _of(entry, "data").get(name) for name in ("clients", "users", "items")},
    }


def _of(entry: RunEntry, part: str) -> Mapping[str, Any]:
    return entry.result.get(part) or {}
