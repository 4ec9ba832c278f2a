"""Feedback: what came of the answers of each version, and the roll-out between two of them."""

from __future__ import annotations

import threading
import time
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

from coterie.serving.dashboard.pages import Pages
from coterie.serving.feedback import Feedback, feedback
from coterie.storage import is_path, named

PERIODS = {"7": "7 days", "30": "30 days", "90": "90 days", "all": "everything stored"}
DAY = 86_400_000_000  # microseconds
FRESH = 30.0  # seconds for which figures are kept: they are made from all stored events
MEASURES = {
    "click_through": "clicked",
    "add_to_cart": "put into a cart",
    "conversion": "bought from",
    "quality": "clicks as if every item had stood first",
}


class Recent:
    """Figures of each period, kept for a short while. Thread-safe; one reader computes, others wait for it."""

    def __init__(self, pages: Pages) -> None:
        self._store = pages.deployment.store
        self._lock = threading.Lock()
        self._held: dict[str, tuple[float, Feedback]] = {}

    def of(self, period: str) -> Feedback:
        """The figures of a period."""
        with self._lock:
            held = self._held.get(period)
            if held is None or time.monotonic() - held[0] > FRESH:
                since = None if period == "all" else time.time_ns() // 1000 - int(period) * DAY
                held = time.monotonic(), feedback(self._store, since)
                self._held[period] = held
            return held[1]


def add_to(routes: APIRouter, pages: Pages) -> None:
    """Add the page."""
    recent = Recent(pages)

    @routes.get("/dashboard/feedback")
    def page(request: Request, period: str = "30") -> HTMLResponse:
        shown = period if period in PERIODS else "30"
        view: dict[str, Any] = {"periods": PERIODS, "period": shown, "found": recent.of(shown), "measures": MEASURES}
        return pages.page(request, "feedback.html.j2", **view, **_rollout(pages))


def _rollout(pages: Pages) -> dict[str, Any]:
    store = pages.deployment.store
    status = pages.deployment.versions.status()
    return {
        "rollout": store.rollout(),
        "versions": {one.id: one for one in store.versions()},
        "status": status,
        "exploration": pages.deployment.config.answers.exploration,
        "store": _place(pages.deployment.config.store.address),
    }


def _place(address: str) -> str:
    """The store as it may be shown: never with a password."""
    return address if is_path(address) else named(address)
