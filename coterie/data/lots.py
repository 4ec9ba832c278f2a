"""Lots of a split: drawn in the order of the rows, or for each row from what names it alone.

In the order of the rows, one user more or less shifts what all others draw. Under differential privacy no user may move
another's rows from training to test, whatever noise comes later: there a row's lot is a hash of its own names.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import TypeAlias

import numpy as np
import polars as pl

from coterie.rng import stream
from coterie.types import Floats


@dataclass(frozen=True)
class Lots:
    """Where a split's lots come from; with `alone` each is a function of the seed and the row's own names."""

    seed: int
    alone: bool = False
    purpose: tuple[str, ...] = ()

    def named(self, *purpose: str) -> np.random.Generator | Lots:
        """The lots for one purpose."""
        return replace(self, purpose=purpose) if self.alone else stream(self.seed, *purpose)


Source: TypeAlias = np.random.Generator | Lots


def lots(source: Source, frame: pl.DataFrame, names: Sequence[str]) -> Floats:
    """Uniform draws in (0, 1), one per row: float64 [rows]. Equal rows (by `names`) are told apart by their order."""
    if isinstance(source, np.random.Generator):
        return source.random(len(frame))
    key, names = stream(source.seed, *source.purpose).bytes(32), list(names)
    rows = frame.select(names).with_columns(nth=pl.int_range(pl.len()).over(names))
    hashed = b"".join(blake2b(repr(row).encode(), digest_size=8, key=key).digest() for row in rows.iter_rows())
    return (np.frombuffer(hashed, "<u8") >> np.uint64(11)).astype(np.float64) * 2.0**-53 + 2.0**-54
