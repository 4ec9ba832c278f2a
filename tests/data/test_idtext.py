"""Ids as text."""

from __future__ import annotations

import datetime as dt
import unicodedata

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.data.idtext import MISSING, id_text
from coterie.errors import DataError

words = st.text(min_size=1, max_size=12).map(lambda text: unicodedata.normalize("NFC", text.strip()))


@given(st.lists(words.filter(lambda text: text.lower() not in MISSING), min_size=1))
def test_ids_survive_as_they_are(ids: list[str]) -> None:
    texts = [*ids, "A5.0"]  # one value that is no number: the column keeps every `.0`
    kept = [text for text in texts if not any(unicodedata.category(mark) == "Cc" for mark in text)]
    assert id_text(pl.Series(kept), "x").to_list() == kept


@given(st.lists(st.integers(-(2**53), 2**53), min_size=1))
def test_whole_numbers_have_one_text(numbers: list[int]) -> None:
    wanted = [str(number) for number in numbers]
    assert id_text(pl.Series(numbers), "x").to_list() == wanted
    assert id_text(pl.Series([float(number) for number in numbers]), "x").to_list() == wanted
    assert id_text(pl.Series([f"{number}.0" for number in numbers]), "x").to_list() == wanted


def test_ids_at_the_edges() -> None:
    assert id_text(pl.Series(["00123", "4006381333931", " 1.10 "]), "x").to_list() == [
        "00123",
        "4006381333931",
        " 1.10 ",
    ]
    assert id_text(pl.Series(["17850.0", "", "nan", "NULL", "n/a"]), "x").to_list() == ["17850", None, None, None, None]
    assert id_text(pl.Series(["A\u030a"]), "x").to_list() == ["\u00c5"]
    assert id_text(pl.Series([1.5, 2.0, None, float("nan")]), "x").to_list() == ["1.5", "2", None, None]


@pytest.mark.parametrize("cells", [[True], [[1]], [{"a": 1}], [dt.date(2020, 1, 1)], [float("inf")]])
def test_what_is_no_id_is_refused(cells: list[object]) -> None:
    with pytest.raises(DataError, match="ids must be text or whole numbers"):
        id_text(pl.Series(cells), "log.csv: column 'x'")
