"""Metrics against ranx, closed forms and laws."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.errors import ConfigError, DataError, ModelError
from coterie.evaluation.metrics import CASE_METRICS, Measured, case_metrics, evaluate, gini
from coterie.types import Cases, Query, Ragged

AT = (1, 3, 10)


def problem(seed=0, n=60, items=40, with_candidates=False):
    """Random scores without ties, and cases whose query says which row of the scores is theirs."""
    random = np.random.default_rng(seed)
    scores = random.permutation(n * items).reshape(n, items).astype(np.float32)

    def draw(low, high):
        return Ragged.of(
            [random.choice(items, random.integers(low, min(high, items + 1)), replace=False).tolist() for _ in range(n)]
        )

    query = Query(Ragged.of([[q] for q in range(n)]))
    cases = Cases(
        query, draw(1, 15), draw(0, 5), random.integers(0, 20, n), draw(5, 20) if with_candidates else None, 7
    )
    return scores, cases


def scorer(scores):
    return lambda query: scores[query.cart.item]


def ranked(scores, cases):
    """Per case, the items that stand in the ranking, as the contract of `Cases` says."""
    for q in range(len(cases)):
        pool = set(range(scores.shape[1])) - set(cases.seen[q].tolist())
        if cases.candidates is not None:
            pool = set(cases.candidates[q].tolist())
        yield pool | set(cases.target[q].tolist())


# ranx compiles its own kernels with numba, which warns about a cast in them.
@pytest.mark.filterwarnings("ignore::numba.core.errors.NumbaTypeSafetyWarning")
@pytest.mark.parametrize("with_candidates", [False, True])
def test_metrics_agree_with_ranx(with_candidates):
    from ranx import Qrels, Run
    from ranx import evaluate as ranx_evaluate

    scores, cases = problem(with_candidates=with_candidates)
    names = [f"{q:03d}" for q in range(len(cases))]
    qrels = Qrels({name: {str(t): 1 for t in cases.target[q]} for q, name in enumerate(names)})
    pools = ranked(scores, cases)
    run = Run(
        {
            name: {str(i): float(scores[q, i]) for i in pool}
            for q, (name, pool) in enumerate(zip(names, pools, strict=True))
        }
    )
    wanted = [f"{metric}@{k}" for metric in CASE_METRICS for k in AT]
    theirs = ranx_evaluate(qrels, run, wanted, return_mean=False)
    ours = evaluate(scorer(scores), cases, AT, scores.shape[1])
    for name in wanted:
        np.testing.assert_allclose(ours.values[name], theirs[name], rtol=1e-12, err_msg=name)


@settings(deadline=None)
@given(st.integers(1, 80))
def test_blocks_change_nothing(block):
    scores, cases = problem(n=30)
    whole, parts = (evaluate(scorer(scores), cases, AT, scores.shape[1], block) for block in (1024, block))
    assert all(np.array_equal(whole.values[name], parts.values[name]) for name in whole.values)
    assert all(np.array_equal(whole.recommended[k], parts.recommended[k]) for k in AT)


def test_a_perfect_scorer_has_perfect_metrics():
    _, cases = problem()
    perfect = np.zeros((len(cases), 40), np.float32)
    for q in range(len(cases)):
        perfect[q, cases.target[q]] = 1
    values = evaluate(scorer(perfect), cases, (20,), 40).values
    for name in ("hit_rate@20", "recall@20", "ndcg@20", "map@20", "mrr@20"):
        assert values[name] == pytest.approx(1)


def test_known_values():
    values = case_metrics(np.array([4, 1, 30]), np.array([0, 2, 3]), [5])
    assert values["ndcg@5"] == pytest.approx([(1 + 1 / math.log2(5)) / (1 + 1 / math.log2(3)), 0])
    assert values["map@5"] == pytest.approx([(1 + 2 / 4) / 2, 0])
    assert values["mrr@5"].tolist() == [1, 0]
    assert values["precision@5"].tolist() == [0.4, 0]
    assert values["recall@5"].tolist() == [1, 0]


def test_recommended_counts_leave_out_what_was_seen():
    scores = np.array([[5, 4, 3, 2], [5, 4, 3, 2]], np.float32)
    cases = Cases(Query(Ragged.of([[0], [1]])), Ragged.of([[3], [3]]), Ragged.of([[0], []]), np.array([0, 1]))
    measured = evaluate(scorer(scores), cases, (1, 2), 4)
    assert measured.recommended[1].tolist() == [1, 1, 0, 0]
    assert measured.recommended[2].tolist() == [1, 2, 1, 0]
    assert measured.means()["coverage@2"] == 0.75
    assert measured.means()["gini@1"] == pytest.approx(0.5)


def test_novelty_is_mean_self_information_of_what_is_shown():
    scores = np.array([[4, 3, 2, 1]], np.float32)
    cases = Cases(Query(Ragged.of([[0]])), Ragged.of([[3]]), Ragged.of([[]]), np.array([0]))
    measured = evaluate(scorer(scores), cases, (1, 2, 3), 4, popularity=np.array([4.0, 2.0, 0.0, 2.0]))
    assert [measured.values[f"novelty@{k}"][0] for k in (1, 2, 3)] == pytest.approx([1, 1.5, 5 / 3])


def test_merging_clients_with_their_own_catalogues():
    scores, cases = problem(n=10, items=4)
    a = evaluate(scorer(scores), cases, (1,), 4, items=np.array([0, 1, 2, 3], np.int32))
    b = evaluate(scorer(scores), cases, (1,), 4, items=np.array([9, 8, 2, 3], np.int32))
    merged = Measured.merge([a, b], n_items=10)
    expected = np.zeros(10, np.int64)
    expected[[0, 1, 2, 3]] += a.recommended[1]
    expected[[9, 8, 2, 3]] += b.recommended[1]
    assert merged.recommended[1].tolist() == expected.tolist()
    assert merged.groups == a.groups + b.groups, "users of different clients are different people"
    assert merged.cases == 20
    assert merged.unreachable == 14
    assert merged.means()["ndcg@1"] == pytest.approx(a.means()["ndcg@1"])


def test_merging_refuses_what_does_not_fit():
    scores, cases = problem(n=10, items=8)
    own = evaluate(scorer(scores), cases, (1,), 8, items=np.arange(8, dtype=np.int32))
    whole = evaluate(scorer(scores), cases, (1,), 8)
    other = evaluate(scorer(scores), cases, (2,), 8)
    for parts, n_items, message in (
        ([], None, "nothing|no results"),
        ([own], None, "only with n_items"),
        ([own], 5, "outside the whole catalogue of 5"),
        ([whole, own], 9, "9 and 8 items"),
        ([whole, other], None, "different metrics"),
    ):
        with pytest.raises(DataError, match=message):
            Measured.merge(parts, n_items)


def test_means_by_label_are_the_means_of_the_label():
    scores, cases = problem()
    measured = evaluate(scorer(scores), cases, AT, scores.shape[1])
    label = np.arange(measured.cases) % 3
    by = measured.means_by(label, 4)["ndcg@10"]
    assert by[:3] == pytest.approx([measured.values["ndcg@10"][label == c].mean() for c in range(3)])
    assert np.isnan(by[3])


def test_no_case_gives_nan_and_no_interval():
    empty = Ragged.of([])
    cases = Cases(Query(empty), empty, empty, np.zeros(0, np.int64))
    measured = evaluate(scorer(np.zeros((1, 4), np.float32)), cases, AT, 4)
    summary = measured.summary()
    assert all(math.isnan(mean) for mean in measured.means().values())
    assert summary["ndcg@10"].low is None
    assert summary["ndcg@10"].cases == 0
    assert set(summary) == set(measured.means())


@settings(deadline=None)
@given(st.lists(st.integers(0, 50), min_size=1, max_size=30).filter(any))
def test_gini_equals_the_mean_absolute_difference(counts):
    counts = np.array(counts)
    expected = np.abs(counts[:, None] - counts).mean() / (2 * counts.mean())
    assert gini(counts) == pytest.approx(expected, abs=1e-12)


def test_bad_requests_name_their_mistake():
    scores, cases = problem(n=3, items=4 * 5)
    good = scorer(scores)
    for error, message, arguments in (
        (ConfigError, "cut-offs of at least 1, got \\[0\\]", (good, cases, [0], 20)),
        (ConfigError, "block must be at least 1", (good, cases, [1], 20, 0)),
        (ModelError, "float32 scores of shape \\(3, 30\\)", (good, cases, [1], 30)),
        (ModelError, "got float64", (lambda query: scores.astype(np.float64), cases, [1], 20)),
    ):
        with pytest.raises(error, match=message):
            evaluate(*arguments)
    no_target = Cases(cases.query, Ragged.of([[1], [], [2]]), cases.seen, cases.group)
    with pytest.raises(DataError, match="case 1 has no target"):
        evaluate(good, no_target, [1], 20)
    with pytest.raises(DataError, match="'popularity' has shape"):
        evaluate(good, cases, [1], 20, popularity=np.ones(3))
    with pytest.raises(DataError, match="popularity must be finite"):
        evaluate(good, cases, [1], 20, popularity=np.zeros(20))
    with pytest.raises(ConfigError, match="did you mean 'ndcg@1'"):
        evaluate(good, cases, [1], 20).metric("nDCG@1")
