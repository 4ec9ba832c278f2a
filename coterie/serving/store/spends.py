"""What noisy answers have cost their users: epsilon by keyed hash, summed over a window of time."""

from __future__ import annotations

import math

from sqlalchemy import Connection, delete, func, insert, select

from coterie.errors import ConfigError
from coterie.serving.store import counters
from coterie.serving.store.tables import spends

ROUNDING = 1e-9  # ten answers of 0.1 are one of 1


def spent(connection: Connection, user_hash: str, since: int) -> float:
    """Epsilon of the answers since a time, that time included."""
    asked = select(func.sum(spends.c.epsilon)).where(spends.c.user_hash == user_hash, spends.c.at >= since)
    return float(connection.execute(asked).scalar() or 0.0)


def spend(connection: Connection, user_hash: str, epsilon: float, limit: float, since: int, at: int) -> bool:
    """Charge an answer, unless that would take what was spent since a time over the limit.

    Raises:
        ConfigError: an epsilon that is no positive number.
    """
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise ConfigError(f"the epsilon of an answer must be positive, is {epsilon}")
    if spent(connection, user_hash, since) + epsilon > limit * (1 + ROUNDING):
        return False
    connection.execute(delete(spends).where(spends.c.user_hash == user_hash, spends.c.at < since))
    connection.execute(insert(spends).values(user_hash=user_hash, epsilon=epsilon, at=at))
    if counters.count(connection, "spend_window") < (window := at - since):
        counters.put(connection, "spend_window", window)
    return True


def prune(connection: Connection, at: int) -> int:
    """Forget what no window that was ever asked for reaches back to."""
    oldest = at - counters.count(connection, "spend_window")
    return connection.execute(delete(spends).where(spends.c.at < oldest)).rowcount
