"""The pages on running a federation are true: settings load, figures hold, and the tests that are named exist."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from coterie.federation.config import FederationConfig, NodeConfig
from coterie.federation.jobsettings import JobSettings
from coterie.federation.policy import Policy
from coterie.privacy.accountant import epsilon
from coterie.privacy.events import Event
from coterie.privacy.plan import Plan

ROOT = Path(__file__).parents[2]
PAGES = {
    name: (ROOT / "docs" / name).read_text("utf-8")
    for name in ("how-to/upgrade-a-federation.md", "explanation/threat-model.md", "how-to/three-companies.md")
}
ROW = re.compile(r"^\| ([STRIDE]) \| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", re.MULTILINE)

# What a snippet of a file leaves out, because it is elsewhere in it.
WHOLE: dict[str, tuple[Any, dict[str, Any]]] = {
    "federation.toml": (FederationConfig, {"federation": {"name": "any", "address": "localhost:9443"}}),
    "node.toml": (NodeConfig, {"name": "any", "address": "localhost:9443", "data": {"logs": ["log.csv"]}}),
    "policy.toml": (Policy, {}),
}


def test_shown_settings_of_a_federation_are_valid(page: Any) -> None:
    for block in page.blocks("{.toml"):
        name = Path((block.title or "").rstrip('"}')).name
        if name not in WHOLE:
            continue
        kind, rest = WHOLE[name]
        found = kind.model_validate({**rest, **tomllib.loads(block.text)})
        for job, settings in getattr(found, "jobs", {}).items():
            settings.check_model(f"{page.name}:{block.line}: [jobs.{job}.model]")


def test_every_threat_has_a_defence_and_tests_that_exist() -> None:
    rows = ROW.findall(PAGES["explanation/threat-model.md"])
    assert {row[0] for row in rows} == set("STRIDE")
    assert len(rows) > 20
    for *_, tests in rows:
        named = re.findall(r"`([^`]+)`", tests)
        assert named
        assert [name for name in named if not (ROOT / name).is_file()] == []


def test_every_adversary_of_a_threat_is_introduced() -> None:
    page = PAGES["explanation/threat-model.md"]
    introduced = set(re.findall(r"^\| ([a-z ]+) \| [a-z].*\|$", page.split("## Threats")[0], re.MULTILINE))
    named = {part for row in ROW.findall(page) for part in re.split(r", | with some ", row[2])}
    others = {"members", "the organisation", "staff", "member's own staff", "coordinator", "everybody", "chance"}
    others |= {"whoever sees model or sum", "partner", "anybody who can send", "whoever has taken over a daemon"}
    assert named <= introduced | others


def test_the_upgrade_page_has_the_versions_of_this_release() -> None:
    from coterie.federation import egressline, envelope, invitation, vaulthead
    from coterie.migrations import HEAD

    page = PAGES["how-to/upgrade-a-federation.md"]
    rows = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \| [^|]+ \|$", page, re.MULTILINE))
    assert rows["protocol of messages"] == " and ".join(map(str, envelope.PROTOCOLS))
    assert rows["invitation"] == str(invitation.FORMAT)
    assert rows["tables of ledger, federation and serving"] == f"`{HEAD}`"
    assert rows["vault, egress log"] == str(vaulthead.FORMAT) == str(egressline.FORMAT)
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    assert any(one.startswith(f"flwr>={rows['Flower']},") for one in extras["flower"])


def test_the_walk_through_names_the_defaults_of_a_policy() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \|", PAGES["how-to/three-companies.md"], re.MULTILINE)
    assert len(rows) > 4
    for key, shown in rows:
        default = Policy.model_fields[key].default
        wanted = list(default) if isinstance(default, tuple) else default
        assert tomllib.loads(f"value = {shown}")["value"] == wanted, key


def test_the_walk_through_tells_what_its_trainings_cost_together() -> None:
    page = PAGES["how-to/three-companies.md"]
    (block,) = re.findall(r'^```{.toml title="hub/federation.toml"}\n(.*?)^```$', page, re.DOTALL | re.MULTILINE)
    job = JobSettings.model_validate(tomllib.loads(block)["jobs"]["weekly"])
    plan = Plan(epsilon=job.plan.epsilon, max_users=job.plan.max_users)
    assert plan.delta is not None
    assert plan.noise_multiplier is not None
    spent = epsilon([Event(noise_multiplier=plan.noise_multiplier, count=job.times)], delta=plan.delta)
    told = re.search(r"All (\d+) trainings together cost epsilon ([\d.]+)", page)
    assert told is not None
    assert (int(told[1]), float(told[2])) == (job.times, round(spent, 1))
    assert spent < Policy.model_fields["max_epsilon_total"].default


@pytest.mark.parametrize("name", list(PAGES))
def test_a_page_is_short(name: str) -> None:
    assert len(PAGES[name].splitlines()) < 200
