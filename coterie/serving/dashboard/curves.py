"""Metric by round, from a run's ``metrics.jsonl``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from coterie.report.reading import known
from coterie.serving.dashboard.figures import Point

Records: TypeAlias = Sequence[Mapping[str, Any]]


def records(folder: Path) -> Records:
    """What each round of a run has measured and summed."""
    from coterie.experiment.outputs import round_records  # brings matplotlib, which a server needs for nothing else

    return round_records(folder)


def metrics_of(found: Records) -> list[str]:
    """The metrics that any round was validated on."""
    return list(dict.fromkeys(name for one in found for name in one.get("validation") or {}))


def curve(found: Records, metric: str) -> list[Point]:
    """The metric after each validated round, rounds counted from 1."""
    points = ((int(one["round"]) + 1, known((one.get("validation") or {}).get(metric))) for one in found)
    return sorted({round: value for round, value in points if value is not None}.items())
