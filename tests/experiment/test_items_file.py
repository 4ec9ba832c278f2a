"""Under a plan with noise an items file is the assortment, and what the log says of items does not get in."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

import coterie
from coterie.data.market import market
from coterie.experiment.itemsfile import listed_items
from coterie.settings import build


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """A log with titles, and an items file that lacks an item of it, and the title of another."""
    log = market(shops=3, customers=120, items=30, baskets=600, seed=2).log
    items = log.frame["item"].unique().sort()
    log.frame.with_columns(name="title of " + pl.col("item")).write_csv(tmp_path / "log.csv")
    listed = pl.DataFrame({"item": [items[0].lower(), *items[1:-1]]})
    titles = pl.when(pl.col("item") != items[1]).then("the " + pl.col("item"))
    listed.with_columns(title=titles, price=1.0).write_csv(tmp_path / "items.csv")
    return tmp_path / "log.csv", tmp_path / "items.csv"


def test_the_catalogue_of_a_private_run_is_the_file_and_its_titles_alone(files: tuple[Path, Path]) -> None:
    log = coterie.read_log(
        files[0], user="user", item="item", basket="basket", client="client", title="name", items=str(files[1])
    )
    settings = {"data": {"items": str(files[1])}, "clean": {"item_case": "codes"}}
    run = coterie.train(log, "popularity", plan=coterie.Plan(epsilon=4.0), settings=settings)
    sold = log.frame["item"].unique().sort()
    assert list(run.items) == sold[:-1].to_list()  # also the one in lower case, as cleaning writes it
    assert run.catalogue.title(sold[0]) == f"the {sold[0].lower()}"
    assert run.catalogue.title(sold[1]) == sold[1]  # the log has a title for it because it was sold
    assert sold[-1] not in run.items
    texts = listed_items(build({**settings, "data": {"items": str(files[1])}}, "test"), log)
    assert texts.columns == ["item", "title", "price"]
