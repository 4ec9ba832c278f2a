"""Opening text tables: compression, encoding, delimiter; every flaw of the bytes is one clear error."""

from __future__ import annotations

import codecs
import csv
import gzip
import io
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from coterie.errors import ConfigError, DataError

DELIMITERS = (",", ";", "\t", "|")
UNIT_SEPARATOR = "\x1f"
"""Stands in for delimiters of several characters (``::``), which CSV readers do not know."""

_HEAD = 1 << 18  # bytes that are looked at to find the format
_GZIP = b"\x1f\x8b"
_FOREIGN = {
    b"PK\x03\x04": "a spreadsheet or zip archive; save it as CSV or Parquet",
    b"\xd0\xcf\x11\xe0": "an old spreadsheet; save it as CSV or Parquet",
    b"BZh": "bzip2-compressed; unpack it or use gzip",
    b"\xfd7zXZ": "xz-compressed; unpack it or use gzip",
    b"\x28\xb5\x2f\xfd": "zstd-compressed; unpack it or use gzip",
}


@dataclass(frozen=True)
class TextFile:
    """An opened text file: `content` is UTF-8, or None where the file at `path` can be read as it is.

    `head` is the text of its first whole lines.
    """

    path: Path
    content: bytes | None
    head: str

    def source(self) -> bytes | Path:
        """What a UTF-8 reader takes."""
        return self.path if self.content is None else self.content

    def text(self) -> str:
        """The whole text."""
        return _decode(self.path.read_bytes() if self.content is None else self.content, "utf-8", self.path)

    def with_delimiter(self, delimiter: str, stand_in: str) -> TextFile:
        """The same text with another delimiter."""
        text = self.text().replace(delimiter, stand_in)
        return TextFile(self.path, text.encode(), self.head.replace(delimiter, stand_in))

    def sample(self, delimiter: str, quoted: bool = True) -> list[list[str]]:
        """Fields of the first non-blank lines."""
        return [row for row in self._rows(io.StringIO(self.head, newline=""), delimiter, quoted) if row]

    def rows(self, delimiter: str, quoted: bool = True) -> Iterator[tuple[int, list[str]]]:
        """All non-blank rows with the line on which each starts, by Python's reader: slow, for finding flaws."""
        line = 1
        lines = io.StringIO(self.text(), newline="")
        reader = csv.reader(lines, delimiter=delimiter, quoting=_quoting(quoted), strict=True)
        try:
            for row in reader:
                if row:
                    yield line, row
                line = reader.line_num + 1
        except csv.Error as error:
            raise DataError(f"{self.path}: line {line} cannot be read ({error}); check its quotes") from None

    def _rows(self, lines: io.StringIO, delimiter: str, quoted: bool) -> Iterator[list[str]]:
        try:
            yield from csv.reader(lines, delimiter=delimiter, quoting=_quoting(quoted))
        except csv.Error as error:
            raise DataError(
                f"{self.path}: the first lines cannot be read ({error}); check quotes and delimiter"
            ) from None


def existing_file(path: str | Path) -> Path:
    """`path`, if a readable file with content is there.

    Raises:
        DataError: it is missing, a directory, empty, or may not be read.
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise DataError(f"{path}: is a directory; name the file in it")
        if not path.exists():
            raise DataError(f"{path}: no such file; check the path (relative paths start at {Path.cwd()})")
        with path.open("rb") as file:
            if not file.read(1):
                raise DataError(f"{path}: the file is empty; check how it was written")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check the path and its permissions") from None
    return path


def magic(path: Path) -> bytes:
    """The first bytes of a file."""
    with path.open("rb") as file:
        return file.read(8)


def open_text(path: Path, encoding: str) -> TextFile:
    """Open a text file, unpacking gzip (known by its first bytes) and converting to UTF-8 where needed.

    Raises:
        ConfigError: `encoding` is unknown.
        DataError: the file is no text, is truncated, or has bytes that `encoding` does not allow.
    """
    codec = _codec(encoding)
    first = magic(path)
    for start, what in _FOREIGN.items():
        if first.startswith(start):
            raise DataError(f"{path}: is {what}")
    content = _gunzip(path) if first.startswith(_GZIP) else None
    if codec != "utf-8":
        raw = path.read_bytes() if content is None else content
        content = _decode(raw, codec, path).encode()
    head = _head(path, content)
    if "\r" in head and "\n" not in head:  # line ends of old Macs
        raw = path.read_bytes() if content is None else content
        content, head = raw.replace(b"\r", b"\n"), head.replace("\r", "\n")
    if not head.strip():
        raise DataError(f"{path}: the file is empty; check how it was written")
    return TextFile(path, content, head)


def refuse_invalid(file: TextFile) -> None:
    """Name the first byte that is not UTF-8, if there is one.

    Raises:
        DataError: with the offset and the remedy.
    """
    file.text()


def delimiter_of(text: TextFile) -> str | None:
    """The delimiter that splits the first line, preferring one that splits all lines alike; None if nothing does."""
    best: tuple[bool, int] = (False, 1)
    found = None
    for delimiter in DELIMITERS:
        widths = [len(row) for row in text.sample(delimiter)]
        alike = widths.count(widths[0]) >= 0.9 * len(widths)
        if widths[0] > 1 and (alike, widths[0]) > best:
            best, found = (alike, widths[0]), delimiter
    return found


def most_used_delimiter(text: TextFile) -> str | None:
    """The delimiter that occurs most often in the first lines; None if none does."""
    counts = Counter({delimiter: text.head.count(delimiter) for delimiter in DELIMITERS})
    delimiter, count = counts.most_common(1)[0]
    return delimiter if count else None


def _quoting(quoted: bool) -> Literal[0, 3]:
    return csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE


def _codec(encoding: str) -> str:
    try:
        name = codecs.lookup(encoding).name
        "".encode(name)  # refuses codecs that are not for text
    except LookupError:
        raise ConfigError(f"encoding '{encoding}' is unknown; name one such as utf-8, cp1252 or utf-16") from None
    return "utf-8" if name in ("utf-8", "utf-8-sig", "ascii") else name


def _gunzip(path: Path) -> bytes:
    try:
        with gzip.open(path) as file:
            return file.read()
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(f"{path}: the gzip file is truncated or damaged ({error}); fetch it again") from None


def _decode(raw: bytes, codec: str, path: Path) -> str:
    try:
        return raw.decode(codec).removeprefix("\ufeff")
    except UnicodeDecodeError as error:
        raise _invalid(path, codec, raw, error.start) from None


def _invalid(path: Path, codec: str, raw: bytes, offset: int) -> DataError:
    hint = "utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "cp1252"
    remedy = f"name its encoding, such as --encoding {hint}" if codec != hint else "name its encoding with --encoding"
    return DataError(f"{path}: byte {offset} (0x{raw[offset]:02x}) is not {codec}; {remedy}")


def _head(path: Path, content: bytes | None) -> str:
    """The first whole lines of UTF-8 text, without a byte order mark."""
    if content is None:
        with path.open("rb") as file:
            raw = file.read(_HEAD + 1)
    else:
        raw = content[: _HEAD + 1]
    if len(raw) > _HEAD:
        cut = max(raw.rfind(b"\n"), raw.rfind(b"\r"))
        if cut < 0:
            raise DataError(
                f"{path}: has no line end in its first {_HEAD >> 10} KB and is no text table; name its --format"
            )
        raw = raw[: cut + 1]
    text = _decode(raw, "utf-8", path)
    if "\x00" in text:
        raise DataError(
            f"{path}: holds zero bytes and is no text table; name its encoding (--encoding utf-16) or format"
        )
    return text
