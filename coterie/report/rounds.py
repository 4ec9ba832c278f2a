"""What ``metrics.jsonl`` of a run folder says of each round."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from coterie.files import read_bytes

ROUNDS_FILE = "metrics.jsonl"


def round_records(folder: Path) -> list[dict[str, Any]]:
    """The lines of ``metrics.jsonl``; of a round that was done again after a restart the last; no torn line."""
    path, found = folder / ROUNDS_FILE, dict[tuple[str, int], dict[str, Any]]()
    if not path.exists():
        return []
    for line in read_bytes(path).decode("utf-8", "replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue  # a crash can tear the last line; the round it belonged to is done again and written again
        found[record["stage"], record["round"]] = record
    return list(found.values())
