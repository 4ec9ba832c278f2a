"""Secure sums are exact, whoever drops out when; or there is none, and the reason is said."""

from __future__ import annotations

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.errors import PlanError, SecureAggregationError
from coterie.ring import decode
from coterie.secure import session
from coterie.secure.client import Client
from coterie.secure.session import SessionConfig, secure_sum
from coterie.secure.terms import Phase
from coterie.types import Integers

PHASES = list(Phase)[:5]
BITS = (32, 64)


def config(clients: int = 5, **other: object) -> SessionConfig:
    found = SessionConfig(
        job="test",
        round=0,
        attempt=0,
        model_hash=bytes(32),
        plan_hash=bytes(32),
        clients=clients,
        ring_bits=64,
        size=40,
        min_clients=2,
    )
    return replace(found, **other)


def vectors(asked: SessionConfig, seed: int = 0) -> Integers:
    """Any ring elements, small enough for their sum to have a place in 32 bits where those are asked for."""
    limit = 2**31 // asked.clients if asked.ring_bits == 32 else 2**62
    return np.random.default_rng(seed).integers(-limit, limit, (asked.clients, asked.size))


def check(asked: SessionConfig, dropouts: dict[int, Phase]) -> session.SecureSum:
    """The sum is that of those who sent a vector, in plain arithmetic."""
    values = vectors(asked)
    found = secure_sum(asked, lambda c: values[c].copy(), dropouts)
    stayed = [c for c in range(asked.clients) if dropouts.get(c, Phase.DONE) > Phase.MASK]
    assert found.finishers == tuple(stayed)
    with np.errstate(over="ignore"):
        expected = values[stayed].sum(axis=0)
    assert np.array_equal(decode(found.integers, asked.ring_bits), expected)
    return found


@pytest.mark.parametrize("bits", BITS)
@pytest.mark.parametrize("phase", PHASES)
@pytest.mark.parametrize(("clients", "degree", "threshold"), [(7, None, None), (14, 6, 4), (13, 6, 4)])
def test_sums_are_exact_whatever_the_phase_in_which_clients_drop_out(
    clients: int, degree: int | None, threshold: int | None, phase: Phase, bits: int
) -> None:
    check(config(clients, ring_bits=bits, degree=degree, threshold=threshold), {1: phase, clients - 2: phase})


@pytest.mark.parametrize("bits", BITS)
def test_sums_are_exact_with_a_drop_out_in_every_phase(bits: int) -> None:
    check(config(16, ring_bits=bits), dict(zip(range(2, 7), PHASES, strict=True)))
    check(config(30, ring_bits=bits, degree=12, threshold=7), dict(zip(range(0, 30, 6), PHASES, strict=True)))


@settings(max_examples=30)
@given(st.data())
def test_a_sum_is_exact_or_refused_for_any_clients_threshold_and_drop_outs(data: st.DataObject) -> None:
    clients = data.draw(st.integers(2, 9), "clients")
    threshold = data.draw(st.integers(2 * clients // 3 + 1, clients), "threshold")
    minimum = data.draw(st.integers(2, clients), "minimum")
    dropouts = data.draw(st.dictionaries(st.integers(0, clients - 1), st.sampled_from(PHASES), max_size=4), "dropouts")
    asked = config(
        clients, size=3, threshold=threshold, min_clients=minimum, ring_bits=data.draw(st.sampled_from(BITS))
    )
    vectors_sent = sum(phase > Phase.MASK for phase in dropouts.values()) + clients - len(dropouts)
    if clients - len(dropouts) >= threshold and vectors_sent >= minimum:
        check(asked, dropouts)
    else:
        with pytest.raises(SecureAggregationError, match="secure sum aborted"):
            check(asked, dropouts)


def test_three_clients_need_all_three() -> None:
    check(config(3), {})
    with pytest.raises(SecureAggregationError, match="2 of 3 clients revealed their shares"):
        check(config(3), {0: Phase.UNMASK})


def test_too_few_for_the_minimum_cohort_give_no_sum() -> None:
    check(config(9, min_clients=8), {4: Phase.MASK})
    with pytest.raises(SecureAggregationError, match="fewer than min_clients = 8"):
        check(config(9, min_clients=8), {4: Phase.MASK, 5: Phase.MASK})


def test_contributions_are_asked_for_once_in_order_and_not_of_those_who_left() -> None:
    asked: list[int] = []

    def contribution(c: int) -> Integers:
        asked.append(c)
        return np.zeros(40, np.int64)

    secure_sum(config(12), contribution, {2: Phase.SHARE, 4: Phase.MASK, 5: Phase.SIGN})
    assert asked == [0, 1, 3, *range(5, 12)]


def test_a_contribution_that_fails_leaves_no_secrets() -> None:
    def contribution(c: int) -> Integers:
        if c == 2:
            raise OSError("disk")
        return np.zeros(40, np.int64)

    closed: list[Client] = []
    with patch.object(Client, "close", autospec=True, side_effect=closed.append), pytest.raises(OSError, match="disk"):
        secure_sum(config(4), contribution)
    assert len(closed) == 4


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.zeros(39, np.int64), r"int64 \[40\], not int64 \[39\]"),
        (np.zeros(40, np.float64), "not float64"),
        (np.zeros((40, 1), np.int64), r"\[40, 1\]"),
        (np.full(40, 2**31), "outside the 32-bit ring"),
    ],
)
def test_a_vector_that_is_none_of_the_ring_is_refused(values: Integers, reason: str) -> None:
    with pytest.raises(PlanError, match=reason):
        secure_sum(config(3, ring_bits=32), lambda _: values)


def test_what_a_sum_says_of_itself() -> None:
    found = check(config(20), {})
    assert found.graph == "full graph of 20 clients, threshold 14"
    assert found.claim == "lying server, even together with 7 of the 20 clients"
    assert 0 < found.mask_seconds < found.client_seconds + found.server_seconds
    header, tag, peers = 56, 16, 19
    sent = [header + 164, header + tag + peers * 148, header + tag + 40 * 8, header + tag + 64, header + tag + 20 * 69]
    assert found.upload_bytes == sum(sent)


def test_thousands_take_a_sparse_graph_and_claim_less() -> None:
    terms = config(1000).terms()
    assert (terms.degree, terms.threshold) == (52, 28)
    small = check(config(60, size=5), {})
    assert small.graph == "14 neighbours for each of 60 clients, threshold 8"
    assert small.claim.startswith("semi-honest server")
    assert small.claim.endswith("with 6 corrupt and 6 dropped-out clients it cannot fail")
    few = check(config(30, degree=6, threshold=4), {})
    assert few.claim.endswith("with 3 corrupt and 3 dropped-out clients it fails with probability 2^-10")


def test_rates_change_the_graph_and_fifty_clients_take_the_full_one() -> None:
    assert config(50).terms().full
    assert not config(51).terms().full
    terms = config(1000, corrupt_rate=0.2).terms()
    assert (terms.degree, terms.threshold) == (74, 45)
    assert config(60, corrupt_rate=0.6, dropout_rate=0.5).terms().full


@pytest.mark.parametrize(
    ("other", "reason"),
    [
        ({"clients": 1, "min_clients": 1}, "2 to .* clients, not 1"),
        ({"min_clients": 1}, "min_clients = 1"),
        ({"min_clients": 6}, "min_clients = 6"),
        ({"threshold": 3}, "threshold = 3 is not between 4 and 5"),
        ({"threshold": 6}, "threshold = 6"),
        ({"degree": 5}, "degree = 5"),
        ({"degree": 1}, "degree = 1"),
        ({"degree": 3, "threshold": 2}, "odd degree"),
        ({"ring_bits": 16}, "ring_bits = 16"),
        ({"size": 0}, "not 0"),
        ({"size": 2**28}, "268,435,456"),
        ({"model_hash": b"short"}, "model_hash is a SHA-256 digest"),
        ({"plan_hash": bytes(33)}, "plan_hash is a SHA-256 digest"),
        ({"job": "x" * 256}, "255 bytes"),
        ({"round": -1}, "round -1"),
        ({"attempt": 2**32}, "attempt"),
        ({"clients": 1000, "degree": 20}, "degree = 20 with threshold = any does not give 1,000 clients"),
        ({"clients": 1000, "threshold": 27}, "threshold = 27 does not give"),
    ],
)
def test_terms_that_cannot_be_or_protect_too_little_are_refused(other: dict[str, object], reason: str) -> None:
    with pytest.raises(PlanError, match=reason):
        secure_sum(config(**other), lambda _: np.zeros(40, np.int64))


def test_drop_outs_who_are_no_clients_are_refused() -> None:
    with pytest.raises(PlanError, match="between 0 and 4"):
        secure_sum(config(5), lambda _: np.zeros(40, np.int64), {5: Phase.MASK})


def test_two_sums_of_the_same_vectors_share_no_message() -> None:
    """Keys, seeds and graphs are drawn anew for every attempt, even of the same round."""
    seen: list[set[bytes]] = []
    original = session.Server.receive
    for _ in range(2):
        taken: set[bytes] = set()

        def receive(self: session.Server, c: int, message: bytes, taken: set[bytes] = taken) -> bool:
            taken.add(bytes(message))
            return original(self, c, message)

        with patch.object(session.Server, "receive", receive):
            check(config(4), {})
        seen.append(taken)
    assert len(seen[0]) == 4 * 5
    assert not seen[0] & seen[1]
