"""The files of the two daemons: what is written annotated loads as it stands, and every mistake is one sentence."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from coterie.errors import ConfigError
from coterie.federation.address import split_address
from coterie.federation.config import (
    FederationConfig,
    FederationSettings,
    NodeConfig,
    TlsSettings,
    federation_template,
    node_template,
)
from coterie.federation.jobsettings import JobSettings
from coterie.privacysettings import PlanSettings, Section
from coterie.settings import AugmentSettings, CleanSettings, DataSettings, SplitSettings
from tests.federation.partners import written

MINIMAL = "[federation]\nname = 'shops'\naddress = 'train.example.org:9443'\n"
NODE = "name = 'north'\naddress = 'train.example.org:9443'\n"


def federation(path: Path, text: str) -> FederationConfig:
    return FederationConfig.load(written(path / "federation.toml", text))


def node(path: Path, text: str) -> NodeConfig:
    return NodeConfig.load(written(path / "node.toml", text))


def uncommented(template: str) -> str:
    """A template in which the keys and tables that were commented out are not."""
    key = re.compile(r'# (\[[a-z.]+\]$|[a-z_]+ = ("[^"]*"|\[.*\]|-?[0-9.]+|true|false|\{.*\})$)', re.MULTILINE)
    return key.sub(r"\1", template)


# --- the coordinator's -----------------------------------------------------------------------------------------------


def test_the_template_loads_as_it_stands(tmp_path: Path) -> None:
    loaded = federation(tmp_path, federation_template("our shops", "[::1]:9443"))
    assert (loaded.federation.name, loaded.federation.address) == ("our shops", "[::1]:9443")
    assert (loaded.tls, loaded.jobs) == (TlsSettings(), {})
    default = FederationSettings(name="our shops", address="[::1]:9443")
    assert loaded.federation.model_dump(exclude={"database"}) == default.model_dump(exclude={"database"})
    assert federation(tmp_path, federation_template()).federation.name


def test_its_examples_are_valid_once_they_are_not_comments(tmp_path: Path) -> None:
    text = uncommented(federation_template())
    for name in ("certificate", "weekly", "plan", "listen_port", "metrics_port", "every_days"):
        assert re.search(rf"^(\[.*)?{name}(\]| =)", text, re.MULTILINE), name
    for line in (
        "delta",
        "noise_multiplier",
        "clip_norm",
        "budget",
        "threshold",
        "min_clients",
        "items",
    ):  # not all at once
        text = re.sub(rf"^{line} = .*$", "", text, flags=re.MULTILINE)
    loaded = federation(tmp_path, text)
    assert list(loaded.jobs) == ["weekly"]
    assert loaded.jobs["weekly"].every_days == 7.0
    assert loaded.tls.certificate == str(tmp_path / "tls" / "server.pem")


@pytest.mark.parametrize(
    ("template", "place", "section"),
    [
        (federation_template, "[federation]", FederationSettings),
        (federation_template, "[tls]", TlsSettings),
        (federation_template, "# [jobs.weekly]", JobSettings),
        (federation_template, "# [jobs.weekly.plan]", PlanSettings),
        (node_template, "", NodeConfig),
        (node_template, "[data]", DataSettings),
        (node_template, "[clean]", CleanSettings),
        (node_template, "[split]", SplitSettings),
        (node_template, "[augment]", AugmentSettings),
    ],
)
def test_every_key_stands_in_the_file_with_its_explanation(
    template: Callable[[], str], place: str, section: type[Section]
) -> None:
    block = template().split(f"{place}\n" if place else "\n\n\n")[bool(place)].split("\n\n\n")[0]
    explained = " ".join(f"\n{block}".replace("\n# ", " ").split())
    for key, info in section.model_fields.items():
        if f"{place or '['}.{key}" in template() or f"\n[{key}]" in template() or f"{key}]" in template():
            continue  # a table of its own
        assert info.description, key
        assert " ".join(info.description.split()) in explained
        assert f"\n{key} = " in f"\n{block}" or f"\n# {key} = " in f"\n{block}", key


def test_relative_paths_start_at_the_files_folder(tmp_path: Path) -> None:
    text = (
        "[federation]\nname = 'shops'\naddress = 'localhost:1'\ndatabase = 'state/f.sqlite'\n"
        "[tls]\ncertificate = 'a.pem'\nkey = '/etc/a.key'\nca = 'ca.pem'\n"
        "[jobs.weekly]\ncatalogue = 'given'\nitems = 'items.csv'\n"
    )
    loaded = federation(tmp_path, text)
    assert loaded.federation.database == str(tmp_path / "state" / "f.sqlite")
    assert (loaded.tls.certificate, loaded.tls.key) == (str(tmp_path / "a.pem"), "/etc/a.key")
    assert loaded.jobs["weekly"].items == str(tmp_path / "items.csv")
    for url in ("postgresql://u@h/db", "env:SHOP_URL"):
        assert federation(tmp_path, text.replace("state/f.sqlite", url)).federation.database == url


def test_where_it_listens(tmp_path: Path) -> None:
    assert federation(tmp_path, MINIMAL).federation.listen == ("0.0.0.0", 9443)
    behind = f"{MINIMAL}listen_host = '127.0.0.1'\nlisten_port = 8443\n"
    assert federation(tmp_path, behind).federation.listen == ("127.0.0.1", 8443)
    assert federation(tmp_path, MINIMAL).federation.host == "train.example.org"


def test_a_job_is_a_model_a_plan_and_times(tmp_path: Path) -> None:
    job = federation(
        tmp_path,
        f"{MINIMAL}[jobs.weekly]\nevery_days = 7\ntimes = 52\n"
        "[jobs.weekly.model]\nname = 'ials'\nfactors = 16\n[jobs.weekly.plan]\nepsilon = 0.5\nmin_clients = 3\n",
    ).jobs["weekly"]
    assert (job.model, job.plan.epsilon, job.times, job.start) == ({"name": "ials", "factors": 16}, 0.5, 52, "manual")


MISTAKES = [
    ("", "federation: field required"),
    ("[federation]\nname = 'shops'\n", "federation.address: field required"),
    ("[federation]\naddress = 'a:1'\n", "federation.name: field required"),
    ("federation = 3\n", "[federation] must be a table of keys, got 3"),
    (f"{MINIMAL}adress = 'x'\n", "unknown key 'adress' in [federation]; did you mean 'address'?"),
    (f"{MINIMAL}certificate = 'x'\n", "unknown key 'certificate' in [federation]; 'certificate' belongs to [tls]"),
    (f"{MINIMAL}[tsl]\n", "unknown section [tsl]; did you mean 'tls'?"),
    (MINIMAL.replace("shops", ""), "federation.name: string should have at least 1 character"),
    (MINIMAL.replace("'shops'", '"a\\nb"'), "name must be characters that can be printed"),
    (MINIMAL.replace(":9443", ""), "address must be HOST:PORT, such as train.example.org:9443 or [::1]:9443"),
    (f"{MINIMAL}metrics_port = 70000\n", "federation.metrics_port: input should be less than or equal to 65535"),
    (
        f"{MINIMAL}[tls]\nkey = 'x'\n",
        "[tls] needs certificate, key and ca together, or none of them: certificate and ca",
    ),
    (f"{MINIMAL}[jobs]\nweekly = 3\n", "[jobs.weekly] must be a table of keys, got 3"),
    (f"{MINIMAL}[jobs.Weekly]\n", "a job's name must be 1 to 32 lower-case letters"),
    (f"{MINIMAL}[jobs.weekly]\nsede = 1\n", "unknown key 'sede' in [jobs.weekly]; did you mean 'seed'?"),
    (f"{MINIMAL}[jobs.weekly]\nseed = -1\n", "jobs.weekly.seed: input should be greater than or equal to 0, got -1"),
    (
        f"{MINIMAL}[jobs.w]\ncatalogue = 'given'\n",
        "catalogue = 'given' and items go together: got catalogue = 'given' w",
    ),
    (
        f"{MINIMAL}[jobs.w]\nitems = 'a'\n",
        "[jobs.w]: catalogue = 'given' and items go together: got catalogue = 'union' with items",
    ),
    (f"{MINIMAL}[jobs.w]\ntimes = 3\n", "times = 3 needs every_days"),
    (
        f"{MINIMAL}[jobs.w]\nmetrics_share = 0.1\nevaluate = false\n",
        "metrics_share = 0.1 pays for metrics, but evaluate",
    ),
    (f"{MINIMAL}[jobs.w.plan]\nmin_clients = 9\n", "[jobs.w]: plan.min_clients = 9 is more than min_nodes = 3"),
    (f"{MINIMAL}[jobs.w.plan]\nepsilon = -1\n", "[jobs.w]: epsilon must be a positive number or 'none', got -1"),
    (f"{MINIMAL}[jobs.w.plan]\nepslon = 1\n", "unknown key 'epslon' in [jobs.w.plan]; did you mean 'epsilon'?"),
    (f"{MINIMAL}[jobs.w.model]\nname = 'eese'\n", "[jobs.w.model]: unknown model 'eese'; did you mean 'ease'?"),
    (
        f"{MINIMAL}[jobs.w.model]\nname = 'ease'\nfactors = 3\n",
        "[jobs.w.model]: model 'ease' has no parameter 'factors'",
    ),
    ("[federation", "not valid TOML"),
]


@pytest.mark.parametrize(("text", "sentence"), MISTAKES)
def test_a_mistake_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(sentence)) as caught:
        federation(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path}/federation.toml: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("load", "command"), [(FederationConfig.load, "coterie coordinator init"), (NodeConfig.load, "coterie node join")]
)
def test_a_missing_file_says_what_makes_one(tmp_path: Path, load: Callable[[Path], Any], command: str) -> None:
    with pytest.raises(ConfigError, match=rf"x\.toml: no such file; `{command}` writes one"):
        load(tmp_path / "x.toml")


# --- a node's --------------------------------------------------------------------------------------------------------


def test_a_nodes_template_loads_as_it_stands(tmp_path: Path) -> None:
    loaded = node(tmp_path, node_template("north", "localhost:9443", logs=["lines.csv"], user_column="customer"))
    assert (loaded.name, loaded.address, loaded.engine) == ("north", "localhost:9443", "local")
    assert loaded.data == DataSettings(logs=(str(tmp_path / "lines.csv"),), user_column="customer")
    assert (loaded.clean, loaded.split, loaded.augment) == (CleanSettings(), SplitSettings(), AugmentSettings())
    assert tomllib.loads(node_template())["data"]["logs"] == []


def test_a_nodes_examples_are_valid_once_they_are_not_comments(tmp_path: Path) -> None:
    text = uncommented(node_template("north", "localhost:9443")).replace('engine = "local"', 'engine = "ray"')
    assert "\nray_address = " in text
    assert "\nkey_file = " in text
    head = text.split("\n\n\n")[0].replace('ledger = ""', "")
    loaded = node(tmp_path, head)
    assert (loaded.key_file, loaded.ray_address) == (str(tmp_path / "vault.key"), "ray-head:6379")


def test_a_nodes_paths_start_at_the_files_folder(tmp_path: Path) -> None:
    loaded = node(
        tmp_path,
        f"{NODE}ledger = 'env:LEDGER'\nkey_file = '/run/secrets/key'\n"
        "[data]\nlogs = ['a.csv', 'postgresql://u@h/db', '/data/b.parquet']\nitems = 'items.csv'\n"
        "[split]\ntest = 'test.csv'\n",
    )
    assert loaded.data.logs == (str(tmp_path / "a.csv"), "postgresql://u@h/db", "/data/b.parquet")
    assert (loaded.data.items, loaded.split.test) == (str(tmp_path / "items.csv"), str(tmp_path / "test.csv"))
    assert (loaded.ledger, loaded.key_file) == ("env:LEDGER", "/run/secrets/key")
    assert (loaded.ledger_settings.ledger, loaded.ledger_settings.account) == ("env:LEDGER", "default")


def test_a_home_folder_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert node(tmp_path, f"{NODE}key_file = '~/key'\n").key_file == "/home/ann/key"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        (NODE.replace("north", "North"), "name must be 1 to 32 lower-case letters"),
        (NODE.replace("north", "coordinator"), "name may not be 'coordinator'"),
        (NODE.replace(":9443", ":0"), "address must be HOST:PORT"),
        (f"{NODE}engine = 'flink'\n", "engine: input should be 'local' or 'ray', got 'flink'"),
        (f"{NODE}ray_address = 'a:1'\n", "ray_address = 'a:1' needs engine = 'ray', got engine = 'local'"),
        (f"{NODE}logs = []\n", "unknown key 'logs'; 'logs' belongs to [data]"),
        (f"{NODE}acount = 'x'\n", "unknown key 'acount'; did you mean 'account'?"),
        (f"{NODE}[data]\nuser-column = 'x'\n", "unknown key 'user-column' in [data]; did you mean 'user_column'?"),
        (f"{NODE}[plan]\nepsilon = 1\n", "unknown section [plan]"),
        (f"{NODE}[data]\nitems = 'env:ITEMS'\n", "items must be a file, got a database"),
    ],
)
def test_a_nodes_mistake_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(sentence)) as caught:
        node(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path}/node.toml: ")
    assert "\n" not in str(caught.value)


# --- addresses -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("localhost:9443", ("localhost", 9443)),
        ("10.0.0.1:443", ("10.0.0.1", 443)),
        ("[2001:db8::1]:443", ("2001:db8::1", 443)),
        ("a-b.example.org:1", ("a-b.example.org", 1)),
    ],
)
def test_addresses_that_may_be(address: str, parts: tuple[str, int]) -> None:
    assert split_address(address) == parts


@pytest.mark.parametrize(
    "address",
    ["", ":1", "a", "a:", "a:b", "a:0", "a:65536", "a:-1", "a:1:2", "::1:443", "[::1]", "[::1", "[a]:1", "[]:1", "[:1"],
)
def test_addresses_that_may_not_be(address: str) -> None:
    with pytest.raises(ValueError, match="address must be HOST:PORT"):
        split_address(address)


@pytest.mark.parametrize("address", ["https://a:1", "a b:1", "u@a:1", "a/b:1", "a:१", "a\n:1", "a: 1", "a:1 "])
def test_nor_may_what_is_more_than_an_address(address: str) -> None:
    with pytest.raises(ValueError, match="address must be HOST:PORT"):
        split_address(address)
