"""Data: what was cleaned away and why, what was held out, how much is left, and what to read with care."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

from coterie.report.reading import known
from coterie.serving.dashboard.figures import bars
from coterie.serving.dashboard.pages import Pages
from coterie.serving.dashboard.runfolder import RunEntry, RunFolder

if TYPE_CHECKING:
    from coterie.serving.deployment import Deployment

MOST_BARS = 40
_COUNTS = ("clients", "users", "guests", "items", "interactions", "baskets")


def add_to(routes: APIRouter, pages: Pages, folder: RunFolder) -> None:
    """Add the page."""

    @routes.get("/dashboard/data")
    def data(request: Request, run: str = "") -> HTMLResponse:
        trusted = [one for one in folder.entries() if one.state == "finished"]
        entry = next((one for one in trusted if one.name == run), None) or _served(pages.deployment, folder, trusted)
        view = _view(entry.result) if entry else {}
        return pages.page(request, "data.html.j2", runs=[one.name for one in trusted], entry=entry, **view)


def _served(deployment: Deployment, folder: RunFolder, trusted: list[RunEntry]) -> RunEntry | None:
    """The run that answers; where it cannot be read any more, the one that was written last."""
    found = folder.of(deployment.versions.current().version.run)
    if found is not None and found.state == "finished":
        return found
    return max(trusted, key=lambda one: one.changed, default=None)


def _view(result: Mapping[str, Any]) -> dict[str, Any]:
    counts, steps = result.get("data") or {}, result.get("cleaning") or []
    sizes = {str(row.get("client")): known(row.get("interactions")) or 0.0 for row in result.get("per_client") or []}
    largest = dict(sorted(sizes.items(), key=lambda one: (-one[1], one[0]))[:MOST_BARS])
    return {
        "counts": [(name, counts[name]) for name in _COUNTS if name in counts],
        "steps": [one for one in steps if one.get("dropped") or one.get("changed")],
        "idle": [one for one in steps if not one.get("dropped") and not one.get("changed")],
        "kept": _kept(steps),
        "split": result.get("split") or {},
        "caveats": result.get("caveats") or [],
        "sizes": bars("sizes", "Interactions of each client", largest, "interactions") if largest else None,
    }


def _kept(steps: list[Mapping[str, Any]]) -> tuple[float, float] | None:
    """Rows before the first step and after the last."""
    before = known(steps[0].get("rows_before")) if steps else None
    after = known(steps[-1].get("rows_after")) if steps else None
    return None if before is None or after is None else (before, after)
