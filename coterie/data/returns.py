"""Returns: a negative quantity cancels what the same user bought before, newest first."""

from __future__ import annotations

import numba
import numpy as np
import polars as pl

from coterie.types import Floats, Integers

_NOTHING = 1e-9  # relative: what is left of a quantity after sums of fractions such as 0.1 kg


def cancel_returns(frame: pl.DataFrame) -> pl.DataFrame:
    """Cancel purchases by returns: the rows that are left, in file order, with what is left of their ``value``.

    A row with a negative value is a return. It cancels earlier purchases (positive values) of the same item by the same
    user at the same client, or within the same basket for a guest, newest first, up to its quantity; a purchase may be
    cancelled in part. Earlier means by ``time`` where the log has it, then by file order. Rows without a value are
    neither. A return for which too little was bought is left with the rest of its negative value.
    """
    rows = frame.with_row_index("__at").with_columns(pl.col("__at").cast(pl.Int64))
    concerned = _concerned(rows)
    if not concerned.height:
        return frame
    left = concerned["value"].to_numpy().copy()
    _match(concerned["__group"].to_numpy(), left)
    value = frame["value"].to_numpy().copy()
    at = concerned["__at"].to_numpy()
    gone = np.zeros(frame.height, np.bool_)
    gone[at] = np.abs(left) <= _NOTHING * np.abs(value[at])
    value[at] = left
    # A row without a value is NaN in numpy: it becomes null again.
    return frame.with_columns(pl.Series("value", value).fill_nan(None)).filter(~pl.Series(gone))


def _concerned(rows: pl.DataFrame) -> pl.DataFrame:
    """Rows of the (owner, item) groups in which there is a return, group by group in order of time."""
    owner = [name for name in ("client", "user") if name in rows.columns]
    basket = pl.col("basket") if "basket" in rows.columns else pl.col("__at").cast(pl.String)
    guest = pl.when(pl.col("user").is_null()).then(basket).alias("__guest")
    groups = rows.select("__at", "item", "value", *owner, guest, *(["time"] if "time" in rows.columns else []))
    keys = [*owner, "__guest", "item"]
    returned = groups.filter(pl.col("value") < 0).select(keys).unique().with_row_index("__group")
    concerned = groups.join(returned, on=keys, how="inner", nulls_equal=True)
    concerned = concerned.filter(pl.col("value") != 0).with_columns(pl.col("__group").cast(pl.Int64))
    return concerned.sort("__group", *(["time"] if "time" in rows.columns else []), "__at")


@numba.njit(cache=True)
def _match(group: Integers, left: Floats) -> None:
    """Cancel in place: `left` (float64 [n]) holds quantities of rows sorted by group, then time."""
    stack = np.empty(len(left), np.int64)
    height = 0
    for row in range(len(left)):
        if row > 0 and group[row] != group[row - 1]:
            height = 0
        if left[row] > 0:
            stack[height] = row
            height += 1
        while left[row] < 0 and height > 0:
            bought = stack[height - 1]
            amount = min(left[bought], -left[row])
            left[bought] -= amount
            left[row] += amount
            if left[bought] == 0:
                height -= 1
