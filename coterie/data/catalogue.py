"""The catalogue: which items exist, in the order of their ids, with their texts and attributes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import polars as pl

from coterie.data.log import InteractionLog
from coterie.errors import DataError
from coterie.types import Items


@dataclass(frozen=True)
class Catalogue:
    """Item ids in ascending order, so that a position tells nothing that was counted.

    `texts` has one row per item at most: ``item``, ``title`` and any attributes. Where items were agreed under other
    names (keyed hashes), positions follow the order of those, which tells as little: `by_id` is False then.
    """

    items: tuple[str, ...]
    texts: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema={"item": pl.String, "title": pl.String}))
    by_id: bool = field(default=True, kw_only=True)

    def __post_init__(self) -> None:
        if self.by_id and list(self.items) != sorted(set(self.items)):
            raise DataError("a catalogue's items must be distinct and in ascending order")
        if len(set(self.items)) != len(self.items):
            raise DataError("a catalogue's items must be distinct")

    @classmethod
    def of(cls, *logs: InteractionLog) -> Catalogue:
        """The items of these logs (training logs only: the catalogue must not know what is held out)."""
        items = pl.concat([log.frame["item"] for log in logs]).unique().sort().to_list()
        texts = pl.concat([log.texts for log in logs], how="diagonal_relaxed").unique(
            "item", keep="first", maintain_order=True
        )
        return cls(tuple(items), texts.filter(pl.col("item").is_in(items)))

    @classmethod
    def listed(cls, texts: pl.DataFrame) -> Catalogue:
        """The items of an assortment (`texts`, one row per item): nothing that was bought decides what is in it."""
        texts = texts.filter(pl.col("item").is_not_null()).unique("item", keep="first", maintain_order=True)
        return cls(tuple(texts["item"].sort().to_list()), texts)

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def places(self) -> Mapping[str, int]:
        """Position of each item id."""
        return {item: i for i, item in enumerate(self.items)}

    @cached_property
    def _title(self) -> dict[str, str]:
        return {item: title for item, title in self.texts.select("item", "title").iter_rows() if title}

    @cached_property
    def positions(self) -> pl.DataFrame:
        """Columns ``item`` and ``position`` (int32), to join a log with."""
        return pl.DataFrame(
            {"item": self.items, "position": np.arange(len(self.items), dtype=np.int32)},
            schema={"item": pl.String, "position": pl.Int32},
        )

    def index(self, items: Iterable[str]) -> Items:
        """Positions of item ids: int32, -1 where unknown."""
        return np.fromiter((self.places.get(item, -1) for item in items), np.int32)

    def title(self, item: str) -> str:
        """The item's text, or its id where there is none."""
        return self._title.get(item, item)

    def titles(self) -> Sequence[str | None]:
        """Text per position; None where there is none."""
        return [self._title.get(item) for item in self.items]
