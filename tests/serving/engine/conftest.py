"""Small trained runs that the tests of the engine share."""

import numpy as np
import polars as pl
import pytest

import coterie
from coterie.data.market import market
from coterie.serving.engine import ServedModel
from coterie.serving.words import Version

NEWEST = Version(1, "runs/first", "f" * 64, "model", None, 0)
_trained: dict[str, ServedModel] = {}


@pytest.fixture(scope="session")
def shop_log():
    return market(shops=3, customers=80, items=60, baskets=500, seed=5).log


@pytest.fixture(scope="session")
def ratings_log():
    draw = np.random.default_rng(0)
    rows = [(f"u{u}", f"f{i:02d}", float(1 + (u + i) % 5)) for u in range(60) for i in draw.permutation(25)[:8]]
    frame = pl.DataFrame(rows, schema={"user": pl.String, "item": pl.String, "value": pl.Float64}, orient="row")
    return coterie.InteractionLog(frame)


@pytest.fixture(scope="session")
def model_of(shop_log, ratings_log):
    """`model_of("ease")` is a served model, trained once; "ratings" is matrix factorisation of ratings."""

    def made(name: str) -> ServedModel:
        if name not in _trained:
            if name == "ratings":
                run = coterie.train(ratings_log, model="mf", rounds=10)
            else:
                run = coterie.train(shop_log, model=name, test="carts" if name == "cart" else None)
            _trained[name] = ServedModel.of(run, NEWEST)
        return _trained[name]

    return made
