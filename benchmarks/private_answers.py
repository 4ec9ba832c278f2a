"""What private answers cost: quality of exported models and of noisy answers, against the exact ones and popularity.

Leave one item out of each held-out basket, suggest ten, drop what is in the basket: NDCG@10 and hit rate. Exports as a
browser and ONNX Runtime score them (in numpy, the same arithmetic), with their sizes and the share of the exact ten
best that they find. Noisy answers as the service draws them, at several epsilons for one item of the basket and one
answer of ten. A synthetic market of 600 items, and groceries of 169 (`COTERIE_DATA`) where they are.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import data
import numpy as np
import polars as pl

import coterie
from coterie.data.market import market
from coterie.evaluation.ranking import top_k
from coterie.experiment.run import Run, by_popularity_where_unknown
from coterie.serving.private.browser_file import BrowserModel
from coterie.serving.private.export import export
from coterie.serving.private.noisy import base, draw, utilities
from coterie.serving.private.onnx_export import DenseModel
from coterie.serving.served import ServedModel
from coterie.serving.words import Version
from coterie.types import Items, Ragged, Scores

K, CASES = 10, 2_000
EPSILONS = (0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0)
NEIGHBOURS = (10, 50, 200)
OTHERS = ("ease", "ials", "sequence", "subspace")


def market_cases(seed: int = 0) -> tuple[coterie.InteractionLog, list[tuple[list[str], str]]]:
    """A market without its last tenth of baskets; of each of these, one item is to be found."""
    log = market(shops=4, customers=2_000, items=600, baskets=12_000, seed=seed).log
    baskets = log.frame["basket"].unique().sort()
    held = baskets.tail(len(baskets) // 10)
    lists = log.frame.filter(pl.col("basket").is_in(held.implode())).group_by("basket").agg("item").sort("basket")
    rng = np.random.default_rng(seed)
    cases = []
    for items in lists["item"].to_list():
        distinct = sorted(set(items))
        if len(distinct) > 1:
            target = distinct.pop(rng.integers(len(distinct)))
            cases.append((distinct, target))
    return log.with_frame(log.frame.filter(~pl.col("basket").is_in(held.implode()))), cases[:CASES]


def grocery_cases(folder: Path) -> tuple[coterie.InteractionLog, list[tuple[list[str], str]]]:
    """The fixed split of the receipts: guests all."""
    columns = {"user": "user", "item": "sku", "basket": "basket", "time": "t"}
    log = coterie.read_log(folder / "groceries_train.parquet", **columns)
    table = pl.read_parquet(folder / "groceries_cases_test.parquet").sample(CASES, seed=0)
    return log, list(table.select("cart", "target").iter_rows())


def trained(log: coterie.InteractionLog, model: str) -> Run:
    """The model of everybody, on every row."""
    return coterie.train(log, model=model, seed=0, test="none", settings={"evaluation": {"compare": False}})


class Bench:
    """The cases whose items a run knows."""

    def __init__(self, run: Run, cases: Iterable[tuple[list[str], str]]) -> None:
        place = run.catalogue.places
        known = [([place[i] for i in cart if i in place], place[target]) for cart, target in cases if target in place]
        self.run = run
        self.cart = Ragged.of([cart for cart, _ in known])
        self.target = np.array([target for _, target in known])

    def say(self, what: str, best: Items, more: str = "") -> None:
        """One line; `best` (int32 [cases, 10]) is padded with -1."""
        hits = best == self.target[:, None]
        gain = (hits / np.log2(np.arange(2, best.shape[1] + 2))).sum(axis=1)
        error = gain.std() / np.sqrt(len(gain))
        print(
            f"  {what:28s} NDCG@10 {gain.mean():.4f} ± {error:.4f}  HR@10 {hits.any(axis=1).mean():.4f}  {more}",
            flush=True,
        )

    def best(self, scores: Scores) -> Items:
        return top_k(by_popularity_where_unknown(scores, self.run.state), self.cart, None, K)

    def exact(self) -> Items:
        return self.best(self.run.scores([[self.run.items[i] for i in self.cart[q]] for q in range(len(self.cart))]))

    def popular(self) -> Items:
        return self.best(np.tile(self.run.state["popularity"].astype(np.float32), (len(self.cart), 1)))


def exports(bench: Bench, name: str, kinds: Iterable[tuple[str, int]]) -> None:
    """Each export: quality, agreement, size."""
    with tempfile.TemporaryDirectory() as folder:
        for kind, most in kinds:
            made = export(bench.run, Path(folder) / f"{kind}{most}", kind, neighbours=most)  # type: ignore[arg-type]
            label = f"{name} {kind}" + (f", {most} neighbours" if kind == "browser" else "")
            size = f"same as exact {made.overlap:.3f}  {sum(made.sizes.values()) / 1000:8.1f} kB"
            bench.say(label, bench.best(scorer(bench.run, kind, most)(bench.cart)), size)


def scorer(run: Run, kind: str, most: int) -> Callable[[Ragged], Scores]:
    """What scores as the export does, in the order of the run's items."""
    if kind == "onnx":
        return DenseModel.of(run).scores
    model = BrowserModel.of(run, most)
    order = np.array([run.catalogue.places[id] for id in model.ids])
    place = np.argsort(order).astype(np.int32)
    return lambda cart: model.scores(Ragged(cart.ptr, place[cart.item]))[:, place]


def noisy(bench: Bench) -> None:
    """Answers of ten as they are drawn; whoever asked drops what is in the basket already."""
    served = ServedModel.of(bench.run, Version(1, "", "", bench.run.model.name, None, 0))
    view = served.view(None)
    prior = base(view)
    worth = [utilities(served, view, np.unique(bench.cart[q])) for q in range(len(bench.cart))]
    bench.say("votes without noise", without_basket(bench, [np.argsort(-u, kind="stable")[: K + 40] for u in worth]))
    for epsilon in EPSILONS:
        bench.say(f"noisy, epsilon {epsilon:g}", without_basket(bench, [draw(u, K, epsilon, prior) for u in worth]))


def without_basket(bench: Bench, lists: list[Items]) -> Items:
    """The best of each list that are not in the basket: int32 [cases, 10], padded with -1."""
    out = np.full((len(lists), K), -1, np.int32)
    for q, one in enumerate(lists):
        kept = one[~np.isin(one, bench.cart[q])][:K]
        out[q, : len(kept)] = kept
    return out


def measure(title: str, log: coterie.InteractionLog, cases: list[tuple[list[str], str]]) -> None:
    """All lines of one log."""
    bench = Bench(trained(log, "cart"), cases)
    print(f"{title}: {len(bench.run.items)} items, {len(bench.cart)} baskets", flush=True)
    bench.say("popularity", bench.popular())
    bench.say("cart, exact", bench.exact())
    exports(bench, "cart", [*(("browser", most) for most in NEIGHBOURS), ("onnx", 50)])
    noisy(bench)
    for name in OTHERS:
        other = Bench(trained(log, name), cases)
        other.say(f"{name}, exact", other.exact())
        exports(other, name, [("browser", 50)])


if __name__ == "__main__":
    measure("synthetic market", *market_cases())
    measure("groceries", *grocery_cases(data.folder("cart-splits")))
