"""Who holds what: every row of a split gets its client.

The assignment looks at training rows alone: what is held out cannot move anybody to another client.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from hashlib import blake2b

import numpy as np
import polars as pl
from scipy.sparse import csr_array
from scipy.special import ndtri
from scipy.stats import rankdata

from coterie.data.cases import ordered
from coterie.data.log import InteractionLog
from coterie.data.splits import HeldOut, Split
from coterie.errors import ConfigError, DataError
from coterie.rng import stream
from coterie.settings import ClientSettings
from coterie.types import Array, Floats


def assign_clients(split: Split, settings: ClientSettings, seed: int) -> Split:
    """The split with a `client` for every training row, held-out row and case.

    column, files: the `client` column as it was read; a held-out row or case without one belongs to the only client at
    which its user trains. users: every user is a client, and so is every guest's basket (``guest:<basket>``). shops:
    users and guests' baskets are dealt to `shops` simulated shops ``shop1``, ...; with `skew` 0 by lot, with more of it
    rather to the shop whose hidden taste their training items match (`_dealt`), so that shops differ in what they sell.
    auto: the client column where there is one, else shops if `shops` is set, else users.

    Raises:
        DataError: the client column is missing or empty in some row, a held-out row's client cannot be told, or there
            are fewer users than shops.
        ConfigError: `shops` is missing where it is needed, or set where it is not used.
    """
    method = _method(split, settings)
    if method in ("column", "files"):
        return _by_column(split)
    split = _with_distinct_baskets(split)
    if method == "users":
        return _applied(split, lambda frame, _: frame.with_columns(client=_person(frame)))
    shops = _shops(split, settings.shops or 1, settings.skew, seed)
    return _applied(split, lambda frame, part: _joined(frame, _unit(frame, part), shops))


def client_table(split: Split) -> pl.DataFrame:
    """What each client trains on: ``client``, ``users`` (without guests), ``baskets`` (null without), ``interactions``.

    Raises:
        DataError: clients have not been assigned.
    """
    if not split.train.has("client"):
        raise DataError(f"{split.train.source}: rows have no client yet; assign clients first")
    baskets = pl.lit(None, pl.UInt32)
    if split.train.has("basket"):
        named = pl.struct("user", "basket").filter(pl.col("basket").is_not_null()).n_unique()
        baskets = named + pl.col("basket").null_count()  # a row without a basket is a basket of its own
    users = pl.col("user").drop_nulls().n_unique()
    table = split.train.frame.group_by("client").agg(users=users, baskets=baskets, interactions=pl.len())
    return table.sort("client")


def _method(split: Split, settings: ClientSettings) -> str:
    method: str = settings.clients
    has_column = split.train.has("client")
    if method == "auto":
        method = "column" if has_column else "users" if settings.shops is None else "shops"
    if method == "shops" and settings.shops is None:
        raise ConfigError("clients = 'shops' needs the number of shops; set it with --shops, such as --shops 8")
    if method != "shops" and settings.shops is not None:
        raise ConfigError(
            f"shops = {settings.shops} is not used with clients = '{method}'; take --clients shops or no --shops"
        )
    if method in ("column", "files") and not has_column:
        remedy = "name it with --client-column" if method == "column" else "give several log files"
        raise DataError(
            f"{split.train.source}: clients = '{method}' needs a client column; {remedy}, or take --clients users"
        )
    return method


def _applied(split: Split, assign: Callable[[pl.DataFrame, str], pl.DataFrame]) -> Split:
    """Let `assign` set the column `client` of the training log, the held-out logs and the cases."""

    def logged(log: InteractionLog, part: str) -> InteractionLog:
        return log.with_frame(assign(log.frame, part))

    def held(one: HeldOut | None, part: str) -> HeldOut | None:
        if one is None:
            return None
        return HeldOut(logged(one.log, part), ordered(assign(one.cases, f"{part} cases")))

    train = logged(split.train, "train")
    return replace(split, train=train, valid=held(split.valid, "valid"), test=held(split.test, "test"))


def _with_distinct_baskets(split: Split) -> Split:
    """Where the log came with clients that are not used, put their names into the basket ids.

    Baskets of two clients may bear one number, and would become one basket if their rows met at a new client.
    """

    def renamed(frame: pl.DataFrame, _: str) -> pl.DataFrame:
        if not {"client", "basket"} <= set(frame.columns):
            return frame
        return frame.with_columns(basket=pl.concat_str(pl.col("client").fill_null(""), "basket", separator="/"))

    return _applied(split, renamed)


# ------------------------------------------------------------------------------------------------------ client column


def _by_column(split: Split) -> Split:
    train = split.train.frame
    if missing := train["client"].null_count():
        raise DataError(
            f"{split.train.source}: {missing} of {len(train)} rows have no client; drop them or fill the client column"
        )
    homes = train.select("user", "client").drop_nulls().unique()
    homes = homes.filter(pl.len().over("user") == 1).rename({"client": "home"})
    only = train["client"][0] if train["client"].n_unique() == 1 else None

    def filled(frame: pl.DataFrame, part: str) -> pl.DataFrame:
        if "client" not in frame.columns:
            frame = frame.with_columns(client=pl.lit(None, pl.String))
        frame = frame.join(homes, on="user", how="left", maintain_order="left")
        frame = frame.with_columns(client=pl.coalesce("client", "home", pl.lit(only, pl.String))).drop("home")
        if unknown := frame["client"].null_count():
            raise DataError(
                f"{part}: {unknown} of {len(frame)} have no client, and their users are at no single client in the "
                f"training log; add the client column to the file"
            )
        return frame

    return _applied(split, filled)


# ------------------------------------------------------------------------------------------------- users and baskets


def _person(frame: pl.DataFrame) -> pl.Expr:
    """The user's id; a guest's basket or, where there is none, the guest's row."""
    basket = pl.col("basket") if "basket" in frame.columns else pl.lit(None, pl.String)
    return pl.coalesce("user", "guest:" + basket, pl.format("guest:#{}", pl.int_range(pl.len())))


def _unit(frame: pl.DataFrame, part: str) -> pl.Series:
    """What is dealt to a shop as a whole, as text: ``u:<user>``, ``b:<basket>`` of a guest, or a guest's single row."""
    basket = pl.col("basket") if "basket" in frame.columns else pl.lit(None, pl.String)
    row = pl.format("r:{}:{}", pl.lit(part), pl.int_range(pl.len()))
    return frame.select(unit=pl.coalesce("u:" + pl.col("user"), "b:" + basket, row)).to_series()


# --------------------------------------------------------------------------------------------------- simulated shops


def _shops(split: Split, shops: int, skew: float, seed: int) -> Callable[[pl.Series], pl.DataFrame]:
    """Deal the units of the training log; return how any units map to their shops (columns ``unit``, ``client``)."""
    train = pl.DataFrame({"unit": _unit(split.train.frame, "train"), "item": split.train.frame["item"]})
    units = train["unit"].unique().sort()
    if shops > len(units):
        raise DataError(
            f"{split.train.source}: {len(units)} users cannot be dealt to {shops} shops; take fewer --shops"
        )
    names = pl.Series([f"shop{s + 1:0{len(str(shops))}}" for s in range(shops)])
    luck = _luck(units, shops, seed)
    taste = skew * _tastes(train, units, shops, seed) if skew else 0.0
    known = pl.DataFrame({"unit": units, "client": names.gather(_dealt(taste + luck))})

    def shop_of(asked: pl.Series) -> pl.DataFrame:
        new = asked.filter(~asked.is_in(units.implode())).unique().sort()
        lot = _luck(new, shops, seed).argmax(axis=1)
        return pl.concat([known, pl.DataFrame({"unit": new, "client": names.gather(lot)})])

    return shop_of


def _joined(frame: pl.DataFrame, unit: pl.Series, shop_of: Callable[[pl.Series], pl.DataFrame]) -> pl.DataFrame:
    frame = frame.drop("client", strict=False).with_columns(unit=unit)
    return frame.join(shop_of(unit), on="unit", how="left", maintain_order="left").drop("unit")


def _dealt(attraction: Floats) -> Array:
    """The most attractive shop of each unit; a shop that nobody chose gets the unit that loses least by moving."""
    shop = attraction.argmax(axis=1)
    for empty in np.setdiff1d(np.arange(attraction.shape[1]), shop):
        loss = attraction[np.arange(len(shop)), shop] - attraction[:, empty]
        alone = np.bincount(shop, minlength=attraction.shape[1])[shop] == 1
        shop[np.where(alone, np.inf, loss).argmin()] = empty
    return shop


def _tastes(train: pl.DataFrame, units: pl.Series, shops: int, seed: int, steps: int = 2) -> Floats:
    """How well each unit's items match each shop's hidden taste: float64 [units, shops], each column normal.

    A shop's taste is a normal draw per item, smoothed by `steps` power steps over who takes what with whom (the
    popularity direction removed): without them, the draws of a user's many items would average out.
    """
    lines = train.unique().sort("unit", "item")  # one order, so that float sums are the same bytes
    items = lines["item"].unique().sort()
    rows, columns = _positions(lines["unit"], units), _positions(lines["item"], items)
    per_unit, per_item = np.bincount(rows, minlength=len(units)), np.bincount(columns, minlength=len(items))
    weight = 1 / np.sqrt(per_unit[rows] * per_item[columns])
    matrix = csr_array((weight, (rows, columns)), shape=(len(units), len(items)))
    popular = np.sqrt(per_item / per_item.sum())[:, None]
    taste = ndtri(_uniform(items, shops, seed, "taste"))
    for _ in range(steps):
        taste = matrix.T @ (matrix @ taste)
        taste -= popular * (popular.T @ taste)
    rank = rankdata(matrix @ taste, axis=0)  # normal scores: a few extreme users do not set the scale of the others
    return ndtri((rank - 0.5) / len(units))


def _positions(values: pl.Series, ids: pl.Series) -> Array:
    table = pl.DataFrame({"id": ids}).with_row_index("position")
    return values.to_frame("id").join(table, on="id", how="left", maintain_order="left")["position"].to_numpy()


def _luck(units: pl.Series, shops: int, seed: int) -> Floats:
    """Gumbel noise per unit and shop, so that taking the largest sum draws by softmax: float64 [units, shops]."""
    return -np.log(-np.log(_uniform(units, shops, seed, "luck")))


def _uniform(ids: pl.Series, n: int, seed: int, purpose: str) -> Floats:
    """Uniform draws in (0, 1) that depend on the id and the column alone: float64 [ids, n].

    The id is hashed with a key from the named stream; SplitMix64 (Steele, Lea and Flood 2014) gives the columns.
    """
    key = stream(seed, "clients", purpose).bytes(32)
    hashed = b"".join(blake2b(text.encode(), digest_size=8, key=key).digest() for text in ids)
    state = np.frombuffer(hashed, "<u8")[:, None] + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
    state = (state ^ (state >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    state = (state ^ (state >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((state ^ (state >> np.uint64(31))) >> np.uint64(11)).astype(np.float64) * 2.0**-53 + 2.0**-54
