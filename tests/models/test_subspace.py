"""The private subspace: the contract, its formulas, bounds that hold to the last integer, and what noise leaves."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from coterie.models import subspace_sums
from coterie.models.features import item_features
from coterie.models.kernels.private_subspace import fold_in
from coterie.models.subspace import Subspace
from coterie.models.subspace_fit import feature_directions, gram_directions, lens, sizes, smoothed, variances
from coterie.privacy.plan import Plan
from coterie.ring import Accumulator
from coterie.testing import RecommenderContract, block_of, trained, zipf_log
from coterie.types import Array, Floats, Query, Ragged, RoundSpec, State, Total

Log = list[list[list[int]]]


def features_of(n_items: int, kinds: str = "xy") -> dict[str, Array]:
    """Kinds of items, one after the other."""
    names = [f"{at:03d}" for at in range(n_items)]
    return item_features(
        pl.DataFrame({"item": names, "title": None, "kind": [kinds[at % len(kinds)] for at in range(n_items)]}), names
    )


class Featured(Subspace):
    """With features of whatever catalogue there is, as under noise."""

    def init(self, n_items: int, public: Mapping[str, Array], seed: int) -> State:
        known = {"noise_multiplier": np.array(1.0), **public, **features_of(n_items)}
        return super().init(n_items, known, seed)


class TestSubspace(RecommenderContract):
    def model(self) -> Subspace:
        return Subspace(factors=3)


class TestSubspaceWithFeatures(RecommenderContract):
    def model(self) -> Subspace:
        return Featured(factors=3, iterations=2)


# --- what users send --------------------------------------------------------------------------------------------------


def each_round(model: Subspace, users: Log, n_items: int, plan: Plan | None = None) -> list[tuple[State, RoundSpec]]:
    """The state before each round, and what is asked for."""
    found = list[tuple[State, RoundSpec]]()
    for rounds in range(10):
        state = trained(model, [[user] for user in users], n_items, rounds=rounds, plan=plan)
        spec = model.next_round(state)
        if spec is None:
            return found
        found.append((state, spec))
    raise AssertionError("a training without end")


def slow_user(spec: RoundSpec, state: State, items: list[int]) -> dict[str, Floats]:
    """What one user sends, in real units and by the formulas."""
    mine = sorted(set(items))
    part = spec.parts[0]
    if part.name == "mass":
        x = np.zeros(part.size)
        x[mine] = 1
        return {"mass": x / max(np.sqrt(len(mine)), 1), "users": np.array([float(bool(mine))])}
    n = part.shape[0]
    head, level = state["head"][:n], state["level"][:n]
    x = np.isin(head, mine) / np.sqrt(level)
    mean = np.sqrt(level) / np.linalg.norm(np.sqrt(level))
    taste = x - (x @ mean) * mean
    taste = taste / np.linalg.norm(taste) if np.linalg.norm(taste) > 1e-4 * np.linalg.norm(x) else 0 * taste
    if part.name == "gram":
        triangle = np.outer(taste, taste)[np.triu_indices(n)]
        return {"gram": triangle / max(np.linalg.norm(triangle), 1e-300)}
    where = state["basis"].T @ x
    return {"image": np.outer(taste, where / max(np.linalg.norm(where), 1e-300)).ravel()}


@pytest.mark.parametrize("model", [Subspace(factors=3), Featured(factors=3)])
def test_the_sums_are_those_of_the_formulas(model: Subspace) -> None:
    users = [*zipf_log(40, 15), [[]], [[3]], [list(range(15))]]
    for state, spec in each_round(model, users, 15):
        out = Accumulator(spec)
        model.contribute(spec, state, block_of(users, 15), None, out)
        singles = [slow_user(spec, state, [i for basket in user for i in basket]) for user in users]
        for part in spec.parts:
            expected = np.sum([one[part.name] for one in singles], axis=0)
            np.testing.assert_allclose(out[part.name] / part.scale, expected, atol=1e-3 * len(users) / 40)


@pytest.mark.parametrize("scale_bits", [10, 24, 40])
@pytest.mark.parametrize("bound", [1.0, 1e-2])
def test_every_user_stays_within_the_bound_at_any_scale(scale_bits: int, bound: float) -> None:
    users = [*zipf_log(25, 12, seed=3), [[5]], [[11]], [list(range(12))], [[0, 1]]]
    for state, raw in each_round(Subspace(factors=4), users, 12):
        parts = tuple(
            type(part)(part.name, part.shape, part.layout, bound, bound, 1 << scale_bits, part.budget_share)
            for part in raw.parts
        )
        spec = RoundSpec(raw.index, raw.kind, parts)
        for user in users:
            out = Accumulator(spec)
            Subspace(factors=4).contribute(spec, state, block_of([user], 12), None, out)
            for part in parts:
                square = sum(int(value) ** 2 for value in out[part.name])
                assert square <= (Fraction(bound) * part.scale) ** 2, part.name


def test_users_use_nearly_all_of_the_bound() -> None:
    users = zipf_log(30, 20, seed=1)
    for state, spec in each_round(Subspace(factors=4), users, 20):
        out = Accumulator(spec)
        Subspace(factors=4).contribute(spec, state, block_of([[[1, 4, 7, 19]]], 20), None, out)
        for part in spec.parts:
            assert np.linalg.norm(out[part.name] / part.scale) == pytest.approx(1.0, abs=1e-4), part.name


def test_the_size_of_blocks_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    users, model = zipf_log(40, 15), Subspace(factors=3)
    whole = trained(model, [[user] for user in users], 15)
    monkeypatch.setattr(subspace_sums, "ENTRIES", 50)
    again = trained(model, [[user] for user in users], 15)
    assert all(np.array_equal(whole[name], again[name]) for name in whole.arrays)


@pytest.mark.parametrize(
    "settings", [{}, {"iterations": 1}, {"iterations": 0}, {"popularity_share": 0.8, "pair_share": 0.8}]
)
@pytest.mark.parametrize("kind", [Subspace, Featured])
def test_the_budget_names_each_round_and_spends_it_all(kind: type[Subspace], settings: dict[str, float]) -> None:
    model = kind.model_validate(settings)
    shares = model.budget(model.init(9, {}, 0))
    assert all(share > 0 for share in shares)
    assert sum(shares) == pytest.approx(1.0)
    assert trained(model, [zipf_log(9, 9)], 9).round == len(shares)


# --- what the server makes of it --------------------------------------------------------------------------------------


def test_sizes_grow_with_users_and_shrink_with_noise() -> None:
    mass = 1e3 * np.arange(1, 3001.0) ** -0.8
    found = [sizes(mass * users, 1e3 * users, noise, None) for users, noise in ((1, 60), (1, 6), (10, 6), (10, 0.6))]
    for name in ("head", "gram", "directions"):
        values = [getattr(size, name) for size in found]
        assert values == sorted(values), name
        assert values[0] < values[-1], name
    assert sizes(mass, 1e3, 6.0, 2).directions == 2
    assert sizes(mass, 1e3, 0.0, None).head == 3000


def test_items_that_only_noise_made_popular_stay_out_of_the_head() -> None:
    rng = np.random.default_rng(0)
    mass = np.concatenate([np.full(40, 500.0), np.zeros(40_000)]) + rng.normal(size=40_040) * 10
    assert 40 <= sizes(mass, 5e3, 10.0, None).head <= 100


def test_pairs_give_the_directions_that_were_planted_and_no_more() -> None:
    rng, n = np.random.default_rng(1), 60
    _, mean = lens(np.full(n, 9.0))
    truth = np.linalg.qr(np.column_stack([mean, rng.normal(size=(n, 2))]))[0][:, 1:]
    gram = truth @ np.diag([900.0, 500.0]) @ truth.T + np.triu(rng.normal(size=(n, n))) * 10
    found = gram_directions(gram[np.triu_indices(n)], 10.0, mean, 20)
    assert found.shape == (n, 2)
    lengths = np.linalg.norm(found, axis=0)
    cosines = np.abs(np.sum(found / lengths * truth, axis=0))
    assert (cosines > 0.9).all()
    # cos^2 of the head eigenvector, times (l / l_1)^-1/2: both directions are told of by the same formula
    assert lengths[0] == pytest.approx(cosines[0], abs=0.03)


def test_smoothing_equals_the_dense_formula() -> None:
    rng = np.random.default_rng(2)
    stack, dense = rng.normal(size=(90, 4)) * 2, rng.random((90, 6)) * (rng.random((90, 6)) < 0.4)
    spread = variances((stack**2).mean(axis=1))
    C = np.sqrt(np.outer(spread, spread)) * (0.5 * dense @ dense.T + 0.5 * np.eye(90))
    expected = C @ np.linalg.solve(C + np.eye(90), stack)
    other = rng.random((7, 6))
    got, beyond = smoothed(stack, sp.csr_matrix(dense), sp.csr_matrix(other))
    np.testing.assert_allclose(got, expected, atol=1e-9)
    between = np.sqrt(spread[-40:].mean() * spread)[None] * 0.5 * (other @ dense.T)
    np.testing.assert_allclose(beyond, between @ np.linalg.solve(C + np.eye(90), stack), atol=1e-9)


def test_feature_directions_are_those_of_the_kernel() -> None:
    rng = np.random.default_rng(3)
    dense, level = rng.random((30, 5)), rng.random(30) * 9 + 1
    weight, mean = lens(level)
    P = (np.eye(30) - np.outer(mean, mean)) @ np.diag(weight * np.sqrt(level)) @ dense
    values, vectors = np.linalg.eigh(P @ P.T)
    expected = vectors[:, ::-1][:, :3] * (values[::-1][:3] / values[-1]) ** -0.25
    found = feature_directions(sp.csr_matrix(dense), level, mean, 3)
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-8)


def test_users_are_placed_by_the_formula() -> None:
    rng = np.random.default_rng(4)
    V, lists, amount = rng.normal(size=(9, 4)), Ragged.of([[0, 3], [], [8, 1, 2, 5, 6]]), rng.random(7)
    shared = V.T @ V + np.eye(4)
    got = fold_in(lists, amount, V, shared)
    assert not got[1].any()
    for q, cut in ((0, slice(0, 2)), (2, slice(2, 7))):
        own, a = V[lists[q]], amount[cut]
        expected = np.linalg.solve(shared + own.T @ (a[:, None] * own), a @ own)
        np.testing.assert_allclose(got[q], expected, rtol=1e-9)


def test_the_latest_items_count_more_where_the_log_has_times() -> None:
    users = [[[at % 2 + 2 * k for k in range(5) if k != at % 5]] for at in range(60)]
    model, cart = Subspace(factors=2), Ragged.of([[0, 1]])
    steps = [np.array(step, np.int32) for step in ([0, 30], [30, 0])]
    for timed in (0, 1):
        state = trained(model, [users], 10, public={"timed": np.array(timed)})
        late = [model.score(state, Query(cart, step=step))[0] for step in steps]
        assert np.array_equal(late[0], late[1]) == (not timed)
        if timed:
            assert late[0][2] > late[1][2]  # 0, of the same kind as 2, was the latest
            assert late[0][3] < late[1][3]
        assert np.array_equal(model.score(state, Query(cart)), model.score(state, Query(cart, step=None)))


def test_items_outside_the_head_rank_by_popularity() -> None:
    model = Subspace(factors=2)
    state = model.init(6, {}, 0)
    mass = np.array([3.0, 400.0, 300.0, -2.0, 9.0, 200.0])
    state = model._counted(state, mass, 1e4, 30.0)
    assert state["head"].tolist() == [1, 2, 5]
    scores = model.score(model._served(state, np.zeros((3, 0)), np.zeros((0, 0))), Query(Ragged.of([[1]])))[0]
    assert np.argsort(-scores).tolist() == [1, 2, 5, 4, 0, 3]
    assert scores[3] == 0.0


# --- noise ------------------------------------------------------------------------------------------------------------


def planted(users: int, n_items: int, seed: int = 0) -> Log:
    """Users of three kinds like items of their own, the first ones of each more often."""
    rng = np.random.default_rng(seed)
    share = 1.0 / np.arange(1, n_items // 3 + 1) ** 0.7
    return [
        [(3 * rng.choice(n_items // 3, 6, replace=False, p=share / share.sum()) + user % 3).tolist()]
        for user in range(users)
    ]


def under_noise(
    users: Log, n_items: int, multiplier: float, seed: int = 0, public: Mapping[str, Array] | None = None
) -> State:
    """Trained with the noise that a plan would add (rounded normal: the exact sampler is tested elsewhere)."""
    model, rng = Subspace(), np.random.default_rng(seed)
    state = model.init(n_items, {"noise_multiplier": np.array(multiplier), **(public or {})}, 0)
    shares = model.budget(state)
    while (spec := model.next_round(state)) is not None:
        out, std = Accumulator(spec), dict[str, float]()
        model.contribute(spec, state, block_of(users, n_items), None, out)
        for part in spec.parts:
            weight = part.budget_share / sum(p.budget_share for p in spec.parts)
            std[part.name] = multiplier / np.sqrt(shares[spec.index] * weight) * part.l2
            out[part.name][:] += np.rint(rng.normal(size=part.size) * std[part.name] * part.scale).astype(np.int64)
        state = model.apply(spec, state, Total(spec, out.parts, std, 1, 0))
    return state


def own_kind(state: State) -> float:
    """The share of the best 5 items that are of the kind of a cart of three."""
    carts = [[3 * at + kind for at in places] for kind in range(3) for places in ((0, 2, 9), (1, 4, 7), (3, 5, 12))]
    scores = Subspace().score(state, Query(Ragged.of(carts)))
    for row, cart in zip(scores, carts, strict=True):
        row[cart] = -np.inf
    best = np.argsort(-scores, axis=1)[:, :5]
    return float((best % 3 == np.array([cart[0] % 3 for cart in carts])[:, None]).mean())


def test_taste_survives_noise_with_enough_users() -> None:
    few, many = planted(300, 60), planted(6000, 60)
    assert own_kind(under_noise(many, 60, 4.0)) > 0.9
    assert own_kind(under_noise(few, 60, 4.0)) < 0.7
    assert own_kind(under_noise(few, 60, 0.2)) > 0.9


def test_features_say_where_to_look_when_pairs_are_lost_in_noise() -> None:
    users, kinds = planted(600, 120), features_of(120, "xyz")
    without, with_them = (
        np.mean([own_kind(under_noise(users, 120, 4.0, seed, public)) for seed in range(3)]) for public in ({}, kinds)
    )
    assert with_them > without + 0.1


def test_without_anything_but_noise_it_is_noisy_popularity() -> None:
    users = [[[int(i)] for i in np.flatnonzero(np.random.default_rng(u).random(40) < 0.2)] for u in range(30)]
    model, state = Subspace(), under_noise(users, 40, 50.0)
    assert state["factors"].shape == (40, 1)
    scores = model.score(state, Query(Ragged.of([[3, 8], [20]])))
    order = np.argsort(-scores, axis=1)
    assert np.array_equal(order[0], order[1])
    known = state["popularity"] > 0
    assert np.array_equal(np.argsort(-scores[0][known]), np.argsort(-state["popularity"][known]))


def test_a_plan_with_noise_trains_it() -> None:
    plan = Plan(epsilon=8.0, aggregation="plain", noise="central", simulated_noise=True, max_users=10_000)
    users = planted(2000, 60)
    state = trained(Subspace(), [[user] for user in users], 60, plan=plan)
    assert state["factors"].shape[1] > 1
    assert own_kind(state) > 0.9
