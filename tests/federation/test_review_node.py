"""What a node keeps, and lets go of: budget that was set aside, jobs that nobody ended, messages that lie."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from coterie.errors import PeerError
from coterie.federation.agreed import Agreed
from coterie.federation.envelope import Envelope, canonical, open_envelope
from coterie.federation.identity import Identities
from coterie.federation.job import DAY
from coterie.federation.network import KEYS
from coterie.secure.keys import Identity, sha256
from coterie.testing.logs import zipf_log
from tests.federation.liar import Liar, said
from tests.federation.loopback import Federation, blank
from tests.federation.tinydesk import ITEMS, TinyDesk, table_of
from tests.ledgers import quick_folder

LOGS = [zipf_log(8, len(ITEMS), seed) for seed in range(3)]
AGREED = Agreed("union", ITEMS, table_of(ITEMS), np.full(len(ITEMS), 3, np.int32), 3, 3)
PLAN = {"epsilon": 4.0, "max_users": 1000}


@pytest.fixture
def federation() -> Iterator[Federation]:
    with quick_folder() as folder:
        yield Federation.of(blank(folder, 3), LOGS)


def held(federation: Federation, state: str = "reserved") -> list[str]:
    """What the first member's ledger has set aside, by kind of sum."""
    return [row["job"] for row in federation.sites["m0"].ledger.charges() if row["state"] == state]


def test_a_job_that_ends_early_leaves_no_budget_set_aside(federation: Federation) -> None:
    liar = Liar(federation, federation.job(plan=PLAN, evaluate=True, metrics_share=0.2))
    liar.begin(AGREED, "m0")
    assert held(federation) == ["model", "metrics", "comparison"]
    assert liar.ask("m0", "end", {"state": "failed"}).kind == "ended"
    assert held(federation) == []


def test_a_job_that_cannot_be_paid_for_whole_leaves_no_budget_set_aside(federation: Federation) -> None:
    """What was set aside for its model would block smaller jobs for a day."""
    federation.sites["m0"].policy = federation.sites["m0"].policy.model_copy(update={"max_epsilon_total": 4.2})
    first = Liar(federation, federation.job(id="first", plan={**PLAN, "epsilon": 1.0}))
    first.begin(AGREED, "m0")  # and holds its budget
    liar = Liar(federation, federation.job(plan=PLAN, evaluate=True, metrics_share=0.2))
    assert liar.offer("m0").kind == "accepted"
    before = held(federation)
    for _ in range(2):
        assert "budget does not allow this" in said(liar.ask("m0", "begin", {"final": True}, AGREED.to_blobs()))
        assert held(federation) == before


def test_jobs_that_nobody_ended_are_let_go_of(federation: Federation) -> None:
    """A coordinator that was lost does not say so; its next job does, and so does the calendar."""
    site, now = federation.sites["m0"], int(federation.clock.now)
    short = Liar(federation, federation.job(id="short", plan=PLAN, expires=now + 2 * DAY))
    weekly = federation.job(id="weekly", times=3, every_days=7.0)
    short.begin(AGREED, "m0")
    Liar(federation, weekly).begin(AGREED, "m0")
    assert [row["occurrence"] for row in site.node.jobs()] == ["short.0", "weekly.0"]
    federation.clock.sleep(7 * DAY)
    assert Liar(federation, weekly, 1).offer("m0").kind == "accepted"
    assert [row["occurrence"] for row in site.node.jobs()] == ["weekly.1"]
    assert held(federation) == []


def test_offers_that_were_refused_do_not_pile_up(federation: Federation) -> None:
    site = federation.sites["m0"]
    for at in range(130):
        liar = Liar(federation, federation.job(id=f"job-{at}", plan={"aggregation": "plain"}))
        assert liar.offer("m0").kind == "refused"
    assert Liar(federation, federation.job(id="good")).offer("m0").kind == "accepted"
    assert len(site.node.jobs()) == 101


def test_items_that_few_own_users_have_are_refused(federation: Federation, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a coordinator agrees on one item that one customer buys, and the sum is about that customer."""
    site = federation.sites["m0"]
    site.policy = site.policy.model_copy(update={"min_own_users": 4})
    opened = TinyDesk.open

    def covering(share: float) -> None:
        monkeypatch.setattr(TinyDesk, "open", lambda *a, **k: replace(opened(*a, **k), coverage={"users": share}))

    liar = Liar(federation, federation.job(plan=PLAN))
    assert liar.offer("m0").kind == "accepted"
    covering(3 / 8)
    answer = said(liar.ask("m0", "begin", {"final": True}, AGREED.to_blobs()))
    assert answer.startswith("fewer users of this node than it asks for (min_own_users in policy.toml) have any of the")
    assert "3" not in answer
    assert held(federation) == []
    assert "does not sum at this time" in said(liar.round("m0", KEYS, b""))
    covering(4 / 8)
    assert liar.ask("m0", "begin", {"final": True}, AGREED.to_blobs()).kind == "begun"


def test_carriers_are_counted_once(federation: Federation) -> None:
    """Counts of two lists, of the members of two times, differ by what a single one carries."""
    given = replace(AGREED, mode="given", carriers=None)
    liar = Liar(federation, federation.job(catalogue="given"))
    assert liar.offer("m0").kind == "accepted"
    assert liar.ask("m0", "begin", {"final": False}, given.to_blobs()).kind == "begun"
    for lie in (replace(given, carriers=AGREED.carriers), replace(given, members=4)):
        answer = said(liar.ask("m0", "begin", {"final": False}, lie.to_blobs()))
        assert "of which that is known" in answer or "4 members are said to have agreed on items, of 3" in answer
    union = Liar(federation, federation.job(id="union"))
    assert union.offer("m0").kind == "accepted"
    assert "of which that is known" in said(union.ask("m0", "begin", {"final": False}, AGREED.to_blobs()))


def test_a_head_that_is_nested_too_deeply_is_a_peers_fault() -> None:
    """Whoever signs as a member could otherwise end the coordinator's daemon with one answer."""
    sender = Identity()
    whole = bytearray(Envelope("kept", "job.0", "m0", "coordinator", "f", 1).seal(sender)[:-64])
    length = int.from_bytes(whole[4:8], "little")
    deep = canonical({"x": 0})[:-2] + b"[" * 100_000 + b"]" * 100_000 + b"}"
    altered = bytes(whole[:4]) + len(deep).to_bytes(4, "little") + deep + bytes(whole[8 + length :])
    message = altered + sender.sign(b"message", sha256(altered))
    with pytest.raises(PeerError, match="not JSON, or nested too deeply"):
        open_envelope(message, sender.public, "m0", "coordinator", "f")


def test_a_new_folder_of_a_party_is_its_owners_alone(tmp_path: Path) -> None:
    """In it will lie models of own rows, without noise, and the ledger; one that was there is left as it was."""
    (tmp_path / "old").mkdir(mode=0o755)
    for name, mode in (("new", 0o700), ("old", 0o755)):
        Identities.open(tmp_path / name, create=True)
        assert (tmp_path / name).stat().st_mode & 0o777 == mode
