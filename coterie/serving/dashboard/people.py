"""People: what is kept of whom, for how long, and who asked for what; export, erasure and consent of one person.

Ids travel in the bodies of forms alone, never in an address, so that no log or history holds them.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.responses import HTMLResponse, Response

from coterie.errors import DataError, UsageError
from coterie.serving.dashboard.gate import may, require_scope
from coterie.serving.dashboard.pages import Pages, download, first, form

Fields = Annotated[dict[str, list[str]], Depends(form)]
MOST_RECEIPTS = 50
LONGEST = 200  # characters of an id


def add_to(routes: APIRouter, pages: Pages) -> None:
    """Add the page, and what can be done for one person."""
    people, base = People(pages), "/dashboard/people"
    routes.add_api_route(base, people.everybody, methods=["GET"])
    for path, action in (
        (base, people.look_up),
        (f"{base}/export", people.export),
        (f"{base}/consent", people.consent),
        (f"{base}/erase", people.erase),
        (f"{base}/receipt", people.receipt),
    ):
        routes.add_api_route(path, action, methods=["POST"])


class People:
    """The page, and what it does for one person: for whose key has the scope `users` or `admin` too."""

    def __init__(self, pages: Pages) -> None:
        self._pages, self._store = pages, pages.deployment.store

    def everybody(self, request: Request) -> HTMLResponse:
        """The rules, and what people have asked for."""
        return self._page(request)

    def look_up(self, request: Request, fields: Fields) -> HTMLResponse:
        """What is kept of one person."""
        self._check(request)
        return self._page(request, person=_person(self._pages, _user(fields)))

    def export(self, request: Request, fields: Fields) -> Response:
        """Everything that is kept of one person, to download."""
        self._check(request)
        return download(_json(self._store.export_user(_user(fields))), "export.json", "application/json")

    def consent(self, request: Request, fields: Fields) -> HTMLResponse:
        """Record consent, or an objection."""
        self._check(request)
        user, wanted = _user(fields), first(fields, "consent")
        if wanted not in ("yes", "no"):
            raise UsageError(f"consent must be yes or no, got {wanted!r}; use the buttons of the page")
        removed = self._store.set_consent(user, wanted == "yes")
        done = "Consent is recorded: events of this person may be stored from now on."
        if wanted == "no":
            done = f"The objection is recorded: {removed:,} stored events were removed, and no more will be kept."
        return self._page(request, person=_person(self._pages, user), done=done)

    def erase(self, request: Request, fields: Fields) -> HTMLResponse:
        """Ask for the id once more; with it, erase."""
        self._check(request)
        user = _user(fields)
        if "confirmed" not in fields:
            return self._page(request, person=_person(self._pages, user), confirm=True)
        if first(fields, "again") != user:
            told = "What was typed is not the id, so nothing was erased"
            return self._page(request, person=_person(self._pages, user), confirm=True, error=told)
        receipt = self._store.erase_user(user)
        return self._page(request, erased=receipt, receipt=receipt_text(receipt))

    def receipt(self, request: Request, fields: Fields) -> Response:
        """A receipt as a file: it is given back as it was shown, for nothing of its person is kept here."""
        self._check(request)
        try:
            content = json.loads(first(fields, "receipt"))
        except ValueError as error:
            raise DataError(f"this is no receipt ({error}); copy it from the page instead") from None
        return download(_json(content), "erasure-receipt.json", "application/json")

    def _check(self, request: Request) -> None:
        require_scope(self._pages.deployment, request, "users")

    def _page(self, request: Request, **values: Any) -> HTMLResponse:
        shared = {"person": None, "done": "", "erased": None, "confirm": False, "error": "", "receipt": ""}
        view = {**shared, **_overview(self._pages, request), **values}
        return self._pages.page(request, "people.html.j2", here="/dashboard/people", **view)


def receipt_text(receipt: Any) -> str:
    """An erasure's receipt as JSON, with what proves whom it was about."""
    at = datetime.fromtimestamp(receipt.time / 1e6, UTC).isoformat()
    return _json({**asdict(receipt), "erased": dict(receipt.erased), "time": at})


def _overview(pages: Pages, request: Request) -> dict[str, Any]:
    config = pages.deployment.config
    receipts = sorted(pages.deployment.store.receipts(), key=lambda one: -one.time)
    return {
        "consent_mode": config.people.consent,
        "retention": config.store,
        "privacy": config.answers.privacy,
        "receipts": receipts[:MOST_RECEIPTS],
        "all_receipts": len(receipts),
        "allowed": may(pages.deployment, request, "users"),
    }


def _person(pages: Pages, user: str) -> dict[str, Any]:
    """What the page says of one person."""
    store = pages.deployment.store
    held = store.export_user(user)
    return {
        "user": user,
        "consent": store.consent(user),
        "may_store": store.may_store(user),
        "held": {
            name: len(value)
            for name, value in held.items()
            if isinstance(value, list | dict) and (value or name == "events")
        },
        "excerpt": _json(held)[:4000],
    }


def _user(fields: dict[str, list[str]]) -> str:
    user = (fields.get("user") or [""])[0].strip()
    if not user or len(user) > LONGEST or any(ord(c) < 32 or ord(c) == 127 for c in user):
        raise UsageError(
            f"a user's id has 1 to {LONGEST} characters and none that cannot be shown; type it as the shop sends it"
        )
    return user


def _json(content: Any) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False, default=str) + "\n"
