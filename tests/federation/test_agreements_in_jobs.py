"""Every way of agreeing on items, through a whole job: counts by a secure sum, hashes, two parties, restarts."""

from __future__ import annotations

from pathlib import Path

import pytest

from coterie.data.catalogue import Catalogue
from coterie.errors import PeerError
from coterie.federation.checkpoint import state_digest
from coterie.federation.identifiers import standard_identifier
from coterie.testing.logs import trained, zipf_log
from tests.federation.loopback import Federation
from tests.federation.tinydesk import ITEMS, table_of

LOGS = [zipf_log(20, len(ITEMS), seed) for seed in range(4)]


def gtin(number: int) -> str:
    """A valid GTIN-13."""
    body = f"40{number:010d}"
    check = -sum(int(digit) * (3 if at % 2 else 1) for at, digit in enumerate(body)) % 10
    assert standard_identifier(f"{body}{check}")
    return f"{body}{check}"


GTINS = tuple(gtin(number) for number in range(len(ITEMS)))


def identified(folder: Path) -> Federation:
    """Members whose items are numbers that others know, too."""
    made = Federation.of(folder, LOGS)
    for site in made.sites.values():
        site.desk.items = GTINS
    return made


def test_hashes_lead_to_the_same_sums_and_the_coordinator_sees_no_id(tmp_path: Path) -> None:
    federation = identified(tmp_path)
    run = federation.conduct(federation.job(catalogue="hashed"))
    expected = trained(run.model, LOGS, len(ITEMS))
    assert run.state["gram"].sum() == expected["gram"].sum()
    assert not set(run.items) & set(GTINS)
    said = b"".join(reply or b"" for _, _, reply in federation.transport.heard)
    assert said
    for item in GTINS:
        assert item.encode() not in said


def test_a_member_that_was_started_again_still_knows_its_hashes(tmp_path: Path) -> None:
    federation, started = identified(tmp_path), list[str]()

    def restart(name: str, message: bytes) -> bytes:
        if b'"kind":"begin"' in message and name not in started:
            started.append(name)
            federation.sites[name].restart()
        return message

    federation.transport.before = restart
    run = federation.conduct(federation.job(catalogue="hashed"))
    assert sorted(started) == sorted(federation.sites)
    assert len(run.items) == len(GTINS)


def test_a_given_list_is_counted_by_a_secure_sum(tmp_path: Path) -> None:
    federation = Federation.of(tmp_path, LOGS)
    for name, lacks in (("m0", 0), ("m1", 1), ("m2", 1)):
        federation.sites[name].desk.carried = [item for at, item in enumerate(ITEMS) if at != lacks]
    federation.given = Catalogue.listed(table_of([*ITEMS, "nobody's"]))
    run = federation.conduct(federation.job(catalogue="given", min_carriers=3))
    assert run.items == tuple(item for at, item in enumerate(ITEMS) if at != 1)  # two members lack the second
    assert {one["state"] for one in federation.journal.attempts("job.0")} == {"done"}
    assert {one["job"] for one in federation.journal.attempts("job.0")} == {"job.0/carriers", "job.0/model"}


def test_an_item_that_too_few_carry_is_in_no_sum(tmp_path: Path) -> None:
    federation = Federation.of(tmp_path, LOGS)
    for name in ("m0", "m1"):
        federation.sites[name].desk.carried = ITEMS[1:]
    run = federation.conduct(federation.job(min_carriers=3))
    assert run.items == ITEMS[1:]
    assert run.result["catalogue"] == {"mode": "union", "min_carriers": 3}


def test_where_nothing_is_carried_by_enough_the_job_ends_and_says_so(tmp_path: Path) -> None:
    federation = Federation.of(tmp_path, LOGS)
    for at, site in enumerate(federation.sites.values()):
        site.desk.carried = ITEMS[at * 3 : at * 3 + 3]
    with pytest.raises(PeerError, match="not one is carried by min_carriers = 3 members"):
        federation.conduct(federation.job(min_carriers=3))


def test_two_parties_need_the_consent_of_both(tmp_path: Path) -> None:
    job = {"min_carriers": 1, "plan": {"aggregation": "plain", "min_clients": 2}}
    rules = {"min_clients": 2, "min_carriers": 1, "aggregation": "plain"}
    federation = Federation.of(tmp_path / "no", LOGS[:2], **rules)
    with pytest.raises(PeerError, match="two_party"):
        federation.conduct(federation.job(**job))
    federation = Federation.of(tmp_path / "yes", LOGS[:2], **rules, two_party="consent")
    run = federation.conduct(federation.job(**job))
    assert state_digest(run.state) == state_digest(trained(run.model, LOGS[:2], len(ITEMS)))
    card = (tmp_path / "yes" / "runs" / "job.0" / "privacy-card.md").read_text()
    assert "Each of the 2 members can subtract its own sums" in card


def test_a_partner_can_compute_what_the_card_says(tmp_path: Path) -> None:
    """Of two, each knows the other's sums: it subtracts its own."""
    rules = {"min_clients": 2, "min_carriers": 1, "aggregation": "plain", "two_party": "consent"}
    federation = Federation.of(tmp_path, LOGS[:2], **rules)
    run = federation.conduct(federation.job(min_carriers=1, plan={"aggregation": "plain", "min_clients": 2}))
    own, other = (trained(run.model, [log], len(ITEMS)) for log in LOGS[:2])
    assert (run.state["gram"] - own["gram"] == other["gram"]).all()
