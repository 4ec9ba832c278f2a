"""The private subspace on MovieLens 1M (the NCF leave-one-out split): quality by epsilon, with and without features.

Every user is a client; secure aggregation with distributed discrete noise, all rounds charged, delta 1e-5, defaults of
the model. The held-out film is ranked among the split's 99 negatives (HR@10, NDCG@10), and among all films that the
user has not seen (full NDCG@10, Recall@20). Means over seeds of the simulated noise; "sd" is that of HR@10.
"""

from __future__ import annotations

import argparse
import itertools
import os
import tempfile
from pathlib import Path

import data
import numpy as np
import polars as pl
from ncf_leave_one_out import Split, sampled
from numpy.typing import NDArray

import coterie

EPSILONS = ("0.5", "1", "2", "5", "10", "20", "none")


def film_of(folder: Path) -> list[str]:
    """The film behind each number of the split: films are numbered as they first appear in the ratings."""
    return pl.read_parquet(folder / "pairs.parquet").to_series(1).unique(maintain_order=True).cast(pl.String).to_list()


def films(folder: Path, film: list[str]) -> pl.DataFrame:
    """Titles (with their years) and genres of the films, by the split's numbers."""
    lines = (folder / "movies.dat").read_text(encoding="latin-1").splitlines()
    known = pl.DataFrame([line.split("::") for line in lines], schema=["film", "title", "genres"], orient="row")
    numbers = pl.DataFrame({"film": film, "item": [str(at) for at in range(len(film))]})
    return numbers.join(known, on="film", how="left").select("item", "title", "genres")


def log_of(split: Split, texts: pl.DataFrame) -> coterie.InteractionLog:
    """The training rows."""
    users = np.repeat(np.arange(len(split["test"])), np.diff(split["indptr"]))
    frame = pl.DataFrame({"user": users.astype(str), "item": split["indices"].astype(str)})
    return coterie.InteractionLog(frame, texts)


def trained(log: coterie.InteractionLog, epsilon: str, model: str, seed: int) -> coterie.Run:
    """One training under a plan; its noise comes from the seed, so that figures can be had again."""
    plan = None
    if epsilon != "none":
        plan = coterie.Plan(epsilon=float(epsilon), delta=1e-5, max_users=10_000, simulated_noise=True)
    return coterie.train(log, model=model, plan=plan, seed=seed, settings={"evaluation": {"compare": False}})


def full(scores: NDArray[np.float32], items: tuple[str, ...], split: Split) -> tuple[float, float]:
    """NDCG@10 and Recall@20 among all items that the user does not have; a tie counts against the model."""
    at = {item: i for i, item in enumerate(items)}
    hidden = scores.copy()
    rows = np.repeat(np.arange(len(scores)), np.diff(split["indptr"]))
    hidden[rows, [at[str(item)] for item in split["indices"].tolist()]] = -np.inf
    place = np.array([at.get(str(item), -1) for item in split["test"].tolist()])
    held = np.where(place >= 0, scores[np.arange(len(scores)), place], np.inf)
    rank = (hidden >= held[:, None]).sum(axis=1) - 1
    rank = np.where(place >= 0, rank, len(items))
    return float(np.where(rank < 10, 1 / np.log2(rank + 2), 0).mean()), float((rank < 20).mean())


def measured(run: coterie.Run, split: Split, histories: list[list[str]]) -> tuple[float, ...]:
    """HR@10, NDCG@10, full NDCG@10 and Recall@20."""
    scores = run.scores(histories)
    return (*sampled(scores, run.items, split), *full(scores, run.items, split))


def main() -> None:
    """Print the table."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--epsilons", nargs="*", default=EPSILONS)
    asked.add_argument("--seeds", type=int, default=3)
    given = asked.parse_args()
    folder = data.folder("ml-1m")
    os.environ.setdefault("COTERIE_HOME", tempfile.mkdtemp())  # the charges of a benchmark are nobody's budget
    split = dict(np.load(folder / "ncf_loo_split.npz"))
    histories = [split["indices"][a:b].astype(str).tolist() for a, b in itertools.pairwise(split["indptr"])]
    texts = films(folder, film_of(folder))
    bare = texts.select("item", title=pl.lit(None, pl.String))
    kinds = (("popularity", bare), ("subspace", bare), ("subspace", texts))
    for (model, known), label in zip(kinds, ("popularity", "subspace", "with genres and years"), strict=True):
        log = log_of(split, known)
        for epsilon in given.epsilons:
            figures = np.array(
                [measured(trained(log, epsilon, model, seed), split, histories) for seed in range(given.seeds)]
            )
            mean, spread = figures.mean(axis=0), figures[:, 0].std()
            print(
                f"{label:22s} epsilon {epsilon:5s} HR@10 {mean[0]:.4f} (sd {spread:.4f})  NDCG@10 {mean[1]:.4f}  "
                f"full NDCG@10 {mean[2]:.4f}  Recall@20 {mean[3]:.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
