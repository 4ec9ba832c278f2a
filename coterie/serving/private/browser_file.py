"""The file that a browser downloads: neighbours of each item in int8, popularity, ids and titles.

Little-endian, no padding; items stand in order of popularity, most popular first:

    offset      type                what
    0           8 bytes             ``COTERIE1``
    8           uint32              n, the number of items
    12          uint32              e, the number of entries of all rows
    16          uint32              w, the bytes of an item number: 2 or 4
    20          uint32              t, the bytes of the texts
    24          float32             step of `popularity`
    28          float32             step of `added`
    32          uint32 [n + 1]      where the row of each item begins and ends
    ...         float32 [n]         step of each row
    ...         uint16/32 [e]       items of the rows
    ...         int8 [e]            their scores, in steps of the row
    ...         int8 [n]            `popularity`: scores of the empty basket, in steps
    ...         int8 [n]            `added`: what is added to each score whatever the basket holds, in steps
    ...         UTF-8 [t]           JSON: {"ids": [...], "titles": [...]}, a title null where it is the id

The score of item j for a basket is the sum over its items i of ``step_i * value`` where row i has j, plus `added` of j.
Items of equal score come in the order of the file.
"""

from __future__ import annotations

import json
import struct
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie.errors import DataError
from coterie.experiment.run import Run
from coterie.serving.private.quantise import Neighbours, added, blank, neighbours, to_int8
from coterie.types import Items, Pointers, Ragged, Scores

MAGIC, HEADER = b"COTERIE1", struct.Struct("<8sIIIIff")
SMALL = 1 << 16  # items whose numbers have two bytes


@dataclass(frozen=True, eq=False)
class BrowserModel:
    """What the file holds, in the file's own order of items."""

    ids: tuple[str, ...]
    titles: tuple[str | None, ...]
    near: Neighbours
    popularity: NDArray[np.int8]
    popularity_step: float
    added: NDArray[np.int8]
    added_step: float

    @classmethod
    def of(cls, run: Run, most: int) -> BrowserModel:
        """The federation's model of a run, with at most so many neighbours of each item."""
        first, near = popular_first(run), neighbours(run, most)
        ids = tuple(run.items[i] for i in first.tolist())
        titles = tuple(run.catalogue.title(id) for id in ids)
        named = tuple(None if title == id else title for id, title in zip(ids, titles, strict=True))
        popular, popular_step = to_int8(blank(run)[None, first])
        more, more_step = to_int8(added(run)[None, first])
        return cls(ids, named, _reordered(near, first), popular[0], popular_step.item(), more[0], more_step.item())

    def scores(self, cart: Ragged) -> Scores:
        """Scores of all items for each basket of positions, as a browser works them out: float32 [baskets, items]."""
        out = np.empty((len(cart), len(self.ids)), np.float32)
        out[:] = self.added * np.float32(self.added_step)
        self.near.add(cart, out)
        out[np.diff(cart.ptr) == 0] = self.popularity * np.float32(self.popularity_step)
        return out

    def pack(self) -> bytes:
        """The file."""
        n, width = len(self.ids), 2 if len(self.ids) <= SMALL else 4
        texts = json.dumps({"ids": self.ids, "titles": self.titles}, ensure_ascii=False, separators=(",", ":")).encode()
        sizes = (n, len(self.near.item), width, len(texts))
        parts = (
            self.near.ptr.astype("<u4"),
            self.near.scale.astype("<f4"),
            self.near.item.astype(f"<u{width}"),
            self.near.value,
            self.popularity,
            self.added,
        )
        header = HEADER.pack(MAGIC, *sizes, self.popularity_step, self.added_step)
        return b"".join([header, *(part.tobytes() for part in parts), texts])

    @classmethod
    def unpack(cls, content: bytes) -> BrowserModel:
        """Read a file.

        Raises:
            DataError: it is no such file, or not whole.
        """
        if len(content) < HEADER.size or content[:8] != MAGIC:
            raise DataError("not a model for browsers: it does not begin with COTERIE1")
        _, n, entries, width, text, popular_step, added_step = HEADER.unpack_from(content)
        at = HEADER.size
        if len(content) != at + 4 * (n + 1) + 4 * n + (width + 1) * entries + 2 * n + text:
            raise DataError(f"a model for browsers that is not whole: {len(content)} bytes; export it again")
        found = list[NDArray[np.generic]]()
        for kind, count in (("<u4", n + 1), ("<f4", n), (f"<u{width}", entries), ("i1", entries), ("i1", n), ("i1", n)):
            found.append(np.frombuffer(content, kind, count, at))
            at += found[-1].nbytes
        ptr, scale, item, value, popular, more = found
        texts = json.loads(content[at:])
        near = Neighbours(ptr.astype(np.int64), item.astype(np.int32), value.astype(np.int8), scale.astype(np.float32))
        return cls(
            tuple(texts["ids"]),
            tuple(texts["titles"]),
            near,
            popular.astype(np.int8),
            popular_step,
            more.astype(np.int8),
            added_step,
        )


def popular_first(run: Run) -> Pointers:
    """Positions of a run's items, the most popular first; equal ones in their order in the run."""
    return np.argsort(-blank(run), kind="stable")


def _reordered(near: Neighbours, first: Pointers) -> Neighbours:
    """The same rows, where item ``first[a]`` is now item a."""
    place: Items = np.empty(len(first), np.int32)
    place[first] = np.arange(len(first), dtype=np.int32)
    lengths = np.diff(near.ptr)[first]
    ptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    source = np.repeat(near.ptr[first] - ptr[:-1], lengths) + np.arange(ptr[-1])
    row, item = np.repeat(np.arange(len(first)), lengths), place[near.item[source]]
    sort = np.lexsort((item, row))
    return Neighbours(ptr, item[sort], near.value[source][sort], near.scale[first])
