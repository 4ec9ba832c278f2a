"""What a node takes part in: every reason by itself, each with its remedy; and the file that says so."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import tzset
from typing import Any

import pytest

from coterie.errors import ConfigError
from coterie.federation.policy import POLICY_FILE, Policy, policy_template
from tests.federation.asked import FEDERATION, NOON, PINS, Job, policy, refusals
from tests.federation.partners import written


@pytest.fixture(autouse=True)
def _in_berlin(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This machine's zone: hours are local."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    tzset()
    yield
    monkeypatch.undo()
    tzset()


def test_what_is_within_the_policy_is_not_refused() -> None:
    assert refusals(policy(), Job()) == []


REFUSED = [
    ({}, {"coordinator": "0" * 32}, r"the coordinator 0{32} may not ask this node .* compare its fingerprint"),
    ({}, {"coordinator": "0" * 32}, f"the roster is of federation {FEDERATION} and the job of 0"),
    ({"coordinators": []}, {}, r"may not ask this node \(coordinators in policy\.toml: nobody\)"),
    ({"models": ["ials", "cart"]}, {}, r"the model 'ease' is not allowed here \(models in policy\.toml: ials, cart\)"),
    ({"models": []}, {}, r"models in policy\.toml: none"),
    ({}, {"aggregation": "plain"}, "aggregation is 'plain' and the lowest allowed here is 'secure'"),
    ({}, {"noise": "central"}, "the job's noise is 'central' and this node asks for 'distributed' or 'local'"),
    ({}, {"noise": "none", "epsilon": None}, "the job's noise is 'none'"),
    ({}, {"epsilon": None}, "the job has noise and states no epsilon and delta"),
    ({}, {"delta": None}, "the job has noise and states no epsilon and delta"),
    ({}, {"epsilon": 4.1}, "the job asks for epsilon = 4.1 and max_epsilon_month is 4 here"),
    ({}, {"epsilon": 8.1}, "the job asks for epsilon = 8.1 and max_epsilon_total is 8 here"),
    ({"catalogue": ["given"]}, {}, r"agrees on items by 'union', .* \(catalogue in policy\.toml: given\)"),
    ({}, {"min_carriers": 2}, "items in that 2 nodes carry and this node asks for 3"),
    ({}, {"min_clients": 2}, "sums as few as 2 nodes and this node asks for 3"),
    ({}, {"min_clients": 2}, "may sum two nodes, each of which can subtract its own part .* two_party"),
    ({}, {"expires": NOON.timestamp() - 60}, "has expired at 2030-06-01 11:59 UTC and .* clock says 2030-06-01 12:00"),
    ({"hours": "20:00-06:00"}, {}, r"it is 14:00 here and jobs may run 20:00-06:00 \(hours in policy\.toml\); wait"),
    ({"approval": "person"}, {}, "waits for a person's approval here: coterie node policy approve weekly-1"),
]


@pytest.mark.parametrize(("rules", "job", "sentence"), REFUSED)
def test_every_reason_is_one_sentence_with_its_remedy(
    rules: dict[str, Any], job: dict[str, Any], sentence: str
) -> None:
    found = refusals(policy(**rules), replace(Job(), **job))
    assert any(_matches(sentence, one) for one in found), found
    assert not any("\n" in one for one in found)


def _matches(pattern: str, text: str) -> bool:
    return re.search(pattern, text) is not None


def test_all_reasons_are_said_at_once() -> None:
    bad = replace(Job(), model="mf", aggregation="plain", noise="none", min_carriers=1, catalogue="hashed")
    found = refusals(policy(models=["ease"], catalogue=["given"], approval="person"), bad, users=3)
    assert len(found) == 7


@pytest.mark.parametrize(
    ("rules", "job"),
    [
        ({"models": "any"}, {"model": "mf"}),
        ({"models": ["mf", "ease"]}, {"model": "mf"}),
        ({"aggregation": "plain"}, {"aggregation": "plain"}),
        ({"aggregation": "plain"}, {"aggregation": "secure"}),
        ({"noise": ["none"]}, {"noise": "none", "epsilon": None, "delta": None}),
        ({"max_epsilon_month": "none"}, {"epsilon": 8.0}),
        ({"max_epsilon_month": "none", "max_epsilon_total": "none"}, {"epsilon": 30.0}),
        ({"min_carriers": 2}, {"min_carriers": 2}),
        ({"min_clients": 2, "two_party": "consent"}, {"min_clients": 2}),
        ({"hours": "13:00-15:00"}, {}),
    ],
)
def test_what_the_policy_allows_is_not_refused(rules: dict[str, Any], job: dict[str, Any]) -> None:
    assert refusals(policy(**rules), replace(Job(), **job)) == []


def test_a_sum_of_few_own_users_is_refused() -> None:
    (reason,) = refusals(policy(), Job(), users=99)
    assert reason.startswith("this node has fewer users of its own than it asks for (min_own_users in policy.toml)")
    assert "99" not in reason  # the coordinator reads this
    assert refusals(policy(), Job(), users=100) == []


@pytest.mark.parametrize(
    ("hours", "local", "allowed"),
    [
        ("20:00-06:00", "20:00", True),
        ("20:00-06:00", "23:59", True),
        ("20:00-06:00", "00:00", True),
        ("20:00-06:00", "05:59", True),
        ("20:00-06:00", "06:00", False),
        ("20:00-06:00", "19:59", False),
        ("08:30-17:00", "08:30", True),
        ("08:30-17:00", "17:00", False),
        ("08:30-17:00", "08:29", False),
    ],
)
def test_hours_are_of_this_machine_and_may_pass_midnight(hours: str, local: str, allowed: bool) -> None:
    hour, minute = map(int, local.split(":"))
    now = datetime(2030, 6, 1, hour, minute, tzinfo=UTC) - timedelta(hours=2)  # Berlin in summer
    job = replace(Job(), expires=now.timestamp() + 1)
    assert bool(refusals(policy(hours=hours), job, now=now)) is not allowed


def test_the_zone_of_these_tests_is_berlin() -> None:
    assert os.environ["TZ"] == "Europe/Berlin"
    assert NOON.astimezone().hour == 14


# --- the file ---------------------------------------------------------------------------------------------------------


def test_the_template_is_the_defaults_and_explains_every_key(tmp_path: Path) -> None:
    loaded = Policy.load(written(tmp_path / POLICY_FILE, policy_template()))
    assert loaded.model_dump() == Policy().model_dump()
    explained = " ".join(policy_template().replace("\n# ", " ").split())
    for key, info in Policy.model_fields.items():
        assert info.description, key
        assert info.description in explained
        assert f"\n{key} = " in policy_template() or f"\n[{key}]\n" in policy_template()


def test_the_template_takes_values(tmp_path: Path) -> None:
    path = written(tmp_path / POLICY_FILE, policy_template(coordinators=[FEDERATION], peers=PINS))
    values = tomllib.loads(path.read_text())
    assert (values["coordinators"], values["peers"]) == ([FEDERATION], PINS)
    assert Policy.load(path).coordinators == (FEDERATION,)


def test_nothing_is_allowed_to_anybody_by_default() -> None:
    assert Policy().coordinators == ()
    assert Policy().approval == "person"
    assert (Policy().aggregation, Policy().two_party, "none" in Policy().noise) == ("secure", "refuse", False)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("model = 'ease'", "unknown key 'model'; did you mean 'models'?"),
        ("models = ['eese']", "models names 'eese', which is not installed here; did you mean 'ease'?"),
        ("models = 'ease'", "models"),
        ("aggregation = 'encrypted'", "aggregation: input should be 'secure' or 'plain', got 'encrypted'"),
        ("noise = ['loud']", "noise"),
        ("max_epsilon_total = 0", "a limit on epsilon must be a positive number or 'none', got 0"),
        ("max_epsilon_month = 'many'", "a limit on epsilon must be a positive number or 'none', got 'many'"),
        ("max_epsilon_month = inf", "a limit on epsilon must be a positive number or 'none', got inf"),
        ("min_clients = 1", "min_clients: input should be greater than or equal to 2, got 1"),
        ("hours = '24:00-06:00'", "hours must be 'any' or HH:MM-HH:MM, such as 20:00-06:00, got '24:00-06:00'"),
        ("hours = '06:00-06:00'", "hours must be 'any' or HH:MM-HH:MM"),
        ("hours = '6-8'", "hours must be 'any' or HH:MM-HH:MM"),
        ("coordinators = ['abc']", "a fingerprint must be 32 hexadecimal characters, got 'abc'"),
        ("[peers]\nsouth = 'abc'", r"\[peers\]: a fingerprint must be|a fingerprint must be 32"),
        ("[peers]\nSouth = 'abc'", "a node's name must be"),
        ("peers = 3", r"\[peers\] must be a table of keys, got 3"),
        ("[limits]\na = 1", r"unknown section \[limits\]"),
    ],
)
def test_a_mistake_in_the_file_is_one_sentence(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=rf"policy\.toml: .*({sentence})") as caught:
        Policy.load(written(tmp_path / POLICY_FILE, text))
    assert "\n" not in str(caught.value)


def test_a_missing_file_says_what_makes_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"policy\.toml: no such file; `coterie node join` writes one"):
        Policy.load(tmp_path / POLICY_FILE)


def test_fingerprints_may_be_written_as_they_were_told() -> None:
    told = ":".join(FEDERATION[i : i + 4] for i in range(0, 32, 4)).upper()
    assert policy(coordinators=[told]).coordinators == (FEDERATION,)


def test_the_largest_message_is_in_bytes() -> None:
    assert policy(max_message_mb=2).max_message == 2 * 1024 * 1024
