"""Summands whose contributions are made in another process: what happens there is told by the sum."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from coterie.errors import PlanError
from coterie.ring import Accumulator
from coterie.types import LocalStore, PartSpec, RoundKind, RoundSpec, State, Total, UserBlock


@dataclass(frozen=True)
class Marked:
    """Counts interactions by item, calls, calls that saw more than one item, and calls for which `limit` was too small.

    Where every user of a client has the client's own item alone, the second number says how often two clients met.
    """

    n_items: int
    limit: int
    kind: RoundKind = "user_sum"

    def next_round(self, state: State) -> RoundSpec | None:
        if state.round:
            return None
        parts = (
            PartSpec("counts", (self.n_items,), "dense", 1e6, 1e6, 1),
            PartSpec("calls", (3,), "dense", 1e6, 1e6, 1),
            PartSpec("alone", (1,), "dense", 1e6, 1e6, 1),
        )
        return RoundSpec(0, self.kind, parts)

    def budget(self, state: State) -> tuple[float, ...]:
        return (1.0,)

    def contribute(
        self, spec: RoundSpec, state: State, users: UserBlock, local: LocalStore | None, out: Accumulator
    ) -> None:
        np.add.at(out["counts"], users.item, 1)
        out["calls"][0] += 1
        out["calls"][1] += int(len(np.unique(users.item)) > 1)
        out["calls"][2] += int(users.n_users > 1 and len(users.item) > self.limit)
        out["alone"][0] += int(users.one_client)

    def apply(self, spec: RoundSpec, state: State, total: Total) -> State:
        return state.updated(round=1, **total.integers)


@dataclass(frozen=True)
class Mortal(Marked):
    """Its process is killed the first `deaths` times that it contributes; `folder` remembers how often."""

    folder: Path = Path()
    deaths: int = 1

    def contribute(
        self, spec: RoundSpec, state: State, users: UserBlock, local: LocalStore | None, out: Accumulator
    ) -> None:
        for death in range(self.deaths):
            try:
                (self.folder / str(death)).touch(exist_ok=False)
            except FileExistsError:
                continue
            os.kill(os.getpid(), signal.SIGKILL)
        super().contribute(spec, state, users, local, out)


@dataclass(frozen=True)
class Failing(Marked):
    """It cannot contribute: a mistake of the person who asked, or no memory."""

    memory: bool = False

    def contribute(
        self, spec: RoundSpec, state: State, users: UserBlock, local: LocalStore | None, out: Accumulator
    ) -> None:
        if self.memory:
            raise MemoryError
        raise PlanError("part 'counts' is not what was agreed; ask again")
