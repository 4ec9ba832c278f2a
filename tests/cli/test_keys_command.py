"""`coterie keys`: made once, listed without their text, revoked for good; on a real store."""

import re
import time

import pytest

from coterie.cli import app as commands
from coterie.cli import keys as command
from coterie.cli.options import PlainCommand
from coterie.serving.config import ServeConfig
from coterie.serving.security.keys import Keyring
from coterie.serving.store import ServingStore

SHOP = "https://shop.example.org"


@pytest.fixture(scope="module", autouse=True)
def _registered():
    """The commands, wherever they are registered by then."""
    if "keys" in [group.name for group in commands.registered_groups]:
        return
    commands.add_typer(command.app, name="keys")
    for name, function in (("create", command.create), ("list", command.list_keys), ("revoke", command.revoke)):
        command.app.command(name, cls=PlainCommand)(function)


@pytest.fixture
def store(tmp_path):
    return tmp_path / "serving.sqlite"


@pytest.fixture
def made(coterie, store):
    return coterie(
        "keys", "create", "till", "--scope", "recommend", "--scope", "items", "--store", store, "--json"
    ).json


def ring(store):
    config = ServeConfig()
    opened = ServingStore.open(str(store), config.people, config.store)
    try:
        return Keyring(opened)
    finally:
        opened.close()


def now():
    return time.time_ns() // 1000


def test_a_key_is_printed_once_and_is_in_no_byte_of_the_store(made, store):
    caller = ring(store).check(made["key"], None, now())
    assert caller is not None
    assert (caller.key_id, caller.name, caller.scopes) == (made["id"], "till", {"recommend", "items"})
    for file in store.parent.glob("serving.sqlite*"):
        assert made["key"][16:59].encode() not in file.read_bytes()


def test_for_a_shell_the_key_alone_is_on_stdout(coterie, store):
    result = coterie("keys", "create", "till", "--scope", "recommend", "--store", store)
    assert re.fullmatch(r"csk_[0-9A-Za-z_-]{63}\n", result.out)
    assert "shown this once" in result.err


def test_a_publishable_key_has_its_origins_and_its_end(coterie, store):
    asked = ("--scope", "recommend", "--publishable", "--origin", f"{SHOP}/", "--origin", "http://localhost:3000")
    made = coterie("keys", "create", "page", *asked, "--days", "1.5", "--store", store, "--json").json
    assert made["kind"] == "publishable"
    assert made["origins"] == [SHOP, "http://localhost:3000"]
    keyring = ring(store)
    assert keyring.check(made["key"], SHOP, now()) is not None
    assert keyring.check(made["key"], SHOP, now() + int(1.6 * command.DAY)) is None


def test_the_list_shows_everything_but_the_key(coterie, made, store):
    coterie("keys", "create", "page", "--scope", "events", "--publishable", "--origin", SHOP, "--store", store)
    listed = coterie("keys", "list", "--store", store)
    for word in (made["id"], "till", "items", "recommend", "publishable", "holds"):
        assert word in listed.out
    assert made["key"][16:59] not in listed.out
    found = coterie("keys", "list", "--store", store, "--json").json["keys"]
    assert [one["name"] for one in found] == ["till", "page"]
    assert set(found[0]) == {"id", "name", "kind", "scopes", "origins", "created_at", "expires_at", "revoked_at"}


@pytest.mark.parametrize("whole", [False, True])
def test_a_revoked_key_holds_no_more_and_stays_in_the_list(coterie, made, store, whole):
    result = coterie("keys", "revoke", made["key"] if whole else made["id"], "--store", store)
    assert result.out == f"revoked key {made['id']} ('till')\n"
    assert ring(store).check(made["key"], None, now()) is None
    assert "revoked 20" in coterie("keys", "list", "--store", store).out
    again = coterie("keys", "revoke", made["id"], "--store", store, "--json").json
    assert again["already"] is True


def test_the_configuration_names_the_store(coterie, made, store):
    config = store.parent / "serve.toml"
    config.write_text(f'[store]\naddress = "{store}"\n')
    assert coterie("keys", "list", "--config", config, "--json").json["keys"][0]["id"] == made["id"]


def test_an_empty_list_says_what_to_do(coterie, store):
    config = ServeConfig()
    ServingStore.open(str(store), config.people, config.store).close()
    assert "no key was made" in coterie("keys", "list", "--store", store).out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("create", "x"), "has no scope"),
        (("create", "x", "--scope", "item"), "did you mean 'items'"),
        (("create", "x", "--scope", "items", "--publishable", "--origin", SHOP), "not for browsers"),
        (("create", "x", "--scope", "recommend", "--publishable"), "name them"),
        (("create", "x", "--scope", "recommend", "--days", "0"), "--days must be more than 0"),
        (("create", "x", "--scope", "recommend", "--days", "nan"), "--days must be more than 0"),
        (("create", "x\ny", "--scope", "recommend"), "printable"),
    ],
)
def test_what_makes_no_sense_is_one_sentence_and_writes_nothing(coterie, store, arguments, said):
    result = coterie("keys", *arguments, "--store", store)
    assert result.code == 2
    assert said in result.sentence
    assert not store.exists()


def test_lists_and_revocations_make_no_store(coterie, store):
    for arguments in (("list",), ("revoke", "0" * 12)):
        result = coterie("keys", *arguments, "--store", store)
        assert (result.code, store.exists()) == (2, False)
        assert "there is no such store" in result.sentence


def test_a_key_that_is_not_there_is_said_with_the_nearest(coterie, made, store):
    near = made["id"][:-1] + ("0" if made["id"][-1] != "0" else "1")
    result = coterie("keys", "revoke", near, "--store", store)
    assert result.code == 2
    assert f"did you mean '{made['id']}'" in result.sentence


@pytest.mark.parametrize("name", [(), ("create",), ("list",), ("revoke",)], ids=" ".join)
def test_every_command_has_help(coterie, name):
    result = coterie("keys", *name, "--help")
    assert (result.code, result.err) == (0, "")
