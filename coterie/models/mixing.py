"""The mix of two states of one model: the federation's and a client's own, kept side by side.

Both may be of the same catalogue. Or the client's own is of more items (those that nobody else has), and the mix ranks
these too: what the federation knows nothing of is scored by the own model alone. A question whose cart holds nothing
that the federation knows is the own model's as a whole.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from coterie.models.kernels.scoring import owners
from coterie.types import Array, History, Items, Pointers, Query, Ragged, Scores, State

MIX, TOGETHER, OWN = "mix", "together.", "own."  # how the state of a mix holds its weight and its two ends
PLACE = "place"  # int32 [own items]: where each stands in the federation's catalogue, -1 for none

Reasons = list[tuple[str, int | None, float]]


def mixed(state: State, own: State, weight: float, place: Items | None = None) -> State:
    """``(1 - weight)`` of the federation's `state` and ``weight`` of a client's `own`, as one state.

    `place` says where each item of `own` stands in the catalogue of `state` (-1: nowhere); None: they are of one.
    """
    popularity = own["popularity"].copy()
    known = slice(None) if place is None else np.flatnonzero(place >= 0)
    theirs = state["popularity"] if place is None else state["popularity"][place[known]]
    popularity[known] = (1.0 - weight) * theirs + weight * own["popularity"][known]
    both = {f"{TOGETHER}{name}": array for name, array in state.arrays.items()}
    both |= {f"{OWN}{name}": array for name, array in own.arrays.items()}
    top: dict[str, Array] = {"n_items": own["n_items"], "popularity": popularity, MIX: np.array(weight, np.float64)}
    return State(state.round, top | both | ({} if place is None else {PLACE: place}))


def mixed_scores(state: State, query: Query, score: Callable[[State, Query], Scores]) -> Scores:
    """Scores of all items by a mix; `score` is what scores one of its ends."""
    weight = np.float32(state[MIX])
    together, own = _ends(state)
    if PLACE not in state:
        both: Scores = (1 - weight) * score(together, query) + weight * score(own, query)
        return both
    place, out = state[PLACE], score(own, query)
    known, theirs = np.flatnonzero(place >= 0), placed(query, place)
    asked = np.flatnonzero(_understood(query, theirs))
    cells = np.ix_(asked, known)
    out[cells] = (1 - weight) * score(together, theirs)[np.ix_(asked, place[known])] + weight * out[cells]
    return out


def mixed_reasons(state: State, query: Query, item: int, explain: Callable[[State, Query, int], Reasons]) -> Reasons:
    """Why a mix gave `item` its score in the first query; `explain` is what explains one of its ends."""
    weight, (together, own) = float(state[MIX]), _ends(state)
    if PLACE not in state:
        ends = ((1 - weight, together), (weight, own))
        return [(term, i, share * amount) for share, end in ends for term, i, amount in explain(end, query, item)]
    place, asked = state[PLACE], query.slice(0, 1)
    theirs = placed(asked, place)
    if place[item] < 0 or not _understood(asked, theirs)[0]:
        return explain(own, asked, item)
    back = _own_items(asked, place)
    found = [(term, i, weight * amount) for term, i, amount in explain(own, asked, item)]
    for term, i, amount in explain(together, theirs, int(place[item])):
        found.append((term, None if i is None else back[i], (1 - weight) * amount))
    return found


def placed(query: Query, place: Items) -> Query:
    """The same questions in other positions: item i becomes ``place[i]``, and is left out where that is -1.

    Items of a cart that become one (sizes of one product) are taken once, the first of them.
    """
    ptr, item, kept = map_lists(query.cart.ptr, query.cart.item, place)
    first = _first_of_list(ptr, item)
    kept[kept] = first
    ptr, item = np.concatenate([[0], np.cumsum(first)])[ptr].astype(np.int64), item[first]
    history = query.history
    if history is not None:
        past, local, known = map_lists(history.ptr, history.item, place)
        history = History(past, local, history.age[known])
    return replace(
        query,
        cart=Ragged(ptr, item),
        history=history,
        value=None if query.value is None else query.value[kept],
        step=None if query.step is None else query.step[kept],
    )


def map_lists(ptr: Pointers, item: Items, place: Items) -> tuple[Pointers, Items, Array]:
    """Lists of items in other positions (-1: left out): pointers, items, and which entries were kept (bool)."""
    local = place[item]
    kept = local >= 0
    before = np.concatenate([[0], np.cumsum(kept)])
    return before[ptr].astype(np.int64), local[kept], kept


def _understood(query: Query, theirs: Query) -> Array:
    """Which questions the federation can answer: those of whose cart (without one: of whose history) something is left.

    A question that was blank from the start is left as it is.
    """
    carts = np.diff(query.cart.ptr) > 0
    left: Array = np.diff(theirs.cart.ptr) > 0
    if query.history is None or theirs.history is None:
        return left | ~carts
    past, known = np.diff(query.history.ptr) > 0, np.diff(theirs.history.ptr) > 0
    return np.where(carts, left, known | ~past)


def _own_items(asked: Query, place: Items) -> dict[int, int]:
    """The own item behind each position of the federation's: of several the one that the question names."""
    past = [] if asked.history is None else asked.history.item.tolist()
    named = [*np.flatnonzero(place >= 0)[::-1].tolist(), *past, *asked.cart.item.tolist()]
    return {int(place[own]): own for own in named if place[own] >= 0}


def _first_of_list(ptr: Pointers, item: Items) -> Array:
    """Whether each entry is the first of its item in its list: bool [entries]."""
    owner = owners(ptr)
    order = np.lexsort((item, owner))  # stable: of equal items the first stands first
    first = np.ones(len(item), bool)
    first[order[1:]] = (np.diff(owner[order]) != 0) | (np.diff(item[order]) != 0)
    return first


def _ends(state: State) -> tuple[State, State]:
    """The two states of a mix: the federation's and the client's own."""
    ends = []
    for prefix in (TOGETHER, OWN):
        arrays = {name.removeprefix(prefix): array for name, array in state.arrays.items() if name.startswith(prefix)}
        ends.append(State(state.round, arrays))
    return ends[0], ends[1]
