"""Where own items stand in what was agreed; and assortments, whose ids others may know by another name."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from coterie.data.catalogue import Catalogue
from coterie.errors import DataError, PlanError, RunError
from coterie.federation.alignment import Alignment
from coterie.federation.assortment import Assortment
from tests.federation.agreeing import Party, gtin, identified, texts

COLUMNS = ("item", "title", "isbn")
SOME = Alignment(("a", "b", "c", "d"), np.array([2, -1, 0, 2], np.int32), 4)


def test_own_items_have_positions_and_positions_own_items() -> None:
    assert SOME.local == ("c", None, "a", None)
    assert SOME.carried.tolist() == [0, 2]
    assert SOME.index(["d", "b", "zzz", "c"]).tolist() == [2, -1, -1, 0]
    assert SOME.positions.to_dicts() == [
        {"item": "a", "position": 2},
        {"item": "c", "position": 0},
        {"item": "d", "position": 2},
    ]
    assert SOME.index([]).dtype == SOME.carried.dtype == np.int32


def test_coverage_is_of_items_and_of_rows() -> None:
    assert SOME.coverage == 0.75
    assert SOME.coverage_of(pl.Series(["b", "b", "a", "x", None], dtype=pl.String)) == 0.2
    assert SOME.coverage_of(pl.Series([], dtype=pl.String)) == 0.0
    assert SOME.sentence() == "3 of 4 own items (75.0%) are in the agreed catalogue"


def test_what_is_carried_is_one_row() -> None:
    block = SOME.assortment()
    assert (block.n_users, block.n_baskets, block.n_items, block.one_client) == (1, 1, 4, True)
    assert block.item.tolist() == [0, 2]


@pytest.mark.parametrize("own", [(), ("a",)])
def test_a_node_without_an_agreed_item_is_aligned_too(own: tuple[str, ...]) -> None:
    none = Alignment(own, np.full(len(own), -1, np.int32), 3)
    assert (none.coverage, none.local, none.carried.tolist()) == (0.0, (None, None, None), [])
    assert none.assortment().n_users == 1
    assert none.positions.height == 0


def test_it_survives_in_a_store() -> None:
    back = Alignment.from_bytes(SOME.to_bytes())
    assert (back.own, back.position.tolist(), back.n_items) == (SOME.own, SOME.position.tolist(), SOME.n_items)
    assert back.position.dtype == np.int32
    for broken in (b"", b"{}", b"[1, 2]", b'[3, ["a"], [99999999999]]', b'[3, ["a"], "x"]', b'[3, ["a"], []]'):
        with pytest.raises(RunError, match="cannot be read"):
            Alignment.from_bytes(broken)


def test_other_columns_other_ids_and_partly_other_items_work_together() -> None:
    """One shop has SKUs and an EAN column, one ISBN-10 as ids, one a column of ISBN-13."""
    skus = texts(("sku-1", "x", "9780306406157"), ("sku-2", "y", gtin(7)), columns=("item", "title", "EAN"))
    tens = texts(("0-306-40615-2", "A book"), ("own-9", "B"))
    thirteens = texts(("9", None, "978-0-306-40615-7"), ("8", None, gtin(7)), columns=("item", "title", "isbn13"))
    shops = {"a": Assortment.listed(skus), "b": Assortment.listed(tens), "c": Assortment.listed(thirteens)}
    party = Party("hashed", shops, 2)
    agreed = party.agree()
    found = party.alignments(agreed)
    assert len(agreed.items) == 2
    assert [found[name].coverage for name in shops] == [1.0, 0.5, 1.0]
    book = found["a"].index(["sku-1"])[0]
    assert (found["b"].local[book], found["c"].local[book]) == ("0-306-40615-2", "9")


@pytest.mark.parametrize("named", [None, "isbn"])
def test_a_given_list_may_write_identifiers_in_its_own_way(named: str | None) -> None:
    listed = Catalogue.listed(texts(("978-0-306-40615-7", "A book"), (gtin(1), "A mug"), ("other", None)))
    rows = texts(("x", None, "0306406152"), ("y", None, f"0{gtin(1)}"), ("other", None, "-"), columns=COLUMNS)
    party = Party("given", {name: Assortment.listed(rows, named) for name in "abc"}, 1, listed)
    agreed = party.agree()
    assert agreed.counted
    where = [agreed.items.index(item) for item in ("978-0-306-40615-7", gtin(1), "other")]
    if named:  # others know its items by identifiers alone
        where[-1] = -1
    assert party.nodes["a"].align(agreed).index(["x", "y", "other"]).tolist() == where


def test_a_given_list_may_write_ids_in_its_own_way() -> None:
    listed = Catalogue.listed(texts(("0-306-40615-2", None), ("plain", None)))
    shop = Assortment.listed(texts(("9780306406157", None), ("plain", None), ("rest", None)))
    party = Party("given", dict.fromkeys("abc", shop), 1, listed)
    assert party.nodes["b"].align(party.agree()).local == ("9780306406157", "plain")


# --- assortments ------------------------------------------------------------------------------------------------------


def test_an_assortment_is_its_items_in_order() -> None:
    listed = Assortment.listed(texts(("b", "B"), ("a", "A"), ("b", "again"), (None, "nothing")))
    assert (listed.items, listed.source, len(listed), listed.shared) == (("a", "b"), "file", 2, ("a", "b"))
    with pytest.raises(DataError, match="ascending order"):
        Assortment(("b", "a"))
    with pytest.raises(DataError, match="2 items has 1 identifiers"):
        Assortment(("a", "b"), identifiers=("x",))


def test_with_identifiers_others_know_an_item_by_these_alone() -> None:
    rows = texts(("1", None, gtin(1)), ("2", None, "123"), ("3", None, None), columns=("item", "title", "ean"))
    assert Assortment.listed(rows, "ean").shared == (f"0{gtin(1)}", None, None)


def test_the_column_of_identifiers_is_found_by_its_name() -> None:
    rows = texts(("1", None, gtin(1)), columns=("item", "title", "Barcode"))
    assert Assortment.listed(rows).identified().shared == (f"0{gtin(1)}",)
    assert Assortment.listed(texts((gtin(1), None))).identified().shared == (f"0{gtin(1)}",)
    found = identified("x", 1)
    assert found.identified().identifiers == found.identifiers


def test_without_identifiers_nothing_can_be_hashed() -> None:
    with pytest.raises(DataError, match="none of the 2 items has a valid GTIN or ISBN"):
        Assortment.listed(texts(("a", None), ("b", None))).identified()
    with pytest.raises(DataError, match="looked for in column 'gtin'"):
        Assortment.listed(texts(("a", None, "x"), columns=("item", "title", "gtin"))).identified()
    with pytest.raises(DataError, match="column 'code' of the items holds no valid"):
        Assortment.listed(texts(("a", None, "x"), columns=("item", "title", "code")), "code")


@pytest.mark.parametrize("column", ["gtn", "Gtin"])
def test_a_column_that_is_not_there_is_named(column: str) -> None:
    rows = texts(("a", None, gtin(1)), columns=("item", "title", "gtin"))
    with pytest.raises(DataError, match="did you mean 'gtin'"):
        Assortment.listed(rows, column)
    with pytest.raises(DataError, match="did you mean 'gtin'"):
        Assortment.listed(rows, attributes=(column,))


@pytest.mark.parametrize("name", ["item", "title"])
def test_ids_and_titles_are_no_attributes(name: str) -> None:
    with pytest.raises(DataError, match="no further column"):
        Assortment.listed(texts(("a", None)), attributes=(name,))


def test_items_of_a_log_keep_their_source() -> None:
    log = Assortment.of(Catalogue((gtin(1),)))
    assert log.source == log.identified().source == "log"
    with pytest.raises(PlanError, match="must not come from the log"):
        log.identified().refuse_log()
    Assortment.listed(texts(("a", None))).refuse_log()
