"""Times and values out of cells of any type."""

from __future__ import annotations

import datetime as dt

import polars as pl
import pytest

from coterie.data.timetext import times, values
from coterie.errors import DataError


@pytest.mark.parametrize(
    ("cells", "wanted"),
    [
        (["2010-12-01 08:26:00", None, ""], "2010-12-01 08:26"),
        (["2010-12-01T08:26:00Z"], "2010-12-01 08:26"),
        (["2010-12-01T08:26:00.250+02:00"], "2010-12-01 06:26:00.250"),
        (["2010/12/01"], "2010-12-01"),
        (["12/1/2010 8:26"], "2010-12-01 08:26"),
        (["12/1/10 8:26 PM"], "2010-12-01 20:26"),
        (["1/12/2010 8:26", "13/12/2010"], "2010-12-01 08:26"),
        (["01-12-2010", "21-07-2015"], "2010-12-01"),
        (["1.12.2010"], "2010-12-01"),
        (["1 Dec 2010"], "2010-12-01"),
        (["December 1, 2010 08:26"], "2010-12-01 08:26"),
        ([1291191960], "2010-12-01 08:26"),
        (["1291191960"], "2010-12-01 08:26"),
        ([1291191960.0, float("nan")], "2010-12-01 08:26"),
        ([1291191960_000], "2010-12-01 08:26"),
        ([1291191960_000_000], "2010-12-01 08:26"),
        ([1291191960_000_000_000], "2010-12-01 08:26"),
        ([20101201], "2010-12-01"),
        ([7, 8], "1970-01-01 00:00:07"),
        ([dt.date(2010, 12, 1)], "2010-12-01"),
        ([dt.datetime(2010, 12, 1, 10, tzinfo=dt.timezone(dt.timedelta(hours=2)))], "2010-12-01 08:00"),
    ],
)
def test_times(cells: list[object], wanted: str) -> None:
    parsed = times(pl.Series(cells), "x")
    assert parsed.dtype == pl.Datetime("us")
    assert parsed[0] == dt.datetime.fromisoformat(wanted)
    assert parsed.null_count() == sum(str(cell) in ("None", "", "nan") for cell in cells)


@pytest.mark.parametrize(
    ("cells", "bad"),
    [
        (["2010-12-01", "soon", "later"], "'soon' in data row 2"),
        (["2010-02-30"], "2010-02-30"),
        (["2010-12-01 25:00"], "25:00"),
        (["13/1/2010", "1/13/2010"], "1/13/2010"),
        ([1.0, float("inf")], "inf in data row 2"),
        (["1e30"], "1e+30"),
    ],
)
def test_what_is_no_time_is_refused_with_its_row(cells: list[object], bad: str) -> None:
    with pytest.raises(DataError) as error:
        times(pl.Series(cells), "log.csv: column 't'")
    for words in ("log.csv: column 't'", bad, f"of {len(cells)}"):
        assert words in str(error.value)


def test_values() -> None:
    assert values(pl.Series(["1", " 2.5", "", "-3"]), "x").to_list() == [1.0, 2.5, None, -3.0]
    assert values(pl.Series([1.0, float("nan")]), "x").to_list() == [1.0, None]
    for cells in (["1", "two"], [1.0, float("inf")]):
        with pytest.raises(DataError, match="in data row 2"):
            values(pl.Series(cells), "x")
