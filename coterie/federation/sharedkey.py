"""A key that the members of a federation share and its coordinator does not know, though it carries every message.

    1. each member makes a fresh X25519 key, and signs it with its identity: an offer
    2. the member whose identity has the lowest fingerprint draws the key, and seals it for each of the others
    3. each of the others opens what was sealed for it

Offers are signed by identities that were pinned out of band, so the coordinator cannot put in keys of its own; each
sealed key is bound to the list of all offers, so all who share a key saw the same members. It stays secret as long as
no member tells it: whoever has it can test guesses against everything that is hashed with it.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from coterie.errors import PeerError, ProtocolViolation
from coterie.federation.itemtable import Blob
from coterie.secure.keys import PUBLIC_BYTES, SIGNATURE_BYTES, AgreementKey, Identity, fingerprint, hkdf, sha256, verify

OFFER_BYTES = 2 * PUBLIC_BYTES + SIGNATURE_BYTES
KEY_BYTES, SEALED_BYTES = 32, 48
HASH_BYTES = 16  # of a million items two share a hash with probability 10^-27
_OFFER, _SEAL = b"catalogue key offer", b"catalogue key"
_ONCE = bytes(12)  # each sealing key is used for one message, so its nonce may be constant


@dataclass(frozen=True)
class Offer:
    """A member's fresh key: ``identity (32), key (32), signature (64)`` on the wire."""

    identity: bytes
    key: bytes
    signature: bytes

    @classmethod
    def of(cls, identity: Identity, key: bytes, context: bytes) -> Offer:
        """The offer of `key`, signed; `context` (32 bytes) is that of the agreement."""
        return cls(identity.public, key, identity.sign(_OFFER, context, key))

    def pack(self) -> bytes:
        return self.identity + self.key + self.signature


def read_offer(blob: Blob, context: bytes, identity: bytes, member: str) -> Offer:
    """The offer of one member, whose identity is known.

    Raises:
        PeerError: it is not signed by that identity for this agreement.
    """
    content = bytes(blob)
    first, second = PUBLIC_BYTES, 2 * PUBLIC_BYTES
    offer = Offer(content[:first], content[first:second], content[second:])
    if len(content) != OFFER_BYTES or offer.identity != identity:
        raise PeerError(f"{member}: sent an offer of a key that is not its own, or not {OFFER_BYTES} bytes long")
    try:
        verify(identity, offer.signature, _OFFER, context, offer.key)
    except ProtocolViolation:
        raise PeerError(
            f"{member}: its offer of a key is not signed by the identity that is pinned for it, or is of another "
            "agreement"
        ) from None
    return offer


def read_offers(blob: Blob, context: bytes, known: Mapping[bytes, str], sender: str) -> tuple[Offer, ...]:
    """The offers of all members, in order of their fingerprints; `known` names the pinned identities.

    Raises:
        PeerError: one is of nobody who is pinned, is not signed, is there twice, or out of order.
    """
    content = bytes(blob)
    if not content or len(content) % OFFER_BYTES:
        raise PeerError(f"{sender}: sent {len(content)} bytes of offers, not {OFFER_BYTES} for each member")
    packed = [content[at : at + OFFER_BYTES] for at in range(0, len(content), OFFER_BYTES)]
    identities = [one[:PUBLIC_BYTES] for one in packed]
    strange = next((identity for identity in identities if identity not in known), None)
    if strange is not None:
        raise PeerError(
            f"{sender}: an identity that is not pinned here would share the key, {fingerprint(strange)}; compare this "
            "fingerprint with its owner and add it to peers in policy.toml, or stay out"
        )
    if identities != sorted(set(identities), key=fingerprint):
        raise PeerError(f"{sender}: sent offers out of the order of fingerprints, or one twice")
    return tuple(
        read_offer(one, context, identity, known[identity]) for one, identity in zip(packed, identities, strict=True)
    )


def in_order(offers: Iterable[Offer]) -> tuple[Offer, ...]:
    """Offers in order of fingerprints: the first is of the member who draws the key."""
    return tuple(sorted(offers, key=lambda offer: fingerprint(offer.identity)))


def drawn_key() -> bytes:
    """A new key from the operating system."""
    return secrets.token_bytes(KEY_BYTES)


def seal_key(key: bytes, own: AgreementKey, offers: tuple[Offer, ...], context: bytes) -> list[bytes]:
    """The key for each of `offers` but the first, which is our own.

    Raises:
        ProtocolViolation: an offered key is of low order.
    """
    listed = _listed(offers, context)
    return [
        AESGCM(_sealing_key(own, offer.key, listed, offer)).encrypt(_ONCE, key, listed + offer.identity)
        for offer in offers[1:]
    ]


def open_key(sealed: Blob, own: AgreementKey, offers: tuple[Offer, ...], mine: Offer, context: bytes) -> bytes:
    """The key that the owner of the first offer sealed for `mine`.

    Raises:
        ProtocolViolation: it was not sealed by that member, for us, over these offers.
    """
    listed = _listed(offers, context)
    try:
        return AESGCM(_sealing_key(own, offers[0].key, listed, mine)).decrypt(
            _ONCE, bytes(sealed), listed + mine.identity
        )
    except InvalidTag:
        raise ProtocolViolation("a sealed key was altered, or is of other members or another agreement") from None


def keyed_hash(key: bytes, identifier: str) -> bytes:
    """The hash of an identifier under the shared key: 16 bytes of HMAC-SHA256."""
    return hmac.digest(key, b"item\0" + identifier.encode(), "sha256")[:HASH_BYTES]


def _sealing_key(own: AgreementKey, other: bytes, listed: bytes, recipient: Offer) -> bytes:
    return hkdf(own.agree(other), _SEAL + b"\0" + listed + recipient.identity, 32)


def _listed(offers: tuple[Offer, ...], context: bytes) -> bytes:
    """What all who share a key must have seen alike: the agreement and every offer."""
    return sha256(context + b"".join(offer.pack() for offer in offers))
