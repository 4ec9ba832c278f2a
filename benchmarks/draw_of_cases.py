"""How much the figures of silos move with the draw of the left-out items: four seeds of the comparison over silos."""

from __future__ import annotations

import data
import polars as pl
from cart_completion import COLUMNS

import coterie

if __name__ == "__main__":
    folder = data.folder("cart-splits")
    for name in ("online_retail_countries", "online_retail_shops_seed3"):
        log = coterie.read_log(folder / f"{name}.parquet", client="silo", **COLUMNS)
        log = log.with_frame(log.frame.with_columns(part=pl.read_parquet(folder / f"{name}.parquet")["part"]))
        for seed in range(4):
            for history in (False, True):
                settings = {"evaluation": {"history": history}}
                run = coterie.train(log, model="cart", test="given", seed=seed, settings=settings)
                macro = {scheme: round(run.result["macro"][scheme]["ndcg@10"], 4) for scheme in ("alone", "mix")}
                label = "own history" if history else "cart only"
                print(f"{name} seed {seed} {label}: {macro}, {run.result['comparison']['sentence']}", flush=True)
