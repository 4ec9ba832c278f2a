"""The round loop: it goes on until the summand is done, from wherever it is started, and asks nobody in vain."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from coterie.engines.local import LocalEngine
from coterie.errors import PlanError
from coterie.federation.checkpoint import Checkpoints, load_state, save_state
from coterie.federation.loop import pinned, run_rounds
from coterie.privacy.plan import BoundRound, Plan
from coterie.testing.logs import population_of, zipf_log
from coterie.types import RoundSpec, State, Total
from tests.contracts.rounds import Counting, PowerIteration, Witness

N_ITEMS = 8
USERS = zipf_log(40, N_ITEMS)
CLIENTS = [USERS[:10], USERS[10:11], USERS[11:]]


def engine(block: int = 10**6) -> LocalEngine:
    return LocalEngine(population_of(CLIENTS, N_ITEMS), threads=1, block=block)


def test_rounds_come_to_the_right_end() -> None:
    summand = PowerIteration(N_ITEMS, rounds=30)
    state = run_rounds(summand, summand.start(), engine(), Plan())
    rows = np.zeros((len(USERS), N_ITEMS))
    for u, user in enumerate(USERS):
        rows[u, sorted({i for basket in user for i in basket})] = 1.0
    largest = np.linalg.eigh(rows.T @ rows)
    assert state.round == 30
    np.testing.assert_allclose(state["v"], np.abs(largest.eigenvectors[:, -1]), atol=1e-3)
    assert state["energy"][-1] == pytest.approx(largest.eigenvalues[-1] / len(USERS), rel=1e-3)


def test_every_round_is_announced_with_its_spec_its_total_and_its_state() -> None:
    told: list[tuple[int, int, int]] = []

    def after(bound: BoundRound, total: Total, state: State) -> None:
        told.append((bound.spec.index, total.finishers, state.round))

    summand = PowerIteration(N_ITEMS, rounds=3)
    run_rounds(summand, summand.start(), engine(), Plan(), after)
    assert told == [(0, 3, 1), (1, 3, 2), (2, 3, 3)]


def test_a_finished_state_asks_nobody() -> None:
    asked = Counting(users=1, clients=1)
    state = State(5)
    assert run_rounds(PowerIteration(N_ITEMS), state, asked, Plan()) is state
    assert asked.asked == 0


def test_resuming_from_every_checkpoint_gives_equal_bytes(tmp_path: Path) -> None:
    summand = PowerIteration(N_ITEMS)

    def keep(bound: BoundRound, total: Total, state: State) -> None:
        Checkpoints(tmp_path / str(state.round)).save("final", state)

    done = run_rounds(summand, summand.start(), engine(), Plan(), keep)
    save_state(tmp_path / "model", done)
    expected = (tmp_path / "model").read_bytes()
    for finished in range(1, summand.rounds + 1):
        start = Checkpoints(tmp_path / str(finished)).load("final")
        assert start is not None
        assert start.round == finished
        save_state(tmp_path / "again", run_rounds(summand, start, engine(block=3), Plan()))
        assert (tmp_path / "again").read_bytes() == expected
    assert load_state(tmp_path / "model").round == summand.rounds


@pytest.mark.parametrize(
    ("plan", "users", "message"),
    [
        (Plan(min_clients=3), 10, "2 clients take part"),
        (Plan(ring_bits=32), 10**9, "more than a 32-bit ring holds"),
    ],
)
def test_a_refused_round_asks_nobody(plan: Plan, users: int, message: str) -> None:
    asked = Counting(users=users, clients=2)
    summand = PowerIteration(N_ITEMS)
    with pytest.raises(PlanError, match=message):
        run_rounds(summand, summand.start(), asked, plan)
    assert asked.asked == 0


def test_what_is_applied_has_the_bounds_of_the_plan() -> None:
    seen: list[Total] = []
    witness = Witness(3)
    local = LocalEngine(population_of([[[[0]]], [[[1, 2]]]], 3), threads=1)
    run_rounds(witness, State(0), local, Plan(clip_norm=0.5), lambda spec, total, state: seen.append(total))
    part = seen[0].spec.part("counts")
    assert (part.l2, part.linf, part.scale) == (0.5, 0.5, 1 << 20)
    assert seen[0].noise_std == {"counts": 0.0}


def test_algebra_is_pinned_to_one_thread_and_released_again() -> None:
    _ = np.eye(2) @ np.eye(2)

    def threads() -> list[int]:
        return [pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"]

    before = threads()
    with pinned():
        assert set(threads()) == {1}
    assert threads() == before


def test_apply_runs_pinned() -> None:
    class Nosy(Witness):
        def apply(self, spec: RoundSpec, state: State, total: Total) -> State:
            assert {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"} == {1}
            return super().apply(spec, state, total)

    state = run_rounds(Nosy(2), State(0), LocalEngine(population_of([[[[0]]]], 2), threads=1), Plan())
    assert state["counts"].tolist() == [1, 0]


@pytest.mark.parametrize("most", [0, 1, 3, 99])
def test_no_more_rounds_than_asked_for(most: int) -> None:
    summand = PowerIteration(8)
    engine = LocalEngine(population_of([zipf_log(20, 8)], 8))
    assert run_rounds(summand, summand.start(), engine, Plan(), rounds=most).round == min(most, summand.rounds)


def test_whoever_looks_on_may_stop_the_training() -> None:
    summand = PowerIteration(8)
    engine = LocalEngine(population_of([zipf_log(20, 8)], 8))
    state = run_rounds(summand, summand.start(), engine, Plan(), lambda spec, total, state: state.round == 2)
    assert state.round == 2
