"""A federation of real processes on this machine: the commands of Coterie over Flower and TLS, each party in a folder.

Folders are made here, as `coterie coordinator init`, `invite` and `coterie node join` make them; the daemons are the
commands themselves. Each node reaches the coordinator through a relay of its own, which can be cut.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from coterie.data.market import market
from coterie.errors import CoterieError
from coterie.experiment.coordinator import SOCKET
from coterie.federation.authority import make_authority, server_certificate
from coterie.federation.config import COORDINATOR_FILE, NODE_FILE, federation_template, node_template
from coterie.federation.enrolment import Enrolment, request
from coterie.federation.identity import Identities
from coterie.federation.invitation import Invitation
from coterie.federation.journal import FederationJournal
from coterie.federation.link import call
from coterie.federation.members import Members
from coterie.federation.membership import Membership
from coterie.federation.policy import POLICY_FILE, policy_template
from coterie.storage import Storage
from tests.faults.partition import Partition

ROOT = Path(__file__).parents[2]
OVER = ("done", "failed", "stopped")
LIMIT = 12.0  # epsilon that a node ever pays


@dataclass
class Daemon:
    """One of our commands, in a session of its own."""

    name: str
    folder: Path
    command: tuple[str, ...]
    process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        environment = {**os.environ, "COTERIE_HOME": str(self.folder), "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
        with (self.folder / "daemon.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-W", "ignore", "-m", *self.command],
                stdout=log,
                stderr=log,
                cwd=ROOT,
                env=environment,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def runs(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def kill(self) -> None:
        """SIGKILL to this process alone; what it had started has to end by itself."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def ask_to_end(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()

    def stop(self) -> None:
        if self.process is not None:
            try:
                self.process.wait(20)
            except subprocess.TimeoutExpired:
                self.kill()

    def status(self) -> dict[str, Any]:
        """What the daemon says of itself; nothing while it does not answer."""
        try:
            found: dict[str, Any] = json.loads(call(self.folder / SOCKET, b'{"do": "status"}', 5.0))
        except CoterieError:
            return {}
        return found

    def child(self, name: str) -> int | None:
        """The process number of one of its children."""
        for one in self.status().get("children", []):
            if one["name"] == name and one["pid"]:
                return int(one["pid"])
        return None

    def fill_disk(self, full: bool) -> None:
        """Let no file of this process grow (or let it again): what a full disk does to it."""
        room = 0 if full else resource.RLIM_INFINITY
        resource.prlimit(self.pid, resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))


@dataclass
class Organisations:
    """A coordinator and its nodes."""

    folder: Path
    hub: Daemon
    nodes: dict[str, Daemon]
    relays: dict[str, Partition]
    journal: FederationJournal
    asked: list[str] = field(default_factory=list)

    @classmethod
    def found(cls, folder: Path, names: Sequence[str], jobs: str) -> Organisations:
        """Make all folders; `jobs` are tables of federation.toml."""
        hub, port = folder / "hub", free_port()
        keys = Identities.open(hub, create=True)
        make_authority(hub, "faults")
        server_certificate(hub, ["127.0.0.1"])
        text = federation_template("faults", f"127.0.0.1:{port}").replace('listen_host = "0.0.0.0"', "")
        text = text.replace("[federation]", '[federation]\nlisten_host = "127.0.0.1"', 1)
        (hub / COORDINATOR_FILE).write_text(text + jobs)
        members = Members.open(hub / "federation.sqlite", keys.fingerprint)
        relays = {name: Partition(port) for name in names}
        people = {name: Identities.open(folder / name, create=True) for name in names}
        pins = {name: one.fingerprint for name, one in people.items()}
        for name, log in logs(names).items():
            log.write_parquet(folder / name / "log.parquet")
            address = f"127.0.0.1:{relays[name].port}"
            token = members.invite(name, timedelta(days=1))
            ca = (hub / "ca.pem").read_text()
            expires = datetime.now(UTC) + timedelta(days=1)
            invited = Invitation("faults", name, address, keys.public, ca, token, expires)
            members.enrol(Enrolment.read(request(invited, people[name]), keys.fingerprint))
            members.approve(name, pins[name])
            write_node(folder / name, invited, {one: pin for one, pin in pins.items() if one != name})
        nodes = {
            name: Daemon(name, folder / name, ("coterie", "node", "start", "--folder", str(folder / name)))
            for name in names
        }
        coordinator = Daemon("hub", hub, ("tests.faults.liable", str(hub)))
        journal = FederationJournal(Storage.open(hub / "federation.sqlite", "federation"))
        return cls(folder, coordinator, nodes, relays, journal)

    @contextlib.contextmanager
    def running(self) -> Iterator[Organisations]:
        """All daemons run in the block."""
        try:
            self.hub.start()
            until(self.hub.status, 60, "the coordinator's start")
            for node in self.nodes.values():
                node.start()
            yield self
        finally:
            for daemons in ([self.hub], list(self.nodes.values())):  # it waits for those whom it tells of an end
                for daemon in daemons:
                    daemon.ask_to_end()
                for daemon in daemons:
                    daemon.stop()
            for relay in self.relays.values():
                relay.close()

    def whole(self, seconds: float = 60.0) -> None:
        """Wait until everybody is there; what has died is started again."""
        for daemon in (self.hub, *self.nodes.values()):
            if not daemon.runs:
                daemon.start()
        until(lambda: self.online() == set(self.nodes), seconds, "everybody's return")

    def online(self) -> set[str]:
        return {one["name"] for one in self.hub.status().get("members", []) if one["online_since"]}

    def ask(self, job: str) -> None:
        """Start a job by hand, as `coterie coordinator start --job` does."""
        call(self.hub.folder / SOCKET, json.dumps({"do": "start-job", "job": job}).encode(), 10.0)

    def record(self, job: str) -> Any:
        """The occurrence of a job in the coordinator's database; None while there is none."""
        return next((one for one in self.journal.all() if one.name == job), None)

    def pump(self) -> int | None:
        """The process of Flower that moves messages."""
        return next(iter(processes("flwr-serverapp", "flower-serverapp", below=self.hub.pid)), None)


def logs(names: Sequence[str]) -> dict[str, pl.DataFrame]:
    """The log of each organisation: small shops with a common assortment."""
    frame = market(shops=len(names), customers=120, items=24, baskets=500, seed=8).log.frame
    shops = sorted(frame["client"].unique())
    return {
        name: frame.filter(pl.col("client") == shop).drop("client") for name, shop in zip(names, shops, strict=True)
    }


def write_node(folder: Path, invited: Invitation, peers: Mapping[str, str]) -> None:
    """The files of a node, as `coterie node join` writes them, with a policy for the test."""
    columns = {f"{role}_column": role for role in ("user", "item", "time", "basket")}
    items = pl.read_parquet(folder / "log.parquet").select("item").unique(maintain_order=True)
    items.write_csv(folder / "items.csv")
    data = {"logs": [str(folder / "log.parquet")], "items": str(folder / "items.csv"), **columns}
    text = node_template(invited.member, invited.address, None, **data)
    (folder / NODE_FILE).write_text(text)
    rules: dict[str, Any] = {"approval": "auto", "noise": ["none", "distributed"], "min_own_users": 1}
    rules |= {"max_epsilon_total": LIMIT, "max_epsilon_month": LIMIT, "peers": dict(peers)}
    (folder / POLICY_FILE).write_text(policy_template(coordinators=[invited.fingerprint], **rules))
    (folder / "ca.pem").write_text(invited.ca)
    Membership(invited.federation, invited.coordinator).write(folder)


def processes(*words: str, below: int) -> list[int]:
    """Processes with one of these words in their command line that descend from `below`."""
    parents, found = dict[int, int](), list[int]()
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                said = (entry / "cmdline").read_bytes().decode(errors="replace")
                found += [int(entry.name)] if any(word in said for word in words) else []
    return [pid for pid in found if below in _ancestors(pid, parents)]


def _ancestors(pid: int, parents: Mapping[int, int]) -> Iterator[int]:
    while (pid := parents.get(pid, 0)) > 1:
        yield pid


def until(what: Callable[[], Any], seconds: float, words: str) -> Any:
    """Wait for something, and return it."""
    end = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < end, f"{words} did not come within {seconds:g} s"
        time.sleep(0.1)
    return found


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])
