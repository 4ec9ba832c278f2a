"""From held-out cases (text ids) to `Cases` (positions), per client and on the catalogue that is ranked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from coterie.data.blocks import UserIndex, population
from coterie.data.catalogue import Catalogue
from coterie.data.log import InteractionLog
from coterie.errors import DataError
from coterie.models.kernels.gram import user_rows
from coterie.types import Array, Cases, History, Integers, Items, Population, Query, Ragged, UserBlock


@dataclass(frozen=True)
class FitData:
    """What a training may know: the training rows as arrays, their users, and the catalogue made from them alone."""

    log: InteractionLog
    catalogue: Catalogue
    population: Population
    index: UserIndex

    @classmethod
    def of(cls, log: InteractionLog) -> FitData:
        catalogue = Catalogue.of(log)
        people, index = population(log, catalogue)
        return cls(log, catalogue, people, index)

    def guests_of(self, client: int) -> int:
        """How many rows of the client are guests' baskets."""
        start, stop = self.population.client_ptr[client : client + 2]
        return int(self.index.user[int(start) : int(stop)].null_count())

    def own_items(self, client: int) -> Items:
        """Positions of the client's own catalogue (ascending int32): the items in its training rows."""
        return np.unique(self.population.client(client).item)

    def own_block(self, client: int, items: Items) -> UserBlock:
        """The client's users with items as positions in its own catalogue."""
        users = self.population.client(client)
        local = inverse(items, len(self.catalogue))[users.item]
        return UserBlock(len(items), users.user_ptr, users.basket_ptr, local, users.time, users.value)


@dataclass(frozen=True)
class CaseTable:
    """Cases on the whole catalogue; `client` names the client of each, `asked` counts its held-out items (int64)."""

    cases: Cases
    client: pl.Series
    asked: Integers

    def all(self) -> Cases:
        """Every case that can be answered."""
        return self._answerable(np.arange(len(self.cases), dtype=np.int64), None)

    def of_client(self, name: str, items: Items | None) -> Cases:
        """The answerable cases of one client, ranked over `items` alone (None: the whole catalogue)."""
        return self._answerable(np.flatnonzero((self.client == name).to_numpy()).astype(np.int64), items)

    def of_others(self, names: Sequence[str]) -> Cases:
        """The answerable cases of all clients but these, over the whole catalogue."""
        others = ~self.client.is_in(pl.Series(names, dtype=pl.String).implode()).to_numpy()
        return self._answerable(np.flatnonzero(others).astype(np.int64), None)

    def answerable_clients(self) -> pl.Series:
        """The client of each case in `all`."""
        return self.client.filter(pl.Series(np.diff(self.cases.target.ptr) > 0))

    def _answerable(self, rows: Integers, items: Items | None) -> Cases:
        chosen = _take(self.cases, rows)
        if items is not None:
            chosen = _narrow(chosen, items)
        chosen = _take(chosen, np.flatnonzero(np.diff(chosen.target.ptr) > 0).astype(np.int64))
        return replace(chosen, unreachable=int(self.asked[rows].sum()) - len(chosen.target.item))


def tabulate(frame: pl.DataFrame, catalogue: Catalogue, known: FitData | None, clients: pl.Series) -> CaseTable:
    """Translate held-out cases; `frame` as `coterie.data.splits.HeldOut.cases`, `clients` the client of each row.

    Items outside the catalogue leave carts and candidates; targets outside are counted as unreachable. A null cart
    becomes the user's items in `known`, which is also where past baskets come from: training rows, never held-out ones.

    Raises:
        DataError: a cart is null and there is no `known` log to look it up in.
    """
    cart, history = positions(frame["cart"], catalogue), None
    missing = frame["cart"].is_null().to_numpy()
    if known is not None:
        rows = known.index.rows(clients, frame["user"])
        cart = _interleave(cart, _known_items(known, rows, missing), missing)
        history = _history(known, rows) if known.log.has("basket") else None
    elif missing.any():
        raise DataError(
            f"{int(missing.sum())} cases have no cart, and no log of what their users have; name one with --known"
        )
    candidates = None
    if frame["candidates"].is_not_null().any():
        candidates = positions(frame["candidates"], catalogue)
        if nothing := int((np.diff(candidates.ptr) == 0).sum()):
            raise DataError(
                f"{nothing} of {len(frame)} cases have no candidate that is in the catalogue; list items as the log "
                "names them"
            )
    cases = Cases(
        query=Query(cart, history),
        target=positions(frame["targets"], catalogue),
        seen=cart,
        group=frame["group"].rank("dense").cast(pl.Int64).to_numpy(),
        candidates=candidates,
    )
    return CaseTable(cases, clients, frame["targets"].list.len().cast(pl.Int64).to_numpy())


def inverse(items: Items, n: int) -> Items:
    """Where each of `n` positions stands in `items`: int32 [n], -1 for those left out."""
    place = np.full(n, -1, np.int32)
    place[items] = np.arange(len(items), dtype=np.int32)
    return place


def positions(lists: pl.Series, catalogue: Catalogue) -> Ragged:
    """A List[String] series as positions; unknown items are left out. Null is an empty list."""
    frame = pl.DataFrame({"row": np.arange(len(lists), dtype=np.int64), "item": lists})
    long = frame.explode("item", empty_as_null=True).drop_nulls("item")
    found = long.join(catalogue.positions, on="item", how="inner", maintain_order="left")
    counts = np.bincount(found["row"].to_numpy(), minlength=len(lists))
    ptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Ragged(ptr, found["position"].to_numpy().astype(np.int32))


def _known_items(fit: FitData, rows: Integers, wanted: Array) -> Ragged:
    block = fit.population.block
    items = user_rows(block.user_ptr, block.item)
    return _take_or_empty(items, np.where(wanted, rows, -1))


def _history(fit: FitData, rows: Integers) -> History:
    """Past baskets of the users `rows` (-1: unknown, no history), newest basket first in age."""
    block = fit.population.block
    baskets = block.user_baskets()
    sizes = np.diff(block.basket_ptr)
    age_of_basket = np.repeat(baskets[1:], np.diff(baskets)) - 1 - np.arange(block.n_baskets)
    age = np.repeat(age_of_basket, sizes).astype(np.int32)
    taken = _take_or_empty(Ragged(block.user_ptr, np.arange(len(block.item), dtype=np.int32)), rows)
    return History(taken.ptr, block.item[taken.item], age[taken.item])


def _take_or_empty(lists: Ragged, rows: Integers) -> Ragged:
    """`lists.take`, with an empty list where the row is -1."""
    padded = Ragged(np.append(lists.ptr, lists.ptr[-1]), lists.item)
    return padded.take(np.where(rows < 0, len(lists), rows).astype(np.int64))


def _interleave(given: Ragged, known: Ragged, use_known: Array) -> Ragged:
    """Row by row the known list where `use_known`, else the given one."""
    both = Ragged(np.concatenate([given.ptr, known.ptr[1:] + given.ptr[-1]]), np.concatenate([given.item, known.item]))
    n = len(given)
    return both.take(np.where(use_known, np.arange(n) + n, np.arange(n)).astype(np.int64))


def _take_history(history: History | None, rows: Integers) -> History | None:
    if history is None:
        return None
    taken = Ragged(history.ptr, np.arange(len(history.item), dtype=np.int32)).take(rows)
    return History(taken.ptr, history.item[taken.item], history.age[taken.item])


def _take(cases: Cases, rows: Integers) -> Cases:
    """These cases, in this order."""
    return Cases(
        query=replace(cases.query, cart=cases.query.cart.take(rows), history=_take_history(cases.query.history, rows)),
        target=cases.target.take(rows),
        seen=cases.seen.take(rows),
        group=cases.group[rows],
        candidates=None if cases.candidates is None else cases.candidates.take(rows),
    )


def _narrow(cases: Cases, items: Items) -> Cases:
    """The same cases with positions in the sub-catalogue `items`; what is not in it is left out."""
    history = cases.query.history
    known = [cases.seen, cases.query.cart, cases.target, cases.candidates, history]
    highest = max(int(lists.item.max(initial=-1)) for lists in known if lists is not None)
    place = inverse(items, max(highest, int(items.max(initial=-1))) + 1)
    if history is not None:
        ptr, local, kept = _map_lists(history.ptr, history.item, place)
        history = History(ptr, local, history.age[kept])
    return Cases(
        query=replace(cases.query, cart=_map(cases.query.cart, place), history=history),
        target=_map(cases.target, place),
        seen=_map(cases.seen, place),
        group=cases.group,
        candidates=None if cases.candidates is None else _map(cases.candidates, place),
    )


def _map(lists: Ragged, place: Items) -> Ragged:
    ptr, local, _ = _map_lists(lists.ptr, lists.item, place)
    return Ragged(ptr, local)


def _map_lists(ptr: Integers, item: Items, place: Items) -> tuple[Integers, Items, Array]:
    local = place[item]
    kept = local >= 0
    before = np.concatenate([[0], np.cumsum(kept)])
    return before[ptr].astype(np.int64), local[kept], kept
