"""What the shop says of its items now, in memory: for each served model as arrays in the order of its items.

A change is visible to the next question, at a cost that does not grow with the catalogue: each array gets one entry
written, each item is one object that is exchanged, and each expression that was asked is evaluated for what changed.
"""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from coterie.errors import ConfigError
from coterie.serving.expressions import Expression, Kind, compiled
from coterie.serving.words import Item
from coterie.types import Array, Items

EXPRESSIONS = 64  # results over all items that are kept for each model


@dataclass(frozen=True, eq=False)
class ModelItems:
    """The items that a model knows: ids and titles by position, and the position of each id."""

    ids: tuple[str, ...]
    titles: Sequence[str]
    places: Mapping[str, int]


class LiveCatalogue:
    """All items of the shop, and an index of them for each model that asks for one. Thread-safe.

    An item of a model that the shop never spoke of may be suggested, under the model's own title; one that was deleted
    may not, until it is put again.
    """

    def __init__(self, items: Iterable[Item] = (), deleted: Iterable[str] = ()) -> None:
        self._writing = threading.RLock()
        self._indexes: weakref.WeakKeyDictionary[ModelItems, LiveIndex] = weakref.WeakKeyDictionary()
        self._shop = Shop.of(items, deleted)

    def __len__(self) -> int:
        return len(self._shop.items)

    def get(self, id: str) -> Item | None:
        """What the shop says of an item; None where it says nothing."""
        return self._shop.items.get(id)

    def replace_all(self, items: Iterable[Item], deleted: Iterable[str] = ()) -> None:
        """From now on these are the items; questions see all of the old or all of the new."""
        shop = Shop.of(items, deleted)
        with self._writing:
            self._shop = shop
            for known, before in list(self._indexes.items()):
                after = LiveIndex(known, shop)
                after.ask_again(before)
                self._indexes[known] = after

    def update(self, changes: Mapping[str, Item | None]) -> None:
        """What these items are now, by id; None: deleted."""
        with self._writing:
            for id, item in changes.items():
                self._shop.change(id, item)
            for index in list(self._indexes.values()):
                index.change(changes)

    def index(self, known: ModelItems) -> LiveIndex:
        """The items of one model; made when first asked for, kept as long as `known` is."""
        found = self._indexes.get(known)
        if found is not None:
            return found
        with self._writing:
            if known not in self._indexes:
                self._indexes[known] = LiveIndex(known, self._shop)
            return self._indexes[known]


@dataclass
class Groups:
    """Numbers for the groups of items, in the order in which they appeared."""

    codes: dict[str, int] = field(default_factory=dict)

    def code(self, group: str | None) -> int:
        """The group's number; -1 for none."""
        return -1 if group is None else self.codes.setdefault(group, len(self.codes))

    def __len__(self) -> int:
        return len(self.codes)


@dataclass
class Shop:
    """What the shop has said: its items, those that it deleted, and the groups."""

    items: dict[str, Item]
    deleted: set[str]
    groups: Groups = field(default_factory=Groups)

    @classmethod
    def of(cls, items: Iterable[Item], deleted: Iterable[str]) -> Shop:
        """These items; an id that is among them is not deleted."""
        found = {item.id: item for item in items}
        return cls(found, set(deleted) - found.keys())

    def change(self, id: str, item: Item | None) -> None:
        """Put or delete one item."""
        if item is None:
            self.items.pop(id, None)
            self.deleted.add(id)
        else:
            self.items[id] = item
            self.deleted.discard(id)


class LiveIndex:
    """The items of one model as the shop has them, by position.

    `record` is what is said of each; `there` (bool) that it was not deleted, `in_stock` (bool) that there is any of it
    too; `group` (int32) the number of its group, -1 for none.
    """

    def __init__(self, known: ModelItems, shop: Shop) -> None:
        n = len(known.ids)
        self.shop, self._places, self._titles = shop, known.places, known.titles
        self.record = [Item(id, title) for id, title in zip(known.ids, known.titles, strict=True)]
        self.there, self.in_stock, self.group = np.ones(n, bool), np.ones(n, bool), np.full(n, -1, np.int32)
        self._results: OrderedDict[tuple[str, Kind], Array | ConfigError] = OrderedDict()
        self._evaluating = threading.RLock()
        for id, at in known.places.items():
            if id in shop.items or id in shop.deleted:
                self._write(at, id, shop.items.get(id))

    def change(self, changes: Mapping[str, Item | None]) -> None:
        """Take in what changed."""
        places = {id: self._places[id] for id in changes if id in self._places}
        with self._evaluating:
            for id, at in places.items():
                self._write(at, id, changes[id])
            for (text, kind), result in list(self._results.items()):
                # What was refused may be right for what there is now.
                if isinstance(result, ConfigError) or not compiled(text, kind).refresh(
                    result, self.record, places.values()
                ):
                    self._results.pop((text, kind), None)

    def groups_of(self, ids: Iterable[str]) -> Items:
        """The numbers of these items' groups, whether the model knows the items or not: int32, each once."""
        if not len(self.shop.groups):
            return np.empty(0, np.int32)
        named = (self.shop.items.get(id) for id in ids)
        return np.array(sorted({self.shop.groups.code(one.group) for one in named if one and one.group}), np.int32)

    def result(self, text: str, kind: Kind) -> Array:
        """What an expression gives for each item: bool for a filter, float32 for a boost; evaluated once and kept.

        Raises:
            ConfigError: see `coterie.serving.expressions`.
            MissingExtra: the extra 'serve' is not installed.
        """
        found = self._results.get((text, kind))
        if found is None:
            with self._evaluating:  # nothing changes meanwhile; who asks what is known already does not wait
                found = self._results.get((text, kind))
                if found is None:
                    found = self._evaluated(compiled(text, kind))
                    self._keep(text, kind, found)
        else:
            with contextlib.suppress(KeyError):  # let go since
                self._results.move_to_end((text, kind))
        if isinstance(found, ConfigError):
            raise ConfigError(str(found))
        return found

    def ask_again(self, other: LiveIndex) -> None:
        """Evaluate what was asked of another index, so that nobody has to wait for it here."""
        for (text, kind), result in list(other._results.items()):
            if not isinstance(result, ConfigError):
                self._keep(text, kind, self._evaluated(compiled(text, kind)))

    def _evaluated(self, expression: Expression) -> Array | ConfigError:
        try:
            return expression.over(self.record)
        except ConfigError as error:
            return error  # so that what takes too long does so once

    def _keep(self, text: str, kind: Kind, result: Array | ConfigError) -> None:
        self._results[text, kind] = result
        while len(self._results) > EXPRESSIONS:
            self._results.popitem(last=False)

    def _write(self, at: int, id: str, item: Item | None) -> None:
        if item is None:
            self.there[at] = self.in_stock[at] = False
            self.group[at] = -1
            self.record[at] = Item(id, self._titles[at])
            return
        self.record[at] = item if item.title is not None else replace(item, title=self._titles[at])
        self.group[at] = self.shop.groups.code(item.group)
        self.in_stock[at] = item.stock != 0
        self.there[at] = True
