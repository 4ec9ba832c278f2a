"""`coterie serve` under load, beside a minimal FastAPI handler around implicit's ALS: one process each, in one run.

20,000 items and baskets of 5. What is printed: latency at 300 requests a second, and the most requests a second that
each answers (by turns, so that a busy neighbour hurts both). Needs wrk and hey (Debian: wrk, hey), and the extras
serve and bench:

    python benchmarks/serving_load.py [--seconds 20] [--items 20000]
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import numpy as np
import polars as pl
import scipy.sparse as sp

FACTORS, BASKET, K, RATE, WORKERS = 64, 5, 10, 300, 30


def main() -> int:
    """Parse, and measure or be the baseline."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--items", type=int, default=20_000)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--baseline", type=int, metavar="PORT", help="be the minimal handler (called by the benchmark)")
    asked = parser.parse_args()
    if asked.baseline:
        baseline(asked.baseline, asked.items)
        return 0
    for tool in ("wrk", "hey"):
        if shutil.which(tool) is None:
            print(f"{tool} is not installed; on Debian: apt-get install {tool}")
            return 0
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), asked)
    return 0


def measure(folder: Path, asked: argparse.Namespace) -> None:
    """Start both, load them by turns, print."""
    make_run(folder / "run", asked.items)
    lua = scripts(folder, asked.items)
    ours = [sys.executable, "-m", "coterie", "serve", str(folder / "run"), "--store", str(folder / "store.sqlite")]
    services = [
        subprocess.Popen([*ours, "--port", "8781", "--config", str(settings(folder))], stdout=subprocess.DEVNULL),
        subprocess.Popen([sys.executable, __file__, "--baseline", "8782", "--items", str(asked.items)]),
    ]
    try:
        wait("http://127.0.0.1:8781/health/ready")
        wait("http://127.0.0.1:8782/ready")
        steady(asked.seconds, asked.items)
        rates: dict[str, list[float]] = {"coterie": [], "implicit": []}
        for _ in range(3):
            for name, port in (("coterie", 8781), ("implicit", 8782)):
                rates[name].append(saturated(port, lua, asked))
        for name, found in rates.items():
            print(f"{name:9} requests a second: {', '.join(f'{one:,.0f}' for one in found)}")
        ratios = [a / b for a, b in zip(rates["coterie"], rates["implicit"], strict=True)]
        print(f"ratio: {', '.join(f'{one:.2f}' for one in ratios)} (median {np.median(ratios):.2f})")
    finally:
        for one in services:
            one.terminate()
            one.wait()


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


def steady(seconds: int, items: int) -> None:
    """Latency at 300 requests a second."""
    body = json.dumps({"items": [f"A{i * 37 % items:05d}" for i in range(1, BASKET + 1)], "k": K})
    command = ["hey", "-z", f"{seconds}s", "-c", str(WORKERS), "-q", str(RATE // WORKERS), "-m", "POST"]
    command += ["-T", "application/json", "-d", body, "http://127.0.0.1:8781/v1/recommend/basket"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    latency = {p: float(ms) * 1000 for p, ms in re.findall(r"(\d+)%+ in ([\d.]+) secs", said)}
    rate = float(re.findall(r"Requests/sec:\s+([\d.]+)", said)[0])
    print(f"at {rate:.0f} requests a second:", end=" ")
    print(", ".join(f"p{p} {latency[p]:.1f} ms" for p in ("50", "95", "99")), end="; ")
    print(
        "statuses:", ", ".join(f"{count} x {status}" for status, count in re.findall(r"\[(\d+)\]\s+(\d+) resp", said))
    )


def saturated(port: int, lua: Path, asked: argparse.Namespace) -> float:
    """Requests a second that one connection pool gets through."""
    command = [
        "wrk",
        "-t1",
        f"-c{asked.connections}",
        f"-d{asked.seconds}s",
        "-s",
        str(lua),
        f"http://127.0.0.1:{port}",
    ]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said:
        raise SystemExit(said)
    return float(re.findall(r"Requests/sec:\s+([\d.]+)", said)[0])


def wait(url: str) -> None:
    """Until it answers."""
    for _ in range(1200):
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"{url} did not come up")


def baseline(port: int, items: int) -> None:
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

    uvicorn.run(app, port=port, log_level="warning")


if __name__ == "__main__":
    sys.exit(main())
