"""What a worker process does at a time: a share of a round, there and back.

A share is some parts of the spans that are summed. What travels there are the rows of each part and what stays at its
users; what comes back are ring elements, and what the summand staged.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeAlias

import numpy as np

from coterie.engines.simulation import kernel_threads
from coterie.engines.spans import Span
from coterie.federation.loop import pinned
from coterie.ring import Accumulator
from coterie.types import Array, Integers, RoundSpec, State, Summand, UserBlock

EACH = 4  # parts of a round for each worker: whoever is quicker does more of them
SMALL = 16 << 20  # bytes of a sum up to which as many shares are worth their way back
LEAST = 10_000  # interactions below which a part costs more to send than to sum

Job: TypeAlias = tuple[Summand, RoundSpec, State]
Kept: TypeAlias = dict[str, Array]
Summed: TypeAlias = tuple[Integers, list[Kept]]
"""The sum of a share (all parts of the round in one vector), and what was staged, by part of the share."""


@dataclass
class Share:
    """Parts of a round that one worker sums; `lost` counts the workers that died over it."""

    parts: Sequence[Span]
    lost: int = 0

    @property
    def n_users(self) -> int:
        return sum(part.n_users for part in self.parts)

    def kept(self) -> list[Kept | None]:
        """What stays at the users of each part: committed arrays [users, ...] by name; None where nothing can."""
        return [_kept(part) for part in self.parts]

    def add(self, summed: Summed, out: Accumulator) -> None:
        """Add what came back, modulo 2^64, and stage what was staged."""
        flat, staged = summed
        np.add(out.flat, flat, out=out.flat)
        for part, values in zip(self.parts, staged, strict=True):
            if (local := part.local) is not None:
                for name, value in values.items():
                    local.stage(name, value)


def shares_of(spans: Sequence[Span], block: int, workers: int, size: int) -> list[Share]:
    """Cut spans into parts of at most `block` interactions and deal these to shares of about equal work.

    Of sums of few bytes (`size`) there are several shares for each worker; of larger ones one, because each of them has
    to travel back.
    """
    fine = sum(span.interactions for span in spans) // (workers * EACH)
    parts = [part for span in spans for part in span.cut(min(block, max(fine, LEAST)))]
    return _dealt(parts, workers * EACH if size <= SMALL else workers)


def sum_share(job: Job, kept: Sequence[Kept | None], *rows: UserBlock) -> Summed:
    """In a worker, on one core: the sum over the rows of all parts, and what is staged at the users of each."""
    summand, spec, state = job
    state = replace(state, arrays={name: array.copy() for name, array in state.arrays.items()})
    out, staged = Accumulator(spec), list[Kept]()
    with kernel_threads(1), pinned():
        for users, mine in zip(rows, kept, strict=True):
            home = None if mine is None else _Home(mine)
            summand.contribute(spec, state, _own(users), home, out)
            staged.append({} if home is None else home.staged)
    return out.flat, staged


class _Home:
    """What stays at the users of one part, in a worker: a `LocalStore` whose staged values travel back."""

    def __init__(self, kept: Kept) -> None:
        self._kept, self.staged = kept, Kept()

    def get(self, name: str) -> Array | None:
        if name not in self._kept:
            return None
        mine = self._kept[name].view()
        mine.flags.writeable = False
        return mine

    def stage(self, name: str, value: Array) -> None:
        self.staged[name] = np.array(value)


def _own(users: UserBlock) -> UserBlock:
    """A copy that may be written to, though nobody does: what workers share is read-only memory, for which every kernel
    would be compiled once more.
    """
    held: dict[str, Any] = {one.name: getattr(users, one.name) for one in fields(users)}
    return replace(users, **{name: held[name].copy() for name in held if isinstance(held[name], np.ndarray)})


def _kept(part: Span) -> Kept | None:
    local, store = part.local, part.store
    if local is None or store is None:
        return None
    found = {name: local.get(name) for name in store.arrays()}
    return {name: array for name, array in found.items() if array is not None}


def _dealt(parts: Sequence[Span], shares: int) -> list[Share]:
    """Each part to whoever has least; the order of parts and shares follows from the parts alone."""
    dealt: list[list[Span]] = [[] for _ in range(min(shares, len(parts)))]
    work = [(0, n) for n in range(len(dealt))]
    for part in parts:
        least, n = work[0]
        dealt[n].append(part)
        heapq.heapreplace(work, (least + part.interactions + part.n_users, n))
    return [Share(some) for some in dealt]
