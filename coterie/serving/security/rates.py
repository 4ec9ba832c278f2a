"""How often one may ask: a token bucket for each of many, in bounded memory."""

from __future__ import annotations

import math
from collections import OrderedDict

MOST = 50_000  # buckets kept: about 10 MB
MINUTE = 60.0


class Buckets:
    """A bucket of `per_minute` tokens for each who asks, refilled evenly over a minute.

    Kept as the time at which it will be full again (the generic cell rate algorithm, ITU-T I.371): one number each, and
    none for a full bucket that was forgotten. Beyond `most`, the one that was not used for longest is forgotten.
    """

    def __init__(self, per_minute: int, most: int = MOST) -> None:
        self._interval = MINUTE / per_minute
        self._room = MINUTE - self._interval
        self._most = most
        self._full: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full)

    def take(self, who: str, now: float) -> float:
        """Take one token at time `now` (seconds of any steady clock): 0.0, or the seconds until there is one."""
        full = self._full.get(who, now)
        full = max(full, now)
        if (wait := full - now - self._room) > 1e-9:
            return wait
        self._full[who] = full + self._interval
        self._full.move_to_end(who)
        if len(self._full) > self._most:
            self._full.popitem(last=False)
        return 0.0

    def wait(self, who: str, now: float) -> float:
        """Seconds until there is a token, without taking it."""
        return max(0.0, self._full.get(who, now) - now - self._room)


def whole_seconds(wait: float) -> int:
    """As Retry-After says it: at least 1."""
    return max(1, math.ceil(wait))
