"""The buyer's table: what joining is worth to 8 shops and 11 countries without noise and at epsilon 8, 4 and 1.

One wholesaler's invoice lines, cut into shops or countries; each ranks what completes a basket among its own articles.
Private sums are charged to a ledger of their own, masks are real, and noise comes from the operating system: figures of
private columns differ from run to run. The public bound on customers is 10,000, so delta is 1e-5. With `shops` or
`countries` one table alone; with `--output FOLDER` tables and plots are written.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import data
import polars as pl

import coterie
from coterie.experiment.buyers import compare_log, write_table
from coterie.report.buyers_table import markdown
from coterie.settings import build

FILES = {"shops": "online_retail_shops_seed3", "countries": "online_retail_countries"}
COLUMNS = {"user": "user", "item": "sku", "basket": "basket", "time": "t", "client": "silo"}


def log_of(folder: Path, name: str) -> coterie.InteractionLog:
    """The lines of all silos with their parts, guests as guests, and the articles' texts."""
    path = folder / f"{FILES[name]}.parquet"
    log = coterie.read_log(path, **COLUMNS)
    guest = pl.when(pl.col("user") != "-1").then("user")
    titles = json.loads((folder / "online_retail_desc_clean.json").read_text())
    texts = pl.DataFrame({"item": list(titles), "title": list(titles.values())})
    frame = log.frame.with_columns(user=guest, part=pl.read_parquet(path)["part"])
    return coterie.InteractionLog(frame, texts, name)


def table(folder: Path, name: str) -> dict[str, Any]:
    """The buyer's table of one log, charged to a ledger that is thrown away."""
    with tempfile.TemporaryDirectory() as scratch:
        asked = {"plan": {"max_users": 10_000}, "ledger": {"ledger": str(Path(scratch) / "ledger.sqlite")}}
        return compare_log(log_of(folder, name), build({**asked, "split": {"split": "given"}}, "benchmark"))


def show(name: str, result: dict[str, Any]) -> None:
    """The page, and the figures that a summary quotes."""
    print(f"=== {name}: {result['seconds']:.0f} s")
    print(markdown(result))
    for row in result["by_epsilon"]:
        facts = row["privacy"]
        print(f"{name}, epsilon {row['epsilon']}: {row['seconds']:.1f} s, masks {facts['masks']}, ", end="")
        print(f"{row['upload_bytes_per_client'] / 1e6:.2f} MB upload, kept {row['kept']}", flush=True)


if __name__ == "__main__":
    splits, words = data.folder("cart-splits"), sys.argv[1:]
    output = Path(words[words.index("--output") + 1]) if "--output" in words else None
    for name in [name for name in FILES if name in words] or FILES:
        started = time.perf_counter()
        result = table(splits, name)
        show(name, result)
        if output is not None:
            write_table(output / name, result)
        print(f"{name}: {time.perf_counter() - started:.0f} s in all")
