"""Whatever bytes arrive, a party refuses them with one error or takes them for what they are: no sum is ever wrong."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from coterie.errors import ProtocolViolation, SecureAggregationError
from coterie.secure import messages as m
from coterie.secure.keys import Identity
from coterie.secure.messages import Advertisement, Configuration
from coterie.secure.terms import Phase, Summed
from coterie.secure.wire import HEADER, Channel, Kind, frame, read_header, unframe
from tests.secure.parties import Parties, terms_of

CHANNEL = Channel(bytes(32), 2, bytes(range(32)))
CHANNEL.bind(bytes([7] * 32))
SUMMED = Summed(bytes([6] * 32), 40)
ADVERT = Advertisement(1, bytes(32), bytes([1] * 32), bytes([2] * 32), bytes([3] * 64))
READERS: dict[str, tuple[Callable[[memoryview, int], object], bytes]] = {
    "advertisements": (m.read_advertisements, m.pack_advertisements([ADVERT])),
    "sealed": (m.read_sealed, m.pack_sealed([(0, bytes(144)), (3, bytes([1] * 144))])),
    "delivered": (m.read_delivered, m.pack_delivered(m.pack_summed(SUMMED), [(2, bytes(144))])),
    "signatures": (m.read_signatures, m.pack_signatures([(1, bytes(64)), (2, bytes([5] * 64))])),
    "revealed": (m.read_revealed, m.pack_revealed([(0, m.Share.SEED, bytes(64)), (2, m.Share.MASK_KEY, bytes(64))])),
    "survivors": (m.read_survivors, m.pack_survivors({0, 2, 3}, 5)),
}


@pytest.mark.parametrize("reader", READERS)
def test_bodies_are_read_as_they_were_written(reader: str) -> None:
    read, body = READERS[reader]
    got = read(memoryview(body), 5)
    written = {
        "advertisements": [ADVERT],
        "sealed": [(0, bytes(144)), (3, bytes([1] * 144))],
        "delivered": (SUMMED, [(2, bytes(144))]),
        "signatures": [(1, bytes(64)), (2, bytes([5] * 64))],
        "revealed": [(0, 0, bytes(64)), (2, 1, bytes(64))],
        "survivors": {0, 2, 3},
    }
    assert got == written[reader]


@pytest.mark.parametrize("reader", READERS)
@given(body=st.binary(max_size=600), clients=st.integers(2, 40))
def test_random_bodies_are_refused_or_read(reader: str, body: bytes, clients: int) -> None:
    with contextlib.suppress(ProtocolViolation):
        READERS[reader][0](memoryview(body), clients)


@pytest.mark.parametrize("reader", READERS)
@given(length=st.integers(1, 600))
def test_bodies_of_another_length_are_refused(reader: str, length: int) -> None:
    read, body = READERS[reader]
    record = {"advertisements": 164, "sealed": 148, "delivered": 148, "signatures": 68, "revealed": 69, "survivors": 1}
    opening = 40 if reader == "delivered" and length >= 40 else 0  # is read first, and may be all there is
    assume((length - opening) % record[reader] if record[reader] > 1 else length != len(body))
    with pytest.raises(ProtocolViolation, match=f"of {length - opening} bytes"):
        read(memoryview((body * 600)[:length]), 5)


@pytest.mark.parametrize("clients", [[2, 1], [1, 1], [5], [2**32 - 1]])
def test_lists_of_clients_are_ascending_without_doubles_or_strangers(clients: list[int]) -> None:
    body = m.pack_signatures((c, bytes(64)) for c in clients)
    with pytest.raises(ProtocolViolation, match="list of clients"):
        m.read_signatures(memoryview(body), 5)


def test_more_records_than_clients_are_refused_before_they_are_read() -> None:
    with pytest.raises(ProtocolViolation, match="not a list of records"):
        m.read_signatures(memoryview(bytes(68 * 6)), 5)


@given(members=st.sets(st.integers(0, 20)), clients=st.integers(21, 30))
def test_survivor_sets_are_read_as_they_were_written(members: set[int], clients: int) -> None:
    assert m.read_survivors(memoryview(m.pack_survivors(members, clients)), clients) == members


def test_survivors_beyond_the_roster_are_refused() -> None:
    with pytest.raises(ProtocolViolation, match="not in the roster"):
        m.read_survivors(memoryview(b"\xff"), 5)


@given(body=st.binary(max_size=80), kind=st.sampled_from(Kind))
def test_a_channel_carries_any_body(body: bytes, kind: Kind) -> None:
    packed = CHANNEL.pack(kind, body)
    assert bytes(CHANNEL.unpack(kind, packed)) == body
    in_place = bytearray(len(packed))
    CHANNEL.begin(kind, in_place)[:] = body
    CHANNEL.finish(kind, in_place)
    assert in_place == packed


@given(body=st.binary(max_size=80), bit=st.integers(0), kind=st.sampled_from(Kind))
def test_a_channel_refuses_any_flipped_bit(body: bytes, bit: int, kind: Kind) -> None:
    packed = bytearray(CHANNEL.pack(kind, body))
    bit %= 8 * len(packed)
    packed[bit // 8] ^= 1 << bit % 8
    with pytest.raises(ProtocolViolation):
        CHANNEL.unpack(kind, packed)


@given(message=st.binary(max_size=200))
def test_random_bytes_are_no_message(message: bytes) -> None:
    for read in (
        read_header,
        lambda it: CHANNEL.unpack(Kind.SURVIVORS, it),
        lambda it: Configuration.decode(it, bytes(32)),
    ):
        with pytest.raises(ProtocolViolation):
            read(message)


@pytest.mark.parametrize(
    ("kind", "context", "client", "reason"),
    [
        (Kind.SURVIVORS, bytes([7] * 32), 2, "expected a message of kind"),
        (Kind.SIGNATURES, bytes([1] * 32), 2, "another round"),
        (Kind.SIGNATURES, bytes(32), 2, "another round, roster, model or plan"),
        (Kind.SIGNATURES, bytes([7] * 32), 3, "client 3"),
    ],
)
def test_a_message_is_of_its_kind_round_and_client(kind: Kind, context: bytes, client: int, reason: str) -> None:
    with pytest.raises(ProtocolViolation, match=reason):
        unframe(CHANNEL.pack(Kind.SIGNATURES, b""), kind, context, client)


@pytest.mark.parametrize("kind", Kind)
def test_messages_name_what_is_summed_from_the_masked_vector_on(kind: Kind) -> None:
    late = kind >= Kind.MASKED_INPUT
    assert read_header(CHANNEL.pack(kind, b"")) == (kind, 2, bytes([7 if late else 0] * 32))
    unbound = Channel(bytes(32), 2, bytes(range(32)))
    if not late:
        assert unbound.pack(kind, b"") == CHANNEL.pack(kind, b"")
        return
    for use in (lambda: unbound.pack(kind, b""), lambda: unbound.unpack(kind, CHANNEL.pack(kind, b""))):
        with pytest.raises(ProtocolViolation, match="before it was said what is summed"):
            use()


@pytest.mark.parametrize(
    ("body", "reason"), [(bytes(39), "does not say what is summed"), (bytes(40), "impossible.*at least one value")]
)
def test_shares_that_come_without_a_word_of_what_is_summed_are_refused(body: bytes, reason: str) -> None:
    with pytest.raises(ProtocolViolation, match=reason):
        m.read_delivered(memoryview(body), 5)


def test_other_versions_and_kinds_are_refused() -> None:
    whole = bytearray(frame(Kind.SURVIVORS, bytes(32), 2, b""))
    for at, value in [(3, ord("1")), (4, 10), (5, 1)]:
        changed = bytearray(whole)
        changed[at] = value
        with pytest.raises(ProtocolViolation, match="not one of this version"):
            read_header(changed)


def test_every_kind_belongs_to_the_phase_in_which_it_travels() -> None:
    assert [kind.phase for kind in Kind] == [phase for phase in list(Phase)[:5] for _ in range(2)]


@given(st.integers(0, 2**31), st.integers(0, 2**31), st.binary(max_size=255))
def test_a_configuration_is_read_as_it_was_written(round: int, attempt: int, job: bytes) -> None:
    owner, terms = Identity(), terms_of(5, round=round, attempt=attempt, job=job)
    written = Configuration(terms, bytes(32), bytes([1] * 32), tuple(bytes([c] * 32) for c in range(5)))
    message, context = written.encode(owner)
    assert Configuration.decode(message, owner.public) == (written, context)


def test_a_signed_configuration_that_cannot_be_is_refused_all_the_same() -> None:
    owner, terms = Identity(), terms_of(5)
    object.__setattr__(terms, "threshold", 2)
    impossible = Configuration(terms, bytes(32), bytes(32), tuple(bytes([c] * 32) for c in range(5)))
    with pytest.raises(ProtocolViolation, match=r"impossible.*threshold = 2"):
        Configuration.decode(impossible.encode(owner)[0], owner.public)
    short = Configuration(terms_of(5), bytes(32), bytes(32), tuple(bytes([c] * 32) for c in range(4)))
    with pytest.raises(ProtocolViolation, match="keys of 5 clients"):
        Configuration.decode(short.encode(owner)[0], owner.public)


@settings(max_examples=60)
@given(phase=st.sampled_from(list(Phase)[:5]), bit=st.integers(0), up=st.booleans(), cut=st.booleans())
def test_any_change_of_any_message_is_refused_and_the_sum_comes_out_right(
    phase: Phase, bit: int, up: bool, cut: bool
) -> None:
    """A flipped bit or a lost end, on the way to a client or from it; the party goes on with the right message."""
    parties = Parties()
    inbox = parties.until(phase)
    if not up:
        with pytest.raises(SecureAggregationError):
            parties.answer(0, phase, changed(inbox[0], bit, cut))
    answer = bytes(parties.answer(0, phase, inbox[0]))
    if up:
        with pytest.raises(SecureAggregationError):
            parties.server.receive(0, changed(answer, bit, cut))
    parties.server.receive(0, answer)
    for c in (1, 2, 3):
        parties.server.receive(c, parties.answer(c, phase, inbox[c]))
    inbox = parties.advance()
    for after in range(phase + 1, Phase.DONE):
        inbox = parties.play(Phase(after), inbox)
    assert np.array_equal(parties.server.total(), parties.expected((0, 1, 2, 3)))


def changed(message: bytes, bit: int, cut: bool) -> bytes:
    if cut:
        return message[: bit % len(message)]
    bit %= 8 * len(message)
    out = bytearray(message)
    out[bit // 8] ^= 1 << bit % 8
    return bytes(out)


@settings(max_examples=60)
@given(phase=st.sampled_from(list(Phase)[1:5]), body=st.binary(max_size=400), up=st.booleans())
def test_whatever_the_other_side_says_a_party_refuses_or_answers(phase: Phase, body: bytes, up: bool) -> None:
    """Authentic messages with random bodies: at worst there is no sum."""
    parties = Parties()
    parties.until(phase)
    kind = Kind(2 * phase - 1) if up else Kind(2 * phase - 2)
    message = parties.forge(0, kind, body)
    with contextlib.suppress(SecureAggregationError):
        if up:
            parties.server.receive(0, message)
        else:
            parties.answer(0, phase, message)


def test_a_header_is_56_bytes_so_that_vectors_are_aligned() -> None:
    assert HEADER.size == 56
