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

import coterie
from coterie.data.log import InteractionLog
from coterie.data.market import market


def main() -> int:
    asked = options()
    run, store = asked.folder / "run", asked.folder / "store.sqlite"
    log = orders()
    if not (run / "manifest.json").exists():
        shutil.rmtree(run, ignore_errors=True)
        print("training on 24,000 baskets of 6 synthetic shops ...", flush=True)
        coterie.train(log, model="cart", test="carts", seed=0, output=run, settings={"clean": {"preset": "retail"}})
    command = [
        sys.executable,
        "-m",
        "coterie",
        "serve",
        str(run),
        "--store",
        str(store),
        "--port",
        str(asked.port),
        "--json",
    ]
    service = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: service.terminate())
    line = service.stdout.readline() if service.stdout else ""
    if not line or "error" in (said := json.loads(line)):
        return service.wait() or 1
    put_articles(said["address"], log)
    show(said["address"], log)
    return max(service.wait(), 0)


def options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8080, help="0 takes a free one")
    parser.add_argument("--folder", type=Path, default=Path("runs/serve-demo"), help="where run and store are kept")
    return parser.parse_args()


def orders() -> InteractionLog:
    return market(shops=6, customers=3000, items=600, baskets=24_000, seed=0, messy=True).log


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
    asked = urllib.request.Request(
        f"{address}/v1/items",
        json.dumps({"put": items}).encode(),
        {"Content-Type": "application/json"},
        method="POST",
    )
    with urllib.request.urlopen(asked, timeout=60) as reply:
        print(f"{json.load(reply)['put']} articles put", flush=True)


def show(address: str, log: InteractionLog) -> None:
    first, second = log.frame.group_by("item").len().sort("len", "item", descending=[True, False])["item"].head(2)
    print(
        f"""
the service:     {address}
the dashboard:   {address}/dashboard/
the example shop: {address}/example/shop.html

Ask what completes a basket:

  curl -s {address}/v1/recommend/basket -H 'Content-Type: application/json' \\
    -d '{{"items": ["{first}", "{second}"], "k": 3}}'

Sell an article out; no answer has it from then on:

  curl -s -X PATCH {address}/v1/items/{first} -H 'Content-Type: application/json' \\
    -d '{{"stock": 0}}'

Ctrl-C ends it.""",
        flush=True,
    )


if __name__ == "__main__":
    sys.exit(main())
