"""A node's desk: own columns and ids, what is contributed, and a person's mistakes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import coterie
from coterie.data.cleaning import steps_for
from coterie.engines.local import IN_TURN
from coterie.errors import ConfigError, DataError, PlanError
from coterie.evaluation.private import OWN
from coterie.experiment.desk import Desk
from coterie.federation.checkpoint import pack_state
from coterie.federation.localstore import FolderStore
from coterie.models.mf import USER_ROWS
from coterie.privacy.plan import Plan
from coterie.settings import AugmentSettings, CleanSettings, DataSettings, SplitSettings
from tests.desks import (
    COLUMNS,
    EASE,
    ITEMS,
    LOG,
    OTHER,
    PRIVATE,
    config,
    desk_of,
    facts,
    items_file,
    rows_of,
    together,
    trained,
    written,
)

# ----------------------------------------------------------------------------------------------- what is contributed


@pytest.mark.parametrize(
    ("model", "augment"),
    [(EASE, {}), ({"name": "ials", "factors": 8, "iterations": 3}, {}), ({"name": "cart"}, {"sub_baskets": 1})],
    ids=["ease", "ials", "cart with augmentation"],
)
def test_desks_with_other_columns_train_what_one_log_trains(
    model: Mapping[str, Any], augment: Mapping[str, Any], tmp_path: Path
) -> None:
    latest = LOG.frame["time"].rank("ordinal") > 0.9 * len(LOG.frame)
    marked = LOG.frame.with_columns(part=pl.when(latest).then(pl.lit("test")).otherwise(pl.lit("train")))
    given = SplitSettings(split="given", part_column="part")
    works = {}
    for shop, names in (("shop1", COLUMNS), ("shop2", OTHER), ("shop3", COLUMNS)):
        frame = marked.filter(pl.col("client") == shop).drop("client")
        if shop == "shop3":  # numbers instead of texts
            frame = frame.with_columns(
                pl.col("user").str.slice(1).cast(pl.Int64), pl.col("basket").hash().cast(pl.String)
            )
        works[shop] = written(tmp_path / shop, frame, names)
    pooled = LOG.with_frame(marked)
    settings = {"model": dict(model), "augment": dict(augment), "evaluation": {"compare": False}}
    run = coterie.train(pooled, test="given", settings=settings)
    job = facts(model, items=run.items, texts=run.catalogue.texts.select("item", "title"))
    more = {"split": given, "augment": AugmentSettings(**augment)}
    opened = {shop: Desk(config(data, shop, **more)).open(job) for shop, data in works.items()}
    assert all(work.coverage["rows"] == 1 for work in opened.values())
    assert pack_state(trained(opened, tmp_path / "stores", job)) == pack_state(run.state)


def test_what_stays_at_users_goes_through_the_store(tmp_path: Path) -> None:
    """Bit for bit what a simulation of the same clients trains, whose store is in memory."""
    job = facts({"name": "mf", "factors": 4, "rounds": 3})
    _, state = together(tmp_path, job, split=SplitSettings(split="none"))
    pooled = coterie.train(LOG, settings={"model": dict(job.model)})
    assert pooled.items == ITEMS
    assert pack_state(state) == pack_state(pooled.state)
    kept = FolderStore(tmp_path / "stores", "shop1").get(USER_ROWS)
    assert kept is not None
    assert len(kept) == desk_of(tmp_path, split=SplitSettings(split="none")).open(job).users


def test_rows_that_stay_at_users_of_another_log_are_refused(tmp_path: Path) -> None:
    job = facts({"name": "mf", "factors": 4, "rounds": 3})
    together(tmp_path, job, split=SplitSettings(split="none"))
    work = desk_of(tmp_path, frame=rows_of("shop1").head(200), split=SplitSettings(split="none")).open(job)
    bound = replace(job, members=3).bound(job.opening())
    assert bound is not None
    with pytest.raises(DataError, match="bring back the log as it was"):
        work.contribute(job.build(), bound.spec, job.opening(), FolderStore(tmp_path / "stores", "shop1"))


def test_the_test_is_never_contributed_and_validation_only_where_it_can_be_taken_out_again(tmp_path: Path) -> None:
    counts = {}
    for name in ("ease", "gfcf"):  # the one keeps its sums, the other does not
        for share in (0.0, 0.1):
            job = facts({"name": name}, members=3)
            work = desk_of(tmp_path, split=SplitSettings(valid_share=share)).open(job)
            bound = job.bound(job.opening())
            assert bound is not None
            sums = work.contribute(job.build(), bound.spec, job.opening(), None)
            counts[name, share] = int(sums["rows"].sum() / bound.spec.part("rows").scale)
    baskets = rows_of("shop1").filter(pl.col("basket").is_not_null())["basket"].n_unique()
    assert counts["ease", 0.0] == counts["ease", 0.1] == counts["gfcf", 0.0]
    assert counts["ease", 0.0] == pytest.approx(0.8 * baskets, rel=0.05)
    assert counts["gfcf", 0.1] == pytest.approx(0.7 * baskets, rel=0.05)


def test_the_digest_names_the_rows_that_are_contributed(tmp_path: Path) -> None:
    job = facts()
    first, again = (desk_of(tmp_path).open(job).digest for _ in range(2))
    other = desk_of(tmp_path, frame=rows_of("shop1").tail(900)).open(job).digest
    assert first == again != other


def test_a_log_in_several_parts_is_one_client_whose_baskets_do_not_meet(tmp_path: Path) -> None:
    """Two tills number their receipts alike, and know the same customers."""
    rows = {"user": ["anna", "anna"], "item": ["a", "b"], "basket": ["1", "1"]}
    for till, item in (("north", "c"), ("south", "d")):
        pl.DataFrame({**rows, "item": ["a", item]}).write_csv(tmp_path / f"{till}.csv")
    logs = tuple(str(tmp_path / f"{till}.csv") for till in ("north", "south"))
    desk = Desk(config(DataSettings(logs=logs), split=SplitSettings(split="none")))
    work = desk.open(
        facts({"name": "popularity"}, items=("a", "b", "c", "d"), texts=pl.DataFrame({"item": ["a"], "title": ["A"]}))
    )
    assert desk.own_users == work.users == 1
    assert work._rows.agreed.population.names == ("shop1",)
    assert work._rows.agreed.population.block.n_baskets == 2


# ---------------------------------------------------------------------------------------------- under a plan with noise


def test_under_privacy_the_assortment_is_the_items_file_and_nothing_of_the_log(tmp_path: Path) -> None:
    listed = (*ITEMS[:20], "NEVER-SOLD")
    data = written(tmp_path / "log", rows_of("shop1").with_columns(name=pl.lit("sold once")), title_column="name")
    desk = Desk(config(data.model_copy(update={"items": items_file(tmp_path / "items.csv", listed)})))
    private, public = desk.assortment(private=True), desk.assortment(private=False)
    assert private.items == tuple(sorted(listed))
    assert private.source == "file"
    assert "sold once" not in private.texts["title"].to_list()  # a title only where something was sold
    assert set(public.items) <= set(ITEMS)
    assert public.source == "log"
    with pytest.raises(PlanError, match="name an items file"):
        desk_of(tmp_path).assortment(private=True)


def test_under_privacy_guests_are_dropped_and_cleaning_looks_at_nobody_else(tmp_path: Path) -> None:
    guests = rows_of("shop1")["user"].is_null().any()
    assert guests
    none = {"split": SplitSettings(split="none")}
    desk = desk_of(tmp_path, **none)
    dropped = desk.open(facts(plan=PRIVATE))
    kept = desk.open(facts(plan=Plan(epsilon=4.0, max_users=1000, guests="basket")))
    assert dropped.users == desk.own_users < kept.users == desk.open(facts()).users
    steps = steps_for(desk._log.settings.clean, LOG, constant=True)
    assert desk._log.prepared(PRIVATE)[0].counting == tuple(step for step in steps if step.scope == "log")
    with pytest.raises(ConfigError, match="looks at all users at once"):
        desk_of(tmp_path, clean=CleanSettings(max_items=10)).open(facts(plan=PRIVATE))


def test_more_users_than_the_public_bound_are_refused_without_a_number(tmp_path: Path) -> None:
    desk = desk_of(tmp_path)
    with pytest.raises(PlanError, match="more users than max_users = 20") as refused:
        desk.open(facts(plan=Plan(epsilon=4.0, max_users=20)))
    assert str(desk.own_users) not in str(refused.value)


def test_no_user_moves_what_another_one_adds_to_the_charged_metrics(tmp_path: Path) -> None:
    """What is summed under epsilon: the row of each user is the same whoever else shops there."""
    job = facts(plan=PRIVATE)
    frame = rows_of("shop1")
    state = trained({"a": desk_of(tmp_path).open(job)}, tmp_path / "stores", job)
    whole = desk_of(tmp_path, "whole", frame).open(job)
    test = whole._prepared.split.test
    assert test is not None
    asked = test.cases.filter(pl.col("user").is_not_null())["user"].unique().sort()
    gone = asked[len(asked) // 2]
    # Its rows go, and nothing else changes: which rows are held out depends on the times of all.
    part = pl.Series("part", ["train"] * len(frame)).zip_with(
        frame["basket"].is_in(test.log.frame["basket"].unique().implode()).not_(), pl.Series(["test"] * len(frame))
    )
    marked, given = frame.with_columns(part), SplitSettings(split="given", part_column="part")
    rows = []
    for name, kept in (("all", marked), ("less", marked.filter(pl.col("user").ne_missing(gone)))):
        data = written(tmp_path / name, kept)
        work = Desk(config(data, split=given)).open(job)
        own = work.metrics_input(job.build(), state).local.get(OWN)
        assert own is not None
        rows.append(own)
    assert len(rows[0]) == len(rows[1]) + 1
    at = asked.to_list().index(gone)
    assert np.array_equal(np.delete(rows[0], at, axis=0), rows[1])


# --------------------------------------------------------------------------------------------- a person's mistakes


def test_a_log_that_changes_is_read_again(tmp_path: Path) -> None:
    desk = desk_of(tmp_path)
    before = desk.own_users
    rows_of("shop1").head(300).write_parquet(tmp_path / "shop1.parquet")
    assert desk.own_users < before


def test_mistakes_name_the_keys_of_the_file_and_not_flags(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"set logs = \["):
        _ = Desk(config(DataSettings())).own_users
    with pytest.raises(DataError, match=r"no such file; correct its name in node\.toml"):
        _ = Desk(config(DataSettings(logs=(str(tmp_path / "gone.csv"),)))).own_users
    rows_of("shop1").rename(OTHER).write_csv(tmp_path / "de.csv")
    with pytest.raises(DataError, match=r"set in \[data\] user_column Kunde item_column Artikel") as told:
        _ = Desk(config(DataSettings(logs=(str(tmp_path / "de.csv"),)))).own_users
    assert "--" not in str(told.value)


def test_ratings_are_asked_of_logs_that_have_them(tmp_path: Path) -> None:
    desk = desk_of(tmp_path)
    with pytest.raises(ConfigError, match="the values beside its baskets are quantities"):
        desk.open(facts({"name": "mf"}, explicit=True))
    assert desk.open(facts(EASE, explicit=True)).users  # a model that does not learn values


def test_ratings_are_predicted_where_every_own_item_was_agreed(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    frame = pl.DataFrame({"user": rng.integers(60, size=1500), "item": rng.choice(ITEMS, 1500)})
    frame = frame.with_columns(value=pl.Series(rng.integers(1, 6, size=1500).astype(float))).unique(["user", "item"])
    desk = desk_of(tmp_path, frame=frame.sort("user", "item").cast({"user": pl.String}))
    for items in (ITEMS, ITEMS[::2]):
        job = facts({"name": "mf", "factors": 4, "rounds": 3}, explicit=True, items=items)
        work = desk.open(job)
        result = work.evaluate(job.build(), trained({"a": work}, tmp_path / str(len(items)), job), None)
        assert result.cases
        assert ("rmse" in result.metrics["federated"]) == (items == ITEMS)
        assert "rmse" in result.metrics["alone"]


def test_a_ray_cluster_is_opened_when_it_is_needed_and_let_go_after_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from contextlib import contextmanager

    from coterie.engines import ray
    from coterie.errors import EnvironmentFault

    opened: list[str] = []

    class Broken:
        def begin(self, *_: Any) -> Any:
            if len(opened) == 1:
                raise EnvironmentFault("the cluster is gone")
            return IN_TURN.begin(*_)

    @contextmanager
    def cluster(address: str | None, note: Any) -> Any:
        opened.append(str(address))
        yield Broken()

    monkeypatch.setattr(ray, "open_cluster", cluster)
    desk = desk_of(tmp_path, engine="ray", ray_address="head:6379")
    job = facts(members=3)
    work, bound = desk.open(job), job.bound(job.opening())
    assert bound is not None
    assert opened == []
    with pytest.raises(EnvironmentFault, match="is gone"):
        work.contribute(job.build(), bound.spec, job.opening(), None)
    local = desk_of(tmp_path).open(job).contribute(job.build(), bound.spec, job.opening(), None)
    for _ in range(2):
        assert np.array_equal(work.contribute(job.build(), bound.spec, job.opening(), None).flat, local.flat)
    assert opened == ["head:6379"] * 2
    desk.close()
