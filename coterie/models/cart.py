"""Cart completion: given the items in a cart, rank what completes it, for guests too.

EASE on baskets, with a ridge that grows with an item's own weight and a discount for popular items. From the sums
G = sum over baskets b of |b|^(-1/2) x_b x_b^T, the item counts n and the number of baskets N, with d = diag(G):

    P = (G + lambda diag(d^(1/2)))^-1
    B_ij = -P_ij / P_jj * d_j^(-c),   B_jj = 0
    score(j) = sum over i in the cart of (B_ij + tau * sim_ij^3) + f pf_j + a n_j / N

pf_j is the asking user's share of past baskets with item j, decayed per basket; it enters at scoring time only and
stays where the history is. With an empty cart and a history the question is the next basket, and the shares pf take the
place of the cart: score(j) = pf_j + sum_i pf_i B_ij + 0.3 n_j / N. sim is the similarity of item texts, where there are
any. Measured against nine other methods on two public basket logs; the defaults are one set for all data.

Up to `exact_items` items one round sums all of G. Beyond, `coterie.models.cart_large` sums a part of it in two. Under
noise, `coterie.models.cart_private` sums the pairs that are worth it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from coterie.models.base import Effort, Model, Terms
from coterie.models.cart_large import (
    Budget,
    add_large_sums,
    apply_large,
    fit_large,
    next_large_round,
    pooled_large,
    random_signs,
    restricted_large,
)
from coterie.models.cart_private import (
    add_private_sums,
    apply_private,
    heaviest_private_round,
    is_private,
    mixed_private,
    next_private_round,
    private_budget,
    private_without,
    restricted_private,
)
from coterie.models.cart_private_fit import Form, fit_private
from coterie.models.gram import GramModel, symmetric_inverse
from coterie.models.kernels.pairs import add_sparse_rows
from coterie.ring import Accumulator
from coterie.types import Array, Floats, Items, Known, LocalStore, Ragged, RoundSpec, Scores, State, Total, UserBlock


class Cart(GramModel):
    """Cart completion and next-basket recommendation from basket-level sums."""

    name: ClassVar[str] = "cart"
    keeps_sums: ClassVar[bool] = True
    max_dense_items: ClassVar[int | None] = None
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "regularisation": (3.0, 10.0, 30.0, 100.0),
        "popularity_discount": (0.0, 0.1),
        "popularity_weight": (0.0, 0.1, 0.3, 1.0, 3.0),
        "history_weight": (0.0, 0.01, 0.03, 0.1, 1.0),
    }

    scoring_only: ClassVar[frozenset[str]] = frozenset(
        {"popularity_weight", "history_weight", "history_decay", "next_popularity"}
    )

    regularisation: float = Field(5.0, gt=0, description="Ridge: larger is smoother (lambda in the formula).")
    popularity_discount: float = Field(0.1, ge=0, le=1, description="Discount for popular items (c in the formula).")
    popularity_weight: float = Field(0.0, ge=0, description="Weight of an item's share of baskets (a in the formula).")
    history_weight: float = Field(0.1, ge=0, description="Weight of the user's own past baskets (f in the formula).")
    history_decay: float = Field(0.9, gt=0, le=1, description="Decay of a past basket for each later one.")
    text_weight: float = Field(0.06, ge=0, description="Weight of item text similarity (tau in the formula).")
    next_popularity: float = Field(
        0.3, ge=0, description="Weight of an item's share of baskets in a next basket (empty cart, known user)."
    )
    basket_exponent: float = Field(0.5, ge=0, le=1, description="A basket of n items counts with n^-this.")
    exact_items: int = Field(
        20_000, ge=1, description="Up to this many items all pairs are summed; beyond, those of the next four options."
    )
    head_items: int = Field(
        2_000, ge=1, description="In a larger catalogue: all pairs of this many most frequent items are summed."
    )
    partners: int = Field(96, ge=1, description="In a larger catalogue: pairs that are summed for each further item.")
    sketch: int = Field(
        128, ge=2, le=4096, description="In a larger catalogue: numbers per item from which its partners are chosen."
    )
    neighbours: int = Field(100, ge=1, description="In a larger catalogue: most items that an item is predicted from.")

    @property
    def row_unit(self) -> Literal["basket", "user"]:
        return "basket"

    @property
    def row_exponent(self) -> float:
        return self.basket_exponent

    def terms(self) -> Terms:
        return Terms(
            self.history_weight, self.history_decay, self.popularity_weight, self.text_weight, self.next_popularity
        )

    def solve(self, gram: Floats, counts: Floats, rows: float) -> Floats:
        own = np.diagonal(gram).copy()
        seen = own > 0
        # An item without a basket gets a 1 on the diagonal: it stays invertible and its weights are zero.
        np.fill_diagonal(gram, np.where(seen, own + self.regularisation * np.sqrt(own), 1.0))
        inverse = symmetric_inverse(gram, "cart")
        discount = np.where(seen, own, 1.0) ** -self.popularity_discount
        inverse *= discount / -np.diagonal(inverse)
        np.fill_diagonal(inverse, 0.0)
        return inverse

    def init(self, n_items: int, public: Mapping[str, Array], seed: int) -> State:
        """The state before round 0; only a large catalogue needs anything random."""
        if n_items <= self.exact_items or "noise_multiplier" in public:
            return super().init(n_items, public, seed)
        return super().init(n_items, {**public, "signs": random_signs(n_items, self.sketch, seed, self.name)}, seed)

    def budget(self, state: State) -> tuple[float, ...]:
        """See `coterie.types.Summand.budget`: what is shared is noise, so without noise there is one share."""
        return private_budget() if is_private(state) else (1.0,)

    def heaviest_round(self, state: State) -> RoundSpec | None:
        return heaviest_private_round(state) if is_private(state) else super().heaviest_round(state)

    def next_round(self, state: State) -> RoundSpec | None:
        if is_private(state):
            return next_private_round(state)
        if self._exact(state):
            return super().next_round(state)
        return next_large_round(state, self._budget(), self.row_exponent)

    def contribute(
        self, spec: RoundSpec, state: State, users: UserBlock, local: LocalStore | None, out: Accumulator
    ) -> None:
        """Per user: clip to the bounds of each part, truncate towards zero, add integers."""
        if is_private(state):
            add_private_sums(spec, state, users, self.row_exponent, out)
        elif self._exact(state):
            super().contribute(spec, state, users, local, out)
        else:
            add_large_sums(spec, state, users, self.row_exponent, out)

    def apply(self, spec: RoundSpec, state: State, total: Total) -> State:
        """Keep the sums; fit once all are there (under noise, on what is there after each round)."""
        if is_private(state):
            return self.fit(apply_private(spec, state, total))
        if self._exact(state):
            return super().apply(spec, state, total)
        after = apply_large(spec, state, total, self._budget())
        return self.fit(after) if self.next_round(after) is None else after

    def less(self, state: State, own: Mapping[str, Array]) -> State:
        """See `Model.less`; not in a large catalogue without noise, where what was summed depends on who took part."""
        if is_private(state):
            return self.fit(private_without(state, own))
        return super().less(state, own) if self._exact(state) else Model.less(self, state, own)

    def fit(self, state: State) -> State:
        if is_private(state):
            return fit_private(state, self._form())
        if "pairs" not in state:
            return super().fit(state)
        return fit_large(state, self.regularisation, self.popularity_discount, self.neighbours, self.text_weight)

    def restrict(self, state: State, items: Items) -> State:
        if is_private(state) and len(items) < int(state["n_items"]):
            return self.fit(restricted_private(state, items))
        if "pairs" not in state or len(items) == int(state["n_items"]):
            return super().restrict(state, items)
        return self.fit(restricted_large(state, items))

    def pooled(self, users: UserBlock, public: Mapping[str, Array], seed: int) -> State:
        """The sums by scipy, unclipped, in floating point and without noise; in a large catalogue the same pairs."""
        public = {name: array for name, array in public.items() if name not in ("noise_multiplier", "max_users")}
        if users.n_items <= self.exact_items:
            return super().pooled(users, public, seed)
        signs = random_signs(users.n_items, self.sketch, seed, self.name)
        return self.fit(pooled_large(users, {**public, "signs": signs}, self.row_exponent, self._budget()))

    def related(self, state: State, known: Known, out: Scores) -> None:
        """Out(j) += sum over known items i of amount_i B_ij; nothing between the rounds of a large catalogue."""
        if "weights" in state:
            super().related(state, known, out)
        elif "near" in state:
            rows = Ragged(state["near_ptr"], state["near_item"])
            add_sparse_rows(known.items, known.amounts(), rows, state["near"], out)

    def evidence(self, state: State, known: Known, item: int) -> Floats:
        if "weights" in state:
            return super().evidence(state, known, item)
        found = np.zeros(len(known.items.item))
        if "near" not in state:
            return found
        rows = Ragged(state["near_ptr"], state["near_item"])
        for e, i in enumerate(known.items.item.tolist()):
            at = int(np.searchsorted(rows[i], item))
            if at < len(rows[i]) and rows[i][at] == item:
                found[e] = state["near"][rows.ptr[i] + at]
        return known.amounts() * found

    def personalise(self, state: State, own: State, weight: float) -> State:
        """One state where both have all weights; else a state that holds both."""
        if "floor" in state and "weights" in state and "weights" in own:
            return mixed_private(state, own, weight)
        if "weights" in state and "weights" in own:
            return super().personalise(state, own, weight)
        return Model.personalise(self, state, own, weight)

    def effort(self, users: UserBlock) -> Effort:
        """In a large catalogue: sketches are added and multiplied, and many small systems are solved."""
        n = users.n_items
        if n <= self.exact_items:
            return super().effort(users)
        sizes = np.diff(users.basket_ptr).astype(np.float64)
        adds = float((sizes * (sizes + 1) / 2).sum()) + 2.0 * self.sketch * len(users.item)
        flops = 2.0 * self.sketch * n**2 + n * (self.neighbours**3 / 3 + self.sketch * self.neighbours**2)
        return Effort(
            adds, flops, 40.0 * self.sketch * n + 100.0 * self._budget().pairs(n) + 24.0 * self.neighbours * n
        )

    def _exact(self, state: State) -> bool:
        return int(state["n_items"]) <= self.exact_items

    def _form(self) -> Form:
        return Form(self.regularisation, self.popularity_discount, self.text_weight, self.exact_items, self.neighbours)

    def _budget(self) -> Budget:
        return Budget(self.head_items, self.partners, self.sketch)
