"""Before work starts: how many gigabytes, how many bytes a client will send, about how long."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from coterie.errors import ModelError
from coterie.models.base import Model
from coterie.models.gram import GramModel
from coterie.types import Population, State

# Rates measured on one core of a 2020s server; the estimate says "about".
ADDS_PER_SECOND = 4e8
FLOPS_PER_SECOND = 2.5e10


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a training will need; seconds are for the whole of it, on a machine like the one the rates come from."""

    memory_bytes: int
    upload_bytes: int
    seconds: float

    def sentence(self) -> str:
        return (
            f"about {human(self.memory_bytes)} of memory, {human(self.upload_bytes)} upload per client and round, "
            f"about {_duration(self.seconds)}"
        )


def estimate(model: Model, people: Population, ring_bits: int, own_sizes: list[int], trainings: int) -> Estimate:
    """Estimate a training of `model` over `people`.

    Args:
        own_sizes: catalogue size of each client that also trains alone (empty where none does).
        trainings: how often the federated model is fitted (selection, final, centralised).

    Raises:
        ModelError: the catalogue is larger than the model's dense matrix may be; names what to use.
    """
    n, limit = people.block.n_items, model.max_dense_items
    if limit is not None and n > limit:
        raise ModelError(
            f"model '{model.name}' needs a dense {n:,} x {n:,} item matrix ({human(8 * n * n)}), and its limit is "
            f"{limit:,} items; keep the most frequent ones with --max-items {limit}, or use --model popularity"
        )
    spec = model.next_round(model.init(n, {}, 0))
    entries = sum(part.size for part in spec.parts) if spec is not None else 0
    seconds, memory = 1.0, 8 * entries + 40 * len(people.block.item)
    if isinstance(model, GramModel):
        sizes = np.diff(people.block.basket_ptr).astype(np.float64)
        adds = float((sizes * (sizes + 1) / 2).sum())
        solves = [*([n] * trainings), *(size for size in own_sizes for _ in range(4))]
        seconds += trainings * adds / ADDS_PER_SECOND + sum(2.0 * size**3 for size in solves) / FLOPS_PER_SECOND
        # The triangle in the accumulator and in the state, one dense float64 matrix, weights, and as many again of what
        # is compared.
        memory += 8 * entries + 24 * n * n
    return Estimate(int(memory), entries * ring_bits // 8, seconds)


def memory_of_machine() -> int | None:
    """Physical memory in bytes, where the platform tells."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def state_bytes(state: State) -> int:
    """Bytes of a state's arrays: what a client downloads."""
    return int(sum(array.nbytes for array in state.arrays.values()))


def human(size: float) -> str:
    """Bytes for people.

    >>> human(55_000_000)
    '55.0 MB'
    """
    for unit in ("bytes", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "bytes" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{max(seconds, 1):.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
