"""Real parties on this machine: a coordinator and its nodes as processes, over TLS, driven by the commands."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from coterie.cli import main

PATIENCE = 120.0  # seconds: machines that run tests are busy


class Parties:
    """A federation in `folder`: `logs` are the nodes' logs by name, `jobs` what stands in federation.toml.

    Nodes reach the coordinator through the port that `relay` gives for the one at which it listens; by default itself.
    """

    def __init__(
        self,
        folder: Path,
        logs: Mapping[str, Path],
        jobs: str,
        policy: Mapping[str, str] | None = None,
        relay: Callable[[int], int] | None = None,
        join: Mapping[str, tuple[str, ...]] | None = None,
        config: Mapping[str, str] | None = None,
    ) -> None:
        self.folder, self.logs, self.jobs = folder, dict(logs), jobs
        self.policy, self.relay, self.join, self.config = policy or {}, relay, join or {}, config or {}
        self.daemons: dict[str, subprocess.Popen[bytes]] = {}
        self.fingerprints: dict[str, str] = {}
        self.hub = folder / "hub"

    def __enter__(self) -> Parties:
        try:
            self._found()
            for name in self.logs:
                self.node(name)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for daemon in self.daemons.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(daemon.pid, signal.SIGCONT)
            daemon.terminate()
        for daemon in self.daemons.values():
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(daemon.pid, signal.SIGKILL)
                daemon.wait(20)

    def node(self, name: str) -> None:
        """Start a node's daemon."""
        self.start(name, "node", "start", "--folder", str(self.folder / name))

    def start(self, name: str, *words: str) -> None:
        """Start a daemon in a process group of its own."""
        environment = {key: value for key, value in os.environ.items() if key != "COTERIE_HOME"}
        with (self.folder / f"{name}.log").open("ab") as log:
            self.daemons[name] = subprocess.Popen(
                [sys.executable, "-m", "coterie", *words],
                env=environment,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def status(self) -> dict[str, Any]:
        """What `coterie coordinator status --json` says."""
        return command("coordinator", "status", "--folder", str(self.hub))

    def job(self, name: str) -> dict[str, Any] | None:
        """The last occurrence of a job, once it has ended."""
        found = [one for one in self.status()["jobs"] if one["name"] == name]
        return found[-1] if found and found[-1]["state"] in ("done", "failed", "stopped") else None

    def until(self, ready: Callable[[], Any], what: str, seconds: float = PATIENCE) -> Any:
        """Wait until something is so; what it gives."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := ready():
                return found
            time.sleep(0.3)
        logs = "\n".join(f"{path.name}: {path.read_text()[-2000:]}" for path in sorted(self.folder.glob("*.log")))
        pytest.fail(f"{what}: not within {seconds:g} s\n{logs}")

    def _found(self) -> None:
        """Make everybody's folder, start the coordinator, and enrol all nodes."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            listening = int(free.getsockname()[1])
        reached = listening if self.relay is None else self.relay(listening)
        command("coordinator", "init", "--folder", str(self.hub), "--address", f"127.0.0.1:{reached}")
        written = self.hub / "federation.toml"
        text = re.sub(r"(?m)^# listen_port = .*$", f"listen_port = {listening}", written.read_text())
        written.write_text(f"{text}\n{self.jobs}")
        self.start("hub", "coordinator", "start", str(self.hub))
        self.until(lambda: self.status()["running"], "the coordinator")
        self.fingerprints = {name: self._join(name, self.join.get(name, ())) for name in self.logs}
        usual = {"approval": '"auto"', "noise": '["none", "distributed"]', "min_carriers": "1", "min_own_users": "1"}
        for name in self.logs:
            command("coordinator", "approve", name, "--folder", str(self.hub))
            self._set(self.folder / name / "policy.toml", {**usual, **self.policy})
            self._set(self.folder / name / "node.toml", self.config)
            self._pin(name)

    def _join(self, name: str, extra: tuple[str, ...]) -> str:
        file = self.folder / f"{name}.invitation"
        command("coordinator", "invite", name, "--folder", str(self.hub), "--output", str(file))
        words = ("node", "join", str(file), "--log", str(self.logs[name]), "--folder", str(self.folder / name), *extra)
        said: dict[str, Any] = self.until(lambda: _tried(*words), f"{name} joins")
        return str(said["fingerprint"])

    def _set(self, path: Path, values: Mapping[str, str]) -> None:
        """Change keys of an annotated file, as a person would."""
        text = path.read_text()
        for key, value in values.items():
            text, changed = re.subn(rf"(?m)^{key} = .*$", f"{key} = {value}", text)
            assert changed, key
        path.write_text(text)

    def _pin(self, name: str) -> None:
        for other, fingerprint in self.fingerprints.items():
            if other != name:
                command("node", "policy", "pin", other, fingerprint, "--folder", str(self.folder / name))


def command(*words: str) -> dict[str, Any]:
    """One command in this process, with --json; what it says."""
    home, out = os.environ.get("COTERIE_HOME"), io.StringIO()
    try:
        with contextlib.redirect_stdout(out), contextlib.suppress(SystemExit):
            main([*words, "--json"])
    finally:
        os.environ.pop("COTERIE_HOME", None)
        if home is not None:
            os.environ["COTERIE_HOME"] = home
    said: dict[str, Any] = json.loads(out.getvalue())
    assert "error" not in said, f"coterie {' '.join(words)}: {said['error']['message']}"
    return said


def _tried(*words: str) -> dict[str, Any] | None:
    """The same, or None while the other side does not answer yet."""
    try:
        return command(*words)
    except AssertionError as error:
        if "cannot be reached" in str(error) or "answered 50" in str(error):
            return None
        raise
