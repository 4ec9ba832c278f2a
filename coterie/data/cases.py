"""Questions from held-out rows: what is in hand, what is asked for, and to whom the answer belongs.

Every function returns a frame with one row per question and the columns that `splits.HeldOut.cases` promises, in an
order that does not depend on the order of the rows.
"""

from __future__ import annotations

import polars as pl

from coterie.data.lots import Source, lots
from coterie.errors import DataError

_KEYS = ("client", "user", "basket")
_TEXTS = pl.List(pl.String)
ALIGNED = ("cart_step", "cart_value")
"""Lists aligned with the cart: steps of time back from the end (int32), and values; where the log has them."""


def cart_cases(held: pl.DataFrame, max_targets: int, rng: Source) -> pl.DataFrame:
    """Leave one item at a time out of each basket with two distinct items or more.

    At most `max_targets` items of a basket, drawn without replacement, are asked for; the cart is all the others, with
    how many steps before the last of them each was taken, where the log has times.
    """
    keys = _present(held, _KEYS)
    baskets = held.filter(pl.col("basket").is_not_null())
    lines = _distinct(baskets, keys).sort(*keys, "item", nulls_last=True)
    lines = lines.filter(pl.len().over(keys) >= 2)
    drawn = lines.with_columns(draw=pl.Series(lots(rng, lines, [*keys, "item"]))).filter(
        pl.col("draw").rank("ordinal").over(keys) <= max_targets
    )
    drawn = drawn.select(*keys, targets=pl.concat_list("item")).with_row_index("nth")
    others = drawn.join(lines, on=keys, how="left", nulls_equal=True, maintain_order="left_right").filter(
        pl.col("item") != pl.col("targets").list.first()
    )
    carts = others.group_by("nth", maintain_order=True).agg(_cart(others))
    cases = drawn.join(carts, on="nth", how="left", maintain_order="left").drop("nth")
    if _start(baskets):
        cases = cases.join(_times(baskets, keys), on=keys, how="left", nulls_equal=True, maintain_order="left")
    return _finished(cases)


def basket_cases(held: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """Ask for all items of each held-out basket whose user has rows in `known`; the cart is empty."""
    person = _present(held, ("client", "user"))
    baskets = held.filter(pl.col("user").is_not_null(), pl.col("basket").is_not_null())
    baskets = baskets.join(known, on=person, how="semi", nulls_equal=True)
    return _finished(_asked(baskets, _present(held, _KEYS)).with_columns(cart=pl.lit([], _TEXTS)))


def user_cases(held: pl.DataFrame, known: pl.DataFrame | None) -> pl.DataFrame:
    """Ask for each user's held-out items. The cart is null: the items that the user is known to have.

    With `known` rows, only its users are asked, and only for items that they do not have there; a guest's basket counts
    as a user, whose cart is spelt out since nobody could look it up. Without it, all held-out items are asked for.
    """
    held = _by_person(held)
    keys = _present(held, _KEYS)
    if known is None:
        return _finished(_asked(held, keys).with_columns(cart=pl.lit(None, _TEXTS)))
    known = _by_person(known)
    new = held.join(known, on=keys, how="semi", nulls_equal=True).join(
        known, on=[*keys, "item"], how="anti", nulls_equal=True
    )
    mine = _distinct(known.filter(pl.col("user").is_null()), keys).sort(*keys, "item", nulls_last=True)
    carts = mine.group_by(keys, maintain_order=True).agg(_cart(mine))
    return _finished(_asked(new, keys).join(carts, on=keys, how="left", nulls_equal=True, maintain_order="left"))


def new_user_cases(held: pl.DataFrame, rng: Source) -> pl.DataFrame:
    """Ask for a fifth of each user's distinct items (drawn; at least one), given the others; one item asks nothing."""
    held = _by_person(held)
    keys = _present(held, _KEYS)
    lines = _distinct(held, keys).sort(*keys, "item", nulls_last=True).filter(pl.len().over(keys) >= 2)
    wanted = (pl.len().over(keys) * 0.2).round().clip(lower_bound=1)
    lines = lines.with_columns(draw=pl.Series(lots(rng, lines, [*keys, "item"])))
    lines = lines.with_columns(asked=pl.col("draw").rank("ordinal").over(keys) <= wanted)
    cases = lines.group_by(keys, maintain_order=True).agg(
        *_cart(lines, ~pl.col("asked")), *_targets(lines, pl.col("asked"))
    )
    return _finished(cases.join(_times(held, keys), on=keys, how="left", nulls_equal=True, maintain_order="left"))


def given_cases(cases: pl.DataFrame, train: pl.DataFrame, part: str) -> pl.DataFrame:
    """Questions as a person wrote them, with repeated items of a cart or target list counted once.

    A cart is a set unless ``cart_step`` says how many steps before the last of its items each was taken (a list of
    whole numbers, 0 for the last): files of carts seldom keep an order. A single held-out item may be given as
    ``target``; ids may be whole numbers.

    Raises:
        DataError: a column is missing or of another type, a case asks for nothing, or a case's basket trains the model.
    """
    cases = with_text_ids(cases)
    for name in ("cart", "targets"):
        if cases.schema.get(name) != _TEXTS:
            raise DataError(f"{part} cases: column '{name}' must hold lists of item ids, is {cases.schema.get(name)}")
    if empty := cases.filter(pl.col("targets").list.drop_nulls().list.len().fill_null(0) == 0).height:
        raise DataError(f"{part} cases: {empty} of {len(cases)} ask for nothing; give each at least one target item")
    lists = pl.col("cart", "targets").list.drop_nulls().list.unique(maintain_order=True)
    plain = cases.with_columns(lists).drop(*ALIGNED, "target_value", strict=False)
    cases = plain.with_columns(_given_steps(cases, plain["cart"], part)) if "cart_step" in cases.columns else plain
    cases = cases.with_columns(
        pl.lit(None, pl.String).alias(name) for name in ("user", "basket") if name not in cases.columns
    )
    _refuse_known_baskets(cases, train, part)
    return _finished(cases)


def _given_steps(cases: pl.DataFrame, cart: pl.Series, part: str) -> pl.Series:
    """The column ``cart_step``, aligned with `cart`.

    Raises:
        DataError: it is no list of whole numbers, one for each item of the cart.
    """
    steps = cases["cart_step"]
    if not (isinstance(steps.dtype, pl.List) and steps.dtype.inner.is_integer()):
        raise DataError(f"{part} cases: column 'cart_step' must hold lists of whole numbers, is {steps.dtype}")
    uneven = (steps.list.drop_nulls().list.len().fill_null(0) != cart.list.len().fill_null(0)).arg_true()
    if len(uneven):
        row = int(uneven[0])
        raise DataError(
            f"{part} cases: row {row + 1} has {cart.list.len()[row]} distinct items in its cart and the steps "
            f"{steps[row].to_list() if steps[row] is not None else None}; give one step for each item, each item once"
        )
    return steps.cast(pl.List(pl.Int32))


def with_text_ids(cases: pl.DataFrame) -> pl.DataFrame:
    """The cases with ids as text, where they are whole numbers, and a single ``target`` as the list ``targets``."""
    if "target" in cases.columns and "targets" not in cases.columns:
        cases = cases.rename({"target": "targets"})
        if not isinstance(cases.schema["targets"], pl.List):
            cases = cases.with_columns(pl.concat_list("targets"))
    numbers = [name for name in _KEYS if name in cases.columns and cases.schema[name].is_integer()]
    lists = [
        name for name in ("cart", "targets") if isinstance(kind := cases.schema.get(name), pl.List) and kind != _TEXTS
    ]
    return cases.with_columns(pl.col(numbers).cast(pl.String), pl.col(lists).cast(_TEXTS))


def with_candidates(cases: pl.DataFrame, candidates: pl.DataFrame) -> pl.DataFrame:
    """Attach to each case the items to rank for its user (`candidates`: String columns ``user`` and ``item``).

    Raises:
        DataError: a case's user has no candidates; a few are named.
    """
    lists = candidates.group_by("user").agg(pl.col("item").unique().sort().alias("candidates"))
    cases = cases.drop("candidates").join(lists, on="user", how="left", maintain_order="left")
    missing = cases.filter(pl.col("candidates").is_null())
    if len(missing):
        names = missing["user"].fill_null("(guest)").unique(maintain_order=True)
        shown = ", ".join(f"'{name}'" for name in names.head(3))
        raise DataError(
            f"{len(names)} test users have no candidates, such as {shown}; the file must list every test user"
        )
    return ordered(cases)


def ordered(cases: pl.DataFrame) -> pl.DataFrame:
    """The columns of a frame of cases, in their order."""
    names = (
        "case",
        "user",
        "basket",
        "client",
        "time",
        "cart",
        *ALIGNED,
        "targets",
        "target_value",
        "candidates",
        "group",
    )
    return cases.select(_present(cases, names))


def _finished(cases: pl.DataFrame) -> pl.DataFrame:
    """Number the cases, name their resampling units, and put the columns in their order."""
    cases = cases.drop("case", strict=False).with_row_index("case").cast({"case": pl.Int64})
    if "basket" not in cases.columns:
        cases = cases.with_columns(basket=pl.lit(None, pl.String))
    group = pl.coalesce("u:" + pl.col("user"), "b:" + pl.col("basket"), pl.format("c:{}", "case"))
    return ordered(cases.with_columns(candidates=pl.lit(None, _TEXTS), group=group))


def _refuse_known_baskets(cases: pl.DataFrame, train: pl.DataFrame, part: str) -> None:
    keys = [key for key in _KEYS if key in train.columns and key in cases.columns and cases[key].is_not_null().any()]
    if "basket" not in keys:
        return
    leaked = cases.drop_nulls("basket").join(train, on=keys, how="semi", nulls_equal=True)
    if len(leaked):
        raise DataError(
            f"{part} cases: {len(leaked)} of {len(cases)} are from baskets that are in the training log, such as "
            f"'{leaked['basket'][0]}'; remove these baskets from the log"
        )


def _present(frame: pl.DataFrame, names: tuple[str, ...]) -> list[str]:
    return [name for name in names if name in frame.columns]


def _start(frame: pl.DataFrame) -> list[pl.Expr]:
    return [pl.col("time").min()] if "time" in frame.columns else []


def _times(frame: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    return frame.group_by(keys).agg(_start(frame))


def _distinct(rows: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """One row per unit and item: its mean ``value`` and last ``time``, where the log has values and times."""
    found = [pl.col("value").mean()] if "value" in rows.columns else []
    found += [pl.col("time").max()] if "time" in rows.columns else []
    return rows.group_by(*keys, "item").agg(found)


def _cart(lines: pl.DataFrame, kept: pl.Expr | None = None) -> list[pl.Expr]:
    """The items of a cart (those `kept`), and what is aligned with them.

    Steps count distinct times among the cart's own items, from 0 for the latest: where in the order a left-out item
    stood is not to be told from them.
    """
    kept = pl.lit(value=True) if kept is None else kept
    step = pl.col("time").filter(kept).rank("dense", descending=True).cast(pl.Int32) - 1
    return [
        pl.col("item").filter(kept).alias("cart"),
        *([step.alias("cart_step")] if "time" in lines.columns else []),
        *([pl.col("value").filter(kept).alias("cart_value")] if "value" in lines.columns else []),
    ]


def _targets(lines: pl.DataFrame, kept: pl.Expr | None = None) -> list[pl.Expr]:
    """The items that are asked for (those `kept`), and their values."""
    kept = pl.lit(value=True) if kept is None else kept
    names = {"item": "targets", "value": "target_value"}
    return [pl.col(name).filter(kept).alias(alias) for name, alias in names.items() if name in lines.columns]


def _asked(rows: pl.DataFrame, keys: list[str]) -> pl.DataFrame:
    """One row per unit, in the order of its ids: its distinct items as `targets`, and its first time."""
    lines = _distinct(rows, keys).sort(*keys, "item", nulls_last=True)
    asked = lines.group_by(keys, maintain_order=True).agg(_targets(lines))
    return asked.join(_times(rows, keys), on=keys, how="left", nulls_equal=True, maintain_order="left")


def _by_person(frame: pl.DataFrame) -> pl.DataFrame:
    """Rows with `basket` kept for guests alone, so that it tells persons apart; guests without a basket drop out."""
    if "basket" not in frame.columns:
        return frame.filter(pl.col("user").is_not_null())
    frame = frame.with_columns(basket=pl.when(pl.col("user").is_null()).then(pl.col("basket")))
    return frame.filter(pl.col("user").is_not_null() | pl.col("basket").is_not_null())
