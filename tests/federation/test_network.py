"""Rounds over a network in one process: the same bytes as the local engine, in as few exchanges as were promised."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from coterie.engines.local import LocalEngine
from coterie.federation.checkpoint import state_digest
from coterie.federation.egresscheck import read
from coterie.federation.loop import run_rounds
from coterie.federation.network import ROUND, NetworkEngine
from coterie.federation.node_rounds import Sum
from coterie.ring import Accumulator
from coterie.testing.logs import population_of, zipf_log
from coterie.types import LocalStore, PartSpec, RoundSpec, State, Total, UserBlock
from tests.federation.auditor import audit, messages_of, watch
from tests.federation.loopback import Federation
from tests.federation.tinydesk import ITEMS
from tests.ledgers import quick_folder

LOGS = [zipf_log(8, len(ITEMS), seed) for seed in range(4)]
MODELS: dict[str, dict[str, Any]] = {
    "ease": {"name": "ease"},
    "ials": {"name": "ials", "factors": 4, "iterations": 3},
    "mf": {"name": "mf", "factors": 4, "rounds": 4},
    "cart": {"name": "cart"},
    "sequence": {"name": "sequence"},
}


@pytest.fixture
def folder() -> Iterator[Path]:
    with quick_folder() as made:
        yield made


@pytest.mark.parametrize("name", MODELS)
def test_a_model_has_the_same_bytes_as_the_local_engines(folder: Path, name: str) -> None:
    federation = Federation.of(folder, LOGS)
    seen = watch(federation)
    job = federation.job(model=MODELS[name], seed=3)
    run = federation.conduct(job)
    expected = run_rounds(*opening_of(federation), LocalEngine(population_of(LOGS, len(ITEMS))), job.whole_plan)
    assert state_digest(run.state) == state_digest(expected)
    assert run.state.round == len(seen) == expected.round > 0
    assert job.whole_plan.masks == "real"
    audit(federation)


def test_it_does_so_without_members_who_are_not_there(folder: Path) -> None:
    federation = Federation.of(folder, LOGS)
    watch(federation)
    federation.transport.down.add("m2")
    job = federation.job(model=MODELS["ials"], seed=3)
    state = federation.conduct(job).state
    others = population_of([log for at, log in enumerate(LOGS) if at != 2], len(ITEMS))
    expected = run_rounds(*opening_of(federation), LocalEngine(others), job.whole_plan)
    assert state_digest(state) == state_digest(expected)
    audit(federation)


def rounds_of(federation: Federation) -> list[tuple[str, ...]]:
    """The steps of each exchange of rounds, as one member that was there from the beginning saw them."""
    asked = [asked for _, asked, _ in messages_of(federation, "m0") if asked.kind == ROUND]
    return [tuple(f"{task['step']} {task['round']}" for task in one.header["tasks"]) for one in asked]


def test_a_warm_round_takes_three_exchanges(folder: Path) -> None:
    federation = Federation.of(folder, LOGS)
    federation.conduct(federation.job(model=MODELS["ials"]))
    assert rounds_of(federation) == [
        ("keys 0",),
        ("shares 0",),
        ("sum 0",),
        ("survivors 0", "keys 1"),
        ("signatures 0", "shares 1"),
        ("sum 1",),
        ("survivors 1", "keys 2"),
        ("signatures 1", "shares 2"),
        ("sum 2",),
        ("survivors 2",),
        ("signatures 2",),
    ]


def test_it_does_so_while_a_member_of_the_roster_is_away(folder: Path) -> None:
    federation = Federation.of(folder, LOGS)
    federation.transport.down.add("m3")
    federation.conduct(federation.job(model=MODELS["ials"]))
    assert len(rounds_of(federation)) == 3 * 3 + 2


def test_a_member_of_the_release_before_works_with_the_others(folder: Path) -> None:
    """Messages of two rounds share no exchange then, and the model is the same."""
    states = []
    for versions in ((1, 2), (1,)):
        (folder / str(versions)).mkdir()
        federation = Federation.of(folder / str(versions), LOGS)
        federation.sites["m1"].versions = versions
        federation.sites["m1"].restart()
        states.append(state_digest(federation.conduct(federation.job(model=MODELS["ials"])).state))
        spoken = {name: asked.version for name, asked, _ in messages_of(federation) if asked.kind == ROUND}
        assert spoken == {"m0": 2, "m1": versions[-1], "m2": 2, "m3": 2}
        assert len(rounds_of(federation)) == (3 * 3 + 2 if versions == (1, 2) else 3 * 5)
        audit(federation)
    assert states[0] == states[1]


def test_a_member_that_speaks_no_version_of_ours_is_told_so(folder: Path) -> None:
    federation = Federation.of(folder, LOGS)
    federation.sites["m1"].versions = (7,)
    federation.sites["m1"].restart()
    federation.conduct(federation.job())
    assert "m1: refuses the job: it speaks versions [7] of the protocol alone" in str(federation.progress.snapshot())


class Zeros:
    """A summand of one round in which nobody has anything: what the sum shows is its noise."""

    name = "zeros"

    def __init__(self, size: int) -> None:
        self.size = size

    def next_round(self, state: State) -> RoundSpec | None:
        parts = (PartSpec("zeros", (self.size,), "dense", 1.0, 1.0, 1),)
        return None if state.round else RoundSpec(0, "user_sum", parts)

    def budget(self, state: State) -> tuple[float, ...]:
        return (1.0,)

    def contribute(
        self, spec: RoundSpec, state: State, users: UserBlock, local: LocalStore | None, out: Accumulator
    ) -> None:
        """Nothing."""

    def apply(self, spec: RoundSpec, state: State, total: Total) -> State:
        return state.updated(1, zeros=total.value("zeros"))


def test_the_noise_of_a_sum_is_the_planned_one(folder: Path) -> None:
    """Over a million zeros: each member adds its share, and together they have the variance that was promised."""
    federation, zeros = Federation.of(folder, LOGS[:3]), Zeros(10**6)
    job = federation.job(plan={"epsilon": 2.0, "max_users": 1000})
    federation.conduct(job)
    start, plan = State(0), job.whole_plan
    for site in federation.sites.values():
        # Another sum of the same job: what the coordinator's job has at members is taken up where it was.
        taken = site.node._taken("job.0")
        books = site._books("job.0", plan, "zeros")
        taken.rounds.sums["zeros"] = Sum(zeros, plan, state_digest(start), taken.work, books)
    engine = NetworkEngine(federation.talk(job), job, plan, federation.journal, "zeros")
    engine.talk.versions |= dict.fromkeys(job.members, 2)
    bound = plan.bind(zeros.next_round(start), plan.max_users, len(job.members))
    total = engine.collect(zeros, bound, start)
    noise = total.integers["zeros"].astype(np.float64)
    planned = 3 * bound.variance["zeros"]
    assert total.finishers == 3
    assert total.noise_std["zeros"] * bound.spec.parts[0].scale == pytest.approx(np.sqrt(planned))
    # The variance of a variance over n values is 2 / n of its square: five standard deviations of that.
    assert noise.var() == pytest.approx(planned, rel=5 * np.sqrt(2 / noise.size))
    assert abs(noise.mean()) < 5 * np.sqrt(planned / noise.size)
    # Three shares, of which one may be known: the noise of the two others is what the promise counts on.
    scale, multiplier = bound.spec.parts[0].scale, plan.total_multiplier((1.0,))
    assert np.sqrt(2 * bound.variance["zeros"]) / scale == pytest.approx(multiplier, rel=1e-3)
    audit(federation)


def test_what_is_summed_in_the_clear_is_so_where_everybody_allows_it(folder: Path) -> None:
    federation = Federation.of(folder, LOGS, aggregation="plain", min_clients=2, two_party="consent")
    seen = watch(federation)
    job = federation.job(plan={"aggregation": "plain", "min_clients": 3}, model=MODELS["ials"], seed=3)
    state = federation.conduct(job).state
    expected = run_rounds(*opening_of(federation), LocalEngine(population_of(LOGS, len(ITEMS))), job.whole_plan)
    assert state_digest(state) == state_digest(expected)
    assert rounds_of(federation) == [("plain 0",), ("plain 1",), ("plain 2",)]
    assert [one.members for one in seen] == [("m0", "m1", "m2", "m3")] * 3
    assert {line.masked for line in read(federation.sites["m0"].egress.path)} == {False}


def test_what_members_report_of_the_models_worth_leaves_as_charged_sums_alone(folder: Path) -> None:
    federation = Federation.of(folder, LOGS)
    seen = watch(federation)
    plan = {"epsilon": 4.0, "max_users": 1000}
    run = federation.conduct(federation.job(plan=plan, evaluate=True, metrics_share=0.2))
    assert [one.what for one in seen] == ["model", "metrics", "comparison"]
    assert run.result["gains"] is not None
    audit(federation)
    for site in federation.sites.values():
        assert [row["job"] for row in site.ledger.charges()] == ["model", "metrics", "comparison"]
        assert site.ledger.statement("default").spent == pytest.approx(4.0, rel=0.02)


def opening_of(federation: Federation) -> tuple[Any, State]:
    """Model and first state of the last job, as a member's desk was told them."""
    facts = federation.sites["m0"].desk.works[-1].facts
    return facts.build(), facts.opening()
