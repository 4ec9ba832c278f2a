"""What every model is: a frozen, validated set of hyper-parameters whose methods are functions of a `State`."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from coterie.errors import ModelError
from coterie.models.kernels.scoring import add_entries, history_shares, owners
from coterie.models.mixing import MIX, mixed, mixed_reasons, mixed_scores
from coterie.ring import Accumulator
from coterie.types import (
    Array,
    Floats,
    History,
    Items,
    Known,
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
CLIP = 1.0  # clip norm under noise: everybody who has anything counts alike, and noise weighs least against the sum
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


@dataclass(frozen=True, slots=True)
class Effort:
    """About what one training costs: integer additions, floating-point operations, and bytes besides the sums."""

    adds: float = 0.0
    flops: float = 0.0
    bytes: float = 0.0


class Model(BaseModel, ABC):
    """Base of the recommenders (`coterie.types.Recommender`): hyper-parameters are fields, state is explicit.

    A state has ``n_items`` (int64) and, once anything was summed, ``popularity`` (float64 [items]: share of rows with
    the item). What the model learned of items is its own; it enters scores through `related` alone, which starts from
    any list of known items. So users who took no part in the training, and guests, are scored like everybody else.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, allow_inf_nan=False)

    name: ClassVar[str]
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {}
    """Values that tuning may choose from, by validation."""
    scoring_only: ClassVar[frozenset[str]] = frozenset()
    """Hyper-parameters that enter at scoring time alone: changing them needs no new fit."""
    max_dense_items: ClassVar[int | None] = None
    """Most items for which the model's item-item matrix is allowed; None where there is no such matrix."""
    uses_values: ClassVar[bool] = False
    """Whether the model learns from ratings; ``public["explicit"]`` (1 or 0) then tells `init` whether there are."""
    uses_features: ClassVar[bool] = False
    """Whether the model learns from public item features (`coterie.models.features`), and wants to know whether the log
    has times (``public["timed"]``, 1 or 0)."""
    one_sum: ClassVar[bool] = False
    """Whether one round sums all that a fit with any hyper-parameters needs (`SumModel`)."""
    keeps_sums: ClassVar[bool] = False
    """Whether a client can take what it sent out of a state again (`less`)."""
    personal: ClassVar[bool] = True
    """Whether scores depend on what is known of the user."""
    prior_term: ClassVar[str] = "popular"
    """What `explain` calls the part that `prior` adds."""

    # --- what a model says ------------------------------------------------------------------------------------------

    @abstractmethod
    def next_round(self, state: State) -> RoundSpec | None:
        """See `coterie.types.Summand.next_round`."""

    @abstractmethod
    def contribute(
        self, spec: RoundSpec, state: State, users: UserBlock, local: LocalStore | None, out: Accumulator
    ) -> None:
        """See `coterie.types.Summand.contribute`."""

    @abstractmethod
    def apply(self, spec: RoundSpec, state: State, total: Total) -> State:
        """See `coterie.types.Summand.apply`."""

    @abstractmethod
    def restrict(self, state: State, items: Items) -> State:
        """See `coterie.types.Recommender.restrict`."""

    @abstractmethod
    def pooled(self, users: UserBlock, public: Mapping[str, Array], seed: int) -> State:
        """See `coterie.types.Recommender.pooled`."""

    @abstractmethod
    def related(self, state: State, known: Known, out: Scores) -> None:
        """Add to `out` (float32 [lists, items]) what goes with what is known: the item part of the score."""

    @abstractmethod
    def evidence(self, state: State, known: Known, item: int) -> Floats:
        """What each entry of the one list in `known` adds to the score of `item`: float64 [entries].

        The sum is what `related` adds to that score.
        """

    def terms(self) -> Terms:
        """What is added to the item part of the score; by default nothing."""
        return Terms()

    def prior(self, state: State) -> Floats | None:
        """What is added to the score of each item whoever asks: float64 [items], or None.

        By default the popularity on which a model trained under noise stands (`coterie.models.denoise`).
        """
        return state.arrays.get("floor")

    def predicts_values(self, state: State) -> bool:
        """Whether scores are predicted values (ratings), whose errors can be measured."""
        return False

    def heaviest_round(self, state: State) -> RoundSpec | None:
        """The round that sends most, from the state before round 0; the first, unless a model says otherwise."""
        return self.next_round(state)

    def budget(self, state: State) -> tuple[float, ...]:
        """See `coterie.types.Summand.budget`; one round unless a model says otherwise."""
        return (1.0,)

    def less(self, state: State, own: Mapping[str, Array]) -> State:
        """The model as it would be without the sums `own` (ring units by part): what a client learned from others.

        Only models that keep all sums of all rounds can do this (`keeps_sums`).
        """
        raise ModelError(f"model '{self.name}' does not keep its sums, so nothing can be taken out of them again")

    def at_most(self, rounds: int | None) -> Model:
        """The same model with no more than `rounds` rounds (None: as it is); where there is one, nothing is cut."""
        return self

    def advice(self, n_items: int) -> str | None:
        """What somebody who asks for these hyper-parameters on so many items should hear, or None."""
        return None

    def effort(self, users: UserBlock) -> Effort:
        """About what one training over these rows costs."""
        return Effort(adds=float(len(users.item)))

    def init(self, n_items: int, public: Mapping[str, Array], seed: int) -> State:
        """The state before round 0; models that draw at random draw from the stream (`seed`, name, "init")."""
        return State(0, {"n_items": np.array(n_items, np.int64), **public})

    # --- what follows for every model -------------------------------------------------------------------------------

    def personalise(self, state: State, own: State, weight: float) -> State:
        """``(1 - weight) * federated + weight * own``, both on the same catalogue: the mix of their scores."""
        return mixed(state, own, weight)

    def score(self, state: State, query: Query) -> Scores:
        """Scores of all items: float32 [queries, items]; see `coterie.types.Recommender.score`.

        A query without a cart is asked for its next basket: the shares pf of the user's past baskets take the place of
        the cart, score(j) = pf_j + related(pf)_j + next_popularity * popularity_j, the first term only where the model
        weighs history. Without a history either, popularity (for predicted values the prior) is all there is to go by.
        """
        if MIX in state:
            return mixed_scores(state, query, self.score)
        terms, prior = self.terms(), self.prior(state)
        scores = np.zeros((len(query), int(state["n_items"])), np.float32)
        if terms.popularity:
            scores += (terms.popularity * state["popularity"]).astype(np.float32)
        if prior is not None:
            scores += prior.astype(np.float32)
        self.related(state, Known(query.cart, None, query.value, query.step), scores)
        blank = query.cart.ptr[1:] == query.cart.ptr[:-1]
        if self.personal and query.history is not None:
            following = blank & (np.diff(query.history.ptr) > 0)
            self._add_history(state, query.history, blank, following, scores)
            blank &= ~following
        if blank.any() and not self.predicts_values(state):
            scores[blank] = state["popularity"].astype(np.float32)
        return scores

    def explain(self, state: State, query: Query, item: int) -> list[tuple[str, int | None, float]]:
        """Why `item` got its score in the first query: (term, cart item or None, amount), largest first.

        Terms are "bought together" and "similar text" (with an item of the cart), "goes with past baskets" (with an
        item of the history, where the cart is empty), "own history" and "popular"; amounts are parts of the score,
        those below zero left out.
        """
        if MIX in state:
            return _ranked(mixed_reasons(state, query, item, self.explain))
        terms, found = self.terms(), list[tuple[str, int | None, float]]()
        asked = query.slice(0, 1)
        known = Known(asked.cart, None, asked.value, asked.step)
        for i, amount in zip(known.items.item.tolist(), self.evidence(state, known, item).tolist(), strict=True):
            text = terms.text * _similarity(state, i, item)
            found += [("bought together", i, amount - text), ("similar text", i, text)]
        past = asked.history if self.personal else None
        blank, popular = len(asked.cart.item) == 0, terms.popularity
        if past is not None and len(past.item):
            share = history_shares(past, terms.history_decay)
            mine = float(share[past.item == item].sum()) if terms.history else 0.0
            found.append(("own history", None, mine * (1.0 if blank else terms.history)))
            if blank:
                popular += terms.next_popularity
                amounts = self.evidence(state, _past(past, share), item).tolist()
                for i, amount in zip(past.item.tolist(), amounts, strict=True):
                    found.append(("goes with past baskets", i, amount))
        elif blank and not self.predicts_values(state):
            return _ranked([("popular", None, float(state["popularity"][item]))])
        prior = self.prior(state)
        found.append((self.prior_term, None, 0.0 if prior is None else float(prior[item])))
        found.append(("popular", None, float(popular * state["popularity"][item])))
        return _ranked(found)

    def _add_history(self, state: State, history: History, blank: Array, following: Array, scores: Scores) -> None:
        """Add the user's own shares, and for the queries `following` what goes with their past baskets."""
        terms = self.terms()
        share = history_shares(history, terms.history_decay)
        if terms.history:
            add_entries(history, share * np.where(blank, 1.0, terms.history)[owners(history.ptr)], scores)
        rows = np.flatnonzero(following)
        if len(rows):
            entries = Ragged(history.ptr, np.arange(len(history.item), dtype=np.int32)).take(rows)
            chosen = History(entries.ptr, history.item[entries.item], history.age[entries.item])
            part = scores[rows]
            self.related(state, _past(chosen, share[entries.item]), part)
            scores[rows] = part + (terms.next_popularity * state["popularity"]).astype(np.float32)


class SumModel(Model):
    """A model of one round: the sums are kept in the state, in ring units, and any fit can be made from them later."""

    one_sum: ClassVar[bool] = True

    @abstractmethod
    def parts(self, n_items: int) -> tuple[PartSpec, ...]:
        """What the round sums over `n_items` items."""

    @abstractmethod
    def fit(self, state: State) -> State:
        """Solve the model from the sums in `state`; equal sums give equal bytes."""

    def next_round(self, state: State) -> RoundSpec | None:
        """One round is all that a model of sums needs."""
        if state.round > 0:
            return None
        return RoundSpec(0, "user_sum", self.parts(int(state["n_items"])))

    def less(self, state: State, own: Mapping[str, Array]) -> State:
        """See `Model.less`: the sums minus these, and a fit of what is left."""
        if not self.keeps_sums:
            return super().less(state, own)
        rest: dict[str, Array] = {name: state[name].astype(np.int64) - sums for name, sums in own.items()}
        return self.fit(State(state.round, {**state.arrays, **rest}))

    def apply(self, spec: RoundSpec, state: State, total: Total) -> State:
        """Keep the sums in ring units with their scales, and fit."""
        return self.fit(state.updated(round=spec.index + 1, **kept_sums(spec, total)))


def kept_sums(spec: RoundSpec, total: Total) -> dict[str, Array]:
    """The sums of a round in ring units, as narrow as they fit, and each part's scale as ``<part>_scale``.

    Where there is noise, ``<part>_noise`` is its standard deviation and ``<part>_bound`` the L2 bound of one user, both
    in real units (float64).
    """
    sums: dict[str, Array] = {}
    for part in spec.parts:
        sums[part.name] = _narrow(total.integers[part.name])
        sums[f"{part.name}_scale"] = np.array(part.scale, np.int64)
        if total.noise_std[part.name]:
            sums[f"{part.name}_noise"] = np.array(total.noise_std[part.name], np.float64)
            sums[f"{part.name}_bound"] = np.array(part.l2, np.float64)
    return sums


def shares(counts: Floats, rows: float) -> Floats:
    """Popularity: the share of rows with each item (float64 [items]); 0 where there is no row."""
    return counts / max(rows, 1.0)


def clip_factors(norms: Floats, largest: Floats, part: PartSpec) -> Floats:
    """How much each user's part must shrink to keep both bounds of `part`: float64 [users], at most 1."""
    with np.errstate(divide="ignore"):
        l2 = np.where(norms > 0, part.l2 / norms, np.inf)
        linf = np.where(largest > 0, part.linf / largest, np.inf)
    return np.minimum(np.minimum(l2, linf) * MARGIN, 1.0)


def few_items(factors: int, n_items: int) -> str | None:
    """What somebody should hear who asks for so many factors that items hardly share any, or None."""
    if factors <= n_items / 8:
        return None
    return (
        f"factors = {factors} is much for {n_items:,} items: the model will say little but that an item goes with "
        f"itself; try --factors {max(n_items // 16, 1)}"
    )


def narrow_items(items: Items, state: State) -> dict[str, Array]:
    """The public arrays of `state` (number of items, text similarity) on the sub-catalogue `items`."""
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


def _past(history: History, share: Floats) -> Known:
    """Past baskets as what is known: each entry counts with its share, the newest basket is step 0."""
    return Known(Ragged(history.ptr, history.item), share, None, history.age)


def _ranked(found: list[tuple[str, int | None, float]]) -> list[tuple[str, int | None, float]]:
    """Reasons of one kind added up, those above zero, largest first."""
    total: dict[tuple[str, int | None], float] = {}
    for term, cause, amount in found:
        total[term, cause] = total.get((term, cause), 0.0) + amount
    positive = [(term, cause, amount) for (term, cause), amount in total.items() if amount > 0]
    return sorted(positive, key=lambda reason: -reason[2])


def _similarity(state: State, i: int, j: int) -> float:
    if "similarity" not in state:
        return 0.0
    start, stop = state["similarity_ptr"][i : i + 2]
    at = np.searchsorted(state["similarity_item"][start:stop], j)
    if start + at < stop and state["similarity_item"][start + at] == j:
        gain = float(state["similarity_gain"][j]) if "similarity_gain" in state else 1.0
        return gain * float(state["similarity"][start + at])
    return 0.0


def _narrow(values: Array) -> Array:
    """int32 where every value fits, else as it is: sums are kept exactly and cost no more than they must."""
    if len(values) and values.min() >= -(2**31) and values.max() < 2**31:
        return values.astype(np.int32)
    return values
