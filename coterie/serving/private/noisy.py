"""Suggestions drawn with noise: an answer says little about any one item of the basket, to whoever sees the answer.

Every distinct known item i of the basket (and of the history, where there is one) has one vote for each item j,

    v_i(j) = max(score of j for the basket {i}, 0) / max over j of the same, in [0, 1],

which rests on i and the public model alone. The utility u(j) is the sum of the votes, so an item more in the basket
moves every utility up by at most 1. The k suggestions are drawn one after the other by the exponential mechanism over a
public base measure, each with epsilon / k:

    P(j) proportional to popularity(j)^2 * exp(epsilon / k * u(j)).

Utilities move one way (they are monotone): with an item more, each weight grows by a factor between 1 and
exp(epsilon / k), and so does their sum. So a draw with this weight, without the factor 1/2, is epsilon / k
differentially private, and all of them together epsilon, for baskets that differ in one item (McSherry and Talwar 2007,
with the base measure of their definition; Dwork and Roth 2014, section 3.4). The k largest of log P(j) + Gumbel noise
have the distribution of these draws (Durfee and Rogers 2019, section 4). The base measure is chosen without any basket;
with it a small epsilon draws what is popular instead of anything at all.

What would say more is left out: items of the basket are not taken out of the answer (whoever asks can do that), unknown
ones are not listed, scores are ranks, nothing is explained. Options of the question count as known. Noise is computed
in floating point; what leaves is the order alone.
"""

from __future__ import annotations

import math
import secrets

import numpy as np

from coterie.errors import ModelError
from coterie.serving.engine import shelf_of
from coterie.serving.live import LiveCatalogue, LiveIndex
from coterie.serving.questions import question
from coterie.serving.served import ServedModel, View
from coterie.serving.words import Answer, Ask, Suggestion
from coterie.types import Floats, Items, Pointers, Query, Ragged

BLOCK = 1 << 22  # scores that are held at a time
PRIOR = 2.0  # power of popularity in the base measure


def noisy_answer(served: ServedModel, live: LiveCatalogue, ask: Ask, epsilon: float) -> Answer:
    """Answer a question about a basket or a history at the price of `epsilon`, for each of its items.

    Raises:
        ModelError: the question asks for reasons or for diversity, or cannot be answered at all; see `engine.answer`.
        ConfigError: see `engine.answer`.
    """
    if ask.explain or ask.diversity:
        refused = "explain" if ask.explain else "diversity"
        raise ModelError(f"'{refused}' would say more of the basket than these noisy answers may; leave it out")
    view, index = served.view(ask.client), live.index(served.items)
    allowed = shelf_of(view, index, ask, np.empty(0, np.int32)).allowed
    worth = utilities(served, view, known_items(served, view, ask))
    drawn = draw(np.where(allowed, worth, -math.inf), ask.k, epsilon, base(view), _groups(view, index))
    places = drawn if view.within is None else view.within[drawn]
    ranks = [1.0 - at / ask.k for at in range(len(drawn))]
    return Answer(tuple(Suggestion(index.record[i], rank) for i, rank in zip(places.tolist(), ranks, strict=True)))


def known_items(served: ServedModel, view: View, ask: Ask) -> Items:
    """The distinct items of basket and history that the model knows: what has votes."""
    query = question(served.run.model, view, ask).query
    past = () if query.history is None else query.history.item.tolist()
    return np.array(sorted({*query.cart.item.tolist(), *past}), np.int32)


def utilities(served: ServedModel, view: View, items: Items) -> Floats:
    """Utility of each item of the view, from the votes of `items` (each once): float64 [items of the view].

    One item more adds between 0 and 1 to each of them.
    """
    worth = np.zeros(len(view.ids))
    rows = max(1, BLOCK // max(len(view.ids), 1))
    for start in range(0, len(items), rows):
        some = items[start : start + rows]
        alone = Query(Ragged(np.arange(len(some) + 1, dtype=np.int64), some), step=np.zeros(len(some), np.int32))
        votes = np.maximum(served.scores(view, alone).astype(np.float64), 0.0)
        tops = votes.max(axis=1, keepdims=True)
        worth += np.divide(votes, tops, out=np.zeros_like(votes), where=tops > 0).sum(axis=0)
    return worth


def base(view: View) -> Floats:
    """Logarithm of the base measure: float64 [items of the view]; what nobody took counts as half of the rarest."""
    popularity = np.maximum(view.popularity.astype(np.float64), 0.0)
    taken = popularity[popularity > 0]
    rarest = float(taken.min()) if len(taken) else 1.0
    measure: Floats = PRIOR * np.log(np.maximum(popularity, rarest / 2))
    return measure


def draw(worth: Floats, k: int, epsilon: float, measure: Floats, group: Items | None = None) -> Items:
    """`k` positions by the exponential mechanism, one after the other, at `epsilon` for all of them.

    `measure` is the logarithm of the base measure (float64 [items]), which must not rest on what is protected. Never
    drawn: what is worth -inf, and a second one of a `group` (int32 [items], -1 for none). Fewer than `k` where no more
    are left.
    """
    order = np.argsort(-(worth * (epsilon / k) + measure + gumbel(len(worth))), kind="stable")
    order = order[np.isfinite(worth[order])]
    if group is not None:
        order = order[_first_of_each(group[order])]
    return order[:k].astype(np.int32)


def gumbel(n: int) -> Floats:
    """Standard Gumbel noise from the operating system's randomness: float64 [n]."""
    bits = np.frombuffer(secrets.token_bytes(8 * n), np.uint64)
    uniform = ((bits >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    noise: Floats = -np.log(-np.log(uniform))
    return noise


def _first_of_each(group: Items) -> Pointers:
    """Where each group appears first, and whatever has none; ascending."""
    _, first = np.unique(group, return_index=True)
    keep = group < 0
    keep[first] = True
    return np.flatnonzero(keep)


def _groups(view: View, index: LiveIndex) -> Items | None:
    if not len(index.shop.groups):
        return None
    return index.group if view.within is None else index.group[view.within]
