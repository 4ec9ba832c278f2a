"""`coterie serve` under load, beside a minimal FastAPI handler around implicit's ALS, in one run.

20,000 items and baskets of 5. What is printed: latency at 300 requests a second while items change and events are
written; then the most requests a second that each answers, by turns, so that a busy neighbour hurts all alike, and the
processor time of one request. `coterie serve` runs with two processes, as one would on two cores, and with one; the
handler with one process, and with two. Needs wrk and hey (Debian: wrk, hey), and the extras serve and bench:

    python benchmarks/serving_load.py [--seconds 20] [--turns 3] [--items 20000]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import numpy as np
import polars as pl
import scipy.sparse as sp

FACTORS, BASKET, K, RATE, CONNECTIONS = 64, 5, 10, 300, 30
TICK = os.sysconf("SC_CLK_TCK")


class Served(NamedTuple):
    """A service under load."""

    name: str
    port: int
    process: int


class Measured(NamedTuple):
    """Requests a second, and microseconds of processor time for each: the service's, and wrk's."""

    rate: float
    service: float
    client: float


def main() -> int:
    """Parse, and measure or be the handler."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--handler", type=int, metavar="PORT", help="be the minimal handler (called by the benchmark)")
    parser.add_argument("--processes", type=int, default=1, help="of the handler")
    asked = parser.parse_args()
    if asked.handler:
        handler(asked.handler, asked.items, asked.processes)
        return 0
    for tool in ("wrk", "hey"):
        if shutil.which(tool) is None:
            print(f"{tool} is not installed; on Debian: apt-get install {tool}")
            return 0
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), asked)
    return 0


def measure(folder: Path, asked: argparse.Namespace) -> None:
    """Start all, load them by turns, print."""
    make_run(folder / "run", asked.items)
    lua = scripts(folder, asked.items)
    config = str(settings(folder))
    with ExitStack() as running:
        every: list[Served] = []
        for workers in (2, 1):
            ours = ["-m", "coterie", "serve", str(folder / "run"), "--store", str(folder / f"store{workers}.sqlite")]
            ours += ["--config", config, "--workers", str(workers)]
            name = f"coterie serve --workers {workers}"
            every.append(running.enter_context(started(name, ours, 8780 + workers, "/health/ready", "--port")))
        for processes in (1, 2):
            theirs = [__file__, "--items", str(asked.items), "--processes", str(processes)]
            name = f"implicit, {processes} process{'es' if processes > 1 else ''}"
            every.append(running.enter_context(started(name, theirs, 8790 + processes, "/ready", "--handler")))
        print(f"load average before: {load()}")
        for one in every[:2]:
            steady(one, asked.seconds, asked.items)
        found: dict[str, list[Measured]] = {one.name: [] for one in every}
        for _ in range(asked.turns):
            for one in every:
                found[one.name].append(saturated(one, lua, asked))
        tell(found)


def tell(found: dict[str, list[Measured]]) -> None:
    """Rates, processor time, and ratios to the handler in one process."""
    for name, turns in found.items():
        rates = ", ".join(f"{one.rate:,.0f}" for one in turns)
        service, client = (np.median([one[at] for one in turns]) for at in (1, 2))
        print(f"{name:26} {rates} requests a second; {service:.0f} us of processor time each, wrk {client:.0f} us")
    ours, alone, one, two = found.values()
    for name, these, those in (("2 workers : 1 process", ours, one), ("1 : 1", alone, one), ("2 : 2", ours, two)):
        ratios = [a.rate / b.rate for a, b in zip(these, those, strict=True)]
        costs = np.median([b.service / a.service for a, b in zip(these, those, strict=True)])
        told = ", ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"ratio {name}: {told} (median {np.median(ratios):.2f}); of processor time {costs:.2f}")
    print(f"load average after: {load()}")


def load() -> str:
    """The load averages of 1, 5 and 15 minutes."""
    return " ".join(f"{one:.1f}" for one in os.getloadavg())


@contextmanager
def started(name: str, arguments: list[str], port: int, ready: str, flag: str) -> Iterator[Served]:
    """A service that answers. OpenBLAS uses one thread, as implicit asks for: else its threads wait for each other."""
    process = subprocess.Popen(
        [sys.executable, *arguments, flag, str(port)],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
    )
    try:
        wait(f"http://127.0.0.1:{port}{ready}")
        yield Served(name, port, process.pid)
    finally:
        process.terminate()
        process.wait()


def processor_seconds(process: int) -> float:
    """Of a process and its children."""
    ticks = 0
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                fields = (folder / "stat").read_text().rpartition(")")[2].split()
            except OSError:  # it has ended
                continue
            if process in (int(folder.name), int(fields[1])):
                ticks += int(fields[11]) + int(fields[12])
    return ticks / TICK


def settings(folder: Path) -> Path:
    """No log of requests: it would measure the disk."""
    path = folder / "serve.toml"
    path.write_text("[log]\nrequests = false\n")
    return path


def make_run(folder: Path, items: int) -> None:
    """An EASE model with random weights: what it says does not matter here, what it costs does."""
    from coterie.data.catalogue import Catalogue
    from coterie.experiment.run import Run
    from coterie.models.ease import Ease
    from coterie.types import State

    rng = np.random.default_rng(0)
    ids = [f"A{i:05d}" for i in range(items)]
    weights = rng.standard_normal((items, items), dtype=np.float32) * np.float32(0.01)
    popularity = np.sort(rng.random(items))[::-1].copy()
    state = State(1, {"n_items": np.array(items, np.int64), "weights": weights, "popularity": popularity})
    Run(Ease(), state, Catalogue(tuple(ids), pl.DataFrame({"item": ids, "title": ids}), by_id=False)).save(folder)


def scripts(folder: Path, items: int) -> Path:
    """What wrk sends: another basket with every request."""
    path = folder / "basket.lua"
    path.write_text(
        f"""
math.randomseed(1)
request = function()
  local found = {{}}
  for i = 1, {BASKET} do found[i] = string.format('"A%05d"', math.random(0, {items - 1})) end
  local body = '{{"items": [' .. table.concat(found, ",") .. '], "k": {K}}}'
  return wrk.format("POST", "/v1/recommend/basket", {{["Content-Type"] = "application/json"}}, body)
end
"""
    )
    return path


def steady(served: Served, seconds: int, items: int) -> None:
    """Latency at 300 requests a second, while items change and events are written."""
    body = json.dumps({"items": [f"A{i * 37 % items:05d}" for i in range(1, BASKET + 1)], "k": K})
    command = ["hey", "-z", f"{seconds}s", "-c", str(CONNECTIONS), "-q", str(RATE // CONNECTIONS), "-m", "POST"]
    command += ["-T", "application/json", "-d", body, f"http://127.0.0.1:{served.port}/v1/recommend/basket"]
    with life_of_a_shop(served.port) as written:
        said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    latency = {p: float(ms) * 1000 for p, ms in re.findall(r"(\d+)%+ in ([\d.]+) secs", said)}
    rate = float(re.findall(r"Requests/sec:\s+([\d.]+)", said)[0])
    print(f"{served.name} at {rate:.0f} requests a second and {len(written) / seconds:.0f} writes:", end=" ")
    print(", ".join(f"p{p} {latency[p]:.1f} ms" for p in ("50", "95", "99")), end="; ")
    statuses = ", ".join(f"{count} x {status}" for status, count in re.findall(r"\[(\d+)\]\s+(\d+) resp", said))
    print("statuses:", statuses, "errors" if "Error distribution" in said else "")


@contextmanager
def life_of_a_shop(port: int) -> Iterator[list[int]]:
    """An item's stock and a batch of events, ten times a second each; gives the statuses."""
    done, statuses = threading.Event(), list[int]()

    def live() -> None:
        number = 0
        while not done.wait(0.1):
            number += 1
            event = {"type": "purchase", "time": datetime.now(UTC).isoformat(), "item": f"A{number:05d}"}
            events = [{**event, "eventId": f"{number}-{at}", "user": f"u{at}"} for at in range(10)]
            statuses.append(send(port, "PUT", f"/v1/items/A{number:05d}", {"stock": number % 5}))
            statuses.append(send(port, "POST", "/v1/events", {"events": events}))

    thread = threading.Thread(target=live)
    thread.start()
    try:
        yield statuses
    finally:
        done.set()
        thread.join()


def send(port: int, method: str, path: str, content: object) -> int:
    """The status of the answer."""
    body, kind = json.dumps(content).encode(), {"Content-Type": "application/json"}
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", body, kind, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return int(answer.status)


def saturated(served: Served, lua: Path, asked: argparse.Namespace) -> Measured:
    """What one pool of connections gets through."""
    address = f"http://127.0.0.1:{served.port}"
    command = ["wrk", "-t1", f"-c{asked.connections}", f"-d{asked.seconds}s", "-s", str(lua), address]
    before, own = processor_seconds(served.process), os.times()
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    after, spent = processor_seconds(served.process), os.times()
    if "Non-2xx" in said:
        raise SystemExit(said)
    count = int(re.findall(r"(\d+) requests in", said)[0]) / 1e6
    client = spent.children_user + spent.children_system - own.children_user - own.children_system
    rate = float(re.findall(r"Requests/sec:\s+([\d.]+)", said)[0])
    return Measured(rate, (after - before) / count, client / count)


def wait(url: str) -> None:
    """Until it answers."""
    for _ in range(1200):
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"{url} did not come up")


def handler(port: int, items: int, processes: int) -> None:
    """The least that serves implicit: one handler, nothing checked, nothing kept."""
    import uvicorn
    from fastapi import FastAPI
    from implicit.cpu.als import AlternatingLeastSquares

    rng = np.random.default_rng(0)
    model = AlternatingLeastSquares(factors=FACTORS, num_threads=1)
    model.item_factors = rng.standard_normal((items, FACTORS), dtype=np.float32)
    model.user_factors = np.zeros((1, FACTORS), np.float32)
    index = {f"A{i:05d}": i for i in range(items)}
    names = list(index)
    app = FastAPI()

    @app.get("/ready")
    async def ready() -> dict[str, bool]:
        return {"ready": True}

    @app.post("/v1/recommend/basket")
    async def recommend(question: dict) -> dict:
        found = [index[item] for item in question["items"]]
        row = sp.csr_matrix((np.ones(len(found), np.float32), found, [0, len(found)]), shape=(1, items))
        ids, scores = model.recommend(0, row, N=question["k"], recalculate_user=True)
        return {"items": [{"item": names[i], "score": float(s)} for i, s in zip(ids, scores, strict=True)]}

    parent = all(os.fork() for _ in range(processes - 1))
    listener = socket.create_server(("127.0.0.1", port), backlog=2048, reuse_port=True)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    if not parent:
        watch(os.getppid())
    server.run(sockets=[listener])


def watch(parent: int) -> None:
    """End with the process that started this one."""

    def wait_for_it() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(0)

    threading.Thread(target=wait_for_it, daemon=True).start()


if __name__ == "__main__":
    sys.exit(main())
