"""From a question in the shop's words to one in positions of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from coterie.errors import ModelError
from coterie.experiment.run import history_of
from coterie.models.base import Model
from coterie.serving.served import View
from coterie.serving.words import Ask, BasketLine, Fallback
from coterie.types import Array, History, Items, Query, Ragged, Scores


@dataclass(frozen=True, slots=True)
class Question:
    """What a model is asked: `query` is one query, `unknown` the ids of the basket that it does not know.

    `fallback`: what answers where nothing is known of the asker.
    """

    query: Query
    unknown: tuple[str, ...]
    fallback: Fallback | None


def question(model: Model, view: View, ask: Ask) -> Question:
    """Translate a question; items of the basket count in the order of their times, where all have one.

    Raises:
        ModelError: k is below 1, the diversity is not between 0 and 1, or "similar" does not name one item.
    """
    _check(ask)
    known = [line for line in ask.basket if line.item in view.places]
    unknown: tuple[str, ...] = ()
    if len(known) < len(ask.basket):
        unknown = tuple(dict.fromkeys(line.item for line in ask.basket if line.item not in view.places))
    lines = _lines(model, view, ask, known)
    cart = Ragged(np.array([0, len(lines)], np.int64), np.array([view.places[one.item] for one in lines], np.int32))
    history = _history(model, view, ask)
    query = Query(cart, history, None, ask.client, _values(model, lines), _steps(lines))
    blank = not lines and (history is None or not len(history.item)) and ask.kind != "popular"
    return Question(query, unknown, _fallback(model, view) if blank else None)


def _check(ask: Ask) -> None:
    if ask.k < 1:
        raise ModelError(f"k must be at least 1, got {ask.k}")
    if not 0 <= ask.diversity <= 1:
        raise ModelError(f"diversity must lie between 0 and 1, got {ask.diversity}")
    if ask.kind == "similar" and len(ask.basket) != 1:
        raise ModelError(f"'similar' asks for what is like one item, got {len(ask.basket)}")


def _lines(model: Model, view: View, ask: Ask, lines: list[BasketLine]) -> Sequence[BasketLine]:
    """The known lines in the order in which they were taken, each item once, where it was taken last."""
    if _timed(lines):
        lines.sort(key=lambda line: line.time or 0)
    if ask.kind == "user" and model.predicts_values(view.state):  # whoever rates is asked what they have not rated
        past = [BasketLine(item) for basket in ask.history for item in basket if item in view.places]
        lines = past + lines
    last = {line.item: line for line in reversed(lines)} if len(lines) > 1 else {}
    return list(last.values())[::-1] if len(lines) > 1 else lines


def _history(model: Model, view: View, ask: Ask) -> History | None:
    if not ask.history or ask.kind in ("similar", "popular") or model.predicts_values(view.state):
        return None
    return history_of(ask.history, view.places)


def _fallback(model: Model, view: View) -> Fallback:
    return "rating" if model.predicts_values(view.state) else "popularity"


def _timed(lines: Sequence[BasketLine]) -> bool:
    return bool(lines) and lines[0].time is not None and all(line.time is not None for line in lines)


def _steps(lines: Sequence[BasketLine]) -> Items:
    """How many steps back from now each item was taken: by their times where all have one, else by their order."""
    if not _timed(lines):
        return np.arange(len(lines) - 1, -1, -1, dtype=np.int32)
    times: Array = np.array([line.time for line in lines], np.int64)
    distinct, place = np.unique(times, return_inverse=True)
    return (len(distinct) - 1 - place).astype(np.int32)


def _values(model: Model, lines: Sequence[BasketLine]) -> Scores | None:
    if not model.uses_values or all(line.quantity is None for line in lines):
        return None
    return np.array([np.nan if line.quantity is None else line.quantity for line in lines], np.float32)
