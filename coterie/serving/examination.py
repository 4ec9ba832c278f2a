"""Who looks how far down: the position-based model of clicks, and clicks freed of the place where an item stood.

The model (Craswell et al. 2008): a click needs that the position k was looked at, and that the item appeals there,

    P(click on item i at position k) = theta_k * gamma_i,        theta_1 = 1.

What is known of theta comes from positions that were filled at random, where there are enough of these: whoever stands
there is on average as appealing at every k, so theta is proportional to the clicks (Joachims, Swaminathan & Schnabel,
WSDM 2017, estimate it from randomised positions). Else it comes from regression-EM (Wang et al., WSDM 2018) with one
gamma for each item, which needs items that were seen at several positions, and takes items that are put first for good
reasons for ones that are looked at more: it overstates the decay somewhat.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np

from coterie.types import Array, Floats, Integers

Method: TypeAlias = Literal["randomised", "regression-EM"]

LEAST_CLICKS = 10  # of a position, or of the neighbours that it is pooled with
LEAST_IN_ALL = 50
MOST_WEIGHT = 20.0  # of one click; larger ones would let a few clicks far down decide
MOST_STEPS, CLOSE = 500, 1e-6
_PRIOR = 2.0  # impressions of an average item that each gamma starts from


@dataclass(frozen=True)
class Examination:
    """How likely each position is looked at, relative to the first: `theta` float64 [positions], theta[0] = 1.

    `clicks` is how many it was estimated from.
    """

    method: Method
    theta: Floats
    clicks: int

    def weights(self) -> Floats:
        """What a click at each position counts: 1 / theta, clipped; float64 [positions]."""
        return np.minimum(1.0 / np.maximum(self.theta, 1e-12), MOST_WEIGHT)


@dataclass(frozen=True)
class Cells:
    """Impressions and clicks by item and position: four int64 arrays of one length; codes count from 0."""

    item: Integers
    position: Integers
    shown: Integers
    clicked: Integers


def examine(cells: Cells, explored_shown: Integers, explored_clicked: Integers) -> Examination | None:
    """The best estimate of theta that these clicks allow; None where they allow none.

    `explored_shown`, `explored_clicked` (int64 [positions]) count the items that were drawn at random.
    """
    theta = from_randomised(explored_shown, explored_clicked)
    if theta is not None:
        return Examination("randomised", theta, int(explored_clicked.sum()))
    if int(cells.clicked.sum()) < LEAST_IN_ALL or not _tells_apart(cells):
        return None
    theta = regression_em(cells, len(explored_shown))
    return Examination("regression-EM", theta, int(cells.clicked.sum()))


def from_randomised(shown: Integers, clicked: Integers) -> Floats | None:
    """Theta from items that stood at random positions: float64 [positions]; None where there are too few clicks.

    Neighbouring positions with fewer than 10 clicks are pooled.
    """
    if not len(shown) or clicked[0] < LEAST_CLICKS or clicked.sum() < LEAST_IN_ALL:
        return None
    theta, first = np.empty(len(shown)), clicked[0] / shown[0]
    for start, stop in _pools(clicked):
        clicks, seen = int(clicked[start:stop].sum()), int(shown[start:stop].sum())
        rate = clicks / seen if clicks >= LEAST_CLICKS else (clicks + 0.5) / (seen + 1)  # never seen clicked is not 0
        theta[start:stop] = rate / first
    return theta


def regression_em(cells: Cells, positions: int) -> Floats:
    """Theta by expectation and maximisation, with one gamma per item: float64 [positions].

    Gammas are drawn to their mean by two impressions' worth of prior. Where clicks are rare a step of EM is tiny, so it
    starts from where clicks in every row and column of the table are as many as expected. A position that was never
    shown is as the one before.
    """
    items = int(cells.item.max()) + 1
    shown_at = np.bincount(cells.position, cells.shown, positions)
    shown_of = np.bincount(cells.item, cells.shown, items)
    theta, gamma = _balanced(cells, items, positions)
    for _ in range(MOST_STEPS):
        both = theta[cells.position] * gamma[cells.item]
        passed = (cells.shown - cells.clicked) / np.maximum(1.0 - both, 1e-12)  # not clicked, over its probability
        looked = cells.clicked + passed * (theta[cells.position] - both)
        liked = cells.clicked + passed * (gamma[cells.item] - both)
        updated = np.bincount(cells.position, looked, positions) / np.maximum(shown_at, 1)
        mean = float(liked.sum() / shown_of.sum())
        gamma = (np.bincount(cells.item, liked, items) + _PRIOR * mean) / (shown_of + _PRIOR)
        moved = float(np.abs(updated - theta).max())
        theta = updated
        if moved < CLOSE:
            break
    return _relative(theta, shown_at)


def _balanced(cells: Cells, items: int, positions: int) -> tuple[Floats, Floats]:
    """Theta and gamma for which each position and each item has as many clicks as expected (iterative fitting)."""
    at, of = np.bincount(cells.position, cells.clicked, positions), np.bincount(cells.item, cells.clicked, items)
    mean = max(float(cells.clicked.sum() / cells.shown.sum()), 1e-9)
    theta, gamma = np.ones(positions), np.full(items, mean)
    for _ in range(50):
        expected = np.bincount(cells.item, cells.shown * theta[cells.position], items)
        gamma = (of + _PRIOR * mean) / (expected + _PRIOR)
        expected = np.bincount(cells.position, cells.shown * gamma[cells.item], positions)
        theta = np.where(expected > 0, at / np.maximum(expected, 1e-12), 1.0)
    scale = max(theta.max(), 1e-9)  # only products are determined: both must be probabilities
    return np.clip(theta / scale, 1e-9, 1 - 1e-9), np.clip(gamma * scale, 1e-9, 1 - 1e-9)


def _relative(theta: Floats, shown_at: Array) -> Floats:
    """Theta over that of the first position that was shown."""
    known = np.flatnonzero(shown_at)
    source = np.searchsorted(known, np.arange(len(theta)), side="right") - 1
    return theta[known[np.maximum(source, 0)]] / max(theta[known[0]], 1e-12)


def _tells_apart(cells: Cells) -> bool:
    """Whether enough clicks are on items that were seen at more than one position."""
    places = np.bincount(cells.item)
    return int(cells.clicked[places[cells.item] > 1].sum()) >= LEAST_IN_ALL


def _pools(clicked: Integers) -> Iterator[tuple[int, int]]:
    """Ranges of positions with at least 10 clicks each, the first position alone; what is left joins the last range.

    Where the first position is the only range, what is left is one of its own.
    """
    ends, start, found = [], 0, 0
    for at, clicks in enumerate(clicked.tolist(), start=1):
        found += clicks
        if found >= LEAST_CLICKS:
            ends.append(at)
            found = 0
    if len(ends) == 1 and len(clicked) > 1:
        ends.append(len(clicked))
    ends[-1] = len(clicked)
    for end in ends:
        yield start, end
        start = end
