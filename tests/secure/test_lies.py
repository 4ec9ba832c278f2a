"""A server that lies is refused: what must never work, tried."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.errors import ProtocolViolation
from coterie.secure import messages as m
from coterie.secure.keys import Identity, sha256
from coterie.secure.messages import Configuration, Share
from coterie.secure.server import Server
from coterie.secure.terms import Phase
from coterie.secure.wire import HEADER, Kind
from tests.secure.parties import Parties, is_closed, refused, revealed, signed, survivors, terms_of

# --- one kind of share per peer, ever ---------------------------------------------------------------------------------


@settings(max_examples=25)
@given(st.sets(st.integers(1, 6)))
def test_whatever_is_said_of_the_survivors_each_peer_is_answered_for_once_and_in_one_kind(others: set[int]) -> None:
    parties = Parties(terms_of(7, threshold=5))
    parties.until(Phase.SIGN)
    body, client = survivors(parties, {0, *others}), parties.clients[0]
    if len(others) < 4:
        refused(client, client.sign, parties.lie(0, Kind.SURVIVORS, body), "of the 5 share holders|min_clients")
        return
    client.sign(parties.lie(0, Kind.SURVIVORS, body))
    answer = revealed(parties, client.unmask(parties.lie(0, Kind.SIGNATURES, signed(parties, body, {0, *others}))))
    assert [(peer, kind) for peer, kind, _ in answer] == [
        (peer, Share.SEED if peer in {0, *others} else Share.MASK_KEY) for peer in range(7)
    ]


def test_a_second_survivor_set_is_refused_after_the_first_was_signed() -> None:
    parties = Parties(terms_of(5, threshold=4))
    inbox = parties.until(Phase.SIGN)
    client = parties.clients[0]
    answer = client.sign(inbox[0])
    with pytest.raises(ProtocolViolation, match="out of order"):
        client.sign(parties.lie(0, Kind.SURVIVORS, survivors(parties, range(4))))
    assert client.sign(inbox[0]) == answer


def test_nobody_is_answered_for_twice() -> None:
    parties = Parties()
    inbox = parties.until(Phase.UNMASK)
    client = parties.clients[0]
    held = list(client._held.values())
    answer = client.unmask(inbox[0])
    assert is_closed(client)
    assert not any(any(one) for one in held)
    with pytest.raises(ProtocolViolation, match="out of order"):
        client.unmask(parties.lie(0, Kind.SIGNATURES, b""))
    with pytest.raises(ProtocolViolation, match="out of order"):
        client.sign(parties.lie(0, Kind.SURVIVORS, survivors(parties, range(1, 4))))
    assert client.unmask(inbox[0]) == answer  # the same bytes again tell nobody anything new


def test_a_client_whose_vector_was_sent_does_not_help_to_rebuild_its_own_mask_key() -> None:
    parties = Parties()
    parties.until(Phase.SIGN)
    client = parties.clients[0]
    refused(
        client, client.sign, parties.lie(0, Kind.SURVIVORS, survivors(parties, [1, 2, 3])), "leaves out this client"
    )


def test_a_client_that_reveals_the_wrong_kind_is_refused() -> None:
    parties = Parties()
    inbox = parties.until(Phase.UNMASK)
    answer = revealed(parties, parties.clients[0].unmask(inbox[0]))
    wrong = [(peer, Share.MASK_KEY, share) for peer, _, share in answer]
    with pytest.raises(ProtocolViolation, match="wrong kind"):
        parties.server.receive(0, parties.forge(0, Kind.UNMASKING, m.pack_revealed(wrong)))


# --- different stories to different clients ---------------------------------------------------------------------------


def test_different_survivor_sets_never_gather_enough_signatures() -> None:
    parties = Parties(terms_of(6, threshold=5))
    parties.until(Phase.SIGN)
    stories = [survivors(parties, range(6)), survivors(parties, [0, 1, 2, 3, 4])]
    for c in range(4):
        parties.clients[c].sign(parties.lie(c, Kind.SURVIVORS, stories[c % 2]))
    for c in range(4):
        both = signed(parties, stories[0], (0, 2)), signed(parties, stories[1], (1, 3))
        agreed = parties.lie(c, Kind.SIGNATURES, both[c % 2])
        refused(parties.clients[c], parties.clients[c].unmask, agreed, "only 2 of the 5 share holders")


def test_a_signature_of_another_survivor_set_is_refused() -> None:
    parties = Parties()
    inbox = parties.until(Phase.SIGN)
    parties.clients[0].sign(inbox[0])
    mixed = signed(parties, survivors(parties, range(3)), range(4))
    refused(parties.clients[0], parties.clients[0].unmask, parties.lie(0, Kind.SIGNATURES, mixed), "signature")


@pytest.mark.parametrize(
    "other",
    [
        {"plan_hash": bytes([9] * 32)},
        {"round": 4},
        {"attempt": 2},
        {"job": b"other"},
        {"ring_bits": 32},
        {"threshold": 4},
        {"min_clients": 3},
    ],
)
def test_a_round_other_than_the_one_agreed_to_is_refused(other: dict[str, object]) -> None:
    parties = Parties()
    client = parties.client(0, replace(parties.terms, **other))
    refused(client, client.advertise, parties.server.configuration, f"another {next(iter(other))} ")


def two_worlds(**other: object) -> tuple[Parties, Parties]:
    """The same people, shown one round each: clients 0 and 1 the first, 2 and 3 the second."""
    one = Parties()
    two = Parties(replace(one.terms, **other))
    two.owner, two.identities, two.roster = one.owner, one.identities, one.roster
    two.server = Server(one.owner, two.terms, one.roster)
    two.clients = [two.client(c) for c in range(4)]
    return one, two


@pytest.mark.parametrize("other", [{"plan_hash": bytes([9] * 32)}, {"attempt": 2}, {}])
def test_clients_who_were_shown_different_rounds_do_not_take_each_others_keys(other: dict[str, object]) -> None:
    """Even with equal terms the graph's seed and the server's key differ, and with them the context."""
    one, two = two_worlds(**other)
    one.until(Phase.SHARE)
    two.until(Phase.SHARE)
    mixed = [one.server._keys[1], two.server._keys[2], two.server._keys[3]]
    message = one.lie(0, Kind.ADVERTISEMENTS, m.pack_advertisements(mixed))
    refused(one.clients[0], one.clients[0].share, message, "signature")


def rostered(parties: Parties, roster: list[bytes]) -> bytes:
    return Configuration(parties.terms, bytes(32), parties.server._agreement.public, tuple(roster)).encode(
        parties.owner
    )[0]


def test_rosters_with_strangers_doubles_or_without_oneself_are_refused() -> None:
    parties = Parties()
    stranger = Identity().public
    for roster, reason in [
        ([*parties.roster[:3], stranger], "not enrolled"),
        ([stranger, *parties.roster[1:]], "not in the roster"),
    ]:
        client = parties.client(0)
        refused(client, client.advertise, rostered(parties, roster), reason)
    client = parties.client(0)
    with pytest.raises(ProtocolViolation, match="same key twice"):
        client.advertise(rostered(parties, [*parties.roster[:3], parties.roster[0]]))


def test_a_configuration_that_the_server_did_not_sign_is_refused() -> None:
    parties = Parties()
    other = Server(Identity(), parties.terms, parties.roster)
    with pytest.raises(ProtocolViolation, match="signature"):
        parties.clients[0].advertise(other.configuration)


# --- substituted keys, forged and replayed messages -------------------------------------------------------------------


@pytest.mark.parametrize("field", ["sealing", "masking", "commitment", "signature", "client"])
def test_a_substituted_key_is_refused(field: str) -> None:
    parties = Parties()
    parties.until(Phase.SHARE)
    honest = [parties.server._keys[c] for c in (1, 2, 3)]
    mine = Parties()
    mine.until(Phase.SHARE)
    value = 1 if field == "client" else getattr(mine.server._keys[1], field)
    forged = [
        replace(honest[1 if field == "client" else 0], **{field: value}),
        *honest[2 if field == "client" else 1 :],
    ]
    message = parties.lie(0, Kind.ADVERTISEMENTS, m.pack_advertisements(forged))
    refused(parties.clients[0], parties.clients[0].share, message, "signature")


def test_keys_of_one_who_is_no_neighbour_are_refused() -> None:
    parties = Parties(terms_of(9, degree=4))
    parties.until(Phase.SHARE)
    stranger = next(c for c in range(1, 9) if c not in parties.server._neighbours[0])
    message = parties.lie(0, Kind.ADVERTISEMENTS, m.pack_advertisements([parties.server._keys[stranger]]))
    refused(parties.clients[0], parties.clients[0].share, message, "not of a neighbour")


def test_a_forged_signature_of_the_survivors_is_refused() -> None:
    parties = Parties()
    inbox = parties.until(Phase.SIGN)
    body = survivors(parties, range(4))
    parties.clients[0].sign(inbox[0])
    forged = m.pack_signatures((c, Identity().sign(b"survivors", parties.summing(), sha256(body))) for c in range(4))
    refused(parties.clients[0], parties.clients[0].unmask, parties.lie(0, Kind.SIGNATURES, forged), "signature")


def test_signatures_of_fewer_than_the_threshold_reveal_nothing() -> None:
    parties = Parties()
    inbox = parties.until(Phase.SIGN)
    parties.clients[0].sign(inbox[0])
    few = parties.lie(0, Kind.SIGNATURES, signed(parties, survivors(parties, range(4)), [0, 1]))
    refused(parties.clients[0], parties.clients[0].unmask, few, "only 2 of the 3 share holders")


def test_one_signature_does_not_count_twice_nor_that_of_a_drop_out() -> None:
    parties = Parties(terms_of(5, threshold=4))
    inbox = parties.until(Phase.SIGN, {4: Phase.MASK})
    body, client = survivors(parties, range(4)), parties.clients[0]
    client.sign(inbox[0])
    one = signed(parties, body, [1])
    refused(client, client.unmask, parties.lie(0, Kind.SIGNATURES, one * 4), "names one twice")
    client = parties.clients[1]
    client.sign(inbox[1])
    refused(client, client.unmask, parties.lie(1, Kind.SIGNATURES, signed(parties, body, range(5))), "surviving holder")


@pytest.mark.parametrize("phase", list(Phase)[:5])
def test_messages_of_an_earlier_attempt_are_refused_and_change_nothing(phase: Phase) -> None:
    old, new = Parties(), Parties()
    new.owner, new.identities, new.roster = old.owner, old.identities, old.roster
    new.terms = replace(old.terms, attempt=2)
    new.server = Server(new.owner, new.terms, new.roster)
    new.clients = [new.client(c) for c in range(4)]
    replayed, inbox = old.until(phase), new.until(phase)
    if phase is Phase.ADVERTISE:
        refused(new.clients[0], lambda message: new.answer(0, phase, message), replayed[0], "another attempt")
        return
    with pytest.raises(ProtocolViolation, match="another round"):
        new.answer(0, phase, replayed[0])
    with pytest.raises(ProtocolViolation, match="another round"):
        new.server.receive(0, old.answer(0, phase, replayed[0]))
    for after in range(phase, Phase.DONE):
        inbox = new.play(Phase(after), inbox)
    assert np.array_equal(new.server.total(), new.expected((0, 1, 2, 3)))


@pytest.mark.parametrize("now", list(Phase)[:5])
@pytest.mark.parametrize("asked", list(Phase)[:5])
def test_messages_out_of_order_are_refused_and_change_nothing(now: Phase, asked: Phase) -> None:
    parties = Parties()
    inboxes, inbox = {}, parties.opening()
    for phase in list(Phase)[:5]:
        inboxes[phase] = inbox
        inbox = parties.play(phase, inbox)
    assert np.array_equal(parties.server.total(), parties.expected((0, 1, 2, 3)))
    again = Parties()
    inbox = again.until(now)
    if asked is now:
        return
    with pytest.raises(ProtocolViolation, match=r"out of order|vector"):
        again.answer(0, asked, inboxes[asked][0])
    for after in range(now, Phase.DONE):
        inbox = again.play(Phase(after), inbox)
    assert np.array_equal(again.server.total(), again.expected((0, 1, 2, 3)))


def test_a_vector_is_masked_once_and_not_before_the_peers_shares_came() -> None:
    parties = Parties()
    inbox = parties.until(Phase.MASK)
    client, values = parties.clients[0], parties.values[0]
    with pytest.raises(ProtocolViolation, match="asked for its vector"):
        client.mask(values)
    client.accept(inbox[0], parties.summed)
    client.accept(inbox[0], parties.summed)  # the same bytes again
    with pytest.raises(ProtocolViolation, match="out of order"):
        client.accept(parties.lie(0, Kind.SHARES_DELIVERED, b""), parties.summed)
    client.mask(values)
    with pytest.raises(ProtocolViolation, match="asked for its vector"):
        client.mask(values + 1)


# --- cohorts ----------------------------------------------------------------------------------------------------------


def test_clients_do_not_sign_away_a_cohort_below_their_minimum() -> None:
    parties = Parties(terms_of(7, threshold=5, min_clients=6))
    parties.until(Phase.SIGN)
    client = parties.clients[0]
    refused(client, client.sign, parties.lie(0, Kind.SURVIVORS, survivors(parties, range(5))), "min_clients")


def test_a_survivor_who_never_shared_its_secrets_is_refused() -> None:
    parties = Parties(terms_of(5, threshold=4))
    parties.until(Phase.SIGN, {4: Phase.SHARE})
    client = parties.clients[0]
    refused(client, client.sign, parties.lie(0, Kind.SURVIVORS, survivors(parties, range(5))), "had shared no secrets")


@pytest.mark.parametrize(
    ("phase", "kind", "record"),
    [(Phase.SHARE, Kind.ADVERTISEMENTS, 164), (Phase.MASK, Kind.SHARES_DELIVERED, 148)],
)
def test_too_few_share_holders_end_a_client(phase: Phase, kind: Kind, record: int) -> None:
    parties = Parties(terms_of(6, threshold=5))
    inbox = parties.until(phase)
    body = memoryview(inbox[0])[HEADER.size : -16]
    few = parties.lie(0, kind, bytes(body[: -2 * record]))
    refused(parties.clients[0], lambda message: parties.answer(0, phase, message), few, "only 4 of the 5 share holders")
