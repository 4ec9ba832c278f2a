"""How many requests an address may make: a minute's worth at once, then a steady rate, and then none."""

from __future__ import annotations

import time
from collections.abc import Callable


class Pace:
    """A token bucket for each address."""

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._per_minute, self._clock = per_minute, clock
        self._spent: dict[str, tuple[float, float]] = {}  # address -> requests not yet worked off, and when that was so

    def delay(self, address: str) -> float:
        """Count a request and return how many seconds it has to wait; 0.0 within the burst."""
        now, rate = self._clock(), self._per_minute / 60
        owed, then = self._spent.get(address, (0.0, now))
        owed = max(0.0, owed - (now - then) * rate) + 1
        self._spent[address] = owed, now
        if len(self._spent) > 10_000:
            self._forget(now, rate)
        return max(0.0, (owed - self._per_minute) / rate)

    def give_back(self, address: str) -> None:
        """A request that was refused is not counted: who keeps trying is served as soon as there is room."""
        owed, then = self._spent.get(address, (1.0, self._clock()))
        self._spent[address] = max(0.0, owed - 1), then

    def _forget(self, now: float, rate: float) -> None:
        """Drop addresses that have nothing left to work off."""
        self._spent = {one: (owed, then) for one, (owed, then) in self._spent.items() if owed > (now - then) * rate}
