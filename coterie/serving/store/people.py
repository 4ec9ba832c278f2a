"""Who may be stored. A user's word is kept under a keyed hash: the table alone does not say whose it is."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlalchemy import Connection, delete, select

from coterie.serving.store.changes import record
from coterie.serving.store.statements import chunks, upsert
from coterie.serving.store.tables import consents


@dataclass(frozen=True)
class People:
    """The rule of a deployment: `opt_in` keeps events of those alone who have consented."""

    secret: bytes = field(repr=False)
    opt_in: bool

    def hashed(self, user: str) -> str:
        """HMAC-SHA256 of a user's id under the store's secret, in hexadecimal."""
        return hmac.digest(self.secret, b"user:" + user.encode("utf-8", "surrogatepass"), "sha256").hex()

    def consent(self, connection: Connection, user: str) -> bool | None:
        """What the user has said; None: nothing."""
        asked = select(consents.c.allowed).where(consents.c.user_hash == self.hashed(user))
        found = connection.execute(asked).scalar()
        return None if found is None else bool(found)

    def stored(self, connection: Connection, users: Iterable[str]) -> set[str]:
        """Those of the users whose events may be kept and used."""
        by_hash = {self.hashed(user): user for user in set(users)}
        told = consents.c.allowed.is_(self.opt_in)  # what makes a difference to the rule
        found: set[str] = set()
        for part in chunks(by_hash):
            asked = select(consents.c.user_hash).where(consents.c.user_hash.in_(part), told)
            found.update(by_hash[one] for one in connection.execute(asked).scalars())
        return found if self.opt_in else set(by_hash.values()) - found

    def say(self, connection: Connection, user: str, allowed: bool, at: int) -> None:
        """Keep the user's word."""
        key = self.hashed(user)
        upsert(connection, consents, [{"user_hash": key, "allowed": allowed, "changed_at": at}])
        record(connection, "consent", [key], at)

    def forget_consent(self, connection: Connection, user: str, at: int) -> int:
        """Forget a consent. An objection stays, as it would not be honoured otherwise."""
        key = self.hashed(user)
        gone = connection.execute(
            delete(consents).where(consents.c.user_hash == key, consents.c.allowed.is_(True))
        ).rowcount
        if gone:
            record(connection, "consent", [key], at)
        return gone
