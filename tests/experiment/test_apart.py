"""Trainings never mix: not in a folder, not between validation and test, not between clients that nobody trained."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import coterie
from coterie.data.market import market
from coterie.errors import ConfigError, DataError


@pytest.fixture(scope="module")
def log() -> coterie.InteractionLog:
    return market(shops=3, customers=150, items=60, baskets=900, seed=4).log


def test_a_run_is_never_written_over_another(log: coterie.InteractionLog, tmp_path: Path) -> None:
    first = coterie.train(log)
    first.save(tmp_path / "run")
    second = coterie.train(log, regularisation=50.0)
    with pytest.raises(ConfigError, match="exists and is not empty"):
        second.save(tmp_path / "run")
    with pytest.raises(ConfigError, match="exists and is not empty"):
        coterie.train(log, output=tmp_path / "run")
    client = next(iter(first.clients))
    kept = coterie.load(tmp_path / "run").clients[client].state["weights"]
    assert np.array_equal(kept, first.clients[client].state["weights"])


def test_the_test_is_apart_from_validation_too(log: coterie.InteractionLog) -> None:
    cut = log.frame["time"].quantile(0.8)
    early, late = (log.with_frame(log.frame.filter(keep)) for keep in (pl.col("time") < cut, pl.col("time") >= cut))
    with pytest.raises(DataError, match="in the training log"):
        coterie.train(early, valid=late, test=late)


def test_cases_of_a_client_that_nobody_trained_are_counted(log: coterie.InteractionLog) -> None:
    cut = log.frame["time"].quantile(0.8)
    new = pl.when(pl.col("time") >= cut).then(pl.lit("new")).otherwise("client")
    moved = log.with_frame(
        log.frame.with_columns(client=pl.when(pl.col("client") == "shop1").then(new).otherwise("client"))
    )
    run = coterie.train(moved, test="carts")
    assert "new" in run.result["clients_without_cases"]
    whole = coterie.train(log, test="carts").result["cases"]
    assert (
        sum(run.result["cases"][k] for k in ("evaluated", "unreachable")) == whole["evaluated"] + whole["unreachable"]
    )


def test_guests_share_no_basket_that_is_made_up() -> None:
    rows = [("guest", f"i{n % 9}", f"2024-01-0{1 + n % 4}") for n in range(40)]
    rows += [(f"u{n % 8}", f"i{n % 7}", f"2024-01-0{1 + n % 5}") for n in range(80)]
    frame = pl.DataFrame(rows, schema=["user", "item", "time"], orient="row").with_columns(
        pl.col("time").str.to_datetime(time_unit="us")
    )
    run = coterie.train(coterie.InteractionLog(frame), settings={"data": {"basket_from": "user-day"}})
    assert run.result["data"]["users"] == 8
    assert run.result["data"]["guests"] == 0  # a guest's row without a basket goes with nothing, and is reported
    assert any(entry["step"] == "missing users" and entry["dropped"] == 40 for entry in run.result["cleaning"])
