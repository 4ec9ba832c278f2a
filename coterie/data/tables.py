"""Tables as they lie in files: which format, which columns, and the raw cells."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import polars as pl

from coterie.data.mapping import ROLES, looks_like_header
from coterie.data.textfile import (
    UNIT_SEPARATOR,
    TextFile,
    delimiter_of,
    existing_file,
    magic,
    most_used_delimiter,
    open_text,
    refuse_invalid,
)
from coterie.errors import ConfigError, DataError
from coterie.settings import DataSettings

Format: TypeAlias = Literal["parquet", "csv", "udata", "baskets"]

FIXED: Mapping[str, Mapping[str, str]] = {
    "udata": {"user": "user", "item": "item", "value": "rating", "time": "timestamp"},
    "baskets": {"item": "item", "basket": "basket"},
}
"""Columns by role of the formats that have no header."""

PARQUET = b"PAR1"
"""How a Parquet file starts."""

_POLARS_FAULTS = (pl.exceptions.PolarsError, pl.exceptions.PanicException, OSError)
_UDATA_LINE = re.compile(r"^-?\d+(\t|::)-?\d+\1-?\d+(\.\d+)?\1\d{7,}\s*$")
_SPACED_NUMBERS = re.compile(r"^\d+( \d+)* ?$")

# Item files of MovieLens have no header; their names and layout have been the same since 1998.
_HEADERLESS: Mapping[str, tuple[str, ...]] = {
    "u.item": (
        *("item", "title", "release_date", "video_release_date", "url", "unknown", "action", "adventure", "animation"),
        *(
            "children",
            "comedy",
            "crime",
            "documentary",
            "drama",
            "fantasy",
            "film_noir",
            "horror",
            "musical",
            "mystery",
        ),
        *("romance", "sci_fi", "thriller", "war", "western"),
    ),
    "movies.dat": ("item", "title", "genres"),
}


@dataclass(frozen=True)
class Table:
    """A file that was opened: its format, its columns, and its rows, read when asked for."""

    path: Path
    format: Format
    columns: tuple[str, ...]
    rows: pl.LazyFrame

    def read(self, columns: Sequence[str] | None = None) -> pl.DataFrame:
        """These columns (all if None) with their cells as they are in the file.

        Raises:
            DataError: the file is damaged or has no rows.
        """
        try:
            frame = (self.rows if columns is None else self.rows.select(columns)).collect()
        except _POLARS_FAULTS as error:
            raise DataError(
                f"{self.path}: cannot be read as {self.format} ({first_line(error)}); write it again"
            ) from None
        if not frame.height:
            raise DataError(f"{self.path}: has columns ({', '.join(self.columns)}) but no rows")
        return frame


def read_table(path: str | Path, settings: DataSettings) -> pl.DataFrame:
    """The whole table at `path`: native types from Parquet, text (null where empty) from text files.

    Formats without a header get the columns of `FIXED`: ``udata`` user, item, rating, timestamp; ``baskets`` basket
    (the line number) and item. A text file whose columns `settings` name by number (``1``, ``2``, ...) has no header
    either.

    Raises:
        ConfigError: unknown encoding, or an unusable delimiter.
        DataError: the file is missing, empty, damaged, ragged or of another format.
    """
    return open_table(path, settings).read()


def open_table(path: str | Path, settings: DataSettings) -> Table:
    """Find the format and columns of a file; Parquet rows stay on disk until they are read. Raises as `read_table`."""
    path = existing_file(path)
    is_parquet = magic(path).startswith(PARQUET)
    if settings.format == "parquet" or (settings.format == "auto" and path.suffix == ".parquet"):
        if not is_parquet:
            raise DataError(f"{path}: is not a Parquet file; name its format with --format csv, udata or baskets")
    elif settings.format != "auto" and is_parquet:
        raise DataError(f"{path}: is a Parquet file, not {settings.format}; leave out --format or name parquet")
    if is_parquet:
        return _parquet(path)
    text = open_text(path, settings.encoding)
    match settings.format if settings.format != "auto" else _detect(text, settings):
        case "udata":
            return _udata(text)
        case "baskets":
            return _baskets(text, settings)
        case _:
            return _csv(text, settings)


def first_line(error: BaseException) -> str:
    """The first line of a library's message."""
    return str(error).strip().split("\n")[0]


def _parquet(path: Path) -> Table:
    try:
        rows = pl.scan_parquet(path)
        columns = tuple(rows.collect_schema().names())
    except _POLARS_FAULTS as error:
        raise DataError(
            f"{path}: the Parquet file is truncated or damaged ({first_line(error)}); write it again"
        ) from None
    return Table(path, "parquet", columns, rows)


def _detect(text: TextFile, settings: DataSettings) -> Format:
    """The format of a text file that is not named: known layouts, else whether its lines are rows or baskets."""
    lines = [line for line in text.head.splitlines()[:50] if line.strip()]
    if all(_UDATA_LINE.match(line) for line in lines):
        return "udata"
    if text.path.name in _HEADERLESS or any(getattr(settings, f"{role}_column") is not None for role in ROLES):
        return "csv"
    delimiter = _given_delimiter(settings) or delimiter_of(text) or most_used_delimiter(text)
    if delimiter is None:
        return "baskets" if all(_SPACED_NUMBERS.match(line) for line in lines) and len(lines) > 1 else "csv"
    if len(delimiter) > 1:
        return "csv"
    rows = text.sample(delimiter)
    alike = sum(len(row) == len(rows[0]) for row in rows) / len(rows)
    if alike == 1 or looks_like_header(rows[0]):
        return "csv"
    if alike > 0.8:
        raise DataError(
            f"{text.path}: {1 - alike:.0%} of its lines have another number of fields than the first ({len(rows[0])}); "
            "correct them, or name --format baskets if every line is a basket, or --format csv with the --item-column"
        )
    return "baskets"


def _given_delimiter(settings: DataSettings) -> str | None:
    given = settings.delimiter
    if given is None:
        return None
    delimiter = {"tab": "\t", "\\t": "\t", "space": " "}.get(given, given)
    if not delimiter or any(mark in delimiter for mark in '"\r\n'):
        raise ConfigError(f"delimiter must be a character such as , ; | or tab, got {given!r}")
    return delimiter


def _udata(text: TextFile) -> Table:
    delimiter = "::" if "::" in text.head else "\t"
    return _delimited(text, delimiter, "udata", tuple(FIXED["udata"].values()), quoted=False)


def _csv(text: TextFile, settings: DataSettings) -> Table:
    known = _HEADERLESS.get(text.path.name)
    delimiter = _given_delimiter(settings) or delimiter_of(text)
    if "::" in text.head.split("\n")[0] and settings.delimiter is None:
        delimiter = "::"
    delimiter = delimiter or ","
    if known is not None and settings.format == "auto":
        return _delimited(text, delimiter, "csv", known, quoted=False)
    quoted = len(delimiter.encode()) == 1
    if not quoted:
        text, delimiter = text.with_delimiter(delimiter, UNIT_SEPARATOR), UNIT_SEPARATOR
    header = tuple(name.strip() for name in text.sample(delimiter, quoted)[0])
    if _numbered(settings, header):
        numbers = tuple(str(i + 1) for i in range(len(header)))
        return _delimited(text, delimiter, "csv", numbers, quoted)
    _refuse_header(header, text.path)
    return _delimited(text, delimiter, "csv", header, quoted, header=True)


def _numbered(settings: DataSettings, header: Sequence[str]) -> bool:
    """Whether the columns are named by their number: the file has no header."""
    named = [name for role in ROLES if (name := getattr(settings, f"{role}_column")) is not None]
    numbers = {str(i + 1) for i in range(len(header))}
    if not named or any(name not in numbers for name in named):
        return False
    return _only_numbers(header) or not any(name in header for name in named)


def _only_numbers(cells: Sequence[str]) -> bool:
    return all(re.fullmatch(r"-?\d+(\.\d+)?", cell) for cell in cells)


def _refuse_header(header: Sequence[str], path: Path) -> None:
    named = [name for name in header if name]
    if named and _only_numbers(header):
        raise DataError(
            f"{path}: the first line ({', '.join(header[:4])}) holds numbers, no names; number the columns, such as "
            "--user-column 1 --item-column 2, or name --format baskets if every line is a basket"
        )
    if repeated := sorted({name for name in named if named.count(name) > 1}):
        raise DataError(f"{path}: the header names {', '.join(repeated)} more than once; rename the columns")
    if not named:
        raise DataError(f"{path}: the first line names no column; add a header")


def _delimited(
    text: TextFile, delimiter: str, format: Format, names: tuple[str, ...], quoted: bool, header: bool = False
) -> Table:
    """Read delimited text as text; columns whose header is empty (a saved index) are left out."""
    if len(delimiter.encode()) > 1:  # CSV readers know delimiters of one byte
        text, delimiter = text.with_delimiter(delimiter, UNIT_SEPARATOR), UNIT_SEPARATOR
    try:
        frame = pl.read_csv(
            text.source(),
            has_header=header,
            separator=delimiter,
            quote_char='"' if quoted else None,
            infer_schema=False,
            raise_if_empty=False,
        )
    except _POLARS_FAULTS as error:
        raise _flaw(text, delimiter, names, quoted, error) from None
    if frame.width != len(names):
        raise _flaw(text, delimiter, names, quoted, None)
    frame.columns = [name or f"unnamed_{i}" for i, name in enumerate(names)]
    if frame.height and frame[:, -1].null_count():
        # A row that is too short ends in nulls, as one with empty cells does: only the text tells them apart.
        _refuse_ragged(text, delimiter, names, quoted)
        frame = frame.filter(~pl.all_horizontal(pl.all().is_null()))  # blank lines are no rows
    kept = [name for name in names if name]
    # Space around a cell of a text file is layout; in a typed file it belongs to the value.
    return Table(text.path, format, tuple(kept), frame.lazy().select(pl.col(kept).str.strip_chars()))


def _flaw(text: TextFile, delimiter: str, names: Sequence[str], quoted: bool, error: BaseException | None) -> DataError:
    """Why a text could not be read: bytes, then rows, then what the reader said."""
    refuse_invalid(text)
    _refuse_ragged(text, delimiter, names, quoted)
    said = "" if error is None else f" ({first_line(error)})"
    return DataError(f"{text.path}: cannot be read as delimited text{said}; check quotes and --delimiter")


def _refuse_ragged(text: TextFile, delimiter: str, names: Sequence[str], quoted: bool) -> None:
    for line, row in text.rows(delimiter, quoted):
        if len(row) != len(names):
            fixed = tuple(names) == tuple(FIXED["udata"].values())
            remedy = "" if fixed else ", or name --format baskets if every line is a basket"
            expected = f"{len(names)} ({', '.join(names)})" if fixed else str(len(names))
            raise DataError(
                f"{text.path}: line {line} has {len(row)} fields where {expected} are expected; correct it{remedy}"
            )


def _baskets(text: TextFile, settings: DataSettings) -> Table:
    """One basket per line: the basket's id is the number of its line."""
    delimiter = _given_delimiter(settings) or most_used_delimiter(text)
    if delimiter is None:
        delimiter = " " if all(_SPACED_NUMBERS.match(line) for line in text.head.splitlines() if line.strip()) else ","
    content = text.text()
    if '"' in content and len(delimiter) == 1:
        pairs = [(str(line), row) for line, row in text.rows(delimiter)]
        frame = pl.DataFrame(pairs, schema={"basket": pl.String, "item": pl.List(pl.String)}, orient="row")
    else:
        lines = pl.DataFrame({"item": content.split("\n")}, schema={"item": pl.String}).with_row_index(
            "basket", offset=1
        )
        frame = lines.select(pl.col("basket").cast(pl.String), pl.col("item").str.split(delimiter))
    frame = frame.explode("item").with_columns(pl.col("item").str.strip_chars())
    return Table(text.path, "baskets", ("basket", "item"), frame.filter(pl.col("item").fill_null("") != "").lazy())
