"""Three organisations train together on this machine: real processes, TLS, one of them killed on the way.

Run by `make federation-demo`. It types the commands that a coordinator and three operators would type, each party in a
folder of its own under a temporary one, and shows what they see. With COTERIE_DATA the three are countries of a real
gift shop (online-retail), otherwise synthetic shops.
"""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl

COTERIE = [sys.executable, "-m", "coterie"]
NAMES = ("north", "east", "south")
BEGAN = time.monotonic()
JOB = """
[jobs.together]
start = "ready"
min_carriers = 1
phase_seconds = 20
patience_seconds = 100
[jobs.together.model]
name = "ease"
[jobs.together.plan]
aggregation = "secure"
"""


class Demo:
    """The parties, their folders and their daemons."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.status: dict[str, Any] = {"running": False, "progress": {}, "jobs": []}
        self.environment = {key: value for key, value in os.environ.items() if key != "COTERIE_HOME"}

    def coterie(self, *words: str) -> dict[str, Any]:
        """One command with --json; what it says."""
        done = subprocess.run(
            [*COTERIE, *words, "--json"], cwd=self.folder, env=self.environment, capture_output=True, check=False
        )
        said: dict[str, Any] = json.loads(done.stdout or b"{}")
        if done.returncode:
            sys.exit(f"coterie {' '.join(words)}: {said.get('error', {}).get('message') or done.stderr.decode()}")
        return said

    def start(self, name: str, *words: str) -> None:
        """A daemon, in a process group of its own, so that a kill takes it alone."""
        with (self.folder / f"{name}.log").open("ab") as log:
            self.daemons[name] = subprocess.Popen(
                [*COTERIE, *words],
                cwd=self.folder,
                env=self.environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def watch(self) -> None:
        """Keep `coterie coordinator status --watch --json` running; `status` is its last line."""
        words = ("coordinator", "status", "--folder", "hub", "--watch", "--json")
        self.daemons["watch"] = subprocess.Popen(
            [*COTERIE, *words],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=(self.folder / "watch.log").open("ab"),
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        for line in self.daemons["watch"].stdout or ():
            self.status = json.loads(line)

    def until(self, what: str, seconds: float, ready: Callable[[], Any]) -> Any:
        """Wait for something; say what is waited for if it does not come."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if (found := ready()) is not None:
                return found
            if any(job["state"] in ("failed", "stopped") for job in self.status["jobs"]):
                sys.exit(f"the job ended early: {self.status['jobs'][-1]['reason']}")
            time.sleep(0.1)
        logs = "\n".join(path.read_text()[-1500:] for path in sorted(self.folder.glob("*.log")))
        sys.exit(f"{what} did not happen within {seconds:g} s\n{logs}")

    def stop(self) -> None:
        for daemon in self.daemons.values():
            daemon.terminate()
        for daemon in self.daemons.values():
            try:
                daemon.wait(15)
            except subprocess.TimeoutExpired:
                daemon.kill()


def main() -> None:
    with tempfile.TemporaryDirectory(prefix="coterie-demo-") as folder:
        demo = Demo(Path(folder))
        try:
            walk_through(demo)
        finally:
            demo.stop()
    say("Done.")


def walk_through(demo: Demo) -> None:
    source = write_logs(demo.folder)
    say(f"Three organisations ({', '.join(NAMES)}) with {source}. Each log stays in its own folder.")
    coordinator = found(demo)
    fingerprints = joined(demo, coordinator)
    for name in NAMES:
        demo.start(name, "node", "start", "--folder", name)
    say("The nodes are started; the coordinator offers its job once all three are connected.")
    demo.until("the first round", 90, lambda: in_a_round(demo.status))
    killed, known = NAMES[1], fingerprints[NAMES[1]]
    os.killpg(demo.daemons[killed].pid, signal.SIGKILL)
    say(f"{killed} ({known[:8]}...) was killed with SIGKILL in the middle of a round. What the coordinator says:")
    for sentence in waits(demo, killed):
        print(f"      {sentence}")
    demo.start(killed, "node", "start", "--folder", killed)
    say(f"{killed} is started again; the lost attempt is done anew, with fresh secrets.")
    job = demo.until("the end of the training", 110, lambda: finished(demo.status))
    if job["state"] != "done":
        sys.exit(f"the job {job['state']}: {job['reason']}")
    shown(demo)


def write_logs(folder: Path) -> str:
    """One CSV file for each organisation; what they are, in words."""
    data = Path(os.environ.get("COTERIE_DATA", "")) / "cart-splits" / "online_retail_countries.parquet"
    if os.environ.get("COTERIE_DATA") and data.exists():
        lines = pl.read_parquet(data).filter(pl.col("silo") != "United Kingdom")
        largest = lines.group_by("silo").len().sort("len", descending=True)["silo"].head(len(NAMES)).to_list()
        for name, country in zip(NAMES, largest, strict=True):
            mine = lines.filter(pl.col("silo") == country)
            columns = {"user": "user", "sku": "item", "basket": "basket", "t": "time", "desc": "title"}
            kept = {old: new for old, new in columns.items() if old in mine.columns}
            mine.select([pl.col(old).alias(new) for old, new in kept.items()]).write_csv(folder / f"{name}.csv")
        return f"the purchases of customers in {', '.join(largest)} at a real gift shop"
    market = folder / "market.parquet"
    words = ("data", "market", "--shops", "3", "--customers", "1500", "--baskets", "12000", "--output", str(market))
    subprocess.run([*COTERIE, *words], check=True, capture_output=True)
    rows = pl.read_parquet(market)
    for name, (_, mine) in zip(NAMES, sorted(rows.group_by("client"), key=lambda group: str(group[0])), strict=True):
        mine.drop("client").write_csv(folder / f"{name}.csv")
    market.unlink()
    return "synthetic purchases"


def found(demo: Demo) -> str:
    """Make the coordinator and start it; its fingerprint."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"127.0.0.1:{free.getsockname()[1]}"
    made = demo.coterie("coordinator", "init", "--folder", "hub", "--name", "demo", "--address", address)
    with (demo.folder / "hub" / "federation.toml").open("a") as file:
        file.write(JOB)
    demo.start("hub", "coordinator", "start", "hub")
    demo.watch()
    say(f"The coordinator serves at {address} (TLS); its fingerprint is {made['fingerprint']}.")
    demo.until("the coordinator's start", 60, lambda: demo.status["running"] or None)
    return str(made["fingerprint"])


def joined(demo: Demo, coordinator: str) -> dict[str, str]:
    """Invite, join, compare fingerprints, approve, pin, write policies; each node's fingerprint."""
    fingerprints = {}
    for name in NAMES:
        demo.coterie("coordinator", "invite", name, "--folder", "hub", "--output", f"{name}.invitation")
        answer = None
        while answer is None:  # the port opens a moment after the daemon answers
            answer = demo.coterie("node", "join", f"{name}.invitation", "--log", f"{name}.csv")
        if answer["coordinator"] != coordinator:
            sys.exit("the invitation names another coordinator")
        fingerprints[name] = answer["fingerprint"]
    for name in NAMES:
        demo.coterie("coordinator", "approve", name, "--fingerprint", fingerprints[name], "--folder", "hub")
        policy = demo.folder / name / "policy.toml"
        text = policy.read_text()
        for key, value in (
            ("approval", '"auto"'),
            ("noise", '["none", "distributed"]'),
            ("min_carriers", "1"),
            ("min_own_users", "20"),
        ):
            text = re.sub(rf"^{key} = .*$", f"{key} = {value}", text, flags=re.MULTILINE)
        pins = "\n".join(f'{other} = "{fingerprints[other]}"' for other in NAMES if other != name)
        policy.write_text(re.sub(r"^\[peers\]$", f"[peers]\n{pins}", text, flags=re.MULTILINE))
    say("Each has joined with an invitation, pinned the others' identities, and written what it allows (policy.toml).")
    return fingerprints


def in_a_round(status: dict[str, Any]) -> str | None:
    now = status["progress"]
    return str(now["phase"]) if now.get("what") == "model" and now.get("round") == 0 else None


def finished(status: dict[str, Any]) -> dict[str, Any] | None:
    done = [job for job in status["jobs"] if job["state"] in ("done", "failed", "stopped")]
    return dict(done[-1]) if done else None


def waits(demo: Demo, killed: str) -> list[str]:
    """What the screen says while somebody is missing, until it has said whom it waits for."""
    said = list[str]()

    def look() -> bool | None:
        now = demo.status["progress"]
        if killed in now.get("waiting_for", ()):
            left = max((now["deadline"] or time.time()) - time.time(), 0)
            sentence = f"{now['phase']}; waits for {', '.join(now['waiting_for'])}, {left:.0f} s more at most"
            if not said or said[-1].split(",")[0] != sentence.split(",", maxsplit=1)[0]:
                said.append(sentence)
        return True if any("waiting for members" in one for one in said) else None

    demo.until(f"a word about {killed}", 60, look)
    return said


def shown(demo: Demo) -> None:
    """What each organisation has now."""
    print()
    for name in NAMES:
        status = demo.coterie("node", "status", "--folder", name)
        checked = demo.coterie("node", "egress", "verify", "--folder", name)
        page = demo.folder / f"{name}-egress.html"
        demo.coterie("node", "egress", "page", "--folder", name, "--output", str(page))
        kept = Path("federation-demo")
        kept.mkdir(exist_ok=True)
        (kept / page.name).write_bytes(page.read_bytes())
        say(f"{name}: {status['gain']}")
        print(f"      {checked['lines']} messages left its site, verified; read them: {kept / page.name}")


def say(text: str) -> None:
    print(f"[{time.monotonic() - BEGAN:3.0f} s] {text}", flush=True)


if __name__ == "__main__":
    main()
