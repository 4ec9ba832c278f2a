"""One run: what it measured, round by round and client by client, what left each client, and what is promised."""

from __future__ import annotations

import mimetypes
from collections.abc import Mapping, Sequence
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response

from coterie.errors import DataError, PlanError
from coterie.files import read_bytes
from coterie.report import reading
from coterie.report.card import privacy_card
from coterie.report.documents import FORMATS, KINDS, Stored, file_name, render
from coterie.report.reading import known
from coterie.serving.dashboard.curves import Records, curve, metrics_of, records
from coterie.serving.dashboard.figures import by_round, gain_by_client
from coterie.serving.dashboard.ledger import ledger_of, statement_of_run
from coterie.serving.dashboard.markdown import to_html
from coterie.serving.dashboard.pages import Pages, download
from coterie.serving.dashboard.runfolder import RunEntry, RunFolder
from coterie.serving.dashboard.runs import served_scheme, shares

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_CLIENTS = 200
_TYPES = {"html": "text/html", "md": "text/markdown", "json": "application/json"}
_KEPT = ("privacy-card.md", "report.html", "result.json", "metrics.jsonl", "config.toml", "manifest.json")


def add_to(routes: APIRouter, pages: Pages, folder: RunFolder) -> None:
    """Add the page of a run, its documents and its files."""

    @routes.get("/dashboard/runs/{name}")
    def run(request: Request, name: str, metric: str = "") -> HTMLResponse:
        entry = _found(folder, name)
        share = shares(pages.deployment).get(str(entry.folder))
        template = "run.html.j2" if entry.state == "finished" else "run_apart.html.j2"
        view = _view(pages, entry, metric) if entry.state == "finished" else _apart(entry, metric)
        return pages.page(request, template, here="/dashboard/runs", entry=entry, share=share, **view)

    @routes.get("/dashboard/runs/{name}/files/{file:path}")
    def file(name: str, file: str) -> Response:
        entry = _found(folder, name)
        if file not in _files(entry):
            raise DataError(f"run '{entry.name}' offers no file {file!r}; its page lists those that it has")
        kind = mimetypes.guess_type(file)[0] or "application/octet-stream"
        return download(read_bytes(entry.folder / file), f"{entry.name}-{PurePath(file).name}", kind)

    @routes.get("/dashboard/runs/{name}/documents/{kind}.{format}")
    def document(name: str, kind: str, format: str) -> Response:
        entry = _finished(folder, name)
        chosen = next((one for one in FORMATS if one == format), None)
        if kind not in KINDS or chosen is None:
            raise DataError(f"there is no document {kind!r} as {format!r}; the page of the run lists what there is")
        account = statement_of_run(pages.deployment, entry.result)
        text = render(Stored(entry.folder, entry.result), kind, chosen, account=account)
        return download(text, f"{entry.name}-{file_name(kind, chosen)}", _TYPES[chosen])


def _found(folder: RunFolder, name: str) -> RunEntry:
    entry = folder.find(name)
    if entry is None:
        told = f"there is no run {name!r} in {folder.folder}; the list of runs shows those that there are"
        raise HTTPException(404, told)
    return entry


def _finished(folder: RunFolder, name: str) -> RunEntry:
    entry = _found(folder, name)
    if entry.state != "finished":
        raise DataError(f"run '{entry.name}' is {entry.state}, so there are no documents about it: {entry.reason}")
    return entry


def _apart(entry: RunEntry, metric: str) -> dict[str, Any]:
    """Of a run that is not finished, the rounds so far; of one that is not trusted, nothing."""
    found = records(entry.folder) if entry.state == "unfinished" else []
    return {"rounds": _rounds(found), **_curve(found, metric or next(iter(metrics_of(found)), ""))}


def _view(pages: Pages, entry: RunEntry, metric: str) -> dict[str, Any]:
    result, found = entry.result, records(entry.folder)
    main = reading.main_metric(result) or ""
    gains = [_gain(row, main) for row in result.get("per_client") or []]
    return {
        "result": result,
        "sentence": _capital((result.get("comparison") or {}).get("sentence") or ""),
        "tiles": list(_tiles(result, main)),
        "headline": reading.headline(result),
        "schemes": [_scheme(result, name) for name in reading.schemes(result)],
        "meanings": reading.SCHEMES,
        "served": served_scheme(result),
        "main": main,
        "gain": gain_by_client(gains, main),
        "clients": _clients(result, main),
        "left_out": max(0, len(result.get("per_client") or []) - MOST_CLIENTS),
        "parts": _parts(result),
        "rounds": _rounds(found),
        "card": _card(result),
        "ledger": ledger_of(pages.deployment, result),
        "documents": [(kind, about) for kind, about in KINDS.items()],
        "formats": FORMATS,
        "files": _files(entry),
        **_curve(found, metric or main),
    }


def _curve(found: Records, metric: str) -> dict[str, Any]:
    names = metrics_of(found)
    shown = metric if metric in names else next(iter(names), "")
    stages = dict.fromkeys(str(one.get("stage", "")) for one in found)
    by_stage = {stage: [one for one in found if str(one.get("stage", "")) == stage] for stage in stages}
    series = {f"{shown} ({stage})": points for stage, of in by_stage.items() if (points := curve(of, shown))}
    plot = (
        by_round("curve", f"{shown} on validation, by round", series, shown)
        if any(len(points) > 1 for points in series.values())
        else None
    )
    return {"curve": plot, "curve_metrics": names, "curve_metric": shown}


def _tiles(result: Mapping[str, Any], main: str) -> Iterator[tuple[str, str, str]]:
    """The figures at the head: name, value, what more is to say."""
    data, privacy = result.get("data") or {}, result.get("privacy") or {}
    served = served_scheme(result)
    if (best := reading.value(result, served, main)) is not None:
        limits = reading.interval(result, served, main)
        more = f"{reading.figure(limits[0])} to {reading.figure(limits[1])}" if limits else ""
        yield main, reading.figure(best), f"{served}{', ' if more else ''}{more}"
    promised = known(privacy.get("epsilon"))
    yield (
        "epsilon",
        "none" if promised is None else f"{promised:.4g}",
        "no differential privacy" if promised is None else "for each user",
    )
    for name in ("clients", "users", "items", "interactions"):
        if data.get(name) is not None:
            yield name, reading.count(data[name]), ""


def _scheme(result: Mapping[str, Any], name: str) -> dict[str, Any]:
    cells = [(reading.value(result, name, m), reading.interval(result, name, m)) for m in reading.headline(result)]
    return {"name": name, "meaning": reading.SCHEMES.get(name, ""), "cells": cells}


def _gain(row: Mapping[str, Any], metric: str) -> dict[str, Any]:
    alone, served = reading.client_value(row, "alone", metric), reading.served(row, metric)
    return {"client": row.get("client", ""), "alone": alone, "served": served}


def _clients(result: Mapping[str, Any], metric: str) -> list[dict[str, Any]]:
    """The clients, the largest first, with what each has alone and joined, and what left it."""
    upload = (result.get("traffic") or {}).get("upload_bytes_per_client")
    rows = sorted(result.get("per_client") or [], key=lambda r: (-(known(r.get("users")) or 0), str(r.get("client"))))
    return [
        {
            **{key: row.get(key) for key in ("users", "baskets", "interactions", "cases")},
            **_gain(row, metric),
            "change": reading.change(reading.client_value(row, "alone", metric), reading.served(row, metric)),
            "mix": known(row.get("mix_weight")),
            "upload": upload,
        }
        for row in rows[:MOST_CLIENTS]
    ]


def _parts(result: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The arrays that each client sent: once each, with the rounds in which it went out."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for part in (result.get("privacy") or {}).get("parts") or []:
        key = tuple(part.get(name) for name in ("name", "size", "l2", "linf", "noise_std"))
        entry = found.setdefault(key, {**part, "rounds": 0})
        entry["rounds"] += 1
    return list(found.values())


def _rounds(found: Records) -> list[dict[str, Any]]:
    return [
        {
            "stage": one.get("stage"),
            "round": int(one["round"]) + 1,
            "clients": one.get("clients"),
            "upload": one.get("upload_bytes_per_client"),
            "parts": ", ".join(str(part.get("name")) for part in one.get("parts") or []),
        }
        for one in found
    ]


def _card(result: Mapping[str, Any]) -> Any:
    """The privacy card as HTML without its title; None where the run's facts do not carry one."""
    try:
        text = privacy_card(result)
    except PlanError:
        return None
    return to_html(text.removeprefix("# Privacy card\n"), lower_by=1)


def _files(entry: RunEntry) -> Sequence[str]:
    """Files of a run that are worth reading: signed ones of those that are known."""
    return [name for name in (*_KEPT, *_plots(entry)) if name in entry.files]


def _plots(entry: RunEntry) -> list[str]:
    return [name for name in entry.files if name.startswith("plots/") and name.endswith(".svg")]


def _capital(sentence: str) -> str:
    return f"{sentence[:1].upper()}{sentence[1:]}." if sentence else ""
