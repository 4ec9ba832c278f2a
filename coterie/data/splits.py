"""Splits: what is held out of a log for validation and test, and which questions are asked of it.

Which rows are held out is decided without looking at any item (`_parts` never receives that column), so a held-out
item cannot reach the training log in any form. A user at one client is one unit; a guest's basket is a unit of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import polars as pl

from coterie.data.blocks import require_complete
from coterie.data.cases import basket_cases, cart_cases, given_cases, new_user_cases, user_cases, with_candidates
from coterie.data.log import InteractionLog
from coterie.data.lots import Lots, Source, lots
from coterie.errors import ConfigError, DataError
from coterie.settings import SplitSettings
from coterie.types import Array

TRAIN, VALID, TEST = 0, 1, 2
PARTS = ("train", "valid", "test")
_Clean: TypeAlias = Callable[[InteractionLog], InteractionLog]


@dataclass(frozen=True)
class HeldOut:
    """Held-out rows, and the questions asked of them.

    `log` has no row where cases were given as a file. `cases` has one row per question: ``case`` (Int64, 0, 1, ...),
    ``user``, ``basket`` (String or null), ``client`` and ``time`` where the log has them, ``cart`` (list of item ids;
    null: the items that the user is known to have), ``targets`` (list, never empty), ``candidates`` (list or null: the
    whole catalogue) and ``group``, the resampling unit: ``u:<user>``, for a guest ``b:<basket>``.
    """

    log: InteractionLog
    cases: pl.DataFrame


@dataclass(frozen=True)
class Given:
    """A held-out part that a person brought: rows (`log`) or ready-made questions (`cases`), exactly one of them.

    `cases` needs ``cart`` and ``targets`` (lists of item ids) and may have ``user``, ``basket``, ``client``, ``time``.
    """

    log: InteractionLog | None = None
    cases: pl.DataFrame | None = None

    def __post_init__(self) -> None:
        if (self.log is None) == (self.cases is None):
            raise DataError("a given part is either a log or a frame of cases, and exactly one of them")


@dataclass(frozen=True)
class Split:
    """A log divided: `method` is what was done, `note` says it in one sentence. Rows keep their order in the log."""

    method: str
    train: InteractionLog
    valid: HeldOut | None
    test: HeldOut | None
    note: str


def split(
    log: InteractionLog,
    settings: SplitSettings,
    seed: int,
    *,
    valid: Given | None = None,
    test: Given | None = None,
    candidates: pl.DataFrame | None = None,
    clean_held: _Clean = lambda rows: rows,
    alone: bool = False,
) -> Split:
    """Hold out a test and a validation part of `log` by the method ``settings.split``.

    carts: the latest `test_share` of the baskets, the `valid_share` before them; up to `max_targets` items are left out
    of each basket, one at a time. next-basket: the same baskets; all items of a known user's basket are asked for.
    time: the latest rows; what known users took that they did not have. last: each user's last row is test, the one
    before it valid (users with three rows or more). random-rows: rows by lot; every user keeps one. random-users: users
    by lot; a fifth of their items is asked for given the rest. given: by the `part` column or by `test` and `valid`.

    Baskets or rows of one time stay together, so shares are met as closely as the times allow. For test cases the
    training and the validation rows are known. `candidates` (``user``, ``item``) limits what is ranked for a test user.
    `clean_held` is applied to held-out rows, apart from all others, before questions are made of them (a return must
    not be asked for); `HeldOut.log` keeps the rows as they were. With `alone` no user moves the lots of another.

    Raises:
        DataError: the method needs a column that the log lacks, the log is too small to hold anything out, a held-out
            row is in the training log as well, or a test user has no candidates.
        ConfigError: files were given and the method does not use them.
    """
    method, drawn = _method(log, settings, valid, test), Lots(seed, alone)
    frame = log.frame.drop("part", strict=False)
    if method == "none":
        return Split(method, log.with_frame(frame), None, None, "Nothing is held out: all rows train the model.")
    if method == "given":
        train, held_valid, held_test = _given(log, settings, drawn, valid, test, clean_held)
    else:
        part = _parts(log, method, settings, drawn)
        train, valid_rows, test_rows = (log.with_frame(frame.filter(part == code)) for code in (TRAIN, VALID, TEST))
        held_valid, held_test = _held(method, (train, valid_rows, test_rows), settings, drawn, clean_held)
    _require_cases(log, method, train, held_valid, held_test)
    if candidates is not None and held_test is not None:
        held_test = HeldOut(held_test.log, with_candidates(held_test.cases, candidates))
    return Split(method, train, held_valid, held_test, _note(method, train, held_valid, held_test))


def _method(log: InteractionLog, settings: SplitSettings, valid: Given | None, test: Given | None) -> str:
    """Resolve ``auto``, and refuse a method that lacks its columns or ignores what was given."""
    method: str = settings.split
    files = valid is not None or test is not None
    if method == "auto":
        with_time = "last" if log.has("time") else "random-rows"
        method = "given" if files or log.has("part") else "carts" if log.has("basket") else with_time
    if files and method != "given":
        raise ConfigError(f"split = '{method}' does not use the given test or validation file; take split = 'given'")
    if method in ("carts", "next-basket") and not log.has("basket"):
        raise DataError(
            f"{log.source}: split = '{method}' needs baskets; name their column with --basket-column, make them with "
            f"--basket-from, or take --split random-rows"
        )
    if method in ("time", "last") and not log.has("time"):
        raise DataError(
            f"{log.source}: split = '{method}' needs times; name their column with --time-column, or take "
            f"--split random-rows"
        )
    if method != "none":
        require_complete(log, "time", "drop these rows, or read the log without its time column")
    return method


# ---------------------------------------------------------------------------------------------- which rows are held out


def _parts(log: InteractionLog, method: str, settings: SplitSettings, drawn: Lots) -> pl.Series:
    """The part of each row (TRAIN, VALID or TEST). What decides sees no item and no value."""
    blind = log.frame.drop("item", "value", "part", strict=False).with_row_index("row").cast({"row": pl.Int64})
    decide = _METHODS[method]
    part = decide(blind.with_columns(_units(blind)), settings, drawn.named("split", method))
    if part is None or not (part == TRAIN).any() or not (part == TEST).any():
        raise DataError(
            f"{log.source}: too small for split = '{method}': {_counts(log)}; use more data or --split none"
        )
    return pl.Series("part", part, dtype=pl.Int8)


def _units(rows: pl.DataFrame) -> list[pl.Expr]:
    """`basket_unit` and `user_unit`: the number of the first row of the row's basket, and of its user.

    A row without a basket is a basket of its own; a guest's unit as a user is the guest's basket.
    """
    client = [column for column in ("client",) if column in rows.columns]
    row, basket = pl.col("row"), pl.col("row")
    if "basket" in rows.columns:
        basket = pl.when(pl.col("basket").is_null()).then(row).otherwise(row.min().over([*client, "user", "basket"]))
    user = pl.when(pl.col("user").is_null()).then(basket).otherwise(row.min().over([*client, "user"]))
    return [basket.alias("basket_unit"), user.alias("user_unit")]


def _later_baskets(rows: pl.DataFrame, settings: SplitSettings, _: Source) -> Array | None:
    start = pl.col("time").min().over("basket_unit").to_physical() if "time" in rows.columns else pl.col("basket_unit")
    starts = rows.select(start=start, first=pl.col("row") == pl.col("basket_unit"))
    return _by_time(starts["start"].to_numpy(), starts["first"].to_numpy(), settings)


def _later_rows(rows: pl.DataFrame, settings: SplitSettings, _: Source) -> Array | None:
    return _by_time(rows["time"].to_physical().to_numpy(), np.ones(len(rows), bool), settings)


def _by_time(start: Array, counted: Array, settings: SplitSettings) -> Array | None:
    """Cut rows at two times, so that the shares among the `counted` rows are as close as possible to those wanted."""
    ordered = np.sort(start[counted])
    cuts = np.flatnonzero(np.diff(ordered)) + 1  # only here does a cut part different times
    if not len(cuts):
        return None
    test = cuts[np.abs(cuts - len(ordered) * (1 - settings.test_share)).argmin()]
    part: Array = np.where(start >= ordered[test], TEST, TRAIN)
    cuts = cuts[cuts < test]
    if settings.valid_share > 0 and len(cuts):
        valid = cuts[np.abs(cuts - len(ordered) * (1 - settings.test_share - settings.valid_share)).argmin()]
        part[(start >= ordered[valid]) & (part == TRAIN)] = VALID
    return part


def _last_rows(rows: pl.DataFrame, settings: SplitSettings, _: Source) -> Array:
    backwards = pl.int_range(pl.len(), 0, -1, dtype=pl.Int64).over("user_unit")
    counted = rows.sort("time", "row").with_columns(from_end=backwards, n=pl.len().over("user_unit")).sort("row")
    from_end, n = counted["from_end"].to_numpy(), counted["n"].to_numpy()
    part: Array = np.where((from_end == 1) & (n >= 2), TEST, TRAIN)
    if settings.valid_share > 0:
        part[(from_end == 2) & (n >= 3)] = VALID
    return part


def _random_rows(rows: pl.DataFrame, settings: SplitSettings, rng: Source) -> Array:
    names = [column for column in ("client", "user", "basket", "time") if column in rows.columns]
    drawn = rows.select("user_unit", draw=pl.Series(lots(rng, rows, names)))
    draw = drawn["draw"].to_numpy()
    kept = drawn.select(pl.col("draw") == pl.col("draw").max().over("user_unit")).to_series().to_numpy()
    part = np.where(
        draw < settings.test_share, TEST, np.where(draw < settings.test_share + settings.valid_share, VALID, TRAIN)
    )
    return np.where(kept, TRAIN, part)


def _random_users(rows: pl.DataFrame, settings: SplitSettings, rng: Source) -> Array | None:
    """Units are drawn in the order of their ids, so that the order of the rows does not matter."""
    ids = [column for column in ("client", "user", "basket") if column in rows.columns]
    units = rows.group_by("user_unit").agg(pl.col(ids).min(), n=pl.len())
    eligible = units.filter(pl.col("n") >= 2).sort(ids, nulls_last=True)
    if not len(eligible):
        return None
    tests = max(1, round(settings.test_share * len(eligible)))
    valids = max(1, round(settings.valid_share * len(eligible))) if settings.valid_share > 0 else 0
    if isinstance(rng, Lots):  # then each by its own lot, and how many they are is a matter of luck
        draw = lots(rng, eligible, ids)
        order, tests = np.argsort(draw), int((draw < settings.test_share).sum())
        valids = int((draw < settings.test_share + settings.valid_share).sum()) - tests
    else:
        order = rng.permutation(len(eligible))
    part = np.full(len(rows), TRAIN)
    owner = rows["user_unit"]
    for code, chosen in ((TEST, order[:tests]), (VALID, order[tests : tests + valids])):
        part[owner.is_in(eligible["user_unit"].gather(chosen).implode()).to_numpy()] = code
    return part


_METHODS: dict[str, Callable[[pl.DataFrame, SplitSettings, Source], Array | None]] = {
    "carts": _later_baskets,
    "next-basket": _later_baskets,
    "time": _later_rows,
    "last": _last_rows,
    "random-rows": _random_rows,
    "random-users": _random_users,
}


# ---------------------------------------------------------------------------------------------- what is asked of them


def _held(
    method: str,
    parts: tuple[InteractionLog, InteractionLog, InteractionLog],
    settings: SplitSettings,
    drawn: Lots,
    clean: _Clean,
) -> tuple[HeldOut | None, HeldOut]:
    train, valid, test = parts
    known = pl.concat([train.frame, valid.frame])
    held_valid = None
    if len(valid):
        held_valid = HeldOut(valid, _cases(method, clean(valid), train.frame, settings, drawn, "valid"))
    return held_valid, HeldOut(test, _cases(method, clean(test), known, settings, drawn, "test"))


def _cases(
    method: str, held: InteractionLog, known: pl.DataFrame, settings: SplitSettings, drawn: Lots, part: str
) -> pl.DataFrame:
    rng = drawn.named("split", "targets", part)
    match method:
        case "carts":
            return cart_cases(held.frame, settings.max_targets, rng)
        case "next-basket":
            return basket_cases(held.frame, known)
        case "random-users":
            return new_user_cases(held.frame, rng)
        case _:
            return user_cases(held.frame, known)


def _given(
    log: InteractionLog, settings: SplitSettings, drawn: Lots, valid: Given | None, test: Given | None, clean: _Clean
) -> tuple[InteractionLog, HeldOut | None, HeldOut | None]:
    """The parts as a person divided them: the `part` column, then whatever `valid` and `test` add."""
    parts = _part_column(log)
    train = parts.get("train", log.with_frame(log.frame.clear().drop("part"))) if log.has("part") else log
    held: dict[str, HeldOut | None] = {"valid": None, "test": None}
    known = train  # what the final model is fitted on: the test must be apart from validation rows as well
    for name, brought in (("valid", valid), ("test", test)):
        if brought is not None and name in parts:
            raise DataError(
                f"{log.source}: has rows of part '{name}', and a {name} file was given too; use one of them"
            )
        rows = parts.get(name) if brought is None else _without_part(brought.log)
        if rows is not None:
            _refuse_overlap(known, rows, name)
            known = known.with_frame(pl.concat([known.frame, rows.frame], how="diagonal"))
            held[name] = HeldOut(rows, _cases_of_rows(clean(rows), settings, drawn, name))
        elif brought is not None and brought.cases is not None:
            held[name] = HeldOut(train.with_frame(train.frame.clear()), given_cases(brought.cases, known.frame, name))
    if held["test"] is None:
        raise DataError(f"{log.source}: split = 'given' needs a test part; name a file with --test or a --part-column")
    return train, held["valid"], held["test"]


def _part_column(log: InteractionLog) -> dict[str, InteractionLog]:
    """The log by part; empty without a `part` column."""
    if not log.has("part"):
        return {}
    if unknown := set(log.frame["part"].unique()) - set(PARTS):
        raise DataError(f"{log.source}: a part must be train, valid or test, got {next(iter(unknown))!r}")
    parts = log.frame.partition_by("part", as_dict=True, maintain_order=True, include_key=False)
    return {str(name): log.with_frame(frame) for (name,), frame in parts.items()}


def _without_part(log: InteractionLog | None) -> InteractionLog | None:
    return None if log is None else log.with_frame(log.frame.drop("part", strict=False))


def _cases_of_rows(rows: InteractionLog, settings: SplitSettings, drawn: Lots, part: str) -> pl.DataFrame:
    if rows.has("basket") and rows.frame["basket"].is_not_null().any():
        return cart_cases(rows.frame, settings.max_targets, drawn.named("split", "targets", part))
    return user_cases(rows.frame, None)


def _refuse_overlap(train: InteractionLog, held: InteractionLog, part: str) -> None:
    """Refuse a given row that trains the model too: with a time or basket, equal rows are one event."""
    keys = [c for c in ("client", "user", "item", "time", "basket") if train.has(c) and held.has(c)]
    if not {"time", "basket"} & set(keys):
        return
    if repeated := held.frame.join(train.frame, on=keys, how="semi", nulls_equal=True).height:
        raise DataError(
            f"{held.source}: {repeated} of {len(held)} {part} rows are in the training log {train.source} as well; "
            f"remove them from one of the two"
        )


def _require_cases(
    log: InteractionLog, method: str, train: InteractionLog, valid: HeldOut | None, test: HeldOut | None
) -> None:
    if not len(train):
        raise DataError(f"{log.source}: split = '{method}' leaves no row to train on: {_counts(log)}")
    for name, held in (("test", test), ("valid", valid)):
        if held is not None and not len(held.cases) and (name == "test" or method == "given"):
            remedy = (
                "use more data, or another --split" if name == "test" else "take --valid-share 0, or another --split"
            )
            known = train if name == "valid" or valid is None else train.with_frame(_rows(train, valid.log))
            raise DataError(
                f"{held.log.source}: split = '{method}' holds out {len(held.log)} {name} rows from which no question "
                f"can be made: {_why_nothing(method, held.log, known)}; {remedy}"
            )


def _rows(*logs: InteractionLog) -> pl.DataFrame:
    return pl.concat([log.frame for log in logs], how="diagonal")


def _why_nothing(method: str, held: InteractionLog, known: InteractionLog) -> str:
    """The likely reason why held-out rows ask nothing, by what their method asks (see `coterie.data.cases`)."""
    person = [name for name in ("client", "user") if held.has(name)]
    users = held.frame.filter(pl.col("user").is_not_null())
    if method in ("carts", "random-users") or (method == "given" and held.has("basket")):
        unit = "user" if method == "random-users" else "basket"
        keys = person if unit == "user" else [*person, "basket"]
        sizes = held.frame.drop_nulls(unit).group_by(keys).agg(pl.col("item").n_unique())["item"]
        return _DROPPED if (sizes > 1).any() else f"no {unit} in them has two different items"
    if not len(users):
        return "none of them has a user id"
    familiar = users.join(known.frame, on=person, how="semi", nulls_equal=True)
    if method != "given" and not len(familiar):
        return "none of their users has earlier rows"
    new = familiar.join(known.frame, on=[*person, "item"], how="anti", nulls_equal=True)
    repeated = method not in ("given", "next-basket") and not len(new)
    return "their users had all of these items before" if repeated else _DROPPED


_DROPPED = "cleaning drops them, as it does returns and fees"


# ------------------------------------------------------------------------------------------------------- for people

_SAID = {
    "carts": "Later baskets are held out, and items are left out of them one at a time",
    "next-basket": "Later baskets are held out, and all items of known users' baskets are asked for",
    "time": "Everything after a point in time is held out, and what known users newly took is asked for",
    "last": "Each user's last interaction is held out",
    "random-rows": "Interactions drawn by lot are held out",
    "random-users": "Users drawn by lot are held out, and a fifth of their items is asked for",
    "given": "The held-out part was given",
}


def _note(method: str, train: InteractionLog, valid: HeldOut | None, test: HeldOut | None) -> str:
    def said(name: str, held: HeldOut | None) -> str:
        return f"no {name}" if held is None else f"{len(held.log):,} rows for {name} ({len(held.cases):,} cases)"

    return f"{_SAID[method]}: {len(train):,} rows to train on, {said('validation', valid)}, {said('test', test)}."


def _counts(log: InteractionLog) -> str:
    baskets = f", {log.frame['basket'].n_unique():,} baskets" if log.has("basket") else ""
    return f"{len(log):,} rows, {log.frame['user'].n_unique():,} users{baskets}"
