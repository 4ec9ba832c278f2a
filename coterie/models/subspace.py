"""Private subspace: taste as a few directions in the space of items, learned under user-level differential privacy.

A private sum tells the less of each number the more numbers it has. So users first say which items are popular, then
(without public item features) which of the most popular go together, and only then place themselves in a few
directions and say how these continue over all items that stand out of the noise. With c_i = p_i^(-1/2) for items of
popularity p_i, m the unit vector along c_i p_i, and unit(v) = v / |v|:

    round 0     mass    x_u / sqrt(n_u)                                          popularity p, noised
                users   1
    round 1     gram    upper triangle of h h^T,  h = unit(c x without its part along m) on the most popular items,
                        as long as a triangle may be; with public features this round is left out
    then        image   y z^T,  y = unit(c x without its part along m) on the head,  z = unit(basis^T c x)

where x_u are the items of user u, n_u their number, and the basis comes from the sum before: eigenvectors of the Gram
that are longer than noise (or of the likeness of item features), then the left singular vectors of all images so far,
side by side, each in standard deviations of its noise, smoothed between items of like features. Every part of a user is
at most 1 long, so noise of equal size serves all. These are rounds of subspace iteration (Hardt and Roth, "Beyond
Worst-Case Analysis in Private Singular Vector Computation", STOC 2013) on unit vectors of users instead of entries.

Scores: with V the rows [sqrt(popularity_bias) m, U sqrt(s / s_1)] of items, what is known of a user places them at

    w = (a V^T V + sum_i t_i v_i v_i^T + lambda I)^(-1) sum_i t_i v_i,       score(j) = v_j . w

on their own device: a makes all items together weigh `unobserved_weight` times as much as what an average user has, and
t_i is 1, or where the log has times proportional to 1 + recency exp(-step_i / recency_steps), with mean 1. Sizes follow
from sums and their noise alone. Where no direction stands out of noise, only m is left: noisy popularity.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
import scipy.sparse as sp
from pydantic import Field

from coterie.models.base import Effort, Model, few_items, narrow_items
from coterie.models.kernels.ials import add_scores
from coterie.models.kernels.private_subspace import fold_in
from coterie.models.kernels.scoring import owners
from coterie.models.rows import RowUnit, rows_of
from coterie.models.subspace_fit import (
    Sizes,
    feature_directions,
    gram_directions,
    lens,
    levels,
    sizes,
    stacked_directions,
)
from coterie.models.subspace_pooled import image_of, mass_of, pairs_of
from coterie.models.subspace_sums import add_image, add_mass, add_pairs, gram_round, image_round, mass_round
from coterie.ring import Accumulator
from coterie.types import (
    Array,
    Floats,
    Integers,
    Items,
    Known,
    LocalStore,
    RoundSpec,
    Scores,
    State,
    Total,
    UserBlock,
)

FAINT = 1e-3
SERVED = ("popularity", "factors", "unseen", "timed", "by_features")
"""What scores are made of, and what says that no round is left."""


class Subspace(Model):
    """The private subspace; see the head of this module for the formulas.

    A trained state has ``factors`` (float32 [items, 1 + directions]: V) and ``unseen`` (float64: a V^T V for an
    `unobserved_weight` of 1).
    Between rounds it also has ``head`` (int64: positions of the items in use,
    the most popular first), ``level`` (float64: their popularity), ``basis`` and ``stack``.
    """

    name: ClassVar[str] = "subspace"
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "regularisation": (3.0, 10.0, 30.0),
        "unobserved_weight": (1.0, 4.0, 16.0),
        "recency": (0.0, 8.0),
    }
    scoring_only: ClassVar[frozenset[str]] = frozenset(
        {"regularisation", "unobserved_weight", "recency", "recency_steps"}
    )
    uses_features: ClassVar[bool] = True
    row_unit: ClassVar[RowUnit] = "user"

    factors: int | None = Field(
        None, ge=1, le=1024, description="Most directions. Default: as many as noise allows, up to 128 (subspace)."
    )
    iterations: int = Field(
        3, ge=0, le=20, description="Rounds that look for directions, after those that start; each has equal noise."
    )
    features: Literal["auto", "none"] = Field(
        "auto", description="Under noise start from public item features (auto), where there are any, or from pairs."
    )
    popularity_share: float | None = Field(
        None,
        gt=0,
        lt=0.9,
        description="Share of the noise budget that finds out what is popular. Default: the more the noise (subspace).",
    )
    pair_share: float = Field(
        0.12, gt=0, lt=0.9, description="Share of the noise budget for pairs of popular items, without features."
    )
    popularity_bias: float = Field(
        3.0, gt=0, description="Weight of popularity beside the strongest direction of taste."
    )
    unobserved_weight: float = Field(
        4.0, gt=0, description="Weight of all items together, beside 1 for all that an average user has."
    )
    regularisation: float = Field(10.0, gt=0, description="Ridge: larger is smoother (lambda in the formula).")
    recency: float = Field(8.0, ge=0, description="How much more the latest item counts, where the log has times.")
    recency_steps: float = Field(8.0, gt=0, description="Steps of time after which this is down to a third.")

    # --- the training -----------------------------------------------------------------------------------------------

    def init(self, n_items: int, public: Mapping[str, Array], seed: int) -> State:
        """With features where there are any and noise: without it pairs of items cost nothing, and tell more."""
        kept = {key: value for key, value in public.items() if not key.startswith("feature")}
        wanted = self.features == "auto" and "noise_multiplier" in public and len(public.get("feature", ())) > 0
        if wanted:
            kept |= {key: public[key] for key in ("feature_ptr", "feature", "feature_weight")}
        return super().init(n_items, kept, seed).updated(by_features=np.array(wanted, np.int64))

    def budget(self, state: State) -> tuple[float, ...]:
        """Popularity, pairs (without features), and equal shares of what is left for the rounds after."""
        if self.iterations == 0:
            return (1.0,)
        asked = [self._first_share(state)] + ([] if _by_features(state) else [self.pair_share])
        first = [share / max(sum(asked) / 0.9, 1.0) for share in asked]
        return (*first, *[(1.0 - sum(first)) / self.iterations] * self.iterations)

    def next_round(self, state: State) -> RoundSpec | None:
        if state.round == 0:
            return mass_round(int(state["n_items"]))
        if state.round >= len(self.budget(state)):
            return None
        if state.round == 1 and not _by_features(state):
            return gram_round(int(state["pairs"]))
        return image_round(state.round, *state["basis"].shape)

    def heaviest_round(self, state: State) -> RoundSpec | None:
        """The largest round of a log in which every item stands out; without noise as large as they come."""
        n = int(state["n_items"])
        noise, users = 0.0, float(state["max_users"]) if "max_users" in state else 0.0
        if "noise_multiplier" in state:
            noise = float(state["noise_multiplier"]) / np.sqrt(self.budget(state)[0])
        size = sizes(np.full(n, 1e3 * max(noise, 1.0)), users, noise, self.factors)
        rounds = [mass_round(n), image_round(2, n, size.directions)]
        rounds += [] if _by_features(state) else [gram_round(size.gram)]
        return max(rounds, key=lambda spec: spec.parts[0].size)

    def at_most(self, rounds: int | None) -> Subspace:
        """The first two rounds only say where to look."""
        if rounds is None:
            return self
        return self.model_copy(update={"iterations": min(self.iterations, max(rounds - 2, 0))})

    def contribute(
        self, spec: RoundSpec, state: State, users: UserBlock, local: LocalStore | None, out: Accumulator
    ) -> None:
        """Per user: scale to the bound, truncate towards zero, add integers."""
        _, rows = rows_of(users, "user")
        kind = spec.parts[0].name
        if kind == "mass":
            add_mass(spec, rows, out)
        else:
            (add_pairs if kind == "gram" else add_image)(spec, state, rows, out)

    def apply(self, spec: RoundSpec, state: State, total: Total) -> State:
        """What follows from the sum, in units of a user's bound."""
        first = spec.parts[0]
        sums, noise = total.value(first.name) / first.l2, total.noise_std[first.name] / first.l2
        if first.name == "mass":
            users = float(total.value("users")[0]) / spec.part("users").l2
            return self._counted(state, sums, max(users, 1.0), noise)
        if first.name == "gram":
            return self._paired(state, sums, noise)
        return self._turned(state, sums.reshape(first.shape), noise)

    def pooled(self, users: UserBlock, public: Mapping[str, Array], seed: int) -> State:
        """The same rounds with sums by scipy: sparse, in floating point, nothing truncated, no noise."""
        _, rows = rows_of(users, "user")
        state = self.init(users.n_items, public, seed)
        while (spec := self.next_round(state)) is not None:
            kind = spec.parts[0].name
            if kind == "mass":
                mass, number = mass_of(rows, users.n_items)
                state = self._counted(state, mass, max(number, 1.0), 0.0)
            elif kind == "gram":
                state = self._paired(state, pairs_of(rows, state, spec.parts[0].shape[0]), 0.0)
            else:
                state = self._turned(state, image_of(rows, state), 0.0)
        return state

    # --- scores -----------------------------------------------------------------------------------------------------

    def restrict(self, state: State, items: Items) -> State:
        """The items of the sub-catalogue as they are in the whole one."""
        kept = {name: state[name] for name in SERVED if name in state}
        kept |= {name: state[name][items] for name in ("factors", "popularity") if name in state}
        return State(state.round, {**narrow_items(items, state), **kept})

    def prior(self, state: State) -> Floats | None:
        """Next to nothing, by popularity: it decides where nothing is known of any item that a user has."""
        if "factors" not in state:
            return None
        faint: Floats = FAINT * state["factors"][:, 0].astype(np.float64)
        return faint

    def related(self, state: State, known: Known, out: Scores) -> None:
        """Out(j) += v_j . w for the place w of each list; before there are directions, popularity."""
        if "factors" not in state:
            out[np.diff(known.items.ptr) > 0] += state["popularity"].astype(np.float32)
            return
        factors = state["factors"].astype(np.float64)
        places = fold_in(known.items, self._amounts(state, known), factors, self._shared(state))
        add_scores(places, np.ascontiguousarray(state["factors"].T), out)

    def evidence(self, state: State, known: Known, item: int) -> Floats:
        """Of v_j . M^-1 sum_i t_i v_i, with M the matrix of the list: its terms."""
        number = len(known.items.item)
        if "factors" not in state:
            return np.full(number, float(state["popularity"][item]) / max(number, 1))
        factors, amount = state["factors"].astype(np.float64), self._amounts(state, known)
        own = factors[known.items.item]
        toward = np.linalg.solve(self._shared(state) + own.T @ (amount[:, None] * own), factors[item])
        explained: Floats = amount * (own @ toward)
        return explained

    def advice(self, n_items: int) -> str | None:
        return None if self.factors is None else few_items(self.factors, n_items)

    def effort(self, users: UserBlock) -> Effort:
        """Rows of the head are multiplied with as many directions as there may be, and the Gram once."""
        size = sizes(np.ones(users.n_items), float(users.n_users), 0.0, self.factors)
        flops = 2.0 * users.n_users * (size.gram**2 + self.iterations * size.head * size.directions)
        return Effort(2.0 * len(users.item), flops, 40.0 * users.n_items * size.directions + 24.0 * size.gram**2)

    # --- helpers ----------------------------------------------------------------------------------------------------

    def _first_share(self, state: State) -> float:
        """Much noise hides first of all what is popular; with features, which tell taste, it pays to find that out."""
        if self.popularity_share is not None:
            return self.popularity_share
        multiplier = float(state["noise_multiplier"]) if "noise_multiplier" in state else 0.0
        return min(0.15 + 0.05 * multiplier, 0.4) if _by_features(state) else min(0.15 + 0.02 * multiplier, 0.3)

    def _counted(self, state: State, mass: Floats, users: float, noise: float) -> State:
        """After round 0: which items are in use, how much noise allows, and where to start if features say so."""
        size: Sizes = sizes(mass, users, noise, self.factors)
        head = np.argsort(-mass, kind="stable")[: size.head].astype(np.int64)
        found = state.updated(
            round=1,
            popularity=np.maximum(mass, 0.0) / max(users, float(mass.max(initial=0.0))),
            mass=mass,
            users=np.array(users),
            head=head,
            level=levels(mass[head], noise),
            pairs=np.array(size.gram, np.int64),
            directions=np.array(size.directions, np.int64),
        )
        if not _by_features(state):
            return found
        _, mean = lens(found["level"])
        features = _features(found)[head]
        return found.updated(basis=feature_directions(features, found["level"], mean, size.directions))

    def _paired(self, state: State, triangle: Floats, noise: float) -> State:
        """After the round of pairs: directions over the most popular items, nothing yet about the others."""
        n = int(state["pairs"])
        _, mean = lens(state["level"][:n])
        found = gram_directions(triangle, noise, mean, int(state["directions"]))
        basis = np.zeros((len(state["head"]), found.shape[1]))
        basis[:n] = found
        return state.updated(round=2, basis=basis)

    def _turned(self, state: State, image: Floats, noise: float) -> State:
        """After a round of regression: better directions, and factors to score with."""
        new = image / noise if noise else image
        stack = np.hstack([state["stack"], new]) if "stack" in state else new
        _, mean = lens(state["level"])
        features = None
        if _by_features(state):
            full = _features(state)
            features = full[state["head"]], full[_rest(state)]
        most = int(state["directions"]) if features is not None else state["basis"].shape[1]
        found, beyond = stacked_directions(stack, mean, noise > 0, features, most)
        served = self._served(state, found, beyond).updated(round=state.round + 1)
        if self.next_round(served) is None:
            return State(served.round, {name: served[name] for name in ("n_items", *SERVED) if name in served})
        # sqrt(s / s_1) is on the columns already: with the whitening exponent 1/2 the basis is without any.
        lengths = np.maximum(np.linalg.norm(found, axis=0), 1e-300)
        basis = found / lengths**2 if found.shape[1] else state["basis"]
        return served.updated(stack=stack, basis=basis)

    def _served(self, state: State, directions: Floats, beyond: Floats) -> State:
        """Factors of all items, and what places users among them; `beyond` is for items outside the head, or empty."""
        mass, head, n = state["mass"], state["head"], int(state["n_items"])
        factors = np.zeros((n, 1 + directions.shape[1]))
        # Outside the head popularity alone is known, and ranks by itself: the same measure, never above the head's.
        root = np.sqrt(np.maximum(mass, 0.0))
        factors[:, 0] = np.sqrt(self.popularity_bias) * root / max(float(np.linalg.norm(root[head])), 1e-300)
        factors[head, 1:] = directions
        if len(beyond):
            factors[_rest(state), 1:] = beyond
        square = float((factors[head] ** 2).sum()) / len(head)
        factors = (factors / np.sqrt(square or 1.0)).astype(np.float32)
        return self._placed(state.updated(factors=factors))

    def _placed(self, state: State) -> State:
        """With ``unseen``, from the factors of the head."""
        factors = state["factors"][state["head"]].astype(np.float64)
        # The sum over items of x_u / sqrt(n_u) is sqrt(n_u): its mean over users says how much an average user has.
        root = max(float(state["mass"].sum() / state["users"]), 1.0)
        return state.updated(unseen=root**2 / len(factors) * (factors.T @ factors))

    def _shared(self, state: State) -> Floats:
        """The part that all users share of the matrix that places them."""
        ridge = self.regularisation * np.eye(len(state["unseen"]))
        shared: Floats = self.unobserved_weight * state["unseen"] + ridge
        return shared

    def _amounts(self, state: State, known: Known) -> Floats:
        """How much each known item counts: float64 [entries]; where times weigh, a list as a whole counts as before."""
        if known.step is None or not int(state.arrays.get("timed", np.array(0))):
            return known.amounts()
        amounts = known.amounts()
        recent = amounts * (1.0 + self.recency * np.exp(-known.step / self.recency_steps))
        whose, number = owners(known.items.ptr), len(known)
        before, after = (np.bincount(whose, weights, number) for weights in (amounts, recent))
        balanced: Floats = recent * (before / np.where(after > 0, after, 1.0))[whose]
        return balanced


def _by_features(state: State) -> bool:
    return bool(int(state["by_features"]))


def _features(state: State) -> sp.csr_matrix:
    """Features of all items, as a scipy matrix: float64 [items, features]."""
    width = int(state["feature"].max()) + 1
    shape = (int(state["n_items"]), width)
    return sp.csr_matrix((state["feature_weight"].astype(np.float64), state["feature"], state["feature_ptr"]), shape)


def _rest(state: State) -> Integers:
    """Positions of the items outside the head, ascending."""
    return np.setdiff1d(np.arange(int(state["n_items"]), dtype=np.int64), state["head"])
