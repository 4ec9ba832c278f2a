"""The dashboard's login: a cookie that nobody can make, plant, prolong or use elsewhere."""

import hmac
import time

import pytest
from starlette.requests import Request

from coterie.serving.security.refusals import Denied
from coterie.serving.security.sessions import (
    cookie_name,
    same_origin,
    session_caller,
    session_cookie,
    sign_in,
    sign_out_cookie,
)
from tests.serving.security.guardedapp import HOST, SHOP, Deployed, ask, guarded, scope_of

OWN = {"Sec-Fetch-Site": "same-origin"}
HOUR = 3_600_000_000


def cookie_of(set_cookie: str) -> str:
    return set_cookie.partition(";")[0]


def request(headers=(), scheme="http", method="POST"):
    return Request(scope_of("/dashboard/login", method, [("host", HOST), *dict(headers).items()], "192.0.2.1", scheme))


def caller(deployed, cookie, now=None, scheme="http"):
    return session_caller(deployed, request({"Cookie": cookie}, scheme).scope, now)


@pytest.fixture
def deployed():
    return Deployed()


@pytest.fixture
def key(deployed):
    return deployed.key("dashboard", "items", name="operator")


def test_a_login_gives_a_cookie_that_opens_the_dashboard(key, deployed):
    cookie = cookie_of(sign_in(deployed, request(OWN), key))
    found = caller(deployed, cookie)
    assert found is not None
    assert (found.key_id, found.name, found.scopes) == (key[4:16], "operator", {"dashboard"})
    assert caller(deployed, f"a=b; {cookie}; c=d") == found


def test_the_cookie_is_kept_from_scripts_and_other_sites(deployed, key):
    plain = sign_in(deployed, request(OWN), key)
    assert plain.endswith("; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict")
    secure = sign_in(deployed, request(OWN, "https"), key)
    assert secure.startswith("__Host-coterie-")
    assert secure.endswith("; Path=/; Max-Age=43200; HttpOnly; SameSite=Strict; Secure")
    assert "Domain" not in secure
    assert key not in plain
    assert key[16:] not in plain
    assert "Max-Age=0" in sign_out_cookie(deployed, request(OWN))


def test_a_cookie_that_came_without_tls_is_none_with_tls(deployed, key):
    plain = cookie_of(sign_in(deployed, request(OWN), key))
    assert caller(deployed, plain, scheme="https") is None


def test_each_login_is_a_session_of_its_own_whatever_cookie_was_there_before(deployed, key):
    planted = f"{cookie_name(deployed, secure=False)}=planted"
    one = sign_in(deployed, request({**OWN, "Cookie": planted}), key)
    two = sign_in(deployed, request({**OWN, "Cookie": cookie_of(one)}), key)
    assert len({one, two, planted}) == 3
    assert "planted" not in one
    assert caller(deployed, planted) is None


def test_every_changed_character_makes_it_no_session(deployed, key):
    cookie = cookie_of(sign_in(deployed, request(OWN), key))
    start = cookie.index("=") + 1
    for at in range(start, len(cookie)):
        for other in "0a.":
            if other != cookie[at]:
                assert caller(deployed, cookie[:at] + other + cookie[at + 1 :]) is None


@pytest.mark.parametrize("value", ["", ".", "...", "a.b.c.d", "x" * 10_000, "\xff.\xfe.1.2", "a.9999999999.b."])
def test_nonsense_is_no_session(deployed, key, value):
    assert caller(deployed, f"{cookie_name(deployed, secure=False)}={value}") is None


def test_what_else_the_stores_secret_signs_is_no_session(deployed, key):
    content = f"{key[4:16]}.9999999999.00"
    for message in (content, f"session {content}"):
        forged = hmac.new(deployed.store.secret, message.encode(), "sha256").hexdigest()
        assert caller(deployed, f"{cookie_name(deployed, secure=False)}={content}.{forged}") is None


def test_another_deployments_cookie_is_none(deployed, key):
    other = Deployed()
    other.store.secret = bytes(32)
    other.store.held, other.keys = deployed.store.held, deployed.keys
    value = cookie_of(sign_in(deployed, request(OWN), key)).partition("=")[2]
    assert caller(other, f"{cookie_name(other, secure=False)}={value}") is None
    assert cookie_name(other, secure=False) != cookie_name(deployed, secure=False)


def test_a_session_ends_after_its_hours(deployed, key):
    now = time.time_ns() // 1000
    holder = deployed.keys.holder(key[4:16], now)
    cookie = cookie_of(session_cookie(deployed, holder, secure=False, now=now))
    assert caller(deployed, cookie, now + 12 * HOUR - 2_000_000) is not None
    assert caller(deployed, cookie, now + 12 * HOUR) is None


def test_revoking_the_key_ends_its_sessions(deployed, key):
    cookie = cookie_of(sign_in(deployed, request(OWN), key))
    deployed.store.revoke_key(key[4:16], 1)
    deployed.keys.reload()
    assert caller(deployed, cookie) is None


def test_who_has_not_the_scope_does_not_get_in(deployed):
    for text in (
        deployed.key("items"), deployed.key("recommend", publishable=True), "csk_wrong", "",
        f"{deployed.key('admin')}x",
    ):  # fmt: skip
        with pytest.raises(Denied) as refused:
            sign_in(deployed, request({**OWN, "Origin": SHOP}), text)
        assert refused.value.status_code == 401
        assert text not in refused.value.detail or not text
    assert sign_in(deployed, request(OWN), f" {deployed.key('admin')}\n")


# --- over the application --------------------------------------------------------------------------------------------


def test_the_cookie_opens_the_dashboard_and_nothing_of_the_api():
    deployed, app = guarded()
    key = deployed.key("dashboard", "admin", "items", "users", "recommend", "model")
    reply = ask(app, "/dashboard/login", "POST", OWN, key.encode())
    assert reply.status == 303
    cookie = {"Cookie": cookie_of(reply.headers["set-cookie"])}
    assert ask(app, "/dashboard", headers=cookie).status == 200
    assert ask(app, "/metrics", headers=cookie).status == 200
    assert ask(app, "/dashboard/change", "POST", {**cookie, **OWN}, b"").status == 200
    for path, method in (("/v1/items/7", "GET"), ("/v1/users/7", "DELETE"), ("/v1/recommend/basket", "POST")):
        assert ask(app, path, method, {**cookie, **OWN}, b"{}" if method == "POST" else None).status == 401
    assert ask(app, "/dashboard", headers={**cookie, "X-Api-Key": "csk_wrong"}).status == 401


@pytest.mark.parametrize(
    "sent",
    [
        {}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}, {"Sec-Fetch-Site": "none"},
        {"Origin": "https://evil.example"}, {"Origin": "null"}, {"Origin": "http://127.0.0.1:9999"},
        {"Origin": "https://127.0.0.1:8080"}, {"Sec-Fetch-Site": "cross-site", "Origin": "http://127.0.0.1:8080"},
    ],
)  # fmt: skip
def test_another_site_cannot_make_a_browser_change_anything_nor_log_in(sent):
    deployed, app = guarded()
    key = deployed.key("admin")
    cookie = cookie_of(ask(app, "/dashboard/login", "POST", OWN, key.encode()).headers["set-cookie"])
    assert ask(app, "/dashboard/change", "POST", {"Cookie": cookie, **sent}, b"").status == 403
    assert ask(app, "/dashboard/login", "POST", sent, key.encode()).status == 403
    with pytest.raises(Denied):
        sign_in(deployed, request(sent), key)
    assert deployed.metrics.refusals == ["origin", "origin"]


def test_where_no_key_is_asked_for_other_sites_cannot_change_anything_either():
    _, app = guarded()
    assert ask(app, "/dashboard/change", "POST", {"Sec-Fetch-Site": "cross-site"}, b"").status == 403
    assert ask(app, "/dashboard/change", "POST", OWN, b"").status == 200


def test_browsers_without_fetch_metadata_are_known_by_origin():
    assert same_origin(request({"Origin": "http://127.0.0.1:8080"}))
    assert same_origin(request({"Origin": "https://127.0.0.1:8080"}, "https"))
    assert not same_origin(request({"Origin": "http://127.0.0.1:8080"}, "https"))
    assert not same_origin(request())


def test_behind_a_proxy_that_changes_the_host_public_url_is_the_origin():
    deployed, app = guarded({"server": {"public_url": "https://rec.example.org", "behind_proxy": True}})
    key = deployed.key("admin")
    sent = {"Origin": "https://rec.example.org", "X-Forwarded-Proto": "https"}
    reply = ask(app, "/dashboard/login", "POST", sent, key.encode(), client="127.0.0.1")
    assert reply.status == 303
    assert reply.headers["set-cookie"].startswith("__Host-")


def test_guessing_at_the_login_has_to_wait():
    deployed, app = guarded({"access": {"failures_per_minute": 3}})
    key = deployed.key("dashboard")
    tried = [ask(app, "/dashboard/login", "POST", OWN, b"csk_guess").status for _ in range(5)]
    assert tried == [401, 401, 401, 429, 429]
    assert ask(app, "/dashboard/login", "POST", OWN, key.encode()).status == 429
    assert ask(app, "/dashboard/login", "POST", OWN, key.encode(), client="192.0.2.8").status == 303
    assert ask(app, "/dashboard", key=key).status == 200


def test_the_log_names_the_key_of_a_session(tmp_path):
    path = tmp_path / "log"
    deployed, app = guarded({"log": {"file": str(path)}})
    key = deployed.key("dashboard")
    cookie = cookie_of(ask(app, "/dashboard/login", "POST", OWN, key.encode()).headers["set-cookie"])
    ask(app, "/dashboard", headers={"Cookie": cookie})
    app.log.close()
    assert f'"key":"{key[4:16]}"' in path.read_text().splitlines()[-1]
    assert cookie.partition("=")[2] not in path.read_text()
