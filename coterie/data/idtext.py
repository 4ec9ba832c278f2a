"""Ids as text, so that ``00123`` and GTINs survive and ``17850.0`` becomes ``17850``."""

from __future__ import annotations

import polars as pl

from coterie.errors import DataError

MISSING = ("", "nan", "null", "none", "na", "n/a")
"""Texts that stand for a missing cell, in any letter case."""

_WHOLE = r"^-?\d+(\.0)?$"


def id_text(cells: pl.Series, what: str) -> pl.Series:
    """Ids of `cells` as a String series: Unicode NFC, null where missing (or blank).

    Whole numbers are printed without a fraction. A text column loses its ``.0`` only where every value is a whole
    number (as pandas writes integers beside missing cells): then ``17850.0`` is ``17850``; ``1.10`` and ``A5.0`` stay.

    Raises:
        DataError: `what` (a file and column, for the message) holds truth values, lists, times or infinite numbers.
    """
    dtype = cells.dtype
    if dtype in (pl.String, pl.Categorical, pl.Enum):
        return _of_text(cells.cast(pl.String))
    if dtype.is_integer():
        return cells.cast(pl.String)
    if dtype.is_float() or isinstance(dtype, pl.Decimal):
        return _of_floats(cells.cast(pl.Float64), what)
    if dtype == pl.Null:
        return cells.cast(pl.String)
    raise DataError(f"{what}: ids must be text or whole numbers, the column holds {dtype}; choose another column")


def present(cells: pl.Series) -> pl.Series:
    """Texts stripped of outer white space, null where they stand for a missing cell."""
    stripped = cells.str.strip_chars()
    frame = stripped.alias("text").to_frame()
    missing = pl.col("text").str.to_lowercase().is_in(MISSING)
    return frame.select(pl.when(~missing).then(pl.col("text")))["text"].rename(cells.name)


def _of_text(cells: pl.Series) -> pl.Series:
    text = cells.str.normalize("NFC")
    shown = present(text)
    if shown.str.contains(_WHOLE).all() and shown.str.ends_with(".0").any():
        return shown.str.strip_suffix(".0")
    return text.zip_with(shown.is_not_null(), shown)


def _of_floats(cells: pl.Series, what: str) -> pl.Series:
    cells = cells.fill_nan(None)
    if cells.is_infinite().any():
        raise DataError(
            f"{what}: ids must be text or whole numbers, the column holds infinite numbers; choose another column"
        )
    exact = cells.abs() < 2.0**63  # beyond that an integer type cannot print them
    whole = ((cells == cells.floor()) & exact).fill_null(value=False)
    integers = cells.set(~whole, None).cast(pl.Int64).cast(pl.String)
    return integers.zip_with(whole, cells.cast(pl.String))
