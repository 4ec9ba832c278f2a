"""What one user's part in a training gives away: with and without its noise, to somebody who knows all the others.

For some real users, and for every part of every round that tells items apart: how well does what the user added show
which items the user has (`coterie.audit.attacks`), alone and under the noise of the sum? And how surely can be told
that the user took part at all? Both assume the worst, an attacker who knows what everybody else added.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from scipy.special import ndtr

from coterie.audit.attacks import either_way, standing_out
from coterie.audit.observer import contributions
from coterie.audit.one_run import auc
from coterie.engines.local import LocalEngine
from coterie.errors import DataError
from coterie.federation.localstore import UserStore
from coterie.federation.loop import run_rounds
from coterie.privacy.plan import BoundRound, Plan
from coterie.rng import stream
from coterie.types import Array, Floats, Population, State, Summand, Total, UserBlock


@dataclass(frozen=True)
class Exposed:
    """AUC of "does the user have this item?" from one part: what the user added `alone`, and under the sum's noise."""

    part: str
    alone: float
    noised: float


@dataclass(frozen=True)
class Exposure:
    """What parts say of the items of `users` real users, `popularity` (AUC of a guess that knows nobody) beside it.

    `membership` and `membership_most` are the AUC of telling whether a user took part, all rounds together: of the
    median user and of the one who shows most; 1 without noise.
    """

    users: int
    parts: tuple[Exposed, ...]
    popularity: float
    membership: float
    membership_most: float

    def as_dict(self) -> dict[str, Any]:
        """Everything, fit for JSON."""
        return asdict(self)


def expose(
    summand: Summand,
    people: Population,
    plan: Plan,
    start: State,
    *,
    users: int = 50,
    seed: int = 0,
    threads: int = 0,
    rounds: int | None = None,
) -> Exposure:
    """Train on `people` as `plan` says, and attack what some of them add.

    Args:
        summand: what is trained.
        people: the real users.
        plan: with noise or without; nothing is charged.
        start: the state before round 0.
        users: how many are attacked, drawn among those with interactions.
        seed: of that draw.
        threads: of the kernels.
        rounds: most rounds that are run.

    Raises:
        DataError: nobody has an interaction.
    """
    block = people.block
    active = np.flatnonzero(np.diff(block.user_ptr) > 0)
    if not len(active):
        raise DataError("nobody here has an interaction: there is nothing that a sum could reveal")
    drawn = stream(seed, "audit", "exposed").choice(active, min(users, len(active)), replace=False)
    watch = _Watch(summand, block.take(np.sort(drawn).astype(np.int64)), start, seed)
    run_rounds(summand, start, LocalEngine(people, threads, seed=seed), plan, watch, rounds)
    popular = np.bincount(block.item, minlength=block.n_items).astype(np.float64)
    guessed = [auc(popular, has) for has in watch.has if 0 < has.sum() < len(has)]
    told = ndtr(np.sqrt(watch.shown / 2.0))
    return Exposure(
        users=len(drawn),
        parts=tuple(
            Exposed(name, *(float(np.mean(values)) for values in zip(*found, strict=True)))
            for name, found in watch.found.items()
            if found
        ),
        popularity=float(np.mean(guessed)) if guessed else math.nan,
        membership=float(np.median(told)),
        membership_most=float(np.max(told)),
    )


@dataclass
class _Watch:
    """Keeps, by part, the AUC of each user in each round; `shown` is by how many squared noise units users show."""

    summand: Summand
    users: UserBlock
    state: State
    seed: int
    found: dict[str, list[tuple[float, float]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ptr, n = self.users.user_ptr, self.users.n_items
        mine = [self.users.item[ptr[u] : ptr[u + 1]] for u in range(self.users.n_users)]
        self.has: list[Array] = [np.isin(np.arange(n), items) for items in mine]
        self.shown: Floats = np.zeros(self.users.n_users)
        self._store = UserStore(self.users.n_users)

    def __call__(self, bound: BoundRound, total: Total, state: State) -> None:
        added = contributions(self.summand, total.spec, self.state, self.users, self._store)
        rng = stream(self.seed, "audit", "attack", total.spec.index)
        for part in total.spec.parts:
            std, rows = total.noise_std[part.name], added[part.name] / part.scale
            length = np.asarray(rows.multiply(rows).sum(axis=1)).ravel()
            self.shown += length / std**2 if std else np.where(length > 0, np.inf, 0.0)
            for u, has in enumerate(self.has):
                if not 0 < has.sum() < len(has):
                    continue
                alone = rows[u].toarray()[0]
                scores = [
                    standing_out(part, seen, self.users.n_items)
                    for seen in (alone, alone + rng.normal(0.0, std, len(alone)))
                ]
                if scores[0] is None or scores[1] is None:
                    break  # the part tells no items apart
                told = either_way if part.layout == "rows" else float
                found = tuple(told(auc(score, has)) for score in scores if score is not None)
                self.found.setdefault(part.name, []).append((found[0], found[1]))
        self.state = state
