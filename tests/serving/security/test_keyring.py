"""API keys: made, kept as hashes, checked; whatever is forged, expired, revoked or out of place is nobody's."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.errors import ConfigError, DataError
from coterie.serving.config import ServeConfig
from coterie.serving.security import keys as module
from coterie.serving.security.keys import PUBLISHABLE, SCOPES, Keyring, make_key
from coterie.serving.security.origins import origin_of
from tests.serving.security.guardedapp import SHOP, Store

NOW = 1_750_000_000_000_000
DAY = 86_400_000_000


def ring(*made):
    store = Store()
    for key, _ in made:
        store.add_key(key)
    return Keyring(store), store


def secret(name="backend", scopes=("recommend",), **options):
    return make_key(name, False, scopes, now=NOW, **options)


def published(origins=(SHOP,), scopes=("recommend", "events")):
    return make_key("page", True, scopes, origins, now=NOW)


def test_a_key_says_its_kind_its_id_and_256_bits():
    (key, text), (page, public) = secret(), published()
    assert re.fullmatch(r"csk_[0-9a-f]{12}[A-Za-z0-9_-]{43}[0-9a-f]{8}", text)
    assert re.fullmatch(r"cpk_[0-9a-f]{12}[A-Za-z0-9_-]{43}[0-9a-f]{8}", public)
    assert text[4:16] == key.id
    assert public[4:16] == page.id
    assert secret()[1] != text


def test_what_is_stored_does_not_hold_the_key():
    key, text = secret()
    assert text[16:59] not in repr(key)
    assert secret()[0].hash != key.hash


def test_the_right_key_is_known_at_first_and_from_memory():
    key, text = secret(scopes=("recommend", "items"))
    keyring, _ = ring((key, text))
    for _ in range(2):
        caller = keyring.check(text, None, NOW)
        assert caller is not None
        assert (caller.key_id, caller.name, caller.publishable) == (key.id, "backend", False)
        assert caller.scopes == {"recommend", "items"}


def test_every_single_changed_character_makes_it_nobodys():
    made = secret()
    keyring, text = ring(made)[0], made[1]
    for at in range(len(text)):
        for other in "0aZ_-":
            if other != text[at]:
                assert keyring.check(text[:at] + other + text[at + 1 :], None, NOW) is None


def test_a_forgery_with_a_right_checksum_is_nobodys():
    key, text = secret()
    keyring, _ = ring((key, text))
    body = f"csk_{key.id}{'A' * 43}"
    assert keyring.check(body + module._checksum(body), None, NOW) is None
    other = f"cpk_{text[4:59]}"
    assert keyring.check(other + module._checksum(other), SHOP, NOW) is None


@given(st.text(max_size=200))
def test_any_text_is_checked_without_a_fault(text):
    assert ring(secret())[0].check(text, None, NOW) is None


def test_what_surrounds_a_key_is_not_ignored():
    made = secret()
    keyring, text = ring(made)[0], made[1]
    for wrong in (f"{text}\n", f" {text}", f"{text} ", f"{text}\x00", text.upper(), f"{text},{text}"):
        assert keyring.check(wrong, None, NOW) is None


def test_a_key_ends_when_it_was_told_to_even_if_it_was_just_verified():
    made = secret(expires=NOW + DAY)
    keyring, text = ring(made)[0], made[1]
    assert keyring.check(text, None, NOW + DAY - 1) is not None
    assert keyring.check(text, None, NOW + DAY) is None
    assert keyring.holder(made[0].id, NOW + DAY) is None


def test_revocation_counts_as_soon_as_it_is_reloaded():
    made = secret()
    keyring, store = ring(made)
    assert keyring.check(made[1], None, NOW) is not None
    store.revoke_key(made[0].id, NOW)
    keyring.reload()
    assert keyring.check(made[1], None, NOW) is None
    assert keyring.holder(made[0].id, NOW) is None


@pytest.mark.parametrize(
    "origin",
    [
        None, "null", "", "http://shop.example.org", "https://shop.example.org:8443", "https://shop.example.org/",
        "https://SHOP.example.org", "https://evil.org", "https://shop.example.org.evil.org", "https://evilshop.example.org",
        "https://sub.shop.example.org", f"{SHOP},{SHOP}", f"{SHOP} ",
    ],
)  # fmt: skip
def test_a_publishable_key_works_on_its_own_origin_alone(origin):
    made = published()
    keyring = ring(made)[0]
    assert keyring.check(made[1], SHOP, NOW) is not None
    assert keyring.check(made[1], origin, NOW) is None


def test_a_secret_key_needs_no_origin():
    made = secret()
    assert ring(made)[0].check(made[1], "https://anywhere.example", NOW) is not None


def test_a_publishable_key_opens_no_more_than_browsers_may_whatever_the_store_says():
    key, text = published()
    keyring, _ = ring((replace(key, scopes=frozenset(SCOPES)), text))
    caller = keyring.check(text, SHOP, NOW)
    assert caller is not None
    assert caller.scopes == PUBLISHABLE


def test_only_secret_keys_hold_sessions():
    made = published()
    assert ring(made)[0].holder(made[0].id, NOW) is None


def test_origins_are_those_of_keys_that_hold():
    one, two = published(), published(("http://localhost:3000",))
    keyring, store = ring(one, two, secret())
    assert keyring.origins == {SHOP, "http://localhost:3000"}
    store.revoke_key(one[0].id, NOW)
    keyring.reload()
    assert keyring.origins == {"http://localhost:3000"}


def test_memory_of_verified_keys_is_bounded(monkeypatch):
    monkeypatch.setattr(module, "MOST_REMEMBERED", 3)
    made = [secret() for _ in range(10)]
    keyring, _ = ring(*made)
    for _, text in made * 2:
        assert keyring.check(text, None, NOW) is not None
        assert keyring.check(f"{text}x", None, NOW) is None
        assert len(keyring._held.verified) <= 3


def test_a_hash_that_cannot_be_read_is_said_by_the_keys_name():
    key, _ = secret(name="till")
    for hashed in ("", "sha1:00:11", "hmac-sha256:zz:00", "hmac-sha256:00:00"):
        with pytest.raises(DataError, match="'till'"):
            ring((replace(key, hash=hashed), ""))


def test_open_access_ends_with_the_first_key_for_good():
    keyring, store = ring()
    config = ServeConfig()
    assert keyring.open_access(config)
    key, _ = secret()
    store.add_key(key)
    keyring.reload()
    assert not keyring.open_access(config)
    store.revoke_key(key.id, NOW)
    keyring.reload()
    assert not keyring.open_access(config)


@pytest.mark.parametrize(
    "settings",
    [
        {"access": {"keys": "always"}},
        {"server": {"host": "0.0.0.0", "behind_proxy": True}},
        {"server": {"behind_proxy": True}},
        {"server": {"public_url": "https://rec.example.org"}},
    ],
)
def test_where_others_can_reach_it_access_is_never_open(settings):
    assert not ring()[0].open_access(ServeConfig.model_validate(settings))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"scopes": ()}, "no scope"),
        ({"scopes": ("recomend",)}, "did you mean 'recommend'"),
        ({"publishable": True, "scopes": ("items",), "origins": (SHOP,)}, "not for browsers"),
        ({"publishable": True}, "name them"),
        ({"publishable": True, "origins": ("*",)}, "must be scheme"),
        ({"publishable": True, "origins": ("null",)}, "must be scheme"),
        ({"publishable": True, "origins": ("https://*.example.org",)}, "must be scheme"),
        ({"publishable": True, "origins": ("https://a.org/shop",)}, "must be scheme"),
        ({"publishable": True, "origins": ("https://u:p@a.org",)}, "must be scheme"),
        ({"publishable": True, "origins": ("https://a.org\r\nX: y",)}, "must be scheme"),
        ({"publishable": True, "origins": ("file:///x",)}, "must be scheme"),
        ({"publishable": True, "origins": ("https://a.org:99999",)}, "must be scheme"),
        ({"origins": (SHOP,)}, "never goes into pages"),
        ({"expires": NOW}, "expired already"),
        ({"name": "  "}, "1 to 100 printable"),
        ({"name": "a\r\nb"}, "1 to 100 printable"),
        ({"name": "x" * 101}, "1 to 100 printable"),
    ],
)
def test_a_key_that_makes_no_sense_is_not_made(options, said):
    given_options = {"name": "k", "publishable": False, "scopes": ("recommend",), "origins": (), "expires": None}
    with pytest.raises(ConfigError, match=re.escape(said)):
        make_key(**{**given_options, **options}, now=NOW)


@pytest.mark.parametrize(
    ("given_as", "sent_as"),
    [
        ("https://Shop.Example.org:443/", "https://shop.example.org"),
        ("http://localhost:80", "http://localhost"),
        ("http://127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("https://bücher.example", "https://xn--bcher-kva.example"),
        ("http://[0:0::1]:8080", "http://[::1]:8080"),
    ],
)
def test_origins_are_kept_as_browsers_send_them(given_as, sent_as):
    assert origin_of(given_as) == sent_as
