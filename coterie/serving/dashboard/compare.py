"""Two or more runs side by side: what they measure, what they were trained with, and their curves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request
from starlette.responses import HTMLResponse

from coterie.errors import DataError, UsageError
from coterie.report import reading
from coterie.report.reading import ERRORS, figure, known
from coterie.serving.dashboard.curves import curve, metrics_of, records
from coterie.serving.dashboard.figures import by_round
from coterie.serving.dashboard.pages import Pages, epsilon
from coterie.serving.dashboard.runfolder import RunEntry, RunFolder
from coterie.serving.dashboard.runs import served_scheme, shared_metric

MOST = 6


def add_to(routes: APIRouter, pages: Pages, folder: RunFolder) -> None:
    """Add the page."""

    @routes.get("/dashboard/compare")
    def compare(request: Request, run: Annotated[list[str] | None, Query()] = None, metric: str = "") -> HTMLResponse:
        chosen = _chosen(folder, run or [])
        found = {one.name: records(one.folder) for one in chosen}
        names = list(dict.fromkeys(name for of in found.values() for name in metrics_of(of)))
        shown = metric if metric in names else (shared_metric(chosen) or "")
        series = {name: points for name, of in found.items() if len(points := curve(of, shown)) > 1}
        caption = f"{shown} on validation, by round"
        return pages.page(
            request,
            "compare.html.j2",
            here="/dashboard/runs",
            runs=[one.name for one in chosen],
            served=_served(chosen),
            metrics=_metrics(chosen),
            settings=_settings(chosen),
            curves=by_round("curves", caption, series, shown, legend=True) if series else None,
            without=[name for name in found if name not in series],
            names=names,
            shown=shown,
            splits=_splits(chosen),
        )


def _chosen(folder: RunFolder, names: Sequence[str]) -> list[RunEntry]:
    wanted = list(dict.fromkeys(names))
    if not 2 <= len(wanted) <= MOST:
        raise UsageError(f"choose 2 to {MOST} runs to compare, not {len(wanted)}; the list of runs has a box for each")
    found = [one for name in wanted if (one := folder.find(name)) is not None and one.state == "finished"]
    if len(found) < len(wanted):
        gone = sorted(set(wanted) - {one.name for one in found})
        raise DataError(f"no finished run that is trusted has the name {gone[0]!r}; choose from the list of runs")
    return found


def _served(chosen: Sequence[RunEntry]) -> list[dict[str, Any]]:
    """The headline metrics of what each run serves."""
    names = dict.fromkeys(name for one in chosen for name in reading.headline(one.result))
    return [
        {
            "metric": name,
            "scheme": None,
            "cells": _cells(name, [reading.value(one.result, served_scheme(one.result), name) for one in chosen]),
        }
        for name in names
    ]


def _metrics(chosen: Sequence[RunEntry]) -> list[dict[str, Any]]:
    """Every headline metric of every scheme that a run has."""
    rows = []
    schemes = [name for name in reading.SCHEMES if any(name in reading.schemes(one.result) for one in chosen)]
    for metric in dict.fromkeys(name for one in chosen for name in reading.headline(one.result)):
        for scheme in schemes:
            values = [reading.value(one.result, scheme, metric) for one in chosen]
            rows.append({"metric": metric, "scheme": scheme, "cells": _cells(metric, values)})
    return rows


def _cells(metric: str, values: Sequence[float | None]) -> list[dict[str, Any]]:
    """The values as text; the best of several is marked."""
    there = [value for value in values if value is not None]
    best = (min if metric in ERRORS else max)(there) if len(there) > 1 else None
    return [{"text": figure(value), "best": value is not None and value == best} for value in values]


def _settings(chosen: Sequence[RunEntry]) -> list[tuple[str, list[str], bool]]:
    """What the runs were trained with and on: name, text for each run, whether they differ."""
    facts = [_facts(one.result) for one in chosen]
    names = dict.fromkeys(name for of in facts for name in of)
    rows = [(name, [of.get(name, "–") for of in facts]) for name in names]
    return [(name, values, len(set(values)) > 1) for name, values in rows]


def _facts(result: Mapping[str, Any]) -> dict[str, str]:
    data, privacy = result.get("data") or {}, result.get("privacy") or {}
    facts = {name: str(result[name]) for name in ("model", "engine", "seed") if result.get(name) is not None}
    facts["served"] = served_scheme(result)
    given = (result.get("hyper_parameters") or {}).items()
    facts |= {name: "by the model" if value is None else str(value) for name, value in given if name != "name"}
    facts |= {name: reading.count(data.get(name)) for name in ("clients", "users", "items", "interactions")}
    facts["split"] = str((result.get("split") or {}).get("method") or "–")
    facts["epsilon"] = epsilon(known(privacy.get("epsilon")))
    facts["aggregation"] = str(privacy.get("aggregation") or "–")
    facts["upload per client"] = reading.size((result.get("traffic") or {}).get("upload_bytes_per_client"))
    return facts


def _splits(chosen: Sequence[RunEntry]) -> bool:
    """Whether all runs hold out the same: the split, the cases and the data, as far as their figures tell."""
    held = [[one.result.get("split"), one.result.get("cases"), one.result.get("data")] for one in chosen]
    return all(one == held[0] for one in held)
