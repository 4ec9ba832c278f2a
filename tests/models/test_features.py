"""Item features: what each kind of column says of how alike two items are."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import scipy.sparse as sp

from coterie.models.features import HATS, REACH, WEIGHTS, WORDS, item_features
from coterie.types import Array, Floats


def likeness(texts: pl.DataFrame, items: list[str]) -> Floats:
    """How alike items are by their features: float64 [items, items]."""
    matrix = as_matrix(item_features(texts, items), len(items))
    return np.asarray((matrix @ matrix.T).todense())


def as_matrix(found: dict[str, Array], n: int) -> sp.csr_matrix:
    weight = found["feature_weight"].astype(np.float64)
    return sp.csr_matrix((weight, found["feature"], found["feature_ptr"]), shape=(n, int(found["feature"].max()) + 1))


def table(**columns: object) -> pl.DataFrame:
    return pl.DataFrame({"item": list("abcdef"), "title": pl.Series([None] * 6, dtype=pl.String), **columns})


ITEMS = list("abcdef")
KINDS = ["x|y", "x", "y", "z", "z|x", None]
YEARS = [1950, 1990, 1995, 1999, 1999, 2000]


def slow_categories() -> Floats:
    names = ["x", "y", "z"]
    hot = np.array([[float(name in (kind or "").split("|")) for name in names] for kind in KINDS])
    hot *= np.log(6 / hot.sum(axis=0))
    return hot / np.maximum(np.linalg.norm(hot, axis=1, keepdims=True), 1e-12)


def slow_hats() -> Floats:
    rank = np.array([(sum(v < y for v in YEARS) + sum(v == y for v in YEARS) / 2) / 6 for y in YEARS])
    hats = np.exp(-(((rank[:, None] - np.linspace(0, 1, HATS)) / REACH) ** 2))
    hats[hats < 1e-3] = 0
    return hats / np.linalg.norm(hats, axis=1, keepdims=True)


def test_categories_and_a_number_give_the_kernel_of_the_formula() -> None:
    A, P = slow_categories(), slow_hats()
    alike, near = A @ A.T, P @ P.T
    expected = WEIGHTS["both"] * alike * near + WEIGHTS["categories"] * alike + WEIGHTS["numbers"] * near
    got = likeness(table(genres=KINDS, year=YEARS), ITEMS)
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_what_is_not_there_leaves_its_weight_to_the_rest() -> None:
    A, P = slow_categories(), slow_hats()
    np.testing.assert_allclose(likeness(table(genres=KINDS), ITEMS), A @ A.T, atol=1e-6)
    np.testing.assert_allclose(likeness(table(year=YEARS), ITEMS), P @ P.T, atol=1e-6)


def test_a_year_at_the_end_of_a_title_is_a_number() -> None:
    titled = table().with_columns(
        title=pl.Series([f"{item}{item} ({y})" for item, y in zip(ITEMS, YEARS, strict=True)])
    )
    np.testing.assert_allclose(likeness(titled, ITEMS), likeness(table(year=YEARS), ITEMS), atol=1e-6)


def test_titles_alone_are_their_words() -> None:
    titled = table().with_columns(title=pl.Series(["Red mug", "red tray", "blue MUG", "clock", "red mug", "red"]))
    alike = likeness(titled, ITEMS)
    assert alike[0, 4] == pytest.approx(1.0)
    assert 0 < alike[0, 1] < alike[0, 2] < 1  # fewer titles have "mug" than "red"
    assert not alike[3].any()  # no other title has its word


def test_beside_other_features_words_weigh_little() -> None:
    words = pl.Series(["red mug", "red mug", "tray", "tray", "clock", "clock"])
    got = likeness(table(genres=KINDS).with_columns(title=words), ITEMS)
    A = slow_categories()
    np.testing.assert_allclose(got[2, 3], (1 - WORDS) * (A @ A.T)[2, 3] + WORDS, atol=1e-6)


@pytest.mark.parametrize("year", [[str(y) for y in YEARS], [float(y) for y in YEARS]])
def test_numbers_may_be_written_as_text(year: list[object]) -> None:
    np.testing.assert_allclose(likeness(table(year=year), ITEMS), likeness(table(year=YEARS), ITEMS), atol=1e-6)


def test_an_unknown_number_is_like_none() -> None:
    alike = likeness(table(price=[1.0, 2.0, None, 3.0, float("nan"), 4.0]), ITEMS)
    assert not alike[[2, 4]].any()
    assert alike[0, 1] > alike[0, 5]


def test_features_follow_the_order_of_items_not_of_texts() -> None:
    texts = table(genres=KINDS, year=YEARS)
    straight = likeness(texts, ITEMS)
    turned = likeness(texts.reverse(), ITEMS[::-1])
    np.testing.assert_allclose(turned[::-1, ::-1], straight, atol=1e-6)
    missing = likeness(texts.filter(pl.col("item") != "b"), ITEMS)
    assert not missing[1].any()


@pytest.mark.parametrize(
    "texts",
    [
        table(),
        table(genres=["x"] * 6, year=[2000] * 6),  # no two items apart
        table(code=[f"unique {at}" for at in range(6)]),
        table().clear(),
    ],
)
def test_texts_that_tell_nothing_give_nothing(texts: pl.DataFrame) -> None:
    assert item_features(texts, ITEMS) == {}


def test_the_arrays_are_those_of_a_sparse_matrix() -> None:
    found = item_features(table(genres=KINDS, year=YEARS, new=[True, False] * 3), ITEMS)
    assert found["feature_ptr"].dtype == np.int64
    assert found["feature"].dtype == np.int32
    assert found["feature_weight"].dtype == np.float32
    assert found["feature_ptr"][-1] == len(found["feature"]) == len(found["feature_weight"])
    lengths = np.sqrt(as_matrix(found, 6).multiply(as_matrix(found, 6)).sum(axis=1))
    assert (lengths <= 1 + 1e-6).all()
