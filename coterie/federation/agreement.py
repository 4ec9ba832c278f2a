"""Agreement on items: before a job sums anything, its nodes agree on which items there are.

    given    the coordinator brings the list; a secure sum then counts who carries what (`coterie.federation.carriers`)
    union    each node sends its ids, titles and chosen attributes: the coordinator learns who carries what
    hashed   each node sends keyed hashes of GTINs or ISBNs: the coordinator learns how many each has and which are
             alike, but not of what (`coterie.federation.sharedkey`)

An item enters only where `min_carriers` members carry it, three unless a job and all policies say otherwise: of fewer,
a member could tell from a sum and its own part of it what another sold.

The coordinator's half is a list of exchanges, the node's (`NodeAgreement`) an answer to each:

    agreement = Agreement("union", 3, members, job=job)
    for stage in itertools.count():
        if (requests := agreement.requests(stage)) is None:
            break
        for member, (header, blobs) in replies to the requests:
            agreement.take(member, header, blobs)
        agreement.close_stage({members who replied})
    agreement.result
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from typing import Any, TypeAlias

import numpy as np
import polars as pl

from coterie.data.catalogue import Catalogue
from coterie.errors import ConfigError, PeerError, closest
from coterie.federation.agreed import MODES, MOST_MEMBERS, Agreed, Mode, nothing_agreed, without_texts
from coterie.federation.alignment import Alignment
from coterie.federation.assortment import Assortment
from coterie.federation.itemtable import ITEM, MAX_ITEMS, TITLE, Blob, decode_items, portable, united
from coterie.federation.nodeagreement import NodeAgreement
from coterie.federation.sharedkey import HASH_BYTES, SEALED_BYTES, Offer, in_order, read_offer
from coterie.federation.steps import ATTEMPT_BYTES, STEPS, agreement_context

__all__ = ["Agreed", "Agreement", "Alignment", "Assortment", "Mode", "NodeAgreement"]

Requests: TypeAlias = dict[str, tuple[dict[str, Any], dict[str, bytes]]]


class Agreement:
    """The coordinator's half: `members` are the identities (public keys, 32 bytes) of those who take part, by name.

    `job` names the occurrence of the job, and ties every signature to it; nodes are told the same by other ways.

    Raises:
        ConfigError: the mode is unknown, a list is missing or superfluous, or no item could have `min_carriers`.
    """

    def __init__(
        self,
        mode: Mode,
        min_carriers: int,
        members: Mapping[str, bytes],
        given: Catalogue | None = None,
        *,
        job: str = "",
    ) -> None:
        _refuse_settings(mode, min_carriers, members, given)
        self.mode, self.min_carriers, self.job = mode, min_carriers, job
        self.members = dict(members)
        self.attempt = ""
        self._stage = -1
        self._asked: Requests | None = None
        self._taken: dict[str, Any] = {}
        self._offers: tuple[Offer, ...] = ()
        self._sealed: dict[str, bytes] = {}
        self._result = None if given is None else _given(given, min_carriers, len(members))
        self._step: str | None = None
        self._begin()

    def requests(self, stage: int) -> Requests | None:
        """Whom to send what in exchange `stage` (0, 1, ..): header and blobs by member; None when done.

        Asked again for the open stage, it says the same.
        """
        if stage == self._stage and self._asked is not None:
            return self._asked
        if self._step is None:
            return None
        if stage != self._stage + 1 or self._asked is not None:
            raise ValueError(f"stage {stage} of an agreement was asked for, {self._stage} is the last one")
        self._stage, self._taken = stage, {}
        asked = [self._leader] if self._step == "seal" else list(self.members)
        self._asked = {member: (self._header(), self._blobs(member)) for member in asked}
        return self._asked

    def take(self, member: str, header: Mapping[str, Any], blobs: Mapping[str, Blob]) -> None:
        """Take one member's reply in the open stage; one that is refused leaves everything as it was.

        Raises:
            PeerError: it is malformed, not asked for, or a second one; names the member.
        """
        if self._asked is None or member not in self._asked or member in self._taken:
            raise PeerError(f"{member}: answered twice, or what it was not asked, while items were agreed on")
        step = header.get("step") if isinstance(header, dict) else None
        if step != self._step:
            raise PeerError(f"{member}: answered {str(step)[:20]!r} when it was asked for '{self._step}'")
        wanted = {"items": "items", "offer": "offer", "seal": "sealed", "hashes": "hashes"}[str(self._step)]
        if set(blobs) != {wanted}:
            raise PeerError(f"{member}: answered with {len(blobs)} blobs where exactly '{wanted}' is due")
        self._taken[member] = self._checked(member, blobs[wanted])

    def close_stage(self, present: set[str]) -> None:
        """Close the stage with those of `present` whose reply was taken; who was asked and is not among them is out.

        Without the member who draws the key of mode "hashed" the next stage begins anew among the others.

        Raises:
            PeerError: too few are left, or they have too little in common.
        """
        if self._asked is None:
            raise ValueError("no stage of the agreement is open")
        there = present & set(self._taken)
        lost = sorted(set(self._asked) - there)
        self._taken = {member: self._taken[member] for member in self.members if member in there}
        self.members = {name: public for name, public in self.members.items() if name not in lost}
        self._asked = None
        if len(self.members) < self.min_carriers:
            raise PeerError(
                f"{len(self.members)} members are left to agree on items (lost: {', '.join(lost)}), so none can have "
                f"min_carriers = {self.min_carriers}; start those that are missing, and the job again"
            )
        self._advance(lost)

    @property
    def result(self) -> Agreed:
        """What was agreed, once `requests` has returned None; in mode "given" it is still to be counted."""
        if self._result is None:
            raise ValueError("the agreement on items is not done")
        return self._result

    @property
    def _leader(self) -> str:
        """Who draws the key: the member whose identity has the lowest fingerprint."""
        return next(name for name, public in self.members.items() if public == self._offers[0].identity)

    def _begin(self) -> None:
        """A first or fresh attempt; nothing of an earlier one fits it."""
        self.attempt = secrets.token_hex(ATTEMPT_BYTES)
        self._step = next(iter(STEPS[self.mode]), None)

    def _header(self) -> dict[str, Any]:
        return {
            "step": self._step,
            "mode": self.mode,
            "stage": self._stage,
            "attempt": self.attempt,
            "min_carriers": self.min_carriers,
            "members": len(self.members),
        }

    def _blobs(self, member: str) -> dict[str, bytes]:
        if self._step not in ("seal", "hashes"):
            return {}
        offers = {"offers": b"".join(offer.pack() for offer in self._offers)}
        if self._step == "seal" or member == self._leader:
            return offers
        return offers | {"sealed": self._sealed[member]}

    def _checked(self, member: str, blob: Blob) -> Any:
        """The content of a reply in the open stage, once it is found to be one."""
        if self._step == "items":
            return decode_items(blob, member)
        if self._step == "offer":
            return read_offer(blob, agreement_context(self.job, self.attempt), self.members[member], member)
        if self._step == "hashes":
            return _hashes(blob, member)
        due = SEALED_BYTES * (len(self._offers) - 1)
        if len(blob) != due:
            raise PeerError(f"{member}: sealed {len(blob)} bytes for the other members, {due} are due")
        return bytes(blob)

    def _advance(self, lost: list[str]) -> None:
        """From the stage that was closed to the next step."""
        if self._step == "items":
            self._finish(*_common_items(list(self._taken.values()), self.min_carriers))
        elif self._step == "hashes":
            self._finish(*_common_hashes(list(self._taken.values()), self.min_carriers))
        elif self._step == "offer":
            self._offers, self._step = in_order(self._taken.values()), "seal"
        elif lost:
            self._begin()
        else:
            self._hand_out(self._taken[self._leader])
            self._step = "hashes"

    def _hand_out(self, sealed: bytes) -> None:
        names = {public: name for name, public in self.members.items()}
        for at, offer in enumerate(self._offers[1:]):
            self._sealed[names[offer.identity]] = sealed[at * SEALED_BYTES : (at + 1) * SEALED_BYTES]

    def _finish(self, texts: pl.DataFrame, carriers: np.ndarray[Any, Any], items: int) -> None:
        if not texts.height:
            raise PeerError(nothing_agreed(items, self.min_carriers))
        found = tuple(texts[ITEM].to_list())
        self._result = Agreed(self.mode, found, texts, carriers.astype(np.int32), self.min_carriers, len(self.members))
        self._step = None


def _common_items(tables: list[pl.DataFrame], least: int) -> tuple[pl.DataFrame, np.ndarray[Any, Any], int]:
    """The items of at least so many tables with their texts, in how many each is, and how many there are in all."""
    having = pl.concat([table.select(ITEM) for table in tables]).group_by(ITEM).len().sort(ITEM)
    common = having.filter(pl.col("len") >= least)
    kept = [table.join(common, on=ITEM, how="semi") for table in tables]
    return united(kept, common[ITEM].to_list()), common["len"].to_numpy(), having.height


def _common_hashes(lists: list[np.ndarray[Any, Any]], least: int) -> tuple[pl.DataFrame, np.ndarray[Any, Any], int]:
    """The hashes in at least so many lists, in how many each is, and how many there are in all."""
    found, having = np.unique(np.concatenate(lists), return_counts=True)
    common = having >= least
    content = found[common].tobytes().hex()
    digits = 2 * HASH_BYTES
    items = tuple(content[at : at + digits] for at in range(0, len(content), digits))
    return without_texts(items), having[common], len(found)


def _hashes(blob: Blob, member: str) -> np.ndarray[Any, Any]:
    """Hashes as one array of fixed-length bytes: ascending, each once."""
    if len(blob) % HASH_BYTES or len(blob) > MAX_ITEMS * HASH_BYTES:
        raise PeerError(
            f"{member}: sent {len(blob):,} bytes of hashes, not {HASH_BYTES} for each of at most {MAX_ITEMS:,}"
        )
    # Bytes of one fixed length compare as numpy's S type does, which takes zeros at the end for filling.
    found = np.frombuffer(blob, f"S{HASH_BYTES}")
    if not (found[1:] > found[:-1]).all():
        raise PeerError(f"{member}: sent hashes that are not in ascending order, or one twice")
    return found


def _given(given: Catalogue, min_carriers: int, members: int) -> Agreed:
    """The coordinator's list with all that it says of items; nobody has counted yet who carries them."""
    attributes = [name for name in given.texts.columns if name not in (ITEM, TITLE)]
    texts = portable(given.texts, given.items, sorted(attributes))
    return Agreed("given", given.items, texts, None, min_carriers, members)


def _refuse_settings(mode: str, min_carriers: int, members: Mapping[str, bytes], given: Catalogue | None) -> None:
    if mode not in MODES:
        raise ConfigError(f"catalogue = {mode!r} is none of {', '.join(MODES)}{closest(mode, MODES)}")
    if (mode == "given") != (given is not None):
        raise ConfigError(
            "catalogue = 'given' needs an items file of the coordinator (items = ...)"
            if given is None
            else f"an items file was given, but catalogue = '{mode}' takes items from the nodes; use 'given'"
        )
    if given is not None and not given.items:
        raise ConfigError("the items file of the job lists no item")
    if len(set(members.values())) < len(members):
        raise ConfigError("two members have the same identity; each organisation needs a key of its own")
    if not 1 <= min_carriers <= len(members) or len(members) > MOST_MEMBERS:
        raise ConfigError(
            f"min_carriers = {min_carriers} with {len(members)} members: it must be from 1 to the number of members "
            f"(at most {MOST_MEMBERS:,}), or no item can enter"
        )
