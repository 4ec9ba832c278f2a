"""The privacy card states what must be stated, and refuses what it does not know."""

import pytest

from coterie.errors import PlanError
from coterie.report.card import privacy_card

PRIVACY = {"unit": "user", "epsilon": "none", "delta": None, "noise": "none", "aggregation": "plain"}
PRIVACY |= {"neighbours": "add-or-remove-one", "rounds": 1, "min_clients": 1, "ring_bits": 64}
INFO = {
    "model": "ease",
    "scope": "simulation",
    "data": {"clients": 3, "users": 1000},
    "privacy": PRIVACY,
    "traffic": {"upload_bytes_per_client": 36_000_000, "download_bytes_per_client": 0},
}


def test_the_card_says_that_there_is_no_privacy_and_who_sees_what():
    card = privacy_card(INFO)
    for statement in (
        "**No differential privacy.**",
        "epsilon | none",
        "sees the sum of each client in the clear",
        "a user at one client",
        "add or remove one",
        "36.0 MB per client",
        "download: 0 bytes",
        "Integers of 64 bits",
        "Metrics are raw: they were computed on held-out interactions and are outside any epsilon.",
    ):
        assert statement in card, statement


def test_bounds_are_stated_where_known():
    parts = [{"name": "gram", "size": 55, "l2": 2.0, "linf": float("inf")}]
    card = privacy_card(INFO | {"privacy": PRIVACY | {"clip_norm": 2.5, "parts": parts}})
    assert "clipped to an L2 norm of 2.5" in card
    assert "| `gram` | 55 | 2 | unbounded |" in card


def test_one_user_per_client_is_pointed_out():
    assert "what one person did" in privacy_card(INFO | {"data": {"clients": 1000, "users": 1000}})
    assert "what one person did" not in privacy_card(INFO)


def test_a_federation_is_not_called_a_simulation():
    assert "Simulation" not in privacy_card(INFO | {"scope": "federation"})


@pytest.mark.parametrize(
    "change", [{"aggregation": "encrypted"}, {"noise": "central"}, {"epsilon": 4.0}, {"epsilon": None}, {"unit": None}]
)
def test_what_the_card_does_not_know_it_refuses(change):
    with pytest.raises(PlanError):
        privacy_card(INFO | {"privacy": PRIVACY | change})


def test_a_result_without_privacy_facts_has_no_card():
    with pytest.raises(PlanError, match="result has none"):
        privacy_card({"model": "ease"})


def test_the_card_claims_no_more_than_sampling_and_devices_allow():
    facts = {"unit": "user", "epsilon": 4.0, "delta": 1e-6, "noise": "distributed", "aggregation": "secure"} | {
        "neighbours": "add-or-remove-one", "accountant": "pld", "noise_source": "operating system", "masks": "elided",
        "epsilon_spent": 4.0, "epsilon_towards_coordinator": 11.5, "sampler": "poisson",
    }  # fmt: skip
    devices = {"clients": 60, "users": None, "items": 3, "one_user_each": True}
    card = privacy_card({**INFO, "data": devices, "privacy": facts})
    assert "covered by epsilon, unless they know who took part" in card
    assert "whatever else they know" not in card
    assert "epsilon covers what users did, not that they take part" in card
    shops = privacy_card({**INFO, "data": devices | {"one_user_each": False}, "privacy": facts | {"sampler": "all"}})
    assert "covered by epsilon, whatever else they know" in shops
    assert "not that they take part" not in shops
