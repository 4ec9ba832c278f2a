"""API keys: how they are made, what is kept of them, and who presents one.

A key reads ``csk_`` (secret) or ``cpk_`` (publishable), 12 hex digits of its id, 32 random bytes in base64url, and 8
hex digits of CRC-32 over all before: a typing error is known as one, and scanners for leaked secrets know a find.

Kept is HMAC-SHA256 of the text under a salt of its own. A slow hash (argon2, scrypt) makes *guessing* dear, which
passwords need; 256 random bits cannot be guessed at any speed, and a slow hash would only slow each request.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
import time
import zlib
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Protocol, cast, get_args

from coterie.errors import ConfigError, DataError, closest
from coterie.serving.config import LOOPBACK, ServeConfig
from coterie.serving.security.origins import origin_of
from coterie.serving.words import ApiKey, Scope

SCOPES: tuple[Scope, ...] = get_args(Scope)
PUBLISHABLE: frozenset[Scope] = frozenset({"recommend", "events", "model"})
MOST_REMEMBERED = 10_000  # verified texts; each is one key, so that only a deployment with more keys forgets any

_TEXT = re.compile(r"(csk|cpk)_([0-9a-f]{12})[A-Za-z0-9_-]{43}[0-9a-f]{8}")
_NAME = re.compile(r"[^\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]{1,100}")
_KIND = "hmac-sha256"


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `key_id` is None where no key is asked for."""

    key_id: str | None
    name: str
    scopes: frozenset[Scope]
    publishable: bool = False


ANYBODY = Caller(None, "open access", frozenset(SCOPES))


class KeyStore(Protocol):
    """What a keyring needs of a store."""

    def keys(self) -> list[ApiKey]: ...


def make_key(
    name: str,
    publishable: bool,
    scopes: Collection[str],
    origins: Collection[str] = (),
    expires: int | None = None,
    *,
    now: int | None = None,
) -> tuple[ApiKey, str]:
    """Make a key: what is to be stored, and the text, which exists nowhere else.

    Args:
        name: what people call it; up to 100 printable characters.
        publishable: it goes into pages of `origins`, and may do no more than PUBLISHABLE.
        scopes: what it is for.
        origins: of a publishable key, such as ``https://shop.example.org``.
        expires: microseconds since 1970; None: never.
        now: microseconds since 1970; by default the clock's.

    Raises:
        ConfigError: an unknown scope, one that is not for browsers, no or a wrong origin, an end that has passed.
    """
    if not _NAME.fullmatch(name) or not name.strip():
        raise ConfigError(f"name: must be 1 to 100 printable characters, got {name!r}")
    now = time.time_ns() // 1000 if now is None else now
    if expires is not None and expires <= now:
        raise ConfigError(f"key '{name}': would have expired already; let it end later")
    wanted = _checked_scopes(name, publishable, scopes)
    places = _checked_origins(name, publishable, origins)
    key_id = secrets.token_hex(6)
    body = f"{'cpk' if publishable else 'csk'}_{key_id}{secrets.token_urlsafe(32)}"
    text = body + _checksum(body)
    salt = secrets.token_bytes(16)
    hashed = f"{_KIND}:{salt.hex()}:{_hash(salt, text).hex()}"
    return ApiKey(key_id, name, publishable, wanted, places, now, hashed, expires), text


class Keyring:
    """The keys of a deployment in memory. A check costs a dictionary look-up; `reload` makes revocations count.

    Raises (from the constructor and from `reload`):
        DataError: the store holds a key that this version cannot read.
    """

    def __init__(self, store: KeyStore) -> None:
        self._store = store
        self._reloading = threading.Lock()
        self._held = _Held(store.keys())

    def reload(self) -> None:
        """Take in what the store holds now; when this returns, nobody is known by what it held before."""
        with self._reloading:  # of two that reload, the later one reads last
            self._held = _Held(self._store.keys())

    def check(self, text: str, origin: str | None, now: int) -> Caller | None:
        """Who presents this text; None for a key that is forged, expired or revoked, or used where it must not be.

        Args:
            text: the key as presented.
            origin: the Origin header; a publishable key needs one that it lists, letter by letter.
            now: microseconds since 1970.
        """
        held = self._held  # one state for the whole check, whoever reloads meanwhile
        digest = hashlib.sha256(text.encode("utf-8", "replace")).digest()
        known = held.verified.get(digest)
        if known is None:
            if (known := held.find(text)) is None:
                return None
            held.remember(digest, known)
        if known.publishable and origin not in known.origins:
            return None
        return known.caller if now < known.ends else None

    def holder(self, key_id: str, now: int) -> Caller | None:
        """Who holds the secret key with this id, while it is neither revoked nor expired: what a session rests on."""
        known = self._held.usable.get(key_id)
        return known.caller if known is not None and not known.publishable and now < known.ends else None

    def open_access(self, config: ServeConfig) -> bool:
        """Whether everybody who reaches the service may ask: on loopback, with ``keys = "auto"``, no key ever made.

        Never behind a proxy, and never with a `public_url`: there, loopback is not where requests come from.
        """
        server = config.server
        return (
            self._held.empty
            and config.access.keys == "auto"
            and server.host in LOOPBACK
            and not server.behind_proxy
            and server.public_url is None
        )

    @property
    def origins(self) -> frozenset[str]:
        """Origins of the publishable keys that are not revoked: their pages may call."""
        return self._held.origins


class _Known:
    """A key that may be used: what `Keyring` needs of it at each request."""

    __slots__ = ("caller", "digest", "ends", "origins", "publishable", "salt")

    def __init__(self, key: ApiKey) -> None:
        kind, _, rest = key.hash.partition(":")
        salt, _, digest = rest.partition(":")
        try:
            self.salt, self.digest = bytes.fromhex(salt), bytes.fromhex(digest)
        except ValueError:
            kind = ""
        if kind != _KIND or len(self.digest) != 32:
            raise DataError(f"key {key.id} ('{key.name}'): its hash cannot be read; revoke it and make another one")
        # Whatever the store says: what browsers hold opens no more than browsers may.
        scopes = key.scopes & PUBLISHABLE if key.publishable else key.scopes
        self.caller = Caller(key.id, key.name, scopes, key.publishable)
        self.publishable, self.origins = key.publishable, frozenset(key.origins)
        self.ends = float("inf") if key.expires_at is None else key.expires_at


class _Held:
    """The keys as they were at one moment; a reload makes another one, so that nothing verified outlives it."""

    def __init__(self, keys: Iterable[ApiKey]) -> None:
        every = list(keys)
        self.empty = not every
        self.usable = {key.id: _Known(key) for key in every if key.revoked_at is None}
        self.origins = frozenset(origin for known in self.usable.values() for origin in known.origins)
        self.verified: dict[bytes, _Known] = {}

    def find(self, text: str) -> _Known | None:
        """The key whose text this is. Ids are no secret, so that an unknown one may be refused sooner."""
        parts = _TEXT.fullmatch(text)
        if parts is None or _checksum(text[:-8]) != text[-8:]:
            return None
        known = self.usable.get(parts[2])
        if known is None or known.publishable != (parts[1] == "cpk"):
            return None
        return known if hmac.compare_digest(_hash(known.salt, text), known.digest) else None

    def remember(self, digest: bytes, known: _Known) -> None:
        if len(self.verified) >= MOST_REMEMBERED:
            self.verified = {}  # whoever comes again is verified again
        self.verified[digest] = known


def _hash(salt: bytes, text: str) -> bytes:
    return hmac.digest(salt, text.encode(), "sha256")


def _checksum(text: str) -> str:
    return f"{zlib.crc32(text.encode()):08x}"


def _checked_scopes(name: str, publishable: bool, scopes: Collection[str]) -> frozenset[Scope]:
    if not scopes:
        raise ConfigError(f"key '{name}': has no scope; give one or more of {', '.join(SCOPES)}")
    for scope in scopes:
        if scope not in SCOPES:
            raise ConfigError(f"scope '{scope}' is none of {', '.join(SCOPES)}{closest(scope, SCOPES)}")
        if publishable and scope not in PUBLISHABLE:
            raise ConfigError(
                f"key '{name}': scope '{scope}' is not for browsers, where everybody can read the key; a publishable "
                f"key may have {', '.join(sorted(PUBLISHABLE))}"
            )
    return frozenset(cast("Collection[Scope]", scopes))


def _checked_origins(name: str, publishable: bool, origins: Collection[str]) -> tuple[str, ...]:
    if publishable and not origins:
        raise ConfigError(
            f"key '{name}': a publishable key works on pages of its origins alone; name them, as in "
            "https://shop.example.org"
        )
    if origins and not publishable:
        raise ConfigError(f"key '{name}': a secret key never goes into pages and has no origins; make it publishable")
    return tuple(dict.fromkeys(origin_of(one) for one in origins))
