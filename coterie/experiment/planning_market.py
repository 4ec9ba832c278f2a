"""Made-up people and their purchases: what a plan is tried on before there is a log.

The synthetic market of `coterie.data.market`, in which everybody is known, with titles of its own: where two items go
together, their titles share a word four times out of five. Private models lean on titles, and with this share they keep
about as much of what joining gives as on a public retailer's log (3,000 customers at 8 shops, epsilon 8, 4 and 1).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from coterie.data.log import InteractionLog
from coterie.data.market import Market, market
from coterie.errors import ConfigError
from coterie.rng import stream

BASKETS_EACH = 6
TELLING = 0.8  # share of the pairs that go together whose titles say so
MOST_TITLES = 5_000  # items that get titles: comparing more of them takes minutes
_ONSETS, _VOWELS = "bcdfghklmnprstvz", "aeiou"


@dataclass(frozen=True)
class People:
    """Whom a plan is for: so many users at so many clients (0: every user is a client), and what they choose from.

    `titles` says whether items have titles that tell what goes together.

    Raises:
        ConfigError: a number out of range, or fewer users than clients.
    """

    users: int = 5_000
    clients: int = 8
    items: int = 1_000
    titles: bool = True

    def __post_init__(self) -> None:
        for name, least in (("users", 1), ("clients", 0), ("items", 4)):
            if getattr(self, name) < least:
                raise ConfigError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.users < self.clients:
            raise ConfigError(
                f"{self.clients:,} clients with {self.users:,} users: every organisation needs one; give more --users, "
                "fewer --clients, or --clients 0 where every user is a client"
            )

    @property
    def devices(self) -> bool:
        """Whether every client is one user's device."""
        return self.clients in (0, self.users)

    @property
    def organisations(self) -> bool:
        """Whether there are several organisations, each of which could train alone."""
        return self.parties > 1 and not self.devices

    @property
    def parties(self) -> int:
        """How many clients there are."""
        return self.clients or self.users


def made_up(people: People, seed: int) -> InteractionLog:
    """A year of so many people's purchases: equal arguments give equal rows."""
    shops = 1 if people.devices else people.clients
    made = market(shops, people.users, people.items, BASKETS_EACH * people.users, seed, guests=0.0)
    titled = people.titles and people.items <= MOST_TITLES
    titles = pl.Series("title", _titles(made, seed) if titled else [None] * people.items, dtype=pl.String)
    named = pl.DataFrame({"item": made.truth.items, "title": titles})
    texts = made.log.texts.drop("title").join(named, on="item", maintain_order="left")
    frame = made.log.frame
    if people.devices:
        frame = frame.with_columns(client=pl.col("user"))
    return replace(made.log.with_frame(frame), texts=texts, source="made-up log")


def _titles(made: Market, seed: int) -> list[str]:
    """A word for each item, and one for each pair whose titles tell that it goes together."""
    rng = stream(seed, "planning", "titles")
    pairs = made.truth.complements[rng.random(len(made.truth.complements)) < TELLING]
    words = _words(len(made.truth.items) + len(pairs), rng)
    titles = [[word] for word in words[: len(made.truth.items)]]
    for word, pair in zip(words[len(made.truth.items) :], pairs.tolist(), strict=True):
        for item in pair:
            titles[item].append(word)
    return [" ".join(title) for title in titles]


def _words(n: int, rng: np.random.Generator) -> list[str]:
    """Invented words of three syllables."""
    onsets, vowels = rng.integers(len(_ONSETS), size=(n, 3)), rng.integers(len(_VOWELS), size=(n, 3))
    return [
        "".join(_ONSETS[onset] + _VOWELS[vowel] for onset, vowel in zip(*syllables, strict=True))
        for syllables in zip(onsets.tolist(), vowels.tolist(), strict=True)
    ]
