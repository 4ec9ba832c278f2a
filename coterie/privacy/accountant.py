"""What releases cost: epsilon and delta of noised sums, and the noise that a budget demands.

The one adapter over dp-accounting. An `Event` says which mechanism ran, how often and on whom; `epsilon` and `delta_of`
compose events over rounds and over runs; `noise_multiplier` goes the other way. All figures are upper bounds: privacy
losses are rounded up, searches end on the side that keeps the promise, and what has no known bound is refused.

Unsampled Gaussians compose to exactly one, ``1 / z^2 = sum of 1 / z_i^2``, which has a closed form. All else composes
through privacy loss distributions ("pld"), or through Rényi divergences ("rdp") where the sampler or the mechanism
demands it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Literal, Protocol, TypeAlias, get_args

from coterie.errors import PlanError
from coterie.privacy.checks import check_number, check_word
from coterie.privacy.events import PURE, Event, Mechanism, Neighbours, Sampler, View
from coterie.privacy.gaussian import Gaussian, gaussian_multiplier

__all__ = [
    "Accountant",
    "Event",
    "Mechanism",
    "Neighbours",
    "Sampler",
    "View",
    "accountant_for",
    "delta_of",
    "epsilon",
    "noise_multiplier",
    "tree_aggregation_epsilon",
]

Accountant: TypeAlias = Literal["pld", "rdp"]

FINE = 1e-4  # privacy losses are rounded up to multiples of this
COARSE = 1e-3  # ... and of this where many distinct distributions compose, or an answer is only a first guess
MANY = 8


def epsilon(events: Iterable[Event], delta: float, accountant: Accountant | None = None) -> float:
    """Smallest known epsilon at `delta` of all events together, adaptively composed; ``inf`` where there is none.

    `accountant` None takes what the events allow. Closeness takes its part of `delta` first: releases within total
    variation t of an (epsilon, delta') mechanism are (epsilon, delta' + (1 + e^epsilon) t) differentially private.

    Raises:
        PlanError: delta outside (0, 1), or events that this accountant cannot compose.
    """
    check_number("delta", delta, most=1.0)
    releases = tuple(events)
    curve, distance = _curve_of(releases, accountant), _distance(releases)
    answer = curve.epsilon(delta)
    while distance and answer < math.inf:
        rest = delta - (1 + _exp(answer)) * distance
        if rest <= 0:
            return _concentrated(releases, delta)
        needed = curve.epsilon(rest)
        if needed <= answer:
            return min(answer, _concentrated(releases, delta))
        # `needed` grows with the answer, so this climbs to the first fixed point; the step past it lets the loop end.
        answer = needed * (1 + 1e-12)
    return answer


def _concentrated(events: tuple[Event, ...], delta: float) -> float:
    """What zCDP says where closeness says nothing more: ``inf`` unless all are Gaussians that everybody takes part in.

    Sums of discrete Gaussians are (1 / 2 z^2)-zCDP by themselves (`coterie.privacy.discrete.concentrated_multiplier`,
    which every round of a plan is checked against), however far they are from real ones.
    """
    return epsilon(_as_concentrated(events), delta, "rdp") if _is_plain(events) else math.inf


def _is_plain(events: tuple[Event, ...]) -> bool:
    """Whether all are Gaussians of everybody."""
    return all(event.sampler == "all" and event.mechanism in ("gaussian", "concentrated") for event in events)


def _as_concentrated(events: tuple[Event, ...]) -> tuple[Event, ...]:
    return tuple(replace(event, mechanism="concentrated", total_variation=0.0) for event in events)


def delta_of(events: Iterable[Event], epsilon: float, accountant: Accountant | None = None) -> float:
    """Delta at `epsilon` of all events together, at most 1; see `epsilon`."""
    check_number("epsilon", epsilon, open=False)
    releases = tuple(events)
    own, distance = _curve_of(releases, accountant).delta(epsilon), _distance(releases)
    if not distance:
        return own
    near = min(1.0, own + (1 + _exp(epsilon)) * distance)
    return min(near, _curve_of(_as_concentrated(releases), "rdp").delta(epsilon)) if _is_plain(releases) else near


def noise_multiplier(
    epsilon: float,
    delta: float,
    shares: Sequence[float] = (1.0,),
    *,
    sampler: Sampler = "all",
    rate: float = 1.0,
    sample_size: int = 0,
    population: int = 0,
    neighbours: Neighbours = "add-or-remove-one",
    mechanism: Mechanism = "gaussian",
    total_variation: float = 0.0,
    accountant: Accountant | None = None,
) -> float:
    """The smallest z such that releases at ``z / sqrt(share)`` compose to (epsilon, delta).

    `shares` divide the budget between releases and sum to 1; `total_variation` is what the closeness of all of them may
    add up to. Exact where all users take part; else within 1e-6 (relative) of the smallest, on its safe side.

    Raises:
        PlanError: values out of range, shares that do not sum to 1, or a budget that closeness exhausts.
    """
    check_number("epsilon", epsilon)
    check_number("delta", delta, most=1.0)
    _check_shares(shares)
    rest = _after_closeness(epsilon, delta, total_variation)
    one = Event(1.0, 1, sampler, rate, sample_size, population, neighbours, mechanism)
    return _noise_multiplier(epsilon, rest, tuple(Counter(shares).items()), one, accountant or accountant_for((one,)))


def accountant_for(events: Iterable[Event]) -> Accountant:
    """Privacy loss distributions, unless a sampler or a mechanism has none."""
    return "rdp" if any(_needs_rdp(event) for event in events) else "pld"


def tree_aggregation_epsilon(noise_multiplier: float, steps: int, delta: float) -> float:
    """Epsilon of binary-tree aggregation over one epoch of `steps` rounds, each user in one of them (by Rényi).

    Neighbours replace a user's value by zero (Kairouz et al. 2021, "Practical and private (deep) learning without
    sampling or shuffling", appendix D); for adding or removing a user there is no such bound.
    """
    import dp_accounting

    relation = dp_accounting.NeighboringRelation.REPLACE_SPECIAL
    event = dp_accounting.SingleEpochTreeAggregationDpEvent(noise_multiplier, steps)
    return float(dp_accounting.rdp.RdpAccountant(neighboring_relation=relation).compose(event).get_epsilon(delta))


# --- what events compose to ------------------------------------------------------------------------------------------

_Group: TypeAlias = tuple[Event, int]  # one release, and how many there were like it


class _Curve(Protocol):
    """Which epsilon goes with which delta."""

    def epsilon(self, delta: float) -> float: ...

    def delta(self, epsilon: float) -> float: ...


@dataclass(frozen=True, slots=True)
class _Composed:
    """What dp-accounting composed. `pure` caps epsilon: the sum of pure losses where all are pure, else inf."""

    epsilon_at: Callable[[float], float]
    delta_at: Callable[[float], float]
    pure: float

    def epsilon(self, delta: float) -> float:
        return min(self.pure, float(self.epsilon_at(delta)))

    def delta(self, epsilon: float) -> float:
        return 0.0 if epsilon >= self.pure else float(self.delta_at(epsilon))


def _curve_of(events: tuple[Event, ...], accountant: Accountant | None, finest: float = FINE) -> _Curve:
    """Refuse what does not compose, and compose the rest."""
    if accountant is not None:
        check_word("accountant", accountant, get_args(Accountant))
    if len({event.neighbours for event in events}) > 1:
        raise PlanError("events with different neighbours do not compose; account for all with 'replace-one'")
    chosen = accountant or accountant_for(events)
    for event in events:
        _check_accountant(event, chosen)
    if _closed_form(events, chosen):
        return Gaussian(_total_multiplier(events))
    return _compose(_grouped(events), chosen, finest)


@lru_cache(maxsize=8)
def _compose(groups: tuple[_Group, ...], accountant: Accountant, finest: float) -> _Curve:
    pure = math.inf
    if all(event.sampler == "all" and event.mechanism in PURE for event, _ in groups):
        pure = math.fsum(n / event.noise_multiplier for event, n in groups)
    if accountant == "rdp":
        renyi = _renyi(groups)
        return _Composed(renyi.get_epsilon, renyi.get_delta, pure)
    grid = _grid(groups, finest)
    total: Any = None
    for event, n in groups:
        losses = _losses(event, grid)
        losses = losses.self_compose(n) if n > 1 else losses
        total = losses if total is None else total.compose(losses)
    return _Composed(total.get_epsilon_for_delta, total.get_delta_for_epsilon, pure)


def _grouped(events: Sequence[Event]) -> tuple[_Group, ...]:
    """Equal releases together, all unsampled Gaussians as the one that they equal, in an order of their own."""
    gaussians = [event for event in events if _closed_form((event,), None)]
    groups = [(Event(_total_multiplier(gaussians), neighbours=gaussians[0].neighbours), 1)] if gaussians else []
    counts: Counter[Event] = Counter()
    for event in events:
        if not _closed_form((event,), None):
            counts[replace(event, count=1, total_variation=0.0)] += event.count
    return (*groups, *sorted(counts.items(), key=repr))


def _closed_form(events: Sequence[Event], accountant: Accountant | None) -> bool:
    return accountant != "rdp" and all((e.sampler, e.mechanism) == ("all", "gaussian") for e in events)


def _total_multiplier(gaussians: Sequence[Event]) -> float:
    return 1 / math.sqrt(precision) if (precision := 2 * math.fsum(event.rho for event in gaussians)) else math.inf


def _distance(events: Sequence[Event]) -> float:
    """Total variation of all releases together: it adds up, whether or not one depends on another."""
    return math.fsum(event.count * event.total_variation for event in events)


# --- dp-accounting's view of an event --------------------------------------------------------------------------------


@lru_cache(maxsize=32)
def _losses(event: Event, grid: float) -> Any:
    """The privacy loss distribution of one release, losses rounded up to multiples of `grid`."""
    from dp_accounting import NeighboringRelation
    from dp_accounting.pld import common
    from dp_accounting.pld import privacy_loss_distribution as pld

    z, rounding = event.noise_multiplier, {"pessimistic_estimate": True, "value_discretization_interval": grid}
    match event.mechanism:
        case "pure":
            parameters = common.DifferentialPrivacyParameters(1 / z)
            return pld.from_privacy_parameters(parameters, value_discretization_interval=grid)
        case "laplace":
            return pld.from_laplace_mechanism(z, sampling_prob=event.rate, **rounding)
        case "discrete-laplace":
            return pld.from_discrete_laplace_mechanism(1 / (z * event.sensitivity), event.sensitivity, **rounding)
        case "discrete-gaussian":
            return pld.from_discrete_gaussian_mechanism(z * event.sensitivity, event.sensitivity, **rounding)
    if event.sampler == "poisson" and event.neighbours == "replace-one":
        # Here the library measures noise against what one user adds, and doubles by itself.
        relation = NeighboringRelation.REPLACE_ONE
        return pld.from_gaussian_mechanism(2 * z, sampling_prob=event.rate, neighboring_relation=relation, **rounding)
    return pld.from_gaussian_mechanism(z, sampling_prob=event.rate, **rounding)


def _grid(groups: Sequence[_Group], finest: float) -> float:
    """How finely losses are told apart: coarser where many distinct or very large ones compose.

    Losses are rounded up whatever the grid: a coarse one costs a little epsilon and never the promise.
    """
    widest = max(1 / (2 * e.noise_multiplier**2) + 10 / e.noise_multiplier for e, _ in groups)
    typical = math.fsum(n * _typical_loss(event) for event, n in groups)
    spread = typical + 10 * math.sqrt(2 * typical) + widest
    return max(finest, COARSE if len(groups) > MANY else FINE, spread / 1e6)


def _typical_loss(event: Event) -> float:
    precision = 1 / event.noise_multiplier**2
    return min(precision / 2, event.rate**2 * math.expm1(min(precision, 700.0)))


def _renyi(groups: Sequence[_Group]) -> Any:
    """dp-accounting's Rényi accountant, with all releases composed."""
    import dp_accounting

    relations = dp_accounting.NeighboringRelation
    fixed = any(event.sampler == "fixed" for event, _ in groups)
    relation = relations.REPLACE_ONE if fixed else relations.ADD_OR_REMOVE_ONE
    accountant = dp_accounting.rdp.RdpAccountant(neighboring_relation=relation)
    for event, n in groups:
        accountant.compose(_library_event(event), n)
    return accountant


def _library_event(event: Event) -> Any:
    import dp_accounting

    if event.mechanism == "laplace":
        return dp_accounting.LaplaceDpEvent(event.noise_multiplier)
    if event.mechanism != "gaussian":
        return dp_accounting.ZCDpEvent(event.rho)
    gaussian = dp_accounting.GaussianDpEvent(event.noise_multiplier)
    if event.sampler == "poisson":
        return dp_accounting.PoissonSampledDpEvent(event.rate, gaussian)
    if event.sampler == "fixed":
        return dp_accounting.SampledWithoutReplacementDpEvent(event.population, event.sample_size, gaussian)
    return gaussian


# --- numbers ---------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _noise_multiplier(
    epsilon: float, delta: float, shares: tuple[tuple[float, int], ...], one: Event, accountant: Accountant
) -> float:
    """As `noise_multiplier`; `shares` are distinct, each with how many releases have it."""
    if _closed_form((one,), accountant):
        whole = math.fsum(share * count for share, count in shares)
        # By rounding errors shares may exceed 1, and an epsilon that is computed back the one that was asked for.
        return gaussian_multiplier(epsilon, delta) * (1 + 2e-14) * max(1.0, whole)

    def cost(z: float, finest: float = FINE) -> float:
        releases = tuple(replace(one, noise_multiplier=z / math.sqrt(share), count=count) for share, count in shares)
        return _curve_of(releases, accountant, finest).epsilon(delta)

    if accountant == "rdp":
        return _calibrate(cost, epsilon, start=1.0, step=1.5)
    guess = _calibrate(lambda z: cost(z, 3 * COARSE), epsilon, start=1.0, step=1.5)
    return _calibrate(cost, epsilon, start=guess, step=1.002)


def _calibrate(cost: Callable[[float], float], target: float, start: float, step: float) -> float:
    """The smallest z with ``cost(z) <= target``, within 1e-6 of it on the safe side; `cost` falls with z."""
    from scipy.optimize import brentq

    low = high = start
    while cost(high) > target:
        low, high = high, high * step
        if high > 1e9:
            raise PlanError(f"no noise reaches epsilon = {target:.3g} with these rounds, this sampler and this delta")
    while low == high or cost(low) <= target:
        low, high = low / step, low

    def gap(log_z: float) -> float:
        return math.log(min(max(cost(math.exp(log_z)), 1e-12), 1e6) / target)

    z = math.exp(brentq(gap, math.log(low), math.log(high), xtol=2e-7))
    while cost(z) > target:
        z *= 1 + 4e-7
    return z


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0))


# --- what is refused -------------------------------------------------------------------------------------------------


def _check_accountant(event: Event, accountant: Accountant) -> None:
    if accountant == "pld" and _needs_rdp(event):
        what = "a sampler of fixed size" if event.sampler == "fixed" else "a mechanism known by its zCDP alone"
        raise PlanError(f"accountant = 'pld' has no privacy loss distribution for {what}; use accountant = 'rdp'")
    bounded = (event.mechanism, event.neighbours) == ("gaussian", "add-or-remove-one")
    if accountant == "rdp" and event.sampler == "poisson" and not bounded:
        raise PlanError(
            f"accountant = 'rdp' has no bound for {event.mechanism} noise under Poisson sampling with neighbours = "
            f"'{event.neighbours}'; use accountant = 'pld'"
        )


def _needs_rdp(event: Event) -> bool:
    return event.sampler == "fixed" or event.mechanism == "concentrated"


def _after_closeness(epsilon: float, delta: float, total_variation: float) -> float:
    check_number("total_variation", total_variation, most=1.0, open=False)
    rest = delta - (1 + _exp(epsilon)) * total_variation if total_variation else delta
    if rest <= 0:
        raise PlanError(
            f"a total variation of {total_variation:.3g} uses up delta = {delta:.3g} at epsilon = {epsilon:.3g}; "
            "use a larger scale or a wider ring"
        )
    return rest


def _check_shares(shares: Sequence[float]) -> None:
    for share in shares:
        check_number("a share of the budget", share)
    if abs(math.fsum(shares) - 1) > 1e-9:
        raise PlanError(f"the shares of the budget must sum to 1, got {math.fsum(shares)!r}")
