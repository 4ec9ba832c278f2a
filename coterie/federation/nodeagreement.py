"""A node's half of an agreement on items: what it answers, and what it makes of the outcome."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np
import polars as pl

from coterie.errors import PeerError, ProtocolViolation, RunError
from coterie.federation.agreed import Agreed, Mode
from coterie.federation.alignment import Alignment
from coterie.federation.assortment import Assortment
from coterie.federation.identifiers import standard_identifier
from coterie.federation.itemtable import Blob, encode_items, portable
from coterie.federation.sharedkey import (
    KEY_BYTES,
    Offer,
    drawn_key,
    keyed_hash,
    open_key,
    read_offers,
    seal_key,
)
from coterie.federation.steps import ATTEMPT, STEPS, agreement_context
from coterie.secure.keys import AgreementKey, Identity
from coterie.types import Items

COORDINATOR = "the coordinator"
Answer = tuple[dict[str, Any], dict[str, bytes]]


class NodeAgreement:
    """What one node answers while a catalogue is agreed (`coterie.federation.agreement` says in which order).

    `pinned` holds the identities (public keys) of the members that this node knows, by name; its own may be among them.
    `min_carriers` is the least that this node accepts; `two_party` says whether it consents to a federation of two.
    Secrets are kept in memory only, and erased with the attempt that they belong to.

    Raises:
        PlanError: the plan has noise (`private`), and the assortment was taken from the log.
        DataError: mode "hashed", and no item has an identifier that others share.
    """

    def __init__(
        self,
        assortment: Assortment,
        identity: Identity,
        pinned: Mapping[str, bytes],
        *,
        mode: Mode,
        min_carriers: int = 3,
        job: str = "",
        private: bool = False,
        two_party: bool = False,
    ) -> None:
        if private:
            assortment.refuse_log()
        self.assortment = assortment.identified() if mode == "hashed" else assortment
        self._mode, self._least, self._two_party = mode, min_carriers, two_party
        self._identity, self._job = identity, job
        self._known = {public: name for name, public in pinned.items()} | {identity.public: "this node"}
        self._exchange: _Exchange | None = None
        self._hashes: tuple[str | None, ...] | None = None
        self._counting: str | None = None

    def answer(self, stage: int, header: Mapping[str, Any], blobs: Mapping[str, Blob]) -> Answer:
        """The reply to one request of `Agreement.requests`; equal requests of one attempt get equal replies.

        Raises:
            PeerError: the coordinator asks for what was not agreed on, or for the same in two ways.
        """
        step, attempt = header.get("step"), header.get("attempt")
        if step not in STEPS[self._mode] or header.get("mode") != self._mode:
            raise PeerError(
                f"{COORDINATOR}: asked for {str(step)[:20]!r} in mode {str(header.get('mode'))[:20]!r}, but the job of "
                f"this node agrees on items by '{self._mode}'"
            )
        if header.get("stage") != stage or not isinstance(attempt, str) or not ATTEMPT.fullmatch(attempt):
            raise PeerError(f"{COORDINATOR}: sent a request of another stage, or without the number of its attempt")
        self._refuse_few(header.get("min_carriers"), header.get("members"))
        if step == "items":
            return {"step": step}, {"items": self._listed()}
        return {"step": step}, self._hashed(str(step), attempt, blobs)

    def align(self, agreed: Agreed) -> Alignment:
        """Where the own items stand in what was agreed.

        A given list is aligned twice: before its carriers are counted, so that they can be
        (`Alignment.assortment`), and afterwards. Nothing else may be summed over one that is not `Agreed.counted`.

        Raises:
            PeerError: it is not of the mode and the least carriers that this node takes part in, or would be counted a
                second time over other items.
        """
        if agreed.mode != self._mode:
            raise PeerError(f"{COORDINATOR}: would begin with items agreed as '{agreed.mode}', not '{self._mode}'")
        self._refuse_few(agreed.min_carriers, agreed.members)
        if not agreed.counted:
            self._refuse_second_count(agreed)
        position = _positions(self._names(), {name: at for at, name in enumerate(agreed.items)})
        if self._mode == "given":
            position = np.where(position < 0, self._by_identifier(agreed.items), position)
        return Alignment(self.assortment.items, position, len(agreed.items))

    @property
    def kept(self) -> bytes:
        """What the node's own store must keep so that a node that was restarted can still `align`; no key is in it."""
        return json.dumps({"hashes": self._hashes, "counting": self._counting}).encode()

    def restore(self, kept: bytes) -> None:
        """Take back what `kept` was before a restart.

        Raises:
            RunError: it is not that, or of another assortment.
        """
        try:
            content = json.loads(kept)
            hashes, counting = content["hashes"], content["counting"]
        except (ValueError, TypeError, KeyError):
            raise RunError("what was kept of an agreement on items cannot be read; start the job again") from None
        if hashes is not None and len(hashes) != len(self.assortment):
            raise RunError(
                f"the kept hashes are of {len(hashes)} items, the assortment has {len(self.assortment)} now; start the "
                "job again"
            )
        self._hashes, self._counting = None if hashes is None else tuple(hashes), counting

    def _listed(self) -> bytes:
        """Ids, titles and attributes as others may know them; of several items with one id the first speaks."""
        own = self.assortment
        names = {item: shared for shared, item in own.first.items()}
        item = own.texts["item"].replace_strict(names, default=None, return_dtype=pl.String)
        texts = own.texts.with_columns(item=item).drop_nulls("item")
        return encode_items(portable(texts, list(own.first), own.attributes))

    def _hashed(self, step: str, attempt: str, blobs: Mapping[str, Blob]) -> dict[str, bytes]:
        if step == "offer" and (self._exchange is None or self._exchange.attempt != attempt):
            self._begin(attempt)
        if self._exchange is None or self._exchange.attempt != attempt:
            raise PeerError(f"{COORDINATOR}: asked for hashes before it had asked for an offer of a key")
        if step == "offer":
            return {"offer": self._exchange.offer.pack()}
        offers = read_offers(blobs.get("offers", b""), self._exchange.context, self._known, COORDINATOR)
        self._refuse_few(self._least, len(offers))
        if step == "seal":
            return {"sealed": self._exchange.seal(offers)}
        key = self._exchange.open(offers, blobs.get("sealed", b""), self._known)
        return {"hashes": self._hash_all(key)}

    def _begin(self, attempt: str) -> None:
        """Forget an earlier attempt, whose secrets are erased, and begin one with fresh ones."""
        if self._exchange is not None:
            self._exchange.own.erase()
        self._hashes = None
        self._exchange = _Exchange(self._identity, attempt, agreement_context(self._job, attempt))

    def _hash_all(self, key: bytes) -> bytes:
        """The hashes of all own identifiers: distinct, ascending."""
        shared = {name: keyed_hash(key, name) for name in self.assortment.first}
        self._hashes = tuple(None if name is None else shared[name].hex() for name in self.assortment.shared)
        return b"".join(sorted(shared.values()))

    def _names(self) -> tuple[str | None, ...]:
        """How each own item is called among what was agreed."""
        if self._mode != "hashed":
            return self.assortment.shared
        if self._hashes is None:
            raise PeerError(
                f"{COORDINATOR}: would begin with hashes of an agreement that this node took no part in, or lost in a "
                "restart; the agreement must be made again"
            )
        return self._hashes

    def _by_identifier(self, items: tuple[str, ...]) -> Items:
        """Positions of own items in a given list of identifiers, however both write them; -1 where there is none."""
        listed = ((standard_identifier(item), at) for at, item in reversed(list(enumerate(items))))
        place = {identifier: at for identifier, at in listed if identifier is not None}
        return _positions(self.assortment.standard, place)

    def _refuse_second_count(self, agreed: Agreed) -> None:
        digest = agreed.digest.hex()
        if self._mode != "given" or (self._counting or digest) != digest:
            raise PeerError(
                f"{COORDINATOR}: would count who carries items a second time, over another list; the difference of two "
                "counts could tell what a single member carries"
            )
        self._counting = digest

    def _refuse_few(self, least: Any, members: Any) -> None:
        if type(least) is not int or type(members) is not int:
            raise PeerError(f"{COORDINATOR}: sent a request without min_carriers or the number of members")
        if least < self._least:
            raise PeerError(
                f"{COORDINATOR}: would let in items that {least} members carry, this node asks for min_carriers = "
                f"{self._least}; change policy.toml if it may be fewer"
            )
        if members < (2 if self._two_party else 3):
            raise PeerError(
                f"{COORDINATOR}: only {members} members would agree on items, and each could subtract its own from "
                "every sum; wait for a third, or consent to two (two_party = 'consent' in policy.toml)"
            )
        if members < least:
            raise PeerError(f"{COORDINATOR}: {members} members would agree on items that {least} of them must carry")


def _positions(names: tuple[str | None, ...], place: Mapping[str, int]) -> Items:
    return np.array([-1 if name is None else place.get(name, -1) for name in names], np.int32)


class _Exchange:
    """One attempt at sharing a key: the own fresh key, and what was drawn or opened with it."""

    def __init__(self, identity: Identity, attempt: str, context: bytes) -> None:
        self.attempt, self.context, self.own = attempt, context, AgreementKey()
        self.offer = Offer.of(identity, self.own.public, context)
        self._offers: tuple[Offer, ...] | None = None
        self._drawn: bytes | None = None
        self._sealed = b""

    def seal(self, offers: tuple[Offer, ...]) -> bytes:
        """The key, drawn once, for each of the others."""
        self._refuse_others(offers)
        if offers[0] != self.offer:
            raise PeerError(f"{COORDINATOR}: asked this node to draw the key, whose fingerprint is not the lowest")
        if self._drawn is None:
            drawn = drawn_key()
            try:
                self._sealed = b"".join(seal_key(drawn, self.own, offers, self.context))
            except ProtocolViolation as error:
                raise PeerError(f"{COORDINATOR}: the key of another member cannot be used: {error}") from None
            self._drawn, self._offers = drawn, offers
        return self._sealed

    def open(self, offers: tuple[Offer, ...], sealed: Blob, known: Mapping[bytes, str]) -> bytes:
        """The shared key: drawn here, or sealed for us by the member with the lowest fingerprint."""
        self._refuse_others(offers)
        if offers[0] == self.offer:
            if self._drawn is None:
                raise PeerError(f"{COORDINATOR}: asked for hashes before this node was asked to draw their key")
            return self._drawn
        try:
            key = open_key(sealed, self.own, offers, self.offer, self.context)
        except ProtocolViolation as error:
            raise PeerError(f"{known[offers[0].identity]}: {error}") from None
        if len(key) != KEY_BYTES or key != (self._drawn or key):
            raise PeerError(f"{known[offers[0].identity]}: sealed a key that is not one, or two different ones")
        self._drawn, self._offers = key, offers
        return key

    def _refuse_others(self, offers: tuple[Offer, ...]) -> None:
        """All steps of an attempt are over the same offers, ours among them."""
        if self.offer not in offers or offers != (self._offers or offers):
            raise PeerError(f"{COORDINATOR}: showed this node a list of members without it, or two different ones")
