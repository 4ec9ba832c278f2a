"""A synthetic market with a planted truth: shops that differ, customers with tastes, items that complete each other.

How a basket comes about: a customer of a shop comes at some time of the year with something in mind (one of a few
tastes). A few items are drawn in proportion to their popularity, their taste and their season, from what the shop
sells. Then each of them may bring its planted complements along. Everything is drawn in arrays from named streams.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
import polars as pl

from coterie.data.log import InteractionLog
from coterie.errors import ConfigError
from coterie.rng import stream
from coterie.types import Array, Floats, Integers

START = datetime.fromisoformat("2024-01-01")
TASTES = 8
_YEAR = 365 * 24 * 60  # minutes


@dataclass(frozen=True)
class Truth:
    """What was planted; item `i` is ``items[i]``, in the order of ids.

    `popularity` (float64 [items], sums to 1) falls with rank as rank^-`exponent`. `complements` (int64 [pairs, 2],
    smaller position first) are pairs of items that bring each other along with probability `pull`. `taste` (float64
    [items, tastes]) says how an item's buyers divide among tastes; rows sum to 1. An item sells in proportion to
    ``1 + season_strength * cos(2 pi (t - season_phase))``, t in years. `assortment` (bool [shops, items]) says who
    sells what, `shop_share` (float64 [shops]) which share of the baskets a shop has, the largest first.
    """

    items: tuple[str, ...]
    shops: tuple[str, ...]
    popularity: Floats
    exponent: float
    complements: Integers
    pull: float
    taste: Floats
    season_phase: Floats
    season_strength: Floats
    assortment: Array
    shop_share: Floats


@dataclass(frozen=True)
class Market:
    """A log (client: the shop; guests have no user) and the truth behind it."""

    log: InteractionLog
    truth: Truth


def market(
    shops: int = 4,
    customers: int = 2000,
    items: int = 600,
    baskets: int = 12_000,
    seed: int = 0,
    *,
    guests: float = 0.15,
    exponent: float = 0.8,
    pull: float = 0.3,
    messy: bool = False,
) -> Market:
    """Draw a market of `shops` shops over one year: about four lines a basket, millions of lines in seconds.

    `guests` is the share of baskets without a user, `exponent` that of the popularity law, `pull` the probability that
    an item brings a given complement along. Shops are of unequal size (the largest first); each sells 40 to 90 % of the
    items to customers of its own. With `messy` the log also has what real logs have and cleaning is for: postage lines,
    returns, repeated lines, codes in lower case and lines without an item.

    Ids are text: items ``A00001``, users ``C0001``, baskets ``B000001`` in order of time, shops ``shop1``. Rows are in
    order of time. The texts have ``title``, ``category`` and ``price``. Equal arguments give equal rows.

    Raises:
        ConfigError: a count is too small or beyond 200 million, or a share is out of range.

    >>> made = market(shops=2, customers=20, items=30, baskets=50)
    >>> made.log.frame.columns
    ['user', 'item', 'time', 'value', 'basket', 'client']
    """
    _check({"shops": (shops, 1), "customers": (customers, shops), "items": (items, 4), "baskets": (baskets, shops)})
    _check_shares({"guests": guests, "pull": pull})
    if not 0 <= exponent <= 3:
        raise ConfigError(f"exponent must be between 0 and 3, got {exponent}")
    truth, texts = _plant(shops, items, exponent, pull, seed)
    visits = _visits(truth, customers, baskets, guests, seed)
    basket, item = _fill(truth, visits, seed)
    frame = _frame(truth, visits, basket, item, customers, seed)
    return Market(InteractionLog(_littered(frame, seed) if messy else frame, texts, "synthetic market"), truth)


MOST_ROWS, MOST_ITEMS = 200_000_000, 1_000_000


def _check(counts: dict[str, tuple[int, int]]) -> None:
    for name, (value, least) in counts.items():
        if value < least:
            raise ConfigError(f"a market needs {name} >= {least}, got {value}")
        if value > (MOST_ITEMS if name in ("items", "shops") else MOST_ROWS):
            raise ConfigError(f"a market of {value:,} {name} does not fit one machine; ask for fewer")


def _check_shares(shares: dict[str, float]) -> None:
    for name, value in shares.items():
        if not 0 <= value <= 0.5:
            raise ConfigError(f"{name} must be between 0 and 0.5, got {value}")


# ------------------------------------------------------------------------------------------------------ what is planted


def _plant(shops: int, items: int, exponent: float, pull: float, seed: int) -> tuple[Truth, pl.DataFrame]:
    rng = stream(seed, "market", "truth")
    rank = rng.permutation(items) + 1
    popularity = rank**-exponent / (np.arange(1, items + 1) ** -exponent).sum()
    category = rng.integers(len(_CATEGORIES), size=items)
    leaning = rng.gumbel(size=(len(_CATEGORIES), TASTES))[category] + rng.normal(0, 0.7, (items, TASTES))
    taste = np.exp(2 * leaning)
    share = 1 / np.arange(1, shops + 1)
    width = max(5, len(str(items)))
    truth = Truth(
        items=tuple(f"A{i:0{width}}" for i in range(1, items + 1)),
        shops=tuple(f"shop{s:0{len(str(shops))}}" for s in range(1, shops + 1)),
        popularity=popularity,
        exponent=exponent,
        complements=_complements(rank, rng),
        pull=pull,
        taste=taste / taste.sum(axis=1, keepdims=True),
        season_phase=rng.random(items),
        season_strength=rng.uniform(0.0, 0.9, items),
        assortment=_assortment(shops, items, rng),
        shop_share=share / share.sum(),
    )
    return truth, _texts(truth.items, category, rng)


def _complements(rank: Integers, rng: np.random.Generator, each: int = 2, window: int = 12) -> Integers:
    """Pairs of items of similar rank (complements of unlike popularity would bend the popularity law), `each` per item.

    Each of the `each` passes shuffles items within windows of ranks and pairs neighbours; windows shift between passes.
    """
    by_rank = np.argsort(rank)
    pairs = []
    for turn in range(each):
        place = np.arange(len(rank)) + turn * window // each
        shuffled = by_rank[np.lexsort((rng.random(len(rank)), place // window))]
        pairs.append(shuffled[: len(rank) // 2 * 2].reshape(-1, 2))
    return np.unique(np.sort(np.concatenate(pairs), axis=1), axis=0).astype(np.int64)


def _assortment(shops: int, items: int, rng: np.random.Generator) -> Array:
    """Larger shops sell more: from 90 % of the items down to 40 %; what none would sell, the largest does."""
    breadth = np.linspace(0.9, 0.4, shops) if shops > 1 else np.ones(1)
    sold = rng.random((shops, items)).argsort(axis=1) < np.maximum(np.round(breadth * items), 2)[:, None]
    sold[0] |= ~sold.any(axis=0)
    return sold


# -------------------------------------------------------------------------------------------------- who comes and when


@dataclass(frozen=True)
class _Visits:
    """One entry per basket, in order of time: shop, customer (-1: a guest), minute of the year, what is in mind."""

    shop: Integers
    customer: Integers
    minute: Integers
    taste: Integers


def _visits(truth: Truth, customers: int, baskets: int, guests: float, seed: int) -> _Visits:
    rng = stream(seed, "market", "visits")
    shops = len(truth.shops)
    minute = np.sort(
        rng.integers(365, size=baskets) * 1440 + (rng.triangular(9, 15, 20, baskets) * 60).astype(np.int64)
    )
    shop = np.concatenate([np.arange(shops), rng.choice(shops, baskets - shops, p=truth.shop_share)])
    shop = rng.permutation(shop)  # every shop has a basket at least, and so it has a customer
    home = np.sort(np.concatenate([np.arange(shops), rng.choice(shops, customers - shops, p=truth.shop_share)]))
    prior = truth.popularity @ truth.taste
    shop_mix = rng.dirichlet(30 * prior, shops)
    mix = _dirichlet(2 * shop_mix[home] + 1e-3, rng)
    customer = _Sampler(rng.lognormal(0, 1, customers), np.searchsorted(home, np.arange(shops + 1))).draw(shop, rng)
    guest = rng.random(baskets) < guests
    mind = np.where(guest[:, None], shop_mix[shop], mix[customer])
    return _Visits(shop, np.where(guest, -1, customer), minute, _draw_columns(mind, rng))


def _dirichlet(concentration: Floats, rng: np.random.Generator) -> Floats:
    """One Dirichlet draw per row."""
    draws = rng.gamma(concentration) + np.finfo(float).tiny
    return draws / draws.sum(axis=1, keepdims=True)


def _draw_columns(weights: Floats, rng: np.random.Generator) -> Integers:
    """A column per row, in proportion to the row's weights."""
    cumulated = weights.cumsum(axis=1)
    level = rng.random(len(weights)) * cumulated[:, -1]
    return (cumulated[:, :-1] <= level[:, None]).sum(axis=1)


class _Sampler:
    """Draws positions in proportion to weights, within one of several ranges ``ptr[r]:ptr[r + 1]``."""

    def __init__(self, weights: Floats, ptr: Integers) -> None:
        total = np.concatenate([[0.0], np.cumsum(weights)])
        self._low, self._high = total[ptr[:-1]], total[ptr[1:]]
        self._total, self._last = total, ptr[1:] - 1

    def draw(self, ranges: Integers, rng: np.random.Generator) -> Integers:
        level = self._low[ranges] + rng.random(len(ranges)) * (self._high - self._low)[ranges]
        # side="right" never lands on a weight of zero; rounding may reach the end of a range, hence the limit.
        return np.minimum(np.searchsorted(self._total, level, side="right") - 1, self._last[ranges])


# ------------------------------------------------------------------------------------------------ what is in the basket


def _fill(truth: Truth, visits: _Visits, seed: int) -> tuple[Integers, Integers]:
    """The lines of all baskets as (basket, item), distinct, by basket and item."""
    rng = stream(seed, "market", "items")
    wanted = 1 + rng.poisson(2.0, len(visits.shop))
    basket = np.repeat(np.arange(len(visits.shop)), wanted)
    item = _first_items(truth, visits, basket, rng)
    joined_basket, joined_item = _joined_items(truth, visits, basket, item, rng)
    lines = np.concatenate([basket, joined_basket]) * len(truth.items) + np.concatenate([item, joined_item])
    return np.divmod(np.unique(lines), len(truth.items))


def _first_items(truth: Truth, visits: _Visits, basket: Integers, rng: np.random.Generator) -> Integers:
    """Draw an item per line by popularity, taste and assortment, and again until its season agrees (rejection)."""
    prior = truth.popularity @ truth.taste
    stray = rng.random(len(basket)) < 0.2  # not everything in a basket is of one taste
    taste = np.where(stray, rng.choice(TASTES, len(basket), p=prior / prior.sum()), visits.taste[basket])
    weights = truth.assortment[:, None, :] * (truth.popularity * truth.taste.T)
    sampler = _Sampler(weights.ravel(), np.arange(weights.shape[0] * TASTES + 1) * len(truth.items))
    item, open_ = np.empty(len(basket), np.int64), np.arange(len(basket))
    while len(open_):
        drawn = sampler.draw(visits.shop[basket[open_]] * TASTES + taste[open_], rng) % len(truth.items)
        season = _season(truth, drawn, visits.minute[basket[open_]])
        item[open_] = drawn
        open_ = open_[rng.random(len(open_)) * 2 >= season]
    return item


def _joined_items(
    truth: Truth, visits: _Visits, basket: Integers, item: Integers, rng: np.random.Generator
) -> tuple[Integers, Integers]:
    """The complements that the items bring along: sold by the shop, and rather in their season."""
    pairs = np.concatenate([truth.complements, truth.complements[:, ::-1]])
    pairs = pairs[np.argsort(pairs[:, 0], kind="stable")]
    first = np.searchsorted(pairs[:, 0], np.arange(len(truth.items) + 1))
    count = np.diff(first)[item]
    line = np.repeat(np.arange(len(item)), count)
    turn = np.arange(len(line)) - np.repeat(np.cumsum(count) - count, count)
    joined, basket = pairs[first[item[line]] + turn, 1], basket[line]
    chance = truth.pull * _season(truth, joined, visits.minute[basket])
    comes = (rng.random(len(line)) < chance) & truth.assortment[visits.shop[basket], joined]
    return basket[comes], joined[comes]


def _season(truth: Truth, item: Integers, minute: Integers) -> Floats:
    """How much more than on average an item sells at this time: between 0 and 2."""
    return 1 + truth.season_strength[item] * np.cos(2 * np.pi * (minute / _YEAR - truth.season_phase[item]))


# ---------------------------------------------------------------------------------------------------------- as a log


def _frame(truth: Truth, visits: _Visits, basket: Integers, item: Integers, customers: int, seed: int) -> pl.DataFrame:
    rng = stream(seed, "market", "quantities")
    users = pl.Series("user", [*_ids("C", customers, 4), None], dtype=pl.String)
    minutes = np.datetime64(START, "us") + visits.minute[basket] * np.timedelta64(60_000_000, "us")
    return pl.DataFrame(
        {
            "user": users.gather(np.where(visits.customer < 0, customers, visits.customer)[basket]),
            "item": pl.Series(truth.items).gather(item),
            "time": minutes,
            "value": rng.geometric(0.6, len(item)).astype(np.float64),
            "basket": _ids("B", len(visits.shop), 6).gather(basket),
            "client": pl.Series(truth.shops).gather(visits.shop[basket]),
        }
    )


def _ids(letter: str, n: int, width: int) -> pl.Series:
    number = pl.int_range(1, n + 1, eager=True).cast(pl.String).str.zfill(max(width, len(str(n))))
    return letter + number


def _littered(frame: pl.DataFrame, seed: int) -> pl.DataFrame:
    """The log as a till would write it; everything that is added or spoilt is what a cleaning step looks for."""
    rng = stream(seed, "market", "litter")

    def some(rows: pl.DataFrame, share: float) -> pl.DataFrame:
        return rows.filter(pl.Series(rng.random(len(rows)) < share))

    spoilt = pl.Series(rng.random(len(frame)))
    item = pl.when(spoilt < 0.002).then(None).when(spoilt < 0.03).then(pl.col("item").str.to_lowercase())
    lines = frame.with_columns(item.otherwise(pl.col("item")).alias("item"))
    postage = some(frame.unique("basket", keep="first", maintain_order=True), 0.05).with_columns(
        item=pl.lit("POST"), value=pl.lit(1.0)
    )
    returned = some(frame.filter(pl.col("user").is_not_null()), 0.02)
    returned = returned.with_columns(
        value=-pl.col("value"), basket="R" + pl.col("basket").str.slice(1), time=pl.col("time") + pl.duration(days=7)
    )
    return pl.concat([lines, some(lines, 0.01), postage, returned]).sort("time", "basket", maintain_order=True)


def _texts(items: tuple[str, ...], category: Integers, rng: np.random.Generator) -> pl.DataFrame:
    """Titles like "Red ceramic mug" (numbered where one comes twice), categories and prices."""
    names = list(_CATEGORIES)
    nouns = [_CATEGORIES[names[c]][1] for c in category]
    level = np.array([_CATEGORIES[names[c]][0] for c in category])
    price = np.round(level * rng.lognormal(0, 0.5, len(items)), 2).clip(0.05)
    pick = rng.random((3, len(items)))
    titles = [
        f"{_COLOURS[int(a * len(_COLOURS))]} {_STUFFS[int(b * len(_STUFFS))]} {own[int(c * len(own))]}"
        for a, b, c, own in zip(*pick, nouns, strict=True)
    ]
    texts = pl.DataFrame({"item": items, "title": titles, "category": [names[c] for c in category], "price": price})
    again = pl.int_range(1, pl.len() + 1).over("title")
    numbered = pl.when(again > 1).then(pl.format("{} no. {}", "title", again)).otherwise(pl.col("title"))
    return texts.with_columns(title=numbered)


_COLOURS = (
    "Red",
    "Blue",
    "Green",
    "White",
    "Black",
    "Yellow",
    "Pink",
    "Grey",
    "Ivory",
    "Violet",
    "Orange",
    "Turquoise",
)
_STUFFS = ("ceramic", "wooden", "glass", "cotton", "enamel", "paper", "metal", "felt", "vintage", "striped", "spotted")
_CATEGORIES: dict[str, tuple[float, tuple[str, ...]]] = {
    "kitchen": (4.0, ("mug", "teapot", "bowl", "jug", "tray", "egg cup")),
    "baking": (3.0, ("cake tin", "cake stand", "whisk", "cookie cutter", "rolling pin")),
    "garden": (6.0, ("watering can", "plant pot", "bird house", "trowel", "lantern")),
    "stationery": (1.5, ("notebook", "pencil case", "gift wrap", "card", "ruler")),
    "toys": (3.5, ("puzzle", "doll", "spinning top", "train", "skittles")),
    "lighting": (7.0, ("lamp", "fairy lights", "candle holder", "lamp shade", "night light")),
    "candles": (2.0, ("candle", "tea light", "incense box", "oil burner")),
    "bags": (3.0, ("lunch bag", "shopper", "rucksack", "purse", "wash bag")),
    "bathroom": (4.5, ("soap dish", "towel", "mirror", "bath mat", "brush")),
    "textiles": (8.0, ("cushion", "blanket", "apron", "tea towel", "table cloth")),
    "party": (1.2, ("bunting", "garland", "paper plate", "balloon", "napkin")),
    "jewellery": (5.0, ("bracelet", "necklace", "ring box", "brooch", "hair clip")),
}
