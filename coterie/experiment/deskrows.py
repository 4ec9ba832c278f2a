"""A node's own rows, on its own catalogue and on the agreed one, and how a model of the one ranks the other."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl

from coterie.data.catalogue import Catalogue
from coterie.data.log import InteractionLog
from coterie.engines.spans import BLOCK
from coterie.experiment.cases import FitData
from coterie.experiment.deskfacts import JobFacts
from coterie.experiment.fitting import Bench, Notify, public_from, scorer
from coterie.federation.alignment import Alignment
from coterie.models.base import Model
from coterie.models.mixing import placed
from coterie.settings import AugmentSettings
from coterie.types import Items, Query, Scores, State, UserBlock


@dataclass(frozen=True)
class Rows:
    """Some of a node's rows, cleaned, under its own ids; `alignment` says which items were agreed, and as what."""

    log: InteractionLog
    facts: JobFacts
    alignment: Alignment | None
    augmented: AugmentSettings
    notify: Notify

    @cached_property
    def agreed(self) -> FitData:
        """The rows whose items were agreed, on the agreed catalogue."""
        log = self.log.with_frame(self.translated(self.log.frame))
        return FitData.of(log, self.augmented, self.facts.seed, self.facts.catalogue)

    @cached_property
    def whole(self) -> FitData:
        """All rows, on the node's own catalogue."""
        return FitData.of(self.log, self.augmented, self.facts.seed)

    @cached_property
    def users(self) -> UserBlock:
        """The users of `agreed`, as they are summed."""
        return self.agreed.training.client(0)

    @cached_property
    def shared(self) -> Items:
        """Agreed positions (ascending int32) of the items that the rows have."""
        return self.agreed.own_items(0)

    @cached_property
    def lens(self) -> Lens:
        """Where each item of the node's own catalogue stands in `shared`."""
        place = np.full(len(self.facts.items), -1, np.int32)
        place[self.shared] = np.arange(len(self.shared), dtype=np.int32)
        position = self.positions(self.whole.catalogue.items)
        return Lens(np.where(position >= 0, place[position], -1).astype(np.int32))

    def positions(self, items: tuple[str, ...]) -> Items:
        """Agreed positions of own items: int32, -1 where they were not agreed."""
        return (self.facts.catalogue if self.alignment is None else self.alignment).index(items)

    def translated(self, frame: pl.DataFrame) -> pl.DataFrame:
        """Rows under the agreed names of their items; rows of other items are left out."""
        if self.alignment is None:
            return frame
        return frame.join(self._names, on="item", how="inner", maintain_order="left").with_columns(
            item=pl.col("agreed")
        ).drop("agreed")  # fmt: skip

    def translated_lists(self, frame: pl.DataFrame, columns: tuple[str, ...]) -> pl.DataFrame:
        """Lists of own items under their agreed names.

        What was not agreed becomes null, and so does what is named twice: lists stay aligned with others.
        """
        if self.alignment is None:
            return frame
        old, new = self._names["item"], self._names["agreed"]
        each = pl.element().replace_strict(old, new, default=None, return_dtype=pl.String)
        once = pl.when(each.is_first_distinct()).then(each)
        return frame.with_columns(pl.col(columns).cast(pl.List(pl.String)).list.eval(once))

    def coverage(self) -> dict[str, float]:
        """Shares of ``rows``, of the ``users`` who have any of them, and of ``items`` that were agreed: 0 to 1."""
        items = self.log.frame["item"].unique()
        agreed = items.filter(pl.Series(self.positions(tuple(items)) >= 0, dtype=pl.Boolean))
        taken = self.log.frame.filter(pl.col("item").is_in(agreed.implode()))
        users = [frame["user"].drop_nulls().n_unique() for frame in (taken, self.log.frame)]
        pairs = {"rows": (len(taken), len(self.log)), "users": (users[0], users[1]), "items": (len(agreed), len(items))}
        return {name: part / whole if whole else 0.0 for name, (part, whole) in pairs.items()}

    def bench(self) -> Bench:
        """What a training of the node alone needs, on the agreed items that its rows have."""
        facts = self.facts
        return Bench(
            self.agreed, facts.plan, 0, BLOCK, facts.seed, own_catalogues=True, notify=self.notify, public=facts.public
        )

    def bench_of_all(self, model: Model) -> Bench:
        """The same on all items that its rows have: what the node could do had it not joined."""
        facts = self.facts
        public: Mapping[str, np.ndarray] = public_from(
            model, self.whole.catalogue, explicit=facts.explicit, timed=facts.timed
        )
        return Bench(self.whole, facts.plan, 0, BLOCK, facts.seed, own_catalogues=False, public=public)

    def served_catalogue(self) -> Catalogue:
        """The items of `shared` by own ids (the first, where several became one), in the agreed order."""
        place, own = self.lens.place, self.whole.catalogue
        known = np.flatnonzero(place >= 0)
        first = known[np.unique(place[known], return_index=True)[1]]
        items = tuple(own.items[at] for at in first.tolist())
        return Catalogue(items, own.texts.filter(pl.col("item").is_in(items)), by_id=False)

    @cached_property
    def _names(self) -> pl.DataFrame:
        """Columns ``item`` (own id) and ``agreed`` (its name in the agreed catalogue)."""
        if self.alignment is None:
            return pl.DataFrame(schema={"item": pl.String, "agreed": pl.String})
        found = self.alignment.positions
        agreed = pl.Series("agreed", self.facts.items, pl.String).gather(found["position"])
        return found.select("item").with_columns(agreed)


@dataclass(frozen=True)
class Lens:
    """How a model of some items ranks all own items: int32 [own items], the model's position of each, -1 for none.

    An item that the model does not know is never ahead of one that it knows.
    """

    place: Items

    @cached_property
    def is_whole(self) -> bool:
        """Whether own items and the model's are the same, in the same order."""
        return bool(np.array_equal(self.place, np.arange(len(self.place))))

    @property
    def covers_all(self) -> bool:
        """Whether the model knows each own item, and knows them apart."""
        return bool((self.place >= 0).all()) and len(np.unique(self.place)) == len(self.place)

    def scorer(self, model: Model, state: State) -> Callable[[Query], Scores]:
        """Scores of all own items: float32 [queries, own items]."""
        inner = scorer(model, state)
        if self.is_whole:
            return inner
        known = np.flatnonzero(self.place >= 0)

        def score(query: Query) -> Scores:
            scores = np.full((len(query), len(self.place)), -np.inf, np.float32)
            scores[:, known] = inner(placed(query, self.place))[:, self.place[known]]
            return scores

        return score
