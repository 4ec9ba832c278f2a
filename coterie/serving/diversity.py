"""Suggestions that differ: maximal marginal relevance over what the model holds to be alike.

Carbonell and Goldstein (1998), "The use of MMR": of the candidates not yet chosen the next is the one with the largest

    lambda * relevance(i) - (1 - lambda) * max over those chosen of similarity(i, j),       lambda = 1 - diversity.

Relevance is the score, similarity what the model says of j given i (both ways, the mean; nothing below 0); each is
scaled to [0, 1] over the candidates.
"""

from __future__ import annotations

import numpy as np

from coterie.models.base import Model
from coterie.models.mixing import MIX
from coterie.serving.served import View, one_thread
from coterie.types import Array, Floats, Items, Known, Query, Ragged, Scores

BLOCK = 1 << 20  # scores that are held at a time


def candidates(k: int) -> int:
    """How many of the best are looked at for `k` suggestions."""
    return max(5 * k, 50)


def diverse(model: Model, view: View, best: Items, scores: Scores, k: int, diversity: float) -> Items:
    """`k` of the items `best` (best first), reordered; `scores` are those of all items of the view."""
    if len(best) < 2:
        return best[:k]
    alike = _scaled(similarities(model, view, best))
    relevance = _scaled(scores[best].astype(np.float64))
    return best[_marginal(relevance, alike, min(k, len(best)), 1.0 - diversity)]


def similarities(model: Model, view: View, items: Items) -> Floats:
    """How alike the model holds these items to be: float64 [items, items], symmetric.

    0 on the diagonal, and where the model knows nothing or the contrary.
    """
    alike = np.empty((len(items), len(items)), np.float64)
    rows = max(1, BLOCK // len(view.ids))
    for start in range(0, len(items), rows):
        alike[start : start + rows] = _following(model, view, items[start : start + rows])[:, items]
    alike = np.maximum((alike + alike.T) / 2, 0.0)
    np.fill_diagonal(alike, 0.0)
    return alike


def _following(model: Model, view: View, items: Items) -> Scores:
    """What goes with each item alone: float32 [items, all items]."""
    single = Ragged(np.arange(len(items) + 1, dtype=np.int64), np.ascontiguousarray(items))
    steps = np.zeros(len(items), np.int32)
    with one_thread():
        if MIX in view.state:
            return model.score(view.state, Query(single, step=steps))
        out = np.zeros((len(items), len(view.ids)), np.float32)
        model.related(view.state, Known(single, None, None, steps), out)
        return out


def _scaled(values: Array) -> Floats:
    """Values brought to [0, 1]; 0 throughout where they are all equal."""
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) if high > low else np.zeros(values.shape)


def _marginal(relevance: Floats, alike: Floats, k: int, weight: float) -> Array:
    """The order in which candidates are taken; among equals the better one first."""
    nearest, left = np.zeros(len(relevance)), np.ones(len(relevance), bool)
    taken = np.empty(k, np.int64)
    for at in range(k):
        worth = np.where(left, weight * relevance - (1.0 - weight) * nearest, -np.inf)
        taken[at] = np.argmax(worth)
        left[taken[at]] = False
        nearest = np.maximum(nearest, alike[taken[at]])
    return taken
