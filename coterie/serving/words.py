"""The vocabulary of serving: items of a shop, events, questions and answers, as frozen dataclasses.

Times are microseconds since 1970 in UTC, as everywhere; ids are strings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal, TypeAlias

Attribute: TypeAlias = str | float | bool | tuple[str, ...]
EventKind: TypeAlias = Literal["view", "add-to-cart", "remove", "purchase", "impression", "click", "rating"]
Scope: TypeAlias = Literal["recommend", "events", "items", "users", "model", "dashboard", "admin"]
AskKind: TypeAlias = Literal["basket", "user", "similar", "popular"]
Fallback: TypeAlias = Literal["popularity", "rating"]

NOTHING: Mapping[str, Attribute] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Item:
    """What a shop says of an article.

    `stock` None: not counted, always there; 0: gone. `group`: one article's variants share it. `shown` is what answers
    say of it, before and after its score, once `coterie.serving.conversion` has written it: an article changes far more
    rarely than it is suggested.
    """

    id: str
    title: str | None = None
    url: str | None = None
    image: str | None = None
    price: float | None = None
    currency: str | None = None
    stock: int | None = None
    language: str | None = None
    group: str | None = None
    attributes: Mapping[str, Attribute] = field(default_factory=lambda: NOTHING)
    updated_at: int = 0
    shown: tuple[bytes, bytes] | None = field(default=None, init=False, repr=False, compare=False)


@dataclass(frozen=True, slots=True)
class EventLine:
    """One article of an event: `position` counts from 1 in the list that was shown."""

    item: str
    quantity: float | None = None
    price: float | None = None
    position: int | None = None


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in the shop. `id` makes it idempotent; a guest's has no `user`.

    `basket` is the order or cart it belongs to, `recommendation` the id of the answer that it follows from, `value` a
    rating.
    """

    id: str
    kind: EventKind
    time: int
    lines: tuple[EventLine, ...]
    user: str | None = None
    basket: str | None = None
    recommendation: str | None = None
    value: float | None = None


@dataclass(frozen=True, slots=True)
class EventReceipt:
    """What became of a batch: every event is in exactly one of the three."""

    stored: int = 0
    duplicates: int = 0  # their id had been stored before
    declined: int = 0  # the user has not consented, or has opted out


@dataclass(frozen=True, slots=True)
class ErasureReceipt:
    """Proof of an erasure. What is kept of it is everything but `user` and `salt`.

    `proof` is SHA-256(salt || user id): whoever has this receipt can show whom it was about; the store alone cannot.
    """

    id: str
    time: int
    erased: Mapping[str, int]  # rows by kind of record: events, served history, ...
    proof: str
    note: str  # what the erasure does not reach: models trained before, backups, exported files
    user: str = ""
    salt: str = ""


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key as it is kept: its secret is a salted hash. `publishable` ones go into pages of the listed `origins`."""

    id: str
    name: str
    publishable: bool
    scopes: frozenset[Scope]
    origins: tuple[str, ...]
    created_at: int
    hash: str
    expires_at: int | None = None
    revoked_at: int | None = None


@dataclass(frozen=True, slots=True)
class Version:
    """A run that this deployment has served: `id` counts from 1; `fingerprint` is the SHA-256 of its manifest."""

    id: int
    run: str  # the folder
    fingerprint: str
    model: str
    signed_at: int | None  # when it was signed; None: unknown, older than every other
    loaded_at: int
    allowed: tuple[str, ...] = ()  # what was wrong with it and allowed by name: "unsigned", "tampered", "older"


@dataclass(frozen=True, slots=True)
class Rollout:
    """Which versions answer: `challenger` gets `share` of the traffic; `previous` is what a roll-back returns to."""

    champion: int
    challenger: int | None = None
    share: float = 0.0
    previous: int | None = None
    changed_at: int = 0


@dataclass(frozen=True, slots=True)
class BasketLine:
    """An item in hand, with how many and since when where known."""

    item: str
    quantity: float | None = None
    time: int | None = None


@dataclass(frozen=True, slots=True)
class Ask:
    """One question. `filter` and `boost` are expressions over item fields, compiled by `coterie.serving.expressions`.

    `history` are the user's past baskets, oldest first. `diversity` in [0, 1]: 0 is the plain ranking.
    """

    kind: AskKind
    basket: tuple[BasketLine, ...] = ()
    history: tuple[tuple[str, ...], ...] = ()
    k: int = 10
    exclude: frozenset[str] = frozenset()
    include_only: frozenset[str] | None = None
    filter: str | None = None
    boost: str | None = None
    in_stock: bool = True
    diversity: float = 0.0
    explain: bool = False
    client: str | None = None


@dataclass(frozen=True, slots=True)
class Reason:
    """A share of what speaks for a suggestion: `term` as in `coterie recommend --explain`, `item` what led to it."""

    term: str
    item: str | None
    share: float


@dataclass(frozen=True, slots=True)
class Suggestion:
    """One suggested item, best first; `item` carries what the shop says of it (its title at least)."""

    item: Item
    score: float
    because: tuple[Reason, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What a question got.

    `unknown`: ids of the basket that the model does not know; `explored`: position (from 1) of a suggestion that was
    drawn at random instead of ranked, None where none was.
    """

    suggestions: tuple[Suggestion, ...]
    unknown: tuple[str, ...] = ()
    fallback: Fallback | None = None
    explored: int | None = None


@dataclass(frozen=True, slots=True)
class Change:
    """That something in the store changed: `number` grows by 1 with each; every process follows them."""

    number: int
    kind: Literal["item", "rollout", "keys", "consent"]
    key: str = ""
