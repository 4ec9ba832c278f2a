"""The NCF leave-one-out benchmark on MovieLens 1M (He et al. 2017): rank the held-out film among its 99 negatives.

EASE is trained three ways on the same rows: over 6,040 clients of one user each, over 20 silos, and centralised by its own
path (scipy). Sums must be equal to the last bit, scores to 1e-4.
"""

from __future__ import annotations

import data
import numpy as np
import polars as pl
from numpy.typing import NDArray

import coterie


def log_of(users: NDArray[np.int64], items: NDArray[np.int64], silos: int | None) -> coterie.InteractionLog:
    columns = {"user": users.astype(str), "item": items.astype(str)}
    if silos is not None:
        columns["client"] = (users % silos).astype(str)
    return coterie.InteractionLog(pl.DataFrame(columns))


def sampled(run: coterie.Run, split: dict[str, NDArray[np.int64]]) -> tuple[float, float]:
    """HR@10 and NDCG@10 among the 99 negatives; a tie counts against the model."""
    at = {item: i for i, item in enumerate(run.items)}
    ptr, items = split["indptr"], split["indices"]
    scores = run.scores([items[a:b].astype(str).tolist() for a, b in zip(ptr[:-1], ptr[1:], strict=True)])
    columns = np.array([at.get(str(item), -1) for item in range(int(max(items.max(), split["neg"].max())) + 1)])
    rows = np.arange(len(scores))
    mine = np.where(columns[split["test"]] >= 0, scores[rows, columns[split["test"]]], -np.inf)
    others = np.where(columns[split["neg"]] >= 0, scores[rows[:, None], columns[split["neg"]]], -np.inf)
    rank = (others >= mine[:, None]).sum(axis=1)
    return float((rank < 10).mean()), float(np.where(rank < 10, 1 / np.log2(rank + 2), 0).mean())


if __name__ == "__main__":
    split = dict(np.load(data.folder("ml-1m") / "ncf_loo_split.npz"))
    users = np.repeat(np.arange(len(split["test"])), np.diff(split["indptr"]))
    for name in ("ease", "cosine", "popularity", "cart"):
        runs = {
            "6,040 clients": coterie.train(log_of(users, split["indices"], None), model=name),
            "20 silos": coterie.train(
                log_of(users, split["indices"], 20), model=name, settings={"evaluation": {"compare": False}}
            ),
        }
        for label, run in runs.items():
            hit, gain = sampled(run, split)
            print(f"{name:10s} {label:14s} HR@10 {hit:.4f}  NDCG@10 {gain:.4f}", flush=True)
        one, silos = runs["6,040 clients"].state, runs["20 silos"].state
        sums = [key for key in one.arrays if key in ("gram", "counts", "rows")]
        assert all(np.array_equal(one[key], silos[key]) for key in sums), "sums differ between partitions"
        from coterie.data.blocks import population

        people, _ = population(
            runs["20 silos"].catalogue and log_of(users, split["indices"], None), runs["20 silos"].catalogue
        )
        pooled = run.model.pooled(people.block, {})
        key = "weights" if "weights" in one else "popularity"
        error = np.abs(one[key] - pooled[key]).max() / np.abs(pooled[key]).max()
        print(f"{name:10s} sums equal to the last bit; {key} against scipy: largest difference {error:.1e} of the largest")
        assert error < 1e-4
