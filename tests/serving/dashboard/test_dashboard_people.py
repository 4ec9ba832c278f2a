"""The people page: look up, export, consent, erase; ids never stand in an address."""

from __future__ import annotations

import json
import re
import time
from html import unescape

from coterie.serving.words import Event, EventLine
from tests.serving.dashboard.conftest import EVIL, Opened

WHO = "maria@example.org"


def _buy(opened: Opened, user: str = WHO, number: int = 3) -> None:
    now = time.time_ns() // 1000
    events = [Event(f"{user}-{at}", "purchase", now + at, (EventLine("A00001"),), user) for at in range(number)]
    opened.deployment.store.write_events(events).result(10)


def test_a_person_is_looked_up_and_exported(open_: Opened) -> None:
    _buy(open_)
    page = open_.post("/dashboard/people", user=f" {WHO} ").text
    assert "<dt>events</dt><dd>3</dd>" in page
    assert "opt-out" in page
    answer = open_.post("/dashboard/people/export", user=WHO)
    assert answer.headers["content-disposition"].startswith('attachment; filename="export.json"')
    assert WHO not in answer.headers["content-disposition"]
    assert len(answer.json()["events"]) == 3


def test_erasing_asks_for_the_id_again_and_gives_a_receipt(open_: Opened) -> None:
    _buy(open_)
    _buy(open_, "somebody else")
    asked = open_.post("/dashboard/people/erase", user=WHO).text
    assert "This cannot be undone" in asked
    wrong = open_.post("/dashboard/people/erase", user=WHO, confirmed="1", again="maria").text
    assert "nothing was erased" in wrong
    assert len(open_.deployment.store.export_user(WHO)["events"]) == 3
    done = open_.post("/dashboard/people/erase", user=WHO, confirmed="1", again=WHO).text
    assert "The person was erased" in done
    assert open_.deployment.store.export_user(WHO)["events"] == []
    assert len(open_.deployment.store.export_user("somebody else")["events"]) == 3

    shown = json.loads(unescape(re.findall(r'name="receipt" value="(.*?)">', done, re.DOTALL)[0]))
    assert shown["user"] == WHO
    answer = open_.post("/dashboard/people/receipt", receipt=json.dumps(shown))
    assert answer.json() == shown
    assert "attachment" in answer.headers["content-disposition"]

    listed = open_.get("/dashboard/people").text
    assert shown["id"] in listed
    assert WHO not in listed


def test_an_objection_removes_what_is_stored_and_consent_ends_it(open_: Opened) -> None:
    _buy(open_)
    page = open_.post("/dashboard/people/consent", user=WHO, consent="no").text
    assert "3 stored events were removed" in page
    assert "withdrawn" in page
    _buy(open_)
    assert open_.deployment.store.export_user(WHO)["events"] == []
    assert "given" in open_.post("/dashboard/people/consent", user=WHO, consent="yes").text
    assert open_.post("/dashboard/people/consent", user=WHO, consent="perhaps").status_code == 400


def test_ids_of_strangers_are_no_markup(open_: Opened) -> None:
    _buy(open_, EVIL)
    for path, more in (("people", {}), ("people/erase", {}), ("people/erase", {"confirmed": "1", "again": EVIL})):
        page = open_.post(f"/dashboard/{path}", user=EVIL, **more).text
        assert "<script>alert" not in page
    assert open_.deployment.store.export_user(EVIL)["events"] == []


def test_what_is_no_id_is_refused(open_: Opened) -> None:
    for user in ("", "   ", "a\x00b", "x" * 201):
        assert open_.post("/dashboard/people", user=user).status_code == 400
    assert open_.post("/dashboard/people/receipt", receipt="{").status_code == 400
