"""Returns against a slow reference, and what they leave alone."""

from __future__ import annotations

import datetime as dt

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from coterie.data.log import COLUMNS
from coterie.data.returns import cancel_returns

DAY = dt.datetime.fromisoformat("2024-05-01")


def frame(**columns: list[object]) -> pl.DataFrame:
    return pl.DataFrame(columns, schema={name: COLUMNS[name] for name in columns})


def test_time_decides_what_was_earlier_and_missing_values_stay() -> None:
    rows = frame(
        user=["1", "1", "1"],
        item=["a", "a", "a"],
        time=[DAY, DAY - dt.timedelta(1), DAY - dt.timedelta(2)],
        value=[-1.0, 1.0, None],
        basket=["c", "b", "b"],
    )
    assert cancel_returns(rows)["value"].to_list() == [None]
    assert cancel_returns(rows.drop("time"))["value"].to_list() == [-1.0, 1.0, None]


def test_clients_are_kept_apart() -> None:
    rows = frame(user=["1", "1"], item=["a", "a"], value=[1.0, -1.0], client=["north", "south"])
    assert cancel_returns(rows).height == 2


def slow_returns(rows: list[tuple[str | None, str, int, str]]) -> list[tuple[int, int]]:
    """(row, what is left) by the definition, one return at a time."""
    left = [quantity for _, _, quantity, _ in rows]

    def owner(row: tuple[str | None, str, int, str]) -> tuple[str, str | None, str]:
        user, item, _, basket = row
        return ("guest", basket, item) if user is None else ("user", user, item)

    for at, row in enumerate(rows):
        for earlier in reversed(range(at)):
            if left[at] < 0 < left[earlier] and owner(rows[earlier]) == owner(row):
                amount = min(left[earlier], -left[at])
                left[earlier] -= amount
                left[at] += amount
    return [(at, quantity) for at, quantity in enumerate(left) if quantity != 0 or rows[at][2] == 0]


purchases = st.tuples(
    st.sampled_from([None, "1", "2"]), st.sampled_from("ab"), st.integers(-4, 4), st.sampled_from(["g", "h"])
)


@given(st.lists(purchases, max_size=30))
def test_returns_equal_the_slow_reference(rows: list[tuple[str | None, str, int, str]]) -> None:
    user, item, value, basket = ([row[i] for row in rows] for i in range(4))
    marked = frame(user=user, item=item, value=value, basket=basket).with_columns(at=pl.int_range(pl.len()))
    kept = cancel_returns(marked).select("at", "value").filter(pl.col("value").is_not_null())
    zeros = {at for at, row in enumerate(rows) if row[2] == 0}
    assert {(at, left) for at, left in kept.rows() if at not in zeros} == {
        (a, q) for a, q in slow_returns(rows) if a not in zeros
    }
    assert kept["at"].is_sorted()
