"""The plan: how the sums of a training are made private. Frozen, and checked when it is built.

A plan says who adds noise, who may see what is summed, and how much may be learned about one user: epsilon and delta,
or the noise multiplier, each of which follows from the other. `Plan.bind` then fixes one round: final bounds, the units
of its integers, the noise of each share, and the event that is charged. Orders and settings that would void the promise
are refused here, with the reason.

The noise of part p in round t has the standard deviation

    z / sqrt(w_t b_p) * bound_p

z is the noise multiplier that one release with the whole budget would need, w_t the round's share of the budget, b_p
the part's share of the round, and bound_p the L2 bound of one user after all that inflates it
(`coterie.privacy.bounds`): without sampling such releases compose to exactly one Gaussian release with multiplier z.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, ClassVar

from coterie.errors import PlanError, closest
from coterie.privacy import accountant
from coterie.privacy.accountant import Accountant
from coterie.privacy.binding import BoundRound, Roster, bind_round
from coterie.privacy.events import Event, Neighbours, Sampler
from coterie.privacy.plan_rules import NARROW, check_delta, check_numbers, check_promise
from coterie.privacy.schedule import SCHEDULES, scheduled
from coterie.types import RoundSpec

__all__ = ["BoundRound", "Plan"]

CHOICES: Mapping[str, tuple[str, ...]] = {
    "aggregation": ("plain", "secure"),
    "noise": ("none", "central", "distributed", "local"),
    "sampler": ("all", "poisson", "fixed"),
    "neighbours": ("add-or-remove-one", "replace-one"),
    "accountant": ("pld", "rdp"),
    "guests": ("drop", "basket"),
    "schedule": SCHEDULES,
    "masks": ("auto", "real", "elided"),
}
MOST = 30.0  # largest epsilon: e^30 is no bound on anything
LIFETIME = 20.0  # epsilon up to which runs of one account may add up before that share of delta is worth noticing
HIDDEN = 1e-3  # share of delta that pays for noise being made of integers


@dataclass(frozen=True)
class Plan:
    """How the sums of a training are made private.

    With neither `epsilon` nor `noise_multiplier` nothing is promised, and every output says so. With one of them the
    other is found; `delta`, `aggregation`, `noise` and `min_clients` have defaults that hold the promise.

    Args:
        epsilon: how much the released sums may say about one user; "none": no differential privacy.
        delta: probability that epsilon does not bound; default a tenth of 1 / `max_users`.
        noise_multiplier: standard deviation of the noise over one user's L2 bound, in each of `rounds` rounds of equal
            share (without `rounds`: of one release with the whole budget).
        rounds: how many rounds the training takes; default as many as the model says.
        aggregation: "plain": the server sees each client's contribution; "secure": the server sees only their sum.
        noise: "central": the server adds it; "distributed": each client adds a share; "local": each user's own
            contribution is noised, nobody is trusted; "none".
        clip_norm: bound on the L2 norm of one user's part, for all parts or by name; None: the model's own.
        budget: share of a round's noise budget by part; None: the model's own.
        schedule: how the budget is divided over rounds: "model", "constant" or "decaying"; fixed in advance.
        sampler: who takes part in a round: "all", "poisson" (each user by a coin) or "fixed" (so many clients).
        sampling_rate: the coin's probability, or the share of clients.
        neighbours: "add-or-remove-one" user, or "replace-one" (which doubles every bound).
        min_clients: fewest clients in a sum; default 1 without noise, all of them with distributed noise.
        max_colluding: clients that may work with the server against the others: their noise is not counted on.
        threshold: shares that are needed to recover a client's masks; default more than two thirds of the clients.
        max_clients_per_user: at how many clients one person may appear; bounds grow by it.
        max_users: public upper bound on the number of users.
        guests: under privacy rows without a user are dropped, or each guest's basket is a unit of its own.
        accountant: "pld" (tight), or "rdp", which draws without replacement need; default whichever fits the sampler.
        masks: "real", "elided" (simulations of devices only) or "auto": real for up to 50 clients.
        simulated_noise: noise from the run's seed: reproducible, worth nothing as privacy, never to be released.
        ring_bits: width of the integers that travel, 32 or 64.

    Raises:
        PlanError: a value that is unknown or out of range, or settings that together promise what they cannot hold.
    """

    epsilon: float | str = "none"
    delta: float | None = None
    noise_multiplier: float | None = None
    rounds: int | None = None
    aggregation: str | None = None
    noise: str | None = None
    clip_norm: float | Mapping[str, float] | None = None
    budget: Mapping[str, float] | None = None
    schedule: str = "model"
    sampler: Sampler = "all"
    sampling_rate: float = 1.0
    neighbours: Neighbours = "add-or-remove-one"
    min_clients: int | None = None
    max_colluding: int = 1
    threshold: int | None = None
    max_clients_per_user: int = 1
    max_users: int = 100_000
    guests: str = "drop"
    accountant: Accountant | None = None
    masks: str = "auto"
    simulated_noise: bool = False
    ring_bits: int = 64

    def __post_init__(self) -> None:
        check_numbers(self)
        private = self.epsilon != "none" or self.noise_multiplier is not None
        self._default("aggregation", "secure" if private and self.noise in (None, "distributed") else "plain")
        self._default("noise", _usual_noise(self.aggregation) if private else "none")
        self._default("accountant", "rdp" if self.sampler == "fixed" or self.ring_bits == NARROW else "pld")
        for name, valid in CHOICES.items():
            if (value := getattr(self, name)) not in valid:
                raise PlanError(f"{name} must be one of {', '.join(valid)}; got {value!r}{closest(str(value), valid)}")
        check_promise(self, private=private)
        if private and self.epsilon != "none" and float(self.epsilon) > MOST:
            raise PlanError(
                f"epsilon = {self.epsilon} promises nothing that could be told from nothing; use at most {MOST:g}, or "
                "epsilon = 'none'"
            )
        if private:
            self._default("delta", 0.1 / self.max_users)
            check_delta(float(self.delta or 0), self.max_users)
            self._solve()

    @property
    def private(self) -> bool:
        """Whether differential privacy is promised."""
        return self.noise != "none"

    @property
    def unit(self) -> str:
        """Whom the promise protects, in words."""
        if self.max_clients_per_user > 1:
            return f"user at up to {self.max_clients_per_user} clients"
        return "user"

    def but(self, **changes: Any) -> Plan:
        """The same plan with changes; what followed from others (such as epsilon from the noise) is found again.

        >>> Plan(epsilon=4.0).but(epsilon=1.0).epsilon
        1.0
        """
        asked = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.private:
            given = "noise_multiplier" if self._given_multiplier else "epsilon"
            given = next((name for name in ("epsilon", "noise_multiplier") if name in changes), given)
            asked |= {"noise_multiplier": None} if given == "epsilon" else {"epsilon": "none"}
        if changes.get("epsilon") == "none":
            asked |= {"noise": None, "aggregation": None, "delta": None, "noise_multiplier": None}
        return Plan(**(asked | changes))

    def slice(self, share: float) -> Plan:
        """A plan for a part of this one's noise budget: plans whose shares sum to 1 compose to this one.

        Raises:
            PlanError: a share out of range, or a sampler (whose rounds must be counted together).
        """
        if not self.private or share == 1:
            return self
        if not 0 < share < 1:
            raise PlanError(f"a share of the budget must be above 0 and at most 1, got {share}")
        if self.sampler != "all":
            raise PlanError(f"a budget under sampler = '{self.sampler}' cannot be sliced; use sampler = 'all'")
        part = self.but(noise_multiplier=self.total_multiplier((1.0,)) / math.sqrt(share), rounds=None)
        object.__setattr__(part, "_closeness", self.closeness * share)
        return part

    def as_dict(self) -> dict[str, Any]:
        """Every field with its value, fit for JSON: the plan printed in full."""
        return {**dataclasses.asdict(replace(self, clip_norm=None, budget=None)), **self._mappings()}

    def bind(
        self,
        spec: RoundSpec,
        users: int,
        clients: int,
        *,
        shares: Sequence[float] = (1.0,),
        one_user_each: bool = False,
    ) -> BoundRound:
        """Fix a round for a population: bounds, units, noise and the event to be charged.

        Args:
            spec: the round as the model asks for it.
            users, clients: how many take part at most.
            shares: the budget's division over all rounds (`coterie.types.Summand.budget`).
            one_user_each: whether every client is one user.

        Raises:
            PlanError: too few clients or too many users, a part without a bound, a sum that may overflow the ring, or a
                round that cannot keep the promise.
        """
        if len(shares) == 1:
            self._refuse_unknown_parts(spec)
        return bind_round(self, spec, Roster(users, clients, one_user_each), self.divided(spec, tuple(shares)))

    def divided(self, spec: RoundSpec | None, shares: tuple[float, ...]) -> tuple[float, ...]:
        """The budget's shares over the rounds, as the schedule has them.

        Raises:
            PlanError: they do not sum to 1, the round was not announced, or there are not `rounds` of them.
        """
        if not self.private:
            return shares
        if not all(share > 0 for share in shares) or not math.isclose(sum(shares), 1.0, rel_tol=1e-9):
            raise PlanError(f"shares of the budget must be positive and sum to 1, got {shares}")
        if spec is not None and spec.index >= len(shares):
            raise PlanError(
                f"round {spec.index} was not announced: the budget is divided over {len(shares)} rounds and spent"
            )
        if self.rounds is not None and self.rounds != len(shares):
            raise PlanError(
                f"the plan is for rounds = {self.rounds}, but the model takes {len(shares)}; leave rounds out, or "
                "change the model's iterations"
            )
        return scheduled(self.schedule, shares)

    def total_multiplier(self, shares: tuple[float, ...]) -> float:
        """Z for these shares of the budget: what a release with all of it would add, over one user's bound."""
        given = float(self.noise_multiplier or 0.0) / math.sqrt(self.rounds or 1) if self._given_multiplier else 0.0
        if given and self._closeness is not None:
            return given  # a part of a whole: what holds is promised of that
        # Under a sampler rounds of unequal shares cost more than equal ones: noise grows until the promise holds.
        needed = accountant.noise_multiplier(
            float(self.epsilon),
            self._delta * (1 - HIDDEN),
            shares=shares,
            accountant=self.accountant,
            **self._sample(),
        )
        return max(given, needed)

    def events(self, shares: Sequence[float]) -> tuple[Event, ...]:
        """What the rounds of a training are to the accountant, known before it begins."""
        return self.events_of(self.divided(None, tuple(shares)))

    def events_of(self, divided: tuple[float, ...]) -> tuple[Event, ...]:
        """The same from shares that the schedule has divided."""
        total, apart = self.total_multiplier(divided), self.closeness / len(divided)
        return tuple(self.event(total / math.sqrt(share), apart) for share in divided)

    def event(self, noise_multiplier: float, total_variation: float = 0.0, count: int = 1) -> Event:
        """What a round with this noise multiplier is to the accountant."""
        return Event(noise_multiplier=noise_multiplier, count=count, total_variation=total_variation, **self._sample())

    @property
    def closeness(self) -> float:
        """How far integer noise may be from rounded Gaussian noise over a whole training, in total variation.

        In a narrow ring it is accounted for as what it is, by concentrated privacy (Kairouz, Liu, Steinke 2021): 0.
        """
        if self.ring_bits == NARROW:
            return 0.0
        if self._closeness is not None:
            return self._closeness
        return 0.999 * HIDDEN * self._delta / (1 + math.exp(max(float(self.epsilon), LIFETIME)))

    # --- checks -----------------------------------------------------------------------------------------------------

    def _refuse_unknown_parts(self, spec: RoundSpec) -> None:
        """A bound or share for a part that the only round does not have is a slip of the pen."""
        known = {part.name for part in spec.parts}
        named = {
            "clip_norm": self.clip_norm if isinstance(self.clip_norm, Mapping) else {},
            "budget": self.budget or {},
        }
        for what, parts in named.items():
            for part in set(parts) - known:
                raise PlanError(f"{what} names the part '{part}', and there are {', '.join(sorted(known))}")

    def honest(self, min_clients: int) -> int:
        """How many shares of distributed noise a sum surely holds that nobody else knows.

        Raises:
            PlanError: fewer than two.
        """
        honest = min_clients - self.max_colluding
        if honest < 2:
            raise PlanError(
                f"distributed noise needs two honest clients at least: min_clients = {min_clients} minus max_colluding "
                f"= {self.max_colluding} leaves {honest}; use noise = 'central', or more clients"
            )
        return honest

    def _solve(self) -> None:
        """Find epsilon from the noise multiplier, or the noise multiplier from epsilon."""
        rounds = self.rounds or 1
        object.__setattr__(self, "_given_multiplier", self.epsilon == "none")
        if self.noise_multiplier is not None:
            found = accountant.epsilon([self.event(self.noise_multiplier, count=rounds)], self._delta, self.accountant)
            if found > MOST:
                raise PlanError(
                    f"noise_multiplier = {self.noise_multiplier} is so little noise that epsilon would be {found:.4g}; "
                    f"above {MOST:g} nothing is promised that could be told from nothing; use more"
                )
            if self.epsilon != "none" and not math.isclose(found, float(self.epsilon), rel_tol=1e-3):
                raise PlanError(
                    f"epsilon = {self.epsilon} and noise_multiplier = {self.noise_multiplier} contradict each other "
                    f"(the latter gives epsilon {found:.4g}); give one of the two"
                )
            object.__setattr__(self, "epsilon", found if self.epsilon == "none" else float(self.epsilon))
            return
        object.__setattr__(self, "epsilon", float(self.epsilon))
        total = accountant.noise_multiplier(
            float(self.epsilon),
            self._delta,
            shares=(1.0 / rounds,) * rounds,
            accountant=self.accountant,
            **self._sample(),
        )
        object.__setattr__(self, "noise_multiplier", total * math.sqrt(rounds))

    def _sample(self) -> dict[str, Any]:
        """The arguments of `Event` that are the same in every round."""
        found: dict[str, Any] = {"sampler": self.sampler, "neighbours": self.neighbours}
        if self.ring_bits == NARROW:
            found["mechanism"] = "concentrated"
        if self.sampler == "poisson":
            found["rate"] = self.sampling_rate
        if self.sampler == "fixed":
            found |= {"sample_size": math.ceil(self.sampling_rate * self.max_users), "population": self.max_users}
        return found

    def _default(self, name: str, value: Any) -> None:
        if getattr(self, name) is None:
            object.__setattr__(self, name, value)

    def _mappings(self) -> dict[str, Any]:
        clip = dict(self.clip_norm) if isinstance(self.clip_norm, Mapping) else self.clip_norm
        return {"clip_norm": clip, "budget": None if self.budget is None else dict(self.budget)}

    @property
    def _delta(self) -> float:
        return 0.0 if self.delta is None else float(self.delta)

    _given_multiplier: ClassVar[bool] = False
    _closeness: ClassVar[float | None] = None


def _usual_noise(aggregation: str | None) -> str:
    return "distributed" if aggregation == "secure" else "central"
