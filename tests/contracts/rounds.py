"""Summands for tests of the loop and of engines: several rounds, and witnesses of who was asked."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from coterie.federation.release import Leave, nothing
from coterie.privacy.plan import BoundRound
from coterie.ring import Accumulator
from coterie.types import Integers, LocalStore, PartSpec, RoundKind, RoundSpec, State, Total, UserBlock

SCALE = 1 << 16


@dataclass(frozen=True)
class PowerIteration:
    """Popularity's slow cousin: the first eigenvector of sum_u x_u x_u^T, by `rounds` rounds of private sums.

    Round t sums x_u (x_u . v_t) over users, truncated to integers, and normalises it to v_{t+1}.
    """

    n_items: int
    rounds: int = 5

    def start(self) -> State:
        return State(0, {"v": np.full(self.n_items, self.n_items**-0.5), "energy": np.zeros(0)})

    def next_round(self, state: State) -> RoundSpec | None:
        if state.round >= self.rounds:
            return None
        bound = float(self.n_items)
        parts = (
            PartSpec("moved", (self.n_items,), "dense", bound, bound, SCALE),
            PartSpec("users", (1,), "dense", 1.0, 1.0, 1),
        )
        return RoundSpec(state.round, "user_sum", parts)

    def budget(self, state: State) -> tuple[float, ...]:
        return (1.0 / self.rounds,) * self.rounds

    def contribute(
        self, spec: RoundSpec, state: State, users: UserBlock, local: LocalStore | None, out: Accumulator
    ) -> None:
        for u in range(users.n_users):
            own = np.unique(users.item[users.user_ptr[u] : users.user_ptr[u + 1]])
            out["moved"][own] += int(SCALE * state["v"][own].sum())
        out["users"][0] += users.n_users

    def apply(self, spec: RoundSpec, state: State, total: Total) -> State:
        moved = total.value("moved")
        length = np.linalg.norm(moved)
        energy = np.append(state["energy"], length / total.value("users"))
        return state.updated(round=spec.index + 1, v=moved / length, energy=energy)


@dataclass
class Witness:
    """A summand that counts its users' interactions, and remembers every block that it was shown.

    With `keeps` (interactions of each user of the population) every user keeps at home how many it had and in how many
    rounds it was asked.
    """

    n_items: int
    l2: float = 1e6
    linf: float = 1e6
    kind: RoundKind = "user_sum"
    keeps: Integers | None = None
    seen: list[UserBlock] = field(default_factory=list)

    def next_round(self, state: State) -> RoundSpec | None:
        if state.round:
            return None
        return RoundSpec(0, self.kind, (PartSpec("counts", (self.n_items,), "dense", self.l2, self.linf, 1),))

    def budget(self, state: State) -> tuple[float, ...]:
        return (1.0,)

    def contribute(
        self, spec: RoundSpec, state: State, users: UserBlock, local: LocalStore | None, out: Accumulator
    ) -> None:
        self.seen.append(users)
        if self.keeps is not None:
            assert local is not None
            before = local.get("rounds")
            local.stage("rounds", (0 if before is None else before) + np.ones(users.n_users, np.int64))
            local.stage("size", np.diff(users.user_ptr))
        np.add.at(out["counts"], users.item, 1)

    def apply(self, spec: RoundSpec, state: State, total: Total) -> State:
        return state.updated(round=1, counts=total.integers["counts"])


@dataclass
class Counting:
    """An engine in front of another, which counts how often clients are asked."""

    users: int
    clients: int
    asked: int = 0

    @property
    def one_user_each(self) -> bool:
        return self.users == self.clients

    def collect(self, summand: object, bound: BoundRound, state: State, leave: Leave = nothing) -> Total:
        self.asked += 1
        integers = {part.name: np.zeros(part.size, np.int64) for part in bound.spec.parts}
        return Total(bound.spec, integers, dict.fromkeys(integers, 0.0), self.clients, bound.upload_bytes)
