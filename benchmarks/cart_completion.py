"""Cart completion on fixed splits: which item was left out of this basket?

Two basket logs (a gift wholesaler's invoices, a grocery's receipts): fit on training and validation rows, rank the left-out
item over the whole catalogue minus the cart. Then the same wholesaler's lines as silos (11 countries, 8 simulated shops):
each ranks its own catalogue, and is compared with training alone. Default hyper-parameters, and those chosen on
validation. Figures of silos are one retailer's, cut into parts.
"""

from __future__ import annotations

from pathlib import Path

import data
import polars as pl

import coterie


def log_of(path: Path, **columns: str) -> coterie.InteractionLog:
    return coterie.read_log(path, user="user", item="sku", basket="basket", time="t", **columns)


def cases_of(path: Path) -> pl.DataFrame:
    return (
        pl.read_parquet(path)
        .with_columns(pl.col("user", "basket").cast(pl.String), targets=pl.concat_list("target"))
        .drop("target")
    )


def line(name: str, metrics: dict[str, float], macro: dict[str, float] | None = None) -> None:
    tail = f"  macro NDCG@10 {macro['ndcg@10']:.4f}" if macro else ""
    print(f"  {name:28s} HR@10 {metrics['hit_rate@10']:.4f}  NDCG@10 {metrics['ndcg@10']:.4f}{tail}", flush=True)


def whole_catalogue(folder: Path, name: str, **columns: str) -> None:
    train, valid = (log_of(folder / f"{name}_{part}.parquet", **columns) for part in ("train", "valid"))
    test = cases_of(folder / f"{name}_cases_test.parquet")
    for tune in (False, True):
        run = coterie.train(train, model="cart", valid=valid, test=test, tune=tune)
        print(f"{name}, {'chosen on validation' if tune else 'defaults'}: {run.model!r}")
        for scheme in ("popularity", "federated_cart_only", "federated"):
            if scheme in run.metrics:
                line({"federated": "with own history"}.get(scheme, scheme), run.metrics[scheme])


def silos(folder: Path, name: str) -> None:
    path = folder / f"{name}.parquet"
    log = coterie.read_log(path, user="user", item="sku", basket="basket", time="t", client="silo")
    log = log.with_frame(log.frame.with_columns(part=pl.read_parquet(path)["part"]))
    for history in (False, True):
        run = coterie.train(log, model="cart", test="given", settings={"evaluation": {"history": history}})
        print(f"{name}, {'with own history' if history else 'cart only'}: {run.result['comparison']['sentence']}")
        for scheme in ("alone", "federated", "mix", "centralised"):
            line(scheme, run.metrics[scheme], run.result["macro"][scheme])
        for row in run.result["per_client"]:
            values = "  ".join(f"{s} {row[s]['ndcg@10']:.4f}" for s in ("alone", "federated", "mix"))
            print(f"    {row['client']:16s} {row['cases']:6d} cases  {values}  weight of own {row['mix_weight']}")


if __name__ == "__main__":
    splits = data.folder("cart-splits")
    whole_catalogue(splits, "online_retail")
    whole_catalogue(splits, "groceries")
    silos(splits, "online_retail_countries")
    silos(splits, "online_retail_shops_seed3")
