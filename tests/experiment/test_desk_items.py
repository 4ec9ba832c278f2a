"""A node's items: under other names, several of one name, and some that nobody else has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import coterie
from coterie.errors import DataError
from coterie.evaluation.private import OWN
from coterie.experiment.desk import metric_names
from coterie.privacy.plan import Plan
from coterie.settings import CleanSettings, SplitSettings
from tests.desks import (
    ITEMS,
    PRIVATE,
    aligned,
    desk_of,
    facts,
    hashed,
    items_file,
    rows_of,
    trained,
)

# ---------------------------------------------------------------------------------------------- items of other names


def test_hashed_items_contribute_the_same_and_are_served_by_own_ids(tmp_path: Path) -> None:
    none = {"split": SplitSettings(split="none"), "clean": CleanSettings(item_case="keep")}
    agreed = tuple(sorted(hashed(item) for item in ITEMS))
    no_texts = pl.DataFrame(schema={"item": pl.String, "title": pl.String})
    job, plain = facts(items=agreed, texts=no_texts, members=3), facts(texts=no_texts)
    desk = desk_of(tmp_path, items=items_file(tmp_path / "items.csv"), **none)
    own = desk.assortment(private=False).items
    work = desk.open(job, aligned(agreed, {item: hashed(item) for item in own}, own))
    renamed = rows_of("shop1").with_columns(pl.col("item").map_elements(hashed, pl.String))
    other = desk_of(tmp_path, "renamed", renamed, **none).open(job)
    bound = job.bound(job.opening())
    assert bound is not None
    one, two = (each.contribute(job.build(), bound.spec, job.opening(), None) for each in (work, other))
    assert np.array_equal(one.flat, two.flat)
    assert work.coverage == {"rows": 1.0, "users": 1.0, "items": 1.0}

    runs = []
    for name, each, known in (("hashed", work, job), ("plain", desk.open(plain), plain)):
        each.evaluate(known.build(), trained({"a": each}, tmp_path / f"{name}.stores", known), tmp_path / name)
        runs.append(coterie.load(tmp_path / name))
    assert list(runs[0].items) == sorted(own, key=hashed)
    assert list(runs[1].items) == sorted(own)
    assert runs[0].catalogue.title(own[0]) == runs[1].catalogue.title(own[0]) != own[0]
    found = [{one.item: one.score for one in run.recommend(own[:2], k=len(own))} for run in runs]
    assert found[0] == pytest.approx(found[1], abs=1e-6)


@pytest.mark.parametrize("plan", [Plan(), PRIVATE], ids=["open", "private"])
def test_hashed_items_are_measured_as_those_that_bear_the_names(plan: Plan, tmp_path: Path) -> None:
    """Whether a node translates its ids or its log has the agreed ones: the same questions, the same answers."""
    asked = {"split": SplitSettings(max_targets=100), "clean": CleanSettings(item_case="keep")}
    agreed = tuple(sorted(hashed(item) for item in ITEMS))
    job = facts(items=agreed, plan=plan, texts=pl.DataFrame(schema={"item": pl.String, "title": pl.String}))
    work = desk_of(tmp_path, **asked).open(job, aligned(agreed, {item: hashed(item) for item in ITEMS}, ITEMS))
    renamed = rows_of("shop1").with_columns(pl.col("item").map_elements(hashed, pl.String))
    other = desk_of(tmp_path, "renamed", renamed, **asked).open(job)
    model, state = job.build(), trained({"a": work}, tmp_path / "stores", job)
    one, two = (each.evaluate(model, state, None).metrics for each in (work, other))
    assert one == two
    sums = [each.metrics_input(model, state) for each in (work, other)]
    assert sums[0].names == sums[1].names == metric_names((10,), private=plan.private)
    rows = [each.local.get(OWN) for each in sums]
    assert rows[0] is not None
    assert rows[1] is not None
    assert np.array_equal(rows[0], rows[1])


def test_a_list_of_own_items_becomes_one_of_distinct_agreed_items_that_stays_aligned(tmp_path: Path) -> None:
    names = {ITEMS[0]: "y", ITEMS[1]: "y", ITEMS[2]: "x"}
    work = desk_of(tmp_path).open(facts(items=("x", "y")), aligned(("x", "y"), names, ITEMS))
    lists = pl.DataFrame({"cart": [[ITEMS[0], ITEMS[3], ITEMS[1], ITEMS[2]], None, []]}, {"cart": pl.List(pl.String)})
    found = work._rows.translated_lists(lists, ("cart",))["cart"].to_list()
    assert found == [["y", None, None, "x"], None, []]


def test_sizes_of_one_product_are_one_item_of_the_sum_and_two_at_home(tmp_path: Path) -> None:
    """Two own items bear one agreed name: a cart with both is a cart with that one, and both are known by it."""
    small, large = ITEMS[0], ITEMS[1]
    agreed = ITEMS[1:]
    names = {item: item for item in ITEMS} | {small: large}
    work = desk_of(tmp_path).open(facts(items=agreed), aligned(agreed, names, ITEMS))
    alone = rows_of("shop1").with_columns(pl.col("item").replace({small: large}))
    merged = desk_of(tmp_path, "merged", alone).open(facts(items=agreed))
    for one, two in zip(
        (work._rows.agreed.population.block.user_ptr, work._rows.agreed.population.block.item),
        (merged._rows.agreed.population.block.user_ptr, merged._rows.agreed.population.block.item),
        strict=True,
    ):
        assert np.array_equal(one, two)
    job = facts(items=agreed)
    result = work.evaluate(job.build(), trained({"a": work}, tmp_path / "stores", job), tmp_path / "own")
    assert result.cases > 0
    lens = work._rows.lens
    assert not lens.covers_all
    assert lens.place[list(work._rows.whole.catalogue.items).index(small)] == lens.place[1]


def test_items_that_were_not_agreed_count_against_the_federation_and_stay_in_the_mix(tmp_path: Path) -> None:
    """Whoever leaves out half of the items cannot suggest them; the organisation goes on doing so."""
    half = ITEMS[::2]
    job = facts(items=half)
    work = desk_of(tmp_path).open(job)
    asked = work._prepared.split.test
    assert asked is not None
    assert 0.3 < work.coverage["rows"] < 0.7
    assert work.coverage["items"] == pytest.approx(0.5, abs=0.1)
    state = trained({"a": work}, tmp_path / "stores", job)
    result = work.evaluate(job.build(), state, tmp_path / "own")
    reachable = asked.cases["targets"].explode().is_in(half).mean()
    assert result.metrics["federated"]["hit_rate@10"] < reachable
    assert result.metrics["federated"]["ndcg@10"] < 0.7 * result.metrics["alone"]["ndcg@10"]
    assert result.metrics["mix"]["ndcg@10"] == pytest.approx(result.metrics["alone"]["ndcg@10"], rel=0.2)
    assert f"{work.coverage['rows']:.1%} of your rows take part" in result.sentence
    assert result.kept in ("alone", "mix")
    run = coterie.load(tmp_path / "own")
    assert list(run.items) == sorted(desk_of(tmp_path).assortment(private=False).items)  # also what nobody else has
    others = next(item for item in run.items if item not in half)
    best = run.recommend([others], k=10)
    assert {one.item for one in best} - set(half)
    assert any(cause == others for one in best for _, cause, _ in one.because)


def test_a_catalogue_without_any_own_item_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="none of its items is among the 2 that were agreed"):
        desk_of(tmp_path).open(facts(items=("x", "y")))
