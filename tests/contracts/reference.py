"""The slow, obvious versions that fast code must equal, and small logs to compare them on.

A log is nested lists here: users, each a list of baskets, each a list of item positions. A guest is a user of one
basket.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
from hypothesis import strategies as st

from coterie.engines.local import LocalEngine
from coterie.federation.loop import run_rounds
from coterie.models.base import MARGIN, Model
from coterie.models.gram import GramModel
from coterie.models.kernels.gram import MAX_OVERLAP_ROWS
from coterie.privacy.plan import Plan
from coterie.types import Array, Floats, Integers, PartSpec, Population, RoundSpec, State, UserBlock

Baskets: TypeAlias = Sequence[Sequence[int]]
Log: TypeAlias = Sequence[Baskets]

CLIPS = (None, 1e-3, 0.6, 3.0, 50.0)


def block_of(users: Log, n_items: int) -> UserBlock:
    """Nested lists as arrays; items of a basket are made distinct and ascending."""
    baskets = [sorted(set(basket)) for user in users for basket in user]
    basket_ptr = np.concatenate([[0], np.cumsum([len(basket) for basket in baskets])]).astype(np.int64)
    ends = np.cumsum([len(user) for user in users]).astype(np.int64)
    user_ptr = np.concatenate([[0], basket_ptr[ends]]).astype(np.int64)
    return UserBlock(n_items, user_ptr, basket_ptr, np.array([i for basket in baskets for i in basket], np.int32))


def population_of(clients: Sequence[Log], n_items: int) -> Population:
    """One client per log, named c0, c1, ..."""
    ends = np.cumsum([len(users) for users in clients])
    names = tuple(f"c{at}" for at in range(len(clients)))
    return Population(
        block_of([user for users in clients for user in users], n_items),
        np.concatenate([[0], ends]).astype(np.int64),
        names,
    )


def trained(
    model: Model,
    clients: Sequence[Log],
    n_items: int,
    *,
    plan: Plan | None = None,
    public: Mapping[str, Array] | None = None,
    **engine: Any,
) -> State:
    """The federated model, through the round loop and the local engine."""
    local = LocalEngine(population_of(clients, n_items), **engine)
    return run_rounds(model, model.init(n_items, public or {}, 0), local, plan or Plan())


def zipf_log(users: int, n_items: int, seed: int = 0) -> list[list[list[int]]]:
    """A log with few popular items, many rare ones, and users of one to six baskets."""
    rng = np.random.default_rng(seed)
    share = 1.0 / np.arange(1, n_items + 1)
    share /= share.sum()
    sizes = rng.integers(1, 7, size=users)
    return [
        [
            rng.choice(n_items, size=rng.integers(1, min(8, n_items)), replace=False, p=share).tolist()
            for _ in range(size)
        ]
        for size in sizes
    ]


def checkerboard(n_items: int = 12, users: int = 24) -> list[list[list[int]]]:
    """Users like items of one parity only, and each user leaves out another item of it."""
    return [
        [[i for i in range(n_items) if i % 2 == user % 2 and i // 2 != (user // 2) % (n_items // 2)]]
        for user in range(users)
    ]


@st.composite
def logs(draw: st.DrawFn, n_items: int, min_users: int = 1) -> list[list[list[int]]]:
    """Up to six users: ordinary, guests, empty, with a giant basket, with one basket over and over, with very many."""
    basket = st.lists(st.integers(0, n_items - 1), min_size=1, max_size=n_items, unique=True)
    ordinary = st.lists(basket, min_size=1, max_size=4)
    guest = st.lists(basket, min_size=1, max_size=1)
    giant = st.just([list(range(n_items))])
    repeated = st.builds(lambda one, times: [one] * times, basket, st.sampled_from([2, MAX_OVERLAP_ROWS]))
    many = st.builds(
        lambda pair, times: [pair[at % len(pair)] for at in range(times)],
        st.lists(basket, min_size=1, max_size=3),
        st.sampled_from([MAX_OVERLAP_ROWS + 1, MAX_OVERLAP_ROWS + 36]),
    )
    one = st.one_of(ordinary, guest, giant, repeated, many, st.just([]))
    return draw(st.lists(one, min_size=min_users, max_size=6))


def rows_of(model: Model, user: Baskets) -> list[list[int]]:
    """What the model takes as the rows of a user."""
    if isinstance(model, GramModel) and model.row_unit == "user":
        own = sorted({i for basket in user for i in basket})
        return [own] if own else []
    return [sorted(set(basket)) for basket in user]


def real_sums(model: Model, users: Log, n_items: int) -> dict[str, Floats]:
    """Gram (full matrix), counts and number of rows of a log, in floating point, neither clipped nor truncated."""
    exponent = model.row_exponent if isinstance(model, GramModel) else 0.0
    gram, counts, number = np.zeros((n_items, n_items)), np.zeros(n_items), 0.0
    for user in users:
        for row in rows_of(model, user):
            x = _indicator(row, n_items)
            gram += len(row) ** -exponent * np.outer(x, x)
            counts += x
            number += 1
    return {"gram": gram, "counts": counts, "rows": np.array([number])}


def contribution(model: Model, spec: RoundSpec, users: Log, n_items: int) -> dict[str, Integers]:
    """What the users add to a round, user by user: clip, truncate towards zero to integers, sum."""
    total = {part.name: np.zeros(part.size, np.int64) for part in spec.parts}
    for user in users:
        rows = rows_of(model, user)
        for part in spec.parts:
            total[part.name] += _PARTS[part.name](model, part, rows, n_items)
    return total


def _gram(model: Model, part: PartSpec, rows: list[list[int]], n_items: int) -> Integers:
    assert isinstance(model, GramModel)
    upper = np.triu_indices(n_items)
    weights = [float(len(row)) ** -model.row_exponent for row in rows]
    squares = [np.outer(x, x)[upper] for x in (_indicator(row, n_items) for row in rows)]
    if len(rows) > MAX_OVERLAP_ROWS:
        norm = sum(weight * float(np.linalg.norm(square)) for weight, square in zip(weights, squares, strict=True))
    else:
        real = sum((w * s for w, s in zip(weights, squares, strict=True)), np.zeros(part.size))
        norm = float(np.linalg.norm(real))
    factor = _factor(norm, sum(weights), part)
    total = np.zeros(part.size, np.int64)
    for weight, square in zip(weights, squares, strict=True):
        total += math.floor(part.scale * factor * weight) * square.astype(np.int64)
    return total


def _counts(model: Model, part: PartSpec, rows: list[list[int]], n_items: int) -> Integers:
    counts = sum((_indicator(row, n_items) for row in rows), np.zeros(n_items))
    factor = _factor(float(np.linalg.norm(counts)), float(counts.max(initial=0.0)), part)
    return math.floor(part.scale * factor) * counts.astype(np.int64)


def _rows(model: Model, part: PartSpec, rows: list[list[int]], n_items: int) -> Integers:
    number = float(len(rows))
    return np.array([math.floor(part.scale * number * _factor(number, number, part))], np.int64)


def _factor(norm: float, largest: float, part: PartSpec) -> float:
    shrink = min(part.l2 / norm if norm else math.inf, part.linf / largest if largest else math.inf)
    return min(1.0, shrink * MARGIN)


def _indicator(row: Sequence[int], n_items: int) -> Floats:
    x = np.zeros(n_items)
    x[list(row)] = 1.0
    return x


_PARTS = {"gram": _gram, "counts": _counts, "rows": _rows}
