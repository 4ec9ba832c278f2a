"""Keys, sessions and revocation on a real store, which two processes of a deployment would share."""

import time

import pytest
from starlette.requests import Request

from coterie.serving.config import ServeConfig
from coterie.serving.security.keys import Keyring, make_key
from coterie.serving.security.sessions import session_caller, sign_in
from coterie.serving.store import ServingStore
from tests.serving.security.guardedapp import HOST, SHOP, Deployed, scope_of


@pytest.fixture
def stores(tmp_path):
    config = ServeConfig()
    opened = [ServingStore.open(str(tmp_path / "s.sqlite"), config.people, config.store) for _ in range(2)]
    yield opened
    for store in opened:
        store.close()


def now():
    return time.time_ns() // 1000


def test_a_key_made_by_one_process_is_known_to_another_and_revoked_for_both(stores):
    here, there = (Keyring(store) for store in stores)
    assert here.open_access(ServeConfig())
    made, text = make_key("page", True, ("recommend", "model"), (SHOP,), now() + 60_000_000)
    before = stores[1].last_change()
    stores[0].add_key(made)
    assert stores[1].keys() == [made]
    assert [change.kind for change in stores[1].changes_since(before)] == ["keys"]
    for ring in (here, there):
        ring.reload()
        assert not ring.open_access(ServeConfig())
        assert ring.check(text, SHOP, now()).scopes == {"recommend", "model"}
    stores[1].revoke_key(made.id, now())
    for ring in (here, there):
        ring.reload()
        assert ring.check(text, SHOP, now()) is None


def test_a_session_of_one_process_holds_in_another(stores):
    one, two = Deployed(), Deployed()
    made, text = make_key("operator", False, ("dashboard",))
    stores[0].add_key(made)
    for deployed, store in zip((one, two), stores, strict=True):
        deployed.store, deployed.keys = store, Keyring(store)
    own = [("host", HOST), ("sec-fetch-site", "same-origin")]
    cookie = sign_in(one, Request(scope_of("/dashboard/login", "POST", own)), text).partition(";")[0]
    found = session_caller(two, scope_of("/dashboard", "GET", [("cookie", cookie)]))
    assert found is not None
    assert found.key_id == made.id
