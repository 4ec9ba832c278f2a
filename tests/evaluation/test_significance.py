"""Paired tests against scipy and closed forms, and the sentence that operators read."""

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.errors import ConfigError, DataError
from coterie.evaluation.metrics import Measured
from coterie.evaluation.significance import ClientGain, joining, paired, sign_flip


def measured(values, group):
    return Measured({"ndcg@10": np.asarray(values, float)}, np.asarray(group), {10: np.ones(2, np.int64)})


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(-4, 4), min_size=1, max_size=9))
def test_few_groups_are_tested_exactly(differences):
    ours = sign_flip(np.array(differences, float), 10, np.random.default_rng(0))
    theirs = (
        scipy.stats.permutation_test(
            (np.array(differences, float),), lambda d, axis: d.sum(axis), permutation_type="samples", vectorized=True
        )
        if len(differences) > 1
        else None
    )
    assert ours == pytest.approx(theirs.pvalue if theirs else 1.0)


def test_many_groups_agree_with_the_normal_limit():
    differences = np.random.default_rng(2).normal(0.12, 1, 400)
    expected = 2 * scipy.stats.norm.sf(abs(differences.sum()) / np.sqrt((differences**2).sum()))
    assert sign_flip(differences, 9999, np.random.default_rng(0)) == pytest.approx(expected, rel=0.25)


def test_the_smallest_p_value_is_never_zero():
    assert sign_flip(np.ones(50), 999, np.random.default_rng(0)) == 1 / 1000


def test_the_difference_is_that_of_the_printed_means():
    random = np.random.default_rng(0)
    base, gain, group = random.random(500), random.normal(0.05, 0.1, 500), random.integers(0, 60, 500)
    result = paired(measured(base, group), measured(base + gain, group), "ndcg@10")
    assert result.difference == pytest.approx(gain.mean())
    assert result.low < result.difference < result.high
    assert result.p_value < 0.01
    assert result.groups == len(np.unique(group))
    back = paired(measured(base + gain, group), measured(base, group), "ndcg@10")
    assert back.difference == pytest.approx(-result.difference)
    assert back.p_value == result.p_value


def test_equal_scorers_do_not_differ():
    result = paired(measured([0.1, 0.2, 0.3], [0, 1, 2]), measured([0.1, 0.2, 0.3], [0, 1, 2]), "ndcg@10")
    assert (result.difference, result.p_value) == (0, 1)


def test_p_values_are_uniform_when_nothing_differs():
    random = np.random.default_rng(0)
    p = [sign_flip(random.standard_t(3, 30), 199, np.random.default_rng(i)) for i in range(300)]
    assert np.mean(np.array(p) <= 0.1) == pytest.approx(0.1, abs=0.05)


def test_many_groups_are_bundled():
    random = np.random.default_rng(0)
    group, gain = np.arange(5000), random.normal(0.1, 1, 5000)
    result = paired(measured(np.zeros(5000), group), measured(gain, group), "ndcg@10", resamples=999)
    assert result.groups == 5000
    assert result.p_value == 1 / 1000


def test_other_cases_are_refused():
    a = measured([0.1, 0.2], [0, 1])
    for b in (measured([0.1], [0]), measured([0.1, 0.2], [0, 2])):
        with pytest.raises(DataError, match="same cases twice"):
            paired(a, b, "ndcg@10")
    with pytest.raises(DataError, match="at least one case"):
        paired(measured([], []), measured([], []), "ndcg@10")
    with pytest.raises(ConfigError, match="metric 'mrr@10' was not measured"):
        paired(a, a, "mrr@10")
    with pytest.raises(ConfigError, match="resamples"):
        paired(a, a, "ndcg@10", resamples=0)


def test_joining_counts_and_says_it_plainly():
    gains = [ClientGain(f"shop {i}", 0.2, 0.22, 0.001, 9) for i in range(31)]
    gains += [ClientGain("loser", 0.25, 0.249, 0.7, 9)] + [ClientGain(f"same {i}", 0.2, 0.2, 1.0, 9) for i in range(5)]
    gains += [ClientGain("new", None, None)]
    result = joining(gains, "ndcg@10", ("shop", "shops"))
    assert result.sentence() == "joining helps 31 of 37 shops, worst change -0.4 %"
    assert (result.helped, result.hurt, result.unchanged, result.clients, result.skipped) == (31, 1, 5, 37, 1)
    assert result.worst.client == "loser"
    assert result.best.amount == pytest.approx(0.1)
    assert (result.surely_helped, result.surely_hurt) == (31, 0)
    assert result.p_value < 0.001
    assert result.macro_alone == pytest.approx((36 * 0.2 + 0.25) / 37)


@pytest.mark.parametrize(
    ("alone", "together", "sentence"),
    [
        (0.2, 0.3, "joining helps 1 of 1 client, worst change +50.0 %"),
        (0.2, 0.2, "joining helps 0 of 1 client, worst change 0 %"),
        (0.2, 0.19999, "joining helps 0 of 1 client, worst change -0.005 %"),
        (0.0, 0.05, "joining helps 1 of 1 client, worst change +0.050 from 0"),
        (None, None, "nothing can be said about joining: no client has held-out cases to compare on"),
        (float("nan"), 0.1, "nothing can be said about joining: no client has held-out cases to compare on"),
    ],
)
def test_sentences_of_one_client(alone, together, sentence):
    assert joining([ClientGain("a", alone, together)], "ndcg@10").sentence() == sentence


def test_holm_corrects_for_looking_at_every_client():
    p_values = (0.02, 0.04, 0.9)  # 0.02 > 0.05 / 3, so nothing is sure although two are below 0.05
    gains = [ClientGain(str(i), 0.1, 0.2, p) for i, p in enumerate(p_values)]
    assert joining(gains, "ndcg@10").surely_helped == 0
    gains[0] = ClientGain("0", 0.2, 0.1, 0.01)
    assert joining(gains, "ndcg@10").surely_hurt == 1


def test_two_or_more_unchanged_clients_do_not_differ():
    result = joining([ClientGain("a", 0.1, 0.1), ClientGain("b", 0.2, 0.2)], "ndcg@10")
    assert result.p_value == 1.0
    assert joining([ClientGain("a", 0.1, 0.2)], "ndcg@10").p_value is None
