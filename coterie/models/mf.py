"""Biased matrix factorisation, trained by federated averaging: local epochs, client weights, factors that stay home.

    value(u, i) ~ mean + deviation * (b_u + b_i + p_u . q_i)

The plainest federated loop (McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized
Data", AISTATS 2017) on the plainest model of ratings (Koren, Bell, Volinsky, "Matrix Factorization Techniques for
Recommender Systems", IEEE Computer 2009). Item rows (q_i, b_i) are public; a user's row (p_u, b_u) never leaves the
client. Under noise see `coterie.models.mf_sums`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import numpy as np
from pydantic import Field

from coterie.errors import ModelError
from coterie.models.base import CLIP, LINF, Effort, Model, shares
from coterie.models.kernels.mf import Bounds, Descent, Ratings, add_updates, descend
from coterie.models.kernels.mf_moments import SCALE, SHAPE, mean_and_deviation, usual
from coterie.models.kernels.mf_scores import add_predictions, fold_in
from coterie.models.mf_sums import add_user_moments, counted_noised, noised_budget, noised_step
from coterie.models.mf_targets import entries, ground, standard, with_one
from coterie.models.mixing import MIX, TOGETHER
from coterie.models.popularity import add_row_counts, count_parts
from coterie.models.rows import rows_of
from coterie.ring import Accumulator
from coterie.rng import stream
from coterie.types import (
    Array,
    Floats,
    Items,
    Known,
    LocalStore,
    PartSpec,
    RoundSpec,
    Scores,
    State,
    Total,
    UserBlock,
)

DELTA_SCALE = 1 << 24  # ring units per 1 of an update: what one step of a device changes is about a thousandth
FRACTION = 1 << 20  # ring units per 1 of weights
PRIVACY = ("noise_multiplier", "max_users")
USER_ROWS = "mf.users"  # what a client keeps between rounds: float32 [users, factors + 1]


class Mf(Model):
    """Round 0 sums counts and, of explicit values, their moments; each later round averages what clients learned."""

    name: ClassVar[str] = "mf"
    grid: ClassVar[Mapping[str, tuple[Any, ...]]] = {"regularisation": (0.05, 0.1, 0.2), "factors": (16, 32)}
    scoring_only: ClassVar[frozenset[str]] = frozenset({"user_shrinkage"})
    uses_values: ClassVar[bool] = True
    prior_term: ClassVar[str] = "rated highly"

    factors: int = Field(32, ge=1, le=1024, description="Numbers that describe an item or a user, besides its bias.")
    rounds: int = Field(50, ge=1, description="Most rounds of local training, after the one that counts.")
    noised_rounds: int = Field(
        4, ge=1, description="Most rounds of local training under a plan with noise, which is divided over them."
    )
    local_epochs: int = Field(3, ge=1, description="Passes of a client over its own interactions, in each round.")
    learning_rate: float = Field(0.05, gt=0, description="Step size of the client's gradient descent.")
    server_rate: float = Field(4.0, gt=0, description="How many times its one step a client's update counts.")
    regularisation: float = Field(
        0.1, gt=0, description="Penalty on the squares of all factors and biases, for each interaction."
    )
    user_shrinkage: float = Field(
        20.0, ge=0, description="A user's factors are penalised as if it had this many interactions more."
    )
    client_weight: Literal["uniform", "interactions"] = Field(
        "uniform", description="Whether clients count alike or by their number of interactions."
    )
    negatives: int = Field(
        4, ge=1, le=100, description="Implicit feedback: unobserved items drawn for each interaction, in each epoch."
    )
    feedback: Literal["auto", "explicit", "implicit"] = Field(
        "auto", description="Learn values (explicit) or which items occur (implicit); auto goes by the log."
    )
    tolerance: float = Field(
        0.0, ge=0, description="Training ends when the item rows change by less than this share; 0: never early."
    )

    # --- rounds -------------------------------------------------------------------------------------------------------

    def init(self, n_items: int, public: Mapping[str, Array], seed: int) -> State:
        """``public["explicit"]`` (0 or 1) says whether the log has values to learn, where `feedback` is "auto"."""
        explicit = int(np.asarray(public.get("explicit", 0)).item())
        if self.feedback != "auto":
            explicit = int(self.feedback == "explicit")
        parameters = np.zeros((n_items, self.factors + 1), np.float32)
        parameters[:, :-1] = self._random_factors(n_items, seed)
        arrays: dict[str, Array] = {
            "n_items": np.array(n_items, np.int64),
            "seed": np.array(seed, np.int64),
            "explicit": np.array(explicit, np.int64),
            "parameters": parameters,
            **{name: public[name] for name in PRIVACY if name in public},
        }
        return State(0, arrays)

    def next_round(self, state: State) -> RoundSpec | None:
        """Counts first; then updates, until `rounds` of them are done or the last was smaller than `tolerance`."""
        n = int(state["n_items"])
        if state.round == 0:
            return RoundSpec(0, "user_sum", _sums(n, explicit=self.predicts_values(state)))
        if state.round > self._most_rounds(state) or ("change" in state and float(state["change"]) < self.tolerance):
            return None
        return self._updates(state)

    def budget(self, state: State) -> tuple[float, ...]:
        """A share for what is counted, equal ones for the updates."""
        return noised_budget(self._most_rounds(state))

    def heaviest_round(self, state: State) -> RoundSpec:
        """Updates are larger than the sums of round 0, unless the catalogue is tiny."""
        n = int(state["n_items"])
        first = RoundSpec(0, "user_sum", _sums(n, explicit=self.predicts_values(state)))
        later = self._updates(state.updated(round=1))
        return max(later, first, key=lambda spec: sum(part.size for part in spec.parts))

    def at_most(self, rounds: int | None) -> Mf:
        """Round 0 only counts."""
        if rounds is None:
            return self
        fewer = {name: min(getattr(self, name), max(rounds - 1, 1)) for name in ("rounds", "noised_rounds")}
        return self.model_copy(update=fewer)

    def contribute(
        self, spec: RoundSpec, state: State, users: UserBlock, local: LocalStore | None, out: Accumulator
    ) -> None:
        """Round 0: counts and moments, bounded per user. Later: local training, bounded per client.

        A client whose training diverges adds nothing and keeps the user rows that it had.

        Raises:
            ModelError: explicit feedback without values.
        """
        if spec.kind == "user_sum":
            row_ptr, rows = rows_of(users, "basket")
            add_row_counts(spec, row_ptr, rows, users.n_items, out)
            if self.predicts_values(state):
                add_user_moments(spec.part("moments"), self._values(users), users, out["moments"])
            return
        ratings, before = self._ratings(state, users), None if local is None else local.get(USER_ROWS)
        shape = (users.n_users, state["parameters"].shape[1])
        own = np.zeros(shape, np.float32) if before is None else np.array(before, np.float32, order="C")
        descent, bounds, items = self._descent(state, spec.index), self._bounds(spec), self._begun(state)
        add_updates(ratings, users.one_client, items, own, descent, bounds, out["delta"], out["weight"])
        if local is not None:
            local.stage(USER_ROWS, own)

    def apply(self, spec: RoundSpec, state: State, total: Total) -> State:
        """Federated averaging per item: each row moves by the weighted mean of the clients that touched it.

        Raises:
            ModelError: values without usable moments, or a training that diverged: no client of those with
                interactions added anything, or the new rows are not finite.
        """
        if spec.kind == "user_sum":
            return self._counted(spec, state, total)
        if total.noise_std["delta"]:
            return self._moved_noised(spec, state, total)
        parameters, held = state["parameters"], total.value("weight") > 0
        step = np.zeros(parameters.shape, np.float64)
        step[held] = total.value("delta").reshape(step.shape)[held] / total.value("weight")[held, None]
        change = float(np.linalg.norm(step)) / max(float(np.linalg.norm(parameters.astype(np.float64))), 1e-30)
        with np.errstate(over="ignore"):
            moved = (parameters + step).astype(np.float32)
        if not np.isfinite(moved).all() or (bool(state["trains"]) and not held.any()):
            smaller = "" if math.isinf(spec.part("weight").l2) else ", or raise clip_norm where it is tiny"
            raise ModelError(
                f"mf: local training diverged in round {spec.index} (learning_rate = {self.learning_rate}, "
                f"server_rate = {self.server_rate}); lower one of them{smaller}"
            )
        return self._with_ground(
            state.updated(round=spec.index + 1, parameters=moved, change=np.array(change, np.float64))
        )

    def restrict(self, state: State, items: Items) -> State:
        """The rows of the sub-catalogue."""
        arrays = {k: state[k] for k in ("seed", "explicit", "mean", "deviation", "trains", "change") if k in state}
        for name in ("parameters", "popularity"):
            arrays[name] = state[name][items]
        return self._with_ground(State(state.round, {"n_items": np.array(len(items), np.int64), **arrays}))

    def pooled(self, users: UserBlock, public: Mapping[str, Array], seed: int) -> State:
        """The same objective by plain stochastic gradient descent over all interactions, shuffled together.

        From the same start, in float64, with as many epochs as there are rounds; the step size falls linearly from
        `learning_rate` to a tenth of it. Nothing is averaged, clipped or quantised.
        """
        state = self.init(users.n_items, {"explicit": public["explicit"]} if "explicit" in public else {}, seed)
        rows = np.diff(users.basket_ptr) > 0
        counts = np.bincount(users.item, minlength=users.n_items).astype(np.float64)
        mean, deviation = self._implicit_moments()
        if self.predicts_values(state):
            value = self._values(users)
            known = usual(value[np.isfinite(value)])
            mean = float(known.mean()) if len(known) else 0.0
            deviation = float(known.std()) if len(known) and np.ptp(known) > 0 else 1.0
        state = state.updated(
            popularity=shares(counts, float(rows.sum())), mean=np.array(mean), deviation=np.array(deviation)
        )
        ratings = self._ratings(state, users)
        parameters = state["parameters"].astype(np.float64)
        parameters[counts == 0] = 0.0
        own = np.zeros((users.n_users, parameters.shape[1]))
        draw, epochs = stream(seed, self.name, "pooled"), self.rounds
        for epoch in range(epochs):
            rate = self.learning_rate * (1.0 - 0.9 * epoch / epochs)
            descent = self._descent(state, epoch)._replace(learning_rate=rate)
            descend(ratings, parameters, own, descent, draw.permutation(len(ratings.item)))
        if not np.isfinite(parameters).all():
            raise ModelError(f"mf: training diverged (learning_rate = {self.learning_rate}); lower it")
        return self._with_ground(state.updated(round=self.rounds + 1, parameters=parameters.astype(np.float32)))

    # --- scores -------------------------------------------------------------------------------------------------------

    def predicts_values(self, state: State) -> bool:
        return bool(state[f"{TOGETHER}explicit" if MIX in state else "explicit"])

    def prior(self, state: State) -> Floats:
        """Mean and item bias: what is predicted for somebody of whom nothing is known."""
        if "mean" not in state:
            return np.zeros(int(state["n_items"]))
        return np.asarray(state["mean"] + state["deviation"] * state["parameters"][:, -1].astype(np.float64))

    def related(self, state: State, known: Known, out: Scores) -> None:
        """Fold-in: the user's row is solved from what is known by ridge regression, whoever took part in the training.

        The penalty is that of the training (and `user_shrinkage`). Explicit: an entry without a value counts as
        liked, one standard deviation above what its item's bias says. Implicit: unobserved items stand for the
        negatives by their expectation.
        """
        if "mean" not in state:
            return
        ratings, amount = entries(state, known)
        users = fold_in(ratings, amount, state["parameters"], self.regularisation, self.user_shrinkage, *ground(state))
        add_predictions(users, state["parameters"], float(state["deviation"]), out)

    def evidence(self, state: State, known: Known, item: int) -> Floats:
        """The prediction is linear in the targets: entry e adds a_e x_j^T M^-1 (r_e x_e + pull)."""
        if "mean" not in state or not len(known.items.item):
            return np.zeros(len(known.items.item))
        ratings, amount = entries(state, known)
        each, pull = ground(state)
        rows = with_one(state["parameters"][known.items.item])
        everything = float(amount.sum())
        penalty = (everything + self.user_shrinkage) * self.regularisation
        matrix = (rows * amount[:, None]).T @ rows + everything * each + penalty * np.eye(len(pull))
        seen = np.linalg.solve(matrix, with_one(state["parameters"][[item]])[0])
        return np.asarray(float(state["deviation"]) * amount * ((rows @ seen) * ratings.target + pull @ seen))

    def effort(self, users: UserBlock) -> Effort:
        """A step along a row takes about ten operations per factor; a round adds what it touched."""
        interactions, width = float(len(users.item)), self.factors + 1
        per_epoch = interactions * (1 if users.value is not None else 1 + self.negatives)
        return Effort(
            adds=self.rounds * interactions * width,
            flops=10.0 * self.rounds * self.local_epochs * per_epoch * width,
            bytes=4.0 * width * (users.n_users + 12.0 * users.n_items),
        )

    # --- helpers ------------------------------------------------------------------------------------------------------

    def _counted(self, spec: RoundSpec, state: State, total: Total) -> State:
        """After round 0: popularity, mean and deviation; rows of items that nobody has are zero."""
        if total.noise_std["counts"]:
            return self._with_ground(counted_noised(spec, state, total, self._implicit_moments(), self.negatives))
        counts, rows = total.value("counts"), float(total.value("rows")[0])
        moments, trains = self._implicit_moments(), bool(counts.any())
        if self.predicts_values(state):
            found = mean_and_deviation(spec.part("moments"), total.integers["moments"])
            moments, trains = found or (0.0, 1.0), found is not None
        parameters = np.where(counts[:, None] > 0, state["parameters"], np.float32(0.0))
        return self._with_ground(
            state.updated(
                round=spec.index + 1,
                popularity=shares(counts, rows),
                parameters=parameters,
                mean=np.array(moments[0], np.float64),
                deviation=np.array(moments[1], np.float64),
                trains=np.array(trains, np.int64),
            )
        )

    def _moved_noised(self, spec: RoundSpec, state: State, total: Total) -> State:
        """The rows after an update of which something stands out of the noise; else as they were."""
        state = state.updated(round=spec.index + 1, change=np.array(1.0))
        step, beyond = noised_step(state, total)
        if not beyond:
            return state
        moved = (self._begun(state) + step).astype(np.float32)
        return self._with_ground(state.updated(parameters=moved, popular_only=np.array(0, np.int64)))

    def _begun(self, state: State) -> Scores:
        """The item rows from which clients train: with the factors of the start where only popularity is known."""
        parameters: Scores = state["parameters"]
        if state.arrays.get("popular_only"):
            parameters = parameters.copy()
            parameters[:, :-1] = self._random_factors(len(parameters), int(state["seed"]))
        return parameters

    def _random_factors(self, n_items: int, seed: int) -> Scores:
        drawn = stream(seed, self.name, "init").normal(size=(n_items, self.factors)).astype(np.float32)
        return drawn * np.float32(0.1 / math.sqrt(self.factors))

    def _most_rounds(self, state: State) -> int:
        return self.noised_rounds if "noise_multiplier" in state else self.rounds

    def _updates(self, state: State) -> RoundSpec:
        """A client's weight is spread over the items that it touched; a row moves by about a step, stretched."""
        n, width = state["parameters"].shape
        clip = 2 * CLIP * self.server_rate * self.learning_rate
        delta = PartSpec("delta", (n, width), "rows", math.inf, LINF, DELTA_SCALE, 0.8, clip)
        weight = PartSpec("weight", (n,), "dense", math.inf, LINF, FRACTION, 0.2, CLIP)
        return RoundSpec(state.round, "client_update", (delta, weight))

    def _implicit_moments(self) -> tuple[float, float]:
        """Mean and deviation of a target that is 1 once and 0 `negatives` times."""
        return 1.0 / (1 + self.negatives), math.sqrt(self.negatives) / (1 + self.negatives)

    def _with_ground(self, state: State) -> State:
        """Implicit: what unobserved items add to a fold-in, per interaction, by their expectation."""
        if self.predicts_values(state):
            return state
        rows = with_one(state["parameters"])
        each = self.negatives / max(len(rows), 1)
        missing = -float(state["mean"] / state["deviation"]) - state["parameters"][:, -1].astype(np.float64)
        return state.updated(ground=each * (rows.T @ rows), pull=each * (missing @ rows))

    def _values(self, users: UserBlock) -> Floats:
        if users.value is None:
            raise ModelError(
                "mf: feedback = 'explicit' needs a column of values, which the log does not have; "
                "name it with --value-column, or take feedback = 'implicit'"
            )
        return users.value.astype(np.float64)

    def _ratings(self, state: State, users: UserBlock) -> Ratings:
        """Explicit: every interaction with a value. Implicit: each user's distinct items."""
        if not self.predicts_values(state):
            _, rows = rows_of(users, "user")
            liked = (1.0 - float(state["mean"])) / float(state["deviation"])
            return Ratings(rows.ptr, rows.item, np.full(len(rows.item), liked, np.float32))
        target = standard(state, self._values(users))
        known = np.isfinite(target)
        ptr = np.concatenate([[0], np.cumsum(known)])[users.user_ptr].astype(np.int64)
        return Ratings(ptr, users.item[known], target[known].astype(np.float32))

    def _descent(self, state: State, round: int) -> Descent:
        """The penalty is one per interaction: negatives share it."""
        key = int(stream(int(state["seed"]), self.name, "round", round).integers(2**62))
        negatives = 0 if self.predicts_values(state) else self.negatives
        missing = -float(state["mean"] / state["deviation"])
        ridge = self.regularisation / (1 + negatives)
        return Descent(self.learning_rate, ridge, self.local_epochs, negatives, missing, self.server_rate, key)

    def _bounds(self, spec: RoundSpec) -> Bounds:
        delta, weight = spec.part("delta"), spec.part("weight")
        return Bounds(
            delta.l2,
            delta.linf,
            float(delta.scale),
            weight.l2,
            weight.linf,
            float(weight.scale),
            self.client_weight == "interactions",
        )


def _sums(n_items: int, explicit: bool) -> tuple[PartSpec, ...]:
    if not explicit:
        return count_parts(n_items, 0.95, 0.05)
    moments = PartSpec("moments", SHAPE, "dense", math.inf, LINF, SCALE, 0.5, CLIP)
    return (*count_parts(n_items, 0.45, 0.05), moments)
