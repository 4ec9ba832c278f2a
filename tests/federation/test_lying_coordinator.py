"""A lying coordinator is refused with a reason, which says nothing of the log, and nothing has left that may not."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coterie.errors import PeerError
from coterie.federation.agreed import Agreed
from coterie.federation.identity import Identities
from coterie.federation.job import DAY, sign_job
from coterie.federation.network import KEYS
from coterie.federation.roster import Member, Roster
from coterie.federation.sealed import sealed
from coterie.secure.keys import Identity
from coterie.testing.logs import zipf_log
from tests.federation.auditor import audit
from tests.federation.liar import Liar, reasons_of, said
from tests.federation.loopback import Federation, blank
from tests.federation.tinydesk import ITEMS, table_of
from tests.ledgers import quick_folder

LOGS = [zipf_log(8, len(ITEMS), seed) for seed in range(4)]
AGREED = Agreed("union", ITEMS, table_of(ITEMS), np.full(len(ITEMS), 3, np.int32), 3, 3)


@pytest.fixture
def federation() -> Iterator[Federation]:
    with quick_folder() as folder:
        made = Federation.of(blank(folder, 3), LOGS[:3])
        yield made
        audit(made)
        assert not any(item in str(reasons_of(made)) for item in ITEMS)


# --- jobs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "policy", "reason"),
    [
        ({"plan": {"aggregation": "plain"}}, {}, "the lowest allowed here is 'secure'"),
        ({}, {"noise": ["distributed"]}, "the job's noise is 'none' and this node asks for 'distributed'"),
        ({"plan": {"epsilon": 9.0, "max_users": 1000}}, {"max_epsilon_total": 8.0}, "asks for epsilon = 9 and max_"),
        ({"plan": {"epsilon": 5.0, "max_users": 1000}}, {"max_epsilon_month": 4.0}, "asks for epsilon = 5 and max_"),
        ({"plan": {"aggregation": "secure", "min_clients": 2}}, {}, "as few as 2 nodes and this node asks for 3"),
        ({"min_carriers": 2}, {}, "2 nodes carry and this node asks for 3"),
        ({"model": {"name": "ials"}}, {"models": ["ease"]}, "the model 'ials' is not allowed here"),
        ({"model": {"name": "oracle"}}, {}, "oracle"),
        ({"model": {"name": "ease", "shell": "rm"}}, {}, "has no parameter 'shell'"),
        ({"catalogue": "union"}, {"catalogue": ["hashed"]}, "agrees on items by 'union', which is not allowed here"),
        ({}, {"min_own_users": 4217}, "this node has fewer users of its own than it asks for"),
        ({}, {"coordinators": []}, "may not ask this node"),
        ({"expires": 10}, {}, "the job has expired"),
    ],
)
def test_a_job_that_the_policy_does_not_allow_is_refused(
    federation: Federation, settings: Any, policy: Any, reason: str
) -> None:
    for site in federation.sites.values():
        site.policy = site.policy.model_copy(update=policy)
    liar = Liar(federation, federation.job(**settings))
    for name in federation.sites:
        assert reason in said(liar.offer(name))
        assert "8 users" not in said(liar.offer(name))
    with pytest.raises(PeerError, match=r"members accept|accepted after") as error:
        federation.conduct(liar.job)
    assert reason in str(error.value) or reason in str(federation.progress.snapshot())
    assert "was not offered" in said(liar.round("m0", KEYS, b""))


@pytest.mark.parametrize(
    "plan", [{"simulated_noise": True}, {"masks": "elided"}, {"sampler": "poisson", "sampling_rate": 0.5}]
)
def test_a_plan_that_is_for_simulations_is_refused(federation: Federation, plan: Any) -> None:
    job = federation.job(plan={"epsilon": 4.0, "max_users": 1000, **plan})
    assert next(iter(plan)) in said(Liar(federation, job).offer("m0"))
    (shown,) = federation.sites["m0"].node.jobs()  # its operator sees it all the same
    assert (shown["state"], shown["epsilon"]) == ("refused", None)


def test_a_job_of_another_key_or_that_was_altered_is_refused(federation: Federation) -> None:
    liar, other = Liar(federation, federation.job()), Identity()
    assert "not signed by the key" in said(liar.offer("m0", job=sign_job(liar.job, other)))
    for field, value in (("seed", 7), ("min_carriers", 1), ("model", {"name": "ials"}), ("federation", "0" * 32)):
        altered = {**sign_job(liar.job, federation.coordinator.identity), field: value}
        assert "not signed by the key" in said(liar.offer("m0", job=altered))
    stranger = Liar(federation, federation.job(federation="0" * 32))
    assert "belongs to the federation 0000" in said(stranger.offer("m0"))
    assert "is not a signed job" in said(liar.offer("m0", job=None))
    assert "is not one of this version" in said(
        liar.offer("m0", job=sealed("job", {**liar.job.model_dump(mode="json"), "code": "x"}, liar.own))
    )


def test_one_id_is_one_content(federation: Federation) -> None:
    """What a person has approved by its id is what runs."""
    assert Liar(federation, federation.job(seed=1)).offer("m0").kind == "accepted"
    again = Liar(federation, federation.job(seed=2))
    assert "signed two jobs as 'job'" in said(again.offer("m0"))
    federation.sites["m0"].restart()
    assert "signed two jobs as 'job'" in said(again.offer("m0"))


def test_a_message_that_is_not_the_coordinators_is_refused(federation: Federation) -> None:
    liar = Liar(federation, federation.job(), identity=Identity())
    assert "not signed by the key that is pinned" in said(liar.offer("m0"))
    honest = Liar(federation, federation.job())
    message = honest.sealed("m1", "offer", {})
    assert "recipient 'm1', not 'm0'" in said(honest.tell("m0", message))
    assert "unknown kind 'run'" in said(honest.ask("m0", "run", {"command": "true"}))


# --- rosters ----------------------------------------------------------------------------------------------------------


def puppets(federation: Federation, folder: Path, names: tuple[str, ...], version: int = 2) -> Roster:
    """The roster with identities of the coordinator's own making under these names."""
    made = {name: Identities.open(folder / name, create=True) for name in names}
    members = {one.name: one for one in federation.roster.members}
    members |= {name: Member(name, one.public, one.transport_public, 0) for name, one in made.items()}
    return Roster(federation.roster.federation, version, tuple(members[name] for name in sorted(members)))


def test_another_roster_than_the_job_was_signed_for_is_refused(federation: Federation, tmp_path: Path) -> None:
    liar, other = Liar(federation, federation.job()), puppets(federation, tmp_path, ("p0",))
    assert "signed for another roster" in said(liar.offer("m0", roster=other))
    shorter = Roster(other.federation, 2, federation.roster.members[:2])
    job = federation.job(id="shorter", roster_sha256=shorter.digest)
    assert "signed for another roster" in said(Liar(federation, job).offer("m0", roster=shorter))
    assert "not signed by the key" in said(liar.offer("m0", roster=other.seal(liar.own).replace(b"p0", b"p1")))
    assert "roster" in said(liar.offer("m0", roster=b"{}"))


def test_a_replaced_identity_is_refused(federation: Federation, tmp_path: Path) -> None:
    """The coordinator, which is also the authority, enrols itself in the place of another, or of this member."""
    for name, reason in (("m1", "'m1' is pinned to"), ("m0", "m0 is not among the members of the job under its own")):
        other = puppets(federation, tmp_path, (name,))
        job = federation.job(id=f"job-{name}", roster_sha256=other.digest)
        assert reason in said(Liar(federation, job).offer("m0", roster=other))


def test_puppets_hide_nobody(federation: Federation, tmp_path: Path) -> None:
    """Even where a person has accepted the roster: only pinned identities are masked with."""
    other = puppets(federation, tmp_path, ("p0", "p1", "p2"))
    site, job = federation.sites["m0"], federation.job(roster_sha256=other.digest, members=("m0", "p0", "p1", "p2"))
    liar = Liar(federation, job)
    assert "nobody here has accepted: p0" in said(liar.offer("m0", roster=other))
    site.policy.approvals.approve_roster(other)
    reasons = said(liar.offer("m0", roster=other))
    assert "1 of 4 nodes are pinned here and min_clients = 3 counts only those" in reasons
    whole = Liar(federation, federation.job(id="whole", roster_sha256=other.digest, members=other.names))
    assert "masks with nobody whose identity is not pinned" in said(whole.offer("m0", roster=other))
    assert "was not offered" in said(whole.round("m0", KEYS, b""))


def test_an_older_roster_with_a_revoked_member_is_refused(federation: Federation) -> None:
    assert Liar(federation, federation.job()).offer("m0").kind == "accepted"
    fewer = Roster(federation.roster.federation, 2, federation.roster.members[:2])
    for site in federation.sites.values():
        site.policy = site.policy.model_copy(update={"min_clients": 2, "two_party": "consent", "min_carriers": 2})
        site.policy.use(federation.sites["m0"].policy.approvals)
    plan = {"aggregation": "secure", "min_clients": 2}
    newer = federation.job(id="newer", roster_sha256=fewer.digest, members=fewer.names, plan=plan, min_carriers=2)
    Liar(federation, newer).offer("m0", roster=fewer)
    federation.sites["m0"].policy.approvals.note_roster(fewer)
    assert "who was revoked takes part in nothing" in said(Liar(federation, federation.job(id="older")).offer("m0"))
    second = Roster(fewer.federation, 2, federation.roster.members)
    other = federation.job(id="second", roster_sha256=second.digest)
    assert "a second roster under version 2" in said(Liar(federation, other).offer("m0", roster=second))


# --- occurrences, expiry, decisions -----------------------------------------------------------------------------------


def test_occurrences_come_in_order_and_in_time(federation: Federation) -> None:
    job = federation.job(times=3, every_days=7.0)
    first, second, third = (Liar(federation, job, occurrence) for occurrence in range(3))
    assert first.offer("m0").kind == "accepted"
    early = second.offer("m0")
    assert early.kind == "waiting"
    assert "it comes again too early" in said(early)
    federation.clock.sleep(7 * DAY)
    old = first.sealed("m0", "offer", {"job": sign_job(job, federation.coordinator.identity), "occurrence": 0})
    assert second.offer("m0").kind == "accepted"
    assert "occurrence 0 is over: 1 came already" in said(first.offer("m0"))
    assert "roster" in said(first.tell("m0", old))
    assert "occurrence 0 is over" in said(first.round("m0", KEYS, first.server().configuration))
    assert "is none of the 3" in said(Liar(federation, job, 3).offer("m0"))
    assert "is none of the 3" in said(third.offer("m0", occurrence=1))
    assert "is none of the 3" in said(third.offer("m0", occurrence="2"))


def test_what_was_accepted_is_refused_once_it_is_stopped_or_over(federation: Federation) -> None:
    liar = Liar(federation, federation.job(expires=int(federation.clock.now) + 3600))
    liar.begin(AGREED)
    configuration = liar.server().configuration
    federation.sites["m0"].policy.approvals.stop("job", "enough", by="ann")
    assert "was stopped here" in said(liar.round("m0", KEYS, configuration))
    assert "was stopped here" in said(liar.ask("m0", "agree", {"stage": 0, "request": {}}))
    federation.sites["m1"].policy = federation.sites["m1"].policy.model_copy(update={"peers": {}})
    assert "not pinned" in said(liar.round("m1", KEYS, configuration))
    federation.clock.sleep(timedelta(hours=2).total_seconds())
    assert "the job has expired" in said(liar.round("m2", KEYS, configuration))
    assert "the job has expired" in said(liar.ask("m2", "begin", {"final": True}, AGREED.to_blobs()))
