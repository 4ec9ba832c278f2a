"""Audits of trainings with and without planted faults, and what raw and noised sums give away; synthetic data alone.

A market's customers train EASE under a plan, each a client; 2,000 canaries and their coins come from three seeds. A
fault is planted in the engine or in the kernels that clip. Prints for each claim and fault the median lower bounds on
epsilon (by guesses whatever the mechanism, by guesses for Gaussian noise, by measured noise), how often the claim was
contradicted, and how long an audit took; then what one user's part of a sum reveals. Exits with 1 if an honest claim
was contradicted, or one of 1 to 2 with a quarter of its noise, no clip or no noise was not contradicted by guesses.

    python benchmarks/audit.py
"""

from __future__ import annotations

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from unittest import mock

import numpy as np

import coterie
import coterie.engines.simulation as engine
from coterie.audit.exposure import expose
from coterie.audit.pipeline import Audit, audit_training
from coterie.data.blocks import population
from coterie.data.catalogue import Catalogue
from coterie.models.base import Model
from coterie.models.ease import Ease
from coterie.models.mf import Mf
from coterie.models.popularity import Popularity
from coterie.privacy.plan import Plan
from coterie.types import Population, State

CLAIMS, SEEDS, CANARIES = (0.5, 1.0, 2.0, 4.0, 8.0), range(3), 2000
Fault = Callable[[], Any]


def noise_over(divisor: float) -> Fault:
    """Noise whose standard deviation is smaller by `divisor`; infinite: none."""
    honest = engine.add_discrete_gaussian

    def add(out: Any, variance: int, bits: Any) -> None:
        if math.isfinite(divisor):
            honest(out, max(int(variance / divisor**2), 1), bits)

    return lambda: mock.patch.object(engine, "add_discrete_gaussian", add)


@contextlib.contextmanager
def no_clip() -> Iterator[None]:
    """Every user adds what it has."""

    def whole(norms: Any, *_: Any) -> Any:
        return np.ones(len(norms))

    with contextlib.ExitStack() as patches:
        for module in ("gram", "popularity"):
            patches.enter_context(mock.patch(f"coterie.models.{module}.clip_factors", whole))
        yield


FAULTS: dict[str, Fault] = {
    "none": contextlib.nullcontext,
    "noise / 2": noise_over(2),
    "noise / 4": noise_over(4),
    "no clip": no_clip,
    "no noise": noise_over(math.inf),
}


def main() -> None:
    """Print both tables."""
    people, failed = _people(), False
    print(f"{people.block.n_users:,} customers, {people.block.n_items} items, EASE, {CANARIES:,} canaries, delta 1e-5")
    head = ("claim", "fault", "any mechanism", "Gaussian", "measured", "contradicted", "seconds")
    print("{:>6} {:<10} {:>14} {:>9} {:>9} {:>13} {:>8}".format(*head))
    for claim in CLAIMS:
        for name, fault in FAULTS.items():
            started = time.perf_counter()
            with fault():
                found = [_audit(people, claim, seed) for seed in SEEDS]
            _show(claim, name, found, (time.perf_counter() - started) / len(found))
            failed |= _is_wrong(claim, name, found)
    _show_exposure(people)
    sys.exit(failed)


def _show(claim: float, fault: str, found: Sequence[Audit], seconds: float) -> None:
    bounds = [(one.bounds.epsilon, one.bounds.gaussian_epsilon, one.measured_epsilon or 0.0) for one in found]
    caught = f"{sum(one.contradicted for one in found)} of {len(found)}"
    figures = "{:>14.2f} {:>9.2f} {:>9.2f}".format(*np.median(bounds, axis=0))
    print(f"{claim:>6} {fault:<10} {figures} {caught:>13} {seconds:>8.1f}")


def _is_wrong(claim: float, fault: str, found: Sequence[Audit]) -> bool:
    """Whether an honest training was contradicted, or a gross fault not, and not by guesses alone."""
    if fault == "none":
        return any(one.contradicted for one in found)
    guessed = all(one.bounds.epsilon > claim for one in found)
    return not all(one.contradicted for one in found) or (1 <= claim <= 2 and fault != "noise / 2" and not guessed)


def _audit(people: Population, claim: float, seed: int) -> Audit:
    model, plan = Ease(regularisation=1e5), _plan(claim)
    return audit_training(model, people, plan, _start(model, people, plan), canaries=CANARIES, seed=seed)


def _show_exposure(people: Population) -> None:
    """AUC of "does this user have the item?", raw and under noise, by somebody who knows what all others added."""
    print("\nwhat one user's part of a sum gives away (AUC, 50 users; membership: did the user take part?)")
    print("{:<12} {:<8} {:>6} {:>8} {:>8} {:>11}".format("model", "part", "raw", "eps 4", "eps 1", "popularity"))
    for model in (Popularity(), Ease(regularisation=1e5), Mf(factors=16, rounds=5)):
        plans = [Plan(), *(_plan(claim, clip_norm=None) for claim in (4.0, 1.0))]  # with the models' own clip norms
        found = [expose(model, people, plan, _start(model, people, plan)) for plan in plans]
        for at, part in enumerate(found[0].parts):
            noised = [f"{one.parts[at].noised:.2f}" for one in found[1:]]
            print(
                f"{model.name:<12} {part.part:<8} {part.alone:>6.2f} {noised[0]:>8} {noised[1]:>8} "
                f"{found[0].popularity:>11.2f}"
            )
        told = [f"{one.membership_most:.2f}" for one in found[1:]]
        print(f"{model.name:<12} {'presence':<8} {found[0].membership_most:>6.2f} {told[0]:>8} {told[1]:>8} {'':>11}")


def _people() -> Population:
    """The customers of a market, each a client of its own."""
    log = coterie.market(shops=4, customers=2000, items=300, baskets=10_000, seed=0).log
    log = log.with_frame(log.frame.drop("client").filter(log.frame["user"].is_not_null()))
    people, _ = population(log, Catalogue.of(log))
    alone = np.arange(people.block.n_users + 1, dtype=np.int64)
    return Population(people.block, alone, tuple(f"device {at}" for at in alone[1:]))


def _plan(epsilon: float, clip_norm: float | None = 3.0) -> Plan:
    return Plan(
        epsilon=epsilon, delta=1e-5, aggregation="plain", noise="central", clip_norm=clip_norm, max_users=10_000
    )


def _start(model: Model, people: Population, plan: Plan) -> State:
    """The state before round 0; under a plan with noise the model knows how much of it there will be."""
    n_items = people.block.n_items
    start = model.init(n_items, {}, 0)
    if not plan.private:
        return start
    total = plan.total_multiplier(model.budget(start))
    return model.init(n_items, {"noise_multiplier": np.array(total), "max_users": np.array(plan.max_users)}, 0)


if __name__ == "__main__":
    main()
