"""A federation of real processes, hurt in every way that a seed can think of while a job runs.

Every run ends completed or cleanly aborted; a completed one has the sum of exactly those who are said to be in it; what
left was charged, once for each vector; and every egress log is as it was written. `COTERIE_SCENARIOS` says how many.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import signal
import time
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

import polars as pl
import psutil
import pytest

from coterie.federation.checkpoint import load_state, state_digest
from coterie.federation.link import call
from coterie.models.ease import Ease
from coterie.testing.logs import trained, zipf_log
from tests.parties import Parties, command
from tests.relay import Relay

SCENARIOS = int(os.environ.get("COTERIE_SCENARIOS", "1"))
NAMES = ("north", "east", "south", "west")
ITEMS = 12
KINDS = {
    "exact": 'plan = {aggregation = "secure", min_clients = 3}',
    "noised": "plan = {epsilon = 0.5, max_users = 1000, min_clients = 3}",
}
JOBS = "".join(
    f"""
[jobs.{name}]
min_carriers = 1
min_nodes = 3
phase_seconds = 6
patience_seconds = 90
attempts = 8
evaluate = false
{plan}
model = {{name = "ease"}}
"""
    for name, plan in KINDS.items()
)
ALLOWED = {"accepted", "agree", "begun", "keys", "shares", "sum", "survivors", "signatures", "kept", "ended", "failed"}
BELOW_NODE, BELOW_HUB = (
    ("flower-supernode", "flower.executor"),
    ("flower.superlink", "flower-superexec", "flwr-serverapp"),
)
WAYS = (
    *("kill node", "kill hub", "kill below node", "kill below hub"),
    *("stop node", "stop below hub", "part", "garble", "full disk"),
)
LOGS = {name: zipf_log(12, ITEMS, seed) for seed, name in enumerate(NAMES)}


class Hurt:
    """What is done to a running federation, by a seed."""

    def __init__(self, parties: Parties, relays: dict[str, Relay], seed: int) -> None:
        self.parties, self.relays, self.draw = parties, relays, random.Random(seed)
        self.name = self.draw.choice(NAMES)
        self.what = self.draw.choice(WAYS)
        self.after, self.lasts = self.draw.uniform(0.0, 7.0), self.draw.uniform(1.0, 9.0)

    def __str__(self) -> str:
        return f"{self.what} ({self.name}) after {self.after:.1f} s for {self.lasts:.1f} s"

    def do(self) -> None:
        time.sleep(self.after)
        getattr(self, "_" + self.what.replace(" ", "_"))()

    def _kill_node(self) -> None:
        self._kill(self.name)
        time.sleep(self.lasts / 2)
        self.parties.node(self.name)

    def _kill_hub(self) -> None:
        self._kill("hub")
        time.sleep(self.lasts / 3)
        self.parties.start("hub", "coordinator", "start", str(self.parties.hub))

    def _kill_below_node(self) -> None:
        self._signal_below(self.name, BELOW_NODE, signal.SIGKILL)

    def _kill_below_hub(self) -> None:
        self._signal_below("hub", BELOW_HUB, signal.SIGKILL)

    def _stop_node(self) -> None:
        daemon = self.parties.daemons[self.name]
        os.kill(daemon.pid, signal.SIGSTOP)
        time.sleep(self.lasts)
        os.kill(daemon.pid, signal.SIGCONT)

    def _stop_below_hub(self) -> None:
        victim = self._signal_below("hub", BELOW_HUB, signal.SIGSTOP)
        time.sleep(self.lasts / 2)
        with contextlib.suppress(psutil.NoSuchProcess):
            if victim is not None:
                victim.resume()

    def _part(self) -> None:
        relay = self.relays[self.name]
        relay.blocked = True
        relay.cut()
        time.sleep(self.lasts)
        relay.blocked = False

    def _garble(self) -> None:
        self.relays[self.name].garbles = 3

    def _full_disk(self) -> None:
        pid = self.parties.daemons[self.name].pid
        before = resource.prlimit(pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        time.sleep(self.lasts)
        with contextlib.suppress(ProcessLookupError):
            resource.prlimit(pid, resource.RLIMIT_FSIZE, before)

    def _kill(self, name: str) -> None:
        daemon = self.parties.daemons[name]
        daemon.kill()
        daemon.wait()

    def _signal_below(self, name: str, commands: tuple[str, ...], number: int) -> psutil.Process | None:
        """A signal to one process below a daemon."""
        with contextlib.suppress(psutil.NoSuchProcess):
            below = psutil.Process(self.parties.daemons[name].pid).children(recursive=True)
            found = [one for one in below if any(word in " ".join(one.cmdline()) for word in commands)]
            if found:
                victim = self.draw.choice(sorted(found, key=lambda one: one.pid))
                victim.send_signal(number)
                return victim
        return None


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Parties, dict[str, Relay]]]:
    folder = tmp_path_factory.mktemp("hurt")
    files = {name: folder / f"{name}.csv" for name in NAMES}
    pl.DataFrame({"item": [f"i{item:02d}" for item in range(ITEMS)]}).write_csv(folder / "items.csv")
    for name, users in LOGS.items():
        rows = [
            (f"{user}", f"{user}-{at}", f"i{item:02d}")
            for user, baskets in enumerate(users)
            for at, basket in enumerate(baskets)
            for item in basket
        ]
        pl.DataFrame(rows, schema=["user", "basket", "item"], orient="row").write_csv(files[name])
    relays: dict[str, Relay] = {}

    def address(name: str, port: int) -> int:
        relays[name] = Relay(port)
        return relays[name].port

    joined = dict.fromkeys(NAMES, ("--preset", "none", "--items", str(folder / "items.csv")))
    policy = {"max_epsilon_total": '"none"', "max_epsilon_month": '"none"'}
    parties = Parties(folder, files, JOBS, policy=policy, join=joined, config={"split": '"none"'}, address=address)
    with parties:
        parties.until(lambda: len(connected(parties)) == len(NAMES), "all are connected")
        yield parties, relays
    for relay in relays.values():
        relay.__exit__(None, None, None)


def connected(parties: Parties) -> list[str]:
    return [one["name"] for one in parties.status()["members"] if one["online_since"]]


@pytest.mark.parametrize("seed", range(SCENARIOS))
def test_whatever_happens_nothing_is_wrong(federation: tuple[Parties, dict[str, Relay]], seed: int) -> None:
    parties, relays = federation
    kind, hurt = ("exact", "noised")[seed % 2], Hurt(parties, relays, seed)
    parties.until(lambda: len(connected(parties)) == len(NAMES), f"all are connected again (before {hurt})", 150)
    before = {one["id"] for one in parties.status()["jobs"]}
    call(parties.hub / "run" / "control.sock", json.dumps({"do": "start-job", "job": kind}).encode(), 20)
    parties.until(lambda: {one["id"] for one in parties.status()["jobs"]} - before, f"the job begins: {hurt}", 60)
    hurt.do()
    job = parties.until(lambda: ended(parties, before), f"the job ends: {hurt}", 240)
    assert job["state"] == "done" or job["reason"], hurt
    if job["state"] == "done" and kind == "exact":
        assert_sum(Path(job["folder"]), str(hurt))
    for name in NAMES:
        assert_site(parties.folder / name, job["id"], str(hurt))


def ended(parties: Parties, before: set[str]) -> dict[str, Any] | None:
    """The new job, once it has ended."""
    with contextlib.suppress(AssertionError):  # the coordinator itself may be down
        for one in parties.status()["jobs"]:
            if one["id"] not in before and one["state"] in ("done", "failed", "stopped"):
                return dict(one)
    return None


def assert_sum(folder: Path, hurt: str) -> None:
    """The model is of exactly as many as it says: of all, or of all but one."""
    record = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    state = load_state(folder / "model.safetensors")
    possible = [
        state_digest(trained(Ease(), [LOGS[name] for name in there], ITEMS))
        for there in combinations(NAMES, record["clients"])
    ]
    assert record["clients"] >= 3, hurt
    assert state_digest(state) in possible, hurt


def assert_site(folder: Path, job: str, hurt: str) -> None:
    """What left a node: written down whole, nothing but what a secure job sends, each vector charged."""
    command("node", "egress", "verify", "--folder", str(folder))  # which fails where a line is not as it was written
    lines = command("node", "egress", "show", "--last", "100000", "--folder", str(folder))["lines"]
    mine = [line for line in lines if line["job"] == job]
    assert {kind for line in mine for kind in line["kind"].split("-and-")} <= ALLOWED, hurt
    vectors = [line for line in mine if line["masked"]]
    charged = [line for line in vectors if line["epsilon"] is not None]
    where = ("--ledger", str(folder / "ledger.sqlite"))
    charges = command("ledger", "export", *where)["charges"] if (folder / "ledger.sqlite").exists() else []
    spent = [one for one in charges if one["run"] == job and one["state"] == "spent"]
    assert len(charged) <= len(spent), hurt  # spent and not released is allowed, the reverse never
    assert len(charged) == (len(vectors) if job.startswith("noised") else 0), hurt
