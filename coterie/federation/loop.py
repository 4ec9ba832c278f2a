"""The round loop: the same for every model, engine and plan."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol

from threadpoolctl import threadpool_limits

from coterie.federation.release import Door, Exit, Leave, nothing, release
from coterie.privacy.plan import BoundRound, Plan
from coterie.types import State, Summand, Total


class RoundEngine(Protocol):
    """What the loop needs of an engine: who would take part, and their sum."""

    @property
    def users(self) -> int:
        """Upper bound on the users behind one sum."""

    @property
    def clients(self) -> int:
        """Clients in the cohort."""

    @property
    def one_user_each(self) -> bool:
        """Whether every client is one person's device."""

    def collect(self, summand: Summand, bound: BoundRound, state: State, leave: Leave = nothing) -> Total:
        """Ask every client of the cohort for its contribution and return the sum, with the noise of the plan.

        `leave` is called once, before anything that was computed from a log is shown to anybody.
        """


AfterRound = Callable[[BoundRound, Total, State], bool | None]


def run_rounds(
    summand: Summand,
    state: State,
    engine: RoundEngine,
    plan: Plan,
    after_round: AfterRound | None = None,
    rounds: int | None = None,
    exit: Exit | None = None,
    what: str = "training",
) -> State:
    """Run rounds from `state` until the summand is done, or `rounds` of them have been applied in all.

    `after_round` is called with the round, its sum and each new state; where it returns True, the training stops early.

        new_state = summand.apply(state, sum over clients of summand.contribute(state, users of the client))

    Starting from a checkpointed state continues where it left off: what comes next is a function of the state alone.
    Every attempt at a round is charged by itself to the books of `exit`, as `what`: all rounds are set aside before any
    client works, each is spent before anything of it leaves, and what was not needed is given back.

    Raises:
        PlanError: a round that the plan refuses; nothing has been asked of any client then.
        BudgetExceeded: a round that the account cannot pay for; likewise.
    """
    way, shares = exit or Exit(), summand.budget(state) if plan.private else (1.0,)
    first, last = state.round, len(shares) if rounds is None else min(rounds, len(shares))
    way.prepare(what, dict(list(enumerate(plan.events(shares)))[first:last]) if plan.private else {})
    try:
        while (rounds is None or state.round < rounds) and (spec := summand.next_round(state)) is not None:
            bound = plan.bind(spec, engine.users, engine.clients, shares=shares, one_user_each=engine.one_user_each)
            total = _collected(summand, state, engine, bound, way.open(what, spec.index, bound.event))
            with pinned():
                state = summand.apply(total.spec, state, total)
            if after_round is not None and after_round(bound, total, state):
                break
    finally:
        way.settle(what)
    return state


def _collected(summand: Summand, state: State, engine: RoundEngine, bound: BoundRound, door: Door) -> Total:
    """One attempt at a round; what was reserved for one that fails before anything left is given back."""
    try:
        return release(engine.collect(summand, bound, state, door.spend), door)
    except BaseException as error:
        door.close(type(error).__name__)
        raise


@contextmanager
def pinned() -> Iterator[None]:
    """Linear algebra on one thread: equal input gives equal bytes, however many cores the machine has."""
    with threadpool_limits(limits=1, user_api="blas"):
        yield
