"""Lies of a coordinator that only show where members are compared, or in what a later model holds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from coterie.errors import SecureAggregationError
from coterie.experiment.conductor import facts_of
from coterie.federation.agreed import Agreed
from coterie.federation.checkpoint import state_digest
from coterie.federation.job import terms_of
from coterie.federation.network import KEYS, SHARES, SUM
from coterie.privacy.plan import Plan
from coterie.secure.terms import Summed
from coterie.testing.logs import zipf_log
from coterie.types import State
from tests.federation.auditor import audit, steps_of
from tests.federation.liar import Liar, said
from tests.federation.loopback import Federation, blank
from tests.federation.tinydesk import ITEMS, table_of
from tests.ledgers import quick_folder

LOGS = [zipf_log(8, len(ITEMS), seed) for seed in range(3)]


def agreed(items: tuple[str, ...] = ITEMS) -> Agreed:
    return Agreed("union", items, table_of(items), np.full(len(items), 3, np.int32), 3, 3)


@pytest.fixture
def federation() -> Iterator[Federation]:
    with quick_folder() as folder:
        made = Federation.of(blank(folder, 3), LOGS)
        yield made
        audit(made)


def sums_that_left(federation: Federation) -> int:
    return sum(one.step == SUM for one in steps_of(federation))


def test_members_who_were_shown_other_items_have_no_masks_in_common(federation: Federation) -> None:
    """Else a coordinator gives each member places of its own, and reads each one's sums there."""
    liar, others = Liar(federation, federation.job()), agreed((*ITEMS[6:], *(f"other{i:02d}" for i in range(6))))
    for member in liar.job.members:
        assert liar.offer(member).kind == "accepted"
        shown = others if member == "m0" else agreed()
        assert liar.ask(member, "begin", {"final": True}, shown.to_blobs()).kind == "begun"
    liar.agreed = agreed().digest
    server = liar.server()
    assert "has another plan_hash" in said(liar.round("m0", KEYS, server.configuration))
    for number, member in ((1, "m1"), (2, "m2")):
        server.receive(number, liar.taken(liar.round(member, KEYS, server.configuration)))
    liar.agreed = others.digest
    alone = liar.server(1)
    keys = liar.taken(liar.round("m0", KEYS, alone.configuration, 1))
    for member in ("m1", "m2"):
        assert "has another plan_hash" in said(liar.round(member, KEYS, alone.configuration, 1))
    with pytest.raises(SecureAggregationError):
        server.receive(0, keys)  # signed in another context: no member would take them either
    for one in (server, alone):
        with pytest.raises(SecureAggregationError, match="fewer than min_clients"):
            one.advance()
    assert not sums_that_left(federation)


def test_members_who_were_shown_other_jobs_of_one_name_have_no_masks_in_common(federation: Federation) -> None:
    """Else one of them trusts in the noise that others would add by their job, and they add less by theirs."""
    honest = Liar(federation, federation.job(model={"name": "ease"}, min_carriers=3))
    other = Liar(federation, federation.job(model={"name": "ease", "regularisation": 7.0}))
    other.begin(agreed(), "m0")
    honest.begin(agreed(), "m1", "m2")
    server = other.server()
    for member, liar in (("m0", other), ("m1", honest), ("m2", honest)):
        answer = liar.round(member, KEYS, server.configuration)
        if member == "m0":
            server.receive(0, liar.taken(answer))
        else:
            assert "has another plan_hash than this client agreed to" in said(answer)


@pytest.mark.parametrize("lie", ["nan", "shape", "items"])
def test_a_later_model_that_no_round_leads_to_is_not_computed_on(federation: Federation, lie: str) -> None:
    """A NaN among its numbers would pass every clip norm; a wrong shape would be read beyond its end."""
    liar = Liar(federation, federation.job(model={"name": "ials", "factors": 2, "iterations": 3}))
    liar.begin(agreed())
    facts = facts_of(liar.job, agreed())
    state = lied(facts.opening().updated(1, popularity=np.full(len(ITEMS), 0.5)), lie)
    server, summed = liar.server(round=1), Summed(state_digest(state), 100)
    for number, member in enumerate(liar.job.members):
        server.receive(number, liar.taken(liar.round(member, KEYS, server.configuration, round=1)))
    keys = server.advance()
    for number, member in enumerate(liar.job.members):
        server.receive(number, liar.taken(liar.round(member, SHARES, keys[number], round=1)))
    shares = server.advance(summed)
    assert "a state of model 'ials' cannot be used" in said(liar.round("m0", SUM, shares[0], state=state, round=1))
    assert not sums_that_left(federation)


def lied(state: State, lie: str) -> State:
    factors = state["factors"].copy()
    if lie == "nan":
        factors[3, 0] = np.nan
    if lie == "shape":
        factors = factors[:-1]
    return state.updated(factors=factors, **({"n_items": np.array(4)} if lie == "items" else {}))


def test_a_round_is_summed_no_more_often_than_the_job_says(federation: Federation) -> None:
    """Whoever approved a job has approved its attempts, not all that the account would pay for."""
    plan = {"epsilon": 1.0, "max_users": 1000}
    liar = Liar(federation, federation.job(plan=plan, attempts=2))
    liar.begin(agreed())
    state = facts_of(liar.job, agreed()).opening()
    summed = Summed(state_digest(state), sum(p.size for p in facts_of(liar.job, agreed()).bound(state).spec.parts))
    for attempt in range(2):
        liar.until_survivors(liar.server(attempt), state, summed, attempt)
    site = federation.sites["m0"]
    for restarted in (False, True):
        if restarted:
            site.restart()
        attempt = 2 + restarted
        shares = liar.until_sum(liar.server(attempt), summed, attempt)
        answer = liar.round("m0", SUM, shares[0], attempt, state)
        assert "and the job says attempts = 2" in said(answer)
    assert sums_that_left(federation) == 6
    assert sum(row["state"] == "spent" for row in site.ledger.charges()) == 2


def test_numbers_of_no_round_are_refused_before_anything_is_noted(federation: Federation) -> None:
    liar = Liar(federation, federation.job())
    liar.begin(agreed())
    before = federation.sites["m0"].vault.changes
    for number in (-1, True, 1 << 32, 0.0):
        assert "names no step of a round" in said(liar.round("m0", KEYS, b"", round=number))
        assert "names no step of a round" in said(liar.round("m0", KEYS, b"", attempt=number))  # type: ignore[arg-type]
    assert federation.sites["m0"].vault.changes == before


def test_what_counts_carriers_asks_for_as_many_members_as_the_job(federation: Federation) -> None:
    """By itself a secure sum of five would take four."""
    job = federation.job(plan={"aggregation": "secure", "min_clients": 5}, members=("a", "b", "c", "d", "e"))
    assert terms_of("job.0", "carriers", 0, 0, job.counting_plan, b"", 5).min_clients == 5
    assert terms_of("job.0", "carriers", 0, 0, Plan(aggregation="secure"), b"", 5).min_clients == 4
