"""Faults of a federation of real processes: killed, stopped, cut off, garbled, lied to, out of disk, by a seed.

COTERIE_SCENARIOS says how many (`make faults`: SCENARIOS, 10); without it there is one, to see that it works. Whatever
is done to it, a job ends done or cleanly aborted, its model is that of exactly the logs that are said to be in it, no
node's budget is overspent, and nothing has left a node that its policy forbids.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec

import pytest

from tests.faults.aftermath import check_model, check_node
from tests.faults.lies import TOLD
from tests.faults.organisations import OVER, Daemon, Organisations, until

COUNT = int(os.environ.get("COTERIE_SCENARIOS", "1"))
NAMES = ("east", "north", "south", "west")[: 4 if COUNT > 1 else 3]  # a fourth, so that one may be missing
ENDS = 150.0  # seconds: a job that takes longer hangs
PHASES = (
    "offering the job",
    "agreeing on items",
    "preparing",
    "exchanging keys",
    "sharing secrets",
    "summing",
    "agreeing on who is in the sum",
    "unmasking the sum",
    "delivering the model",
)
KINDS = [
    ("kill", "pump"),
    ("lie", "model"),
    ("stop", "superlink"),
    ("kill", "node"),
    ("cut", "node"),
    ("kill", "coordinator"),
    ("lie", "survivors"),
    ("kill", "executor"),
    ("full", "node"),
    ("garble", "node"),
    ("kill", "superlink"),
    ("kill", "two nodes"),
    *(("lie", about) for about in TOLD if about not in ("model", "survivors")),
    ("kill", "superexec"),
    ("kill", "supernode"),
    ("cut", "everybody"),
    ("full", "coordinator"),
    *(("stop", whom) for whom in ("node", "coordinator", "executor", "supernode", "superexec", "pump")),
]
JOB = """
[jobs.{name}]
evaluate = false
phase_seconds = 8
patience_seconds = 60
attempts = 8
[jobs.{name}.plan]
{plan}
"""
PLANS = ('aggregation = "secure"', "epsilon = 0.4\nmax_users = 1000\nmin_clients = 3")


@dataclass(frozen=True)
class Scenario:
    """One job, and what happens to whom while it is done."""

    number: int

    @property
    def job(self) -> str:
        return f"job-{self.number}"

    @property
    def kind(self) -> tuple[str, str]:
        return KINDS[self.number % len(KINDS)]

    @property
    def private(self) -> bool:
        return self.number % 3 == 1 and self.kind[0] != "lie"

    def table(self) -> str:
        return JOB.format(name=self.job, plan=PLANS[self.private])


SCENARIOS = [Scenario(number) for number in range(COUNT)]


@pytest.fixture(scope="module")
def organisations(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Organisations]:
    if find_spec("flwr") is None or find_spec("pyrage") is None:
        if os.environ.get("COTERIE_REQUIRE_SERVICES"):
            pytest.fail("flwr and pyrage are not installed")
        pytest.skip("flwr and pyrage are not installed")
    folder = tmp_path_factory.mktemp("organisations")
    made = Organisations.found(folder, NAMES, "".join(one.table() for one in SCENARIOS))
    with made.running():
        yield made


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: f"{one.number}-{'-'.join(one.kind)}".replace(" ", "-"))
def test_a_job_ends_well(organisations: Organisations, scenario: Scenario) -> None:
    organisations.whole()
    draw = random.Random(scenario.number)
    victims = draw.sample(NAMES, 2)
    with told(organisations, scenario, victims[0]):
        organisations.ask(scenario.job)
        if scenario.kind[0] != "lie":
            moment(organisations, scenario, draw)
            inflict(organisations, scenario, victims, draw)
        record = until(lambda: over(organisations, scenario.job), ENDS, f"the end of {scenario.job}")
    assert record.state == "done" or record.reason
    if scenario.kind[0] == "lie":
        assert TOLD[scenario.kind[1]] in str(organisations.hub.status()["progress"]["events"])
    if record.state == "done" and not scenario.private:
        check_model(organisations, record)
    for node in organisations.nodes.values():
        check_node(node.folder, record.id)


@pytest.mark.skipif(COUNT < 5, reason="so few jobs say nothing about most")
def test_most_jobs_are_done(organisations: Organisations) -> None:
    """A federation that gives up whenever something happens would pass the tests above."""
    states = [record.state for record in organisations.journal.all()]
    assert states.count("done") >= 0.7 * len(states)


def over(organisations: Organisations, job: str) -> object:
    """The job's record once it has ended; whoever has died on the way is started again, as systemd would."""
    for daemon in (organisations.hub, *organisations.nodes.values()):
        if not daemon.runs:
            daemon.start()
    record = organisations.record(job)
    return record if record is not None and record.state in OVER else None


def moment(organisations: Organisations, scenario: Scenario, draw: random.Random) -> None:
    """Wait for the moment that the seed has drawn: a phase of the job, and a little."""
    phase, late = draw.choice(PHASES), draw.uniform(0.0, 0.5)
    end = time.monotonic() + 60.0
    while time.monotonic() < end:
        record, now = organisations.record(scenario.job), organisations.hub.status().get("progress", {})
        if record is not None and (now.get("phase") == phase or record.state in OVER):
            break
        time.sleep(0.1)
    time.sleep(late)


@contextmanager
def told(organisations: Organisations, scenario: Scenario, victim: str) -> Iterator[None]:
    """The scenario's lie, if it is one, is told in the block."""
    path = organisations.hub.folder / "lie"
    if scenario.kind[0] == "lie":
        path.write_text(json.dumps({"lie": scenario.kind[1], "to": victim}))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def inflict(organisations: Organisations, scenario: Scenario, victims: list[str], draw: random.Random) -> None:
    """What happens, and its end."""
    how, whom = scenario.kind
    seconds = draw.uniform(0.5, 5.0)
    if how == "cut":
        off(organisations, victims[:1] if whom == "node" else list(NAMES), seconds)
    elif how == "full":
        fill(organisations.hub if whom == "coordinator" else organisations.nodes[victims[0]], seconds)
    elif how == "garble":
        organisations.relays[victims[0]].garbles = 3
    elif whom == "two nodes":
        for victim in victims:
            organisations.nodes[victim].kill()
        time.sleep(seconds)
    elif (pid := target(organisations, whom, victims[0])) is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL if how == "kill" else signal.SIGSTOP)
            time.sleep(seconds)
            os.kill(pid, signal.SIGCONT)


def target(organisations: Organisations, whom: str, victim: str) -> int | None:
    """The process that is meant; None where it does not run at the moment."""
    node = organisations.nodes[victim]
    find: dict[str, Callable[[], int | None]] = {
        "node": lambda: node.pid,
        "coordinator": lambda: organisations.hub.pid,
        "pump": organisations.pump,
        "executor": lambda: node.child("executor"),
        "supernode": lambda: node.child("supernode"),
    }
    return find.get(whom, lambda: organisations.hub.child(whom))()


def off(organisations: Organisations, names: list[str], seconds: float) -> None:
    """Nothing reaches these nodes for a while."""
    for name in names:
        organisations.relays[name].cut_off(True)
    time.sleep(seconds)
    for name in names:
        organisations.relays[name].cut_off(False)


def fill(daemon: Daemon, seconds: float) -> None:
    """Its disk is full for a while."""
    daemon.fill_disk(True)
    time.sleep(seconds)
    with suppress(ProcessLookupError):
        daemon.fill_disk(False)
