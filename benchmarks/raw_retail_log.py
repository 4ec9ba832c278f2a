"""A raw retail log through the command line: 530,000 invoice lines with returns, postage, guests and mixed-case codes.

Clients by country; cleaned with a report, trained, compared, written. Prints the wall time of the whole command.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import data

if __name__ == "__main__":
    log = data.folder("online-retail") / "2010-2011.parquet"
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, "-m", "coterie", "train", str(log), "--client-column", "Country", "--yes", "--json"]
        started = time.perf_counter()
        done = subprocess.run(
            [*command, "--output", str(Path(scratch) / "run")], capture_output=True, text=True, check=True
        )
        seconds = time.perf_counter() - started
    result = json.loads(done.stdout)
    dropped = sum(entry["dropped"] for entry in result["cleaning"])
    print(f"{result['data']}, {dropped:,} rows dropped by cleaning")
    for scheme in ("alone", "federated", "mix", "centralised", "popularity"):
        metrics = result["metrics"][scheme]
        print(f"  {scheme:12s} HR@10 {metrics['hit_rate@10']:.4f}  NDCG@10 {metrics['ndcg@10']:.4f}")
    print(f"  {result['comparison']['sentence']}")
    print(f"  {seconds:.0f} s for the whole command")
    if seconds > 60:
        raise SystemExit("slower than a minute")
