"""Item-to-item scores in int8: what an exported model is made of.

Row i says what goes with item i: the scores of a basket that holds i alone, minus what popularity (or another prior)
adds to every score. A basket's score is the sum of its items' rows plus what was left out. That is exact for models
whose score is a sum over the basket, and an approximation of the others; `coterie.serving.private.agreement` measures
either.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from coterie.experiment.run import Run
from coterie.types import Floats, Items, Known, Pointers, Query, Ragged, Scores

LARGEST = 127  # of an int8, so that it is symmetric
BLOCK = 1 << 22  # scores that are held at a time


@dataclass(frozen=True, eq=False)
class Neighbours:
    """For each item those that weigh most with it: entries ``ptr[i]:ptr[i + 1]`` are item i's.

    `item` (int32, ascending within a row) is the neighbour, ``scale[i] * value[e]`` (float32, int8) its score: within
    ``scale[i] / 2`` of the exact one.
    """

    ptr: Pointers
    item: Items
    value: NDArray[np.int8]
    scale: Scores

    def add(self, cart: Ragged, out: Scores) -> None:
        """Add the rows of each basket's items to `out` (float32 [baskets, items])."""
        for row, scores in enumerate(out):
            for i in cart[row].tolist():
                at = slice(self.ptr[i], self.ptr[i + 1])
                scores[self.item[at]] += self.scale[i] * self.value[at]


def neighbours(run: Run, most: int) -> Neighbours:
    """The `most` neighbours of each item with the largest scores, for or against; those that round to 0 are dropped."""
    n = len(run.items)
    lengths, items, values, scales = np.zeros(n, np.int64), list[Items](), list[NDArray[np.int8]](), list[Scores]()
    for start, rows in related_blocks(run):
        kept = _largest(rows, min(most, n))
        value, scale = to_int8(np.take_along_axis(rows, kept, axis=1))
        there = value != 0
        lengths[start : start + len(rows)] = there.sum(axis=1)
        items.append(kept[there])
        values.append(value[there])
        scales.append(scale)
    ptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Neighbours(ptr, np.concatenate(items), np.concatenate(values), np.concatenate(scales))


def related_blocks(run: Run) -> Iterator[tuple[int, Scores]]:
    """Rows of the item-to-item scores, some at a time: the first one's position and float32 [rows, items].

    An item's score for itself is 0: it is never suggested beside itself.
    """
    n = len(run.items)
    step = max(1, BLOCK // max(n, 1))
    for start in range(0, n, step):
        some = np.arange(start, min(start + step, n), dtype=np.int32)
        rows = np.zeros((len(some), n), np.float32)
        alone = Ragged(np.arange(len(some) + 1, dtype=np.int64), some)
        run.model.related(run.state, Known(alone, None, None, np.zeros(len(some), np.int32)), rows)
        rows[np.arange(len(some)), some] = 0.0
        yield start, rows


def added(run: Run) -> Scores:
    """What is added to the score of each item, whatever the basket holds: float32 [items]."""
    weight, prior = run.model.terms().popularity, run.model.prior(run.state)
    total: Floats = weight * run.state["popularity"].astype(np.float64)
    return (total if prior is None else total + prior).astype(np.float32)


def blank(run: Run) -> Scores:
    """The scores of the empty basket, popularity (or predicted ratings): float32 [items]."""
    return run.model.score(run.state, Query(Ragged.of([[]])))[0]


def to_int8(rows: Scores) -> tuple[NDArray[np.int8], Scores]:
    """Each row in steps of its own: int8 and float32 [rows], whose product is within half a step of it.

    >>> value, scale = to_int8(np.array([[0.5, -0.254, 0.0]], np.float32))
    >>> value.tolist(), round(float(scale[0]), 5)
    ([[127, -65, 0]], 0.00394)
    """
    scale = (np.abs(rows).max(axis=1, initial=0.0) / LARGEST).astype(np.float32)
    steps = np.divide(rows, scale[:, None], out=np.zeros_like(rows), where=scale[:, None] > 0)
    return np.clip(np.rint(steps), -LARGEST, LARGEST).astype(np.int8), scale


def _largest(rows: Scores, most: int) -> Items:
    """Where the largest of each row are, by size: int32 [rows, most], ascending."""
    found = np.argpartition(-np.abs(rows), most - 1, axis=1)[:, :most]
    return np.sort(found, axis=1).astype(np.int32)
