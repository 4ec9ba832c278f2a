"""Ids of answers and user tokens: they say what was put in, and cannot be made up."""

import re
import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.errors import ConfigError
from coterie.serving.tokens import Minted, mint, read, speaks_for, user_token

SECRET = bytes(range(32))
arms = st.sampled_from(["champion", "challenger"])


@given(st.integers(0, 2**32 - 1), st.none() | st.integers(1, 1000), arms)
def test_an_id_says_what_was_put_in(version, explored, arm):
    made = mint(SECRET, version, explored, arm)
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,59}", made)
    assert read(SECRET, made) == Minted(version, explored, arm)
    assert read(secrets.token_bytes(32), made) is None


def test_no_two_ids_are_alike():
    assert len({mint(SECRET, 1, None, "champion") for _ in range(2000)}) == 2000


def test_every_change_of_an_id_is_noticed():
    made = mint(SECRET, 7, 3, "challenger")
    for at in range(len(made)):
        for other in "Aa0_":
            changed = made[:at] + other + made[at + 1 :]
            assert changed == made or read(SECRET, changed) is None
    for text in (made + "A", made + "=", made[:-1], made + "\n", " " + made, made * 2):
        assert read(SECRET, text) is None


@given(st.text(max_size=300))
def test_any_text_is_read_as_forged(text):
    assert read(SECRET, text) is None
    assert not speaks_for(SECRET, text, "ann", 0)


def test_what_does_not_fit_into_an_id_is_refused():
    for version, explored in ((-1, None), (2**32, None), (1, 2**16)):
        with pytest.raises(ConfigError, match="out of range"):
            mint(SECRET, version, explored, "champion")


@given(st.text(min_size=1, max_size=50), st.integers(0, 2**62))
def test_a_token_speaks_for_its_user_until_it_expires(user, expires_at):
    token = user_token(SECRET, user, expires_at)
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,59}", token)
    assert speaks_for(SECRET, token, user, expires_at - 1)
    assert not speaks_for(SECRET, token, user, expires_at)
    assert not speaks_for(SECRET, token, user + "x", expires_at - 1)
    assert not speaks_for(secrets.token_bytes(32), token, user, expires_at - 1)


def test_a_token_cannot_be_prolonged_and_holds_no_id():
    token, later = user_token(SECRET, "a-very-visible-user", 1000), user_token(SECRET, "a-very-visible-user", 9000)
    assert not speaks_for(SECRET, later[:11] + token[11:], "a-very-visible-user", 2000)
    assert "visible" not in token
    assert token == user_token(SECRET, "a-very-visible-user", 1000)


def test_an_id_is_no_token():
    assert not speaks_for(SECRET, mint(SECRET, 1, None, "champion"), "ann", 0)
    assert read(SECRET, user_token(SECRET, "ann", 2**40)) is None
