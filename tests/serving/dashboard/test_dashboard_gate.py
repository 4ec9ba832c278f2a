"""Who gets in, who may send forms, and what becomes of errors."""

from __future__ import annotations

from collections.abc import Callable
from http.cookies import SimpleCookie
from urllib.parse import parse_qs, urlsplit

import pytest

from coterie.serving.dashboard.gate import own_path
from coterie.serving.dashboard.pages import NAVIGATION
from coterie.serving.security.keys import make_key
from tests.serving.dashboard.conftest import SAME, Opened

LOGIN = "/dashboard/login"
FORMS = ["playground", "people", "people/export", "people/erase", "people/consent", "people/receipt", "suggest"]


def _key(opened: Opened, *scopes: str) -> str:
    key, text = make_key("me", publishable=False, scopes=scopes)
    opened.deployment.store.add_key(key)
    opened.deployment.keys.reload()
    return text


def _log_in(opened: Opened, *scopes: str, wanted: str = "/dashboard/") -> str:
    answer = opened.post(LOGIN, key=_key(opened, *scopes), next=wanted)
    assert answer.status_code == 303
    return str(answer.headers["location"])


def test_on_loopback_without_any_key_nobody_has_to_log_in(open_: Opened) -> None:
    page = open_.get("/dashboard/")
    assert page.status_code == 200
    assert "Log out" not in page.text
    assert open_.get(LOGIN).headers["location"] == "/dashboard/"
    assert open_.get("/").headers["location"] == open_.get("/dashboard").headers["location"] == "/dashboard/"


@pytest.mark.parametrize("path", [path for _, path in NAVIGATION])
def test_with_a_key_every_page_leads_to_the_login_and_back(open_: Opened, path: str) -> None:
    _key(open_, "recommend")
    answer = open_.get(f"{path}?q=1")
    assert answer.status_code == 303
    to = urlsplit(answer.headers["location"])
    assert (to.path, parse_qs(to.query)["next"]) == (LOGIN, [f"{path}?q=1"])
    assert _log_in(open_, "dashboard", wanted=f"{path}?q=1") == f"{path}?q=1"
    page = open_.get(path)
    assert page.status_code == 200
    assert "Log out" in page.text


def test_what_scripts_ask_for_is_refused_and_not_redirected(open_: Opened) -> None:
    _key(open_, "recommend")
    for method, path in (("GET", "live"), ("GET", "search?q=a"), ("POST", "suggest")):
        headers = {**SAME, "accept": "application/json"}
        answer = open_.browser.request(method, f"/dashboard/{path}", headers=headers)
        assert answer.status_code == 401
    assert open_.get("/dashboard/static/dashboard.css").status_code == 200  # the login page needs it


@pytest.mark.parametrize("scopes", [("recommend", "events"), ("users",)])
def test_a_key_without_the_scope_does_not_open_it(open_: Opened, scopes: tuple[str, ...]) -> None:
    answer = open_.post(LOGIN, key=_key(open_, *scopes))
    assert answer.status_code == 401
    assert "set-cookie" not in answer.headers
    assert 'role="alert"' in answer.text
    assert open_.get("/dashboard/").status_code == 303


def test_wrong_keys_are_said_so_and_never_shown_again(open_: Opened) -> None:
    _key(open_, "dashboard")
    answer = open_.post(LOGIN, key="csk_wrong<b>", next="/dashboard/data")
    assert answer.status_code == 401
    assert "csk_wrong" not in answer.text
    assert 'value="/dashboard/data"' in answer.text


def test_logging_out_ends_the_session_in_this_browser(open_: Opened) -> None:
    _log_in(open_, "dashboard")
    answer = open_.post("/dashboard/logout")
    cookie = SimpleCookie(answer.headers["set-cookie"])
    assert next(iter(cookie.values()))["max-age"] == "0"
    assert open_.get("/dashboard/").status_code == 303


def test_a_revoked_key_takes_its_sessions_with_it(open_: Opened) -> None:
    _log_in(open_, "dashboard")
    key = open_.deployment.store.keys()[0]
    open_.deployment.store.revoke_key(key.id, key.created_at + 1)
    open_.deployment.keys.reload()
    assert open_.get("/dashboard/").status_code == 303


@pytest.mark.parametrize("path", FORMS)
@pytest.mark.parametrize("headers", [{"sec-fetch-site": "cross-site"}, {"origin": "https://evil.example"}, {}])
def test_forms_of_other_sites_are_refused_even_where_nobody_logs_in(
    open_: Opened, path: str, headers: dict[str, str]
) -> None:
    answer = open_.browser.request("POST", f"/dashboard/{path}", data={"user": "u1", "confirmed": "1"}, headers=headers)
    assert answer.status_code == 403


def test_people_need_a_key_that_may_handle_people(open_: Opened) -> None:
    _log_in(open_, "dashboard")
    page = open_.get("/dashboard/people")
    assert page.status_code == 200
    assert 'id="user"' not in page.text
    for path in ("people", "people/export", "people/erase", "people/consent"):
        answer = open_.post(f"/dashboard/{path}", user="u1", confirmed="1", again="u1", consent="no")
        assert answer.status_code == 403
        assert "scope" in answer.text
    assert open_.deployment.store.receipts() == []
    open_.post("/dashboard/logout")
    _log_in(open_, "dashboard", "users")
    assert open_.post("/dashboard/people", user="u1").status_code == 200


def test_after_a_login_nobody_is_led_elsewhere() -> None:
    for path in ("https://evil.example", "//evil.example", "/dashboard/../v1", "/dashboard\\@evil", "", "/v1/items"):
        assert own_path(path) == "/dashboard/"
    assert own_path("/dashboard/runs?sort=name") == "/dashboard/runs?sort=name"
    assert own_path("/dashboard/\r\nSet-Cookie: a=b") == "/dashboard/"


def test_errors_are_pages_with_a_sentence(opening: Callable[..., Opened]) -> None:
    opened = opening()
    answer = opened.get("/dashboard/runs/%3Cscript%3E")
    assert answer.status_code == 404
    assert "&lt;script&gt;" in answer.text
    assert answer.headers["content-type"].startswith("text/html")
    large = opened.browser.request("POST", "/dashboard/people", content=b"{}", headers=SAME)
    assert large.status_code == 400
    assert "form of at most" in large.text
