"""A shop that can be looked at: trains on a synthetic market, serves what was learned, and says where.

Everything is real but the orders: `coterie serve` runs as a process of its own, and articles are put through its API.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import coterie
from coterie.data.log import InteractionLog
from coterie.data.market import market


def main() -> int:
    asked = options()
    log = orders()
    run = trained(asked.folder / "run", log)
    command = [sys.executable, "-m", "coterie", "serve", str(run), "--store", str(asked.folder / "store.sqlite")]
    with (asked.folder / "serving.log").open("a") as lines:  # one for each request: too many to be read here
        service = subprocess.Popen(
            [*command, "--port", str(asked.port), "--json"], stdout=subprocess.PIPE, stderr=lines, text=True
        )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: service.terminate())
    try:
        said = json.loads((service.stdout.readline() if service.stdout else "") or "{}")
        if "address" not in said:
            print(said.get("error", {}).get("message", "the service ended"), file=sys.stderr)
            return service.wait() or 1
        put_articles(said["address"], log)
        show(said["address"], asked.folder, log)
        return max(service.wait(), 0)
    finally:
        service.terminate()
        service.wait()


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one")
    parser.add_argument("--folder", type=Path, default=Path("runs/serve-demo"), help="where run and store are kept")
    return parser.parse_args()


def orders() -> InteractionLog:
    return market(shops=6, customers=3000, items=600, baskets=24_000, seed=0, messy=True).log


def trained(run: Path, log: InteractionLog) -> Path:
    """The run folder; what an earlier start has trained is used again."""
    if not (run / "manifest.json").exists():
        shutil.rmtree(run, ignore_errors=True)
        print("training on 24,000 baskets of 6 synthetic shops ...", flush=True)
        coterie.train(log, model="cart", test="carts", seed=0, output=run, settings={"clean": {"preset": "retail"}})
    return run


def put_articles(address: str, log: InteractionLog) -> None:
    """Say what the shop knows of its articles: title, price, stock, category."""
    rows = log.texts.select("item", "title", "category", "price").iter_rows(named=True)
    items = [
        {
            "id": row["item"],
            "title": row["title"],
            "url": f"/example/shop.html#{row['item']}",
            "price": float(row["price"]),
            "currency": "EUR",
            "stock": 10,
            "language": "en",
            "attributes": {"category": str(row["category"])},
        }
        for row in rows
    ]
    print(f"{post(f'{address}/v1/items', {'put': items})['put']} articles put", flush=True)


def post(url: str, content: dict[str, Any]) -> dict[str, Any]:
    body, headers = json.dumps(content).encode(), {"Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60) as reply:
        return dict(json.load(reply))


def show(address: str, folder: Path, log: InteractionLog) -> None:
    best = log.frame.group_by("item").len().sort("len", "item", descending=[True, False])["item"]
    first, second = best.head(2)
    suggested = post(f"{address}/v1/recommend/basket", {"items": [first, second], "k": 1})["items"][0]["item"]
    print(
        f"""
the service:       {address}
the dashboard:     {address}/dashboard/
the example shop:  {address}/example/shop.html
its log:           {folder / "serving.log"}

Ask what completes a basket:

  curl -s {address}/v1/recommend/basket -H 'Content-Type: application/json' \\
    -d '{{"items": ["{first}", "{second}"], "k": 3}}'

Sell the first suggestion out, and ask again; no answer has it from then on:

  curl -s -X PATCH {address}/v1/items/{suggested} -H 'Content-Type: application/json' \\
    -d '{{"stock": 0}}'

Ctrl-C ends it.""",
        flush=True,
    )


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:  # in training
        sys.exit(130)
