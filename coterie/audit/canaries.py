"""Canaries: made-up users whose taking part is decided by coins, and who would show if anybody's did.

A canary has items of its own choice, at random, so that what two of them add has little in common; and so much of them
that every bound on one user is reached.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from coterie.errors import PlanError
from coterie.rng import stream
from coterie.types import Array, Integers, Population, UserBlock

DAY, MINUTE = 86_400_000_000, 60_000_000  # microseconds
FEWEST = 20  # canaries below which no claim worth making could be contradicted


@dataclass(frozen=True, slots=True)
class Design:
    """What one canary has: so many distinct items, all of them in each of so many baskets.

    They come from all items, or from the most `popular` of them: what some models look at alone.
    """

    items: int
    baskets: int
    popular: bool = False


DESIGNS = tuple(
    Design(items, baskets, popular) for items in (8, 24, 72, 216) for popular in (False, True) for baskets in (1, 8, 32)
)
"""From the lightest user to the heaviest."""
POPULAR = 8  # one item in so many counts as popular


@dataclass(frozen=True, slots=True)
class Canaries:
    """Users [canaries], and which of them take part (bool [canaries])."""

    block: UserBlock
    included: NDArray[np.bool_]

    def __len__(self) -> int:
        return self.block.n_users


def draw(like: UserBlock, design: Design, count: int, seed: int) -> Canaries:
    """`count` canaries for a log such as `like`: with baskets, times and values where it has them.

    Raises:
        PlanError: fewer canaries than `FEWEST`, or no item that they could have.
    """
    if count < FEWEST:
        raise PlanError(f"an audit needs {FEWEST} canaries at least, got {count}")
    if like.n_items < 1:
        raise PlanError("an audit needs items, and the log has none")
    included = stream(seed, "audit", "coins").random(count) < 0.5
    return Canaries(_users(like, design, count, seed), included)


def planted(people: Population, canaries: Canaries, *, copies: int = 1, hold_places: bool = False) -> Population:
    """`people` and the canaries whose coin says so, as clients of their own or dealt to the organisations.

    Args:
        people: the real users.
        canaries: of the same items.
        copies: at how many clients each of them appears.
        hold_places: whether one that is out leaves a user without any interaction behind (replace-one).
    """
    empty = _nobody(people.block)
    block = joined((people.block, canaries.block, empty))
    first = people.block.n_users
    ids = first + np.arange(len(canaries), dtype=np.int64)
    rows = np.where(canaries.included, ids, block.n_users - 1)
    if not hold_places:
        rows = rows[canaries.included]
    if people.one_user_each:
        alone = np.repeat(rows, copies)
        order = np.concatenate([np.arange(first), alone])
        names = (*people.names, *(f"canary {at}" for at in range(len(alone))))
        return Population(block.take(order), np.arange(len(order) + 1, dtype=np.int64), names)
    clients = len(people)
    home = [(np.arange(len(rows)) + copy) % clients for copy in range(min(copies, clients))]
    owner = np.concatenate([np.repeat(np.arange(clients), np.diff(people.client_ptr)), *home])
    order = np.concatenate([np.arange(first), *([rows] * len(home))])
    by_client = np.argsort(owner, kind="stable")
    ptr = np.searchsorted(owner[by_client], np.arange(clients + 1)).astype(np.int64)
    return Population(block.take(order[by_client]), ptr, people.names)


def joined(blocks: Sequence[UserBlock]) -> UserBlock:
    """All users of several blocks of the same kind, one after the other."""
    interactions = np.cumsum([0, *(len(block.item) for block in blocks)])
    first = blocks[0]

    def pointers(name: str) -> Integers:
        shifted = [getattr(block, name)[1:] + at for block, at in zip(blocks, interactions[:-1], strict=True)]
        return np.concatenate([[0], *shifted]).astype(np.int64)

    def column(name: str) -> Array:
        return np.concatenate([getattr(block, name) for block in blocks])

    return UserBlock(
        first.n_items,
        pointers("user_ptr"),
        pointers("basket_ptr"),
        column("item"),
        None if first.time is None else column("time"),
        None if first.value is None else column("value"),
        first.one_client,
    )


def _users(like: UserBlock, design: Design, count: int, seed: int) -> UserBlock:
    rng = stream(seed, "audit", "canaries")
    pool = _pool(like, design)
    width = min(design.items, max(len(pool) // 2, 1))
    baskets = design.baskets if like.n_baskets > like.n_users else 1
    sets = np.stack([np.sort(rng.choice(pool, width, replace=False)) for _ in range(count)])
    item = np.repeat(sets, baskets, axis=0).astype(np.int32).ravel()
    each = width * baskets
    return UserBlock(
        like.n_items,
        np.arange(count + 1, dtype=np.int64) * each,
        np.arange(count * baskets + 1, dtype=np.int64) * width,
        item,
        None if like.time is None else _times(like.time, rng, count, baskets, width),
        None if like.value is None else _values(like.value, rng, len(item)),
        like.one_client,
    )


def _pool(like: UserBlock, design: Design) -> Integers:
    """The items that a canary may have."""
    everything = np.arange(like.n_items, dtype=np.int64)
    if not design.popular:
        return everything
    counts = np.bincount(like.item, minlength=like.n_items)
    most = max(like.n_items // POPULAR, min(2 * design.items, like.n_items))
    return np.asarray(np.argsort(-counts, kind="stable")[:most], np.int64)


def _times(known: Integers, rng: np.random.Generator, count: int, baskets: int, width: int) -> Integers:
    """A day for each basket, and in it a minute for each item, in random order."""
    start = int(np.median(known)) if len(known) else 0
    minutes = rng.permuted(np.tile(np.arange(width), (count * baskets, 1)), axis=1)
    days = np.tile(np.arange(baskets), count)[:, None]
    return (start + days * DAY + minutes * MINUTE).astype(np.int64).ravel()


def _values(known: Array, rng: np.random.Generator, size: int) -> Array:
    """The smallest or the largest value of the log, by coin: what says most."""
    finite = known[np.isfinite(known)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.0, 1.0)
    return np.where(rng.random(size) < 0.5, low, high).astype(np.float32)


def _nobody(like: UserBlock) -> UserBlock:
    """A block of one user without any interaction."""
    none = np.zeros(0, np.int64)
    return replace(
        like,
        user_ptr=np.zeros(2, np.int64),
        basket_ptr=np.zeros(1, np.int64),
        item=none.astype(np.int32),
        time=None if like.time is None else none,
        value=None if like.value is None else none.astype(np.float32),
    )
