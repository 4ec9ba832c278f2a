"""Federation: members, jobs and phase of the coordinator that this deployment is attached to."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import HTMLResponse

from coterie.errors import CoterieError, DataError, PeerError
from coterie.report import federation_words as words
from coterie.report.reading import known
from coterie.serving.dashboard.figures import by_round
from coterie.serving.dashboard.pages import Pages

ASKED = 5.0  # seconds for a daemon to answer
SOCKET = Path("run") / "control.sock"  # below the coordinator's folder
MOST_EVENTS = 15


def add_to(routes: APIRouter, pages: Pages) -> None:
    """Add the page."""
    configured = pages.deployment.config.federation.coordinator

    @routes.get("/dashboard/federation")
    def federation(request: Request) -> HTMLResponse:
        if configured is None:
            return pages.page(request, "federation.html.j2", folder=None, trouble="", status=None)
        try:
            status = status_of(Path(configured))
        except CoterieError as error:
            return pages.page(request, "federation.html.j2", folder=configured, trouble=str(error), status=None)
        view = view_of(status, time.time())
        return pages.page(request, "federation.html.j2", folder=configured, trouble="", status=status, **view)


def status_of(folder: Path) -> Mapping[str, Any]:
    """What the coordinator in a folder says of itself; what is written down where its daemon does not run.

    Raises:
        DataError: there is no coordinator in the folder.
        CoterieError: its files cannot be read.
    """
    answer = _asked(folder / SOCKET)
    return _standing(folder) if answer is None else answer


def view_of(status: Mapping[str, Any], now: float) -> dict[str, Any]:
    """What the page shows of a coordinator's status; `now` in seconds since 1970."""
    progress = status.get("progress") or {}
    since = known(status.get("since"))
    waited = words.waited_for(status)
    return {
        "doing": words.doing(status, now),
        "dropped": words.dropped(status),
        "asked": list(words.asked_of_us(status)),
        "errors": list(words.errors(status)),
        "running": words.duration(now - since) if status.get("running") and since is not None else "",
        "members": [_member(one, str(one["name"]) in waited, now) for one in words.members(status)],
        "jobs": [_job(one) for one in reversed(status.get("jobs") or [])],
        "epsilon_spent": known(progress.get("epsilon_spent")),
        "rounds": _rounds(progress),
        "events": [_event(one) for one in list(progress.get("events") or [])[-MOST_EVENTS:][::-1]],
        "curve": _curve(progress),
        "least": words.LEAST,
    }


def _asked(socket: Path) -> Mapping[str, Any] | None:
    """What the daemon behind the socket answers; None where none runs."""
    from coterie.federation.link import call

    if not socket.exists():
        return None
    try:
        answer: dict[str, Any] = json.loads(call(socket, json.dumps({"do": "status"}).encode(), ASKED))
    except PeerError:
        return None  # a socket that a killed daemon left
    return answer


def _standing(folder: Path) -> Mapping[str, Any]:
    from coterie.experiment.coordinator_status import standing
    from coterie.federation.config import COORDINATOR_FILE, FederationConfig
    from coterie.federation.identity import Identities
    from coterie.federation.journal import FederationJournal
    from coterie.federation.members import Members
    from coterie.storage import Storage

    if not (folder / COORDINATOR_FILE).is_file():
        raise DataError(
            f"{folder}: has no {COORDINATOR_FILE}; name the coordinator's folder in [federation] coordinator"
        )
    config, identities = FederationConfig.load(folder / COORDINATOR_FILE), Identities.open(folder)
    members = Members.open(config.federation.database, identities.fingerprint)
    return standing(
        config, identities, members, FederationJournal(Storage.open(config.federation.database, "federation"))
    )


def _member(one: Mapping[str, Any], waited: bool, now: float) -> dict[str, Any]:
    since, state = known(one.get("online_since")), str(one.get("state"))
    connected = "away" if since is None else f"for {words.duration(now - since)}"
    fields = {
        key: one.get(key) for key in ("name", "fingerprint", "sent_bytes", "received_bytes", "dropouts", "last_error")
    }
    return {**fields, "state": state, "connected": connected if state == "approved" else "–", "waited": waited}


def _job(one: Mapping[str, Any]) -> dict[str, Any]:
    at = words.moment(one.get("finished_at") or one.get("started_at"))
    return {
        **{key: one.get(key) for key in ("id", "model", "state", "round", "reason")},
        "at": None if at is None else int(at * 1e6),
    }


def _event(one: Mapping[str, Any]) -> dict[str, Any]:
    at = words.moment(one.get("time"))
    return {"at": None if at is None else int(at * 1e6), "text": str(one.get("text", ""))}


def _rounds(progress: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"round": one.get("round"), "clients": one.get("clients"), "figures": words.shared_figures(one)}
        for one in progress.get("rounds") or []
    ]


def _curve(progress: Mapping[str, Any]) -> Any:
    """The first figure that members report together, by round."""
    rounds: Sequence[Mapping[str, Any]] = progress.get("rounds") or []
    names = list(dict.fromkeys(name for one in rounds for name in words.shared_figures(one)))
    points = [
        (int(one["round"]), found[names[0]])
        for one in rounds
        if names and one.get("round") is not None and names[0] in (found := words.shared_figures(one))
    ]
    return (
        by_round("federated", f"{names[0]} by round, as members report it together", {names[0]: points}, names[0])
        if points
        else None
    )
