"""Intervals against scipy's bootstrap, known distributions and bounds on work."""

import numpy as np
import pytest
import scipy.stats

from coterie.errors import ConfigError
from coterie.evaluation import bootstrap
from coterie.evaluation.bootstrap import bundles, group_sums, intervals
from coterie.evaluation.metrics import Measured


def clustered(seed=0, groups=80):
    """Cases of unequal groups that share a group effect."""
    random = np.random.default_rng(seed)
    group = np.repeat(np.arange(groups), random.integers(1, 12, groups))
    return random.normal(size=groups)[group] + 0.3 * random.normal(size=len(group)), group


def test_the_interval_is_that_of_scipy_over_groups():
    values, group = clustered()
    label = bundles(group, 1000, np.random.default_rng(0))
    sums, sizes = group_sums([values], label)[:, 0], np.bincount(label)
    theirs = scipy.stats.bootstrap(
        (sums, sizes),
        lambda s, n, axis: s.sum(axis) / n.sum(axis),
        paired=True,
        vectorized=True,
        n_resamples=9999,
        method="percentile",
        rng=np.random.default_rng(1),
    ).confidence_interval
    ours = intervals({"m": values}, group, 0.95, 9999, seed=0)["m"]
    width = theirs.high - theirs.low
    assert ours == pytest.approx((theirs.low, theirs.high), abs=0.05 * width)


def test_cases_of_one_user_do_not_count_as_many():
    values, group = clustered()
    low, high = intervals({"m": values}, group, 0.95, 2000, seed=0)["m"]
    low_cases, high_cases = intervals({"m": values}, np.arange(len(values)), 0.95, 2000, seed=0)["m"]
    assert high - low > 1.5 * (high_cases - low_cases)


def test_the_seed_decides_and_the_batch_does_not(monkeypatch):
    values, group = clustered()
    first = intervals({"m": values}, group, 0.95, 500, seed=3)
    assert first != intervals({"m": values}, group, 0.95, 500, seed=4)
    monkeypatch.setattr(bootstrap, "_CELLS", 7 * 80)
    assert first == intervals({"m": values}, group, 0.95, 500, seed=3)


def test_metrics_share_their_draws_and_keep_their_scale():
    values, group = clustered()
    both = intervals({"m": values, "twice": 2 * values}, group, 0.9, 500, seed=0)
    assert both["twice"] == pytest.approx([2 * limit for limit in both["m"]])


@pytest.mark.parametrize("group", [[], [4, 4, 4]])
def test_fewer_than_two_groups_have_no_interval(group):
    measured = Measured({"m@1": np.ones(len(group))}, np.array(group, np.int64), {1: np.ones(2, np.int64)})
    estimate = measured.summary()["m@1"]
    assert (estimate.low, estimate.high) == (None, None)


def test_bundling_many_groups_keeps_the_width():
    random = np.random.default_rng(5)
    values = random.exponential(size=3000)
    stream = np.random.default_rng(0)
    label = bundles(np.arange(3000), 500, stream)
    assert np.bincount(label).tolist() == [6] * 500
    low, high = intervals({"m": values}, label, 0.95, 2000, seed=0)["m"]
    assert high - low == pytest.approx(2 * 1.96 * values.std() / np.sqrt(3000), rel=0.12)


def test_only_what_is_asked_gets_an_interval():
    values, group = clustered()
    measured = Measured({"a@1": values, "b@1": values}, group, {1: np.ones(3, np.int64)})
    summary = measured.summary(metrics=["b@1"])
    assert summary["a@1"].low is None
    assert summary["b@1"].low < summary["b@1"].mean < summary["b@1"].high
    assert summary["coverage@1"].low is None
    with pytest.raises(ConfigError, match="metric 'c@1' was not measured"):
        measured.summary(metrics=["c@1"])


@pytest.mark.parametrize(("confidence", "resamples"), [(0, 10), (1, 10), (0.9, 0)])
def test_bad_settings_are_refused(confidence, resamples):
    with pytest.raises(ConfigError, match="must be"):
        intervals({"m": np.ones(3)}, np.arange(3), confidence, resamples, seed=0)
