"""A coordinator that lies in the rounds of a job: each lie is refused in words, and no sum leaves that may not."""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coterie.experiment.conductor import SENT, facts_of
from coterie.experiment.signing import sign_folder
from coterie.federation.agreed import Agreed
from coterie.federation.checkpoint import pack_state, state_digest
from coterie.federation.network import KEYS, PLAIN, SHARES, SIGNATURES, SUM, SURVIVORS
from coterie.secure.keys import Identity
from coterie.secure.messages import pack_signatures, pack_survivors
from coterie.secure.server import Server
from coterie.secure.terms import Summed
from coterie.secure.wire import Kind
from coterie.testing.logs import zipf_log
from coterie.types import State
from tests.federation.auditor import audit, steps_of, watch
from tests.federation.liar import Liar, reasons_of, said
from tests.federation.loopback import Federation, blank
from tests.federation.tinydesk import ITEMS, table_of
from tests.ledgers import quick_folder

LOGS = [zipf_log(8, len(ITEMS), seed) for seed in range(4)]
NOISE = {"epsilon": 4.0, "max_users": 1000}


def agreed(members: int, items: tuple[str, ...] = ITEMS) -> Agreed:
    return Agreed("union", items, table_of(items), np.full(len(items), 3, np.int32), 3, members)


@pytest.fixture
def federation() -> Iterator[Federation]:
    with quick_folder() as folder:
        made = Federation.of(blank(folder, 4), LOGS)
        yield made
        audit(made)
        assert not any(item in str(reasons_of(made)) for item in ITEMS)


@pytest.fixture
def liar(federation: Federation) -> Liar:
    """A liar at whose job all four members have begun; what it sums is charged."""
    made = Liar(federation, federation.job(plan=NOISE, evaluate=True, metrics_share=0.2))
    made.begin(agreed(4))
    return made


def opening(liar: Liar) -> tuple[State, Summed]:
    """The model before the first round, and what honest parties say is summed."""
    facts = facts_of(liar.job, agreed(len(liar.job.members)))
    state = facts.opening()
    return state, Summed(state_digest(state), sum(part.size for part in facts.bound(state).spec.parts))


def sums_of(federation: Federation) -> Counter[str]:
    """How many masked vectors have left each member."""
    return Counter(one.member for one in steps_of(federation) if one.step == SUM)


def spent(federation: Federation, member: str) -> int:
    """How many charges a member has paid."""
    return sum(row["state"] == "spent" for row in federation.sites[member].ledger.charges())


# --- terms ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [("min_clients", 2), ("threshold", 4), ("plan_hash", bytes(32)), ("ring_bits", 32), ("job", b"job.0/metrics")],
)
def test_terms_that_differ_from_the_job_are_refused(liar: Liar, field: str, value: Any) -> None:
    server = liar.server(**{field: value})
    assert f"has another {field} than this client agreed to" in said(liar.round("m0", KEYS, server.configuration))


@pytest.mark.parametrize(
    ("replaced", "reason"), [("m2", "lists a key that is not enrolled"), ("m0", "not in the roster that it was sent")]
)
def test_puppets_in_the_place_of_members_are_refused(liar: Liar, replaced: str, reason: str) -> None:
    publics = {**liar.federation.roster.publics, replaced: Identity().public}
    server = Server(liar.own, liar.terms(), [publics[one] for one in liar.job.members])
    assert reason in said(liar.round("m0", KEYS, server.configuration))


# --- replays ----------------------------------------------------------------------------------------------------------


def test_an_attempt_is_answered_once(liar: Liar) -> None:
    """Neither the same messages nor others of the same number bring a second vector, or a second charge."""
    federation, server = liar.federation, liar.server()
    liar.until_survivors(server, *opening(liar))
    heard = [message for name, message, _ in federation.transport.heard if name == "m0"]
    for restarted in (False, True):
        if restarted:
            federation.sites["m0"].restart()
        for message in heard:
            federation.transport._answer("m0", message)
        again = said(liar.round("m0", KEYS, liar.server().configuration))
        assert ("attempt 0 was begun before" if restarted else "out of order") in again
        assert sums_of(federation) == Counter(dict.fromkeys(liar.job.members, 1))
        assert spent(federation, "m0") == 1


def test_an_earlier_attempt_does_not_come_again(liar: Liar) -> None:
    """A coordinator that forgets its journal is a coordinator that lies."""
    assert liar.round("m0", KEYS, liar.server(3).configuration, 3).header["tasks"] == [None]
    assert "attempt 2 was begun before (the last one was 3)" in said(
        liar.round("m0", KEYS, liar.server(2).configuration, 2)
    )
    assert "holds no secrets of it" in said(liar.round("m0", SHARES, b"", 2))


# --- models -----------------------------------------------------------------------------------------------------------


def test_an_altered_first_model_is_refused_by_all(liar: Liar) -> None:
    state, summed = opening(liar)
    name = next(name for name, array in state.arrays.items() if array.dtype == np.float64)
    altered = state.updated(**{name: state[name] + 1.0})
    shares = liar.until_sum(liar.server(), Summed(state_digest(altered), summed.size))
    for number, member in enumerate(liar.job.members):
        answer = liar.round(member, SUM, shares[number], state=altered)
        assert "is not what job, items and plan lead to" in said(answer)
        assert spent(liar.federation, member) == 0
    assert not sums_of(liar.federation)


@pytest.mark.parametrize("what", ["model_hash", "size"])
def test_another_model_than_is_said_to_be_summed_is_refused(liar: Liar, what: str) -> None:
    state, summed = opening(liar)
    lie = replace(summed, **{what: bytes(32) if what == "model_hash" else summed.size + 1})
    shares = liar.until_sum(liar.server(), lie)
    assert f"sums with another {what}" in said(liar.round("m0", SUM, shares[0], state=state))
    assert "holds no secrets" in said(liar.round("m0", SUM, shares[0], attempt=1, state=state))
    assert not sums_of(liar.federation)
    assert spent(liar.federation, "m0") == 0


def test_a_member_that_was_told_another_model_takes_no_part(federation: Federation) -> None:
    """The coordinator tells m1 a later model of its own making; the others go on without it."""
    seen = watch(federation)
    liar = Liar(federation, federation.job(model={"name": "ials", "factors": 2, "iterations": 2}))
    lying = {"m1": liar.with_another_model}
    federation.transport.before = lambda name, message: lying.get(name, lambda _, same: same)(name, message)
    federation.conduct(liar.job)
    assert {one.members for one in seen} == {("m0", "m2", "m3")}
    events = str([one["text"] for one in federation.progress.snapshot()["events"]])
    assert "m1: the model before the first round is not what job, items and plan lead to" in events
    assert "m1: the server sums with another model_hash than this client was given" in events


@pytest.mark.parametrize("lie", ["round", "over", "arrays", "garbage", "nothing"])
def test_a_model_of_no_round_is_refused(liar: Liar, lie: str) -> None:
    state, summed = opening(liar)
    shares = liar.until_sum(liar.server(), summed)
    task = {"what": "model", "round": 0, "attempt": 0, "step": SUM}
    content = {
        "round": pack_state(state.updated(1)),
        "over": pack_state(state.updated(0, extra=np.zeros(3))),
        "arrays": pack_state(State(0, {})),
        "garbage": os.urandom(64),
        "nothing": None,
    }[lie]
    blobs = {"0": shares[0]} | ({} if content is None else {"state": content})
    answer = liar.ask("m0", "round", {"tasks": [task], "done": []}, blobs)
    assert {
        "round": "a model of round 1 for round 0",
        "over": "is not what job, items and plan lead to",
        "arrays": "is not what job, items and plan lead to",
        "garbage": "it failed (RunError); its operator can read why",
        "nothing": "without the model that it is of",
    }[lie] in said(answer)
    assert not sums_of(liar.federation)


# --- steps ------------------------------------------------------------------------------------------------------------


def test_sums_in_the_clear_are_refused_in_a_secure_job(liar: Liar) -> None:
    state, _ = opening(liar)
    for attempt in range(2):
        answer = liar.round("m0", PLAIN, b"", attempt, state)
        assert "asked for sums in the clear, and the job says secure aggregation" in said(answer)
    assert spent(liar.federation, "m0") == 0


def test_metrics_are_not_summed_before_the_result(liar: Liar) -> None:
    for what in ("metrics", "comparison", "carriers", "log"):
        answer = liar.round("m0", KEYS, liar.server().configuration, what=what)
        assert f"'{what}', which this job does not sum at this time" in said(answer)


def test_members_who_were_told_of_different_survivors_unmask_nothing(federation: Federation) -> None:
    liar = Liar(federation, federation.job())
    liar.begin(agreed(4))
    server = liar.server()
    honest = liar.until_survivors(server, *opening(liar))
    lie = server._channels[0].pack(Kind.SURVIVORS, pack_survivors({0, 1, 2}, 4))
    first = liar.round("m0", SURVIVORS, lie)
    for number in (1, 2, 3):
        server.receive(number, liar.taken(liar.round(liar.job.members[number], SURVIVORS, honest[number])))
    forged = {**server._signatures, 0: bytes(first.blobs["0"])[-80:-16]}
    for number in (1, 2, 3):
        body = pack_signatures((peer, one) for peer, one in sorted(forged.items()))
        message = server._channels[number].pack(Kind.SIGNATURES, body)
        assert "signature (survivors) is not that of the key" in said(liar.round(f"m{number}", SIGNATURES, message))
    assert not [one for one in steps_of(federation) if one.step == SIGNATURES]


def test_fewer_survivors_than_min_clients_are_not_signed(liar: Liar) -> None:
    server = liar.server()
    liar.until_survivors(server, *opening(liar))
    lie = server._channels[0].pack(Kind.SURVIVORS, pack_survivors({0, 1}, 4))
    assert "this client insists on 4 (min_clients)" in said(liar.round("m0", SURVIVORS, lie))
    assert not [one for one in steps_of(liar.federation) if one.step == SURVIVORS]


# --- items ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offered_again", [False, True])
def test_other_items_than_were_agreed_are_refused_after_a_restart_too(liar: Liar, offered_again: bool) -> None:
    for restarted in (False, True):
        if restarted:
            liar.federation.sites["m0"].restart()
        if offered_again:
            assert liar.offer("m0").kind == "accepted"
        other = liar.ask("m0", "begin", {"final": True}, agreed(4, ITEMS[:3]).to_blobs())
        assert "sent other items than it had sent for this job before" in said(other)


def test_members_who_were_given_different_items_share_no_attempt(federation: Federation) -> None:
    """Else what one of them sums stands in other places than the rest, and could be told from it."""
    liar = Liar(federation, federation.job())
    liar.begin(agreed(4, ITEMS[::-1][:6][::-1]), "m0")
    liar.begin(agreed(4), "m1", "m2", "m3")
    configuration = liar.server().configuration
    assert "another plan_hash than this client agreed to" in said(liar.round("m0", KEYS, configuration))
    assert liar.round("m1", KEYS, configuration).header["tasks"] == [None]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"min_carriers": 1}, "changed mode or carriers"),
        ({"mode": "given"}, "changed mode or carriers"),
        ({"carriers": None}, "did not count who carries"),
    ],
)
def test_items_that_were_not_agreed_as_the_job_says_are_refused(
    federation: Federation, change: dict[str, Any], reason: str
) -> None:
    liar = Liar(federation, federation.job())
    assert liar.offer("m0").kind == "accepted"
    lie = replace(agreed(4), **change)
    assert reason in said(liar.ask("m0", "begin", {"final": True}, lie.to_blobs()))
    assert "does not sum at this time" in said(liar.round("m0", KEYS, liar.server().configuration))


# --- messages ---------------------------------------------------------------------------------------------------------


def test_a_message_that_is_too_large_is_refused(liar: Liar) -> None:
    site = liar.federation.sites["m0"]
    site.policy = site.policy.model_copy(update={"max_message_mb": 1})
    assert "over max_message_mb" in said(liar.ask("m0", "round", {"tasks": []}, {"0": bytes(1 << 20)}))


def test_whatever_a_message_holds_it_is_answered_and_nothing_of_the_log_leaves(liar: Liar) -> None:
    """Garbage, altered messages, and well-signed ones with values of every wrong kind."""
    draw, site = random.Random(11), liar.federation.sites["m0"]
    whole = liar.sealed("m0", "offer", {"job": {}, "occurrence": 0})
    for _ in range(50):
        at = draw.randrange(len(whole))
        altered = whole[:at] + bytes([whole[at] ^ draw.randrange(1, 256)]) + whole[at + 1 :]
        for message in (altered, whole[:at], draw.randbytes(draw.randrange(200))):
            said(liar.tell("m0", message))
    values = [None, True, -1, 1 << 70, 0.5, "x", [], [[]], [1, 2], {}, {"a": 1}, [None], [{}], [{"what": []}] * 2]
    names = ["job", "occurrence", "versions", "stage", "request", "final", "tasks", "done", "state", "reason"]
    for kind in ("offer", "agree", "begin", "round", "result"):
        for _ in range(60):
            header = {name: draw.choice(values) for name in draw.sample(names, 4)}
            blobs = {name: draw.randbytes(9) for name in draw.sample(["roster", "0", "terms", "items", "state"], 2)}
            assert said(liar.ask("m0", kind, header, blobs))
    assert said(liar.ask("m0", "round", {"tasks": [{"what": "model", "round": 0, "attempt": 0, "step": KEYS}]}))
    assert "Traceback" not in str(site.said)
    assert site.ledger.statement("default").spent == 0


def test_the_coordinator_sees_why_its_message_could_not_be_read(federation: Federation) -> None:
    federation.transport.fate = lambda name, number: "garbled" if (name, number) == ("m1", 1) else "ok"
    federation.conduct(federation.job())
    events = [one["text"] for one in federation.progress.snapshot()["events"]]
    assert len(events) == 1
    assert events[0].startswith("m1: could not read its message: coordinator: a message is not signed by the key that")


def test_a_model_of_another_signer_is_not_kept(liar: Liar, tmp_path: Path) -> None:
    """What came before stays as it was."""
    federation = liar.federation
    job = federation.job(id="other", plan=NOISE)
    run = federation.conduct(job)
    sent = {name: (run.path / name).read_bytes() for name in SENT}
    liar = Liar(federation, job)
    kept = federation.sites["m0"].folder / "runs" / "other.0" / "joint"
    before = {one.name: one.read_bytes() for one in kept.iterdir()}
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COTERIE_HOME", str(tmp_path))
        sign_folder(run.path, {})
    other = {name: (run.path / name).read_bytes() for name in SENT}
    altered = {**sent, "model.safetensors": sent["model.safetensors"] + b"x"}
    for blobs, reason in (
        ({"model.safetensors": b"x"}, "the model came without its"),
        (other, "it failed (RunError)"),
        (altered, "it failed (RunError)"),
    ):
        assert reason in said(liar.ask("m0", "result", {"done": []}, blobs))
        assert {one.name: one.read_bytes() for one in kept.iterdir()} == before
