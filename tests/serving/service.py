"""`coterie serve` as a process of its own, on a free port, with a run that is trained in a moment."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx

import coterie
from coterie.data.market import market

PATIENCE = 120.0  # seconds: machines that run tests are busy


def trained(folder: Path, seed: int = 0, model: str = "cart", **how: Any) -> Path:
    """A signed run over a small market: 120 items, `A00001` and so on."""
    log = market(shops=3, customers=150, items=120, baskets=1200, seed=seed).log
    coterie.train(log, model=model, seed=seed, output=folder, **how)
    return folder


class Service:
    """The process; what it said when it was ready is `said`."""

    def __init__(self, run: Path | None, store: Path | str, *flags: str, environment: Mapping[str, str] | None = None):
        command = [sys.executable, "-m", "coterie", "serve", *([str(run)] if run else []), "--store", str(store)]
        command += ["--port", "0", "--json", *flags]
        self.process = subprocess.Popen(
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        self.said: dict[str, Any] = json.loads(line) if line else {}
        if "address" not in self.said:
            _, errors = self.process.communicate(timeout=PATIENCE)
            raise RuntimeError(f"{line}{errors}")
        self.address = str(self.said["address"])

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process.poll() is None:
            self.stop()
        for pipe in (self.process.stdout, self.process.stderr):
            if pipe is not None:
                pipe.close()

    def client(self, **options: Any) -> httpx.Client:
        """A client of its own connection pool."""
        return httpx.Client(base_url=self.address, timeout=PATIENCE, **options)

    def kill(self) -> None:
        """End it without a word."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE)

    def stop(self) -> tuple[int, str]:
        """End it as an operator does: the exit code, and what it wrote to stderr."""
        self.process.terminate()
        _, errors = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, errors

    def memory(self) -> int:
        """Bytes of memory that the process holds."""
        fields = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        return next(int(one.split()[1]) * 1024 for one in fields if one.startswith("VmRSS"))


@contextmanager
def serving(run: Path | None, store: Path | str, *flags: str) -> Iterator[tuple[Service, httpx.Client]]:
    """A service and a client of it."""
    with Service(run, store, *flags) as service, service.client() as client:
        yield service, client
