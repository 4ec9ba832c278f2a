"""One question, one answer: what a model suggests among what the shop has now.

The same as `Run.recommend` where a question has no options and the shop has said nothing of its items.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

import numpy as np

from coterie.experiment.run import reasons
from coterie.serving.choosing import NO_FACTOR, choose
from coterie.serving.diversity import candidates, diverse
from coterie.serving.live import LiveCatalogue, LiveIndex
from coterie.serving.questions import Question, question
from coterie.serving.served import ServedModel, View
from coterie.serving.words import Answer, Ask, Reason, Suggestion
from coterie.types import Array, Items, Scores

__all__ = ["ServedModel", "answer"]


def answer(
    served: ServedModel, live: LiveCatalogue, ask: Ask, *, rng: random.Random | None = None, explore: float = 0.0
) -> Answer:
    """Answer a question; with the probability `explore` one suggestion is drawn at random among what may be suggested.

    Never suggested are items of the basket, others of their groups, what is excluded, deleted or (unless asked for) out
    of stock, and a second item of one group. Where the question names nothing that the model knows, the answer is what
    most people take (or rate best), and `fallback` says so.

    Raises:
        ModelError: k is below 1, the diversity is not between 0 and 1, "similar" does not name one item, or the run
            has no model of the client's own.
        ConfigError: the filter or the boost does not parse or cannot be evaluated.
        MissingExtra: there is a filter or boost, and the extra 'serve' is not installed.
    """
    view, index = served.view(ask.client), live.index(served.items)
    asked = question(served.run.model, view, ask)
    shelf = shelf_of(view, index, ask, asked.query.cart.item)
    scores = view.popularity.copy() if ask.kind == "popular" else served.scores(view, asked.query)[0]
    wanted = ask.k if ask.diversity == 0 else candidates(ask.k)
    best = shelf.choose(scores, view, wanted)
    if ask.diversity:
        best = diverse(served.run.model, view, best, scores, ask.k, ask.diversity)
    explored = None
    if explore and rng is not None and rng.random() < explore:
        explored = shelf.explore(best, rng)
    suggestions = _suggestions(served, view, index, asked, best, scores, ask)
    return Answer(suggestions, asked.unknown, asked.fallback, explored)


@dataclass(frozen=True, slots=True, eq=False)
class Shelf:
    """What may be suggested, by position in a view; see `coterie.serving.choosing.choose`."""

    allowed: Array
    taken: Items
    factor: Scores
    group: Items
    groups: int
    taken_groups: Items

    def choose(self, scores: Scores, view: View, k: int) -> Items:
        """The best `k`; brings `scores` into their final form."""
        return choose(
            scores,
            view.hint,
            self.allowed,
            self.taken,
            k,
            factor=self.factor,
            group=self.group,
            groups=self.groups,
            taken_groups=self.taken_groups,
            pool=view.pool,
        )

    def explore(self, best: Items, rng: random.Random) -> int | None:
        """Put an item, drawn uniformly of what else may stand there, in a place drawn uniformly; returns it, from 1."""
        if not len(best):
            return None
        at = rng.randrange(len(best))
        free = self.allowed.copy()
        free[self.taken] = free[best] = False
        if self.groups:
            used = np.concatenate([self.taken_groups, self.group[np.delete(best, at)]])
            free &= ~np.isin(self.group, used[used >= 0])
        others = np.flatnonzero(free)
        if not len(others):
            return None
        best[at] = others[rng.randrange(len(others))]
        return at + 1


def shelf_of(view: View, index: LiveIndex, ask: Ask, cart: Items) -> Shelf:
    """What may be suggested, given the options of a question and the items that are in hand."""
    allowed = _within(view, index.in_stock if ask.in_stock else index.there)
    if ask.filter is not None:
        allowed = allowed & _within(view, index.result(ask.filter, "filter"))
    if ask.include_only is not None:
        listed = np.zeros(len(allowed), bool)
        listed[_positions(view, ask.include_only)] = True
        allowed = allowed & listed
    factor = NO_FACTOR if ask.boost is None else _within(view, index.result(ask.boost, "boost"))
    taken = cart
    if ask.exclude:
        taken = np.concatenate([taken, _positions(view, ask.exclude)])
    taken_groups = index.groups_of(line.item for line in ask.basket)
    return Shelf(allowed, taken, factor, _within(view, index.group), len(index.shop.groups), taken_groups)


def _within(view: View, values: Array) -> Array:
    """Values of the run's items as values of the view's."""
    return values if view.within is None else values[view.within]


def _positions(view: View, ids: frozenset[str]) -> Items:
    return np.array([view.places[id] for id in ids if id in view.places], np.int32)


def _suggestions(
    served: ServedModel, view: View, index: LiveIndex, asked: Question, best: Items, scores: Scores, ask: Ask
) -> tuple[Suggestion, ...]:
    positions, places = best.tolist(), (best if view.within is None else view.within[best]).tolist()
    because: list[tuple[Reason, ...]] = [()] * len(positions)
    if ask.explain:
        because = [_because(served, view, asked, at, popular=ask.kind == "popular") for at in positions]
    records = [index.record[place] for place in places]
    return tuple(map(Suggestion, records, scores[best].tolist(), because))


def _because(served: ServedModel, view: View, asked: Question, at: int, *, popular: bool) -> tuple[Reason, ...]:
    if popular:
        return (Reason("popular", None, 1.0),)
    found = reasons(served.run.model, view.state, asked.query, at)
    return tuple(Reason(term, None if i is None else view.ids[i], share) for term, i, share in found)
