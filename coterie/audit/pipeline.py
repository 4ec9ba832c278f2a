"""Audit a whole training: plant canaries, train as the plan says, and see whether its promise is contradicted.

The training is the real one: the summand's own contributions, the plan's bounds, the engine's sums and noise, round by
round (`coterie.federation.loop.run_rounds`). Two questions are asked of what it releases:

- Can the coins of the canaries be guessed better than epsilon allows (`coterie.audit.one_run`)? That is a proof, but a
  weak one: it rarely contradicts a claim above `REACH`.
- Is the noise as large, and a user's effect as small, as the plan states (`coterie.audit.observer`)? That is a
  measurement, of a Gaussian mechanism alone, and reaches any epsilon.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from coterie.audit.canaries import Design, draw, planted
from coterie.audit.observer import ENOUGH, Measured, Observer
from coterie.audit.one_run import LEVELS, Bounds, audit_scores, ceiling, gaussian_epsilon
from coterie.audit.rehearsal import best_design
from coterie.engines.local import LocalEngine
from coterie.errors import PlanError
from coterie.federation.cohort import cohort
from coterie.federation.loop import RoundEngine, pinned, run_rounds
from coterie.privacy import accountant
from coterie.privacy.accountant import Event
from coterie.privacy.plan import Plan
from coterie.rng import stream
from coterie.types import Population, State, Summand

REACH = 2.0  # claims above this are contradicted by guesses only where hardly any noise is left
SLACK = 1.01  # measured and stated figures that are this close agree
HOPELESS = 100.0  # standard deviations of noise beyond which it makes no difference how many they are

Engines = Callable[[Population], RoundEngine]


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    `claimed_epsilon` and `delta` are the plan's. `bounds` come from guessing coins; `measured_epsilon` (None where only
    a sample takes part) is at least what a Gaussian mechanism has with the noise and the effect that were measured;
    `charged_epsilon` is what the rounds were charged. `strength` says how far the canaries went towards what the bounds
    allow one user, `ceiling` is the largest epsilon that guesses could have contradicted. `reasons` says what
    contradicts the claim; nothing: it is consistent with all that was seen.
    """

    claimed_epsilon: float
    delta: float
    canaries: int
    included: int
    design: Design
    users: int
    rounds: int
    bounds: Bounds
    measured_epsilon: float | None
    charged_epsilon: float
    strength: float
    ceiling: float
    measured: tuple[Measured, ...]
    reasons: tuple[str, ...]
    cannot_see: tuple[str, ...]

    @property
    def contradicted(self) -> bool:
        return bool(self.reasons)

    @property
    def verdict(self) -> str:
        return "CONTRADICTED" if self.contradicted else "consistent"

    @property
    def noise_found(self) -> tuple[float, float] | None:
        """Measured over stated noise: the smallest and the largest of all parts that are large enough to tell."""
        found = [one.noise_std / one.stated_std for one in self.measured if one.part.size >= ENOUGH and one.stated_std]
        return (min(found), max(found)) if found else None

    def as_dict(self) -> dict[str, Any]:
        """Everything, fit for JSON."""
        found = self.noise_found
        return {
            "verdict": self.verdict,
            "claimed": {"epsilon": self.claimed_epsilon, "delta": self.delta},
            "lower_bounds": {
                "any_mechanism": self.bounds.epsilon,
                "gaussian": self.bounds.gaussian_epsilon,
                "measured": self.measured_epsilon,
            },
            "charged_epsilon": self.charged_epsilon if math.isfinite(self.charged_epsilon) else None,
            "canaries": {
                "drawn": self.canaries,
                "included": self.included,
                "design": asdict(self.design),
                "strength": self.strength,
                "auc": self.bounds.auc,
                "guesses": [asdict(one) for one in self.bounds.guesses],
                "ceiling": self.ceiling,
            },
            "noise_found": None if found is None else list(found),
            "parts": [_part(one) for one in self.measured],
            "users": self.users,
            "rounds": self.rounds,
            "reasons": list(self.reasons),
            "cannot_see": list(self.cannot_see),
        }


def audit_training(
    summand: Summand,
    people: Population,
    plan: Plan,
    start: State,
    *,
    canaries: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
    threads: int = 0,
    rounds: int | None = None,
    engine: Engines | None = None,
    design: Design | None = None,
) -> Audit:
    """Train on `people` and canaries as `plan` says, and audit what is released.

    Nothing is charged: what is released here is seen by the auditor alone, and thrown away.

    Args:
        summand: what is trained.
        people: the real users; where they and the canaries are more than the plan's `max_users`, some are left out.
        plan: must promise an epsilon.
        start: the state before round 0.
        canaries: how many are drawn; about half of them take part.
        seed: of coins and canaries (and of simulated noise, where the plan has that).
        confidence: probability with which guesses do not contradict a claim that holds, at least.
        threads: of the kernels.
        rounds: most rounds that are run.
        engine: makes the engine that is audited; by default the local one.
        design: what a canary has; None: what shows best, found in a rehearsal without canaries.

    Raises:
        PlanError: the plan promises nothing, or has no room for so many canaries.
    """
    if not plan.private:
        raise PlanError("there is no claim to audit: this plan adds no noise (epsilon = 'none')")
    users = _with_room(people, plan, canaries, seed)
    design = design or best_design(summand, users, plan, start, canaries, seed, threads, rounds)
    drawn, copies = draw(users.block, design, canaries, seed), plan.max_clients_per_user
    everybody = planted(users, drawn, copies=copies, hold_places=plan.neighbours == "replace-one")
    observer = Observer(summand, users, drawn, plan, start, min(copies, len(everybody)), threads)
    audited = engine(everybody) if engine is not None else LocalEngine(everybody, threads, seed=seed)
    run_rounds(summand, start, audited, plan, observer, rounds)
    return _found(observer, design, confidence)


def _found(observer: Observer, design: Design, confidence: float) -> Audit:
    plan, drawn = observer.plan, observer.canaries
    claimed, delta = float(plan.epsilon), float(plan.delta or 0.0)
    sampled = plan.sampler != "all"
    levels = tuple(level * plan.sampling_rate for level in LEVELS)  # of so many canaries a round can tell
    with pinned():
        scores = observer.scores()
    bounds = audit_scores(scores, drawn.included, delta, confidence, levels, only_in=sampled)
    measured = None
    if not sampled:
        twice = 2.0 if plan.neighbours == "replace-one" else 1.0
        loss = math.hypot(*(one.loss for one in observer.measured))
        measured = gaussian_epsilon(twice * min(loss, HOPELESS), delta)
    charged = _charged(observer.events, plan, delta)
    limit = ceiling(len(drawn), delta, confidence, levels)
    return Audit(
        claimed_epsilon=claimed,
        delta=delta,
        canaries=len(drawn),
        included=int(drawn.included.sum()),
        design=design,
        users=observer.people.block.n_users,
        rounds=len(observer.events),
        bounds=bounds,
        measured_epsilon=measured,
        charged_epsilon=charged,
        strength=observer.strength,
        ceiling=limit,
        measured=tuple(observer.measured),
        reasons=tuple(_reasons(observer, bounds, measured, charged, claimed)),
        cannot_see=tuple(_cannot_see(observer, claimed, limit)),
    )


def _reasons(observer: Observer, bounds: Bounds, measured: float | None, charged: float, claimed: float) -> list[str]:
    """What contradicts the claim, a sentence each."""
    found = list[str]()
    if bounds.epsilon > claimed:
        found.append(f"coins were guessed too well for epsilon {claimed:g}: it is at least {bounds.epsilon:.2f}")
    if observer.plan.sampler == "all" and bounds.gaussian_epsilon > claimed:
        found.append(
            f"coins were guessed too well for Gaussian noise of epsilon {claimed:g}: it has at least "
            f"{bounds.gaussian_epsilon:.2f}"
        )
    if measured is not None and measured > SLACK * claimed:
        found.append(f"by the noise and the effect of a user that were measured, epsilon is at least {measured:.2f}")
    if charged > SLACK * claimed:
        found.append(f"the rounds were charged epsilon {charged:.3g}, more than {claimed:g}")
    for one in observer.measured:
        if one.noise_low > SLACK * one.stated_std:
            found.append(
                f"part '{one.part.name}' of round {one.round} holds more than its users and its noise: what is left "
                f"has the standard deviation {one.noise_std:.3g}, stated are {one.stated_std:.3g}"
            )
    return found


def _cannot_see(observer: Observer, claimed: float, limit: float) -> list[str]:
    """What an honest reader should not conclude."""
    plan = observer.plan
    found = [
        "that the claim holds: an audit can contradict a promise, never prove it",
        "what happens before rows are summed (reading, cleaning, splitting) and beside it (metrics, logs)",
    ]
    if claimed > REACH:
        found.append(
            f"a claim of {claimed:g} is beyond what guesses contradict unless hardly any noise is left (in practice "
            f"about {REACH:g}; {limit:.1f} if every guess was right): rely on the measured noise"
        )
    if observer.strength < 0.8:
        found.append(
            f"what the heaviest user would show: these canaries go {observer.strength:.0%} of the way to what the "
            "bounds allow"
        )
    if plan.sampler != "all":
        found.append("the noise itself: who was drawn is secret, so what is left of a sum is not noise alone")
    if plan.noise == "local" or plan.aggregation == "plain":
        found.append("what the server sees of single clients: the audit looks at released sums")
    return found


def _charged(events: list[Event | None], plan: Plan, delta: float) -> float:
    """Epsilon of what the rounds were charged; infinite where one was not."""
    known = [event for event in events if event is not None]
    if len(known) < len(events) or not known:
        return math.inf
    return float(accountant.epsilon(known, delta, plan.accountant))


def _with_room(people: Population, plan: Plan, canaries: int, seed: int) -> Population:
    """As many of the real users as the plan's public bound leaves room for."""
    room = plan.max_users - canaries * plan.max_clients_per_user
    if room < 0:
        raise PlanError(
            f"{canaries} canaries do not fit max_users = {plan.max_users:,}, which the claim rests on; use fewer, with "
            "--canaries"
        )
    if people.block.n_users <= room:
        return people
    kept = stream(seed, "audit", "users").choice(people.block.n_users, room, replace=False)
    return cohort(people, np.sort(kept).astype(np.int64))


def _part(one: Measured) -> dict[str, Any]:
    return {
        "round": one.round,
        "part": one.part.name,
        "stated_std": one.stated_std,
        "noise_std": one.noise_std if math.isfinite(one.noise_std) else None,
        "effect": one.effect,
        "largest": one.largest,
        "l2": one.part.l2,
    }
