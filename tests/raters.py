"""A world of people with tastes, and the plainest federated factor model on it: what its uploads look like."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float32]


@dataclass(frozen=True)
class World:
    """`has` (bool [users, items]) follows from hidden tastes; `group` (0 or 1) is something that nobody asked for."""

    has: NDArray[np.bool_]
    group: NDArray[np.int64]
    seed: int


@dataclass(frozen=True)
class Factors:
    """After training: a row per user, which stays at home, and how wrong the model is, which does not.

    What user u uploads is the gradient of the item rows: the outer product of ``wrong[u]`` and ``users[u]``.
    """

    users: Matrix
    wrong: Matrix

    def upload(self, user: int) -> NDArray[np.float64]:
        """Float64 [items, factors], clipped to the L2 norm 1."""
        raw = np.outer(self.wrong[user], self.users[user]).astype(np.float64)
        return raw / max(float(np.linalg.norm(raw)), 1.0)


def world(users: int = 1000, items: int = 2000, seed: int = 0) -> World:
    """Tastes of eight dimensions, popular and unpopular items; two of the dimensions lean to the group."""
    rng = np.random.default_rng(seed)
    group = rng.integers(0, 2, users)
    leaning = 0.8 * (2 * group[:, None] - 1) * np.array([1, 1, 0, 0, 0, 0, 0, 0])
    tastes, kinds = rng.normal(size=(users, 8)) + leaning, rng.normal(size=(items, 8))
    chance = _logistic(0.7 * tastes @ kinds.T + rng.normal(size=items) - 4.0)
    return World(rng.random((users, items)) < chance, group, seed)


def train(people: World, factors: int = 32, rounds: int = 30, negatives: int = 4) -> Factors:
    """Logistic matrix factorisation by rounds: three local steps for the user's row, one step for the items' rows."""
    rng = np.random.default_rng([people.seed, 1])
    users, items = people.has.shape
    own = rng.normal(0, 0.1, (users, factors)).astype(np.float32)
    shared = rng.normal(0, 0.1, (items, factors)).astype(np.float32)
    for _ in range(rounds):
        counts = _drawn(people.has, negatives, rng)
        _local_steps(own, shared, people.has, counts)
        shared -= (
            np.float32(4.0 / users) * (_wrong(own, shared, people.has, counts).T @ own) + np.float32(0.01) * shared
        )
    counts = _drawn(people.has, negatives, rng)
    _local_steps(own, shared, people.has, counts)
    return Factors(own, _wrong(own, shared, people.has, counts))


def _local_steps(own: Matrix, shared: Matrix, has: NDArray[np.bool_], counts: Matrix) -> None:
    examples = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    for _ in range(3):
        own -= _wrong(own, shared, has, counts) @ shared / examples + np.float32(0.01) * own


def _drawn(has: NDArray[np.bool_], negatives: int, rng: np.random.Generator) -> Matrix:
    """How often each user trains on each item: once on its own, and on negatives that were drawn for it."""
    users, items = has.shape
    owner = np.repeat(np.arange(users), negatives * has.sum(axis=1))
    counts = np.bincount(owner * items + rng.integers(0, items, len(owner)), minlength=users * items)
    return np.where(has, 1, counts.reshape(users, items)).astype(np.float32)


def _wrong(own: Matrix, shared: Matrix, has: NDArray[np.bool_], counts: Matrix) -> Matrix:
    return (_logistic(own @ shared.T) - has) * counts


def _logistic(x: Any) -> Any:
    return 1 / (1 + np.exp(-x))
