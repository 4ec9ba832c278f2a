"""Nothing leaves before it is paid for; an attempt that failed before gives its reservation back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pytest

from coterie.engines.local import LocalEngine
from coterie.errors import BudgetExceeded, PlanError
from coterie.federation.loop import run_rounds
from coterie.federation.release import Exit, disclose, release
from coterie.privacy.events import Event
from coterie.privacy.plan import BoundRound, Plan
from coterie.testing.logs import population_of, zipf_log
from coterie.types import State, Total
from tests.contracts.rounds import PowerIteration, Witness

LOG = zipf_log(40, 8)
SILOS = [LOG[:15], LOG[15:30], LOG[30:]]


@dataclass
class Notebook:
    """Books that write down what happens, in order; `funds` rounds can be paid for."""

    funds: int = 99
    lines: list[str] = field(default_factory=list)

    def prepare(self, what: str, events: Mapping[int, Event]) -> None:
        self.lines.append(f"prepare {list(events)}")
        if len(events) > self.funds:
            raise BudgetExceeded("spent")

    def reserve(self, what: str, round: int, event: Event) -> Slip:
        self.lines.append(f"reserve {round}")
        return Slip(self, round)

    def settle(self, what: str) -> None:
        self.lines.append("settle")


@dataclass
class Slip:
    book: Notebook
    round: int

    def spend(self) -> None:
        self.book.lines.append(f"spend {self.round}")

    def give_back(self, reason: str) -> None:
        self.book.lines.append(f"give back {self.round}: {reason}")


class Noting(LocalEngine):
    """An engine that notes when clients work."""

    book: Notebook
    fails: bool = False

    def collect(self, summand: object, bound: BoundRound, state: State, leave: object = None) -> Total:
        self.book.lines.append(f"work {bound.spec.index}")
        if self.fails:
            raise RuntimeError("died")
        return super().collect(summand, bound, state, leave)  # type: ignore[arg-type]


def engine(book: Notebook, *, fails: bool = False) -> Noting:
    made = Noting(population_of(SILOS, 8), threads=1)
    made.book, made.fails = book, fails
    return made


PLAN = Plan(epsilon=4.0, delta=1e-5, noise="central", aggregation="plain")


def test_every_round_is_set_aside_first_and_spent_before_its_sum_is_seen() -> None:
    book, summand = Notebook(), PowerIteration(8, rounds=2)
    way = Exit(book)

    def seen(bound: BoundRound, total: Total, state: State) -> None:
        book.lines.append(f"seen {bound.spec.index}")

    run_rounds(summand, summand.start(), engine(book), PLAN, seen, exit=way)
    assert book.lines == [
        "prepare [0, 1]",
        *("reserve 0", "work 0", "spend 0", "seen 0"),
        *("reserve 1", "work 1", "spend 1", "seen 1"),
        "settle",
    ]
    assert [event.noise_multiplier for event in way.events] == [
        event.noise_multiplier for event in PLAN.events((0.5, 0.5))
    ]
    assert all(one.charged for one in way.left)


def test_a_resumed_training_pays_for_the_rounds_that_are_left() -> None:
    book, summand = Notebook(), PowerIteration(8, rounds=3)
    half = run_rounds(summand, summand.start(), engine(Notebook()), PLAN, rounds=1)
    run_rounds(summand, half, engine(book), PLAN, exit=Exit(book))
    assert book.lines[0] == "prepare [1, 2]"


def test_a_training_that_cannot_be_paid_for_asks_nobody() -> None:
    book, summand = Notebook(funds=1), PowerIteration(8, rounds=2)
    with pytest.raises(BudgetExceeded):
        run_rounds(summand, summand.start(), engine(book), PLAN, exit=Exit(book))
    assert book.lines == ["prepare [0, 1]"]


def test_an_attempt_that_fails_before_anything_left_is_given_back() -> None:
    book, summand = Notebook(), PowerIteration(8, rounds=2)
    with pytest.raises(RuntimeError):
        run_rounds(summand, summand.start(), engine(book, fails=True), PLAN, exit=Exit(book))
    assert book.lines == ["prepare [0, 1]", "reserve 0", "work 0", "give back 0: RuntimeError", "settle"]


def test_without_a_promise_nothing_is_charged() -> None:
    book = Notebook()
    way = Exit(book)
    run_rounds(Witness(8), State(0), engine(book), Plan(), exit=way)
    assert book.lines == ["work 0", "settle"]
    assert [one.charged for one in way.left] == [False]


def test_an_unpaid_sum_stays_where_it_is() -> None:
    way = Exit(Notebook())
    door = way.open("training", 0, PLAN.events((1.0,))[0])
    with pytest.raises(PlanError, match="not paid for"):
        release(np.zeros(1), door)
    assert way.left == []


def test_what_epsilon_does_not_cover_is_written_down_as_such() -> None:
    way = Exit()
    assert disclose(7, "raw metrics", way, "a simulation") == 7
    assert [(one.what, one.charged, one.why) for one in way.left] == [("raw metrics", False, "a simulation")]
