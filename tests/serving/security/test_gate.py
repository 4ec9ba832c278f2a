"""Who gets in, and how often: keys, scopes, rates, addresses behind a proxy."""

import time

import pytest

from coterie.serving.security.access import OPENAPI_SECURITY, Denied, caller_of
from coterie.serving.security.keys import make_key
from coterie.serving.security.middleware import protect
from tests.serving.security.guardedapp import HOST, SHOP, application, ask, guarded, scope_of

BASKET = "/v1/recommend/basket"
PROXIED = {"server": {"behind_proxy": True}}


def post(app, key=None, **options):
    return ask(app, BASKET, "POST", body=b'{"items": ["a"]}', key=key, **options)


def test_without_a_key_the_api_says_how_to_get_one():
    deployed, app = guarded()
    deployed.key("recommend")
    reply = post(app)
    assert reply.status == 401
    assert "coterie keys create" in reply.problem
    assert reply.headers["www-authenticate"] == 'Bearer realm="coterie"'
    assert deployed.metrics.refusals == ["key"]


def test_both_headers_take_a_key():
    deployed, app = guarded()
    key = deployed.key("recommend")
    assert post(app, key).status == 200
    assert post(app, headers={"X-Api-Key": key}).status == 200
    assert post(app, headers={"Authorization": f"bearer {key}"}).status == 200
    assert post(app, headers={"Authorization": f"Basic {key}"}).status == 401
    assert post(app, headers={"Authorization": "Basic eDp5", "X-Api-Key": key}).status == 200


@pytest.mark.parametrize("forged", ["csk_x", "x" * 5000, "csk_" + "0" * 63, "\xff\xfe", ""])
def test_a_forged_key_is_401_and_says_so(forged):
    deployed, app = guarded()
    deployed.key("recommend")
    reply = post(app, headers={"X-Api-Key": forged})
    assert reply.status == 401
    assert 'error="invalid_token"' in reply.headers["www-authenticate"]
    assert forged not in reply.problem or not forged


def test_an_expired_and_a_revoked_key_are_401():
    deployed, app = guarded()
    now = time.time_ns() // 1000
    old, text = make_key("old", False, ("recommend",), expires=now - 1, now=now - 10)
    deployed.store.add_key(old)
    other = deployed.key("recommend")
    assert post(app, text).status == 401
    assert post(app, other).status == 200
    deployed.store.revoke_key(other[4:16], now)
    deployed.keys.reload()
    assert post(app, other).status == 401


def test_a_key_without_the_scope_is_403_and_names_it():
    deployed, app = guarded()
    reply = ask(app, "/v1/items/7", key=deployed.key("recommend", name="till"))
    assert reply.status == 403
    assert "'till' has no scope 'items'" in reply.problem
    assert 'error="insufficient_scope", scope="items"' in reply.headers["www-authenticate"]


def test_admin_opens_the_dashboard_and_dashboard_is_not_admin():
    deployed, app = guarded()
    same = {"Sec-Fetch-Site": "same-origin"}
    assert ask(app, "/metrics", key=deployed.key("admin")).status == 200
    assert ask(app, "/metrics", key=deployed.key("dashboard")).status == 200
    assert ask(app, "/metrics", key=deployed.key("items")).status == 403
    assert ask(app, "/dashboard/change", "POST", same, b"", deployed.key("dashboard")).status == 403
    assert ask(app, "/dashboard/change", "POST", same, b"", deployed.key("admin")).status == 200


def test_a_publishable_key_needs_its_origin():
    deployed, app = guarded()
    key = deployed.key("recommend", publishable=True)
    assert post(app, key, headers={"Origin": SHOP}).status == 200
    for origin in (None, "null", "https://evil.example", "http://shop.example.org"):
        assert post(app, key, headers={} if origin is None else {"Origin": origin}).status == 401


def test_nothing_under_v1_is_reached_by_nobody_even_where_a_route_forgets_to_ask():
    deployed, app = guarded()
    deployed.key("recommend")
    assert ask(app, "/v1/nothing").status == 401
    assert ask(app, "/health/live").status == 200
    assert ask(app, "/openapi.json").status == 200


def test_on_loopback_without_keys_anybody_is_let_in_until_the_first_key():
    deployed, app = guarded()
    assert post(app).status == 200
    assert ask(app, "/dashboard").body == b'"open access"'
    deployed.key("recommend")
    assert post(app).status == 401
    assert ask(app, "/dashboard").status == 401


def test_access_works_without_protect_too():
    deployed, _ = guarded()
    key = deployed.key("recommend", name="plain")
    scope = scope_of("/v1/x", "POST", [("authorization", f"Bearer {key}")])
    assert caller_of(deployed, scope, "recommend").name == "plain"
    with pytest.raises(Denied) as refused:
        caller_of(deployed, scope, "users")
    assert refused.value.status_code == 403
    with pytest.raises(Denied):
        caller_of(deployed, scope_of("/v1/x", "POST", []), "recommend")


def test_what_no_framework_catches_is_answered_all_the_same():
    deployed, _ = guarded()
    deployed.key("recommend")

    async def bare(scope, receive, send):
        caller_of(deployed, scope, "items")

    reply = ask(protect(bare, deployed), "/fast")
    assert reply.status == 401
    assert "scope 'items'" in reply.problem
    assert reply.headers["www-authenticate"] == 'Bearer realm="coterie"'


def test_the_openapi_document_says_that_keys_are_asked_for():
    deployed, _ = guarded()
    document = application(deployed).openapi()
    assert document["components"]["securitySchemes"]["key"]["type"] == "http"
    assert document["paths"]["/v1/items/{item_id}"]["get"]["security"] == OPENAPI_SECURITY
    assert "security" not in document["paths"]["/health/live"]["get"]


# --- rates -----------------------------------------------------------------------------------------------------------


def test_a_secret_key_has_its_own_rate_wherever_it_is_used():
    deployed, app = guarded({"access": {"secret_per_minute": 5}})
    one, two = deployed.key("recommend"), deployed.key("recommend")
    assert [post(app, one, client=f"192.0.2.{n}").status for n in range(7)] == [200] * 5 + [429] * 2
    reply = post(app, one)
    assert 1 <= int(reply.headers["retry-after"]) <= 12
    assert "too many requests with this key" in reply.problem
    assert deployed.metrics.refusals == ["rate"] * 3
    assert post(app, two).status == 200


def test_a_publishable_key_is_limited_by_address():
    deployed, app = guarded({"access": {"publishable_per_minute": 3}})
    key = deployed.key("recommend", publishable=True)

    def once(client):
        return post(app, key, headers={"Origin": SHOP}, client=client).status

    assert [once("192.0.2.1") for _ in range(4)] == [200] * 3 + [429]
    assert once("192.0.2.2") == 200
    assert [once(f"2001:db8:5:6::{n}") for n in range(4)] == [200] * 3 + [429]


def test_wrong_keys_make_an_address_wait_and_right_ones_never():
    deployed, app = guarded({"access": {"failures_per_minute": 4}})
    key = deployed.key("recommend")
    assert [post(app, "csk_wrong").status for _ in range(6)] == [401] * 4 + [429] * 2
    assert post(app, key).status == 200
    assert post(app, "csk_wrong", client="192.0.2.8").status == 401


def test_many_addresses_take_bounded_memory():
    deployed, app = guarded()
    deployed.key("recommend")
    gate = app._kept._app._app
    gate._failures._most = 50
    for number in range(200):
        assert post(app, "csk_wrong", client=f"198.51.100.{number % 256}").status == 401
    assert len(gate._failures) == 50


def test_requests_without_a_key_cost_nobody_a_token():
    deployed, app = guarded({"access": {"failures_per_minute": 1}})
    deployed.key("recommend")
    assert {post(app).status for _ in range(5)} == {401}


# --- behind a proxy --------------------------------------------------------------------------------------------------


def wrong_key(app, forwarded, client="127.0.0.1"):
    return post(app, "csk_wrong", headers={"X-Forwarded-For": forwarded}, client=client).status


def test_without_a_proxy_forwarded_headers_are_no_ones_word():
    deployed, app = guarded({"access": {"failures_per_minute": 2}})
    deployed.key("recommend")
    assert [wrong_key(app, f"203.0.113.{n}") for n in range(4)] == [401, 401, 429, 429]
    assert "strict-transport-security" not in ask(app, "/health/live", headers={"X-Forwarded-Proto": "https"}).headers


def test_behind_a_proxy_the_last_hop_is_the_client():
    deployed, app = guarded({"access": {"failures_per_minute": 2}, **PROXIED})
    deployed.key("recommend")
    made_up = [wrong_key(app, f"203.0.113.{n}, 192.0.2.9") for n in range(3)]
    assert made_up == [401, 401, 429]
    assert wrong_key(app, "192.0.2.10") == 401
    reply = ask(app, "/health/live", headers={"X-Forwarded-Proto": "https"}, client="127.0.0.1")
    assert reply.headers["strict-transport-security"].startswith("max-age=")


def test_who_reaches_the_port_from_the_internet_is_not_the_proxy():
    deployed, app = guarded({"access": {"failures_per_minute": 2}, **PROXIED})
    deployed.key("recommend")
    for stranger in ("8.8.8.8", "::ffff:8.8.4.4"):
        assert [wrong_key(app, f"203.0.113.{n}", stranger) for n in range(3)] == [401, 401, 429]
        sent = {"X-Forwarded-Proto": "https"}
        assert "strict-transport-security" not in ask(app, "/health/live", headers=sent, client=stranger).headers


def test_a_hop_that_is_no_address_is_not_believed():
    deployed, app = guarded({"access": {"failures_per_minute": 2}, **PROXIED})
    deployed.key("recommend")
    assert [wrong_key(app, wrong) for wrong in ("x" * 10_000, "", "unknown", "1.2.3")] == [401, 401, 429, 429]


# --- hosts -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil", "", "[::1", "a@127.0.0.1"]
)
def test_another_hosts_name_is_refused_on_loopback(host):
    deployed, app = guarded()
    reply = ask(app, "/health/live", host=host)
    assert reply.status == 421
    assert deployed.metrics.refusals == ["host"]


def test_no_host_at_all_is_refused_on_loopback():
    assert ask(guarded()[1], "/health/live", host=None).status == 421


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "[::1]", "LOCALHOST:8080", "127.0.0.1:9", "[::1]:8080"])
def test_names_of_this_machine_are_answered(host):
    assert ask(guarded()[1], "/health/live", host=host).status == 200


def test_a_public_url_is_a_name_too():
    _, app = guarded({"server": {"public_url": "https://rec.example.org"}})
    assert ask(app, "/health/live", host="rec.example.org").status == 200
    assert ask(app, "/health/live", host="rec.example.com").status == 421
    _, app = guarded({"server": {"public_url": "https://rec.example.org", "behind_proxy": True}})
    assert ask(app, "/health/live", host="evil.example").status == 421


def test_beyond_loopback_and_behind_a_proxy_names_are_the_networks_business():
    for server in ({"host": "0.0.0.0", "behind_proxy": True}, {"behind_proxy": True}):
        assert ask(guarded({"server": server})[1], "/health/live", host="rec.example.org").status == 200


@pytest.mark.parametrize("name", ["Host", "Authorization", "X-Api-Key", "Content-Type", "Origin", "Content-Length"])
def test_what_counts_once_must_not_come_twice(name):
    deployed, app = guarded()
    key = deployed.key("recommend")
    twice = [(name, HOST), (name, HOST)]
    reply = ask(app, BASKET, "POST", twice, body=b"{}", key=key)
    assert reply.status in (400, 413)
    assert reply.status == 400


def test_what_may_come_twice_does():
    deployed, app = guarded()
    key = deployed.key("items")
    assert ask(app, "/v1/items/7", headers=[("Accept", "a"), ("Accept", "b")], key=key).status == 200
