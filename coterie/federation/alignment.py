"""Alignment: where a node's own items stand in the catalogue that was agreed."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from coterie.errors import RunError
from coterie.types import Items, UserBlock


@dataclass(frozen=True)
class Alignment:
    """The bridge between a node's own ids and the positions of the agreed catalogue. It stays at the node.

    `own` are the node's item ids (ascending), `position` (int32) the place of each in the agreed catalogue, -1 where it
    was not agreed; several own items may stand at one place. `n_items` is the size of the agreed catalogue.
    """

    own: tuple[str, ...]
    position: Items
    n_items: int

    @property
    def coverage(self) -> float:
        """The share of own items that were agreed, 0 to 1 (0 without any)."""
        return float((self.position >= 0).mean()) if len(self.own) else 0.0

    @cached_property
    def local(self) -> tuple[str | None, ...]:
        """The own id at each agreed position: the first of several, None where the node carries no such item."""
        found: list[str | None] = [None] * self.n_items
        for item, at in zip(reversed(self.own), self.position[::-1].tolist(), strict=True):
            if at >= 0:
                found[at] = item
        return tuple(found)

    @cached_property
    def carried(self) -> Items:
        """The agreed positions that the node carries: ascending, distinct int32."""
        return np.unique(self.position[self.position >= 0]).astype(np.int32)

    @cached_property
    def positions(self) -> pl.DataFrame:
        """Columns ``item`` (own id) and ``position`` (int32) of what was agreed, to join a log with."""
        frame = pl.DataFrame({"item": self.own, "position": self.position}, schema=_FRAME)
        return frame.filter(pl.col("position") >= 0)

    def index(self, items: Iterable[str]) -> Items:
        """Agreed positions of own ids: int32, -1 where unknown or not agreed."""
        return np.fromiter((self._place.get(item, -1) for item in items), np.int32)

    def coverage_of(self, items: pl.Series) -> float:
        """The share of rows (`items`: the own id of each) whose item was agreed, 0 to 1 (0 without any)."""
        return int(items.is_in(self.positions["item"].implode()).sum()) / len(items) if len(items) else 0.0

    def assortment(self) -> UserBlock:
        """What the node carries as one row of agreed positions: what `coterie.federation.carriers` sums."""
        ptr = np.array([0, len(self.carried)], np.int64)
        return UserBlock(self.n_items, ptr, ptr, self.carried)

    def sentence(self) -> str:
        """How much of the assortment takes part, in words."""
        agreed = int((self.position >= 0).sum())
        return f"{agreed:,} of {len(self.own):,} own items ({self.coverage:.1%}) are in the agreed catalogue"

    def to_bytes(self) -> bytes:
        """For the node's own store."""
        return json.dumps([self.n_items, self.own, self.position.tolist()]).encode()

    @classmethod
    def from_bytes(cls, content: bytes) -> Alignment:
        """What `to_bytes` wrote.

        Raises:
            RunError: it is not that.
        """
        try:
            n_items, own, position = json.loads(content)
            found = cls(tuple(own), np.array(position, np.int32), int(n_items))
            if found.position.shape != (len(own),) or (len(own) and not -1 <= found.position.max() < n_items):
                raise ValueError("its parts do not fit together")
        except (ValueError, TypeError, OverflowError) as error:
            raise RunError(f"the stored alignment of items cannot be read ({error}); start the job again") from None
        return found

    @cached_property
    def _place(self) -> dict[str, int]:
        return dict(zip(self.own, self.position.tolist(), strict=True))


_FRAME = {"item": pl.String, "position": pl.Int32}
