"""What somebody sees who knows everything but the coins: all logs, the plan, and every sum that was released.

Round by round the observer takes from a released sum what the real users are known to have added, and asks how much of
each canary is in the rest. With R that rest, C what each canary would add (a row each) and W the inverse variance of
the stated noise, the best linear guess about all coins together is

    scores = (C W C^T + 4 k I)^-1 C W (R - sum(C) / 2)

4 is the inverse variance of a coin, k the share of the stated noise that seems to be there (1 in an honest release);
canaries that resemble each other are told apart by it. Nothing here looks at the coins, except `Measured`, which is no
guess: it says how much noise and how much of a canary was really in a sum.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
from scipy.special import chdtri, ndtri

from coterie.audit.canaries import Canaries
from coterie.audit.kernels import drained
from coterie.engines.local import LocalEngine, kernel_threads
from coterie.federation.localstore import UserStore
from coterie.federation.loop import pinned
from coterie.privacy.accountant import Event
from coterie.privacy.plan import BoundRound, Plan
from coterie.ring import Accumulator
from coterie.types import Floats, Integers, PartSpec, Population, RoundSpec, State, Summand, Total, UserBlock

SURE = 1e-9  # probability that one measured bound is wrong by chance
ENOUGH = 100  # entries from which on the noise of a part can be measured
DENSE = 0.05  # share of entries from which on sparse products are the slower ones
MISMATCH = 6.0  # standard errors beyond which a sum holds more than what is known to be in it


@dataclass(frozen=True, slots=True)
class Measured:
    """What was found in one part of one round, in real units.

    `noise_std` is the standard deviation of what is left of the sum once everybody's contribution is taken away (NaN
    where the part has one entry, in which noise and canaries look the same); `noise_low` and `noise_high` bound it.
    `effect` says how much of its own contribution each canary was in the sum (1: as it should be), at least
    `effect_low`. `largest` is the longest contribution of a canary.
    """

    round: int
    part: PartSpec
    stated_std: float
    noise_std: float
    noise_low: float
    noise_high: float
    effect: float
    effect_low: float
    largest: float

    @property
    def loss(self) -> float:
        """At least how many standard deviations of the noise one canary moved the sum."""
        return max(self.effect_low, 0.0) * self.largest / self.noise_high if self.noise_high > 0 else math.inf


@dataclass
class Observer:
    """Watches one training (`coterie.federation.loop.AfterRound`) and scores its canaries.

    `summand` and `people` are what the observer believes to be trained and on whom. `copies` is at how many clients
    each canary appears.
    """

    summand: Summand
    people: Population
    canaries: Canaries
    plan: Plan
    state: State
    copies: int = 1
    threads: int = 0
    measured: list[Measured] = field(default_factory=list)
    events: list[Event | None] = field(default_factory=list)

    def __post_init__(self) -> None:
        count = len(self.canaries)
        self._crowd = LocalEngine(self.people, self.threads)
        self._store = UserStore(count)
        self._gram = np.zeros((count, count))
        self._answer = np.zeros(count)
        self._rest = self._entries = 0.0
        self._own = self._allowed = 0.0

    def __call__(self, bound: BoundRound, total: Total, state: State) -> None:
        """Take in one released sum."""
        with pinned():
            self._take_in(total)
        self.events.append(bound.event)
        self.state = state

    def _take_in(self, total: Total) -> None:
        crowd = self._crowd.collect(self.summand, BoundRound(total.spec, 64, len(self.people)), self.state).integers
        added = contributions(self.summand, total.spec, self.state, self.canaries.block, self._store)
        for part in total.spec.parts:
            own = added[part.name] * (self.copies / part.scale)
            # Integers are subtracted as such: what is left is exact.
            left = (total.integers[part.name] - self._share(crowd[part.name])) / part.scale
            stated = total.noise_std[part.name]
            self._guess(own, left, self._share(crowd[part.name]) / part.scale, stated or part.l2)
            self._own += float(own.multiply(own).sum()) / len(self.canaries) / (stated or part.l2) ** 2
            self._allowed += (self.copies * part.l2 / (stated or part.l2)) ** 2
            if self.plan.sampler == "all":
                self.measured.append(_measured(total.spec.index, part, stated, own, left, self.canaries))

    def scores(self) -> Floats:
        """How likely each canary is to be in, all rounds together: float64 [canaries], larger for likelier."""
        answer, whole = self._answer - self._gram.sum(axis=1) / 2, np.eye(len(self._answer))
        spare = self._entries - len(answer)
        share = 1.0
        if spare > len(answer):  # what no mix of canaries explains is noise
            ridge = 1e-9 * max(float(np.trace(self._gram)) / len(answer), 1e-300)
            fitted = float(answer @ np.linalg.solve(self._gram + ridge * whole, answer))
            share = min(max((self._rest - fitted) / spare, 1e-6), 1.0)
        return np.asarray(np.linalg.solve(self._gram + 4.0 * share * whole, answer))

    @property
    def strength(self) -> float:
        """How far canaries go towards what the bounds allow one user: 1 is all the way."""
        return math.sqrt(self._own / self._allowed) if self._allowed else 0.0

    def _share(self, crowd: Integers) -> Integers:
        """What the real users add; of those of whom only a sample takes part, on average."""
        if self.plan.sampler == "all":
            return crowd
        return np.rint(self.plan.sampling_rate * crowd).astype(np.int64)

    def _guess(self, own: sp.csr_matrix, left: Floats, crowd: Floats, std: float) -> None:
        """Add what one part says about the coins.

        Where more is left than noise and canaries can be, the real users did not add what they are known to have: what
        they touched is trusted the less the more they added there.
        """
        centred = left - np.asarray(own.sum(axis=0)).ravel() / 2
        expected = std**2 + np.asarray(own.multiply(own).sum(axis=0)).ravel() / 4
        excess = float((centred**2 - expected)[crowd != 0].sum())
        doubt = 0.0
        if excess > MISMATCH * math.sqrt(2.0 * float((expected[crowd != 0] ** 2).sum())):
            doubt = excess / float((crowd**2).sum())
        weight = 1.0 / (std**2 + doubt * crowd**2)
        weighted = own.multiply(weight).tocsr()
        self._gram += _product(weighted, own)
        self._answer += weighted @ left
        self._rest += float(weight @ centred**2)
        self._entries += len(left)


def contributions(
    summand: Summand, spec: RoundSpec, state: State, users: UserBlock, store: UserStore | None = None
) -> dict[str, sp.csr_matrix]:
    """What each user adds by itself, in ring units: for each part a sparse float64 matrix [users, entries].

    `store` keeps what stays at the users between rounds.
    """
    out, store = Accumulator(spec), store or UserStore(users.n_users)
    found: dict[str, list[tuple[Integers, Integers]]] = {part.name: [] for part in spec.parts}
    with kernel_threads(1):  # waking others costs more than one user does
        for at, one in _one_by_one(users):
            summand.contribute(spec, state, one, store.view(at, at + 1), out)
            for name, values in out.parts.items():
                found[name].append(drained(values))
    store.commit()
    return {part.name: _rows(found[part.name], part.size) for part in spec.parts}


def _one_by_one(users: UserBlock) -> Iterator[tuple[int, UserBlock]]:
    for at in range(users.n_users):
        yield at, users.users(at, at + 1)


def _rows(entries: list[tuple[Integers, Integers]], width: int) -> sp.csr_matrix:
    ptr = np.cumsum([0, *(len(where) for where, _ in entries)])
    where = np.concatenate([where for where, _ in entries]) if entries else np.zeros(0, np.int64)
    values = np.concatenate([values for _, values in entries]) if entries else np.zeros(0, np.int64)
    return sp.csr_matrix((values.astype(np.float64), where, ptr), shape=(len(entries), width))


def _product(left: sp.csr_matrix, right: sp.csr_matrix) -> Floats:
    """``left @ right.T``, as dense matrices where they hardly have zeros."""
    if right.nnz > DENSE * right.shape[0] * right.shape[1]:
        return np.asarray(left.toarray() @ right.toarray().T)
    return np.asarray((left @ right.T).toarray())


def _measured(
    round: int, part: PartSpec, stated: float, own: sp.csr_matrix, left: Floats, canaries: Canaries
) -> Measured:
    """Regress what is left on the sum of the canaries that are in: the slope is their effect, the rest is noise."""
    inside = np.asarray(own[np.flatnonzero(canaries.included)].sum(axis=0)).ravel()
    length = float(np.linalg.norm(inside))
    effect = float(inside @ left) / length**2 if length else 0.0
    rest = float(np.sum((left - effect * inside) ** 2))
    freedom = max(part.size - 1, 1)
    high = math.sqrt(rest / chdtri(freedom, 1.0 - SURE)) if part.size > 1 else math.inf
    low = math.sqrt(rest / chdtri(freedom, SURE)) if part.size > 1 else 0.0
    width = -float(ndtri(SURE)) * high / length if length else math.inf
    return Measured(
        round=round,
        part=part,
        stated_std=stated,
        noise_std=math.sqrt(rest / freedom) if part.size > 1 else math.nan,
        noise_low=low,
        noise_high=high,
        effect=effect,
        effect_low=effect - width,
        largest=math.sqrt(float(np.asarray(own.multiply(own).sum(axis=1)).max(initial=0.0))),
    )
