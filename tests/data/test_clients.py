"""Clients: every row and case gets one, a user is never torn apart, and held-out items move nobody."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from coterie.data.blocks import population
from coterie.data.catalogue import Catalogue
from coterie.data.clients import assign_clients, client_table
from coterie.data.log import InteractionLog
from coterie.data.splits import Given, Split, split
from coterie.errors import ConfigError, DataError
from coterie.settings import ClientSettings, SplitSettings

KINDS = 6


def assigned(parts: Split, seed: int = 0, **settings: Any) -> Split:
    return assign_clients(parts, ClientSettings.model_validate(settings), seed)


def shopping(users: int = 300, seed: int = 0) -> InteractionLog:
    """Users who each buy of one kind of items (ids ``<kind>-<n>``), three baskets of four; every fifth is a guest."""
    rng = np.random.default_rng(seed)
    rows = [
        {"user": f"u{u:03}" if u % 5 else None, "basket": f"b{u:03}-{b}", "item": f"{u % KINDS}-{i}"}
        for b in range(3)
        for u in range(users)
        for i in rng.choice(20, 4, replace=False)
    ]
    return InteractionLog(
        pl.DataFrame(rows, schema={"user": pl.String, "item": pl.String, "basket": pl.String}, strict=False)
    )


def parts_of(log: InteractionLog, **settings: Any) -> Split:
    return split(log, SplitSettings.model_validate({"split": "carts", **settings}), seed=0)


def frames(parts: Split) -> list[pl.DataFrame]:
    held = [one for one in (parts.valid, parts.test) if one is not None]
    return [parts.train.frame, *(one.log.frame for one in held), *(one.cases for one in held)]


def difference(parts: Split) -> float:
    """Mean total variation between a client's kinds of items and everybody's."""
    kinds = parts.train.frame.select("client", kind=pl.col("item").str.head(1))
    counts = (
        kinds.pivot("kind", index="client", values="kind", aggregate_function="len")
        .fill_null(0)
        .drop("client")
        .to_numpy()
    )
    shares = counts / counts.sum(axis=1, keepdims=True)
    return float(np.abs(shares - counts.sum(axis=0) / counts.sum()).sum(axis=1).mean() / 2)


@pytest.mark.parametrize("method", [{"clients": "users"}, {"shops": 4}])
def test_every_row_and_case_gets_the_one_client_of_its_user(method: dict[str, Any]) -> None:
    parts = assigned(parts_of(shopping()), **method)
    everywhere = pl.concat([frame.select("client", "user", "basket") for frame in frames(parts)])
    assert everywhere["client"].null_count() == 0
    people = everywhere.with_columns(person=pl.coalesce("user", "basket"))
    assert people.group_by("person").agg(pl.col("client").n_unique())["client"].unique().to_list() == [1]


def test_users_are_clients_and_so_are_guests_baskets() -> None:
    log = InteractionLog(pl.DataFrame({"user": ["u", None, None], "item": list("abc"), "basket": ["1", "2", None]}))
    parts = assigned(parts_of(log, split="none"), clients="auto")
    assert parts.train.frame["client"].to_list() == ["u", "guest:2", "guest:#2"]
    assert population(parts.train, Catalogue.of(log))[0].one_user_each


def test_the_rows_themselves_are_untouched() -> None:
    parts = parts_of(shopping())
    after = assigned(parts, shops=3)
    for one, two in zip(frames(parts), frames(after), strict=True):
        assert two.drop("client").equals(one)
    assert after.test is not None
    assert after.test.cases.columns.index("client") == 3


def test_shops_without_skew_are_alike_and_with_skew_are_not() -> None:
    parts = parts_of(shopping(1200))
    alike, mild, strong = (
        np.mean([difference(assigned(parts, s, shops=4, skew=k)) for s in range(3)]) for k in (0, 2, 50)
    )
    assert alike < 0.08
    assert alike + 0.05 < mild < strong
    assert strong > 0.4


@pytest.mark.parametrize("skew", [0.0, 3.0])
def test_held_out_items_and_unseen_users_move_nobody(skew: float) -> None:
    log = shopping()
    parts = parts_of(log)
    assert parts.test is not None
    assert parts.valid is not None
    renamed = parts.test.log.frame.with_columns(
        item="9-" + pl.col("item"), user=pl.col("user") + "x", basket="9-" + pl.col("basket")
    )
    other = Given(log=log.with_frame(renamed))
    changed = split(parts.train, SplitSettings(split="given"), 0, test=Given(cases=parts.test.cases), valid=other)
    one = assigned(parts, 5, shops=5, skew=skew)
    two = assigned(changed, 5, shops=5, skew=skew)
    assert one.train.frame.equals(two.train.frame)
    assert one.test is not None
    assert two.test is not None
    assert one.test.cases["client"].equals(two.test.cases["client"])


def test_the_order_of_the_rows_does_not_matter_but_the_seed_does() -> None:
    log = shopping()
    parts = parts_of(log, split="none")
    shuffled = parts_of(log.with_frame(log.frame.sample(fraction=1, shuffle=True, seed=1)), split="none")

    def shops(some: Split, seed: int) -> pl.DataFrame:
        frame = assigned(some, seed, shops=5, skew=2.0).train.frame
        return frame.select("basket", "client").unique().sort("basket")

    assert shops(parts, 0).equals(shops(shuffled, 0))
    assert not shops(parts, 0).equals(shops(parts, 1))


def test_every_shop_gets_somebody_and_names_sort_in_order() -> None:
    log = InteractionLog(pl.DataFrame({"user": [f"u{n}" for n in range(12)], "item": ["a"] * 12}))
    parts = assigned(parts_of(log, split="none"), shops=12)
    assert parts.train.frame["client"].sort().to_list() == [f"shop{n:02}" for n in range(1, 13)]
    with pytest.raises(DataError, match="12 users cannot be dealt to 13 shops"):
        assigned(parts_of(log, split="none"), shops=13)


def with_clients(clients: list[str | None]) -> InteractionLog:
    n = len(clients)
    frame = {"user": [f"u{i % 3}" for i in range(n)], "item": [f"i{i}" for i in range(n)], "basket": ["1"] * n}
    return InteractionLog(pl.DataFrame({**frame, "client": clients}, schema_overrides={"client": pl.String}))


def test_the_client_column_is_kept() -> None:
    log = with_clients(["s2", "s1", "s2"])
    for method in ("auto", "column", "files"):
        assert assigned(parts_of(log, split="none"), clients=method).train.frame.equals(log.frame)


def test_a_missing_or_empty_client_column_is_refused() -> None:
    with pytest.raises(DataError, match="--client-column"):
        assigned(parts_of(shopping(), split="none"), clients="column")
    with pytest.raises(DataError, match="give several log files"):
        assigned(parts_of(shopping(), split="none"), clients="files")
    with pytest.raises(DataError, match="1 of 2 rows have no client"):
        assigned(parts_of(with_clients(["s", None]), split="none"))


def test_cases_without_a_client_go_where_their_user_trains() -> None:
    log = with_clients(["s0", "s1", "s2", "s0", "s1", "s1"])
    cases = pl.DataFrame({"user": ["u1", "u0"], "cart": [["i0"], ["i1"]], "targets": [["x"], ["y"]]})
    parts = split(log, SplitSettings(), 0, test=Given(cases=cases))
    test = assigned(parts).test
    assert test is not None
    assert test.cases["client"].to_list() == ["s1", "s0"]

    torn = split(log, SplitSettings(), 0, test=Given(cases=cases.with_columns(user=pl.Series(["u2", None]))))
    with pytest.raises(DataError, match="test cases: 2 of 2 have no client"):
        assigned(torn)
    single = split(with_clients(["s", "s"]), SplitSettings(), 0, test=Given(cases=cases.drop("user")))
    test = assigned(single).test
    assert test is not None
    assert test.cases["client"].to_list() == ["s", "s"]


def test_baskets_of_two_files_stay_apart_when_their_clients_are_not_used() -> None:
    log = InteractionLog(
        pl.DataFrame({"user": ["u", "u"], "item": ["a", "b"], "basket": ["1", "1"], "client": ["f1", "f2"]})
    )
    parts = assigned(parts_of(log, split="none"), clients="users")
    assert parts.train.frame["basket"].to_list() == ["f1/1", "f2/1"]
    assert population(parts.train, Catalogue.of(log))[0].block.n_baskets == 2


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"clients": "shops"}, "--shops 8"), ({"clients": "users", "shops": 3}, "shops = 3 is not used")],
)
def test_settings_that_contradict_each_other_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        assigned(parts_of(shopping(), split="none"), **settings)
    with pytest.raises(ConfigError, match="not used with clients = 'column'"):
        assigned(parts_of(with_clients(["s"]), split="none"), shops=2)


def test_the_table_counts_users_baskets_and_interactions() -> None:
    frame = pl.DataFrame(
        {
            "user": ["u", "u", "v", None, None],
            "item": ["a", "b", "a", "a", "b"],
            "basket": ["1", "1", "1", "g", None],
            "client": ["s1", "s1", "s1", "s1", "s2"],
        }
    )
    table = client_table(parts_of(InteractionLog(frame), split="none"))
    assert table.rows() == [("s1", 2, 3, 4), ("s2", 0, 1, 1)]
    without = client_table(parts_of(InteractionLog(frame.drop("basket")), split="none"))
    assert without["baskets"].to_list() == [None, None]
    with pytest.raises(DataError, match="assign clients first"):
        client_table(parts_of(InteractionLog(frame.drop("client")), split="none"))
