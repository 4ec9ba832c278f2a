"""Where the real data of the benchmarks are: the folder that COTERIE_DATA names (default: ../shared/data)."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def folder(name: str) -> Path:
    """The folder of one data set; ends the benchmark with a sentence where it is missing."""
    root = Path(os.environ.get("COTERIE_DATA", Path(__file__).resolve().parents[1] / ".." / "shared" / "data"))
    if not (root / name).is_dir():
        print(f"skipped: {root / name} is not there; set COTERIE_DATA to the folder that holds '{name}'")
        sys.exit(0)
    return (root / name).resolve()
