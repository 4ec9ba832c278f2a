"""The market shows what was planted: popularity, seasons, assortments, tastes, complements; and pooling finds more."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from coterie.data.blocks import population
from coterie.data.catalogue import Catalogue
from coterie.data.log import InteractionLog
from coterie.data.market import Market, market
from coterie.errors import ConfigError
from coterie.types import Array, Floats


@pytest.fixture(scope="module")
def made() -> Market:
    return market(shops=4, customers=2000, items=400, baskets=20_000, seed=1)


def counts(frame: pl.DataFrame, made: Market) -> Array:
    """Baskets by item: bool, one row per basket."""
    everyone = Catalogue(made.truth.items)
    block = population(InteractionLog(frame), everyone)[0].block
    hot = np.zeros((block.n_baskets, block.n_items), bool)
    hot[np.repeat(np.arange(block.n_baskets), np.diff(block.basket_ptr)), block.item] = True
    return hot


def cooccurrence(hot: Array) -> Floats:
    return (hot.T.astype(np.float32) @ hot.astype(np.float32)).astype(np.float64)


def planted(made: Market) -> Array:
    n = len(made.truth.items)
    matrix = np.zeros((n, n), bool)
    first, second = made.truth.complements.T
    matrix[first, second] = matrix[second, first] = True
    return matrix


def lift(together: Floats, baskets: int) -> Floats:
    single = np.maximum(np.diag(together), 1)
    return together * baskets / np.outer(single, single)


def found(frame: pl.DataFrame, made: Market, items: Array) -> float:
    """Share of `items` whose nearest item by cosine is a planted complement."""
    together = cooccurrence(counts(frame, made))
    single = np.maximum(np.diag(together), 1)
    cosine = together / np.sqrt(np.outer(single, single))
    np.fill_diagonal(cosine, 0)
    return float(planted(made)[items, cosine[items].argmax(axis=1)].mean())


def test_popularity_falls_as_the_planted_power_of_rank(made: Market) -> None:
    sold = counts(made.log.frame, made).sum(axis=0)
    order = np.argsort(-made.truth.popularity)[:200]
    slope, _ = np.polyfit(np.log(np.arange(1, 201)), np.log(sold[order]), 1)
    assert slope == pytest.approx(-made.truth.exponent, abs=0.15)
    flat = market(items=400, baskets=20_000, exponent=0.0, seed=1)
    slope, _ = np.polyfit(np.log(np.arange(1, 401)), np.log(counts(flat.log.frame, flat).sum(axis=0)), 1)
    assert slope == pytest.approx(0, abs=0.1)


def test_seasonal_items_sell_in_their_season(made: Market) -> None:
    angle = 2 * np.pi * (pl.col("time").dt.ordinal_day() - 0.5) / 365
    seen = (
        made.log.frame.group_by("item").agg(east=angle.cos().mean(), north=angle.sin().mean(), n=pl.len()).sort("item")
    )
    position = Catalogue(made.truth.items).index(seen["item"])
    phase = np.arctan2(seen["north"].to_numpy(), seen["east"].to_numpy()) / (2 * np.pi)
    agreement = np.cos(2 * np.pi * (phase - made.truth.season_phase[position]))
    strength = made.truth.season_strength[position]
    frequent = seen["n"].to_numpy() > 100
    assert agreement[frequent & (strength > 0.5)].mean() > 0.93
    # The first harmonic of 1 + s cos has length s / 2.
    length = np.hypot(seen["north"].to_numpy(), seen["east"].to_numpy())
    assert np.corrcoef(length[frequent], strength[frequent])[0, 1] > 0.8


def test_shops_sell_their_assortments_alone(made: Market) -> None:
    truth = made.truth
    for shop, name in enumerate(truth.shops):
        sold = counts(made.log.frame.filter(pl.col("client") == name), made).any(axis=0)
        assert not (sold & ~truth.assortment[shop]).any()
    assert truth.assortment.any(axis=0).all()
    assert ((truth.assortment.mean(axis=1) >= 0.39) & (truth.assortment.mean(axis=1) <= 0.95)).all()
    assert (truth.assortment[0] & truth.assortment[-1]).any()


def test_shops_are_of_unequal_size_and_have_customers_of_their_own(made: Market) -> None:
    shops = made.log.frame.group_by("client").agg(baskets=pl.col("basket").n_unique()).sort("client")
    assert (shops["baskets"] / 20_000).to_list() == pytest.approx(made.truth.shop_share.tolist(), abs=0.02)
    homes = made.log.frame.drop_nulls("user").group_by("user").agg(pl.col("client").n_unique())
    assert homes["client"].max() == 1
    guests = made.log.frame.group_by("basket").agg(guest=pl.col("user").is_null().all())["guest"].mean()
    assert guests == pytest.approx(0.15, abs=0.01)


def test_users_return_to_items_of_their_taste(made: Market) -> None:
    """Two baskets of one user share tastes more than two baskets of different users."""
    taste = pl.DataFrame(made.truth.taste).with_columns(item=pl.Series(made.truth.items))
    baskets = made.log.frame.drop_nulls("user").join(taste, on="item").group_by("user", "basket")
    profile = baskets.agg(pl.col("^column_.*$").mean()).filter(pl.len().over("user") >= 2).sort("user", "basket")
    vectors = profile.select(pl.col("^column_.*$")).to_numpy()
    vectors = vectors - vectors.mean(axis=0)
    same = (profile["user"][1:] == profile["user"][:-1]).to_numpy()
    likeness = (vectors[1:] * vectors[:-1]).sum(axis=1) / (vectors**2).sum(axis=1).mean()
    assert likeness[same].mean() > 0.1
    assert abs(likeness[~same].mean()) < 0.05


def test_complements_are_bought_together(made: Market) -> None:
    together = cooccurrence(counts(made.log.frame, made))
    frequent = np.diag(together) >= 50
    both = np.outer(frequent, frequent) & ~np.eye(len(frequent), dtype=bool)
    lifts, pairs = lift(together, 20_000), planted(made)
    assert lifts[pairs & both].mean() > 20 * lifts[~pairs & both].mean()
    assert found(made.log.frame, made, np.flatnonzero(frequent)) > 0.9
    assert (planted(made).sum(axis=1) >= 1).mean() > 0.98


def test_a_small_shop_finds_more_complements_with_the_others_than_alone(made: Market) -> None:
    frame = made.log.frame
    own = frame.filter(pl.col("client") == made.truth.shops[-1])
    sold = np.flatnonzero(counts(own, made).sum(axis=0) >= 3)
    assert found(frame, made, sold) > found(own, made, sold) + 0.1


def test_without_pull_nothing_is_planted() -> None:
    alone = market(items=200, baskets=10_000, pull=0.0)
    together = cooccurrence(counts(alone.log.frame, alone))
    assert lift(together, 10_000)[planted(alone)].mean() < 2


def test_rows_are_lines_of_baskets_in_order_of_time(made: Market) -> None:
    frame = made.log.frame
    assert frame["time"].is_sorted()
    assert frame.select("basket", "item").is_unique().all()
    assert frame["basket"].unique().sort().to_list() == [f"B{n:06}" for n in range(1, 20_001)]
    assert frame.group_by("basket").agg(pl.col("user", "client", "time").n_unique()).drop("basket").max().row(0) == (
        1,
        1,
        1,
    )
    assert set(frame["item"]) <= set(made.truth.items)
    assert set(frame["user"].drop_nulls()) <= {f"C{n:04}" for n in range(1, 2001)}
    assert (frame["value"] >= 1).all()


def test_every_item_has_a_title_of_its_own_a_category_and_a_price(made: Market) -> None:
    texts = made.log.texts
    assert texts["item"].to_list() == list(made.truth.items)
    assert texts["title"].is_unique().all()
    assert texts["title"].str.contains(r"^[A-Z][a-z]+ [a-z]+ [a-z ]+( no\. \d+)?$").all()
    assert (texts["price"] > 0).all()
    assert texts["category"].null_count() == 0


def test_equal_arguments_give_equal_rows_and_seeds_differ() -> None:
    def small(seed: int) -> Market:
        return market(2, 50, 40, 300, seed, messy=True)

    assert small(3).log.frame.equals(small(3).log.frame)
    assert small(3).log.texts.equals(small(3).log.texts)
    assert not small(3).log.frame.equals(small(4).log.frame)


def test_a_messy_log_has_what_cleaning_is_for() -> None:
    clean, messy = (market(baskets=3000, messy=messy).log.frame for messy in (False, True))
    assert messy["time"].is_sorted()
    assert messy.filter(pl.col("item") == "POST")["basket"].n_unique() == pytest.approx(150, abs=50)
    assert messy["item"].null_count() > 0
    assert messy["item"].str.contains(r"^a\d+$").sum() > 0
    assert messy.is_duplicated().sum() > 0
    returned = messy.filter(pl.col("value") < 0).with_columns(
        item=pl.col("item").str.to_uppercase(), value=-pl.col("value"), time=pl.col("time") - pl.duration(days=7)
    )
    assert len(returned) > 100
    assert returned["user"].null_count() == 0
    assert len(returned.join(clean, on=["user", "item", "value", "time"], how="semi")) == len(returned)


@pytest.mark.parametrize("shape", [(1, 1, 4, 1), (7, 7, 5, 7), (3, 5, 13, 40)])
def test_the_smallest_markets_hold_together(shape: tuple[int, int, int, int]) -> None:
    tiny = market(*shape)
    assert tiny.log.frame["client"].n_unique() == shape[0]
    assert tiny.log.frame["basket"].n_unique() == shape[3]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"shops": 0}, "shops >= 1, got 0"),
        ({"shops": 5, "customers": 4}, "customers >= 5, got 4"),
        ({"items": 3}, "items >= 4, got 3"),
        ({"baskets": 1}, "baskets >= 4, got 1"),
        ({"guests": 1.5}, "guests must be between 0 and 0.5, got 1.5"),
        ({"pull": -1.0}, "pull must be between 0 and 0.5"),
        ({"exponent": 9.0}, "exponent must be between 0 and 3"),
    ],
)
def test_a_market_that_cannot_be_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        market(**wrong)
