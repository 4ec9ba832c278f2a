"""What engines hand to their workers: users of one client, or many devices, cut into blocks of bounded memory.

A sum in the ring does not depend on who adds what, so all engines have this in common and differ in the map alone: the
blocks go through one process one after the other, or to the processes of a cluster.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Protocol

from coterie.federation.localstore import UserStore
from coterie.ring import Accumulator
from coterie.types import Array, LocalStore, Pointers, RoundKind, RoundSpec, State, Summand, UserBlock

BLOCK = 2_000_000  # interactions


@dataclass(frozen=True, slots=True)
class Span:
    """Users `start` to `stop` (exclusive) of `block`: all of one client, or (`devices`) many clients of one user each.

    What stays at them is in `store`, whose rows `rows` are the users of `block` (None: it has a row for each of them).
    A span that is `whole` is never cut: a client's own update needs all of its rows at once.
    """

    block: UserBlock
    start: int
    stop: int
    devices: bool = False
    whole: bool = False
    store: UserStore | None = None
    rows: Pointers | None = None

    @property
    def n_users(self) -> int:
        return self.stop - self.start

    @property
    def interactions(self) -> int:
        return int(self.block.user_ptr[self.stop] - self.block.user_ptr[self.start])

    @property
    def users(self) -> UserBlock:
        """The rows, as one call of `Summand.contribute` sees them."""
        users = self.block.users(self.start, self.stop)
        return replace(users, one_client=False) if self.devices else users

    @property
    def local(self) -> LocalStore | None:
        """What stays at these users."""
        return None if self.store is None else self.store.view(self.start, self.stop, self.rows)

    def cut(self, interactions: int) -> Iterator[Span]:
        """Parts of whole users with about so many interactions each."""
        if self.whole:
            yield self
            return
        for start, stop in self.block.users(self.start, self.stop).ranges(interactions):
            yield replace(self, start=self.start + start, stop=self.start + stop)


class Add(Protocol):
    """Adds what the users of some spans contribute to one round."""

    def __call__(self, spans: Iterable[Span], block: int, out: Accumulator, done: Callable[[int], None]) -> None:
        """Add to `out`, and stage what stays at users.

        No call of the summand sees more than about `block` interactions, or users of two spans. `done` is called with
        numbers of users as they are added.
        """


class Workers(Protocol):
    """Who calls `Summand.contribute`."""

    def begin(self, summand: Summand, spec: RoundSpec, state: State) -> Add:
        """Show a round to the workers; what adds spans to it."""


class KeptStore(LocalStore, Protocol):
    """A store that can say all that it holds."""

    def arrays(self) -> dict[str, Array]:
        """All committed arrays by name, each [users, ...]."""


def span_of(users: UserBlock, kind: RoundKind, store: UserStore | None = None) -> Span:
    """All users of one organisation."""
    return Span(users, 0, users.n_users, whole=kind == "client_update", store=store)


def contribution(
    workers: Workers,
    summand: Summand,
    spec: RoundSpec,
    state: State,
    users: UserBlock,
    local: KeptStore | None = None,
    block: int = BLOCK,
) -> Accumulator:
    """The sum over one organisation's own users: clipped and truncated integers, without noise and masks.

    What is staged in `local` is not committed. Equal for all workers and blocks.
    """
    kept = None if local is None else UserStore(users.n_users)
    before = {} if local is None else local.arrays()
    if kept is not None:
        kept.restore(before)
    out = Accumulator(spec)
    workers.begin(summand, spec, state)([span_of(users, spec.kind, kept)], block, out, _unseen)
    if kept is not None and local is not None:
        kept.commit()
        for name, value in kept.arrays().items():
            if value is not before.get(name):
                local.stage(name, value)
    return out


def _unseen(users: int) -> None:
    """Progress that nobody follows."""
