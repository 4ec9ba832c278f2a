"""The store of a deployment: everything it keeps, behind one object that threads may share."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, Final, TypeVar

import polars as pl
from sqlalchemy import Connection, insert, select

from coterie.serving.config import PeopleSettings, StoreSettings
from coterie.serving.store import changes, counters, erasure, events, items, keys, retention, spends, versions
from coterie.serving.store.items import ItemsChanged
from coterie.serving.store.people import People
from coterie.serving.store.statements import now, storable
from coterie.serving.store.tables import secrets as secret_table
from coterie.serving.store.writer import Writer
from coterie.serving.words import (
    ApiKey,
    Change,
    ErasureReceipt,
    Event,
    EventReceipt,
    Item,
    Rollout,
    Version,
)
from coterie.storage import Storage, Tuning

TUNING: Final = Tuning(keep=8, write_ahead=True, wipe=True, private=True)

T = TypeVar("T")


class ServingStore:
    """Items, events, consent, keys, versions and the roll-out, in an SQLite file or on PostgreSQL.

    Every method may be called from any thread, by several processes on one store; not across a fork. What a method has
    written is durable when it returns, or when its future has a result. Readers do not wait for writers.

    Raises (every method): EnvironmentFault: disk or server failed; nothing of that call was written. DataError: an id
        has a character that no database holds (NUL, half of a surrogate pair).
    """

    def __init__(self, storage: Storage, people: People, settings: StoreSettings, clock: Callable[[], int]) -> None:
        self.secret: Final = people.secret  # 32 random bytes; tokens and keyed hashes rest on them
        self._storage = storage
        self._people = people
        self._settings = settings
        self._clock = clock
        self._writer = Writer(storage, lambda connection, sets: events.write(connection, people, sets, clock()))

    @classmethod
    def open(
        cls, address: str, people: PeopleSettings, store: StoreSettings, *, clock: Callable[[], int] = now
    ) -> ServingStore:
        """Open a store, making it where there is none; `clock` gives microseconds since 1970.

        Raises:
            ConfigError, DataError, EnvironmentFault, MissingExtra: see `coterie.storage.Storage.open`.
        """
        storage = Storage.open(address, "store", tuning=TUNING)
        try:
            return cls(storage, People(_secret(storage), people.consent == "opt-in"), store, clock)
        except BaseException:
            storage.close()
            raise

    def close(self) -> None:
        """Write what waits, and let go of the database."""
        self._writer.close()
        self._storage.close()

    # --- items -------------------------------------------------------------------------------------------------------

    def items(self, after: str | None = None, limit: int | None = None) -> list[Item]:
        """Items in the order of their ids, from the first greater than `after` on."""
        return self._read(lambda connection: items.kept(connection, after, limit))

    def item(self, id: str) -> Item | None:
        return self.some_items([id]).get(id)

    def some_items(self, ids: Iterable[str]) -> dict[str, Item]:
        """Those of the ids that are there."""
        asked = list(ids)
        items.check((), {}, asked)
        return self._read(lambda connection: items.some(connection, asked))

    def deleted_ids(self) -> set[str]:
        """Ids of items that were deleted and not put again: models may know them still."""
        return self._read(items.deleted)

    def put_items(self, new: Iterable[Item]) -> int:
        """Add or replace items; says how many."""
        return self.change_items(put=list(new)).put

    def patch_items(self, changed: Mapping[str, Mapping[str, Any]]) -> list[str]:
        """Change fields by item, and leave the others; returns the ids that are not there."""
        return self.change_items(patch=changed).missing

    def delete_items(self, ids: Collection[str]) -> list[str]:
        """Delete items; returns the ids that were not there."""
        return self.change_items(delete=ids).missing

    def change_items(
        self,
        put: Sequence[Item] = (),
        patch: Mapping[str, Mapping[str, Any]] | None = None,
        delete: Collection[str] = (),
    ) -> ItemsChanged:
        """Put, then patch, then delete, all of it or nothing.

        Raises:
            DataError: a field that items do not have, or a value that cannot be stored.
        """
        fields = patch or {}
        items.check(put, fields, delete)
        done: ItemsChanged = self._writer.run(
            lambda connection: items.change(connection, put, fields, delete, self._clock())
        )
        return done

    # --- changes -----------------------------------------------------------------------------------------------------

    def last_change(self) -> int:
        """The number of the last change; 0 before the first."""
        return self._read(lambda connection: counters.count(connection, "change"))

    def changes_since(self, number: int) -> list[Change] | None:
        """The changes after `number`; None for whoever is too far behind, and has to read everything anew."""
        return self._read(lambda connection: changes.since(connection, number))

    # --- events ------------------------------------------------------------------------------------------------------

    def write_events(self, batch: Sequence[Event]) -> Future[EventReceipt]:
        """Store events; the receipt comes when they are on disk. An event whose id is stored already is left out.

        Raises:
            DataError: an event without a line, or with a character that cannot be stored; nothing of the batch is.
            EnvironmentFault: too many wait already. The future's: disk or server failed.
        """
        events.check(batch)
        return self._writer.events(tuple(batch))

    def history(self, user: str, limit: int = 200) -> list[tuple[str, ...]]:
        """The last baskets of a user, oldest first: purchases and ratings, by basket or else by day (UTC)."""
        storable(user, "user")

        def read(connection: Connection) -> list[tuple[str, ...]]:
            return events.past(connection, user, limit) if self._people.stored(connection, [user]) else []

        return self._read(read)

    def events_frame(self, since: int | None = None) -> Iterator[pl.DataFrame]:
        """Events of guests and of users who may be stored, in frames of bounded size; columns: `events.FRAME`."""
        return events.frames(self._storage.reading, self._people, since)

    # --- people ------------------------------------------------------------------------------------------------------

    def hashed(self, user: str) -> str:
        """The name under which things are kept about a user: a hash that is keyed with the store's secret."""
        return self._people.hashed(user)

    def consent(self, user: str) -> bool | None:
        """What the user has said; None: nothing."""
        return self._read(lambda connection: self._people.consent(connection, user))

    def may_store(self, user: str) -> bool:
        """Whether events of this user are kept and used."""
        return bool(self._read(lambda connection: self._people.stored(connection, [user])))

    def set_consent(self, user: str, allowed: bool) -> int:
        """Keep the user's word. Whoever objects has no events from then on; returns how many were removed.

        They are deleted at once, and their bytes with the next erasure or `prune`.
        """
        storable(user, "user")

        def say(connection: Connection) -> int:
            self._people.say(connection, user, allowed, self._clock())
            return 0 if allowed else sum(erasure.remove_events(connection, user).values())

        removed: int = self._writer.run(say)
        return removed

    def export_user(self, user: str) -> dict[str, Any]:
        """Everything that is held of a user, as JSON values."""
        storable(user, "user")
        return self._read(lambda connection: erasure.export(connection, self._people, user, self._clock()))

    def erase_user(self, user: str) -> ErasureReceipt:
        """Delete everything of a user, bytes included (see `erasure`); what was sent before is gone, too.

        Raises:
            EnvironmentFault: nothing was deleted, or it was, but its bytes are still there: erase again.
        """
        storable(user, "user")

        def prove(gone: dict[str, int]) -> ErasureReceipt:
            erasure.scrub(self._storage)
            return erasure.prove(self._storage, self._people, user, gone, self._clock())

        receipt: ErasureReceipt = self._writer.run(
            lambda connection: erasure.remove_all(connection, self._people, user, self._clock()), prove
        )
        return receipt

    def receipts(self) -> list[ErasureReceipt]:
        """Receipts of erasures, oldest first; user and salt are with whoever got them."""
        return self._read(erasure.receipts)

    # --- keys --------------------------------------------------------------------------------------------------------

    def add_key(self, key: ApiKey) -> None:
        self._writer.run(lambda connection: keys.add(connection, key, self._clock()))

    def keys(self) -> list[ApiKey]:
        """All keys, oldest first, also those that were revoked."""
        return self._read(keys.kept)

    def revoke_key(self, id: str, at: int) -> None:
        """A key opens nothing from then on; DataError where there is none of this id."""
        self._writer.run(lambda connection: keys.revoke(connection, id, at, self._clock()))

    # --- versions ----------------------------------------------------------------------------------------------------

    def add_version(
        self, run: str, fingerprint: str, model: str, signed_at: int | None, allowed: Collection[str] = ()
    ) -> Version:
        """The version of this run as it is now: a new one only where it has not been served."""
        added: Version = self._writer.run(
            lambda connection: versions.add(connection, run, fingerprint, model, signed_at, allowed, self._clock())
        )
        return added

    def versions(self) -> list[Version]:
        return self._read(versions.kept)

    def rollout(self) -> Rollout | None:
        return self._read(versions.rollout)

    def set_rollout(self, rollout: Rollout) -> None:
        """Name the versions that answer from now on; DataError where there is no such version."""
        self._writer.run(lambda connection: versions.set_rollout(connection, rollout, self._clock()))

    # --- noisy answers -----------------------------------------------------------------------------------------------

    def spent(self, user_hash: str, since: int) -> float:
        """Epsilon of a user's noisy answers since then."""
        return self._read(lambda connection: spends.spent(connection, user_hash, since))

    def spend(self, user_hash: str, epsilon: float, limit: float, since: int) -> bool:
        """Charge one answer, if the sum since then stays within `limit`; whether it did, never twice over the limit."""
        charged: bool = self._writer.run(
            lambda connection: spends.spend(connection, user_hash, epsilon, limit, since, self._clock())
        )
        return charged

    # --- retention ---------------------------------------------------------------------------------------------------

    def prune(self, now: int) -> dict[str, int]:
        """Delete what is kept longer than the settings allow; says how many rows by kind."""
        gone: dict[str, int] = {}
        for kind, step, repeats in retention.steps(self._settings, now):
            gone[kind] = some = self._writer.run(step)
            while repeats and some:
                some = self._writer.run(step)
                gone[kind] += some
        self._writer.run(lambda _: None, lambda _: erasure.scrub(self._storage, urgent=True))
        return gone

    def _read(self, read: Callable[[Connection], T]) -> T:
        with self._storage.reading() as connection:
            return read(connection)


def _secret(storage: Storage) -> bytes:
    """The store's secret, made when it is first opened."""
    asked = select(secret_table.c.value).where(secret_table.c.name == "secret")
    with storage.reading() as connection:
        found = connection.execute(asked).scalar()
    if found is None:
        with storage.writing() as connection:
            counters.lock(connection)
            if (found := connection.execute(asked).scalar()) is None:
                found = secrets.token_bytes(32)
                connection.execute(insert(secret_table).values(name="secret", value=found))
    return bytes(found)
