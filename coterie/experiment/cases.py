"""From held-out cases (text ids) to `Cases` (positions), per client and on the catalogue that is ranked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from coterie.data.augment import augment
from coterie.data.blocks import UserIndex, population
from coterie.data.catalogue import Catalogue
from coterie.data.log import InteractionLog
from coterie.errors import DataError
from coterie.models.kernels.scoring import owners
from coterie.models.mixing import map_lists, placed
from coterie.settings import AugmentSettings
from coterie.types import Array, Cases, History, Integers, Items, Known, Population, Query, Ragged, UserBlock


@dataclass(frozen=True)
class FitData:
    """What a training may know: the training rows as arrays, their users, and the catalogue made from them alone.

    `training` holds the same users with the rows that augmentation adds (without it, the same object as `population`):
    what is summed. Histories at scoring time, and whatever is counted for people, come from `population`.
    """

    log: InteractionLog
    catalogue: Catalogue
    population: Population
    index: UserIndex
    training: Population

    @classmethod
    def of(
        cls,
        log: InteractionLog,
        augmented: AugmentSettings | None = None,
        seed: int = 0,
        catalogue: Catalogue | None = None,
    ) -> FitData:
        """The rows of `log`, over its own items or over those of `catalogue`."""
        catalogue = catalogue or Catalogue.of(log)
        people, index = population(log, catalogue)
        return cls(log, catalogue, people, index, augment(people, augmented or AugmentSettings(), seed))

    def guests_of(self, client: int) -> int:
        """How many rows of the client are guests' baskets."""
        start, stop = self.population.client_ptr[client : client + 2]
        return int(self.index.user[int(start) : int(stop)].null_count())

    def own_items(self, client: int) -> Items:
        """Positions of the client's own catalogue (ascending int32): the items in its training rows."""
        return np.unique(self.population.client(client).item)

    def own_block(self, client: int, items: Items) -> UserBlock:
        """The client's users as they train, with items as positions in its own catalogue."""
        users = self.training.client(client)
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
    cart, history = _aligned(frame, "cart", catalogue, step="cart_step", value="cart_value"), None
    missing = frame["cart"].is_null().to_numpy()
    if known is not None:
        rows = known.index.rows(clients, frame["user"])
        cart = _interleaved(cart, known_items(known, np.where(missing, rows, -1)), missing)
        history = histories(known, rows) if known.log.has("basket") else None
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
    target = _aligned(frame, "targets", catalogue, value="target_value")
    cases = Cases(
        query=Query(cart.items, history, value=cart.value, step=cart.step),
        target=target.items,
        seen=cart.items,
        group=frame["group"].rank("dense").cast(pl.Int64).to_numpy(),
        candidates=candidates,
        target_value=target.value,
    )
    return CaseTable(cases, clients, frame["targets"].list.len().cast(pl.Int64).to_numpy())


def inverse(items: Items, n: int) -> Items:
    """Where each of `n` positions stands in `items`: int32 [n], -1 for those left out."""
    place = np.full(n, -1, np.int32)
    place[items] = np.arange(len(items), dtype=np.int32)
    return place


def positions(lists: pl.Series, catalogue: Catalogue) -> Ragged:
    """A List[String] series as positions; unknown items are left out. Null is an empty list."""
    return _aligned(lists.alias("item").to_frame(), "item", catalogue).items


def _aligned(
    frame: pl.DataFrame, items: str, catalogue: Catalogue, step: str | None = None, value: str | None = None
) -> Known:
    """The lists of `items` as positions, with the lists that are aligned with them, where the frame has these."""
    named = {name: column for name, column in (("step", step), ("value", value)) if column in frame.columns}
    picked = frame.select(pl.int_range(pl.len(), dtype=pl.Int64).alias("row"), pl.col(items).alias("item"), **named)
    present = picked.filter(pl.col("item").list.len() > 0)
    long = present.explode("item", *named).drop_nulls("item")
    found = long.join(catalogue.positions, on="item", how="inner", maintain_order="left")
    counts = np.bincount(found["row"].to_numpy(), minlength=len(frame))
    ptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return Known(
        Ragged(ptr, found["position"].to_numpy().astype(np.int32)),
        value=found["value"].cast(pl.Float32).fill_null(np.nan).to_numpy() if "value" in named else None,
        step=found["step"].cast(pl.Int32).fill_null(0).to_numpy() if "step" in named else None,
    )


def known_items(fit: FitData, rows: Integers) -> Known:
    """What the users `rows` have (-1: nothing): distinct items ascending, mean values, steps of time back."""
    block = fit.population.block
    taken = _take_or_empty(Ragged(block.user_ptr, np.arange(len(block.item), dtype=np.int32)), rows)
    owner, entry = owners(taken.ptr), taken.item
    order = np.lexsort((block.item[entry], owner))
    owner, entry = owner[order], entry[order]
    key = owner * block.n_items + block.item[entry]
    start = np.flatnonzero(np.diff(key, prepend=-1))
    ptr = np.searchsorted(owner[start], np.arange(len(rows) + 1)).astype(np.int64)
    value, step = None, None
    if block.value is not None:
        known = ~np.isnan(block.value[entry])
        total = _reduced(np.add, np.where(known, block.value[entry], 0.0), start)
        number = _reduced(np.add, known.astype(np.float64), start)
        value = np.divide(total, number, out=np.full(len(start), np.nan), where=number > 0).astype(np.float32)
    if block.time is not None:
        step = _steps_back(owner[start], _reduced(np.maximum, block.time[entry], start))
    return Known(Ragged(ptr, block.item[entry][start]), value=value, step=step)


def _reduced(how: np.ufunc, values: Array, start: Array) -> Array:
    """`how` over the runs of `values` that begin at `start`."""
    return how.reduceat(values, start) if len(start) else values[:0]


def _steps_back(owner: Integers, time: Integers) -> Items:
    """How many distinct times each entry lies before its owner's last: int32, 0 for the last."""
    order = np.lexsort((-time, owner))
    mine, when = owner[order], time[order]
    first = np.diff(mine, prepend=-1) != 0
    later = ~first & (np.diff(when, prepend=0) != 0)
    steps = np.cumsum(later)
    begin = steps[first][np.cumsum(first) - 1] if len(steps) else steps
    step = np.empty(len(owner), np.int32)
    step[order] = steps - begin
    return step


def histories(fit: FitData, rows: Integers) -> History:
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


def _interleaved(given: Known, known: Known, use_known: Array) -> Known:
    """List by list what is known where `use_known`, else what was given."""
    n, at = len(given), np.arange(len(given))
    ptr = np.concatenate([given.items.ptr, known.items.ptr[1:] + given.items.ptr[-1]])
    taken = Ragged(ptr, np.arange(ptr[-1], dtype=np.int32)).take(np.where(use_known, at + n, at).astype(np.int64))

    def joined(a: Array | None, b: Array | None, missing: float) -> Array | None:
        if a is None and b is None:
            return None
        kind = next(one.dtype for one in (a, b) if one is not None)
        left = np.full(len(given.items.item), missing, kind) if a is None else a
        right = np.full(len(known.items.item), missing, kind) if b is None else b
        return np.concatenate([left, right])[taken.item]

    items = np.concatenate([given.items.item, known.items.item])[taken.item]
    value, step = joined(given.value, known.value, np.nan), joined(given.step, known.step, 0)
    return Known(Ragged(taken.ptr, items), value=value, step=step)


def _take_history(history: History | None, rows: Integers) -> History | None:
    if history is None:
        return None
    taken = Ragged(history.ptr, np.arange(len(history.item), dtype=np.int32)).take(rows)
    return History(taken.ptr, history.item[taken.item], history.age[taken.item])


def _take(cases: Cases, rows: Integers) -> Cases:
    """These cases, in this order."""
    query = cases.query
    cart, target = _entries(query.cart, rows), _entries(cases.target, rows)
    return Cases(
        query=replace(
            query,
            cart=query.cart.take(rows),
            history=_take_history(query.history, rows),
            value=None if query.value is None else query.value[cart],
            step=None if query.step is None else query.step[cart],
        ),
        target=cases.target.take(rows),
        seen=cases.seen.take(rows),
        group=cases.group[rows],
        candidates=None if cases.candidates is None else cases.candidates.take(rows),
        target_value=None if cases.target_value is None else cases.target_value[target],
    )


def _entries(lists: Ragged, rows: Integers) -> Items:
    """Where the entries of the lists `rows` stand."""
    return Ragged(lists.ptr, np.arange(len(lists.item), dtype=np.int32)).take(rows).item


def _narrow(cases: Cases, items: Items) -> Cases:
    """The same cases with positions in the sub-catalogue `items`; what is not in it is left out."""
    known = [cases.seen, cases.query.cart, cases.target, cases.candidates, cases.query.history]
    highest = max(int(lists.item.max(initial=-1)) for lists in known if lists is not None)
    place = inverse(items, max(highest, int(items.max(initial=-1))) + 1)
    in_target = place[cases.target.item] >= 0
    return Cases(
        query=placed(cases.query, place),
        target=_map(cases.target, place),
        seen=_map(cases.seen, place),
        group=cases.group,
        candidates=None if cases.candidates is None else _map(cases.candidates, place),
        target_value=None if cases.target_value is None else cases.target_value[in_target],
    )


def _map(lists: Ragged, place: Items) -> Ragged:
    ptr, local, _ = map_lists(lists.ptr, lists.item, place)
    return Ragged(ptr, local)
