"""The vocabulary of Coterie as frozen dataclasses, and the protocols that its parts keep.

Read from the top: what data looks like inside (`Ragged`, `UserBlock`, `Population`), what is summed (`PartSpec`,
`RoundSpec`, `Total`), what is learned (`State`), what is asked (`Query`, `Cases`), and who does what (`Summand`,
`Recommender`, `LocalStore`; engines keep `coterie.federation.loop.RoundEngine`).

Items are positions in a catalogue (int32, 0-based); their text ids live in `coterie.data.Catalogue` alone. The
catalogue is sorted by id, never by anything that was counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from coterie.ring import Accumulator

Pointers: TypeAlias = NDArray[np.int64]
Items: TypeAlias = NDArray[np.int32]
Integers: TypeAlias = NDArray[np.int64]
Floats: TypeAlias = NDArray[np.float64]
Scores: TypeAlias = NDArray[np.float32]
Array: TypeAlias = NDArray[Any]

Layout: TypeAlias = Literal["dense", "triangle", "rows"]
RoundKind: TypeAlias = Literal["user_sum", "client_update"]


@dataclass(frozen=True, slots=True)
class Ragged:
    """`n` lists of items: list `q` is ``item[ptr[q]:ptr[q + 1]]`` (ptr int64 [n + 1], item int32)."""

    ptr: Pointers
    item: Items

    def __len__(self) -> int:
        return len(self.ptr) - 1

    def __getitem__(self, q: int) -> Items:
        return self.item[self.ptr[q] : self.ptr[q + 1]]

    def slice(self, start: int, stop: int) -> Ragged:
        """Lists `start` to `stop` (exclusive); items are a view, pointers are re-based."""
        ptr = self.ptr[start : stop + 1]
        return Ragged(ptr - ptr[0], self.item[ptr[0] : ptr[-1]])

    def take(self, rows: Pointers) -> Ragged:
        """The lists `rows`, in that order, copied."""
        lengths = np.diff(self.ptr)[rows]
        ptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
        source = np.repeat(self.ptr[rows] - ptr[:-1], lengths) + np.arange(ptr[-1])
        return Ragged(ptr, self.item[source])

    @classmethod
    def of(cls, lists: Sequence[Sequence[int]]) -> Ragged:
        """Pack Python lists.

        >>> Ragged.of([[3, 1], []]).ptr.tolist()
        [0, 2, 2]
        """
        ptr = np.zeros(len(lists) + 1, np.int64)
        np.cumsum([len(one) for one in lists], out=ptr[1:])
        item = np.fromiter((i for one in lists for i in one), np.int32, count=int(ptr[-1]))
        return cls(ptr, item)


@dataclass(frozen=True, slots=True)
class UserBlock:
    """Interactions of some users, as a client holds them.

    `user_ptr` (int64 [users + 1]) and `basket_ptr` (int64 [baskets + 1]) are offsets into the arrays per interaction:
    `item` (int32), and, where the log has them, `time` (int64, microseconds since 1970 UTC) and `value` (float32).
    Every user boundary is a basket boundary; a log without baskets has one basket per user. Baskets of a user are in
    order of time; items inside a basket are distinct and ascending. A guest's basket is a row of its own, never part
    of a user.
    """

    n_items: int
    user_ptr: Pointers
    basket_ptr: Pointers
    item: Items
    time: Integers | None = None
    value: Scores | None = None
    one_client: bool = True

    @property
    def n_users(self) -> int:
        return len(self.user_ptr) - 1

    @property
    def n_baskets(self) -> int:
        return len(self.basket_ptr) - 1

    def users(self, start: int, stop: int) -> UserBlock:
        """Users `start` to `stop` (exclusive): arrays are views, pointers are re-based."""
        user_ptr = self.user_ptr[start : stop + 1]
        low, high = user_ptr[0], user_ptr[-1]
        # Where a basket is empty its pointer repeats: the first and last equal pointers bound these users' baskets.
        first, last = np.searchsorted(self.basket_ptr, [low, high], side="left")
        cut = np.s_[low:high]
        return UserBlock(
            self.n_items,
            user_ptr - low,
            self.basket_ptr[first : last + 1] - low,
            self.item[cut],
            None if self.time is None else self.time[cut],
            None if self.value is None else self.value[cut],
            self.one_client,
        )

    def take(self, rows: Pointers) -> UserBlock:
        """The users `rows` (ascending), copied."""
        baskets = Ragged(self.user_baskets(), np.arange(self.n_baskets, dtype=np.int32)).take(rows)
        kept = Ragged(self.basket_ptr, np.arange(len(self.item), dtype=np.int32)).take(baskets.item.astype(np.int64))
        time = None if self.time is None else self.time[kept.item]
        value, ptr = None if self.value is None else self.value[kept.item], kept.ptr[baskets.ptr]
        return UserBlock(self.n_items, ptr, kept.ptr, self.item[kept.item], time, value, self.one_client)

    def user_baskets(self) -> Pointers:
        """Offsets of users into baskets: int64 [users + 1]."""
        return np.searchsorted(self.basket_ptr, self.user_ptr, side="left").astype(np.int64)

    def blocks(self, interactions: int) -> Iterator[UserBlock]:
        """Split into blocks of whole users with about `interactions` interactions each (at least one user)."""
        for start, stop in self.ranges(interactions):
            yield self.users(start, stop)

    def ranges(self, interactions: int) -> Iterator[tuple[int, int]]:
        """First user and end of each block of `blocks`."""
        start = 0
        while start < self.n_users:
            limit = self.user_ptr[start] + interactions
            stop = int(np.searchsorted(self.user_ptr, limit, side="right")) - 1
            stop = min(max(stop, start + 1), self.n_users)
            yield start, stop
            start = stop


@dataclass(frozen=True, slots=True)
class Population:
    """The users of several clients, held by one process: a simulation.

    Client `c` owns the users ``client_ptr[c]:client_ptr[c + 1]`` of `block`; no user row spans two clients.
    """

    block: UserBlock
    client_ptr: Pointers
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.names)

    @property
    def one_user_each(self) -> bool:
        """Whether every client is one person's device."""
        return bool((np.diff(self.client_ptr) == 1).all())

    def client(self, c: int) -> UserBlock:
        return self.block.users(int(self.client_ptr[c]), int(self.client_ptr[c + 1]))


@dataclass(frozen=True, slots=True)
class PartSpec:
    """One named array of a contribution, and how far one user can move it.

    `l2` bounds the L2 norm of one user's part (``inf``: unbounded, so that noise is refused), `linf` its largest entry
    (so that ring overflow can be refused even without noise); both in real units, before multiplication by `scale`, the
    number of ring units that stand for 1. `layout` says what the flat vector of ``size`` entries means: ``triangle``
    with shape (n, n) is the upper triangle with its diagonal, row by row. `budget_share` weighs the parts of one round
    against each other when its noise is divided. `clip` is the bound that a plan with noise puts on `l2` where nobody
    chose a clip norm (None: somebody must choose).
    """

    name: str
    shape: tuple[int, ...]
    layout: Layout
    l2: float
    linf: float
    scale: int
    budget_share: float = 1.0
    clip: float | None = None

    @property
    def size(self) -> int:
        """Number of entries that travel."""
        if self.layout == "triangle":
            return self.shape[0] * (self.shape[0] + 1) // 2
        return int(np.prod(self.shape))


@dataclass(frozen=True, slots=True)
class RoundSpec:
    """What one round sums."""

    index: int
    kind: RoundKind
    parts: tuple[PartSpec, ...]

    def part(self, name: str) -> PartSpec:
        return next(part for part in self.parts if part.name == name)


@dataclass(frozen=True, slots=True)
class State:
    """A model's public parameters: `round` rounds have been applied; arrays are never written to."""

    round: int
    arrays: Mapping[str, Array] = field(default_factory=dict)

    def __getitem__(self, name: str) -> Array:
        return self.arrays[name]

    def __contains__(self, name: str) -> bool:
        return name in self.arrays

    def updated(self, round: int | None = None, **arrays: Array) -> State:
        """A new state with these arrays added or replaced."""
        return replace(self, round=self.round if round is None else round, arrays={**self.arrays, **arrays})


@dataclass(frozen=True, slots=True)
class Total:
    """The sum of a round, as the server may see it.

    `integers` are ring units per part (int64, flat); `noise_std` is the standard deviation of the noise in each part,
    in real units (0 without); `finishers` counts the clients in the sum; `upload_bytes` is what each sent.
    """

    spec: RoundSpec
    integers: Mapping[str, Integers]
    noise_std: Mapping[str, float]
    finishers: int
    upload_bytes: int

    def value(self, name: str) -> Floats:
        """The part in real units: float64, flat. Exact while the sum stays below 2^53 ring units."""
        return self.integers[name] / float(self.spec.part(name).scale)


@dataclass(frozen=True, slots=True)
class History:
    """Past baskets of the asking users: entry `e` of query `q` says that `item[e]` was in the basket `age[e]` ago.

    ptr int64 [n + 1], item int32, age int32 (0: the most recent past basket); one entry per item and basket.
    """

    ptr: Pointers
    item: Items
    age: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.ptr) - 1

    def slice(self, start: int, stop: int) -> History:
        ptr = self.ptr[start : stop + 1]
        cut = np.s_[ptr[0] : ptr[-1]]
        return History(ptr - ptr[0], self.item[cut], self.age[cut])


@dataclass(frozen=True, slots=True)
class Query:
    """`n` questions of one client's users: what completes these carts?

    `cart` holds the items in hand (for models over users: the user's known items); aligned with its entries, where
    known, `value` (float32: rating or quantity, NaN unknown) and `step` (int32: how many steps back from now the item
    was taken, 0 the latest; items taken at the same time share a step). `history` holds past baskets where known; it
    enters at scoring time only. `now` is the time of asking (microseconds since 1970 UTC).
    """

    cart: Ragged
    history: History | None = None
    now: int | None = None
    client: str | None = None
    value: Scores | None = None
    step: Items | None = None

    def __len__(self) -> int:
        return len(self.cart)

    def slice(self, start: int, stop: int) -> Query:
        history = None if self.history is None else self.history.slice(start, stop)
        cut = np.s_[self.cart.ptr[start] : self.cart.ptr[stop]]
        value = None if self.value is None else self.value[cut]
        step = None if self.step is None else self.step[cut]
        return replace(self, cart=self.cart.slice(start, stop), history=history, value=value, step=step)

    def without_history(self) -> Query:
        return replace(self, history=None)


@dataclass(frozen=True, slots=True)
class Known:
    """What is known of the users who ask, list by list: what the item part of a score starts from.

    Aligned with the entries of `items`: `amount` (float64: how much each counts; None: 1), `value` (float32: rating or
    quantity, NaN unknown; None: no values) and `step` (int32: steps back from now, 0 the latest; None: no order).
    """

    items: Ragged
    amount: Floats | None = None
    value: Scores | None = None
    step: Items | None = None

    def __len__(self) -> int:
        return len(self.items)

    def amounts(self) -> Floats:
        """How much each entry counts: float64 [entries]."""
        return np.ones(len(self.items.item)) if self.amount is None else self.amount


@dataclass(frozen=True, slots=True)
class Cases:
    """Questions with their held-out answers, of one client.

    `target` lists the relevant items of each query (at least one, all inside the catalogue). With `candidates` only
    those items and the targets are ranked; otherwise the whole catalogue minus `seen`. `group` (int64 [n]) names the
    resampling unit of each case: cases of one user, or of one guest's basket, are not independent. `unreachable` counts
    held-out interactions whose item is not in the catalogue: nobody could recommend them, so they are left out of the
    averages and reported beside them. `target_value` (float32, aligned with ``target.item``, NaN unknown) holds the
    ratings that were given, where the log has values.
    """

    query: Query
    target: Ragged
    seen: Ragged
    group: Integers
    candidates: Ragged | None = None
    unreachable: int = 0
    target_value: Scores | None = None

    def __len__(self) -> int:
        return len(self.target)


class LocalStore(Protocol):
    """What stays at the clients of a block: personal models, user factors. Never part of a contribution.

    Every array has one row per user of the block, in the block's order, so that a store of one device and a store of a
    simulation with a million of them look alike.
    """

    def get(self, name: str) -> Array | None:
        """The committed array [users, ...], or None before the first commit."""

    def stage(self, name: str, value: Array) -> None:
        """Put aside a new value [users, ...]; `get` does not see it before the round is committed."""


class Summand(Protocol):
    """Anything that is computed by rounds of private sums: a model, a metric, a count."""

    def next_round(self, state: State) -> RoundSpec | None:
        """What to sum next, from the state alone; None when done."""

    def budget(self, state: State) -> tuple[float, ...]:
        """The noise budget's share of each round: positive, 1 in sum; no training asks for more rounds than these."""

    def contribute(
        self, spec: RoundSpec, state: State, users: UserBlock, local: LocalStore | None, out: Accumulator
    ) -> None:
        """Add the users' clipped, truncated integers into `out`.

        In a round of kind "user_sum" each row of `users` is bounded by itself (``spec.parts[..].l2`` and ``linf``), so
        the result does not depend on which users share a block. In one of kind "client_update" each client is: where
        ``users.one_client`` the block holds all users of that client. Adding is exact: integers modulo 2^64.
        """

    def apply(self, spec: RoundSpec, state: State, total: Total) -> State:
        """The next state from the sum; equal sums give equal bytes."""


class Recommender(Summand, Protocol):
    """A model: a frozen configuration whose methods are functions of an explicit `State`."""

    name: str

    def init(self, n_items: int, public: Mapping[str, Array], seed: int) -> State:
        """The state before round 0. `public` holds what is known without any log, such as text similarities."""

    def personalise(self, state: State, own: State, weight: float) -> State:
        """The state that one client serves: `weight` of its own, the rest of the federation's."""

    def restrict(self, state: State, items: Items) -> State:
        """The model on the sub-catalogue `items` (ascending positions), refitted from the same sums where it can be."""

    def score(self, state: State, query: Query) -> Scores:
        """Scores of all items: float32 [queries, items]; larger is better; items in the cart are scored too."""

    def explain(self, state: State, query: Query, item: int) -> list[tuple[str, int | None, float]]:
        """Why `item` got its score in the first query: (term, cart item or None, part of the score)."""

    def pooled(self, users: UserBlock, public: Mapping[str, Array], seed: int) -> State:
        """The same model from pooled rows by another path (plain scipy): the comparison, never the product."""
