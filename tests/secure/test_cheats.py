"""A peer that cheats is found out, late and repeated messages change nothing, and uploads say nothing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.errors import PlanError, ProtocolViolation, SecureAggregationError
from coterie.secure import messages as m
from coterie.secure.field import SHARE_BYTES
from coterie.secure.messages import Advertisement, Share
from coterie.secure.server import Server
from coterie.secure.terms import Phase
from coterie.secure.wire import HEADER, Kind
from tests.secure.parties import Parties, delivered, is_closed, refused, revealed, terms_of

LOW_ORDER = bytes(32)


# --- keys and shares --------------------------------------------------------------------------------------------------


def low_order(parties: Parties, c: int, field: str) -> Advertisement:
    """Keys of client c, signed by itself, one of them of low order."""
    honest = replace(parties.server._keys[c], **{field: LOW_ORDER})
    return replace(
        honest, signature=parties.identities[c].sign(b"advertisement", parties.server._context, honest.content)
    )


@pytest.mark.parametrize("field", ["sealing", "masking"])
def test_a_peers_key_of_low_order_is_refused_by_server_and_clients(field: str) -> None:
    parties = Parties()
    parties.until(Phase.SHARE)
    bad = low_order(parties, 1, field)
    fresh = Server(parties.owner, parties.terms, parties.roster)
    fresh._context = parties.server._context
    framed = m.frame(Kind.ADVERTISEMENT, fresh._context, 1, m.pack_advertisements([bad]))
    with pytest.raises(ProtocolViolation, match="low order"):
        fresh.receive(1, framed)
    message = parties.lie(
        0, Kind.ADVERTISEMENTS, m.pack_advertisements([bad, parties.server._keys[2], parties.server._keys[3]])
    )
    refused(parties.clients[0], parties.clients[0].share, message, "low order")


def test_a_peers_sealed_shares_that_were_altered_are_refused() -> None:
    parties = Parties()
    inbox = parties.until(Phase.MASK)
    body = bytearray(memoryview(inbox[0])[HEADER.size : -16])
    body[50] ^= 1
    refused(parties.clients[0], parties.accepting(0), parties.lie(0, Kind.SHARES_DELIVERED, bytes(body)), "client 1")


def test_shares_sealed_for_another_are_refused() -> None:
    parties = Parties()
    inbox = parties.until(Phase.MASK)
    _, own = delivered(inbox[1], 4)
    moved = m.pack_delivered(m.pack_summed(parties.summed), [(2, own[1][1])])
    refused(parties.clients[0], parties.accepting(0), parties.lie(0, Kind.SHARES_DELIVERED, moved), "client 2")


@pytest.mark.parametrize("dropped", [{}, {3: Phase.MASK}])
@settings(max_examples=10)
@given(bit=st.integers(0, 8 * SHARE_BYTES - 1), peer=st.integers(0, 3))
def test_an_altered_share_yields_no_sum(dropped: dict[int, Phase], bit: int, peer: int) -> None:
    parties = Parties(terms_of(4, threshold=3))
    inbox = parties.until(Phase.UNMASK, dropped)
    for c, message in inbox.items():
        answer = parties.clients[c].unmask(message)
        if c == 0:
            shares = revealed(parties, answer)
            altered = bytearray(shares[peer][2])
            altered[bit // 8] ^= 1 << bit % 8
            shares[peer] = (*shares[peer][:2], bytes(altered))
            answer = parties.forge(0, Kind.UNMASKING, m.pack_revealed(shares))
        parties.server.receive(c, answer)
    with pytest.raises(ProtocolViolation, match="share"):
        parties.server.advance()
    with pytest.raises(SecureAggregationError, match="there is no sum"):
        parties.server.total()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda shares: [shares[0], *shares[:3]], "names one twice"),
        (lambda shares: [shares[0], *shares], "not a list of records"),
        (lambda shares: shares[1:], "did not reveal one share of each peer"),
        (lambda shares: [*shares, (9, Share.SEED, bytes(64))], "not a list of records"),
        (lambda shares: [(0, 7, shares[0][2]), *shares[1:]], "wrong kind"),
    ],
)
def test_shares_twice_missing_or_of_nobody_are_refused(change: Callable[[list], list], reason: str) -> None:
    parties = Parties()
    inbox = parties.until(Phase.UNMASK)
    shares = revealed(parties, parties.clients[0].unmask(inbox[0]))
    with pytest.raises(ProtocolViolation, match=reason):
        parties.server.receive(0, parties.forge(0, Kind.UNMASKING, m.pack_revealed(change(shares))))


def test_fewer_shares_than_the_threshold_yield_no_sum() -> None:
    parties = Parties()
    inbox = parties.until(Phase.UNMASK)
    for c in (0, 1):
        parties.server.receive(c, parties.clients[c].unmask(inbox[c]))
    with pytest.raises(SecureAggregationError, match=r"2 of 4 clients revealed their shares.*2 of the 3"):
        parties.server.advance()
    with pytest.raises(SecureAggregationError, match="there is no sum"):
        parties.server.total()


def test_shares_of_one_who_advertised_no_keys_are_refused() -> None:
    parties = Parties(terms_of(5, threshold=4))
    parties.until(Phase.MASK, {4: Phase.ADVERTISE})
    unasked = m.pack_delivered(m.pack_summed(parties.summed), [(4, bytes(m.SEALED_BYTES))])
    refused(
        parties.clients[0], parties.accepting(0), parties.lie(0, Kind.SHARES_DELIVERED, unasked), "advertised no keys"
    )


def test_secrets_are_erased_as_soon_as_they_are_used() -> None:
    parties = Parties()
    parties.until(Phase.SHARE)
    client = parties.clients[0]
    assert any(client._sealing.secret)
    assert any(client._masking.secret)
    again = Parties()
    inbox = again.until(Phase.MASK)
    client = again.clients[0]
    assert not any(client._sealing.secret)
    assert not any(client._masking.secret)
    assert client._pair_secrets
    again.answer(0, Phase.MASK, inbox[0])
    assert not client._pair_secrets
    assert not client._mask_keys
    assert not client._sealing_keys


def test_a_vector_outside_the_ring_ends_the_client_and_leaves_no_secrets() -> None:
    parties = Parties(terms_of(4, ring_bits=32), np.full((4, 6), 2**40))
    inbox = parties.until(Phase.MASK)
    with pytest.raises(PlanError, match="32-bit ring"):
        parties.answer(0, Phase.MASK, inbox[0])
    assert is_closed(parties.clients[0])


# --- what the server takes --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("phase", list(Phase)[:5])
def test_the_same_bytes_again_change_nothing_and_others_are_refused(phase: Phase) -> None:
    parties = Parties()
    inbox = parties.until(phase)
    sent = bytes(parties.answer(0, phase, inbox[0]))
    assert parties.server.receive(0, sent) is True
    assert parties.server.receive(0, sent) is False
    other = Parties()
    if phase is Phase.ADVERTISE:
        honest = m.read_advertisements(memoryview(sent)[HEADER.size :], 4)[0]
        body = m.pack_advertisements([replace(honest, masking=other.identities[0].public)])
        changed = m.frame(Kind.ADVERTISEMENT, parties.server._context, 0, body)
    else:
        kind = Kind(2 * phase - 1)
        changed = parties.forge(0, kind, bytes([sent[HEADER.size] ^ 1]) + sent[HEADER.size + 1 : -16])
    with pytest.raises(ProtocolViolation, match="twice, and not the same bytes"):
        parties.server.receive(0, changed)
    for c in (1, 2, 3):
        parties.server.receive(c, parties.answer(c, phase, inbox[c]))
    inbox = parties.advance()
    for after in range(phase + 1, Phase.DONE):
        inbox = parties.play(Phase(after), inbox)
    assert np.array_equal(parties.server.total(), parties.expected((0, 1, 2, 3)))


@pytest.mark.parametrize("signature", [bytes(64), b"", bytes(65)])
def test_a_client_that_signs_something_else_is_not_a_signer(signature: bytes) -> None:
    parties = Parties()
    parties.until(Phase.SIGN)
    with pytest.raises(ProtocolViolation, match="signature"):
        parties.server.receive(0, parties.forge(0, Kind.SIGNATURE, signature))


@pytest.mark.parametrize("clients", [[1], [], [0, 1]])
def test_a_client_advertises_its_own_keys_and_no_others(clients: list[int]) -> None:
    parties = Parties()
    parties.until(Phase.SHARE)
    fresh, context = Server(parties.owner, parties.terms, parties.roster), parties.server._context
    fresh._context = context
    keys = [replace(parties.server._keys[0], client=client) for client in clients]
    signed = [replace(k, signature=parties.identities[0].sign(b"advertisement", context, k.content)) for k in keys]
    with pytest.raises(ProtocolViolation, match="its own keys"):
        fresh.receive(0, m.frame(Kind.ADVERTISEMENT, context, 0, m.pack_advertisements(signed)))


def test_a_client_does_not_speak_for_another() -> None:
    parties = Parties()
    inbox = parties.until(Phase.SHARE)
    with pytest.raises(ProtocolViolation, match="client 1"):
        parties.server.receive(1, parties.clients[0].share(inbox[0]))


def test_who_dropped_out_or_comes_late_stays_out() -> None:
    parties = Parties(terms_of(5, threshold=4))
    inbox = parties.until(Phase.SIGN, {4: Phase.MASK})
    vector = parties.forge(4, Kind.MASKED_INPUT, bytes(48))
    with pytest.raises(SecureAggregationError, match="when the round was at SIGN"):
        parties.server.receive(4, vector)
    inbox = parties.play(Phase.SIGN, inbox)
    parties.play(Phase.UNMASK, inbox)
    assert np.array_equal(parties.server.total(), parties.expected((0, 1, 2, 3)))


@pytest.mark.parametrize("length", [0, 40, 56])
def test_a_vector_of_another_size_is_refused(length: int) -> None:
    parties = Parties()
    parties.until(Phase.MASK)
    with pytest.raises(ProtocolViolation, match=f"{length} bytes, not 48"):
        parties.server.receive(0, parties.forge(0, Kind.MASKED_INPUT, bytes(length)))


def test_shares_for_some_neighbours_only_are_refused() -> None:
    parties = Parties()
    parties.until(Phase.SHARE)
    few = m.pack_sealed([(1, bytes(m.SEALED_BYTES))])
    with pytest.raises(ProtocolViolation, match="one share to each neighbour"):
        parties.server.receive(0, parties.forge(0, Kind.SHARES_SENT, few))


def test_a_server_that_is_done_goes_no_further() -> None:
    parties = Parties()
    with pytest.raises(SecureAggregationError, match="there is no sum"):
        parties.server.total()
    parties.until(Phase.DONE)
    with pytest.raises(SecureAggregationError, match="a new one starts"):
        parties.server.advance()


# --- what the server sees ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bits", [32, 64])
def test_a_masked_vector_looks_uniform_whatever_is_in_it(bits: int) -> None:
    """Chi-square over all bytes of an upload of zeros and of an upload of ones: 255 degrees of freedom."""
    size = 30_000
    values = np.vstack([np.zeros(size, np.int64), np.ones(size, np.int64), np.zeros(size, np.int64)])
    parties = Parties(terms_of(3, ring_bits=bits), values)
    inbox = parties.until(Phase.MASK)
    uploads = []
    for c in range(3):
        message = parties.answer(c, Phase.MASK, inbox[c])
        uploads.append(np.frombuffer(message, np.uint8)[HEADER.size : -16])
    for seen in [*uploads, uploads[0] - uploads[1], uploads[1] ^ uploads[2]]:
        counts, expected = np.bincount(seen, minlength=256), len(seen) / 256
        assert ((counts - expected) ** 2 / expected).sum() < 400  # exceeded with probability 1e-8


def test_without_one_clients_seed_the_sum_of_all_others_stays_masked() -> None:
    """Nothing short of the last share: with every secret but one client's, a sum is still nothing like the values."""
    parties = Parties(terms_of(3), np.zeros((3, 2000), np.int64))
    inbox = parties.until(Phase.UNMASK)
    assert inbox
    counts = np.bincount(parties.server._total.view(np.uint8), minlength=256)
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 400
