"""Which canaries show best? Found in a rehearsal: a training of the real users alone, in which some of each are tried.

Round by round a few canaries of every design say what they would add if bounds were `LOOSER` times as wide, in units of
the noise. So the design that wins has enough to reach the real bounds, and a clip that is left out shows.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from coterie.audit.canaries import DESIGNS, FEWEST, Canaries, Design, draw
from coterie.audit.observer import contributions
from coterie.engines.local import LocalEngine
from coterie.federation.localstore import UserStore
from coterie.federation.loop import run_rounds
from coterie.privacy.plan import BoundRound, Plan
from coterie.types import Floats, Population, State, Summand, Total

LOOSER = 4.0
CONTENT = 0.9  # a design that shows so much of what the best one shows is chosen if it is lighter


def best_design(
    summand: Summand,
    people: Population,
    plan: Plan,
    start: State,
    canaries: int,
    seed: int = 0,
    threads: int = 0,
    rounds: int | None = None,
) -> Design:
    """The lightest design of those that show about as well as any, when so many canaries are drawn."""
    trials = [_Trial(design, draw(people.block, design, FEWEST, seed)) for design in DESIGNS]
    rehearsal = _Rehearsal(summand, start, trials)
    run_rounds(summand, start, LocalEngine(people, threads, seed=seed), plan, rehearsal, rounds)
    shown = [trial.shown(canaries) for trial in trials]
    return next(trial.design for trial, one in zip(trials, shown, strict=True) if one >= CONTENT * max(shown))


@dataclass
class _Trial:
    """Canaries of one design: the inner products of what they would add, in units of the noise, all rounds together."""

    design: Design
    canaries: Canaries
    products: Floats = field(init=False)
    store: UserStore = field(init=False)

    def __post_init__(self) -> None:
        self.products = np.zeros((len(self.canaries), len(self.canaries)))
        self.store = UserStore(len(self.canaries))

    def shown(self, canaries: int) -> float:
        """How well one canary of so many stands out: the squared shift of its score over the score's variance.

        Half of the others add to the score what they have in common with it. What all have in common tells nothing of
        any, and is left out.
        """
        mean = self.products.mean(axis=0)
        apart = self.products - mean[:, None] - mean[None, :] + self.products.mean()
        own, between = np.diagonal(apart), apart[~np.eye(len(apart), dtype=bool)]
        alone = float(own.mean())
        variance = alone + canaries / 4 * float((between**2).mean())
        return alone**2 / variance if variance > 0 else 0.0


@dataclass
class _Rehearsal:
    """Asks every trial's canaries what they would add to each round."""

    summand: Summand
    state: State
    trials: list[_Trial]

    def __call__(self, bound: BoundRound, total: Total, state: State) -> None:
        wide = tuple(replace(part, l2=LOOSER * part.l2, linf=LOOSER * part.linf) for part in total.spec.parts)
        spec = replace(total.spec, parts=wide)
        for trial in self.trials:
            added = contributions(self.summand, spec, self.state, trial.canaries.block, trial.store)
            for part in spec.parts:
                own = added[part.name] / (part.scale * (total.noise_std[part.name] or part.l2))
                trial.products += (own @ own.T).toarray()
        self.state = state
