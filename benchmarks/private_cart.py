"""The cart model under privacy per customer: which item was left out of this basket, at epsilon 8, 4 and 1?

A gift wholesaler's invoices, fixed splits: fit on the training and validation rows of customers with a number (a guest
is nobody whom epsilon could protect), rank the left-out item over the whole catalogue minus the cart. Delta is 1e-5;
default hyper-parameters, fixed in advance. Noise is drawn from the seed, so that figures can be repeated: three draws
each, the first of which is compared case by case with texts alone. Everything is scored by the cart, not by who asks.
"""

from __future__ import annotations

from pathlib import Path

import data
import numpy as np
import polars as pl

import coterie
from coterie.data.blocks import EVERYONE
from coterie.data.cases import given_cases
from coterie.evaluation.metrics import Measured, evaluate
from coterie.evaluation.significance import paired
from coterie.experiment.buyers_schemes import BY_TEXTS, texts_alone
from coterie.experiment.cases import tabulate
from coterie.experiment.fitting import scorer
from coterie.models.base import Model
from coterie.models.popularity import Popularity
from coterie.types import Cases, State

COLUMNS = {"user": "user", "item": "sku", "basket": "basket", "time": "t", "title": "desc"}
DRAWS = 3
METRICS = ("ndcg@10", "hit_rate@10")


def customers(folder: Path) -> coterie.InteractionLog:
    """The training and validation rows of customers with a number (-1 is a guest), and the texts of all articles."""
    parts = [coterie.read_log(folder / f"online_retail_{part}.parquet", **COLUMNS) for part in ("train", "valid")]
    texts = pl.concat([part.texts for part in parts]).unique("item", keep="first", maintain_order=True)
    frame = pl.concat([part.frame for part in parts]).filter(pl.col("user") != "-1")
    return coterie.InteractionLog(frame, texts, "online_retail")


def trained(log: coterie.InteractionLog, epsilon: float | str, text_weight: float, seed: int) -> coterie.Run:
    """The cart model; with text weight 0 it knows no texts."""
    plan = coterie.Plan()
    if epsilon != "none":
        plan = coterie.Plan(epsilon=float(epsilon), delta=1e-5, max_users=10_000, simulated_noise=True)
    return coterie.train(log, "cart", plan=plan, seed=seed, text_weight=text_weight)


def cases_of(run: coterie.Run, folder: Path) -> Cases:
    """The test cases, without what is known of the asking users."""
    frame = given_cases(pl.read_parquet(folder / "online_retail_cases_test.parquet"), pl.DataFrame(), "test")
    return tabulate(frame, run.catalogue, None, pl.Series([EVERYONE] * len(frame))).all()


def measured(model: Model, state: State, cases: Cases) -> Measured:
    """A scheme on the cases."""
    return evaluate(scorer(model, state), cases, (10,), int(state["n_items"]))


def line(name: str, found: list[Measured], base: Measured | None = None) -> None:
    """Means over draws, their spread, and the first draw against `base` case by case."""
    means = np.array([[one.metric(name).mean() for name in METRICS] for one in found])
    text = f"{name:28s} NDCG@10 {means[:, 0].mean():.4f}  HR@10 {means[:, 1].mean():.4f}"
    if len(found) > 1:
        text += f"  (NDCG of {len(found)} draws {means[:, 0].min():.4f} to {means[:, 0].max():.4f})"
    if base is not None:
        gain = paired(base, found[0], "ndcg@10", resamples=999)
        text += f"  minus texts alone {gain.difference:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]"
    print(text, flush=True)


def main(folder: Path) -> None:
    """All schemes on the same cases."""
    log = customers(folder)
    without = trained(log, "none", 0.06, 0)
    cases = cases_of(without, folder)
    print(
        f"{len(cases)} cases, {cases.unreachable} with an item that no customer ever bought, {len(without.items)} items"
    )
    texts = measured(BY_TEXTS, texts_alone(without.state.arrays, len(without.items), everything(without)), cases)
    line("popularity", [measured(Popularity(), without.state, cases)], texts)
    line("texts alone", [texts])
    for known, text_weight in (("texts", 0.06), ("no texts", 0.0)):
        for epsilon in ("none", 8.0, 4.0, 1.0):
            runs = [trained(log, epsilon, text_weight, seed) for seed in range(1 if epsilon == "none" else DRAWS)]
            found = [measured(run.model, run.state, cases) for run in runs]
            line(f"{known}, epsilon {epsilon}", found, texts)


def everything(run: coterie.Run) -> np.ndarray:
    """All positions of a run's catalogue."""
    return np.arange(len(run.items), dtype=np.int32)


if __name__ == "__main__":
    main(data.folder("cart-splits"))
