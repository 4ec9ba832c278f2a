"""One thread writes: it takes everything that waits, writes it in one transaction, and then tells everyone.

So that many who write at once share one sync of the disk (group commit), what is written is written in the order in
which it was asked for, and no two transactions of a process stand in each other's way.
"""

from __future__ import annotations

import copy
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final, TypeAlias, TypeVar

from sqlalchemy import Connection

from coterie.errors import CoterieError, EnvironmentFault
from coterie.serving.store.counters import lock
from coterie.serving.words import Event, EventReceipt
from coterie.storage import Storage

TAKEN: Final = 5_000  # events of one transaction, of which a single batch may have more
WAITING: Final = 200_000  # events that may wait while the disk stands still

T = TypeVar("T")
WriteEvents: TypeAlias = Callable[[Connection, Sequence[Sequence[Event]]], list[EventReceipt]]


@dataclass(eq=False)
class _Job:
    """Events, or `work` inside the transaction and then `finish` outside it with what `work` returned."""

    events: Sequence[Event] = ()
    work: Callable[[Connection], Any] | None = None
    finish: Callable[[Any], Any] | None = None
    future: Future[Any] = field(default_factory=Future)

    def __post_init__(self) -> None:
        self.future.set_running_or_notify_cancel()  # what waits to be written is not called back


class Writer:
    """Runs until `close`. Whatever it is given is durable when its future has a result.

    A fault of disk or server fails everything in the transaction, of which nothing is written then; the next one is
    tried as if nothing had been. What is wrong with one job alone fails that one alone.
    """

    def __init__(self, storage: Storage, write_events: WriteEvents) -> None:
        self._storage = storage
        self._write_events = write_events
        self._queue: deque[_Job] = deque()
        self._events = 0  # that wait
        self._closed = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._serve, name="coterie-store-writer", daemon=True)
        self._thread.start()

    def events(self, batch: Sequence[Event]) -> Future[EventReceipt]:
        """Write events, with what else waits.

        Raises:
            EnvironmentFault: too many wait already, or the store is closed.
        """
        return self._put(_Job(batch))

    def run(self, work: Callable[[Connection], T], finish: Callable[[T], Any] | None = None) -> Any:
        """Do `work` in the next transaction, then `finish` without one, and wait for what the last of them returns.

        Raises:
            CoterieError: whatever `work` or `finish` raise; EnvironmentFault where the transaction failed.
        """
        return self._put(_Job(work=work, finish=finish)).result()

    def close(self) -> None:
        """Write what waits, and end."""
        with self._changed:
            self._closed = True
            self._changed.notify()
        self._thread.join()

    def _put(self, job: _Job) -> Future[Any]:
        with self._changed:
            if self._closed:
                raise EnvironmentFault("the store is closed; open it again")
            if self._events + len(job.events) > WAITING and self._queue:
                raise EnvironmentFault(f"the store is {self._events:,} events behind; call again in a while")
            self._queue.append(job)
            self._events += len(job.events)
            self._changed.notify()
        return job.future

    def _serve(self) -> None:
        while jobs := self._take():
            self._commit(jobs)

    def _take(self) -> list[_Job]:
        """What waits, in order, up to a number; nothing when it is closed and all is written."""
        jobs: list[_Job] = []
        with self._changed:
            self._changed.wait_for(lambda: self._queue or self._closed)
            size = 0
            while self._queue and (not jobs or size + len(self._queue[0].events) <= TAKEN):
                jobs.append(self._queue.popleft())
                size += len(jobs[-1].events)
            self._events -= size
        return jobs

    def _commit(self, jobs: list[_Job]) -> None:
        try:
            with self._storage.writing() as connection:
                lock(connection)
                outcomes = list(self._outcomes(connection, jobs))
        except CoterieError as fault:  # of disk or server
            for job in jobs:
                job.future.set_exception(copy.copy(fault))  # each raises its own
        except Exception as error:  # noqa: BLE001 - whoever waits for it gets it
            if len(jobs) == 1:
                jobs[0].future.set_exception(error)
                return
            for job in jobs:  # one of them is to blame, and the others are not
                self._commit([job])
        else:
            _settle(list(zip(jobs, outcomes, strict=True)))

    def _outcomes(self, connection: Connection, jobs: Sequence[_Job]) -> Iterator[Any]:
        """What each job gives, in order; a refusal is an outcome, and leaves nothing of its job behind."""
        for work, some in groupby(jobs, key=lambda job: job.work):
            if work is None:
                yield from self._write_events(connection, [job.events for job in some])
                continue
            for _ in some:
                yield _attempt(connection, work)


def _attempt(connection: Connection, work: Callable[[Connection], Any]) -> Any:
    """What a job gives, or its refusal. An error of the database ends the whole transaction, and its savepoints."""
    point = connection.begin_nested()
    try:
        outcome = work(connection)
    except CoterieError as refusal:
        point.rollback()
        return refusal
    point.commit()
    return outcome


def _settle(done: Sequence[tuple[_Job, Any]]) -> None:
    """Tell everyone; those last for whom there is more to do."""
    for job, outcome in done:
        if job.finish is None or isinstance(outcome, CoterieError):
            _tell(job.future, outcome)
    for job, outcome in done:
        if job.finish is not None and not isinstance(outcome, CoterieError):
            try:
                _tell(job.future, job.finish(outcome))
            except Exception as error:  # noqa: BLE001 - whoever waits for it gets it
                job.future.set_exception(error)


def _tell(future: Future[Any], outcome: Any) -> None:
    if isinstance(outcome, CoterieError):
        future.set_exception(outcome)
    else:
        future.set_result(outcome)
