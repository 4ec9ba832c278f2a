"""Figures that are known from elsewhere, laws that hold between figures, and what is refused."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import Any

import dp_accounting
import mpmath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.errors import PlanError
from coterie.privacy import accountant
from coterie.privacy.accountant import Event, delta_of, epsilon, noise_multiplier, tree_aggregation_epsilon

DELTA = 1e-5


def poisson(z: float, rounds: int = 1000, rate: float = 0.01, **more: Any) -> Event:
    return Event(z, rounds, "poisson", rate, **more)


def fixed(z: float, rounds: int = 1000) -> Event:
    return Event(z, rounds, "fixed", sample_size=100, population=10_000, neighbours="replace-one")


# --- one Gaussian ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "delta", "sigma", "digits"),
    [
        (1.0, 1e-5, 3.730631634816, 12),
        (0.5, 1e-6, 8.057618480725, 12),
        (2.0, 1e-5, 1.993812445644, 12),
        (4.0, 1e-5, 1.081161849520, 12),
        (8.0, 1e-5, 0.600229072199, 12),
        (0.1, 1e-5, 30.749566132, 9),
    ],
)
def test_the_analytic_gaussian_mechanism_has_its_known_noise(
    target: float, delta: float, sigma: float, digits: int
) -> None:
    found = noise_multiplier(target, delta)
    assert found == pytest.approx(sigma, abs=1.1 * 10**-digits)
    assert epsilon([Event(found)], delta) <= target
    library = dp_accounting.pld.PLDAccountant().compose(dp_accounting.GaussianDpEvent(found))
    assert library.get_epsilon(delta) == pytest.approx(target, abs=1e-4)


def test_one_gaussian_has_its_known_delta_and_epsilon() -> None:
    assert delta_of([Event(1.0)], 1.0) == pytest.approx(0.126936737507, abs=1e-12)
    assert epsilon([Event(1.0)], DELTA) == pytest.approx(4.377178095681, abs=1e-12)


def test_the_loose_classic_formula_is_not_used() -> None:
    classic = math.sqrt(2 * math.log(1.25 / DELTA))
    assert classic == pytest.approx(4.844805262605, abs=1e-12)
    assert noise_multiplier(1.0, DELTA) < 0.78 * classic


@given(z=st.floats(0.05, 500), e=st.floats(0, 50))
def test_delta_of_a_gaussian_has_its_digits(z: float, e: float) -> None:
    with mpmath.workdps(60):
        half, centre = 1 / (2 * mpmath.mpf(z)), mpmath.mpf(e) * z
        exact = float(mpmath.ncdf(half - centre) - mpmath.exp(e) * mpmath.ncdf(-half - centre))
    assert delta_of([Event(z)], e) == pytest.approx(exact, rel=1e-10, abs=1e-300)


@given(z=st.floats(0.02, 1000), delta=st.floats(1e-12, 0.5))
def test_epsilon_and_delta_are_each_others_inverse(z: float, delta: float) -> None:
    found = epsilon([Event(z)], delta)
    assert delta_of([Event(z)], found) <= delta
    if found > 1e-6:
        assert delta_of([Event(z)], found * (1 - 1e-6)) > delta


def test_extreme_noise_neither_overflows_nor_fails() -> None:
    assert delta_of([Event(1e-4)], 10.0) == 1.0
    assert delta_of([Event(50.0)], 1000.0) == 0.0
    assert epsilon([Event(1e6)], 0.1) == 0.0
    assert epsilon([], DELTA) == 0.0
    assert delta_of([], 0.0) == 0.0


# --- composition -----------------------------------------------------------------------------------------------------


@given(st.lists(st.tuples(st.floats(0.5, 100), st.integers(1, 20)), min_size=1, max_size=8))
def test_unsampled_gaussians_compose_to_exactly_one(rounds: list[tuple[float, int]]) -> None:
    total = 1 / math.sqrt(sum(n / z**2 for z, n in rounds))
    composed = epsilon([Event(z, n) for z, n in rounds], DELTA)
    assert composed == pytest.approx(epsilon([Event(total)], DELTA), rel=1e-9, abs=1e-12)


@given(st.lists(st.floats(0.01, 10), min_size=1, max_size=30))
def test_shares_of_the_budget_compose_to_the_whole(weights: list[float]) -> None:
    shares = [weight / math.fsum(weights) for weight in weights]
    total = noise_multiplier(2.0, DELTA, shares)
    assert total == pytest.approx(noise_multiplier(2.0, DELTA), rel=1e-9)
    assert epsilon([Event(total / math.sqrt(share)) for share in shares], DELTA) <= 2.0


def test_different_rounds_compose_as_the_library_composes_them() -> None:
    events = [poisson(4.0, 30, 0.1), poisson(5.0, 10, 0.2), Event(8.0, 3), Event(20.0, 5, mechanism="laplace")]
    library = dp_accounting.pld.PLDAccountant()
    for z, n, q in ((4.0, 30, 0.1), (5.0, 10, 0.2)):
        library.compose(dp_accounting.PoissonSampledDpEvent(q, dp_accounting.GaussianDpEvent(z)), n)
    library.compose(dp_accounting.GaussianDpEvent(8.0), 3).compose(dp_accounting.LaplaceDpEvent(20.0), 5)
    assert epsilon(events, DELTA) == pytest.approx(library.get_epsilon(DELTA), abs=1e-4)
    assert epsilon(events[::-1], DELTA) == epsilon(events, DELTA)


def test_many_distinct_rounds_cost_little_more_than_a_finer_grid_would_say() -> None:
    events = [poisson(6.0 + k / 10, 10, 0.2) for k in range(12)]
    library = dp_accounting.pld.PLDAccountant()
    for event in events:
        one = dp_accounting.PoissonSampledDpEvent(event.rate, dp_accounting.GaussianDpEvent(event.noise_multiplier))
        library.compose(one, event.count)
    fine = library.get_epsilon(DELTA)
    assert fine < epsilon(events, DELTA) < fine + 0.02


def test_a_composition_is_computed_once() -> None:
    accountant._compose.cache_clear()
    events = [poisson(5.0, 20, 0.1)] * 3
    epsilon(events, DELTA)
    epsilon(events, DELTA / 2)
    delta_of([poisson(5.0, 60, 0.1)], 1.0)
    assert accountant._compose.cache_info()[:2] == (2, 1)  # hits, misses


def test_losses_are_rounded_up() -> None:
    exact = epsilon([Event(1.0)], DELTA)
    assert exact <= epsilon([poisson(1.0, 1, 1.0)], DELTA) < exact + 1e-3


# --- samplers --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sigma", "pld", "rdp"),
    [
        (1.0, 1.828244, 2.101367),
        (2.0, 0.622049, 0.686185),
    ],
)
def test_poisson_sampling_has_its_known_epsilon(sigma: float, pld: float, rdp: float) -> None:
    assert epsilon([poisson(sigma)], DELTA) == pytest.approx(pld, abs=1e-6)
    assert epsilon([poisson(sigma)], DELTA, "rdp") == pytest.approx(rdp, abs=1e-6)


@pytest.mark.parametrize(
    ("target", "pld", "rdp"),
    [(1.0, 1.414632, 1.513122), (2.0, 0.95910, 1.02229), (4.0, 0.73478, 0.77759), (8.0, 0.58626, 0.61585)],
)
def test_poisson_sampling_has_its_known_noise(target: float, pld: float, rdp: float) -> None:
    # A step in the fifth decimal of sigma moves epsilon by less than this.
    assert epsilon([poisson(pld)], DELTA) == pytest.approx(target, rel=5e-5)
    assert epsilon([poisson(rdp)], DELTA, "rdp") == pytest.approx(target, rel=5e-5)


@pytest.mark.parametrize(("by", "sigma"), [(None, 1.414632), ("rdp", 1.513122)])
def test_noise_under_poisson_sampling_is_found(by: accountant.Accountant | None, sigma: float) -> None:
    total = noise_multiplier(1.0, DELTA, (1e-3,) * 1000, sampler="poisson", rate=0.01, accountant=by)
    assert total * math.sqrt(1000) == pytest.approx(sigma, abs=2e-6)
    assert epsilon([poisson(total / math.sqrt(1e-3))], DELTA, by) <= 1.0
    assert sigma > 1.38, "the Gaussian approximation under sampling, 1.359, is too little noise"


def test_without_replacement_has_its_known_epsilon() -> None:
    assert epsilon([fixed(2.707572)], DELTA) == pytest.approx(1.0, abs=2e-6)
    assert epsilon([fixed(2.707572)], DELTA, "rdp") == epsilon([fixed(2.707572)], DELTA)


def test_noise_without_replacement_is_found() -> None:
    drawn: dict[str, Any] = {"sampler": "fixed", "sample_size": 30, "population": 30, "neighbours": "replace-one"}
    total = noise_multiplier(2.0, DELTA, (0.5, 0.5), **drawn)
    found = epsilon([Event(total * math.sqrt(2), 2, **drawn)], DELTA)
    assert found == pytest.approx(2.0, rel=1e-5)
    assert found <= 2.0
    assert total > noise_multiplier(2.0, DELTA)


def test_replacing_under_poisson_sampling_costs_at_most_removing_and_adding() -> None:
    # Multipliers count against the doubled bound: 2 there is 4 here, and replacing is two steps of removal or addition.
    once, twice = poisson(4.0, 50, 0.1), poisson(2.0, 50, 0.1, neighbours="replace-one")
    assert epsilon([once], DELTA) < epsilon([twice], DELTA)
    group = math.exp(epsilon([once], DELTA / 10)) * DELTA / 10 + DELTA / 10
    assert epsilon([twice], group) < 2 * epsilon([once], DELTA / 10)


def test_sampling_amplifies_only_for_those_who_cannot_know_who_took_part() -> None:
    rounds = [poisson(1.4146, 10)]
    assert epsilon([event.towards("outside") for event in rounds], DELTA) < 0.3
    assert epsilon([event.towards("coordinator") for event in rounds], DELTA) == pytest.approx(11.5, abs=0.05)
    assert fixed(1.0).towards("coordinator") == Event(1.0, 1000, neighbours="replace-one")
    with pytest.raises(PlanError, match="view must be one of outside, coordinator"):
        rounds[0].towards("server")  # type: ignore[arg-type]


# --- other mechanisms ------------------------------------------------------------------------------------------------


def test_laplace_noise_has_its_known_figures() -> None:
    many = [Event(10.0, 100, mechanism="laplace")]
    assert epsilon(many, DELTA) == pytest.approx(4.220347, abs=1e-6)
    assert epsilon(many, DELTA, "rdp") == pytest.approx(4.532686, abs=1e-6)
    once = [Event(1.0, mechanism="laplace")]
    assert delta_of(once, 0.5) == pytest.approx(0.221199216929, abs=1e-9)
    assert delta_of(once, 1.0) == 0.0


def test_randomised_response_is_pure() -> None:
    truth = 0.75
    once = Event(1 / math.log(truth / (1 - truth)), mechanism="pure")
    assert epsilon([once], 1e-15) == pytest.approx(math.log(3), abs=1e-12)
    assert epsilon([once] * 100, DELTA) < 95 < 100 * math.log(3)
    weak = [Event(10.0, 100, mechanism="pure")]
    assert epsilon(weak, DELTA) < epsilon(weak, DELTA, "rdp") < 10


@pytest.mark.parametrize(("sigma", "expected"), [(1.0, 4.430238), (2.0, 2.011340)])
def test_scalar_discrete_gaussians_have_their_known_epsilon(sigma: float, expected: float) -> None:
    assert epsilon([Event(sigma, mechanism="discrete-gaussian")], DELTA) == pytest.approx(expected, abs=1e-6)
    assert epsilon([Event(sigma, mechanism="discrete-gaussian")], DELTA, "rdp") > expected


def test_a_scalar_discrete_gaussian_nears_the_gaussian_as_it_is_scaled() -> None:
    exact = epsilon([Event(1.0)], DELTA)
    found = [epsilon([Event(1.0, mechanism="discrete-gaussian", sensitivity=k)], DELTA) for k in (1, 4, 64)]
    gaps = [abs(one - exact) for one in found]
    assert gaps[0] > 2 * gaps[1] > 4 * gaps[2]


def test_discrete_laplace_noise_is_pure() -> None:
    once = [Event(2.0, mechanism="discrete-laplace", sensitivity=3)]
    assert epsilon(once, 1e-15) == pytest.approx(0.5, abs=1e-9)
    inner = sum(math.exp(-abs(x) / 6) for x in range(-400, 400)) / sum(math.exp(-abs(x) / 6) for x in range(-3, 4))
    assert inner > 1
    # By the definition, outcome by outcome, at epsilon 1/4.
    mass = [math.tanh(1 / 12) * math.exp(-abs(x) / 6) for x in range(-200, 201)]
    exact = sum(max(a - math.exp(0.25) * b, 0.0) for a, b in zip(mass[3:], mass[:-3], strict=True))
    assert exact <= delta_of(once, 0.25) < exact + 1e-4


def test_tree_aggregation_has_its_known_epsilon() -> None:
    assert tree_aggregation_epsilon(10.0, 1000, DELTA) == pytest.approx(1.308497, abs=1e-6)


def test_a_mechanism_known_by_its_zcdp_costs_more_than_the_gaussian_with_it() -> None:
    known, gaussian = Event(3.0, 4, mechanism="concentrated"), Event(3.0, 4)
    assert known.rho == gaussian.rho == pytest.approx(4 / 18)
    assert epsilon([gaussian], DELTA) < epsilon([known], DELTA) < 1.2 * epsilon([gaussian], DELTA)
    assert epsilon([known, gaussian], DELTA) == pytest.approx(epsilon([replace(known, count=8)], DELTA), rel=1e-9)


# --- what too little noise costs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claimed", "left", "real"),
    [
        pytest.param(1.0, 0.9, 1.0596, id="ten per cent of the shares dropped out"),
        pytest.param(4.0, 2 / 3, 5.06, id="one of three subtracts its own share"),
        pytest.param(4.0, 1 / 2, 5.99, id="a round was tried again with fresh noise"),
        pytest.param(4.0, 1 / 4, 9.08, id="one user at two clients"),
        pytest.param(4.0, 1 / 9, 15.08, id="one user at three clients"),
    ],
)
def test_noise_of_less_variance_has_its_known_epsilon(claimed: float, left: float, real: float) -> None:
    sigma = noise_multiplier(claimed, DELTA)
    assert epsilon([Event(sigma * math.sqrt(left))], DELTA) == pytest.approx(real, abs=0.006)


def test_dropped_shares_cost_more_under_sampling() -> None:
    assert epsilon([poisson(1.414632 * math.sqrt(0.9))], DELTA) == pytest.approx(1.083, abs=5e-4)


# --- closeness -------------------------------------------------------------------------------------------------------


@given(z=st.floats(0.3, 20), count=st.integers(1, 20), distance=st.floats(1e-20, 1e-8))
def test_closeness_is_paid_out_of_delta(z: float, count: int, distance: float) -> None:
    event = Event(z, count, total_variation=distance)
    found, without = epsilon([event], DELTA), epsilon([replace(event, total_variation=0.0)], DELTA)
    by_itself = epsilon([replace(event, mechanism="concentrated", total_variation=0.0)], DELTA, "rdp")
    assert without <= found < math.inf
    assert delta_of([event], found) <= DELTA * (1 + 1e-9)
    rest = DELTA - (1 + math.exp(found)) * count * distance
    if found < by_itself * (1 - 1e-9):
        assert found <= epsilon([replace(event, total_variation=0.0)], rest) * (1 + 1e-9)


def test_closeness_that_exhausts_delta_leaves_what_integer_noise_is_worth_by_itself() -> None:
    near = Event(1.0, total_variation=1e-6)
    assert epsilon([near], DELTA) == epsilon([Event(1.0, mechanism="concentrated")], DELTA, "rdp")
    assert epsilon([replace(near, sampler="poisson", rate=0.5)], DELTA) == math.inf
    assert delta_of([Event(1.0, total_variation=0.2, sampler="poisson", rate=0.5)], 5.0) == 1.0
    with pytest.raises(PlanError, match="a total variation of 1e-06 uses up delta = 1e-05 at epsilon = 4"):
        noise_multiplier(4.0, DELTA, total_variation=1e-6)


def test_noise_makes_room_for_closeness() -> None:
    total = noise_multiplier(4.0, DELTA, (0.5, 0.5), total_variation=2e-9)
    assert total > noise_multiplier(4.0, DELTA)
    events = [Event(total * math.sqrt(2), total_variation=1e-9)] * 2
    assert epsilon(events, DELTA) == pytest.approx(4.0, rel=1e-9)


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"noise_multiplier": 0.0}, "noise_multiplier must be a number between 0 and inf (both excluded), got 0.0"),
        ({"noise_multiplier": math.nan}, "noise_multiplier must be a number"),
        ({"noise_multiplier": math.inf}, "noise_multiplier must be a number"),
        ({"noise_multiplier": "1"}, "noise_multiplier must be a number"),
        ({"noise_multiplier": True}, "noise_multiplier must be a number"),
        ({"count": 0}, "count must be a whole number of at least 1, got 0"),
        ({"count": 2.0}, "count must be a whole number of at least 1, got 2.0"),
        ({"sampler": "poison"}, "sampler must be one of all, poisson, fixed, got 'poison'; did you mean 'poisson'?"),
        ({"neighbours": "swap"}, "neighbours must be one of add-or-remove-one, replace-one, got 'swap'"),
        ({"mechanism": "skellam"}, "mechanism must be one of gaussian,"),
        ({"rate": 0.5}, "rate = 0.5 cannot be with sampler = 'all'"),
        ({"sampler": "poisson", "rate": 0.0}, "rate = 0.0 cannot be with sampler = 'poisson'"),
        ({"sampler": "poisson", "rate": 1.5}, "rate must be a number between 0 and 1 (both included), got 1.5"),
        ({"sample_size": 3}, "sample_size and population belong to sampler = 'fixed', not to 'all'"),
        ({"sampler": "fixed", "sample_size": 3, "population": 2}, "sample_size = 3 must be between 1 and"),
        ({"sampler": "fixed", "sample_size": 1, "population": 2}, "use neighbours = 'replace-one' or sampler"),
        ({"sampler": "poisson", "mechanism": "pure"}, "mechanism = 'pure' under sampler = 'poisson'"),
        (
            {"sampler": "poisson", "mechanism": "laplace", "neighbours": "replace-one"},
            "mechanism = 'laplace' under sampler = 'poisson' with neighbours = 'replace-one' has no known bound",
        ),
        ({"sensitivity": 2}, "sensitivity belongs to discrete-gaussian and discrete-laplace alone"),
        ({"mechanism": "discrete-gaussian", "noise_multiplier": 1e9}, "noise and sensitivity of at most 100000"),
        ({"total_variation": -1e-9}, "total_variation must be a number between 0 and 1"),
    ],
)
def test_an_event_that_cannot_be_accounted_for_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=re.escape(message)):
        Event(**{"noise_multiplier": 1.0, **values})


def test_an_accountant_that_cannot_do_what_is_asked_says_why() -> None:
    with pytest.raises(PlanError, match="'pld' has no privacy loss distribution for a sampler of fixed size"):
        epsilon([fixed(1.0)], DELTA, "pld")
    with pytest.raises(PlanError, match="for a mechanism known by its zCDP alone; use accountant = 'rdp'"):
        epsilon([Event(1.0), Event(1.0, mechanism="concentrated")], DELTA, "pld")
    with pytest.raises(PlanError, match="'rdp' has no bound for gaussian noise under Poisson sampling"):
        epsilon([poisson(1.0, neighbours="replace-one"), fixed(1.0)], DELTA)
    with pytest.raises(PlanError, match="different neighbours do not compose"):
        epsilon([Event(1.0), Event(1.0, neighbours="replace-one")], DELTA)
    with pytest.raises(PlanError, match="accountant must be one of pld, rdp, got 'gdp'"):
        epsilon([Event(1.0)], DELTA, "gdp")  # type: ignore[arg-type]


@pytest.mark.parametrize("delta", [0.0, 1.0, -1e-5, math.nan, 2])
def test_delta_must_be_a_probability_between(delta: float) -> None:
    with pytest.raises(PlanError, match="delta must be a number between 0 and 1"):
        epsilon([Event(1.0)], delta)
    with pytest.raises(PlanError, match="delta must be a number between 0 and 1"):
        noise_multiplier(1.0, delta)


def test_shares_must_make_a_whole() -> None:
    with pytest.raises(PlanError, match=r"the shares of the budget must sum to 1, got 0\.9"):
        noise_multiplier(1.0, DELTA, (0.5, 0.4))
    with pytest.raises(PlanError, match="a share of the budget must be a number"):
        noise_multiplier(1.0, DELTA, (1.5, -0.5))
    with pytest.raises(PlanError, match="the shares of the budget must sum to 1, got 0"):
        noise_multiplier(1.0, DELTA, ())


# --- as text ---------------------------------------------------------------------------------------------------------

EVENTS = st.one_of(
    st.builds(Event, st.floats(0.01, 1e6), st.integers(1, 10**6), total_variation=st.floats(0, 1)),
    st.builds(Event, st.floats(0.01, 10), sampler=st.just("poisson"), rate=st.floats(1e-6, 1)),
    st.builds(Event, st.floats(0.01, 10), mechanism=st.just("discrete-laplace"), sensitivity=st.integers(1, 1000)),
    st.just(fixed(2.0)),
)


@given(EVENTS)
@settings(max_examples=50)
def test_an_event_survives_being_written_down(event: Event) -> None:
    assert Event.from_json(json.loads(json.dumps(event.to_json()))) == event


def test_what_cannot_be_read_is_never_free() -> None:
    whole = Event(1.0).to_json()
    missing = {name: value for name, value in whole.items() if name != "count"}
    for broken in (missing, {**whole, "extra": 1}, [], None, "event"):
        with pytest.raises(PlanError, match="a privacy event has exactly the fields noise_multiplier, count, sampler"):
            Event.from_json(broken)
    with pytest.raises(PlanError, match="count must be a whole number"):
        Event.from_json({**whole, "count": "1"})
