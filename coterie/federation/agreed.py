"""What was agreed: the catalogue over which a job sums. It travels in the signed start of the job."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from coterie.data.catalogue import Catalogue
from coterie.errors import DataError, PeerError
from coterie.federation.itemtable import ITEM, TITLE, Blob, decode_items, encode_items
from coterie.types import Integers

Mode: TypeAlias = Literal["given", "union", "hashed"]
Counts: TypeAlias = NDArray[np.int32]

MODES: tuple[str, ...] = get_args(Mode)
MOST_MEMBERS = 10_000
_TERMS, _ITEMS, _CARRIERS = "terms", "items", "carriers"
_HASH = re.compile("[0-9a-f]{32}")


@dataclass(frozen=True)
class Agreed:
    """Items on which a federation agreed.

    `items` are ids, in mode "hashed" keyed hashes (32 hexadecimal digits), ascending; `texts` what is said of them, one
    row for each (``item``, ``title``, attributes; in mode "hashed" without any title). `carriers` (int32 [items]) says
    how many of the `members` carry each item; None while nobody has counted, as in mode "given" before the secure sum
    of `coterie.federation.carriers`. Every item that was counted has at least `min_carriers`.
    """

    mode: Mode
    items: tuple[str, ...]
    texts: pl.DataFrame
    carriers: Counts | None
    min_carriers: int
    members: int

    def __post_init__(self) -> None:
        if list(self.items) != self.texts[ITEM].to_list():
            raise DataError("the texts of an agreed catalogue must have one row for each of its items, in their order")

    @property
    def catalogue(self) -> Catalogue:
        """The same as a catalogue of ids (of hashes in mode "hashed")."""
        return Catalogue(self.items, self.texts)

    @property
    def counted(self) -> bool:
        """Whether carriers were counted, or need not be."""
        return self.carriers is not None or self.min_carriers <= 1

    def count(self, carriers: Integers, members: int) -> Agreed:
        """The items that at least `min_carriers` of `members` nodes carry.

        `carriers` (int64 [items]) is the sum of what each carries.

        Raises:
            PeerError: no item is left, or the sum is not one of zeros and ones of so many nodes.
        """
        if len(carriers) != len(self.items) or not ((carriers >= 0) & (carriers <= members)).all():
            raise PeerError(
                f"the counts of who carries an item are not between 0 and the {members} nodes that were counted: one "
                "of them sent something else than zeros and ones"
            )
        kept = np.flatnonzero(carriers >= self.min_carriers)
        if not len(kept):
            raise PeerError(nothing_agreed(len(self.items), self.min_carriers))
        items = tuple(self.items[at] for at in kept.tolist())
        texts = self.texts.filter(pl.col(ITEM).is_in(items))
        return replace(self, items=items, texts=texts, carriers=carriers[kept].astype(np.int32), members=members)

    @property
    def digest(self) -> bytes:
        """SHA-256 over all of it (32 bytes)."""
        whole = hashlib.sha256()
        for name, blob in sorted(self.to_blobs().items()):
            whole.update(b"%s %d\n" % (name.encode(), len(blob)))
            whole.update(blob)
        return whole.digest()

    def to_blobs(self) -> dict[str, bytes]:
        """What travels; equal agreements give equal bytes."""
        terms = {"mode": self.mode, "min_carriers": self.min_carriers, "members": self.members}
        blobs = {_TERMS: json.dumps(terms, sort_keys=True).encode(), _ITEMS: encode_items(self.texts)}
        if self.carriers is not None:
            blobs[_CARRIERS] = self.carriers.astype("<i4").tobytes()
        return blobs

    @classmethod
    def from_blobs(cls, blobs: Mapping[str, Blob], sender: str = "the coordinator") -> Agreed:
        """What `to_blobs` wrote.

        Raises:
            PeerError: it is not that; names the `sender`.
        """
        if not {_TERMS, _ITEMS} <= set(blobs) <= {_TERMS, _ITEMS, _CARRIERS}:
            raise PeerError(f"{sender}: sent an agreed catalogue without its terms or items, or with something else")
        mode, min_carriers, members = _terms(blobs[_TERMS], sender)
        texts = decode_items(blobs[_ITEMS], sender)
        items = tuple(texts[ITEM].to_list())
        if mode == "hashed":
            _refuse_readable(texts, items, sender)
        carriers = None
        if _CARRIERS in blobs:
            carriers = _carriers(blobs[_CARRIERS], len(items), min_carriers, members, sender)
        if not items:
            raise PeerError(f"{sender}: sent an agreed catalogue without a single item")
        return cls(mode, items, texts, carriers, min_carriers, members)


def nothing_agreed(items: int, min_carriers: int) -> str:
    """Why a catalogue is empty, and what helps."""
    return (
        f"of {items:,} items not one is carried by min_carriers = {min_carriers} members; do they use the same ids or "
        "identifiers? Lower min_carriers only if every member agrees to what that shows of it"
    )


def without_texts(items: tuple[str, ...]) -> pl.DataFrame:
    """A table of items of which nothing is said."""
    return pl.DataFrame({ITEM: items, TITLE: [None] * len(items)}, schema={ITEM: pl.String, TITLE: pl.String})


def _terms(blob: Blob, sender: str) -> tuple[Mode, int, int]:
    try:
        terms: Any = json.loads(str(blob, "utf-8")) if len(blob) < 1_000 else None
    except ValueError:
        terms = None
    if not isinstance(terms, dict) or set(terms) != {"mode", "min_carriers", "members"} or terms["mode"] not in MODES:
        raise PeerError(f"{sender}: sent an agreed catalogue whose terms cannot be read")
    least, members = terms["min_carriers"], terms["members"]
    if type(least) is not int or type(members) is not int or not 1 <= least <= members <= MOST_MEMBERS:
        raise PeerError(
            f"{sender}: sent an agreed catalogue of min_carriers = {str(least)[:20]} of {str(members)[:20]} members"
        )
    return terms["mode"], least, members


def _carriers(blob: Blob, items: int, least: int, members: int, sender: str) -> Counts:
    if len(blob) != 4 * items:
        raise PeerError(f"{sender}: sent {len(blob)} bytes of counts for {items:,} agreed items, four for each are due")
    found = np.frombuffer(blob, "<i4").astype(np.int32)
    if items and not least <= int(found.min()) <= int(found.max()) <= members:
        raise PeerError(
            f"{sender}: sent an agreed catalogue with an item that fewer than min_carriers = {least} or more than all "
            f"{members} members carry"
        )
    return found


def _refuse_readable(texts: pl.DataFrame, items: tuple[str, ...], sender: str) -> None:
    if texts.columns != [ITEM, TITLE] or texts[TITLE].null_count() < len(items):
        raise PeerError(f"{sender}: sent titles in an agreement on hashes, where none can be known")
    if not all(_HASH.fullmatch(item) for item in items):
        raise PeerError(f"{sender}: sent an agreed item that is not a hash of 32 hexadecimal digits")
