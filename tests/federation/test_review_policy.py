"""What a coordinator could choose in a node's stead: delta, whose noise is counted on, who holds the key of hashes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from coterie.testing.logs import zipf_log
from tests.federation.asked import Job, policy, refusals
from tests.federation.liar import Liar, said
from tests.federation.loopback import Federation, blank
from tests.federation.tinydesk import ITEMS
from tests.ledgers import quick_folder


@pytest.fixture
def federation() -> Iterator[Federation]:
    with quick_folder() as folder:
        yield Federation.of(blank(folder, 3), [zipf_log(8, len(ITEMS), seed) for seed in range(3)])


def test_a_delta_that_is_too_large_is_refused() -> None:
    """Epsilon is worth nothing at a delta of a tenth."""
    assert refusals(policy(), Job(delta=1e-4)) == []
    (reason,) = refusals(policy(), Job(delta=1e-3))
    assert reason.startswith("the job's delta is 0.001 and at most 0.0001 is allowed here (max_delta in policy.toml)")
    assert refusals(policy(max_delta=1e-3), Job(delta=1e-3)) == []


def test_noise_that_counts_on_everybody_is_refused() -> None:
    """One member could take its own share off again."""
    (reason,) = refusals(policy(), Job(max_colluding=0))
    assert "all members but max_colluding = 0 and this node on all but 1 (colluding in policy.toml)" in reason
    assert refusals(policy(colluding=0), Job(max_colluding=0)) == []
    assert refusals(policy(noise=["central"]), Job(noise="central", max_colluding=0)) == []


def test_a_node_says_so_of_the_job_that_was_signed(federation: Federation) -> None:
    plan = {"epsilon": 1.0, "max_users": 8, "max_colluding": 0, "aggregation": "secure", "noise": "distributed"}
    reasons = said(Liar(federation, federation.job(plan=plan)).offer("m0"))
    assert "delta is 0.0125" in reasons
    assert "max_colluding = 0" in reasons


def test_the_key_of_hashes_is_shared_with_pinned_identities_alone(federation: Federation) -> None:
    """Whoever has it and the coordinator can try every number there is."""
    site = federation.sites["m0"]
    peers = {name: one for name, one in site.policy.peers.items() if name != "m2"}
    site.policy = site.policy.model_copy(
        update={"peers": peers, "aggregation": "plain", "min_clients": 2, "two_party": "consent"}
    )
    site.policy.approvals.approve_roster(federation.roster)
    plan = {"aggregation": "plain", "min_clients": 3}
    assert Liar(federation, federation.job(plan=plan)).offer("m0").kind == "accepted"
    hashed = Liar(federation, federation.job(id="hashed", plan=plan, catalogue="hashed"))
    assert "the key of the hashes of items would be shared with m2" in said(hashed.offer("m0"))
