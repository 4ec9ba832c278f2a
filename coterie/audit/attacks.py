"""What uploads and sums give away about one user: attacks on what our own models send.

- `spread`: the update of a factor model is, item by item, the user's own vector times how wrong the model was; its
  leading direction shows which items the user has.
- `standing_out`: of any other contribution, what it says of each item.
- `left_by`: whoever holds a sum with a user and one without learns what the user added, exactly.
- `infer_attribute`: ordinary least squares from user vectors to something that they were never meant to tell.

Each needs nothing but the numbers. Clipping alone stops none of them; sums of many help a little, noise helps.
"""

from __future__ import annotations

import numpy as np

from coterie.types import Floats, PartSpec, Total


def spread(update: Floats) -> Floats:
    """Scores of items from an update [items, width]: its rows along the direction in which they vary most.

    Rows of items that the user has point one way, those of items that were drawn as negatives the other. Which is
    which one bit cannot tell from noise: scores are up to sign, chosen so that fewer items score high than low.
    """
    _, directions = np.linalg.eigh(update.T @ update)
    along = update @ directions[:, -1]
    loud = along[np.abs(along) > 0.1 * np.abs(along).max(initial=0.0)]
    return np.asarray(-along if (loud > 0).sum() > (loud < 0).sum() else along)


def standing_out(part: PartSpec, values: Floats, n_items: int) -> Floats | None:
    """Scores of items from one part (flat, any unit) of what one user added; None where the part tells no items apart.

    A dense part says it entry by entry, a triangle on its diagonal (how often an item goes with itself), rows along
    their leading direction.
    """
    if part.shape[:1] != (n_items,):
        return None
    if part.layout == "triangle":
        starts = np.arange(n_items, dtype=np.int64)
        return values[starts * n_items - starts * (starts - 1) // 2]
    if len(part.shape) == 1:
        return values
    return spread(values.reshape(n_items, -1))


def left_by(after: Total, before: Total) -> dict[str, Floats]:
    """What somebody who is in one of two releases and not in the other has added, in real units, by part.

    Sums are integers: without noise this is the contribution itself, with noise it holds the noise of both.
    """
    return {
        part.name: (after.integers[part.name] - before.integers[part.name]) / float(part.scale)
        for part in after.spec.parts
    }


def infer_attribute(known: Floats, attribute: Floats, others: Floats) -> Floats:
    """Scores of `others` [m, width] for an attribute that is known (-1 or 1) of the vectors `known` [n, width]."""
    with_one = np.column_stack([known, np.ones(len(known))])
    weights, *_ = np.linalg.lstsq(with_one, attribute, rcond=None)
    return np.asarray(np.column_stack([others, np.ones(len(others))]) @ weights)


def either_way(auc: float) -> float:
    """The AUC of an attacker who is told the sign of its scores.

    >>> either_way(0.25)
    0.75
    """
    return max(auc, 1.0 - auc)
