"""From files to an `InteractionLog`, to held-out cases and to candidate lists."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

import polars as pl

from coterie.data.idtext import id_text, present
from coterie.data.log import InteractionLog
from coterie.data.mapping import ROLES, Proposal, adopt, find_column, literal, propose, resolve
from coterie.data.tables import FIXED, PARQUET, Table, open_table, read_table
from coterie.data.textfile import existing_file, magic, open_text
from coterie.data.timetext import times, values
from coterie.errors import DataError
from coterie.settings import DataSettings

__all__ = ["proposal", "read_candidates", "read_cases", "read_log", "read_table"]

Paths: TypeAlias = str | Path | Sequence[str | Path]

PARTS = {"train": "train", "valid": "valid", "validation": "valid", "val": "valid", "test": "test"}
"""What a part column may say, and what it means."""

_SAMPLE = 10_000  # rows that a proposal looks at
_TITLES = ("title", "name", "description", "desc", "label")
_NCF_LINE = re.compile(r"^\(([^,()\t]+),([^,()\t]+)\)(\t|$)")
_NO_TEXTS = {"item": pl.String, "title": pl.String}


def read_log(
    paths: Paths, settings: DataSettings, part_column: str | None = None, accept_proposal: bool = False
) -> InteractionLog:
    """Read one or several files as one log, in file order; nothing is cleaned.

    The columns are those that `settings` name. Without an item and a user or basket column they are known from the
    format (``udata``, ``baskets``), from columns called exactly as the roles are, or, with `accept_proposal`, from the
    proposal for the first file. Several files become several clients, called by their file names, unless a client
    column is named. Users may be missing (guests); without a user column all are.

    Raises:
        ConfigError: unknown encoding or unusable delimiter.
        DataError: a file, column or cell cannot be used; names it and the remedy.
    """
    files = _paths(paths)
    tables = [open_table(path, settings) for path in files]
    mappings = _mappings(tables, settings, accept_proposal)
    names = _client_names(files) if len(files) > 1 and not any("client" in columns for columns in mappings) else None
    frames, texts = [], []
    for i, (table, columns) in enumerate(zip(tables, mappings, strict=True)):
        wanted = dict(columns) | _part(table, part_column)
        raw = table.read(sorted(set(wanted.values())))
        frame = _interactions(raw, wanted, str(table.path))
        frames.append(frame if names is None else frame.with_columns(client=pl.lit(names[i])))
        texts.append(_titles(raw, columns, frame["item"]))
    _same_columns(files, frames)
    log = pl.concat(frames)
    source = str(files[0]) if len(files) == 1 else f"{len(files)} files ({files[0]}, ...)"
    return InteractionLog(log, _texts(pl.concat(texts), mappings[0], settings), source)


def proposal(paths: Paths, settings: DataSettings) -> Proposal | None:
    """What `read_log` would propose for the first file, or None if it needs no proposal. Raises as `read_log`."""
    table = open_table(_paths(paths)[0], settings)
    return None if _known(table, settings) else propose(_sample(table))


def read_cases(path: str | Path, settings: DataSettings) -> pl.DataFrame | None:
    """Held-out cases at `path`, or None if it has no columns ``cart`` and ``target`` (then it holds rows of a log).

    Columns: ``case`` (int64), ``user``, ``basket``, ``client`` (text, null where unknown), ``cart`` and ``targets``
    (lists of item ids), ``time`` where the file has it. In text files the ids of a list are separated by ``|``.

    Raises:
        DataError: the file or a cell cannot be used, a case has no target, or case numbers repeat.
    """
    if not _may_hold_cases(existing_file(path), settings):
        return None
    table = open_table(path, settings.model_copy(update={"format": "auto"}))
    found = {column.casefold(): column for column in table.columns}
    if "cart" not in found or not (target := found.get("target", found.get("targets"))):
        return None
    raw = table.read()
    cases = {
        "case": _case_numbers(raw, found, table.path),
        **{role: _optional_id(raw, role, settings, found, table.path) for role in ("user", "basket", "client")},
        "cart": _id_lists(raw[found["cart"]], f"{table.path}: column '{found['cart']}'"),
        "targets": _id_lists(raw[target], f"{table.path}: column '{target}'"),
    }
    if time := _role_column("time", settings, found):
        cases["time"] = times(raw[time], f"{table.path}: column '{time}'")
    frame = pl.DataFrame(cases)
    if (empty := frame["targets"].list.len() == 0).any():
        raise DataError(f"{table.path}: data row {empty.arg_true()[0] + 1} has no target; drop the case")
    return frame


def read_candidates(path: str | Path, settings: DataSettings) -> pl.DataFrame:
    """The items to rank per user: columns ``user`` and ``item`` (text), one row each, in file order.

    Reads a table with a user and an item column, or the text form of the NCF benchmark: lines of ``(user,item)`` and,
    separated by tabs, the negatives; the item in brackets is the held-out one and no row of the result.

    Raises:
        DataError: the file or a cell cannot be used.
    """
    path = existing_file(path)
    if not magic(path).startswith(PARQUET):
        text = open_text(path, settings.encoding)
        if _NCF_LINE.match(text.head):
            return _ncf_candidates(text.text(), path)
    settings = settings.model_copy(update=_only("user", "item") | {"format": "auto"})
    table = open_table(path, settings)
    found = {column.casefold(): column for column in table.columns}
    columns = {role: column for role in ("user", "item") if (column := _role_column(role, settings, found))}
    if missing := [role for role in ("user", "item") if role not in columns]:
        raise DataError(
            f"{path}: candidates need a column '{missing[0]}' or --{missing[0]}-column; "
            f"columns: {', '.join(table.columns)}"
        )
    raw = table.read([columns["user"], columns["item"]])
    frame = pl.DataFrame(
        {role: id_text(raw[columns[role]], f"{path}: column '{columns[role]}'") for role in ("user", "item")}
    )
    return _complete(frame, path)


def _paths(paths: Paths) -> list[Path]:
    files = [Path(paths)] if isinstance(paths, str | Path) else [Path(path) for path in paths]
    if not files:
        raise DataError("no log file is given; name one or more, such as orders.csv")
    if repeated := [str(path) for i, path in enumerate(files) if path in files[:i]]:
        raise DataError(f"{repeated[0]}: the file is given twice; name it once")
    return files


def _mappings(tables: Sequence[Table], settings: DataSettings, accept: bool) -> list[Mapping[str, str]]:
    """The columns by role for each table."""
    mappings = []
    for i, table in enumerate(tables):
        known = _known(table, settings)
        if not known:
            guess = propose(_sample(table))
            if not (accept and i == 0 and guess.complete):
                raise _needs_mapping(table, guess)
            settings = adopt(settings, guess)
            known = resolve(table.columns, settings, str(table.path))
        mappings.append(known)
    return mappings


def _known(table: Table, settings: DataSettings) -> Mapping[str, str]:
    """The columns that are known without a guess; empty if they do not make a log."""
    given = resolve(table.columns, settings, str(table.path))
    fixed = FIXED.get(table.format, {})
    if not given:
        return fixed or literal(table.columns)
    taken = set(given.values())
    roles = fixed or {role: name for role, name in literal(table.columns).items() if name not in taken}
    columns = {**roles, **given}
    return columns if "item" in columns and ("user" in columns or "basket" in columns) else {}


def _sample(table: Table) -> pl.DataFrame:
    return Table(table.path, table.format, table.columns, table.rows.head(_SAMPLE)).read()


def _needs_mapping(table: Table, guess: Proposal) -> DataError:
    if guess.complete:
        remedy = f"proposal: {guess.sentence()}; take it with --yes or name {guess.flags()}"
    else:
        remedy = (
            "name --item-column and --user-column or --basket-column, by number (--user-column 1 --item-column 2) if "
            "the first line is data, or --format baskets if every line is a basket"
        )
    return DataError(
        f"{table.path}: which columns are the user and the item? Columns: {', '.join(table.columns)}; {remedy}"
    )


def _part(table: Table, part_column: str | None) -> dict[str, str]:
    if part_column is None:
        return {}
    return {"part": find_column(table.columns, part_column, str(table.path), "--part-column")}


def _interactions(raw: pl.DataFrame, columns: Mapping[str, str], source: str) -> pl.DataFrame:
    """The log's frame: ids as text, times, values, parts."""

    def cells(role: str) -> tuple[pl.Series, str]:
        return raw[columns[role]], f"{source}: column '{columns[role]}'"

    log = {"user": pl.Series("user", [None], pl.String).new_from_index(0, raw.height)}
    for role in ("user", "item", "basket", "client"):
        if role in columns:
            log[role] = id_text(*cells(role))
    if "time" in columns:
        log["time"] = _known_time(times(*cells("time")), cells("time")[1])
    if "value" in columns:
        log["value"] = values(*cells("value"))
    if "part" in columns:
        log["part"] = _parts(*cells("part"))
    order = [name for name in ("user", "item", "time", "value", "basket", "client", "part") if name in log]
    return pl.DataFrame({name: log[name] for name in order})


def _known_time(time: pl.Series, what: str) -> pl.Series:
    if time.null_count() == len(time):
        raise DataError(f"{what} holds no time at all; choose another with --time-column, or none")
    return time


def _parts(cells: pl.Series, what: str) -> pl.Series:
    text = cells.cast(pl.String).str.strip_chars().str.to_lowercase()
    parts = text.replace_strict(PARTS, default=None, return_dtype=pl.String)
    if parts.null_count():
        row = int(parts.is_null().arg_true()[0])
        raise DataError(f"{what}: {cells[row]!r} in data row {row + 1} is no part; parts are train, valid and test")
    return parts


def _client_names(files: Sequence[Path]) -> list[str]:
    """File names without their endings; with the folder where these collide.

    Raises:
        DataError: two names are still equal.
    """
    names = [_stem(path) for path in files]
    if len(set(names)) < len(names):
        names = [f"{path.parent.name}/{_stem(path)}" for path in files]
    if repeated := [name for i, name in enumerate(names) if name in names[:i]]:
        raise DataError(
            f"two logs would both be the client '{repeated[0]}'; rename one file, or name a --client-column"
        )
    return names


def _stem(path: Path) -> str:
    name = path.name.removesuffix(".gz")
    return Path(name).stem or name


def _same_columns(files: Sequence[Path], frames: Sequence[pl.DataFrame]) -> None:
    for path, frame in zip(files, frames, strict=True):
        if frame.columns != frames[0].columns:
            raise DataError(
                f"{path}: gives the columns {', '.join(frame.columns)} where {files[0]} gives "
                f"{', '.join(frames[0].columns)}; name the same columns for all files"
            )


def _titles(raw: pl.DataFrame, columns: Mapping[str, str], item: pl.Series) -> pl.DataFrame:
    """The first title of each item in file order, if the log has titles."""
    if "title" not in columns:
        return pl.DataFrame(schema=_NO_TEXTS)
    title = present(raw[columns["title"]].cast(pl.String))
    frame = pl.DataFrame({"item": item, "title": title}).drop_nulls()
    return frame.unique("item", keep="first", maintain_order=True)


def _texts(titles: pl.DataFrame, columns: Mapping[str, str], settings: DataSettings) -> pl.DataFrame:
    """Titles from the logs, and titles and attributes from the file of items, which goes first."""
    titles = titles.unique("item", keep="first", maintain_order=True)
    if settings.items is None:
        return titles
    table = open_table(settings.items, settings.model_copy(update=_only() | {"format": "auto", "delimiter": None}))
    items = _items(table.read(), table.path, columns, settings)
    return (
        items.join(titles, on="item", how="full", coalesce=True, maintain_order="left_right")
        .with_columns(title=pl.coalesce("title", "title_right"))
        .drop("title_right")
    )


def _items(raw: pl.DataFrame, path: Path, columns: Mapping[str, str], settings: DataSettings) -> pl.DataFrame:
    """A file of items as ``item``, ``title`` and its other columns, one row per item."""
    folded = {column.casefold(): column for column in raw.columns}
    key = folded.get((settings.item_column or columns.get("item", "")).casefold(), raw.columns[0])
    hints = [settings.title_column or "", columns.get("title", ""), *_TITLES]
    label = next(
        (folded[hint.casefold()] for hint in hints if hint.casefold() in folded and folded[hint.casefold()] != key),
        None,
    )
    title = pl.lit(None, pl.String) if label is None else present(raw[label].cast(pl.String))
    rest = raw.drop(key, *([] if label is None else [label]))
    rest = rest.rename({name: f"{name}_" for name in ("item", "title") if name in rest.columns})
    frame = rest.with_columns(id_text(raw[key], f"{path}: column '{key}'").alias("item"), title=title)
    frame = frame.filter(pl.col("item").is_not_null()).unique("item", keep="first", maintain_order=True)
    return frame.select("item", "title", *rest.columns)


def _may_hold_cases(path: Path, settings: DataSettings) -> bool:
    """Whether the first line names ``cart`` and a target; what Parquet holds its columns tell."""
    if magic(path).startswith(PARQUET):
        return True
    first = open_text(path, settings.encoding).head.lstrip().split("\n", 1)[0]
    words = set(re.findall(r"\w+", first.casefold()))
    return "cart" in words and bool(words & {"target", "targets"})


def _only(*kept: str) -> dict[str, str | None]:
    """An update that clears the column names of all roles but these."""
    return {f"{role}_column": None for role in ROLES if role not in kept}


def _role_column(role: str, settings: DataSettings, found: Mapping[str, str]) -> str | None:
    """The column of a role in a file of cases: called as in the logs, else as the role; it may be absent."""
    named = getattr(settings, f"{role}_column")
    return found.get(named.casefold() if named else role, found.get(role))


def _optional_id(
    raw: pl.DataFrame, role: str, settings: DataSettings, found: Mapping[str, str], path: Path
) -> pl.Series:
    column = _role_column(role, settings, found)
    if column is None:
        return pl.Series(role, [None], pl.String).new_from_index(0, raw.height)
    return id_text(raw[column], f"{path}: column '{column}'")


def _case_numbers(raw: pl.DataFrame, found: Mapping[str, str], path: Path) -> pl.Series:
    if "case" not in found:
        return pl.int_range(raw.height, dtype=pl.Int64, eager=True)
    numbers = raw[found["case"]].cast(pl.String).cast(pl.Int64, strict=False)
    if numbers.null_count() or numbers.n_unique() < len(numbers):
        raise DataError(
            f"{path}: column 'case' must hold distinct whole numbers; leave it out to number the cases by row"
        )
    return numbers


def _id_lists(cells: pl.Series, what: str) -> pl.Series:
    """Lists of ids, missing ones left out; one id where the cells are no lists."""
    if cells.dtype == pl.String:
        lists = cells.fill_null("").str.split("|")
    elif isinstance(cells.dtype, pl.List):
        lists = cells.fill_null([])
    else:
        lists = id_text(cells, what).reshape((-1, 1)).arr.to_list()
    rows = pl.DataFrame({"row": pl.int_range(len(lists), eager=True), "item": lists}).explode("item")
    rows = rows.with_columns(id_text(rows["item"], what).alias("item")).drop_nulls()
    packed = rows.group_by("row", maintain_order=True).agg("item")
    every = pl.DataFrame({"row": pl.int_range(len(lists), eager=True)})
    return every.join(packed, on="row", how="left", maintain_order="left")["item"].fill_null([])


def _ncf_candidates(text: str, path: Path) -> pl.DataFrame:
    users, items = [], []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        if not (match := _NCF_LINE.match(line)):
            raise DataError(f"{path}: line {number} does not start with (user,item) and a tab; correct it")
        users.append(match[1])
        items.append([cell for cell in line[match.end() :].split("\t") if cell.strip()])
    frame = pl.DataFrame(
        {"user": users, "item": items}, schema={"user": pl.String, "item": pl.List(pl.String)}
    ).explode("item")
    frame = frame.filter(pl.col("item").is_not_null())
    return frame.with_columns(id_text(frame[name], f"{path}: {name}").alias(name) for name in ("user", "item"))


def _complete(frame: pl.DataFrame, path: Path) -> pl.DataFrame:
    for name in ("user", "item"):
        if count := frame[name].null_count():
            row = int(frame[name].is_null().arg_true()[0])
            raise DataError(f"{path}: data row {row + 1} has no {name} ({count} such rows); every candidate needs both")
    return frame
