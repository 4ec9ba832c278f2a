"""Public item features out of a catalogue's texts: which items are alike before anybody has taken any.

Given the items file (titles, categories such as ``Comedy|Drama``, numbers such as a year or a price), each item becomes
a sparse row f of about unit length, so that f_i . f_j says how alike two items are. There are up to four kinds of
features, each a unit vector times the root of its weight:

    categories   one-hot, a cell may name several (``A|B``); weighted by ln(items / items that have it)
    numbers      hat functions over the ranks of the values, so that neighbours in rank are alike on any scale
    both         products of the two: alike are items of like categories and like numbers
    words        of titles, weighted like categories

Nothing here is counted in a log: texts are public, and the features follow from them alone.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import polars as pl
import scipy.sparse as sp

from coterie.types import Array, Floats

WEIGHTS = {"both": 0.6, "categories": 0.25, "numbers": 0.15}
WORDS = 0.15  # of the whole where there are other features; all of it where there are none
HATS, REACH = 14, 0.12  # functions over the ranks of a number, and how far they reach (shares of the items)
MOST_CATEGORIES, MOST_WORDS = 64, 768  # most common ones that are used
SHARED_BY = 2  # items that a category or a word must have: others make nothing alike
_SEPARATORS = re.compile(r"\s*[|;]\s*")
_YEAR = re.compile(r"\((1[89]\d\d|20\d\d)\)\s*$")


def item_features(texts: pl.DataFrame, items: Sequence[str]) -> dict[str, Array]:
    """Features of `items` (ids in the order of positions) out of `texts`: columns ``item``, ``title``, attributes.

    Returns a sparse matrix, items x features, as ``feature_ptr`` (int64 [items + 1]), ``feature`` (int32) and
    ``feature_weight`` (float32); nothing ({}) where the texts tell no two items apart. A year in parentheses at the end
    of a title is a number like one of its own column.

    >>> texts = pl.DataFrame({"item": ["a", "b", "c"], "title": [None] * 3, "kind": ["x", "x", "y"]})
    >>> item_features(texts, ["a", "b", "c"])["feature_ptr"].tolist()
    [0, 1, 2, 2]
    """
    table = pl.DataFrame({"item": list(items)}, schema={"item": pl.String}).join(
        texts.unique("item", keep="first", maintain_order=True), on="item", how="left", maintain_order="left"
    )
    titles = table["title"] if "title" in table.columns else pl.Series("title", [None] * len(table), pl.String)
    attributes = [table[name] for name in table.columns if name not in ("item", "title")]
    numbers = [one for one in (_numbers(column) for column in attributes) if one is not None]
    years = _numbers(titles.cast(pl.String).str.extract(_YEAR.pattern).rename("year"))
    if years is not None and not any(column.name.casefold() == "year" for column in attributes):
        numbers.append(years)
    kinds = [column for column in attributes if not column.dtype.is_numeric() and column.dtype != pl.Boolean]
    kinds += [column.cast(pl.String) for column in attributes if column.dtype == pl.Boolean]
    matrix = _combined(_categories(kinds, len(table)), _hats(numbers, len(table)), _words(titles))
    if matrix.nnz == 0:
        return {}
    matrix.sort_indices()
    return {
        "feature_ptr": matrix.indptr.astype(np.int64),
        "feature": matrix.indices.astype(np.int32),
        "feature_weight": matrix.data.astype(np.float32),
    }


def _combined(categories: sp.csr_matrix, hats: sp.csr_matrix, words: sp.csr_matrix) -> sp.csr_matrix:
    """The four kinds side by side; what one of them would weigh goes to the others where there is none of it."""
    blocks = {"both": _products(categories, hats), "categories": categories, "numbers": hats}
    weights = {name: WEIGHTS[name] for name, block in blocks.items() if block.nnz}
    share = WORDS if words.nnz and weights else 0.0
    parts = [np.sqrt((1.0 - share) * w / sum(weights.values())) * blocks[name] for name, w in weights.items()]
    if words.nnz:
        parts.append(np.sqrt(share or 1.0) * words)
    return sp.hstack(parts).tocsr() if parts else sp.csr_matrix(categories.shape)


def _numbers(column: pl.Series) -> Floats | None:
    """The column as numbers (NaN unknown), if it holds any and at least two different ones."""
    if not column.dtype.is_numeric():
        text = column.cast(pl.String, strict=False)
        cast = text.cast(pl.Float64, strict=False)
        if cast.null_count() > text.null_count():
            return None
        column = cast
    values = column.cast(pl.Float64).to_numpy().astype(np.float64)
    known = values[np.isfinite(values)]
    return values if len(np.unique(known)) > 1 else None


def _categories(columns: Sequence[pl.Series], n: int) -> sp.csr_matrix:
    """One-hot of the cells of all columns, unit rows; columns that only hold numbers are none."""
    cells = [list[str]() for _ in range(n)]
    for at, column in enumerate(columns):
        if _numbers(column) is not None:
            continue
        for cell, value in zip(cells, column.cast(pl.String, strict=False).to_list(), strict=True):
            cell += [f"{at}:{word.casefold()}" for word in _SEPARATORS.split((value or "").strip()) if word]
    return _one_hot(cells, MOST_CATEGORIES)


def _words(titles: pl.Series) -> sp.csr_matrix:
    """The words of titles, without years and single letters, unit rows."""
    texts = (_YEAR.sub("", title or "").casefold() for title in titles.cast(pl.String).to_list())
    return _one_hot([[word for word in re.findall(r"\w+", text) if len(word) > 1] for text in texts], MOST_WORDS)


def _one_hot(cells: Sequence[Sequence[str]], most: int) -> sp.csr_matrix:
    """Rows of what cells name, each weighted by ln(rows / rows that name it), of unit length; the `most` common."""
    pairs = [(row, name) for row, cell in enumerate(cells) for name in dict.fromkeys(cell)]
    named = pl.DataFrame(pairs, schema={"row": pl.Int64, "name": pl.String}, orient="row")
    common = (
        named.group_by("name")
        .len()
        .filter((pl.col("len") >= SHARED_BY) & (pl.col("len") < len(cells)))
        .sort(["len", "name"], descending=[True, False])
        .head(most)
        .with_row_index("column")
    )
    entries = named.join(common, on="name", how="inner", maintain_order="left")
    weight = np.log(max(len(cells), 1) / entries["len"].to_numpy().astype(np.float64))
    at = (entries["row"].to_numpy(), entries["column"].to_numpy().astype(np.int64))
    return _unit(sp.csr_matrix((weight, at), shape=(len(cells), len(common))))


def _hats(columns: Sequence[Floats], n: int) -> sp.csr_matrix:
    """Bumps over the ranks of each column's values, unit rows in all; unknown values have none."""
    blocks = []
    for values in columns:
        known = np.isfinite(values)
        _, group, size = np.unique(values[known], return_inverse=True, return_counts=True)
        rank = ((np.cumsum(size) - size / 2.0) / known.sum())[group]
        grid = np.linspace(0.0, 1.0, HATS)
        bumps = np.zeros((n, HATS))
        bumps[known] = np.exp(-(((rank[:, None] - grid) / REACH) ** 2))
        bumps[bumps < 1e-3] = 0.0
        blocks.append(_unit(sp.csr_matrix(bumps)))
    return _unit(sp.hstack(blocks).tocsr()) if blocks else sp.csr_matrix((n, 0))


def _products(left: sp.csr_matrix, right: sp.csr_matrix) -> sp.csr_matrix:
    """All products of a feature of `left` and one of `right`, row by row: unit rows where both are."""
    columns = [left.multiply(right[:, [k]]) for k in range(right.shape[1])] if left.nnz and right.nnz else []
    return sp.hstack(columns).tocsr() if columns else sp.csr_matrix((left.shape[0], 0))


def _unit(matrix: sp.csr_matrix) -> sp.csr_matrix:
    """Rows of unit length (or empty)."""
    lengths = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return (sp.diags(np.where(lengths > 0, 1.0 / np.where(lengths > 0, lengths, 1.0), 0.0)) @ matrix).tocsr()
