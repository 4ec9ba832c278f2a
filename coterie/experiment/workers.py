"""Who sums the blocks of a training's rounds: this process, or the workers of a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from coterie.engines.local import IN_TURN, kernel_threads
from coterie.engines.spans import Workers
from coterie.experiment.fitting import Notify
from coterie.settings import RunSettings


@contextmanager
def workers_of(run: RunSettings, notify: Notify) -> Iterator[Workers]:
    """The workers that `run` asks for, for as long as the context lasts; what stays here runs on as many cores.

    Raises:
        MissingExtra: Ray is asked for and not installed.
        EnvironmentFault: its cluster cannot be started or reached.
    """
    with kernel_threads(run.threads):
        if run.engine == "local":
            yield IN_TURN
            return
        from coterie.engines.ray import open_cluster

        notify("step", {"text": "connecting to Ray", "done": 0, "total": None})
        with open_cluster(run.ray_address, run.threads, lambda text: notify("warning", {"text": text})) as cluster:
            yield cluster
