"""A model that answers: a run with what makes one question quick."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import numba
import numpy as np

from coterie.experiment.run import ClientModel, Run, popularity_hint
from coterie.serving.choosing import choose
from coterie.serving.live import ModelItems
from coterie.serving.words import Version
from coterie.types import Items, Query, Ragged, Scores, State

CLIENTS = 16  # models of clients that are kept in memory, the last that were asked

NOTHING = np.empty(0, np.int32)


@dataclass(frozen=True, eq=False)
class View:
    """What one asker sees of a run: the federation's model or a client's own, with the items that it knows.

    `within` (int32) says where each of its items stands among the run's; None: they are the run's.
    """

    state: State
    ids: tuple[str, ...]
    places: Mapping[str, int]
    within: Items | None
    popularity: Scores
    hint: Scores
    pool: Items

    @classmethod
    def of(cls, run: Run, model: ClientModel | None = None) -> View:
        """The view of a client's model; None: of the federation's."""
        state, ids, places, within = run.state, run.items, run.catalogue.places, None
        if model is not None:
            state, within = model.state, model.items
            ids = tuple(run.items[i] for i in within.tolist())
            places = {item: at for at, item in enumerate(ids)}
        popularity = state["popularity"].astype(np.float32)
        return cls(state, ids, places, within, popularity, popularity_hint(state), np.arange(len(ids), dtype=np.int32))


@dataclass(eq=False)
class ServedModel:
    """A run that answers as one version of a deployment. Thread-safe."""

    run: Run
    version: Version
    items: ModelItems
    _whole: View
    _views: OrderedDict[str, View] = field(default_factory=OrderedDict)
    _reading: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, run: Run, version: Version) -> ServedModel:
        """Prepare a run: afterwards its first question takes no longer than any other."""
        titles = [run.catalogue.title(item) for item in run.items]
        served = cls(run, version, ModelItems(run.items, titles, run.catalogue.places), View.of(run))
        served._warm_up()
        return served

    def view(self, client: str | None) -> View:
        """What this client sees; None: what everybody does.

        Raises:
            ModelError: the run has no model of this client's own.
        """
        if client is None:
            return self._whole
        with self._reading:
            found = self._views.pop(client, None) or View.of(self.run, self.run.served(client))
            self._views[client] = found
            while len(self._views) > CLIENTS:
                self._views.popitem(last=False)
        return found

    def scores(self, view: View, query: Query) -> Scores:
        """Scores of all items of the view for each query: float32 [queries, items], the caller's to change."""
        if _here.alone:
            return self.run.model.score(view.state, query)
        with one_thread():
            return self.run.model.score(view.state, query)

    def _warm_up(self) -> None:
        """Have the kernels compiled, or read from their cache."""
        n = len(self._whole.ids)
        if not n:
            return
        row = self.scores(self._whole, Query(Ragged.of([[0]]), step=np.zeros(1, np.int32)))[0]
        everything, alone = np.ones(n, bool), np.full(n, -1, np.int32)
        hint, pool = self._whole.hint, self._whole.pool
        choose(row, hint, everything, NOTHING, 1, group=alone, taken_groups=NOTHING, pool=pool)


class _Here(threading.local):
    """What is so of this thread: whether kernels run on it alone, always."""

    alone = False


_here = _Here()


def stay_alone() -> None:
    """From now on kernels that this thread calls run on it alone: `one_thread` for good, where it costs nothing."""
    numba.set_num_threads(1)
    _here.alone = True


@contextmanager
def one_thread() -> Iterator[None]:
    """Kernels run on this thread alone.

    For one question, waking others costs more than they save, and the slowest of them decides when it is answered.
    """
    before = numba.get_num_threads()
    numba.set_num_threads(1)
    try:
        yield
    finally:
        numba.set_num_threads(before)
