"""Where a node's contributions are computed: in this process, or on a Ray cluster. The integers are the same."""

from __future__ import annotations

from contextlib import ExitStack

from coterie.engines.local import IN_TURN, kernel_threads
from coterie.engines.spans import BLOCK, KeptStore, Workers, contribution
from coterie.errors import EnvironmentFault
from coterie.experiment.fitting import Notify
from coterie.ring import Accumulator
from coterie.types import RoundSpec, State, Summand, UserBlock

RAY = "ray"


class Sums:
    """Sums the contributions of own users. A cluster is opened when it is first needed, and again after a failure."""

    def __init__(self, engine: str, ray_address: str | None, notify: Notify) -> None:
        self._engine, self._address, self._notify = engine, ray_address, notify
        self._open = ExitStack()
        self._workers: Workers | None = None

    def __call__(
        self, summand: Summand, spec: RoundSpec, state: State, users: UserBlock, store: KeptStore | None
    ) -> Accumulator:
        """See `coterie.engines.spans.contribution`.

        Raises:
            MissingExtra: Ray is asked for, and not installed.
            EnvironmentFault: its cluster cannot be reached, or its workers keep dying.
        """
        try:
            with kernel_threads(0):
                return contribution(self._ready(), summand, spec, state, users, store, BLOCK)
        except EnvironmentFault:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the cluster, if one is open."""
        self._open.close()
        self._workers = None

    def _ready(self) -> Workers:
        if self._engine != RAY:
            return IN_TURN
        if self._workers is None:
            from coterie.engines.ray import open_cluster

            self._workers = self._open.enter_context(open_cluster(self._address, note=self._told))
        return self._workers

    def _told(self, text: str) -> None:
        self._notify("warning", {"text": text})
