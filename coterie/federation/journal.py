"""The coordinator's durable record of jobs and attempts, in its database (SQLite or PostgreSQL).

An attempt's number is on disk before anything of it is sent, so that no (job, round, attempt) is ever used twice, not
even by a coordinator that was killed in between.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from sqlalchemy import BigInteger, Column, Integer, MetaData, String, Table, Text, func, insert, select, update

from coterie.errors import ConfigError
from coterie.storage import Storage

JobState: TypeAlias = Literal["waiting", "running", "done", "stopped", "failed"]
OPEN: tuple[JobState, ...] = ("waiting", "running")


metadata = MetaData()

jobs = Table(
    "fed_job",
    metadata,
    Column("id", String(100), primary_key=True),
    Column("name", Text, nullable=False),
    Column("spec", Text, nullable=False),  # canonical JSON of the signed job
    Column("state", String(10), nullable=False),
    Column("reason", Text, nullable=False),
    Column("round", Integer, nullable=False),
    Column("folder", Text, nullable=False),
    Column("created_at", BigInteger, nullable=False),
    Column("started_at", BigInteger),
    Column("finished_at", BigInteger),
)

attempts = Table(
    "fed_attempt",
    metadata,
    Column("job", String(150), primary_key=True),
    Column("round", Integer, primary_key=True, autoincrement=False),
    Column("attempt", Integer, primary_key=True, autoincrement=False),
    Column("state", String(10), nullable=False),
    Column("reason", Text, nullable=False),
    Column("opened_at", BigInteger, nullable=False),
    Column("closed_at", BigInteger),
)


@dataclass(frozen=True)
class JobRecord:
    """One occurrence of a job: `spec` is the signed job, `name` what the configuration calls it, `id` what it is."""

    id: str
    name: str
    spec: dict[str, Any]
    state: JobState
    reason: str
    round: int
    folder: str
    created_at: int
    started_at: int | None
    finished_at: int | None

    @property
    def occurrence(self) -> int:
        """Which one, from 0."""
        return int(self.id.rpartition(".")[2])


class FederationJournal:
    """`coterie.federation.network.Journal`, and the jobs themselves."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def open_attempt(self, job: str, round: int) -> int:
        """The number of the next attempt at a round; see `coterie.federation.network.Journal`."""
        of = attempts.c.job == job, attempts.c.round == round
        with self._storage.writing() as connection:
            last = connection.execute(select(func.max(attempts.c.attempt)).where(*of)).scalar()
            number = 0 if last is None else int(last) + 1
            row = {"job": job, "round": round, "attempt": number, "state": "open", "reason": "", "opened_at": _now()}
            connection.execute(insert(attempts).values(**row))
        return number

    def close_attempt(self, job: str, round: int, attempt: int, state: str, reason: str = "") -> None:
        """How an attempt ended."""
        one = attempts.c.job == job, attempts.c.round == round, attempts.c.attempt == attempt
        with self._storage.writing() as connection:
            values = {"state": state, "reason": reason[:2000], "closed_at": _now()}
            connection.execute(update(attempts).where(*one).values(**values))

    def attempts(self, job: str) -> list[dict[str, Any]]:
        """All attempts of an occurrence, in order: what was tried, and how it ended."""
        asked = select(attempts).where(attempts.c.job.startswith(f"{job}/", autoescape=True))
        with self._storage.reading() as connection:
            rows = connection.execute(asked.order_by(attempts.c.opened_at, attempts.c.attempt)).mappings()
            return [dict(row) for row in rows]

    def add(self, id: str, name: str, spec: Mapping[str, Any], folder: str) -> JobRecord:
        """Record an occurrence that is to be conducted.

        Raises:
            ConfigError: there is one of this id.
        """
        row = {"id": id, "name": name, "spec": json.dumps(dict(spec), sort_keys=True), "state": "waiting", "reason": ""}
        with self._storage.writing() as connection:
            if connection.execute(select(jobs.c.id).where(jobs.c.id == id)).first() is not None:
                raise ConfigError(f"there is a job '{id}' already")
            connection.execute(insert(jobs).values(**row, round=0, folder=folder, created_at=_now()))
        return self.job(id)

    def job(self, id: str) -> JobRecord:
        """One occurrence.

        Raises:
            ConfigError: there is none of this id.
        """
        with self._storage.reading() as connection:
            row = connection.execute(select(jobs).where(jobs.c.id == id)).mappings().first()
        if row is None:
            raise ConfigError(f"there is no job '{id}'")
        return _record(row)

    def all(self) -> list[JobRecord]:
        """Every occurrence, oldest first."""
        with self._storage.reading() as connection:
            rows = connection.execute(select(jobs).order_by(jobs.c.created_at, jobs.c.id)).mappings().all()
        return [_record(row) for row in rows]

    def become(self, id: str, state: JobState, reason: str = "") -> None:
        """Change the state of an occurrence."""
        values: dict[str, Any] = {"state": state, "reason": reason[:2000]}
        if state == "running":
            values["started_at"] = _now()
        elif state not in OPEN:
            values["finished_at"] = _now()
        with self._storage.writing() as connection:
            if state == "running":  # when it began first: recurrences count from there
                values["started_at"] = func.coalesce(jobs.c.started_at, values["started_at"])
            connection.execute(update(jobs).where(jobs.c.id == id).values(**values))


def _record(row: Mapping[Any, Any]) -> JobRecord:
    return JobRecord(**{**dict(row), "spec": json.loads(row["spec"])})


def _now() -> int:
    return time.time_ns() // 1000
