"""Models under noise: what is estimated from noised sums, what is learned all the same, and the floor beneath."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coterie.engines.local import LocalEngine
from coterie.federation.loop import run_rounds
from coterie.models import denoise, ials_noised, registry
from coterie.models.base import Model
from coterie.models.denoise import (
    LARGEST_HEAD,
    TIE,
    denoised_antisymmetric,
    denoised_gram,
    denoised_rows,
    floor,
    mixed_floor,
)
from coterie.models.ease import Ease
from coterie.models.ials import Ials
from coterie.models.kernels.ials import Basis, solve_rows
from coterie.models.kernels.mf_moments import SHAPE
from coterie.models.mf import Mf
from coterie.models.mf_sums import noised_moments, start_of_biases
from coterie.models.popularity import Popularity, real_counts
from coterie.models.rows import rows_of
from coterie.models.spectral import Spectral
from coterie.models.user_similarity import UserSimilarity
from coterie.ring import Accumulator
from coterie.testing.logs import block_of, checkerboard, trained, zipf_log
from coterie.testing.private import begun, noisy_plan, trained_under_noise
from coterie.types import Floats, Population, Query, Ragged, State, Total, UserBlock

RNG = np.random.default_rng


def symmetric_noise(n: int, std: float, seed: int) -> Floats:
    upper = np.triu(RNG(seed).normal(0.0, std, (n, n)))
    return upper + np.triu(upper, 1).T


def kinds(n: int, strength: float) -> tuple[Floats, Floats]:
    """A Gram of popularity and two kinds of items, and its counts."""
    popular = 1.0 / np.arange(1, n + 1) ** 0.5
    sign = np.where(np.arange(n) % 2, 1.0, -1.0) * popular
    return strength * (np.outer(popular, popular) + 0.5 * np.outer(sign, sign)), popular * 100


# --- estimates --------------------------------------------------------------------------------------------------------


def test_what_stands_out_of_a_gram_is_closer_to_it_than_what_was_summed() -> None:
    gram, counts = kinds(120, 40.0)
    for seed in range(3):
        noised = gram + symmetric_noise(120, 1.0, seed)
        found = denoised_gram(noised, 1.0, counts, 0.0)
        assert len(found.rest.values) == 1
        factors = found.factors()
        assert np.linalg.norm(factors.T @ factors - gram) < 0.25 * np.linalg.norm(noised - gram)


def test_noise_alone_says_nothing_but_popularity() -> None:
    counts = np.maximum(RNG(0).normal(5.0, 3.0, 100), 0.0)
    said = [denoised_gram(symmetric_noise(100, 2.0, seed), 2.0, counts, 1.0).says_more for seed in range(100)]
    assert sum(said) <= 4
    rows = [denoised_rows(RNG(seed).normal(0.0, 2.0, (100, 12)), 2.0, counts)[1] for seed in range(100)]
    assert sum(number > 0 for number in rows) <= 4


def test_a_spike_is_shrunk_to_what_it_was() -> None:
    # By the theory of spiked matrices what is best kept is the spike times the square of the cosine between the
    # direction that was found and the true one, and that square is 1 - n / spike^2.
    n, size = 256, 60.0
    direction = RNG(0).normal(size=n)
    direction -= direction.mean()
    direction /= np.linalg.norm(direction)
    kept, cosines = list[float](), list[float]()
    for seed in range(1, 21):
        noised = size * np.outer(direction, direction) + symmetric_noise(n, 1.0, seed)
        found = denoised_gram(noised, 1.0, np.ones(n), 0.0)
        assert len(found.rest.head) == n
        kept.append(float(found.rest.values[0]))
        cosines.append(float(direction @ found.rest.left[:, 0]) ** 2)
    assert np.mean(cosines) == pytest.approx(1 - n / size**2, abs=0.01)
    assert np.mean(kept) == pytest.approx(size * (1 - n / size**2), rel=0.02)


def test_the_head_is_as_large_as_helps() -> None:
    n = 700
    few = np.zeros(n)
    few[:90] = np.where(np.arange(90) % 2, 1.0, -1.0)
    counts = np.where(np.arange(n) < 90, 50.0, 1.0)
    noised = 0.5 * np.outer(few, few) + symmetric_noise(n, 1.0, 0)
    found = denoised_gram(noised, 1.0, counts, 0.0)
    assert 90 <= len(found.rest.head) <= 256
    assert set(range(90)) <= set(found.rest.head.tolist())
    wide = np.where(np.arange(n) % 2, 1.0, -1.0)
    spread = denoised_gram(0.5 * np.outer(wide, wide) + symmetric_noise(n, 1.0, 0), 1.0, counts, 0.0)
    assert len(spread.rest.head) == n <= LARGEST_HEAD


def test_of_a_large_catalogue_the_most_popular_items_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(denoise, "LARGEST_HEAD", 60)
    gram, counts = kinds(120, 40.0)
    counts = counts[order := RNG(5).permutation(120)]
    noised = gram[np.ix_(order, order)] + symmetric_noise(120, 0.5, 1)
    chosen = denoise.candidates(counts)
    assert set(chosen.tolist()) == set(np.argsort(-counts)[:60].tolist())
    part = denoised_gram(noised[np.ix_(chosen, chosen)], 0.5, counts, 0.0)
    whole = denoised_gram(noised, 0.5, counts, 0.0)
    assert np.array_equal(part.rest.head, whole.rest.head)
    np.testing.assert_allclose(part.rest.values, whole.rest.values)
    assert part.strength == pytest.approx(whole.strength, rel=0.1)


def test_popularity_comes_from_the_counts_and_reaches_every_item() -> None:
    counts = np.arange(300, 0, -1.0)
    gram = np.outer(counts, counts) / 1000
    found = denoised_gram(gram + symmetric_noise(300, 1.0, 3), 1.0, counts, 0.0)
    assert not found.says_more
    np.testing.assert_allclose(found.factors().T @ found.factors(), gram, rtol=0.02)


def test_an_order_that_stands_out_is_kept_and_another_is_not() -> None:
    n, noise = 60, 1.0
    one, two = RNG(0).normal(size=(2, n))
    order = np.outer(one, two) - np.outer(two, one)
    upper = np.triu(RNG(1).normal(0.0, noise, (n, n)), 1)
    head = np.arange(n, dtype=np.int32)
    found = denoised_antisymmetric(order + upper - upper.T, noise, head)
    assert np.array_equal(found, -found.T)
    assert np.linalg.norm(found - order) < 0.5 * np.linalg.norm(upper - upper.T)
    assert not denoised_antisymmetric(upper - upper.T, noise, head).any()


def test_rows_keep_popularity_as_it_is_and_taste_where_it_stands_out() -> None:
    n, d = 200, 8
    counts = 1.0 / np.arange(1, n + 1) ** 0.3
    taste = RNG(0).normal(size=(n, 1)) @ RNG(1).normal(size=(1, d))
    whole = 30.0 * np.outer(counts, RNG(2).normal(size=d)) + 2.0 * taste
    noised = whole + RNG(3).normal(0.0, 1.0, (n, d))
    found, beyond = denoised_rows(noised, 1.0, counts)
    assert beyond == 1
    assert np.linalg.norm(found - whole) < 0.6 * np.linalg.norm(noised - whole)
    popular = counts / np.linalg.norm(counts)
    np.testing.assert_allclose(popular @ denoised_rows(noised, 100.0, counts)[0], popular @ noised)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_the_smallest_catalogues_and_no_counts_at_all(n: int) -> None:
    for counts in (np.zeros(n), np.ones(n)):
        found = denoised_gram(symmetric_noise(n, 1.0, 0), 1.0, counts, 1.0)
        assert np.isfinite(found.matrix()).all()
        rows, beyond = denoised_rows(RNG(0).normal(size=(n, 4)), 1.0, counts)
        assert np.isfinite(rows).all()
        assert beyond == 0


def test_the_floor_decides_between_equals_alone() -> None:
    popularity = np.array([0.2, 0.4, 0.0])
    assert np.array_equal(floor(popularity, 0.0), popularity)
    np.testing.assert_allclose(floor(popularity, 3.0), [1.5 * TIE, 3 * TIE, 0.0])
    assert np.array_equal(floor(np.zeros(3), 3.0), np.zeros(3))


def test_a_mix_stands_on_the_share_of_its_floor() -> None:
    with_floor, without = State(1, {"floor": np.array([2.0, 4.0])}), State(1, {})
    assert mixed_floor(with_floor, without, 0.25)["floor"].tolist() == [1.5, 3.0]
    assert mixed_floor(without, with_floor, 0.25)["floor"].tolist() == [0.5, 1.0]
    assert mixed_floor(without, without, 0.25) == {}


def test_counts_that_noise_made_impossible_are_put_right() -> None:
    arrays: dict[str, Any] = {"counts": np.array([-40, 70, 20]), "rows": np.array([-5])}
    arrays |= {f"{name}_scale": np.array(10) for name in ("counts", "rows")}
    counts, rows = real_counts(State(1, arrays | {"counts_noise": np.array(1.0), "rows_noise": np.array(0.5)}))
    assert counts.tolist() == [0.0, 7.0, 2.0]
    assert rows == 7.0
    assert real_counts(State(1, arrays))[0].tolist() == [-4.0, 7.0, 2.0]


# --- models -----------------------------------------------------------------------------------------------------------

LEARNS = {
    "ease": {},
    "cosine": {},
    "gfcf": {},
    "sequence": {},
    "user-similarity": {},
    "spectral": {"factors": 2},
    "ials": {"factors": 8},
}


@pytest.mark.parametrize("name", LEARNS)
def test_kinds_of_items_are_learned_through_noise(name: str) -> None:
    model = registry.build({"name": name, **LEARNS[name]})
    state = trained_under_noise(model, checkerboard(12, 1200), 12, 8.0)
    scores = model.score(state, Query(Ragged.of([[at] for at in range(12)])))
    for at, row in enumerate(scores):
        same = [j for j in range(12) if j % 2 == at % 2 and j != at]
        assert row[same].min() > row[[j for j in range(12) if j % 2 != at % 2]].max()


def test_a_subspace_is_learned_through_noise_in_a_large_catalogue() -> None:
    model = Spectral(method="subspace", factors=2)
    state = trained_under_noise(model, checkerboard(12, 300), 12, 8.0)
    start = begun(model, 12, noisy_plan(8.0))
    assert state["basis"].shape[1] < start["basis"].shape[1]
    row = model.score(state, Query(Ragged.of([[0]])))[0]
    assert row[2::2].min() > row[1::2].max()


def test_every_user_counts_alike() -> None:
    # One user with everything a thousand times, against four with one basket each.
    greedy, modest = [[0, 1, 2, 3]] * 1000, [[[4]], [[4]], [[5]], [[5]]]
    model = Popularity()
    plan = noisy_plan(30.0)
    state = begun(model, 6, plan)
    spec = model.next_round(state)
    assert spec is not None
    bound = plan.bind(spec, 10, 10, one_user_each=True).spec
    out = Accumulator(bound)
    model.contribute(bound, state, block_of([greedy, *modest], 6), None, out)
    counts = out["counts"] / bound.part("counts").scale
    np.testing.assert_allclose(counts, [0.5, 0.5, 0.5, 0.5, 2.0, 2.0], rtol=1e-6)


def test_a_fit_on_fewer_items_is_made_from_the_same_noised_sums() -> None:
    users = zipf_log(200, 30)
    state = trained_under_noise(Ease(), users, 30, 30.0)
    items = np.array([0, 1, 2, 5, 9, 14], np.int32)
    narrow = Ease().restrict(state, items)
    assert narrow["gram_noise"] == state["gram_noise"]
    np.testing.assert_allclose(narrow["popularity"], state["popularity"][items])
    again = Ease(regularisation=0.5).fit(state)
    assert not np.array_equal(again["weights"], state["weights"])


def test_a_mix_of_a_noised_and_an_own_model_stays_one_state() -> None:
    users = zipf_log(60, 9)
    state, own = trained_under_noise(Ease(), users, 9), trained(Ease(), [[user] for user in users[:5]], 9)
    asked = Query(Ragged.of([[1], []]))
    mixed = Ease().personalise(state, own, 0.25)
    both = 0.75 * Ease().score(state, asked) + 0.25 * Ease().score(own, asked)
    np.testing.assert_allclose(Ease().score(mixed, asked), both, rtol=1e-5, atol=1e-7)


def test_one_row_of_any_size_is_within_the_clip_norm_of_its_nodes() -> None:
    for model in (UserSimilarity(similarity="euclidean"), UserSimilarity(shrinkage=5.0, size_nodes=4)):
        state = begun(model, 50, noisy_plan(4.0))
        spec = model.next_round(state)
        assert spec is not None
        parts = spec.parts[: model.nodes]
        sizes = np.arange(1.0, 51)
        norms = model.row_weights(sizes) * np.sqrt(sizes * (sizes + 1) / 2)
        for part, most in zip(parts, norms.max(axis=1), strict=True):
            assert part.clip is not None
            assert part.clip == pytest.approx(min(most, 1.0))


# --- iALS -------------------------------------------------------------------------------------------------------------


def test_noised_equations_are_those_of_every_item_alone() -> None:
    model, n, users = Ials(factors=5), 20, zipf_log(150, 20)
    state = begun(model, n, noisy_plan(30.0))
    spec = model.next_round(state)
    assert spec is not None
    sums = real_sums(model, state, block_of(users, n))
    integers = {part.name: np.rint(sums[part.name] * (1 << 30)).astype(np.int64) for part in spec.parts}
    parts = tuple(part.__class__(**{**fields(part), "scale": 1 << 30, "l2": 1.0}) for part in spec.parts)
    exact = spec.__class__(0, spec.kind, parts)
    total = Total(exact, integers, dict.fromkeys(integers, 1e-12), 1, 0)
    counts, rows = np.maximum(sums["counts"], 0), float(sums["rows"][0])
    weights, alpha = rows**2 / counts.sum(), float(state["unobserved"])
    gram = np.zeros((5, 5))
    gram[np.triu_indices(5)] = sums["gram"]
    gram += np.triu(gram, 1).T
    found = model.apply(exact, state, total)["factors"]
    for i in range(n):
        ridge = model.regularisation * (counts[i] + alpha * weights)
        matrix = (counts[i] / weights + alpha) * gram + ridge * np.eye(5)
        np.testing.assert_allclose(found[i], np.linalg.solve(matrix, sums["right"].reshape(n, 5)[i]), rtol=1e-4)


def test_what_a_user_sends_is_its_row_vectors_times_one_weight() -> None:
    model, n = Ials(factors=5, row="user"), 20
    plan, state = noisy_plan(4.0), begun(Ials(factors=5, row="user"), 20, noisy_plan(4.0))
    spec = model.next_round(state)
    assert spec is not None
    bound = plan.bind(spec, 100, 100, shares=model.budget(state), one_user_each=True).spec
    for user in zipf_log(12, n, seed=3):
        block, out = block_of([user], n), Accumulator(bound)
        model.contribute(bound, state, block, None, out)
        mine = np.unique(block.item)
        vector = row_vectors(model, state, block)[0]
        outer = np.outer(vector, vector)[np.triu_indices(5)]
        right, gram = bound.part("right"), bound.part("gram")
        weight = min(
            1.0, right.l2 / (math.sqrt(len(mine)) * np.linalg.norm(vector)), gram.l2 / float(np.linalg.norm(outer))
        )
        sent = out["right"].reshape(n, 5) / right.scale
        expected = np.tile(weight * vector, (len(mine), 1))
        np.testing.assert_allclose(sent[mine], expected, atol=2 / right.scale, rtol=1e-6)
        assert not np.delete(sent, mine, axis=0).any()
        np.testing.assert_allclose(out["gram"] / gram.scale, weight * outer, atol=1e-4 * weight * np.abs(outer).max())


def test_numbers_beyond_what_adds_up_exactly_weigh_less() -> None:
    model = Ials(factors=3)
    state = begun(model, 4, noisy_plan(4.0))
    right, gram = ials_noised.noised_round(state).parts[:2]
    part = gram.__class__(**{**fields(gram), "scale": 1 << 50, "l2": 1e9, "linf": 1e9})
    weight = ials_noised._weights(right, part, np.full((1, 3), 4.0), np.ones(1), np.array([0, 1]))
    assert weight[0] * 16.0 * 2.0**50 <= 2.0**52


def real_sums(model: Ials, state: State, block: UserBlock) -> dict[str, Floats]:
    """The parts of a round over rows that nobody clips, each weighing 1 / sqrt(n), by plain numpy."""
    _, rows = rows_of(block, model.row)
    vectors, d = row_vectors(model, state, block), model.factors
    right, gram, counts = np.zeros((block.n_items, d)), np.zeros((d, d)), np.zeros(block.n_items)
    for r, vector in enumerate(vectors):
        weight = 1 / math.sqrt(len(rows[r]))
        right[rows[r]] += weight * vector
        counts[rows[r]] += weight
        gram += weight * np.outer(vector, vector)
    number = np.array([float(len(vectors))])
    return {"right": right.ravel(), "gram": gram[np.triu_indices(d)], "counts": counts, "rows": number}


def row_vectors(model: Ials, state: State, block: UserBlock) -> Floats:
    _, rows = rows_of(block, model.row)
    ridge = model._ridge(state, np.diff(rows.ptr).astype(np.float64), block.n_items)
    return solve_rows(rows, None, ridge, Basis.of(state["factors"], float(state["unobserved"])))


def fields(part: Any) -> dict[str, Any]:
    return {name: getattr(part, name) for name in part.__dataclass_fields__}


# --- matrix factorisation ---------------------------------------------------------------------------------------------


def test_biases_start_in_the_order_of_the_counts_and_between_the_targets() -> None:
    counts = np.array([0.0, 3.0, 50.0, 8.0])
    biases = start_of_biases(counts, 4, 2.0, -0.5)
    assert np.argsort(biases).tolist() == [0, 1, 3, 2]
    assert biases.min() == -0.5
    assert biases.max() < 2.0
    assert not start_of_biases(np.zeros(4), 4, 2.0, -0.5).any()


def test_as_long_as_nothing_stands_out_factors_are_zero_and_clients_start_at_random() -> None:
    model = Mf(factors=4, noised_rounds=2)
    state = trained_under_noise(model, zipf_log(40, 12), 12, 0.01)
    assert state["popular_only"] == 1
    assert not state["parameters"][:, :-1].any()
    begin = model._begun(state)
    assert np.array_equal(begin[:, :-1], model.init(12, {}, 0)["parameters"][:, :-1])
    assert np.array_equal(begin[:, -1], state["parameters"][:, -1])


def test_mean_and_deviation_are_found_in_noised_moments() -> None:
    stars = RNG(0).choice([1.0, 2.0, 3.0, 4.0, 5.0], p=[0.06, 0.11, 0.27, 0.35, 0.21], size=60_000).astype(np.float32)
    model, ptr = Mf(feedback="explicit"), np.arange(0, 60_001, 30, dtype=np.int64)
    block = UserBlock(50, ptr, ptr, np.tile(np.arange(30, dtype=np.int32), 2000), value=stars, one_client=False)
    plan = noisy_plan(4.0)
    state = run_rounds(
        model,
        begun(model, 50, plan),
        LocalEngine(Population(block, np.arange(2001), tuple(map(str, range(2000)))), seed=1),
        plan,
        rounds=1,
    )
    assert float(state["mean"]) == pytest.approx(stars.mean(), abs=0.1)
    assert float(state["deviation"]) == pytest.approx(stars.std(), abs=0.15)


def test_moments_of_nobody_are_those_of_a_standard_scale() -> None:
    part = Mf(feedback="explicit").next_round(Mf(feedback="explicit").init(3, {}, 0))
    assert part is not None
    noise = np.rint(RNG(0).normal(0.0, 5.0, int(np.prod(SHAPE))) * (1 << 24)).astype(np.int64)
    total = Total(part, {"moments": noise}, {"moments": 5.0}, 1, 0)
    assert noised_moments(part.part("moments"), total) == (0.0, 1.0)


# --- real data --------------------------------------------------------------------------------------------------------


def test_films_are_recommended_better_than_by_popularity_alone(real_data: Path) -> None:
    split = dict(np.load(real_data / "ml-1m" / "ncf_loo_split.npz"))
    ptr, items = split["indptr"].astype(np.int64), split["indices"].astype(np.int32)
    people = Population(
        UserBlock(3706, ptr, ptr, items, one_client=False), np.arange(len(ptr)), tuple(map(str, range(len(ptr) - 1)))
    )
    plan = noisy_plan(8.0)
    for model, least in ((Popularity(), 0.44), (Spectral(method="subspace"), 0.58), (Ials(), 0.58)):
        state = run_rounds(model, begun(model, 3706, plan), LocalEngine(people, seed=0), plan)
        assert hit_rate(model, state, people.block, split) > least


def hit_rate(model: Model, state: State, block: UserBlock, split: dict[str, Any]) -> float:
    hits = list[Floats]()
    for start in range(0, block.n_users, 1000):
        stop = min(start + 1000, block.n_users)
        scores = model.score(state, Query(Ragged(block.user_ptr, block.item).slice(start, stop)))
        own = scores[np.arange(stop - start), split["test"][start:stop]]
        others = np.take_along_axis(scores, split["neg"][start:stop], axis=1)
        hits.append((others >= own[:, None]).sum(axis=1) < 10)
    return float(np.concatenate(hits).mean())
