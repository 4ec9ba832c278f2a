"""See to it that a pump serves while an exchange is open: a run of Flower's, started anew whenever its pump is gone."""

from __future__ import annotations

import threading
import time

from coterie.engines.flower.broker import Broker
from coterie.engines.flower.control import Control
from coterie.errors import EnvironmentFault

COMES = 30.0  # seconds within which a run's pump has come, or another run is started
LOOK = 2.0  # seconds between two looks whether a run whose pump has not come has ended
RESTS = 600.0  # seconds without an exchange after which the pump is let go


class PumpKeeper:
    """Starts runs by itself, on a thread, until `stop`."""

    def __init__(self, broker: Broker, control: Control) -> None:
        self._broker, self._control = broker, control
        self._stopping = threading.Event()
        self._run = 0  # the run whose pump is expected, or has served
        self._begun = self._looked = self._used = time.monotonic()
        threading.Thread(target=self._keep, name="pump keeper", daemon=True).start()

    def stop(self) -> None:
        """Start no more runs."""
        self._stopping.set()

    def lost(self) -> None:
        """Whatever would start a pump has ended, and with it what it had begun."""
        self._run = 0

    def _keep(self) -> None:
        while not self._stopping.wait(0.1):
            try:
                self._once(time.monotonic())
            except EnvironmentFault:
                continue  # SuperLink is down; it comes again

    def _once(self, now: float) -> None:
        if self._broker.wanted:
            self._used = now
            if not self._broker.served and not self._expected(now):
                self._control.stop_runs()  # of a pump that was killed, of a daemon before this one
                self._run = self._control.start_run()
                self._begun = self._looked = now
                self._broker.admit(self._run)
        elif self._broker.served and now - self._used > RESTS:
            self._broker.admit(None)

    def _expected(self, now: float) -> bool:
        """Whether a run was started whose pump may still come."""
        if not self._run or self._broker.greeted or now - self._begun > COMES:
            return False
        if now - self._looked < LOOK:
            return True
        self._looked = now
        return self._control.runs(self._run)
