"""Steps of cleaning that count or match rows; rows of a user are those of one user at one client, guests left out."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import polars as pl

from coterie.data.log import COLUMNS
from coterie.data.returns import cancel_returns
from coterie.data.steps import Step
from coterie.types import Integers


@dataclass(frozen=True)
class Duplicates(Step):
    """Rows that repeat an earlier row."""

    name = "exact duplicates"
    scope = "log"

    def describe(self) -> str:
        return "rows that repeat an earlier row in every column were recorded twice"

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        columns = [name for name in frame.columns if name in COLUMNS]
        return frame.unique(columns, keep="first", maintain_order=True)


@dataclass(frozen=True)
class Returns(Step):
    """Returns and what they cancel."""

    name = "returns"
    scope = "log"
    cancels = True
    rewrites = ("value",)

    def describe(self) -> str:
        return (
            "a negative quantity cancels that user's (or guest's basket's) earlier purchases of the item, newest first"
        )

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        return cancel_returns(frame)


@dataclass(frozen=True)
class UnmatchedReturns(Step):
    """What is left of returns after `Returns`."""

    name = "unmatched returns"
    scope = "log"
    cancels = True

    def describe(self) -> str:
        return "negative quantities for which no earlier purchase is in the log are no purchase either"

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        return frame.filter((pl.col("value") > 0).fill_null(value=True))


@dataclass(frozen=True)
class BusyUsers(Step):
    """Users with more than `limit` rows, or with more rows than the quantile `limit` (below 1) of all users."""

    limit: float

    name = "busy users"
    scope = "log"

    def describe(self) -> str:
        return f"users with more rows than {_limit(self.limit, 'users')} are bots or resellers rather than persons"

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        rows = pl.len().over(_user_key(frame))
        known = frame.filter(pl.col("user").is_not_null()).group_by(_user_key(frame)).len()["len"].to_numpy()
        return frame.filter(pl.col("user").is_null() | (rows <= _bound(self.limit, known)))


@dataclass(frozen=True)
class BigBaskets(Step):
    """Baskets with more than `limit` distinct items, or more than the quantile `limit` (below 1) of all baskets."""

    limit: float

    name = "big baskets"
    scope = "log"

    def describe(self) -> str:
        return f"baskets with more distinct items than {_limit(self.limit, 'baskets')} are stocking up, not a purchase"

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        key = [*_user_key(frame), "basket"]
        items = pl.col("item").n_unique().over(key)
        known = (
            frame.filter(pl.col("basket").is_not_null()).group_by(key).agg(pl.col("item").n_unique())["item"].to_numpy()
        )
        return frame.filter(pl.col("basket").is_null() | (items <= _bound(self.limit, known)))


@dataclass(frozen=True)
class FrequentItems(Step):
    """The `count` items with the most rows; equal counts go by id, ascending."""

    count: int

    name = "frequent items"
    scope = "log"

    def describe(self) -> str:
        return f"only the {self.count:,} items with the most rows are kept"

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        items = frame.group_by("item").len().sort(["len", "item"], descending=[True, False])["item"].head(self.count)
        return frame.filter(pl.col("item").is_in(items.implode()))


@dataclass(frozen=True)
class MinimumSupport(Step):
    """k-core: users and items with too few rows go, again and again until all that are left have enough."""

    user_rows: int
    item_rows: int

    name = "minimum support"
    scope = "log"

    def describe(self) -> str:
        return (
            f"users with fewer than {self.user_rows} rows and items with fewer than {self.item_rows} go, until none do"
        )

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        user = _codes(frame, _user_key(frame))
        item = _codes(frame, ["item"])
        guest = frame["user"].is_null().to_numpy()
        at = np.arange(frame.height)
        while True:
            enough = np.bincount(item[at])[item[at]] >= self.item_rows
            enough &= guest[at] | (np.bincount(user[at])[user[at]] >= self.user_rows)
            if enough.all():
                return frame[at]
            at = at[enough]


@dataclass(frozen=True)
class NormaliseValues(Step):
    """Values to 1, to [0, 1] over the log, or minus the user's mean."""

    how: Literal["binary", "minmax", "user-mean"]

    name = "normalise values"
    scope = "log"
    rewrites = ("value",)

    def describe(self) -> str:
        what = {
            "binary": "set to 1",
            "minmax": "scaled to [0, 1] over the log",
            "user-mean": "reduced by their user's mean",
        }
        return f"values are {what[self.how]}"

    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        value = pl.col("value")
        if self.how == "binary":
            return frame.with_columns(value=pl.lit(1.0))
        if self.how == "user-mean":
            mean = value.mean().over(_user_key(frame))
            return frame.with_columns(
                value=pl.when(pl.col("user").is_null()).then(value - value.mean()).otherwise(value - mean)
            )
        span = value.max() - value.min()
        return frame.with_columns(value=pl.when(span > 0).then((value - value.min()) / span).otherwise(value * 0 + 1.0))


def _user_key(frame: pl.DataFrame) -> list[str]:
    return ["client", "user"] if "client" in frame.columns else ["user"]


def _codes(frame: pl.DataFrame, key: list[str]) -> Integers:
    """One integer per distinct key: int64 [rows]."""
    keys = frame.select(key)
    codes = keys.unique().with_row_index("code").with_columns(pl.col("code").cast(pl.Int64))
    return keys.join(codes, on=key, how="left", nulls_equal=True, maintain_order="left")["code"].to_numpy()


def _limit(limit: float, of: str) -> str:
    return f"{limit:g}" if limit >= 1 else f"the {limit:g} quantile of all {of}"


def _bound(limit: float, counts: Integers) -> float:
    if limit >= 1 or not len(counts):
        return limit if limit >= 1 else np.inf
    return float(np.quantile(counts, limit))
