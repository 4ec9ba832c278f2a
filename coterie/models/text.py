"""Similarity of item texts: TF-IDF over words and character n-grams.

Texts are public catalogue information; nothing here is counted in a log.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np
import scipy.sparse as sp

from coterie.types import Array

CHARACTER_N = (2, 3, 4)
FLOOR = 0.2  # similarities below this are noise: cubed they are under 0.008
BLOCK = 2048


def similarity(titles: Sequence[str | None]) -> dict[str, Array]:
    """Cubed cosine similarity of titles, as CSR arrays over item positions.

    Each title is its words and its character 2- to 4-grams, weighted by (1 + ln tf) (1 + ln((1 + n) / (1 + df))),
    words and n-grams with equal norm. Returns ``similarity_ptr`` (int64 [items + 1]), ``similarity_item`` (int32) and
    ``similarity`` (float32, cubed, zero diagonal); similarities below 0.2 and items without a title are left out.

    >>> arrays = similarity(["red mug", "blue mug", None])
    >>> arrays["similarity_item"].tolist()
    [1, 0]
    """
    words = _tfidf([list(_words(title or "")) for title in titles])
    grams = _tfidf([list(_ngrams(title or "")) for title in titles])
    features = sp.hstack([words, grams]).tocsr() / np.sqrt(2.0)
    transposed = features.T.tocsr()
    blocks = [_cubed(features[start : start + BLOCK] @ transposed, start) for start in range(0, len(titles), BLOCK)]
    matrix = sp.vstack(blocks).tocsr() if blocks else sp.csr_matrix((0, 0))
    matrix.sort_indices()
    return {
        "similarity_ptr": matrix.indptr.astype(np.int64),
        "similarity_item": matrix.indices.astype(np.int32),
        "similarity": matrix.data.astype(np.float32),
    }


def _cubed(block: sp.csr_matrix, start: int) -> sp.csr_matrix:
    coo = block.tocoo()
    keep = (coo.data >= FLOOR) & (coo.row + start != coo.col)
    cube = np.minimum(coo.data[keep], 1.0) ** 3
    return sp.csr_matrix((cube, (coo.row[keep], coo.col[keep])), shape=block.shape)


def _words(title: str) -> Iterator[str]:
    yield from re.findall(r"\w+", title.casefold())


def _ngrams(title: str) -> Iterator[str]:
    for word in _words(title):
        padded = f" {word} "
        for n in CHARACTER_N:
            for at in range(len(padded) - n + 1):
                yield padded[at : at + n]


def _tfidf(documents: list[list[str]]) -> sp.csr_matrix:
    """Rows of unit norm (empty documents stay zero); the vocabulary is in order of first use."""
    vocabulary: dict[str, int] = {}
    ptr, column, count = [0], list[int](), list[int]()
    for document in documents:
        for token, times in Counter(document).items():
            column.append(vocabulary.setdefault(token, len(vocabulary)))
            count.append(times)
        ptr.append(len(column))
    shape = (len(documents), max(len(vocabulary), 1))
    matrix = sp.csr_matrix((1.0 + np.log(np.array(count, np.float64)), np.array(column, np.int64), ptr), shape=shape)
    df = np.bincount(matrix.indices, minlength=shape[1])
    matrix = matrix @ sp.diags(1.0 + np.log((1.0 + len(documents)) / (1.0 + df)))
    norms = np.sqrt(np.asarray(matrix.multiply(matrix).sum(axis=1)).ravel())
    return sp.csr_matrix(sp.diags(1.0 / np.where(norms > 0, norms, 1.0)) @ matrix)
