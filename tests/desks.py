"""Desks of three shops, on files with columns of their own, and the model that they train together."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from coterie.data.market import market
from coterie.experiment.desk import Desk, JobFacts, Work
from coterie.federation.alignment import Alignment
from coterie.federation.config import NodeConfig
from coterie.federation.localstore import FolderStore
from coterie.federation.loop import run_rounds
from coterie.federation.release import Leave, nothing
from coterie.models.base import Model
from coterie.privacy.plan import BoundRound, Plan
from coterie.ring import Accumulator
from coterie.settings import DataSettings
from coterie.types import State, Summand, Total

COLUMNS = {"user": "user", "item": "item", "time": "time", "value": "value", "basket": "basket"}
OTHER = {"user": "Kunde", "item": "Artikel", "time": "Datum", "value": "Menge", "basket": "Bon"}
PRIVATE = Plan(epsilon=4.0, max_users=1000)
EASE: Mapping[str, Any] = {"name": "ease"}
LOG = market(shops=3, customers=210, items=60, baskets=1500, seed=4).log
ITEMS = tuple(LOG.frame["item"].unique().sort())


def rows_of(shop: str) -> pl.DataFrame:
    return LOG.frame.filter(pl.col("client") == shop).drop("client")


def written(path: Path, frame: pl.DataFrame, names: Mapping[str, str] = COLUMNS, **more: Any) -> DataSettings:
    """The frame as a file with these column names, and how to read it."""
    frame.rename({role: name for role, name in names.items() if role in frame.columns}).write_parquet(path)
    columns = {f"{role}_column": name for role, name in names.items() if role in frame.columns}
    return DataSettings(logs=(str(path),), **{**columns, **more})


def items_file(path: Path, items: tuple[str, ...] = ITEMS) -> str:
    texts = pl.DataFrame({"item": items}).join(LOG.texts.select("item", "title"), on="item", how="left")
    texts.write_csv(path)
    return str(path)


def config(data: DataSettings, name: str = "shop1", **more: Any) -> NodeConfig:
    return NodeConfig(name=name, address="localhost:9443", data=data, **more)


def facts(model: Mapping[str, Any] = EASE, plan: Plan | None = None, **more: Any) -> JobFacts:
    texts = more.pop("texts", LOG.texts.select("item", "title"))
    return JobFacts(model, plan or Plan(), 0, more.pop("items", ITEMS), texts, **more)


def desk_of(tmp_path: Path, shop: str = "shop1", frame: pl.DataFrame | None = None, **more: Any) -> Desk:
    data = written(tmp_path / f"{shop}.parquet", rows_of(shop) if frame is None else frame)
    data = data.model_copy(update={"items": more.pop("items", None)})
    return Desk(config(data, shop, **more))


class Desks:
    """A round engine (`coterie.federation.loop.RoundEngine`) that adds up what desks contribute."""

    one_user_each = False

    def __init__(self, works: Mapping[str, Work], folder: Path) -> None:
        self.works, self.users, self.clients = works, sum(work.users for work in works.values()), len(works)
        self.stores = {name: FolderStore(folder, name) for name in works}

    def collect(self, summand: Summand, bound: BoundRound, state: State, leave: Leave = nothing) -> Total:
        out = Accumulator(bound.spec)
        for name, work in self.works.items():
            out.merge(work.contribute(summand, bound.spec, state, self.stores[name]))
            self.stores[name].commit(bound.spec.index, 0)
        return Total(bound.spec, out.parts, bound.noise_std(0), len(self.works), 0)


def trained(works: Mapping[str, Work], folder: Path, job: JobFacts, model: Model | None = None) -> State:
    return run_rounds(model or job.build(), job.opening(), Desks(works, folder), Plan(clip_norm=job.plan.clip_norm))


def together(tmp_path: Path, job: JobFacts, **more: Any) -> tuple[dict[str, Work], State]:
    """The three shops' desks on one job, and the model that they train."""
    works = {f"shop{at}": desk_of(tmp_path, f"shop{at}", **more).open(job) for at in (1, 2, 3)}
    return works, trained(works, tmp_path / "stores", job)


def aligned(items: tuple[str, ...], names: Mapping[str, str], own: tuple[str, ...]) -> Alignment:
    """Own items that others know as `names`, on the agreed catalogue `items`."""
    place = {name: at for at, name in enumerate(items)}
    return Alignment(own, np.array([place.get(names.get(item, ""), -1) for item in own], np.int32), len(items))


def hashed(item: str) -> str:
    return f"{hash_of(item):032x}"


def hash_of(item: str) -> int:
    return int.from_bytes(item.encode()) * 0x9E3779B97F4A7C15 % 2**128
