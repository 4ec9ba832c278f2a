"""Cleaning: which steps run, running them, and a report of what each dropped and why."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import polars as pl

from coterie.data.idtext import id_text
from coterie.data.log import InteractionLog
from coterie.data.logsteps import (
    BigBaskets,
    BusyUsers,
    Duplicates,
    FrequentItems,
    MinimumSupport,
    NormaliseValues,
    Returns,
    UnmatchedReturns,
)
from coterie.data.rowsteps import (
    Guests,
    ItemCase,
    MinimumValue,
    MissingClients,
    MissingItems,
    MissingTimes,
    MissingUsers,
    NonProducts,
    NormaliseTexts,
    TimeWindow,
    ZeroQuantities,
)
from coterie.data.steps import Step
from coterie.errors import ConfigError, DataError
from coterie.settings import CleanSettings

__all__ = ["CleaningReport", "Entry", "Step", "clean", "require_rows", "rewrite_items", "steps_for"]

NON_PRODUCTS = (
    r"(?i:post|postage|dot|dotcom ?post(age)?|shipping|delivery|freight|carriage|c2|c3|handling|packaging|adjust\d*|"
    r"adjustment|manual|discount|samples?|bank ?charges|amazon ?fee|fees?|cruk|commission|tip|rounding|deposit|"
    r"pads|test\d{3}|gift|gift[ _-]?(card|voucher|wrap)|gift_\d{4}_\d+|voucher|coupon|donation)"
)
"""What retailers book as an item though nobody chooses it; matched with the whole id, in any letter case."""

LETTERS = r"[A-Za-z]"
"""Single letters are bookings (``M`` manual, ``D`` discount, ``S`` sample) where they are rare; see `steps_for`."""

_RARE = 0.01
_GUEST_TEXTS = ("guest", "anonymous", "unknown")
_EXAMPLES = 3
_ROW = "__row"


@dataclass(frozen=True)
class Entry:
    """What one step did: rows before and after, rows dropped, rows (or texts) changed, up to three examples."""

    step: str
    why: str
    rows_before: int
    rows_after: int
    dropped: int
    changed: int
    examples: tuple[str, ...]


@dataclass(frozen=True)
class CleaningReport:
    """What every step did, in order; steps that changed nothing are listed too."""

    entries: tuple[Entry, ...] = ()

    @property
    def dropped(self) -> int:
        return sum(entry.dropped for entry in self.entries)

    @property
    def changed(self) -> int:
        return sum(entry.changed for entry in self.entries)

    def merged(self, other: CleaningReport) -> CleaningReport:
        """This report followed by a later one."""
        return CleaningReport(self.entries + other.entries)

    @classmethod
    def summed(cls, reports: Sequence[CleaningReport], part: str) -> CleaningReport:
        """Reports of the same steps on several parts of a log as one; step names say that they are about `part`."""
        return cls(tuple(_summed(same, part) for same in zip(*(report.entries for report in reports), strict=True)))

    def as_dicts(self) -> list[dict[str, Any]]:
        """One dict per step with the fields of `Entry`, fit for JSON."""
        return [asdict(entry) | {"examples": list(entry.examples)} for entry in self.entries]


def steps_for(settings: CleanSettings, log: InteractionLog, *, constant: bool = False) -> tuple[Step, ...]:
    """The steps that `settings` ask for on a log with these columns: first those of scope ``row``, then ``log``.

    The preset ``auto`` is ``retail`` where the log has baskets and values. Two defaults of presets look at `log`: the
    user id ``0`` stands for guests where it owns at least 1 % of the rows and at least 100 baskets (or 20 times the
    median user's), and item ids of a single letter are no products where they make up at most 1 % of the rows. With
    `constant` neither looks: cleaning then depends on one user and on public constants alone, as differential privacy
    demands; ``0`` is a guest, single letters are products, and steps that count over users are refused.

    Raises:
        ConfigError: a step needs a column that the log lacks, or a time or a pattern cannot be read.
    """
    retail = settings.preset == "retail" or (settings.preset == "auto" and log.has("basket") and log.has("value"))
    if constant:
        _refuse_counting(settings)
        log = log.with_frame(log.frame.clear())  # its columns are public, its rows are not
        guests = () if settings.preset == "none" else ("0", "-1", *_GUEST_TEXTS)
        update = {"non_products": NON_PRODUCTS if retail else None, "guest_ids": guests}
        settings = settings.model_copy(update={k: v for k, v in update.items() if getattr(settings, k) is None})
    settings = _with_defaults(settings, log) if retail else settings
    return (*_row_steps(settings, log), *_log_steps(settings, log))


def clean(log: InteractionLog, steps: Sequence[Step]) -> tuple[InteractionLog, CleaningReport]:
    """Run the steps in order; rows keep their order. An empty log stays empty (see `require_rows`)."""
    frame, texts = log.frame.with_row_index(_ROW), log.texts
    entries = []
    for step in steps:
        before, texts_before = frame, texts
        if "rows" in step.tables:
            frame = _applied(step, frame, log.source)
        if "texts" in step.tables:
            texts = step.apply(texts)
        entries.append(_entry(step, before, frame, (texts_before, texts)))
    texts = texts.unique("item", keep="first", maintain_order=True) if "item" in texts.columns else texts
    return replace(log, frame=frame.drop(_ROW), texts=texts), CleaningReport(tuple(entries))


def _applied(step: Step, frame: pl.DataFrame, source: str) -> pl.DataFrame:
    try:
        return step.apply(frame)
    except pl.exceptions.ColumnNotFoundError as error:
        lacking = str(error).split("\n")[0]
        raise DataError(
            f"{source}: the step '{step.name}', which the training log asks for, needs a column that this log lacks "
            f"({lacking}); add it, or switch the step off in [clean]"
        ) from None


def require_rows(log: InteractionLog, report: CleaningReport) -> None:
    """Refuse a log of which cleaning left nothing.

    Raises:
        DataError: names the step that dropped the most.
    """
    if not len(log):
        worst = max(report.entries, key=lambda entry: entry.dropped, default=None)
        cause = f": '{worst.step}' dropped {worst.dropped:,} of {worst.rows_before:,} ({worst.why})" if worst else ""
        raise DataError(f"{log.source}: cleaning left no rows{cause}; change the [clean] settings")


def rewrite_items(items: pl.Series, steps: Iterable[Step]) -> pl.Series:
    """Item ids as cleaning writes them (String, same length): for carts, cases and candidates beside a cleaned log."""
    frame = id_text(items, "items").alias("item").to_frame()
    for step in steps:
        if "item" in step.rewrites:
            frame = step.apply(frame)
    return frame["item"].rename(items.name)


def _summed(same: Sequence[Entry], part: str) -> Entry:
    first = same[0]
    return Entry(
        step=f"{first.step} ({part})",
        why=first.why,
        rows_before=sum(entry.rows_before for entry in same),
        rows_after=sum(entry.rows_after for entry in same),
        dropped=sum(entry.dropped for entry in same),
        changed=sum(entry.changed for entry in same),
        examples=tuple(example for entry in same for example in entry.examples)[:_EXAMPLES],
    )


def _with_defaults(settings: CleanSettings, log: InteractionLog) -> CleanSettings:
    """The preset ``retail``: what is not said is switched on (returns only where there are quantities)."""
    pattern = f"{NON_PRODUCTS}|{LETTERS}" if _letters_are_rare(log) else NON_PRODUCTS
    defaults = {
        "item_case": "codes",
        "drop_duplicates": True,
        "drop_returns": log.has("value"),
        "non_products": pattern,
    }
    return settings.model_copy(update={key: value for key, value in defaults.items() if getattr(settings, key) is None})


def _letters_are_rare(log: InteractionLog) -> bool:
    letters = log.frame["item"].str.contains(f"^{LETTERS}$").fill_null(value=False).sum()
    return bool(letters <= _RARE * len(log))


def _row_steps(settings: CleanSettings, log: InteractionLog) -> list[Step]:
    steps: list[Step] = [MissingItems()]
    if log.has("client"):
        steps.append(MissingClients())
    if ids := _guest_ids(settings, log):
        steps.append(Guests(ids))
    steps.append(MissingUsers())
    if log.has("time"):
        steps.append(MissingTimes())
    if settings.item_case not in (None, "keep"):
        steps.append(ItemCase(settings.item_case))  # type: ignore[arg-type]
    if settings.non_products:
        steps.append(NonProducts(_pattern(settings.non_products)))
    if settings.since or settings.until:
        _require(log, "time", "since" if settings.since else "until", "name it with --time-column")
        steps.append(_window(settings))
    if settings.drop_returns:
        _require(log, "value", "drop_returns", "name a column of quantities with --value-column")
        steps.append(ZeroQuantities())
    if settings.min_value is not None:
        _require(log, "value", "min_value", "name it with --value-column")
        steps.append(MinimumValue(settings.min_value, bool(settings.drop_returns)))
    if settings.normalise_text and log.texts.height:
        steps.append(NormaliseTexts())
    return steps


def _log_steps(settings: CleanSettings, log: InteractionLog) -> list[Step]:
    steps: list[Step] = []
    if settings.drop_duplicates:
        steps.append(Duplicates())
    if settings.drop_returns:
        steps += [Returns(), UnmatchedReturns()]
    steps += [BusyUsers(limit) for limit in (settings.max_user_rows, settings.max_user_quantile) if limit is not None]
    for key in ("max_basket_items", "max_basket_quantile"):
        if (limit := getattr(settings, key)) is not None:
            _require(log, "basket", key, "name it with --basket-column")
            steps.append(BigBaskets(limit))
    if settings.max_items is not None:
        steps.append(FrequentItems(settings.max_items))
    if settings.min_user_rows > 1 or settings.min_item_rows > 1:
        steps.append(MinimumSupport(settings.min_user_rows, settings.min_item_rows))
    if settings.normalise_values != "none":
        _require(log, "value", "normalise_values", "name it with --value-column")
        steps.append(NormaliseValues(settings.normalise_values))
    return steps


def _refuse_counting(settings: CleanSettings) -> None:
    """Refuse what would let one user's rows decide which rows of others stay."""
    counting = {
        "max_user_quantile": settings.max_user_quantile is not None,
        "max_basket_quantile": settings.max_basket_quantile is not None,
        "max_items": settings.max_items is not None,
        "min_item_rows": settings.min_item_rows > 1,
        "normalise_values = 'minmax'": settings.normalise_values == "minmax",
    }
    for key in (key for key, asked in counting.items() if asked):
        raise ConfigError(
            f"{key} looks at all users at once, so with epsilon it would let out what no noise covers; use limits that "
            "are constants (max_user_rows, max_basket_items, non_products), or epsilon = none"
        )


def _require(log: InteractionLog, column: str, key: str, remedy: str) -> None:
    if not log.has(column):
        raise ConfigError(f"{key} needs a {column} column, which {log.source} lacks; {remedy}")


def _pattern(pattern: str) -> str:
    try:
        pl.Series([""]).str.contains(f"^(?:{pattern})$")
    except pl.exceptions.ComputeError:
        raise ConfigError(
            f"non_products must be a regular expression without look-around, got {pattern!r}; escape special characters"
        ) from None
    return pattern


def _window(settings: CleanSettings) -> TimeWindow:
    since, until = _moment(settings.since, "since"), _moment(settings.until, "until")
    if since and until and since >= until:
        raise ConfigError(f"since must be before until, got since = {settings.since!r}, until = {settings.until!r}")
    return TimeWindow(since, until)


def _moment(text: str | None, key: str) -> dt.datetime | None:
    """An ISO 8601 date or time as naive UTC, as times in a log are."""
    if text is None:
        return None
    try:
        moment = dt.datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{key} must be a date or time in ISO 8601 such as 2011-09-01, got {text!r}") from None
    return moment.astimezone(dt.UTC).replace(tzinfo=None) if moment.tzinfo else moment


def _guest_ids(settings: CleanSettings, log: InteractionLog) -> tuple[str, ...]:
    if settings.guest_ids is not None:
        return tuple(
            dict.fromkeys(id_text(pl.Series(settings.guest_ids, dtype=pl.String), "guest_ids").drop_nulls().to_list())
        )
    if settings.preset == "none":
        return ()
    zero = ("0",) if _zero_is_guest(log) else ()
    return ("-1", *zero, *_GUEST_TEXTS)


def _zero_is_guest(log: InteractionLog) -> bool:
    """Whether "0" owns far more than a person would: systems write it for customers who are not signed in."""
    if not log.has("basket"):
        return False
    zero = log.frame.filter(pl.col("user") == "0")
    if not zero.height or zero.height < _RARE * len(log):
        return False
    baskets = zero["basket"].n_unique()
    others = log.frame.filter(pl.col("user") != "0").group_by("user").agg(pl.col("basket").n_unique())["basket"]
    return baskets >= 100 or (len(others) > 0 and baskets >= 20 * float(np.median(others.to_numpy())))


def _entry(step: Step, before: pl.DataFrame, after: pl.DataFrame, texts: tuple[pl.DataFrame, pl.DataFrame]) -> Entry:
    """Compare the rows (or, for a step on texts alone, the texts) before and after."""
    gone = np.ones(before.height, np.bool_)
    gone[before[_ROW].search_sorted(after[_ROW]).to_numpy()] = False  # rows are in order
    dropped = before.filter(pl.Series(gone))
    examples = [_shown(row) for row in dropped.head(_EXAMPLES).drop(_ROW).iter_rows(named=True)]
    old, new = (before.filter(pl.Series(~gone)), after) if "rows" in step.tables else texts
    changed = 0
    for column in step.rewrites:
        differs = old[column].ne_missing(new[column])
        changed += int(differs.sum())
        sample: list[int] = differs.arg_true().head(_EXAMPLES - len(examples)).to_list()
        examples += [f"{column} {_cell(old[column][i])} -> {_cell(new[column][i])}" for i in sample]
    return Entry(step.name, step.describe(), before.height, after.height, dropped.height, changed, tuple(examples))


def _shown(row: dict[str, Any]) -> str:
    """A row for people, without its user: reports outlive the log."""
    return " ".join(f"{name}={_cell(value)}" for name, value in row.items() if value is not None and name != "user")


def _cell(value: object) -> str:
    if value is None:
        return "(none)"
    return f"{value:g}" if isinstance(value, float) else str(value)
