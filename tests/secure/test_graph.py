"""Graphs are regular, symmetric and hard to cut; degrees and thresholds keep their promises in exact arithmetic."""

from __future__ import annotations

from fractions import Fraction
from math import comb, log2

import numpy as np
import pytest

from coterie.secure.graph import Graph
from coterie.secure.rates import ServerModel, odds, share_of, smallest_threshold, sparsest

SEED = bytes(range(32))


@pytest.mark.parametrize(("clients", "degree"), [(12, 4), (12, 5), (13, 6), (40, 2), (60, 14), (7, 6), (2, 1)])
def test_every_client_has_its_neighbours_and_they_have_it(clients: int, degree: int) -> None:
    graph = Graph(clients, degree, SEED)
    neighbours = [graph.neighbours(c) for c in range(clients)]
    for c, found in enumerate(neighbours):
        assert len(set(found)) == degree
        assert list(found) == sorted(found)
        assert c not in found
        assert all(c in neighbours[peer] for peer in found)


def test_everybody_holds_shares_on_the_full_graph_and_neighbours_on_others() -> None:
    assert Graph(4, 3, SEED).holders(2) == (0, 1, 2, 3)
    sparse = Graph(9, 4, SEED)
    assert sparse.holders(2) == sparse.neighbours(2)


def test_a_seed_gives_one_graph_and_another_seed_another() -> None:
    def edges(seed: bytes) -> list[tuple[int, ...]]:
        return [Graph(50, 4, seed).neighbours(c) for c in range(50)]

    assert edges(SEED) == edges(SEED)
    assert edges(SEED) != edges(bytes(32))


def test_over_seeds_everybody_is_equally_often_the_neighbour() -> None:
    counts = np.zeros(11)
    for seed in range(2000):
        for peer in Graph(11, 2, seed.to_bytes(32, "little")).neighbours(0):
            counts[peer] += 1
    assert counts[0] == 0
    assert ((counts[1:] - 400) ** 2 / 400).sum() < 35  # chi-square, 9 degrees of freedom: 6e-5


def test_any_clients_but_a_run_of_half_the_degree_on_each_of_two_sides_may_go() -> None:
    """A Harary graph of degree k stays in one piece when any k - 1 clients go."""
    graph, rng = Graph(30, 6, SEED), np.random.default_rng(0)
    for _ in range(50):
        left = set(range(30)) - set(rng.permutation(30)[:5].tolist())
        reached, waiting = set(), [min(left)]
        while waiting:
            one = waiting.pop()
            reached.add(one)
            waiting += [peer for peer in graph.neighbours(one) if peer in left - reached]
        assert reached == left


@pytest.mark.parametrize(
    ("clients", "server", "found"),
    [
        (1000, "semi-honest", (52, 28)),
        (10_000, "semi-honest", (60, 32)),
        (1000, "lying", (113, 77)),
        (10_000, "lying", (143, 97)),
        (100, "semi-honest", (21, 11)),
    ],
)
def test_degree_and_threshold_for_a_tenth_corrupt_and_a_tenth_dropping_out(
    clients: int, server: ServerModel, found: tuple[int, int]
) -> None:
    assert sparsest(clients, 0.1, 0.1, server) == found


@pytest.mark.parametrize(
    ("corrupt", "dropout", "found"), [(0.05, 0.05, (31, 17)), (0.2, 0.1, (74, 45)), (0.2, 0.2, (109, 57))]
)
def test_higher_rates_need_more_neighbours(corrupt: float, dropout: float, found: tuple[int, int]) -> None:
    assert sparsest(1000, corrupt, dropout) == found


def exact_bits(n: int, k: int, t: int, corrupt: int, dropped: int, needed: int) -> tuple[float, float]:
    """The same bounds by integers: union over clients of hypergeometric tails, and two runs on the ring."""

    def tail(marked: int, wanted: range) -> Fraction:
        ways = sum(comb(marked, x) * comb(n - 1 - marked, k - x) for x in wanted)
        return Fraction(ways, comb(n - 1, k))

    gone, run = corrupt + dropped, 2 * (k // 2)
    cut = comb(n, 2) * Fraction(comb(gone, run), comb(n, run)) if gone >= run else Fraction(0)
    leaked = n * tail(corrupt, range(needed, k + 1)) + cut
    failed = n * tail(n - 1 - dropped, range(t))

    def bits(x: Fraction) -> float:
        return log2(x.denominator) - log2(x.numerator) if x else float("inf")

    return bits(leaked), bits(failed)


@pytest.mark.parametrize(("n", "k", "t"), [(1000, 52, 28), (1000, 51, 27), (100, 21, 11), (60, 14, 8), (300, 80, 55)])
@pytest.mark.parametrize("server", ["semi-honest", "lying"])
def test_the_odds_are_those_of_exact_arithmetic(n: int, k: int, t: int, server: ServerModel) -> None:
    got = odds(n, k, t, 0.1, 0.1, server)
    needed = t if server == "semi-honest" else 2 * t - k
    assert (got.privacy_bits, got.failure_bits) == pytest.approx(
        exact_bits(n, k, t, n // 10, n // 10, needed), rel=1e-9
    )


def test_the_threshold_found_is_the_smallest_and_the_degree_too() -> None:
    assert smallest_threshold(1000, 52, 0.1, 0.1) == 28
    assert not odds(1000, 52, 27, 0.1, 0.1).enough
    assert all(smallest_threshold(1000, degree, 0.1, 0.1) is None for degree in range(2, 52))


def test_an_odd_number_of_clients_takes_an_even_degree() -> None:
    assert smallest_threshold(101, 21, 0.05, 0.05) is None
    found = sparsest(101, 0.1, 0.1)
    assert found is not None
    assert found[0] % 2 == 0


def test_where_nothing_sparser_will_do_there_is_none() -> None:
    assert sparsest(12, 0.4, 0.4) is None


@pytest.mark.parametrize(("clients", "rate", "found"), [(1000, 0.1, 100), (10, 0.05, 1), (7, 0.0, 0), (5, 1.0, 5)])
def test_a_rate_stands_for_whole_clients_rounded_up(clients: int, rate: float, found: int) -> None:
    assert share_of(clients, rate) == found
