"""Where each lot is drawn alone, one user less changes nothing for the others: not who trains, nor what is asked."""

from __future__ import annotations

import polars as pl
import pytest

from coterie.data.log import InteractionLog
from coterie.data.market import market
from coterie.data.splits import Split, split
from coterie.settings import SplitSettings

LOG = market(shops=3, customers=90, items=40, baskets=500, seed=0, messy=False).log
GONE = LOG.frame["user"].drop_nulls().unique().sort()[3]


def divided(log: InteractionLog, method: str, *, alone: bool) -> Split:
    return split(log, SplitSettings(split=method, max_targets=2), 0, alone=alone)  # type: ignore[arg-type]


def others(of: Split) -> tuple[set[str], set[str]]:
    """The training rows of all but one user, and what is asked of them."""
    assert of.test is not None
    rows = of.train.frame.filter(pl.col("user") != GONE).rows()
    cases = of.test.cases.filter(pl.col("user") != GONE).iter_rows(named=True)
    return set(map(str, rows)), {str((case["user"], case["basket"], case["targets"])) for case in cases}


@pytest.mark.parametrize("method", ["random-users", "random-rows"])
def test_no_user_moves_the_lots_of_another(method: str) -> None:
    less = LOG.with_frame(LOG.frame.filter(pl.col("user") != GONE))
    assert others(divided(LOG, method, alone=True)) == others(divided(less, method, alone=True))
    assert others(divided(LOG, method, alone=False)) != others(divided(less, method, alone=False))


@pytest.mark.parametrize("method", ["random-users", "random-rows", "carts"])
def test_lots_that_are_drawn_alone_hold_out_what_was_asked_for(method: str) -> None:
    found = divided(LOG, method, alone=True)
    assert found.test is not None
    assert found.valid is not None
    for held in (found.valid, found.test):
        assert 0.02 < len(held.log) / len(LOG) < 0.25
    assert found.train.frame.height + len(found.valid.log) + len(found.test.log) == len(LOG)
