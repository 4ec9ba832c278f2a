"""What a node learns of joining, what it keeps, and what is reported back as a sum."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import coterie
from coterie.errors import ConfigError, RunError
from coterie.evaluation.private import OWN, PrivateMetrics
from coterie.experiment.again import bench_of
from coterie.experiment.desk import MetricsInput, as_gain, comparison_names, metric_names
from coterie.experiment.deskmetrics import LARGEST_GAIN
from coterie.experiment.evaluating import evaluate_run
from coterie.experiment.signing import verify_folder
from coterie.ring import Accumulator
from coterie.settings import SplitSettings
from coterie.types import State, Total
from tests.desks import (
    ITEMS,
    LOG,
    desk_of,
    facts,
    rows_of,
    together,
    trained,
)

# ------------------------------------------------------------------------------------------------- what is learned


def test_joining_is_told_in_a_sentence_and_the_better_is_kept_signed(tmp_path: Path) -> None:
    job = facts({"name": "cart"}, members=3, evaluate_at=(5, 10))
    works, state = together(tmp_path, job)
    folder = tmp_path / "own"
    result = works["shop3"].evaluate(job.build(), state, folder)
    assert result.metric == "ndcg@10"
    assert result.gain == pytest.approx(result.metrics["mix"]["ndcg@10"] - result.metrics["alone"]["ndcg@10"])
    assert result.low is not None
    assert result.high is not None
    assert result.low < result.gain < result.high
    assert f"{result.gain:+.4f} ± {(result.high - result.low) / 2:.4f}" in result.sentence
    assert set(result.metrics) == {"alone", "federated", "mix", "popularity"}
    assert result.metrics["federated"]["ndcg@10"] > result.metrics["popularity"]["ndcg@10"]
    best = max(("alone", "federated", "mix"), key=lambda scheme: result.metrics[scheme]["ndcg@10"])
    assert result.metrics[result.kept] == result.metrics[best]
    assert json.loads(json.dumps(result.as_dict(), allow_nan=False))["folder"] == str(folder)

    verify_folder(folder)  # by this installation's own key
    run = coterie.load(folder)
    assert set(run.items) == set(desk_of(tmp_path, "shop3").assortment(private=False).items)
    assert run.result["comparison"]["sentence"] == result.sentence
    assert run.result["scope"] == "federation"
    assert len(run.recommend([run.items[0]], k=5)) == 5
    again = works["shop3"].evaluate(
        job.build(), state, folder
    )  # as after a restart: whole once more, nothing beside it
    assert again == result
    assert sorted(path.name for path in tmp_path.glob(".*")) == []


def test_the_run_that_is_kept_is_measured_like_any_other(tmp_path: Path) -> None:
    """On the held-out rows, the run folder does as well as the desk said, by another path."""
    job = facts({"name": "cart"}, members=3)
    works, state = together(tmp_path, job)
    result = works["shop2"].evaluate(job.build(), state, tmp_path / "own")
    test = works["shop2"]._prepared.split.test
    assert test is not None
    test.cases.drop("client", "candidates", "case", "group").write_parquet(tmp_path / "cases.parquet")
    history = tmp_path / "shop2.parquet"
    rows_of("shop2").join(test.log.frame, on="basket", how="anti").write_parquet(history)
    found = evaluate_run(tmp_path / "own", tmp_path / "cases.parquet", history=history)
    expected = result.metrics[result.kept]["hit_rate@10"]
    assert found["metrics"]["federated"]["hit_rate@10"] == pytest.approx(expected, abs=0.02)


def test_a_node_that_is_better_off_alone_keeps_its_own_model(tmp_path: Path) -> None:
    """Others sell the same items to customers of another world: what they know is worth nothing here."""
    job = facts({"name": "cart"}, members=3)
    turned = dict(zip(ITEMS, np.roll(ITEMS, 17).tolist(), strict=True))
    shuffled = LOG.frame.drop("client").with_columns(pl.col("item").replace(turned))
    frames = {"shop1": rows_of("shop1"), "shop2": shuffled, "shop3": shuffled}
    works = {shop: desk_of(tmp_path, shop, frame).open(job) for shop, frame in frames.items()}
    state = trained(works, tmp_path / "stores", job)
    result = works["shop1"].evaluate(job.build(), state, tmp_path / "own")
    assert result.metrics["federated"]["ndcg@10"] < result.metrics["alone"]["ndcg@10"]
    assert result.mix_weight == 1.0  # validation saw it, too
    assert "gains" in result.mix_reason


def test_the_mix_is_chosen_by_what_others_sent(tmp_path: Path) -> None:
    """With the node's own sums in it, the federation's model has seen what it is judged by."""
    job = facts({"name": "cart"}, members=3)
    works, state = together(tmp_path, job)
    alone = {name: work for name, work in works.items() if name != "shop1"}
    others = trained(alone, tmp_path / "others", job)
    model = job.build()
    less = model.less(state, works["shop1"]._sent(model))
    assert set(less.arrays) == set(others.arrays)
    assert all(np.array_equal(less[name], others[name]) for name in others.arrays)
    reasons = [works["shop1"]._choice(model, state, in_sum=True), works["shop1"]._choice(model, others, in_sum=False)]
    assert reasons[0] == reasons[1]

    restarted = desk_of(tmp_path).open(job)  # a model of one round: known again from the job itself
    assert restarted._choice(model, state, in_sum=True) == reasons[0]
    unknown = desk_of(tmp_path).open(replace(job, members=0))
    assert "not known after a restart" in unknown._choice(model, state, in_sum=True).reason


def test_without_a_test_nothing_is_claimed(tmp_path: Path) -> None:
    job = facts()
    works, state = together(tmp_path, job, split=SplitSettings(split="none"))
    result = works["shop1"].evaluate(job.build(), state, tmp_path / "own")
    assert "what you gain is not known" in result.sentence
    assert (result.gain, result.kept, result.mix_weight, dict(result.metrics)) == (None, "mix", 0.25, {})
    assert coterie.load(tmp_path / "own").metrics == {}
    names = metric_names((10,), private=False)
    assert works["shop1"].metrics_input(job.build(), state).contribute(
        PrivateMetrics(names), bound_spec(names), State(0)
    ).flat.tolist() == [0] * (len(names) + 1)


def test_a_folder_with_something_else_in_it_is_left_alone(tmp_path: Path) -> None:
    job = facts({"name": "popularity"})
    works, state = together(tmp_path, job)
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "orders.csv").write_text("mine")
    with pytest.raises(ConfigError, match="exists and is no run folder"):
        works["shop1"].evaluate(job.build(), state, tmp_path / "own")
    assert (tmp_path / "own" / "orders.csv").read_text() == "mine"


def test_a_run_of_a_federation_is_not_taken_for_a_training_of_one_log(tmp_path: Path) -> None:
    job = facts({"name": "popularity"})
    works, state = together(tmp_path, job)
    works["shop1"].evaluate(job.build(), state, tmp_path / "own")
    with pytest.raises(RunError, match="trained by a federation"):
        bench_of(tmp_path / "own")


# ------------------------------------------------------------------------------------------- what is reported back


def bound_spec(names: tuple[str, ...]) -> Any:
    spec = PrivateMetrics(names).next_round(State(0))
    assert spec is not None
    return spec


def summed(inputs: list[MetricsInput]) -> State:
    summand = PrivateMetrics(inputs[0].names)
    spec, out = bound_spec(inputs[0].names), Accumulator(bound_spec(inputs[0].names))
    for one in inputs:
        out.merge(one.contribute(summand, spec, State(0)))
    return summand.apply(spec, State(0), Total(spec, out.parts, dict.fromkeys(out.parts, 0.0), len(inputs), 0))


def test_the_sum_over_users_is_the_mean_over_all_nodes_users(tmp_path: Path) -> None:
    job = facts({"name": "cart"}, members=3)
    works, state = together(tmp_path, job)
    model, inputs, own = job.build(), [], []
    for work in works.values():
        work.evaluate(model, state, None)
        inputs.append(work.metrics_input(model, state))
        own.append(inputs[-1].local.get(OWN))
    assert inputs[0].names[0] == "alone:ndcg@10"
    everybody = np.concatenate([one for one in own if one is not None])
    found = summed(inputs)
    assert float(found["users"]) == pytest.approx(len(everybody))
    assert found["means"] == pytest.approx(everybody.mean(axis=0), abs=1e-4)


def test_the_sum_over_organisations_says_who_gained_and_how_much(tmp_path: Path) -> None:
    job = facts({"name": "cart"}, members=3)
    works, state = together(tmp_path, job)
    results = [work.evaluate(job.build(), state, None) for work in works.values()]
    found = summed([MetricsInput.of_comparison(result) for result in results])
    gains = [result.gain or 0.0 for result in results]
    means = dict(zip(comparison_names(), found["means"].tolist(), strict=True))
    assert means["gained"] == pytest.approx(np.mean([gain > 0 for gain in gains]), abs=1e-5)
    assert as_gain(means["gain"]) == pytest.approx(np.mean(gains), abs=1e-5)
    assert float(found["users"]) == pytest.approx(3)
    wild = MetricsInput.of_comparison(replace(results[0], gain=-7.0)).local.get(OWN)
    assert wild is not None
    assert wild.tolist() == [[0.0, 0.0]]
    assert as_gain(0.0) == -LARGEST_GAIN
