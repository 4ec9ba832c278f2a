"""Search over the items of a model, by title or id: every word must occur; what begins with them comes first."""

from __future__ import annotations

import threading
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from coterie.serving.live import LiveCatalogue
from coterie.serving.served import ServedModel
from coterie.serving.words import Item

MOST_HITS = 20
LONGEST = 200  # characters of a query


@dataclass
class _Texts:
    """The folded texts of a model's items, each with the record that it was folded from."""

    records: list[Item | None]
    titles: list[str]
    ids: list[str]


class Search:
    """Searches what the champion knows, as the shop describes it at that moment. Thread-safe."""

    def __init__(self, live: LiveCatalogue) -> None:
        self._live = live
        self._lock = threading.Lock()
        self._of: ServedModel | None = None
        self._texts = _Texts([], [], [])

    def find(self, served: ServedModel, query: str, most: int = MOST_HITS) -> list[Item]:
        """The best hits, nothing for an empty query."""
        words = folded(query[:LONGEST]).split()
        if not words:
            return []
        index = self._live.index(served.items)
        with self._lock:
            texts = self._current(served, index.record)
            hits = [
                (*_rank(words, texts.titles[at], texts.ids[at]), len(texts.titles[at]), at)
                for at in range(len(texts.records))
                if index.there[at] and all(word in texts.titles[at] or word in texts.ids[at] for word in words)
            ]
        return [index.record[at] for *_, at in sorted(hits)[:most]]

    def _current(self, served: ServedModel, records: Sequence[Item]) -> _Texts:
        if self._of is not served:
            n = len(records)
            self._of, self._texts = served, _Texts([None] * n, [""] * n, [""] * n)
        texts = self._texts
        for at, record in enumerate(records):
            if texts.records[at] is not record:
                texts.records[at] = record
                texts.titles[at], texts.ids[at] = folded(record.title or ""), folded(record.id)
        return texts


def folded(text: str) -> str:
    """The text without case and accents.

    >>> folded("Crème BRÛLÉE")
    'creme brulee'
    """
    return "".join(c for c in unicodedata.normalize("NFKD", text.casefold()) if not unicodedata.combining(c))


def _rank(words: Sequence[str], title: str, id: str) -> tuple[int, int]:
    """0: it is the id; 1: the title begins so; 2: a word of it does; 3: elsewhere. Then, how many words it lacks."""
    elsewhere = sum(word not in title for word in words)
    if len(words) == 1 and words[0] == id:
        return 0, elsewhere
    if title.startswith(words[0]):
        return 1, elsewhere
    return 2 if any(part.startswith(words[0]) for part in title.split()) else 3, elsewhere
