"""Keys and what is done with them: X25519, HKDF, Ed25519, AES-GCM, HMAC. Primitives are those of `cryptography`.

Everything that is derived, signed or sealed in a round names the round's context: a hash of protocol version, job,
round, attempt, roster and plan. Masks, and signatures of whose vectors are in the sum, name a second one, which holds
the model and the length of the vectors too (`summing_context`). Parties who were shown different ones get different
keys, and nothing fits.
"""

from __future__ import annotations

import hashlib
import secrets

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import constant_time, hashes, hmac
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from coterie.errors import ProtocolViolation

PROTOCOL = b"coterie secure aggregation 2"
STATEMENT = b"coterie statement"
CONTEXT_BYTES = PUBLIC_BYTES = SECRET_BYTES = COMMITMENT_BYTES = 32
SIGNATURE_BYTES = 64
TAG_BYTES = 16
_ONCE = bytes(12)  # each sealing key is used for one message, so its nonce may be constant


def fingerprint(public: bytes) -> str:
    """What people compare of a key: the first 16 bytes of its SHA-256, in hexadecimal.

    >>> fingerprint(bytes(32))
    '66687aadf862bd776c8fc18b8e9f8e20'
    """
    return hashlib.sha256(public).hexdigest()[:32]


class Identity:
    """An enrolled Ed25519 key: `public` is what others know it by."""

    def __init__(self, secret: bytes | None = None) -> None:
        self._key = Ed25519PrivateKey.generate() if secret is None else Ed25519PrivateKey.from_private_bytes(secret)
        self.public = self._key.public_key().public_bytes_raw()

    def sign(self, what: bytes, context: bytes, content: bytes = b"") -> bytes:
        """Sign `content` as a statement of kind `what` in a round: 64 bytes."""
        return self._key.sign(_statement(what, context, content))


def verify(public: bytes, signature: bytes, what: bytes, context: bytes, content: bytes = b"") -> None:
    """Check a signature of `Identity.sign`.

    Raises:
        ProtocolViolation: it is not the signature of that key on that statement.
    """
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, _statement(what, context, content))
    except (InvalidSignature, ValueError):
        raise ProtocolViolation(f"a signature ({what.decode()}) is not that of the key in the roster") from None


class AgreementKey:
    """A fresh X25519 key of one attempt at a round; `secret` is kept only where it is to be shared."""

    def __init__(self, secret: bytes | bytearray | None = None) -> None:
        self.secret = bytearray(secrets.token_bytes(SECRET_BYTES) if secret is None else secret)
        self._key: X25519PrivateKey | None = X25519PrivateKey.from_private_bytes(self.secret)
        self.public = self._key.public_key().public_bytes_raw()

    def agree(self, public: bytes) -> bytes:
        """The secret shared with the owner of `public`.

        Raises:
            ProtocolViolation: the shared secret is all zero, which a key of low order forces on everybody.
        """
        if self._key is None:
            raise ProtocolViolation("a secret key that was erased cannot be used again")
        try:
            shared = self._key.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError:
            raise ProtocolViolation("an X25519 key of low order: its shared secret would be all zero") from None
        if constant_time.bytes_eq(shared, bytes(len(shared))):
            raise ProtocolViolation("an X25519 key of low order: its shared secret would be all zero")
        return shared

    def erase(self) -> None:
        """Overwrite the secret, as far as Python allows, and let go of the library's copy."""
        erase(self.secret)
        self._key = None


def summing_context(context: bytes, summed: bytes) -> bytes:
    """What binds a round to `summed`, the model and length that its vectors have as they are said on the wire."""
    return sha256(_bound(b"summed", context) + summed)


def mask_key(shared: bytes, context: bytes, one: int, other: int) -> bytes:
    """Key of the mask that two clients share in a sum; the same from both sides."""
    low, high = sorted((one, other))
    return hkdf(shared, _bound(b"pair mask", context, low, high), 32)


def self_mask_key(seed: bytes | bytearray, context: bytes, client: int) -> bytes:
    """Key of the mask that a client adds for itself."""
    return hkdf(seed, _bound(b"self mask", context, client), 32)


def commitment(seed: bytes | bytearray, context: bytes, client: int) -> bytes:
    """What a client publishes of its seed, so that a seed rebuilt from altered shares is known for what it is."""
    return hmac_sha256(seed, _bound(b"seed", context, client))


def sealing_key(shared: bytes, context: bytes, sender: int, recipient: int) -> bytes:
    """Key of the one message that `sender` seals for `recipient` in this round."""
    return hkdf(shared, _bound(b"shares", context, sender, recipient), 32)


def seal(key: bytes, content: bytes, context: bytes, sender: int, recipient: int) -> bytes:
    """Encrypt and authenticate, bound to round, sender and recipient; a key seals once."""
    return AESGCM(key).encrypt(_ONCE, content, _bound(b"shares", context, sender, recipient))


def unseal(key: bytes, sealed: bytes, context: bytes, sender: int, recipient: int) -> bytes:
    """What was sealed.

    Raises:
        ProtocolViolation: altered, or sealed for another round, sender or recipient.
    """
    try:
        return AESGCM(key).decrypt(_ONCE, sealed, _bound(b"shares", context, sender, recipient))
    except InvalidTag:
        raise ProtocolViolation(
            f"shares from client {sender} were altered, or belong to another round, roster, model or plan"
        ) from None


def channel_key(shared: bytes, context: bytes, client: int) -> bytes:
    """Key of the tags between server and client in this round."""
    return hkdf(shared, _bound(b"channel", context, client), 32)


def gmac(key: bytes, kind: int, content: bytes | memoryview) -> bytes:
    """The tag of a message (AES-GMAC, 16 bytes, at the speed of memory); a key tags one message of each kind."""
    return AESGCM(key).encrypt(kind.to_bytes(12, "little"), b"", content)


def hkdf(secret: bytes | bytearray, info: bytes, length: int, salt: bytes | None = None) -> bytes:
    """HKDF with SHA-256 (RFC 5869)."""
    return HKDF(algorithm=hashes.SHA256(), length=length, salt=salt, info=info).derive(secret)


def hmac_sha256(key: bytes | bytearray, content: bytes) -> bytes:
    """HMAC with SHA-256 (RFC 2104)."""
    mac = hmac.HMAC(key, hashes.SHA256())
    mac.update(content)
    return mac.finalize()


def sha256(content: bytes | bytearray | memoryview) -> bytes:
    """SHA-256, as 32 bytes."""
    digest = hashes.Hash(hashes.SHA256())
    digest.update(content)
    return digest.finalize()


def erase(*held: bytearray) -> None:
    """Overwrite secrets with zeros. Copies that Python or a library made on the way are out of reach."""
    for one in held:
        one[:] = bytes(len(one))


def _statement(what: bytes, context: bytes, content: bytes) -> bytes:
    """What is signed. It names no version: a roster or a job that an older release signed stays signed."""
    return b"%s\0%s\0%s" % (STATEMENT, what, context) + content


def _bound(what: bytes, context: bytes, *clients: int) -> bytes:
    """A purpose in this protocol and round; both have a fixed or delimited length, so no two readings are alike."""
    return b"%s\0%s\0%s%s" % (PROTOCOL, what, context, b"".join(c.to_bytes(4, "little") for c in clients))
