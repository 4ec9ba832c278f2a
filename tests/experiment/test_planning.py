"""What `coterie plan` says holds: rounds and noise, a year of runs, the account's verdict, and the simulation."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coterie.data.catalogue import Catalogue
from coterie.errors import BudgetExceeded, ConfigError, PlanError
from coterie.experiment import planning_simulation as simulation
from coterie.experiment.cases import FitData
from coterie.experiment.planning import foresee, plan_facts
from coterie.experiment.planning_budget import account_facts, composed, cost_facts, year_facts
from coterie.experiment.planning_market import TELLING, People, made_up
from coterie.experiment.planning_rounds import foreseen_rounds, meaning, noise_facts, short
from coterie.models import registry
from coterie.privacy import accountant
from coterie.privacy.accountant import Event
from coterie.privacy.ledger import Charge, Ledger
from coterie.privacy.plan import Plan
from coterie.settings import Settings, build
from coterie.types import PartSpec

DELTA = 1e-6
FEW = People(users=300, clients=4, items=40)


def asked(**plan: Any) -> Settings:
    return build({"plan": plan}, "test")


def foreseen(settings: Settings, people: People = FEW, **options: Any) -> dict[str, Any]:
    return foresee(settings, people, **{"simulated": False, **options})


# --- people ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrong", [{"users": 0}, {"clients": -1}, {"items": 3}, {"users": 5, "clients": 6}])
def test_numbers_that_cannot_be_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=str(next(iter(wrong.values())))):
        People(**wrong)


def test_made_up_people_are_all_known_and_always_the_same() -> None:
    log, again = made_up(FEW, 3), made_up(FEW, 3)
    assert log.frame.equals(again.frame)
    assert log.texts.equals(again.texts)
    assert log.frame["user"].null_count() == 0
    assert log.frame["client"].n_unique() == 4
    assert not log.texts["title"].equals(made_up(FEW, 4).texts["title"])


def test_of_devices_each_is_its_users() -> None:
    frame = made_up(People(users=50, clients=0, items=40), 0).frame
    assert (frame["client"] == frame["user"]).all()


def test_titles_tell_most_of_what_goes_together_and_nothing_else() -> None:
    from coterie.data.market import market

    pairs = market(1, 300, 40, 1800, 0, guests=0.0).truth.complements
    log = made_up(replace(FEW, clients=1), 0)
    words = [set(title.split()) for title in log.texts.sort("item")["title"]]
    told = np.mean([bool(words[a] & words[b]) for a, b in pairs.tolist()])
    assert told == pytest.approx(TELLING, abs=0.15)
    others = {(a, b) for a in range(40) for b in range(a)} - {(max(p), min(p)) for p in pairs.tolist()}
    assert not any(words[a] & words[b] for a, b in others)


def test_without_titles_there_are_none() -> None:
    assert made_up(replace(FEW, titles=False), 0).texts["title"].null_count() == 40


# --- rounds and noise ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", registry.BUILT_IN)
def test_the_rounds_of_every_model_compose_to_the_plan(name: str) -> None:
    model, plan = registry.build({"name": name}), Plan(epsilon=4.0, noise="central", aggregation="plain")
    people = replace(FEW, clients=0) if name == "mf" else FEW  # a client's whole update protects one user alone
    shares, bounds = foreseen_rounds(model, plan, people)
    assert len(bounds) == len(shares)
    precision = sum(bound.event.noise_multiplier**-2 for bound in bounds if bound.event is not None)
    assert precision**-0.5 == pytest.approx(plan.noise_multiplier, rel=1e-3)
    for bound in bounds:
        assert bound.event is not None
        per_part = [bound.noise_std(1)[part.name] / part.l2 for part in bound.spec.parts]
        assert sum(std**-2 for std in per_part) ** -0.5 == pytest.approx(bound.event.noise_multiplier, rel=1e-3)


def test_later_rounds_are_those_that_a_training_takes() -> None:
    """The private cart model chooses what round 2 sums from the sum of round 1."""
    from coterie.experiment.fitting import Bench, public_of

    model, plan = registry.build({"name": "cart"}), Plan(epsilon=8.0, simulated_noise=True)
    (_, bounds), log = foreseen_rounds(model, plan, FEW), made_up(FEW, 0)
    made, ran = FitData.of(log, catalogue=Catalogue.listed(log.texts)), []
    bench = Bench(made, plan, 1, 10**6, 0, own_catalogues=False, public=public_of(model, made))
    bench.federated(model, after=lambda bound, _, __: ran.append(bound))
    assert [[part.name for part in bound.spec.parts] for bound in bounds] == [
        [part.name for part in bound.spec.parts] for bound in ran
    ]
    assert bounds[0].spec == ran[0].spec
    assert bounds[1].spec.parts[0].size == pytest.approx(ran[1].spec.parts[0].size, rel=0.2)


def test_who_adds_noise_and_how_much_of_it_is_counted_on() -> None:
    content = foreseen(build({"plan": {"epsilon": 4.0, "max_colluding": 2}, "model": {"name": "popularity"}}, "test"))
    noise, counts = content["noise"], content["rounds"][0]["parts"][0]
    assert (noise["noise"], noise["adders"], noise["honest"]) == ("distributed", 4, 2)
    assert noise["excess"] == pytest.approx(math.sqrt(2))
    assert counts["noise_std"] == pytest.approx(counts["noise_std_counted_on"] * math.sqrt(2))
    total, share = content["cost"]["noise_multiplier"], 0.9 / 1.0
    assert counts["noise_std_counted_on"] == pytest.approx(total / math.sqrt(share) * counts["l2"], rel=0.1)


@pytest.mark.parametrize(
    ("plan", "people", "adders", "honest"),
    [
        ({"noise": "central"}, FEW, 1, 1),
        ({"noise": "local", "neighbours": "replace-one"}, replace(FEW, clients=0), 300, 1),
        ({"sampler": "poisson", "sampling_rate": 0.5, "min_clients": 60}, replace(FEW, clients=0), 150, 59),
    ],
)
def test_shares_of_noise(plan: dict[str, Any], people: People, adders: int, honest: int) -> None:
    asked_for = Plan(noise_multiplier=2.0, **plan)
    _, bounds = foreseen_rounds(registry.build({"name": "popularity"}), asked_for, people)
    facts = noise_facts(asked_for, bounds[0], people)
    assert (facts["adders"], facts["honest"]) == (adders, honest)


def test_a_plan_that_training_would_refuse_is_refused() -> None:
    with pytest.raises(PlanError, match="fewer than min_clients"):
        foreseen(asked(epsilon=4.0), People(users=300, clients=2, items=40))
    with pytest.raises(PlanError, match="max_users"):
        foreseen(asked(epsilon=4.0, max_users=200))
    with pytest.raises(ConfigError, match="metrics_share"):
        foreseen(build({"plan": {"epsilon": 4.0}, "model": {"name": "cart", "tune": True}}, "test"))


def test_metrics_that_are_paid_for_leave_less_for_the_training() -> None:
    whole = foreseen(asked(epsilon=4.0))
    part = foreseen(build({"plan": {"epsilon": 4.0}, "evaluation": {"metrics_share": 0.2}}, "test"))
    assert part["metrics"] == {"share": 0.2, "releases": 1}
    assert part["cost"]["releases"] == whole["cost"]["releases"] + 1
    assert part["cost"]["epsilon_of_releases"] == pytest.approx(4.0, rel=1e-3)
    for old, new in zip(whole["rounds"], part["rounds"], strict=True):
        grown = new["event"]["noise_multiplier"] / old["event"]["noise_multiplier"]
        assert grown == pytest.approx(math.sqrt(1 / 0.8), rel=1e-6)


def test_without_noise_nothing_is_spent_and_nothing_is_noisy() -> None:
    content = foreseen(asked())
    assert not content["private"]
    assert content["cost"] is content["year"] is content["account"] is None
    assert {part["noise_std"] for one in content["rounds"] for part in one["parts"]} == {0.0}


# --- words -----------------------------------------------------------------------------------------------------------


def test_what_noise_means() -> None:
    counts = PartSpec("counts", (40,), "dense", 4.0, 4.0, 1)
    assert "±5" in meaning(counts, 40, 5.0)
    assert "fewer than about 15 times" in meaning(counts, 40, 5.0)
    assert "fewer than about 150 times" in meaning(counts, 40, 5.0, rate=0.1)
    assert "n > 16 items" in meaning(counts, 40, 5.0)
    assert "each of its 40 numbers" in meaning(replace(counts, name="delta"), 40, 5.0)
    small = PartSpec("gram", (8, 8), "triangle", 1.0, 1.0, 1)
    assert "go together" not in meaning(small, 40, 5.0)
    assert "go together" in meaning(replace(small, shape=(40, 40)), 40, 5.0)
    assert meaning(counts, 40, 0.0).endswith("exact")


def test_three_figures() -> None:
    numbers = (1234.5, 0.012345, 15.0, 3.14159, 0.0, 999.7, 1e-9)
    assert [short(number) for number in numbers] == ["1,230", "0.0123", "15", "3.14", "0", "1,000", "0.000000001"]


def test_every_field_says_where_its_value_is_from() -> None:
    settings = build({"plan": {"epsilon": 4.0, "adjacency": "replace-one", "max_users": 5000}}, "test")
    facts = foreseen(settings)["plan"]
    assert list(facts) == list(Plan(epsilon=4.0).as_dict())
    origin = {name: fact["from"] for name, fact in facts.items()}
    assert {name for name, one in origin.items() if one == "asked"} == {"epsilon", "neighbours", "max_users"}
    assert origin["delta"] == origin["noise_multiplier"] == origin["aggregation"] == "follows"
    assert origin["sampler"] == origin["clip_norm"] == "default"
    assert facts["delta"]["value"] == pytest.approx(0.1 / 5000)


def test_epsilon_may_follow_from_the_noise() -> None:
    _, bounds = foreseen_rounds(registry.build({"name": "popularity"}), Plan(noise_multiplier=2.0), FEW)
    settings = asked(noise_multiplier=2.0)
    facts = plan_facts(settings.plan, Plan(noise_multiplier=2.0), bounds[0], 1)
    assert (facts["epsilon"]["from"], facts["noise_multiplier"]["from"]) == ("follows", "asked")
    assert facts["epsilon"]["value"] == pytest.approx(accountant.epsilon([Event(2.0)], DELTA), rel=1e-3)


# --- a year ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("epsilon", "runs"), [(0.5, 4), (1.0, 1), (1.0, 12), (4.0, 52)])
def test_a_year_composes_and_keeps_to_its_total(epsilon: float, runs: int) -> None:
    plan = Plan(epsilon=epsilon)
    year = year_facts(plan, plan.events((0.3, 0.7)), runs, DELTA)
    exact = accountant.epsilon([Event(plan.total_multiplier((1.0,)), count=runs)], DELTA)
    assert exact * (1 - 1e-6) <= year["epsilon"] <= exact * 1.1
    assert year["naive_sum"] == pytest.approx(runs * epsilon, rel=1e-3)
    assert year["epsilon"] <= year["naive_sum"] * (1 + 1e-9)
    kept = year["epsilon_per_run"]
    year_of = [replace(event, count=runs) for event in plan.but(epsilon=kept).events((0.3, 0.7))]
    assert composed(year_of, DELTA) <= epsilon
    much = accountant.noise_multiplier(1.15 * kept, DELTA)
    assert accountant.epsilon([Event(much, count=runs)], DELTA) > epsilon


def test_the_coordinator_learns_more_where_users_are_drawn() -> None:
    plan = Plan(noise_multiplier=2.0, sampler="poisson", sampling_rate=0.5)
    cost = cost_facts(plan, plan.events((1.0,)))
    assert cost["epsilon_of_releases"] == pytest.approx(plan.epsilon, rel=1e-3)
    assert cost["epsilon_towards_coordinator"] == pytest.approx(accountant.epsilon([Event(2.0)], DELTA), rel=1e-3)
    assert cost["epsilon_towards_coordinator"] > 1.2 * cost["epsilon_of_releases"]


# --- the account -----------------------------------------------------------------------------------------------------


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.open(tmp_path / "ledger.sqlite")


def charges(plan: Plan, run: str) -> list[Charge]:
    events = plan.events((0.5, 0.5))
    return [Charge(run, "training", at, 0, (event,), DELTA) for at, event in enumerate(events)]


def test_an_account_that_does_not_exist_takes_anything(ledger: Ledger) -> None:
    plan = Plan(epsilon=4.0)
    for one in (None, ledger):
        facts = account_facts(plan, plan.events((1.0,)), "shop", one)
        assert (facts["exists"], facts["accepted"], facts["delta"]) == (False, True, pytest.approx(DELTA))
    assert ledger.statements() == ()


@pytest.mark.parametrize("limits", [{"epsilon": 3.0}, {"period_epsilon": 3.0, "period_days": 30.0}, {}])
def test_the_verdict_is_that_of_the_ledger(ledger: Ledger, limits: dict[str, float]) -> None:
    plan = Plan(epsilon=1.0)
    ledger.limit("shop", delta=DELTA, **limits)
    said = account_facts(plan, plan.events((0.5, 0.5)), "shop", ledger)
    assert said["accepted"]
    if not limits:
        assert said["runs_left"] is None
        return
    for run in range(said["runs_left"]):
        assert account_facts(plan, plan.events((0.5, 0.5)), "shop", ledger)["accepted"]
        for receipt in ledger.reserve_all("shop", charges(plan, f"run{run}")):
            ledger.spend(receipt)
    before = len(ledger.charges("shop"))
    facts = account_facts(plan, plan.events((0.5, 0.5)), "shop", ledger)
    assert (facts["accepted"], facts["runs_left"]) == (False, 0)
    assert "over the limit of 3" in facts["why"]
    assert len(ledger.charges("shop")) == before
    with pytest.raises(BudgetExceeded):
        ledger.reserve_all("shop", charges(plan, "one more"))


def test_other_neighbours_do_not_compose(ledger: Ledger) -> None:
    ledger.reserve_all(ledger.account("shop", DELTA), charges(Plan(epsilon=1.0), "first"))
    other = Plan(epsilon=1.0, neighbours="replace-one")
    facts = account_facts(other, other.events((1.0,)), "shop", ledger)
    assert not facts["accepted"]
    assert "neighbours" in facts["why"]


# --- the simulation --------------------------------------------------------------------------------------------------


def rung(users: int, low: float | None) -> dict[str, Any]:
    return {"users": users, "per_client": users // 4, "low": low}


@pytest.mark.parametrize(
    ("lows", "start", "words"),
    [
        ((-1, -1, 1, 1), 400, "joining pays from about 400 customers (100 a client)"),
        ((1, 1, 1, 1), 100, "joining pays already with 100 customers (25 a client)"),
        ((1, 1, 0, -1), 100, "up to about 200; with more it does not show reliably"),
        ((1, -1, 1, -1), None, "within the simulated range (100 to 800 customers) it does not show that joining pays"),
        ((-1, None, 1, 1), 400, "from about 400"),
        ((None, None, None, None), None, "no size"),
    ],
)
def test_from_how_many_customers(lows: tuple[float | None, ...], start: int | None, words: str) -> None:
    rungs = [rung(100 * 2**at, low) for at, low in enumerate(lows)]
    found, sentence = simulation.joining(rungs, FEW, private=True)
    assert found == start
    assert words in sentence


def test_devices_are_set_against_popularity() -> None:
    people = replace(FEW, clients=0)
    _, sentence = simulation.joining([rung(100, 1.0), rung(200, 1.0)], people, private=True)
    assert "private federation beats popularity" in sentence
    assert "a client" not in sentence


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A ladder of two rungs, and an installation of its own."""
    monkeypatch.setattr(simulation, "LADDER", (120, 160))
    monkeypatch.setattr(simulation, "MOST_USERS", 160)
    monkeypatch.setattr(simulation, "RESAMPLES", 100)
    monkeypatch.setenv("COTERIE_HOME", str(tmp_path))
    return tmp_path


def test_a_simulation_compares_with_and_without_noise_and_charges_nobody(small: Path) -> None:
    steps = list[str]()
    content = foreseen(
        asked(epsilon=4.0),
        People(users=2_000, clients=4, items=40),
        simulated=True,
        notify=lambda _, told: steps.append(told["text"]),
    )
    found = content["simulation"]
    schemes = {"alone", "mix", "federated", "popularity", "private_mix", "private_federated", "private_popularity"}
    assert set(found["schemes"]) == schemes
    assert found["schemes"]["private_federated"]["value"] < found["schemes"]["federated"]["value"]
    assert found["schemes"]["private_popularity"]["value"] != found["schemes"]["popularity"]["value"]
    assert (found["synthetic"], found["seed"], found["users"], found["clients"]) == (True, 0, 160, 4)
    assert "160 of 2,000 users" in found["capped"][0]
    assert [one["users"] for one in found["ladder"]] == [120, 160]
    served, alone = (found["schemes"][name]["value"] for name in ("private_mix", "alone"))
    assert found["gain"]["private_served"]["gain"] == pytest.approx(served - alone)
    assert found["ladder"][1]["gain"] == found["gain"]["private_served"]["gain"]
    assert not list(small.rglob("*.sqlite"))
    assert steps[0].startswith("simulating 160")


def test_a_simulation_is_the_same_twice(small: Path) -> None:
    model, plan = registry.build({"name": "popularity"}), Plan(epsilon=1.0, aggregation="plain", noise="central")
    people = People(users=120, clients=0, items=40)
    first, again, other = (simulation.simulate(model, plan, people, seed) for seed in (0, 0, 1))
    assert first["schemes"] == again["schemes"]
    assert first["schemes"] != other["schemes"]


def test_no_time_is_left(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulation, "PATIENCE", -1.0)
    model = registry.build({"name": "popularity"})
    found = simulation.simulate(model, Plan(), People(users=160, clients=4, items=40))
    assert [one["users"] for one in found["ladder"]] == [160]
    assert found["capped"] == ["no time was left for 120 customers"]


def test_a_plan_for_more_clients_than_are_simulated_still_is_simulated(small: Path) -> None:
    plan = Plan(epsilon=4.0, min_clients=150, threshold=140, max_users=1000, aggregation="secure", noise="central")
    model, people = registry.build({"name": "popularity"}), People(users=160, clients=0, items=40)
    found = simulation.simulate(model, plan, people)
    assert [one["refused"] for one in found["ladder"]] == [None, None]
    assert found["sentence"].startswith("'popularity' asks nothing")


def test_a_rung_that_the_plan_refuses_says_so(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest rung draws about five devices a round, too few to be sure of honest ones."""
    monkeypatch.setattr(simulation, "LADDER", (120, 900))
    monkeypatch.setattr(simulation, "MOST_USERS", 900)
    plan = Plan(noise_multiplier=2.0, sampler="poisson", sampling_rate=0.05, max_colluding=2, max_users=1000)
    found = simulation.simulate(registry.build({"name": "popularity"}), plan, People(users=900, clients=0, items=40))
    assert [one["refused"] is None for one in found["ladder"]] == [False, True]


def test_too_few_users_for_a_simulation() -> None:
    with pytest.raises(ConfigError, match="at least 100 users"):
        foreseen(asked(epsilon=4.0), People(users=60, clients=4, items=40), simulated=True)
