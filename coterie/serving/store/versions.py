"""The runs that a deployment has served, and which of them answer now."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Final

from sqlalchemy import Connection, RowMapping, func, insert, select

from coterie.errors import DataError
from coterie.serving.store.changes import record
from coterie.serving.store.statements import upsert
from coterie.serving.store.tables import rollouts, versions
from coterie.serving.words import Rollout, Version

_ONLY: Final = 1  # id of the one roll-out


def add(
    connection: Connection,
    run: str,
    fingerprint: str,
    model: str,
    signed_at: int | None,
    allowed: Collection[str],
    at: int,
) -> Version:
    """The version of a run, a new one where it has not been served as it is now."""
    same = select(versions).where(versions.c.run == run, versions.c.fingerprint == fingerprint)
    if (row := connection.execute(same).mappings().first()) is not None:
        return _version(row)
    id = int(connection.execute(select(func.coalesce(func.max(versions.c.id), 0))).scalar_one()) + 1
    version = Version(id, run, fingerprint, model, signed_at, at, tuple(allowed))
    row_of = {name: getattr(version, name) for name in versions.c.keys()}  # noqa: SIM118 - columns iterate as columns
    connection.execute(insert(versions).values({**row_of, "allowed": json.dumps(version.allowed)}))
    return version


def kept(connection: Connection) -> list[Version]:
    """All versions, in the order of their numbers."""
    return [_version(row) for row in connection.execute(select(versions).order_by(versions.c.id)).mappings()]


def rollout(connection: Connection) -> Rollout | None:
    """Which versions answer; None before the first was named."""
    row = connection.execute(select(rollouts).where(rollouts.c.id == _ONLY)).mappings().first()
    return None if row is None else Rollout(**{name: row[name] for name in row if name != "id"})


def set_rollout(connection: Connection, new: Rollout, at: int) -> None:
    """Name the versions that answer from now on.

    Raises:
        DataError: there is no such version, or a share that is none.
    """
    known = set(connection.execute(select(versions.c.id)).scalars())
    for id in (new.champion, new.challenger, new.previous):
        if id is not None and id not in known:
            raise DataError(f"there is no version {id}; there are {', '.join(map(str, sorted(known))) or 'none'}")
    if not 0 <= new.share <= 1:
        raise DataError(f"the challenger's share must lie between 0 and 1, is {new.share}")
    row = {name: getattr(new, name) for name in ("champion", "challenger", "share", "previous")}
    upsert(connection, rollouts, [{"id": _ONLY, **row, "changed_at": new.changed_at or at}])
    record(connection, "rollout", [str(new.champion)], at)


def _version(row: RowMapping) -> Version:
    return Version(**{**row, "allowed": tuple(json.loads(row["allowed"]))})
