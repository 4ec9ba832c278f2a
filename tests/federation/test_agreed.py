"""What was agreed, as it travels in the start of a job: it comes back as it was, or is refused."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest

from coterie.data.catalogue import Catalogue
from coterie.errors import DataError, PeerError
from coterie.federation.agreed import Agreed
from coterie.federation.alignment import Alignment
from coterie.federation.nodeagreement import NodeAgreement
from tests.federation.agreeing import Party, identified, plain

THREE = {"north": plain("a", "b", "c"), "south": plain("b", "c", "d"), "west": plain("b", "c", "e")}
BOOKS = {"north": identified("n", 1, 2, 3), "south": identified("s", 2, 3, 4), "west": identified("w", 3, 2, 5)}


def test_what_was_agreed_comes_back_as_it_was() -> None:
    frame = pl.DataFrame({"item": ["b", "a"], "title": ["B", None], "kind": ["k", None], "year": [1999, None]})
    for agreed in (
        Party("given", THREE, 3, Catalogue.listed(frame)).agree(),
        Party("union", THREE, 2).agree(),
        Party("hashed", BOOKS, 2).agree(),
    ):
        blobs = agreed.to_blobs()
        back = Agreed.from_blobs({name: memoryview(blob) for name, blob in blobs.items()})
        assert (back.mode, back.items, back.min_carriers, back.members) == (
            agreed.mode,
            agreed.items,
            agreed.min_carriers,
            agreed.members,
        )
        assert back.texts.equals(agreed.texts)
        assert (back.carriers is None) == (agreed.carriers is None)
        assert back.digest == agreed.digest
        assert back.to_blobs() == blobs


def test_the_digest_is_of_all_of_it() -> None:
    agreed = Party("union", THREE, 2).agree()
    assert agreed.carriers is not None
    titled = agreed.texts.with_columns(title=pl.lit("other"))
    changes = [
        {"carriers": agreed.carriers - 1},
        {"carriers": None},
        {"members": 4},
        {"min_carriers": 1},
        {"mode": "given"},
        {"texts": titled},
    ]
    found = {agreed.digest, *(replace(agreed, **change).digest for change in changes)}
    assert len(found) == 1 + len(changes)


def test_texts_of_other_items_are_refused() -> None:
    agreed = Party("union", THREE, 2).agree()
    with pytest.raises(DataError, match="one row for each"):
        replace(agreed, items=("a", "b"))


def blobs_with(mode: str = "union", **change: Any) -> dict[str, bytes]:
    terms = {"mode": mode, "min_carriers": 2, "members": 3}
    items = {"item": ["a", "b"], "title": [None, None], "attributes": {}}
    found = {
        "terms": json.dumps(terms | change.pop("terms", {})).encode(),
        "items": json.dumps(items | change.pop("table", {})).encode(),
        "carriers": np.array([2, 3], "<i4").tobytes(),
    }
    return {name: blob for name, blob in (found | change).items() if blob is not None}


@pytest.mark.parametrize(
    ("blobs", "reason"),
    [
        ({}, "without its terms or items"),
        (blobs_with(items=None), "without its terms or items"),
        (blobs_with(more=b""), "with something else"),
        (blobs_with(terms={"mode": "other"}), "terms cannot be read"),
        (blobs_with(terms={"mode": ["union"]}), "terms cannot be read"),
        (blobs_with(terms={"extra": 1}), "terms cannot be read"),
        (blobs_with(terms={"extra": "x" * 2000}), "terms cannot be read"),
        (blobs_with(terms={"members": 1}), "min_carriers = 2 of 1 members"),
        (blobs_with(terms={"members": True}), "of True members"),
        (blobs_with(terms={"members": 10**9}), "of 1000000000 members"),
        (blobs_with(terms={"min_carriers": 0}), "min_carriers = 0"),
        (blobs_with(carriers=bytes(7)), "four for each are due"),
        (blobs_with(carriers=np.array([1, 3], "<i4").tobytes()), "fewer than min_carriers = 2"),
        (blobs_with(carriers=np.array([2, 4], "<i4").tobytes()), "more than all 3"),
        (blobs_with(table={"item": ["b", "a"]}), "ascending"),
        (blobs_with(table={"item": [], "title": []}, carriers=b""), "without a single item"),
        (blobs_with(mode="hashed"), "not a hash"),
        (blobs_with(mode="hashed", table={"title": ["A", None]}), "titles"),
        (blobs_with(mode="hashed", table={"attributes": {"n": [1, 2]}}), "titles"),
    ],
)
def test_an_agreed_catalogue_that_is_none_is_refused(blobs: dict[str, bytes], reason: str) -> None:
    with pytest.raises(PeerError, match=reason) as raised:
        Agreed.from_blobs(blobs, "hub")
    assert str(raised.value).startswith("hub: ")


def test_a_node_takes_only_what_it_agreed_to() -> None:
    party = Party("union", THREE, 2)
    agreed = party.agree()
    node = NodeAgreement(THREE["north"], party.identities["north"], party.public, mode="union", min_carriers=3)
    with pytest.raises(PeerError, match="asks for min_carriers = 3"):
        node.align(agreed)
    with pytest.raises(PeerError, match="agreed as 'given', not 'union'"):
        node.align(replace(agreed, mode="given"))
    with pytest.raises(PeerError, match="a second time"):
        party.nodes["north"].align(replace(agreed, carriers=None))
    assert isinstance(party.nodes["north"].align(agreed), Alignment)
