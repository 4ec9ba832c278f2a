"""What every model is: a frozen, validated set of hyper-parameters whose methods are functions of a `State`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from coterie.models.kernels.scoring import add_entries, add_rows, history_shares, owners
from coterie.ring import Accumulator
from coterie.types import (
    Array,
    Floats,
    History,
    Items,
    LocalStore,
    PartSpec,
    Query,
    Ragged,
    RoundSpec,
    Scores,
    State,
    Total,
    UserBlock,
)

LINF = 65_536.0  # weight of one user in one entry; more is scaled down, so that capacity is known in advance
ROWS = 2.0**32  # the same where rows count as 1 and could not be scaled down: more than any user has
MARGIN = 1.0 - 1e-9  # covers the float64 rounding of a norm, so that clipped integers never exceed their bound


@dataclass(frozen=True, slots=True)
class Terms:
    """Weights of what is added to the item-to-item score: the user's history, popularity, text similarity.

    `next_popularity` is the weight of popularity where the cart is empty and the user's history takes its place.
    """

    history: float = 0.0
    history_decay: float = 0.9
    popularity: float = 0.0
    text: float = 0.0
    next_popularity: float = 0.0


class Model(BaseModel, ABC):
    """Base of the recommenders (`coterie.types.Recommender`): hyper-parameters are fields, state is explicit.

    A served state has any of ``weights`` (float32 [items, items]: what item i in the cart adds to item j) and
    ``popularity`` (float64 [items]: share of rows with the item); scores are linear in both, so that the mix of two
    states is the mix of their scores.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    name: ClassVar[str]
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    """Values that tuning may choose from, by validation."""
    scoring_only: ClassVar[frozenset[str]] = frozenset()
    """Hyper-parameters that enter at scoring time alone: changing them needs no new fit."""
    max_dense_items: ClassVar[int | None] = None
    """Most items for which the model's item-item matrix is allowed; None where there is no such matrix."""

    @abstractmethod
    def terms(self) -> Terms:
        """What is added to the item-to-item part of the score."""

    @abstractmethod
    def parts(self, n_items: int) -> tuple[PartSpec, ...]:
        """What one round sums over `n_items` items."""

    @abstractmethod
    def contribute(
        self, spec: RoundSpec, state: State, users: UserBlock, local: LocalStore | None, out: Accumulator
    ) -> None:
        """See `coterie.types.Summand.contribute`."""

    @abstractmethod
    def fit(self, state: State) -> State:
        """Solve the model from the sums in `state`; equal sums give equal bytes."""

    @abstractmethod
    def restrict(self, state: State, items: Items) -> State:
        """See `coterie.types.Recommender.restrict`."""

    @abstractmethod
    def pooled(self, users: UserBlock, public: Mapping[str, Array]) -> State:
        """See `coterie.types.Recommender.pooled`."""

    def init(self, n_items: int, public: Mapping[str, Array], seed: int) -> State:
        """The state before round 0; item-to-item models draw nothing at random, so `seed` has no effect on them."""
        return State(0, {"n_items": np.array(n_items, np.int64), **public})

    def next_round(self, state: State) -> RoundSpec | None:
        """One round is all that a model of sums needs."""
        if state.round > 0:
            return None
        return RoundSpec(0, "user_sum", self.parts(int(state["n_items"])))

    def apply(self, spec: RoundSpec, state: State, total: Total) -> State:
        """Keep the sums in ring units with their scales (any fit can be made from them later), and fit."""
        sums: dict[str, Array] = {}
        for part in spec.parts:
            sums[part.name] = _narrow(total.integers[part.name])
            sums[f"{part.name}_scale"] = np.array(part.scale, np.int64)
        return self.fit(state.updated(round=spec.index + 1, **sums))

    def personalise(self, state: State, own: State, weight: float) -> State:
        """``(1 - weight) * federated + weight * own``, both on the same catalogue."""
        mixed: dict[str, Array] = {}
        for name in ("weights", "popularity"):
            if name in state:
                blend = (1.0 - weight) * state[name] + weight * own[name]
                mixed[name] = blend.astype(state[name].dtype)
        public = {k: state[k] for k in ("n_items", "similarity_ptr", "similarity_item", "similarity") if k in state}
        return State(state.round, {**public, **mixed})

    def score(self, state: State, query: Query) -> Scores:
        """Scores of all items: float32 [queries, items]; see `coterie.types.Recommender.score`.

        A query without a cart is asked for its next basket: the shares pf of the user's past baskets take the place of
        the cart, score(j) = pf_j + sum_i pf_i weights_ij + next_popularity * popularity_j. Without a history either,
        popularity is all there is to go by.
        """
        terms = self.terms()
        scores = np.zeros((len(query), int(state["n_items"])), np.float32)
        if terms.popularity:
            scores += (terms.popularity * state["popularity"]).astype(np.float32)
        if "weights" in state:
            add_rows(query.cart, None, state["weights"], scores)
        blank = np.diff(query.cart.ptr) == 0
        if terms.history and query.history is not None:
            share = history_shares(query.history, terms.history_decay)
            add_entries(query.history, share * np.where(blank, 1.0, terms.history)[owners(query.history.ptr)], scores)
            following = blank & (np.diff(query.history.ptr) > 0)
            if following.any():
                self._add_next(state, query.history, share, following, scores)
            blank &= ~following
        if blank.any():
            scores[blank] = state["popularity"].astype(np.float32)
        return scores

    def _add_next(self, state: State, history: History, share: Floats, rows: Array, scores: Scores) -> None:
        """The next basket of the queries `rows`: what goes with their past baskets, and popularity."""
        taken = np.where(rows[owners(history.ptr)], share, 0.0)
        add_rows(Ragged(history.ptr, history.item), taken, state["weights"], scores)
        scores[rows] += (self.terms().next_popularity * state["popularity"]).astype(np.float32)

    def explain(self, state: State, query: Query, item: int) -> list[tuple[str, int | None, float]]:
        """Why `item` got its score in the first query: (term, cart item or None, amount), largest first.

        Terms are "bought together" and "similar text" (with an item of the cart), "goes with past baskets" (with an
        item of the history, where the cart is empty), "own history" and "popular"; amounts are parts of the score,
        those below zero left out.
        """
        terms, found = self.terms(), list[tuple[str, int | None, float]]()
        cart = query.cart[0].tolist()
        for i in cart if "weights" in state else []:
            text = terms.text * _similarity(state, i, item)
            found.append(("bought together", i, float(state["weights"][i, item]) - text))
            found.append(("similar text", i, text))
        popular = terms.popularity
        past = None if query.history is None else query.history.slice(0, 1)
        if terms.history and past is not None and len(past.item):
            share = history_shares(past, terms.history_decay)
            mine = float(share[past.item == item].sum())
            found.append(("own history", None, mine * (terms.history if cart else 1.0)))
            if not cart:
                popular += terms.next_popularity
                together = np.bincount(past.item, weights=share)
                for i in np.flatnonzero(together).tolist():
                    found.append(("goes with past baskets", i, float(together[i] * state["weights"][i, item])))
        elif not cart:
            popular = 1.0
        found.append(("popular", None, float(popular * state["popularity"][item])))
        return sorted((reason for reason in found if reason[2] > 0), key=lambda reason: -reason[2])


def clip_factors(norms: Floats, largest: Floats, part: PartSpec) -> Floats:
    """How much each user's part must shrink to keep both bounds of `part`: float64 [users], at most 1."""
    with np.errstate(divide="ignore"):
        l2 = np.where(norms > 0, part.l2 / norms, np.inf)
        linf = np.where(largest > 0, part.linf / largest, np.inf)
    return np.minimum(np.minimum(l2, linf) * MARGIN, 1.0)


def narrow_items(items: Items, state: State) -> dict[str, Array]:
    """The public arrays of `state` on the sub-catalogue `items`."""
    if "similarity" not in state:
        return {"n_items": np.array(len(items), np.int64)}
    full = similarity_matrix(state)[items][:, items].tocsr()
    full.sort_indices()
    return {
        "n_items": np.array(len(items), np.int64),
        "similarity_ptr": full.indptr.astype(np.int64),
        "similarity_item": full.indices.astype(np.int32),
        "similarity": full.data.astype(np.float32),
    }


def similarity_matrix(state: State) -> Any:
    """Item text similarity (already cubed) as a scipy CSR matrix, float32 [items, items]."""
    import scipy.sparse as sp

    n = int(state["n_items"])
    return sp.csr_matrix((state["similarity"], state["similarity_item"], state["similarity_ptr"]), shape=(n, n))


def _similarity(state: State, i: int, j: int) -> float:
    if "similarity" not in state:
        return 0.0
    start, stop = state["similarity_ptr"][i : i + 2]
    at = np.searchsorted(state["similarity_item"][start:stop], j)
    if start + at < stop and state["similarity_item"][start + at] == j:
        return float(state["similarity"][start + at])
    return 0.0


def _narrow(values: Array) -> Array:
    """int32 where every value fits, else as it is: sums are kept exactly and cost no more than they must."""
    if len(values) and values.min() >= -(2**31) and values.max() < 2**31:
        return values.astype(np.int32)
    return values
