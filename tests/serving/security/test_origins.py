"""Pages of other origins: CORS, what every answer carries, and what a page may make a browser send."""

import pytest

from coterie.errors import ConfigError
from coterie.serving.security.middleware import protect
from tests.serving.security.guardedapp import SHOP, Deployed, application, ask, guarded

BASKET = "/v1/recommend/basket"
LISTED = {"access": {"cors": ["https://Other.example:443"], "keys": "always"}}
OTHER = "https://other.example"


def preflight(app, origin, path=BASKET):
    asked = {"Origin": origin, "Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "x-evil"}
    return ask(app, path, "OPTIONS", asked)


def test_a_preflight_of_a_listed_origin_is_answered_without_a_key():
    _, app = guarded(LISTED)
    reply = preflight(app, OTHER)
    assert (reply.status, reply.body) == (204, b"")
    assert reply.headers["access-control-allow-origin"] == OTHER
    assert reply.headers["access-control-allow-headers"] == "Authorization, Content-Type, X-Api-Key"
    assert "DELETE" in reply.headers["access-control-allow-methods"]
    assert reply.headers["vary"] == "Origin"
    assert "access-control-allow-credentials" not in reply.headers


def test_origins_of_publishable_keys_are_listed_until_the_key_is_revoked():
    deployed, app = guarded(LISTED)
    key = deployed.key("recommend", publishable=True)
    assert preflight(app, SHOP).status == 204
    deployed.store.revoke_key(key[4:16], 1)
    deployed.keys.reload()
    assert preflight(app, SHOP).status == 403


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example",
        "null",
        "",
        "https://other.example.evil",
        "http://other.example",
        "https://OTHER.example",
        "*",
    ],
)
def test_a_preflight_of_a_foreign_origin_gets_nothing(origin):
    _, app = guarded(LISTED)
    reply = preflight(app, origin)
    assert reply.status == 403
    assert not [name for name in reply.headers if name.startswith("access-control")]
    assert origin not in reply.problem or len(origin) < 2


def test_an_answer_can_be_read_by_listed_origins_alone():
    deployed, app = guarded(LISTED)
    key = deployed.key("recommend")
    for origin, allowed in ((OTHER, OTHER), ("https://evil.example", None), (None, None)):
        sent = {} if origin is None else {"Origin": origin}
        headers = ask(app, BASKET, "POST", sent, b"{}", key).headers
        assert headers.get("access-control-allow-origin") == allowed
        assert headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in headers


def test_a_refusal_can_be_read_by_the_page_that_caused_it():
    _, app = guarded(LISTED)
    reply = ask(app, BASKET, "POST", {"Origin": OTHER}, b"{}")
    assert reply.status == 401
    assert reply.headers["access-control-allow-origin"] == OTHER


@pytest.mark.parametrize("path", ["/dashboard", "/metrics", "/health/live"])
def test_what_is_no_api_is_shared_with_nobody(path):
    _, app = guarded(LISTED)
    assert preflight(app, OTHER, path).status == 405
    assert "access-control-allow-origin" not in ask(app, path, headers={"Origin": OTHER}).headers


def test_where_no_key_is_asked_for_foreign_pages_are_refused_outright():
    _, app = guarded()
    assert ask(app, BASKET, "POST", {"Origin": "https://evil.example"}, b"{}").status == 403
    assert ask(app, BASKET, "POST", {"Origin": "http://127.0.0.1:3000"}, b"{}").status == 403
    assert ask(app, BASKET, "POST", {"Origin": "http://127.0.0.1:8080"}, b"{}").status == 200
    assert ask(app, BASKET, "POST", body=b"{}").status == 200


def test_a_cors_list_that_is_no_list_of_origins_is_refused_at_start():
    deployed = Deployed({"access": {"cors": ["*"]}})
    with pytest.raises(ConfigError, match="must be scheme"):
        protect(application(deployed), deployed)


# --- what every answer carries ---------------------------------------------------------------------------------------

EVERY = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
}


@pytest.mark.parametrize(
    ("path", "method", "status"),
    [
        ("/v1/items/7", "GET", 200),
        ("/v1/nothing", "GET", 404),
        ("/v1/items/7", "PUT", 405),
        ("/dashboard", "GET", 200),
        ("/v1/fails/u", "GET", 500),
        ("/health/live", "GET", 200),
        ("/static/none.js", "GET", 404),
        ("/", "GET", 404),
    ],
)  # fmt: skip
def test_every_answer_has_the_security_headers(path, method, status):
    _, app = guarded()
    reply = ask(app, path, method)
    assert reply.status == status
    assert reply.headers.items() >= EVERY.items()
    assert "frame-ancestors 'none'" in reply.headers["content-security-policy"]
    assert "geolocation=()" in reply.headers["permissions-policy"]
    assert len(reply.headers["x-request-id"]) == 16


def test_policies_fit_what_is_answered():
    _, app = guarded()
    data, page, static = (ask(app, path).headers for path in ("/v1/items/7", "/dashboard", "/static/coterie.js"))
    assert data["content-security-policy"] == "default-src 'none'; frame-ancestors 'none'"
    assert "script-src 'self';" in page["content-security-policy"]
    assert "unsafe-eval" not in page["content-security-policy"]
    assert data["cache-control"] == page["cache-control"] == "no-store"
    assert static["cache-control"] == "no-cache"
    assert data["cross-origin-resource-policy"] == page["cross-origin-resource-policy"] == "same-origin"
    assert static["cross-origin-resource-policy"] == "cross-origin"
    assert page["cross-origin-opener-policy"] == "same-origin"


def test_hsts_over_tls_alone():
    _, app = guarded()
    assert "strict-transport-security" not in ask(app, "/health/live").headers
    assert ask(app, "/health/live", scheme="https").headers["strict-transport-security"] == "max-age=31536000"


def test_what_a_route_says_itself_stays():
    _, app = guarded()
    headers = ask(app, "/v1/cached").headers
    assert headers["cache-control"] == "max-age=60"
    assert headers["content-security-policy"] == "sandbox"
    assert headers["vary"] == "Origin"


def test_nothing_that_a_client_sends_becomes_a_header():
    _, app = guarded(LISTED)
    hostile = "https://other.example\r\nSet-Cookie: a=b"
    sent = {"Origin": hostile, "X-Request-Id": "mine\r\nX-Evil: 1", "Access-Control-Request-Method": "POST"}
    for method in ("OPTIONS", "POST"):
        reply = ask(app, BASKET, method, sent, b"{}")
        assert reply.status in (401, 403)
        flat = b"|".join(name + b":" + value for name, value in reply.raw)
        assert not any(word in flat for word in (b"evil", b"Evil", b"mine", b"Set-Cookie", b"\r", b"\n"))


# --- bodies ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "kind",
    ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "json", "text/json"],
)
def test_no_form_can_post_to_the_api(kind):
    deployed, app = guarded()
    for body in (b"{}", b"", [b"{", b"}"]):
        assert ask(app, BASKET, "POST", {"Content-Type": kind}, body).status == 415
    assert set(deployed.metrics.refusals) == {"type"}


@pytest.mark.parametrize(
    "kind", ["application/json", "application/json; charset=utf-8", "Application/JSON", "application/x+json"]
)
def test_json_is_taken(kind):
    assert ask(guarded()[1], BASKET, "POST", {"Content-Type": kind}, b"{}").status == 200


def test_what_has_no_body_needs_no_type():
    _, app = guarded()
    assert ask(app, "/v1/users/7", "DELETE").status == 200
    assert ask(app, "/v1/users/7", "DELETE", {"Content-Length": "0"}).status == 200


def test_compressed_bodies_are_not_unpacked():
    assert ask(guarded()[1], BASKET, "POST", {"Content-Encoding": "gzip"}, b"{}").status == 415
