"""Text similarity equals a naive version, and knows identical from unrelated titles."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.models import text
from coterie.models.text import similarity
from coterie.types import Floats


def dense(titles: Sequence[str | None]) -> Floats:
    arrays, n = similarity(titles), len(titles)
    assert arrays["similarity_ptr"].dtype == np.int64
    assert arrays["similarity_item"].dtype == np.int32
    assert arrays["similarity"].dtype == np.float32
    full = np.zeros((n, n))
    for i in range(n):
        row = slice(arrays["similarity_ptr"][i], arrays["similarity_ptr"][i + 1])
        assert (np.diff(arrays["similarity_item"][row]) > 0).all()
        full[i, arrays["similarity_item"][row]] = arrays["similarity"][row]
    return full


def naive(titles: Sequence[str | None]) -> Floats:
    """The formula of the docstring, pair by pair: cosine over words and n-grams with equal norm, cut at 0.2, cubed."""
    documents = [re.findall(r"\w+", (title or "").casefold()) for title in titles]
    kinds: list[Callable[[list[str]], list[str]]] = [
        list,
        lambda words: [
            f" {word} "[at : at + n] for word in words for n in (2, 3, 4) for at in range(len(word) + 2 - n + 1)
        ],
    ]
    vectors = [_tfidf([kind(document) for document in documents]) for kind in kinds]
    full = np.zeros((len(titles), len(titles)))
    for i in range(len(titles)):
        for j in range(len(titles)):
            cosine = sum(sum(v[i][t] * v[j].get(t, 0.0) for t in v[i]) for v in vectors) / 2
            full[i, j] = cosine**3 if i != j and cosine >= 0.2 else 0.0
    return full


def _tfidf(documents: list[list[str]]) -> list[dict[str, float]]:
    df = Counter(token for document in documents for token in set(document))
    vectors = []
    for document in documents:
        raw = {
            token: (1 + math.log(times)) * (1 + math.log((1 + len(documents)) / (1 + df[token])))
            for token, times in Counter(document).items()
        }
        norm = math.sqrt(sum(value**2 for value in raw.values()))
        vectors.append({token: value / norm for token, value in raw.items()})
    return vectors


TITLES = [
    "WHITE HANGING HEART T-LIGHT HOLDER",
    "white hanging heart t-light holder",
    "Red hanging heart t-light holder",
    "RED RED RED mug",
    None,
    "",
    "!?",
    "Grüße Tee 250 g",
    "Tee 500 g",
]


def test_it_equals_the_naive_version() -> None:
    np.testing.assert_allclose(dense(TITLES), naive(TITLES), atol=1e-6)


def test_identical_titles_have_similarity_one_and_unrelated_ones_none() -> None:
    full = dense([*TITLES, "xyz"])
    assert full[0, 1] == pytest.approx(1.0)
    assert 0.1 < full[0, 2] < 1.0
    assert not full[0, 3:].any()
    assert not full[9].any()


def test_items_without_a_title_are_similar_to_nothing_not_even_to_each_other() -> None:
    full = dense([None, None, "", "?", "mug"])
    assert not full.any()
    assert similarity([])["similarity_ptr"].tolist() == [0]
    assert similarity([None])["similarity_ptr"].tolist() == [0, 0]


@given(titles=st.lists(st.none() | st.text(alphabet="ab é!", max_size=8), max_size=7))
def test_it_is_symmetric_without_a_diagonal_and_between_zero_and_one(titles: list[str | None]) -> None:
    full = dense(titles)
    close = np.abs(full - full.T) < 1e-6
    # A similarity of 0.2 within rounding may be kept on one side of the diagonal only.
    at_the_floor = np.isclose(np.maximum(full, full.T), text.FLOOR**3)
    assert (close | at_the_floor).all()
    assert not np.diagonal(full).any()
    assert ((full >= 0) & (full <= 1)).all()
    np.testing.assert_allclose(full[~at_the_floor], naive(titles)[~at_the_floor], atol=1e-6)


def test_blocks_do_not_change_the_result(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = similarity(TITLES)
    monkeypatch.setattr(text, "BLOCK", 2)
    parts = similarity(TITLES)
    assert all(np.array_equal(whole[name], parts[name]) for name in whole)
