"""Keys are exchanged before it is known what they are for; from then on they are for that and for nothing else."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from coterie.errors import PlanError, ProtocolViolation, SecureAggregationError
from coterie.secure import keys
from coterie.secure import messages as m
from coterie.secure.client import Client
from coterie.secure.keys import Identity, sha256
from coterie.secure.server import Server
from coterie.secure.terms import Phase, Summed, least_threshold
from coterie.secure.wire import Kind, read_header
from tests.secure.parties import SUMMED, Parties, delivered, refused, terms_of

OTHERS = {"model_hash": Summed(bytes([9] * 32), 6), "size": Summed(bytes(32), 7)}
TOO_LONG = Summed(bytes(32), 2**28)  # of 64 bits


# --- a warm round has three exchanges ---------------------------------------------------------------------------------


class Attempt:
    """One round over some identities, and the messages that wait for its clients."""

    def __init__(self, owner: Identity, people: Sequence[Identity], round: int) -> None:
        roster = tuple(one.public for one in people)
        terms = terms_of(len(people), round=round, threshold=least_threshold(len(people), len(people) - 1))
        self.people = people
        self.server = Server(owner, terms, roster)
        self.clients = [Client(one, owner.public, terms, roster) for one in people]
        self.inbox = dict.fromkeys(range(len(people)), self.server.configuration)

    def step(self, name: str) -> None:
        """Every client answers the message that waits for it."""
        for c, message in self.inbox.items():
            self.server.receive(c, getattr(self.clients[c], name)(message))
        self.inbox = self.server.advance()

    def deliver(self, summed: Summed) -> None:
        """Close the exchange of keys: only here it must be known what is summed."""
        for c, message in self.inbox.items():
            self.server.receive(c, self.clients[c].share(message))
        self.inbox = self.server.advance(summed)

    def mask(self, summed: Summed, values: np.ndarray, absent: int | None) -> None:
        for c, message in self.inbox.items():
            self.clients[c].accept(message, summed)
            if c != absent:
                self.server.receive(c, self.clients[c].mask(values[c]))
        self.inbox = self.server.advance()


def test_keys_of_the_next_round_travel_with_the_end_of_this_one() -> None:
    """Three rounds, the second loses a client: each model hangs on the sum before it, so no round's was known early."""
    owner, rng = Identity(), np.random.default_rng(0)
    now, summed = Attempt(owner, [Identity() for _ in range(5)], 0), Summed(bytes(32), 4)
    now.step("advertise")  # two exchanges that only the first round pays for
    now.deliver(summed)
    for round in range(3):
        values = rng.integers(-1000, 1000, (len(now.people), summed.size))
        absent = 2 if round == 1 else None
        now.mask(summed, values, absent)  # first exchange: shares and model -> vector
        stayed = [c for c in range(len(now.people)) if c != absent]
        following = Attempt(owner, [now.people[c] for c in stayed], round + 1)
        now.step("sign")  # second: survivors and next configuration -> signature and next keys
        following.step("advertise")
        now.step("unmask")  # third: signatures and next keys -> one share per peer and next sealed shares
        assert np.array_equal(now.server.total(), values[stayed].sum(axis=0))
        summed = Summed(sha256(now.server.total().tobytes()), summed.size + 1)
        following.deliver(summed)
        now = following
    assert len(now.people) == 4


def test_equal_keys_and_seeds_give_each_model_its_own_masks() -> None:
    shared, summing = bytes([5] * 32), {}
    for name, summed in {"": SUMMED, **OTHERS}.items():
        for context in (bytes(32), bytes([1] * 32)):
            summing[name, context] = keys.summing_context(context, m.pack_summed(summed))
    found = {keys.mask_key(shared, context, 0, 1) for context in summing.values()}
    found |= {keys.self_mask_key(shared, context, 0) for context in summing.values()}
    assert len(found) == 12


def test_masks_of_a_pair_fit_if_both_were_shown_the_same_and_not_otherwise() -> None:
    for shown in (SUMMED, *OTHERS.values()):
        parties = Parties()
        inbox = parties.until(Phase.MASK)
        _, shares = delivered(inbox[1], 4)
        told = parties.lie(1, Kind.SHARES_DELIVERED, m.pack_delivered(m.pack_summed(shown), shares))
        one, other = parties.clients[:2]
        one.accept(inbox[0], SUMMED)
        other.accept(told, shown)
        assert (one._mask_keys[1] == other._mask_keys[0]) == (shown == SUMMED)


# --- a client serves the one model that it was given ------------------------------------------------------------------


@pytest.mark.parametrize("field", OTHERS)
def test_a_client_that_was_given_another_model_than_the_server_says_ends(field: str) -> None:
    parties = Parties()
    inbox = parties.until(Phase.MASK)
    client = parties.clients[0]
    refused(client, lambda message: client.accept(message, OTHERS[field]), inbox[0], f"another {field} ")
    assert not client._pair_secrets
    assert not client._mask_keys


@pytest.mark.parametrize("field", OTHERS)
def test_a_server_that_says_another_model_than_the_client_was_given_is_refused(field: str) -> None:
    parties = Parties()
    inbox = parties.until(Phase.MASK)
    _, shares = delivered(inbox[0], 4)
    lie = parties.lie(0, Kind.SHARES_DELIVERED, m.pack_delivered(m.pack_summed(OTHERS[field]), shares))
    refused(parties.clients[0], parties.accepting(0), lie, f"another {field} ")


@pytest.mark.parametrize("field", OTHERS)
def test_a_client_that_has_accepted_a_model_takes_no_other(field: str) -> None:
    """Not even with the same message, nor from its own side; and it goes on with the first."""
    parties = Parties()
    inbox = parties.until(Phase.MASK)
    client = parties.clients[0]
    client.accept(inbox[0], parties.summed)
    masks = dict(client._mask_keys)
    _, shares = delivered(inbox[0], 4)
    other = parties.lie(0, Kind.SHARES_DELIVERED, m.pack_delivered(m.pack_summed(OTHERS[field]), shares))
    for message in (inbox[0], other):
        with pytest.raises(ProtocolViolation, match="had accepted one model for its round was given another"):
            client.accept(message, OTHERS[field])
    with pytest.raises(ProtocolViolation, match="out of order"):
        client.accept(other, parties.summed)
    assert client._mask_keys == masks
    inbox = parties.play(Phase.MASK, inbox)
    for after in (Phase.SIGN, Phase.UNMASK):
        inbox = parties.play(after, inbox)
    assert np.array_equal(parties.server.total(), parties.expected((0, 1, 2, 3)))


def test_before_a_model_is_accepted_there_is_neither_mask_nor_vector_nor_its_length() -> None:
    parties = Parties()
    inbox = parties.until(Phase.MASK)
    client = parties.clients[0]
    assert not client._mask_keys
    with pytest.raises(ProtocolViolation, match="accepted a model"):
        _ = client.upload_length
    with pytest.raises(ProtocolViolation, match="asked for its vector"):
        client.mask(parties.values[0])
    client.accept(inbox[0], parties.summed)
    assert client.upload_length == len(client.mask(parties.values[0])) == 56 + 6 * 8 + 16


def test_a_vector_too_long_for_a_message_is_refused_by_both_sides_and_changes_nothing() -> None:
    parties = Parties()
    inbox = parties.until(Phase.SHARE)
    for c, message in inbox.items():
        parties.server.receive(c, parties.clients[c].share(message))
    with pytest.raises(PlanError, match="268,435,456"):
        parties.server.advance(TOO_LONG)
    inbox = parties.advance()
    with pytest.raises(PlanError, match="268,435,456"):
        parties.clients[0].accept(inbox[0], TOO_LONG)
    for after in (Phase.MASK, Phase.SIGN, Phase.UNMASK):
        inbox = parties.play(after, inbox)
    assert np.array_equal(parties.server.total(), parties.expected((0, 1, 2, 3)))
    assert TOO_LONG.upload_bytes(32) == 2**30


# --- the server -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", list(Phase)[:5])
def test_what_is_summed_is_said_when_the_shares_are_delivered_and_only_then(phase: Phase) -> None:
    parties = Parties()
    inbox = parties.until(phase)
    for c, message in inbox.items():
        parties.server.receive(c, parties.answer(c, phase, message))
    with pytest.raises(SecureAggregationError, match=f"when SHARE is closed, and the round is at {phase.name}"):
        parties.server.advance(None if phase is Phase.SHARE else SUMMED)
    inbox = parties.advance()
    for after in range(phase + 1, Phase.DONE):
        inbox = parties.play(Phase(after), inbox)
    assert np.array_equal(parties.server.total(), parties.expected((0, 1, 2, 3)))


@pytest.mark.parametrize("phase", [Phase.ADVERTISE, Phase.SHARE])
def test_who_answers_late_is_out_and_who_answers_before_the_phase_closes_is_in(phase: Phase) -> None:
    """Keys that arrive while the round before still ends are taken at any time up to `advance`, and not after it."""
    parties = Parties(terms_of(5, threshold=4))
    inbox = parties.until(phase)
    answers = {c: parties.answer(c, phase, message) for c, message in inbox.items()}
    for c in (0, 1, 2):
        parties.server.receive(c, answers[c])
    parties.server.receive(3, answers[3])
    inbox = parties.advance()
    with pytest.raises(SecureAggregationError, match="when the round was at"):
        parties.server.receive(4, answers[4])
    for after in range(phase + 1, Phase.DONE):
        inbox = parties.play(Phase(after), inbox)
    assert np.array_equal(parties.server.total(), parties.expected((0, 1, 2, 3)))


def test_a_vector_of_another_model_is_no_message_of_the_round() -> None:
    parties = Parties()
    inbox = parties.until(Phase.MASK)
    _, shares = delivered(inbox[0], 4)
    client, other = parties.clients[0], OTHERS["model_hash"]
    client.accept(parties.lie(0, Kind.SHARES_DELIVERED, m.pack_delivered(m.pack_summed(other), shares)), other)
    vector = client.mask(parties.values[0])
    assert read_header(vector) == (Kind.MASKED_INPUT, 0, parties.summing(other))
    with pytest.raises(ProtocolViolation, match="another round, roster, model or plan"):
        parties.server.receive(0, vector)
    with pytest.raises(ProtocolViolation, match="another round, roster, model or plan"):
        client.sign(parties.lie(0, Kind.SURVIVORS, m.pack_survivors(range(4), 4)))
    answer = client.sign(parties.lie(0, Kind.SURVIVORS, m.pack_survivors(range(4), 4), other))
    with pytest.raises(ProtocolViolation, match="another round, roster, model or plan"):
        parties.server.receive(0, answer)
