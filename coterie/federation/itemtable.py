"""Tables of items as they travel: ids, titles and attributes in JSON; and one table out of several that disagree.

    {"item": ["a1", "b2"], "title": ["Mug", null], "attributes": {"category": ["kitchen", null]}}

Ids are ascending and distinct; attributes are texts or finite numbers, one kind in a column. What a peer sends is
checked against all of it before anything is made of it, and within bounds that a hostile one cannot pass.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

import polars as pl

from coterie.errors import DataError, PeerError

Blob: TypeAlias = bytes | bytearray | memoryview

MAX_ITEMS = 1_000_000
MAX_BYTES = 64 << 20  # of a table: so that what its JSON unfolds to still fits beside others
MAX_ID, MAX_TEXT, MAX_ATTRIBUTES = 200, 1_000, 32  # characters, characters, columns
ITEM, TITLE, ATTRIBUTES = "item", "title", "attributes"
_CONTROL = "[\\p{Cc}\u2028\u2029]"
_LARGEST = 2.0**53  # whole numbers beyond are not exact as float64


def portable(texts: pl.DataFrame, items: Sequence[str], attributes: Iterable[str]) -> pl.DataFrame:
    """What may travel of `texts`: ``item`` (all of `items`, ascending), ``title``, and these attributes.

    Titles and texts are cut to `MAX_TEXT` characters and written in one line; numbers are float64; anything else
    becomes text.

    Raises:
        DataError: too many items or columns, or an id that is empty, too long or holds control characters.
    """
    names = list(attributes)
    _refuse_ids(items)
    if len(names) > MAX_ATTRIBUTES or any(len(name) > MAX_ID for name in names):
        raise DataError(
            f"{len(names)} attributes of items are to be shared; at most {MAX_ATTRIBUTES} can be, with names of at "
            f"most {MAX_ID} characters"
        )
    every = pl.DataFrame({ITEM: items}, schema={ITEM: pl.String})
    title = _plain(texts[TITLE]) if TITLE in texts.columns else pl.Series(TITLE, [None] * texts.height, pl.String)
    kept = texts.select(ITEM).with_columns(title, *(_plain(texts[name]) for name in names))
    return every.join(kept.unique(ITEM, keep="first", maintain_order=True), on=ITEM, how="left", maintain_order="left")


def encode_items(table: pl.DataFrame) -> bytes:
    """A `portable` table as it travels: equal tables give equal bytes.

    Raises:
        DataError: it is longer than `MAX_BYTES`.
    """
    content = {
        ITEM: table[ITEM].to_list(),
        TITLE: table[TITLE].to_list(),
        ATTRIBUTES: {name: table[name].to_list() for name in table.columns if name not in (ITEM, TITLE)},
    }
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"), sort_keys=True, allow_nan=False).encode()
    if len(text) > MAX_BYTES:
        raise DataError(
            f"the list of {table.height:,} items is {len(text) >> 20} MB long, at most {MAX_BYTES >> 20} can travel; "
            "share fewer attributes or shorter titles"
        )
    return text


def decode_items(blob: Blob, sender: str) -> pl.DataFrame:
    """The table that a peer sent: ``item``, ``title`` (String) and its attributes in order of name (String, Float64).

    Raises:
        PeerError: it is not one; names the `sender`.
    """
    if len(blob) > MAX_BYTES:
        raise PeerError(f"{sender}: sent a list of items of {len(blob):,} bytes, at most {MAX_BYTES:,} are taken")
    content = _json(blob, sender)
    if not isinstance(content, dict) or set(content) != {ITEM, TITLE, ATTRIBUTES}:
        raise PeerError(f"{sender}: sent a list of items without exactly the fields item, title and attributes")
    items, attributes = content[ITEM], content[ATTRIBUTES]
    if not isinstance(items, list) or not isinstance(attributes, dict) or len(attributes) > MAX_ATTRIBUTES:
        raise PeerError(
            f"{sender}: sent items or attributes that are no list, or more than {MAX_ATTRIBUTES} attributes"
        )
    if len(items) > MAX_ITEMS:
        raise PeerError(f"{sender}: sent {len(items):,} items, at most {MAX_ITEMS:,} are taken")
    columns = [_ids(items, sender), _texts(TITLE, content[TITLE], len(items), sender)]
    columns += [_attribute(name, attributes[name], len(items), sender) for name in sorted(attributes)]
    return pl.DataFrame(columns)


def united(tables: Sequence[pl.DataFrame], items: Sequence[str]) -> pl.DataFrame:
    """One table of `items` (ascending) out of several: of each title and attribute the value that most of them give.

    Of several that equally many give, the smallest is taken (texts by code point); an attribute that is text in one
    table is text in all. Of more than `MAX_ATTRIBUTES` attributes those stay that most tables have. So neither the
    order of the tables nor a single loud one decides.
    """
    frame = pl.DataFrame({ITEM: items}, schema={ITEM: pl.String})
    having = Counter(name for table in tables for name in table.columns)
    names = sorted(having.keys() - {ITEM, TITLE}, key=lambda name: (-having[name], name))
    for name in (TITLE, *sorted(names[:MAX_ATTRIBUTES])):
        cells = [table.select(ITEM, pl.col(name).alias("value")) for table in tables if name in table.columns]
        if len({cell.schema["value"] for cell in cells}) > 1:
            cells = [cell.cast(pl.String) for cell in cells]
        chosen = _most_named(pl.concat(cells)).rename({"value": name}) if cells else frame.with_columns(title=None)
        frame = frame.join(chosen, on=ITEM, how="left", maintain_order="left")
    return frame


def _most_named(cells: pl.DataFrame) -> pl.DataFrame:
    """The most frequent ``value`` of each ``item``, nulls aside."""
    votes = cells.drop_nulls().group_by(ITEM, "value").len()
    ordered = votes.sort([ITEM, "len", "value"], descending=[False, True, False])
    return ordered.unique(ITEM, keep="first", maintain_order=True).drop("len")


def _plain(column: pl.Series) -> pl.Series:
    """An own column as it may travel."""
    if column.dtype.is_numeric():
        number = column.cast(pl.Float64)
        return number.set(~number.is_finite().fill_null(value=False), None) + 0.0  # -0.0 + 0.0 is 0.0
    text = column.cast(pl.String).str.replace_all(_CONTROL, " ").str.slice(0, MAX_TEXT)
    return text.str.strip_chars().replace("", None)


def _refuse_ids(items: Sequence[str]) -> None:
    if len(items) > MAX_ITEMS:
        raise DataError(f"{len(items):,} items are more than a federation agrees on ({MAX_ITEMS:,}); list fewer")
    ids = pl.Series(ITEM, items, pl.String)
    flawed = ids.filter(~_sound_ids(ids))
    if len(flawed):
        raise DataError(
            f"the item id {flawed[0][:80]!r} cannot be shared: an id has 1 to {MAX_ID} characters in Unicode's "
            "composed form (NFC) and no control characters; correct it in the items file"
        )


def _sound_ids(ids: pl.Series) -> pl.Series:
    """Which ids may travel, for each."""
    plain = ids.str.len_chars().is_between(1, MAX_ID) & ~ids.str.contains(_CONTROL)
    return plain & (ids == ids.str.normalize("NFC"))


def _ids(values: list[Any], sender: str) -> pl.Series:
    ids = pl.Series(ITEM, _checked_texts(values, ITEM, sender), pl.String)
    if ids.null_count() or not _sound_ids(ids).all():
        raise PeerError(f"{sender}: sent an item id that is empty, longer than {MAX_ID} characters, or no plain text")
    if not (ids[1:] > ids[:-1]).all():
        raise PeerError(f"{sender}: sent item ids that are not in ascending order, or one twice")
    return ids


def _texts(name: str, values: Any, length: int, sender: str) -> pl.Series:
    if not isinstance(values, list) or len(values) != length:
        raise PeerError(f"{sender}: sent {length:,} items and a column {name[:40]!r} of another length")
    found = pl.Series(name, _checked_texts(values, name, sender), pl.String)
    if (found.str.len_chars() > MAX_TEXT).any() or found.str.contains(_CONTROL).any():
        raise PeerError(
            f"{sender}: sent a text in column {name[:40]!r} that is longer than {MAX_TEXT} characters or holds control "
            "characters"
        )
    return found


def _attribute(name: str, values: Any, length: int, sender: str) -> pl.Series:
    label = pl.Series([name], dtype=pl.String) if _encodable(name) else None
    if label is None or name in (ITEM, TITLE) or not _sound_ids(label).all():
        raise PeerError(f"{sender}: sent an attribute of items with the name {name[:40]!r}, which is not allowed")
    kinds = {type(value) for value in values} - {type(None)} if isinstance(values, list) else set()
    if not kinds or kinds == {str}:
        return _texts(name, values, length, sender)
    if not kinds <= {int, float} or len(values) != length:
        raise PeerError(
            f"{sender}: sent an attribute {name[:40]!r} that is neither texts nor numbers, one for each item"
        )
    if any(value is not None and not abs(value) <= _LARGEST for value in values if not isinstance(value, float)):
        raise PeerError(f"{sender}: sent an attribute {name[:40]!r} with a number of more than 53 bits")
    numbers = [None if value is None else float(value) + 0.0 for value in values]
    if not all(value is None or math.isfinite(value) for value in numbers):
        raise PeerError(f"{sender}: sent an attribute {name[:40]!r} with a number that is not finite")
    return pl.Series(name, numbers, pl.Float64)


def _checked_texts(values: list[Any], name: str, sender: str) -> list[str | None]:
    """The values, each a text that UTF-8 can write, or None."""
    if any(value is not None and type(value) is not str for value in values):
        raise PeerError(f"{sender}: sent a value in column {name[:40]!r} that is no text")
    if not _encodable("".join(value for value in values if value)):
        raise PeerError(f"{sender}: sent a text in column {name[:40]!r} that is no Unicode")
    return values


def _encodable(text: str) -> bool:
    """Whether UTF-8 can write it: JSON can name half characters (surrogates), which it cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _json(blob: Blob, sender: str) -> Any:
    try:
        return json.loads(str(blob, "utf-8"), object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:  # ValueError: of decoding, of JSON, and of numbers that are too long
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)[:120]
        raise PeerError(f"{sender}: sent a list of items that cannot be read: {reason}") from None


def _once(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a field is there twice")
    return found


def _no_number(word: str) -> Any:
    raise ValueError(f"{word} is no number")
