"""Confidence intervals by resampling whole users.

Cases of one user (or of one guest's basket) go together, so the bootstrap draws groups, not cases: the cluster
bootstrap with percentile limits (Davison & Hinkley 1997, sections 3.8 and 5.3.1), for the ratio

    sum over drawn groups of the metric's sum / sum over drawn groups of the number of cases.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from coterie import rng
from coterie.errors import ConfigError
from coterie.types import Floats, Integers

MOST_GROUPS = 20_000
_CELLS = 4_000_000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over `cases` with its interval; `low` and `high` are None where there are fewer than two `groups`."""

    mean: float
    low: float | None
    high: float | None
    cases: int
    groups: int


def intervals(
    values: Mapping[str, Floats], group: Integers, confidence: float, resamples: int, seed: int
) -> dict[str, tuple[float, float]]:
    """Percentile interval of the mean of each metric in `values` (float64 [cases]); empty with fewer than two groups.

    All metrics share the same draws. More than 20,000 groups are first dealt at random into that many bundles, each of
    which is drawn whole: the interval stays valid, its width is estimated with a relative error of 0.5 %, and the work
    is bounded. Deterministic in `seed`.

    Raises:
        ConfigError: `confidence` is not between 0 and 1, or `resamples` is below 1.
    """
    if not 0 < confidence < 1:
        raise ConfigError(f"confidence must be between 0 and 1, got {confidence}")
    if resamples < 1:
        raise ConfigError(f"resamples must be at least 1, got {resamples}")
    stream = rng.stream(seed, "bootstrap")
    label = bundles(group, MOST_GROUPS, stream)
    if not values or not len(label) or label.max() < 1:
        return {}
    means = resampled_means(group_sums([*values.values()], label), np.bincount(label), resamples, stream)
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail], axis=0)
    return {name: (float(low[m]), float(high[m])) for m, name in enumerate(values)}


def bundles(group: Integers, most: int, stream: np.random.Generator) -> Integers:
    """Label each case 0 .. n - 1 by its group; more than `most` groups share `most` labels, dealt evenly at random."""
    names, label = np.unique(group, return_inverse=True)
    if len(names) > most:
        label = (stream.permutation(len(names)) % most)[label]
    return label.astype(np.int64)


def group_sums(values: list[Floats], label: Integers) -> Floats:
    """Sum of each array within each label: float64 [labels, arrays]."""
    return np.stack([np.bincount(label, array) for array in values], axis=1)


def resampled_means(sums: Floats, sizes: Integers | Floats, resamples: int, stream: np.random.Generator) -> Floats:
    """Ratio of sums under `resamples` draws of groups with replacement: float64 [resamples, metrics].

    `sums` (float64 [groups, metrics]) as from `group_sums`, `sizes` ([groups]) the number or weight of each group's
    cases.

    A draw is the vector of how often each group came, so one matrix product serves all metrics; draws come in batches
    that bound the memory.
    """
    groups = len(sizes)
    table = np.column_stack([sums, sizes])
    batch = max(1, _CELLS // groups)
    totals = []
    for start in range(0, resamples, batch):
        rows = min(batch, resamples - start)
        drawn = stream.integers(groups, size=(rows, groups)) + groups * np.arange(rows)[:, None]
        times = np.bincount(drawn.ravel(), minlength=rows * groups).reshape(rows, groups)
        totals.append(times.astype(np.float64) @ table)
    total = np.concatenate(totals)
    return total[:, :-1] / total[:, -1:]
