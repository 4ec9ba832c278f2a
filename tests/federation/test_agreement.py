"""Agreement on items: what comes out in each mode, who learns what on the way, and who may be missing."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.data.catalogue import Catalogue
from coterie.engines.local import LocalEngine
from coterie.errors import ConfigError, DataError, PeerError, PlanError, RunError
from coterie.federation.agreed import Agreed
from coterie.federation.agreement import Agreement
from coterie.federation.assortment import Assortment
from coterie.federation.carriers import Carriers, partner_note
from coterie.federation.loop import run_rounds
from coterie.federation.nodeagreement import NodeAgreement
from coterie.federation.sharedkey import keyed_hash
from coterie.models.ease import Ease
from coterie.models.popularity import Popularity
from coterie.privacy.plan import Plan
from coterie.ring import Accumulator
from coterie.secure.keys import Identity
from coterie.testing.logs import population_of, zipf_log
from coterie.types import Population, Ragged, UserBlock
from tests.federation.agreeing import JOB, Content, Party, gtin, identified, plain, texts

THREE = {"north": plain("a", "b", "c"), "south": plain("b", "c", "d"), "west": plain("b", "c", "e")}
BOOKS = {"north": identified("n", 1, 2, 3), "south": identified("s", 2, 3, 4), "west": identified("w", 3, 2, 5)}
SHOPS = st.dictionaries(st.sampled_from(["north", "south", "west", "east"]), st.sets(st.integers(0, 12)), min_size=3)

# --- what comes out ---------------------------------------------------------------------------------------------------


def test_an_item_enters_where_enough_members_carry_it() -> None:
    agreed = Party("union", THREE, 3).agree()
    assert (agreed.items, agreed.min_carriers, agreed.members) == (("b", "c"), 3, 3)
    assert agreed.carriers is not None
    assert agreed.carriers.tolist() == [3, 3]
    assert agreed.catalogue.titles() == ["the b", "the c"]


def test_below_the_threshold_nothing_is_said_of_an_item() -> None:
    agreed = Party("union", {**THREE, "east": plain("a", "b", "secret")}, 2).agree()
    assert agreed.items == ("a", "b", "c")
    assert agreed.carriers is not None
    assert agreed.carriers.tolist() == [2, 4, 3]
    assert b"secret" not in b"".join(agreed.to_blobs().values())


@given(SHOPS, st.integers(1, 3))
@settings(max_examples=40, deadline=None)
def test_all_modes_agree_on_the_same_items(shops: dict[str, set[int]], least: int) -> None:
    having = Counter(number for numbers in shops.values() for number in numbers)
    expected = {f"0{gtin(number)}": count for number, count in having.items() if count >= least}
    assortments = {name: identified(name, *numbers) for name, numbers in shops.items() if numbers}
    if len(assortments) < 3 or not expected:
        return
    union = Party("union", assortments, least)
    agreed = union.agree()
    assert agreed.carriers is not None
    assert dict(zip(agreed.items, agreed.carriers.tolist(), strict=True)) == expected

    listed = Catalogue.listed(texts(*((f"0{gtin(number)}", None) for number in sorted(having))))
    counting = Party("given", assortments, least, listed)
    counted = counted_by_secure_sum(counting, counting.agree())
    assert counted.items == agreed.items

    hashed = Party("hashed", assortments, least)
    hidden = hashed.agree()
    assert hidden.carriers is not None
    assert sorted(hidden.carriers.tolist()) == sorted(expected.values())
    for name in assortments:
        shown, blind = union.nodes[name].align(agreed), hashed.nodes[name].align(hidden)
        assert (shown.position >= 0).tolist() == (blind.position >= 0).tolist()
        assert counting.nodes[name].align(counted).position.tolist() == shown.position.tolist()


def test_the_order_of_members_and_answers_does_not_matter() -> None:
    one, other = Party("union", THREE, 2), Party("union", dict(reversed(THREE.items())), 2)
    assert one.agree().digest == other.agree().digest


def test_conflicting_titles_are_settled_by_most_then_by_the_smallest() -> None:
    shops = {
        "a": Assortment.listed(texts(("1", "Mug"), ("2", "Zinc cup"), ("3", None))),
        "b": Assortment.listed(texts(("1", "Mug, red"), ("2", "Ash cup"), ("3", None))),
        "c": Assortment.listed(texts(("1", "Mug, red"), ("2", None), ("3", None))),
    }
    for order in (shops, dict(reversed(shops.items()))):
        assert Party("union", order, 3).agree().catalogue.titles() == ["Mug, red", "Ash cup", None]


def test_attributes_leave_only_where_they_are_named() -> None:
    table = pl.DataFrame(
        {"item": ["1", "2"], "title": ["x", "y"], "kind": ["k", None], "price": [1.5, 2.0], "year": [1, 2]}
    )
    bare, naming = Assortment.listed(table), Assortment.listed(table, attributes=("kind", "year"))
    party = Party("union", {"a": naming, "b": bare, "c": naming})
    agreed = party.agree()
    assert agreed.texts.to_dicts() == [
        {"item": "1", "title": "x", "kind": "k", "year": 1.0},
        {"item": "2", "title": "y", "kind": None, "year": 2.0},
    ]
    assert b"price" not in party.heard


def test_an_attribute_that_one_member_writes_as_text_is_text() -> None:
    shops = {
        "a": Assortment.listed(pl.DataFrame({"item": ["1"], "title": [None], "size": [4.0]}), attributes=("size",)),
        "b": Assortment.listed(pl.DataFrame({"item": ["1"], "title": [None], "size": ["4 l"]}), attributes=("size",)),
        "c": Assortment.listed(pl.DataFrame({"item": ["1"], "title": [None], "size": ["4 l"]}), attributes=("size",)),
    }
    assert Party("union", shops).agree().texts["size"].to_list() == ["4 l"]


def test_a_title_is_sent_in_one_line_and_cut() -> None:
    shops = {name: Assortment.listed(texts(("1", "a\tb\n" + "x" * 2000))) for name in "abc"}
    (title,) = Party("union", shops).agree().catalogue.titles()
    assert title == "a b " + "x" * 996


def test_nothing_in_common_is_said() -> None:
    with pytest.raises(PeerError, match="not one is carried by min_carriers = 3"):
        Party("union", {"a": plain("1"), "b": plain("2"), "c": plain()}, 3).agree()
    with pytest.raises(PeerError, match="not one is carried by min_carriers = 3"):
        Party("hashed", {name: identified(name, at) for at, name in enumerate("abc")}, 3).agree()


# --- who carries what, by a secure sum --------------------------------------------------------------------------------


def counted_by_secure_sum(party: Party, agreed: Agreed) -> Agreed:
    """What a coordinator makes of a given list: a sum under real masks, of 0 and 1 by organisation."""
    if agreed.counted:
        return agreed
    alignments = [node.align(agreed) for node in party.nodes.values()]
    rows = Ragged.of([one.assortment().item.tolist() for one in alignments])
    block = UserBlock(len(agreed.items), rows.ptr, rows.ptr, rows.item)
    people = Population(block, np.arange(len(rows) + 1), tuple(party.nodes))
    summand = Carriers()
    plan = Plan(aggregation="secure", min_clients=2, masks="real")
    state = run_rounds(summand, summand.start(len(agreed.items)), LocalEngine(people), plan)
    return agreed.count(state["carriers"], len(people))


def test_a_given_list_is_counted_by_a_secure_sum() -> None:
    listed = Catalogue.listed(texts(("a", "A"), ("b", "B"), ("c", "C"), ("z", "Z")))
    party = Party("given", THREE, 3, listed)
    agreed = party.agree()
    assert (agreed.items, agreed.carriers, agreed.counted) == (("a", "b", "c", "z"), None, False)
    found = counted_by_secure_sum(party, agreed)
    assert (found.items, found.counted, found.catalogue.titles()) == (("b", "c"), True, ["B", "C"])
    assert found.carriers is not None
    assert found.carriers.tolist() == [3, 3]
    assert party.heard == b""


def test_rows_of_one_organisation_count_once_and_those_of_several_each() -> None:
    summand = Carriers()
    spec = summand.next_round(summand.start(4))
    assert spec is not None
    ptr = np.array([0, 3, 5])
    block = UserBlock(4, ptr, ptr, np.array([0, 0, 2, 2, 3], np.int32))
    for one_client, expected in ((True, [1, 0, 1, 1]), (False, [1, 0, 2, 1])):
        out = Accumulator(spec)
        summand.contribute(spec, summand.start(4), replace(block, one_client=one_client), None, out)
        assert out["carriers"].tolist() == expected


def test_who_carries_an_item_is_counted_once() -> None:
    party = Party("given", THREE, 3, Catalogue.listed(texts(("a", None), ("b", None))))
    node, agreed = party.nodes["north"], party.agree()
    assert node.align(agreed).position.tolist() == node.align(agreed).position.tolist()
    other = Agreement(
        "given",
        3,
        party.public,
        Catalogue.listed(
            texts(
                ("b", None),
            )
        ),
    ).result
    with pytest.raises(PeerError, match="a second time"):
        node.align(other)
    again = Party("given", THREE, 3, Catalogue.listed(texts(("a", None), ("b", None)))).nodes["north"]
    again.restore(node.kept)
    with pytest.raises(PeerError, match="a second time"):
        again.align(other)


@pytest.mark.parametrize("counts", [[4, 1, 1], [-1, 1, 1], [1, 1]])
def test_counts_that_no_nodes_could_have_are_refused(counts: list[int]) -> None:
    agreed = Party("given", THREE, 1, Catalogue.listed(texts(("a", None), ("b", None), ("c", None)))).agree()
    with pytest.raises(PeerError, match="between 0 and the 3 nodes"):
        agreed.count(np.array(counts), 3)


# --- who learns what --------------------------------------------------------------------------------------------------


def test_under_hashes_the_coordinator_hears_no_identifier_and_no_title() -> None:
    party = Party("hashed", BOOKS, 2)
    agreed = party.agree()
    said = party.heard + b"".join(agreed.to_blobs().values())
    for number in range(1, 6):
        assert gtin(number).encode() not in said
        assert f"item {number}".encode() not in said
    assert all(len(item) == 32 and int(item, 16) >= 0 for item in agreed.items)
    assert agreed.catalogue.titles() == [None, None]


def test_every_agreement_has_a_key_of_its_own() -> None:
    assert not set(Party("hashed", BOOKS, 2).agree().items) & set(Party("hashed", BOOKS, 2).agree().items)


def test_two_own_items_with_one_identifier_are_one_item_to_others() -> None:
    rows = (("old", "x", gtin(1)), ("new", "y", gtin(1)), ("none", "z", "12"))
    twice = Assortment.listed(texts(*rows, columns=("item", "title", "ean")), identifier="ean")
    party = Party("union", {"a": twice, "b": identified("b", 1), "c": identified("c", 1)})
    agreed = party.agree()
    assert b'["y"]' in party.heard
    assert agreed.items == (f"0{gtin(1)}",)
    alignment = party.nodes["a"].align(agreed)
    assert (alignment.own, alignment.position.tolist()) == (("new", "none", "old"), [0, -1, 0])
    assert alignment.local == ("new",)


def test_what_keyed_hashes_assume_a_member_with_the_key_can_test_guesses() -> None:
    """The documented limit: with the key of one node, a coordinator reads what others carry, alone or not."""
    heard: dict[str, bytes] = {}

    def listen(member: str, step: str, content: Content) -> Content:
        if step == "hashes":
            heard[member] = content[1]["hashes"]
        return content

    party = Party("hashed", BOOKS, 3)
    party.agree(from_node=listen)
    exchange = party.nodes["north"]._exchange
    assert exchange is not None
    assert exchange._drawn is not None
    guesses = {keyed_hash(exchange._drawn, f"0{gtin(number)}"): number for number in range(10)}
    hashes = [heard["south"][at : at + 16] for at in range(0, len(heard["south"]), 16)]
    assert {guesses[one] for one in hashes} == {2, 3, 4}  # 4 is carried by south alone


def test_a_private_plan_takes_no_items_from_the_log() -> None:
    log = Assortment.of(Catalogue(("a",)))
    identity = Identity()
    NodeAgreement(log, identity, {}, mode="union")
    with pytest.raises(PlanError, match="items file"):
        NodeAgreement(log, identity, {}, mode="union", private=True)


# --- two parties, and partners who put their sums together ------------------------------------------------------------


def test_two_members_need_both_consents() -> None:
    two = {"a": plain("1", "2"), "b": plain("1", "2")}
    assert Party("union", two, 2).agree().items == ("1", "2")
    party = Party("union", two, 2, two_party=False)
    with pytest.raises(PeerError, match="0 members are left"):
        party.agree()
    assert "only 2 members" in party.refusals["a"]


def test_a_federation_that_shrinks_to_two_is_refused_at_its_nodes() -> None:
    party = Party("union", THREE, 2, two_party=False)
    agreed = party.agree(absent={"west": "items"})
    assert agreed.members == 2
    with pytest.raises(PeerError, match="only 2 members"):
        party.nodes["north"].align(agreed)


@pytest.mark.parametrize("model", [Popularity(), Ease()])
def test_a_partner_of_two_can_compute_the_others_counts(model: Popularity | Ease) -> None:
    """What the card says of a federation of two: own sums, subtracted from the total, leave the other's."""
    mine, theirs = zipf_log(20, 15), zipf_log(30, 15, seed=1)
    total, own, wanted = (sums_of(model, *clients) for clients in ([mine, theirs], [mine], [theirs]))
    for name in ("counts", "gram"):
        if name in total:
            assert (total[name].astype(np.int64) - own[name] == wanted[name]).all()
            assert wanted[name].any()
    assert partner_note(2, private=False).startswith("Each of the 2 members can subtract its own sums")


def test_all_but_one_who_put_their_sums_together_compute_the_last() -> None:
    logs = [zipf_log(20, 15, seed=seed) for seed in range(3)]
    total, pooled, wanted = (sums_of(Popularity(), *clients) for clients in (logs, logs[:2], logs[2:]))
    assert (total["counts"].astype(np.int64) - pooled["counts"] == wanted["counts"]).all()
    assert partner_note(3, private=False).startswith("Two of 3 members")


def sums_of(model: Popularity | Ease, *clients: Any) -> dict[str, Any]:
    people = population_of(clients, 15)
    state = run_rounds(model, model.init(15, {}, 0), LocalEngine(people), Plan())
    return {name: array for name, array in state.arrays.items() if name in ("counts", "gram")}


# --- members that do not answer ---------------------------------------------------------------------------------------


FOUR = {**BOOKS, "east": identified("e", 2, 3, 9)}


@pytest.mark.parametrize("step", ["offer", "seal", "hashes"])
def test_without_the_member_who_draws_the_key_the_others_agree(step: str) -> None:
    party = Party("hashed", FOUR, 3)
    agreed = party.agree(absent={party.leader: step})
    assert party.leader not in party.agreement.members
    assert agreed.members == 3
    assert len(agreed.items) == 2
    for name in party.agreement.members:
        assert int((party.nodes[name].align(agreed).position >= 0).sum()) == 2


def test_too_few_answers_end_the_agreement() -> None:
    with pytest.raises(PeerError, match=r"2 members are left to agree on items \(lost: west\)"):
        Party("union", THREE, 3).agree(absent={"west": "items"})


def test_a_node_that_was_restarted_aligns_with_what_it_kept() -> None:
    party = Party("hashed", BOOKS, 2)
    agreed = party.agree()
    before, kept = party.nodes["south"].align(agreed), party.nodes["south"].kept
    fresh = NodeAgreement(
        BOOKS["south"], party.identities["south"], party.public, mode="hashed", min_carriers=2, job=JOB
    )
    with pytest.raises(PeerError, match="lost in a restart"):
        fresh.align(agreed)
    fresh.restore(kept)
    assert fresh.align(agreed).position.tolist() == before.position.tolist()
    exchange = party.nodes["south"]._exchange
    assert exchange is not None
    assert exchange._drawn is not None
    assert exchange._drawn.hex().encode() not in kept
    other = NodeAgreement(BOOKS["west"], party.identities["west"], party.public, mode="hashed", job=JOB)
    for content in (b"", b"[]", b"{}", b'{"hashes": [null], "counting": null}'):
        with pytest.raises(RunError, match="start the job again"):
            other.restore(content)


def test_equal_requests_get_equal_replies() -> None:
    party = Party("hashed", BOOKS, 2)

    def twice(member: str, step: str, content: Content) -> Content:
        header, blobs = content
        party.nodes[member].answer(header["stage"], header, blobs)
        replies = [party.nodes[member].answer(header["stage"], header, blobs) for _ in range(2)]
        assert replies[0] == replies[1]
        return content

    assert len(party.agree(to_node=twice).items) == 2


# --- settings ---------------------------------------------------------------------------------------------------------


LISTED = Catalogue(("a",))


@pytest.mark.parametrize(
    ("mode", "least", "listed", "reason"),
    [
        ("hashd", 3, None, "did you mean 'hashed'"),
        ("union", 4, None, "min_carriers = 4 with 3 members"),
        ("union", 0, None, "min_carriers = 0"),
        ("given", 3, None, "needs an items file"),
        ("union", 3, LISTED, "use 'given'"),
        ("given", 3, Catalogue(()), "lists no item"),
    ],
)
def test_settings_under_which_no_item_could_enter_are_refused(
    mode: Any, least: int, listed: Catalogue | None, reason: str
) -> None:
    with pytest.raises(ConfigError, match=reason):
        Agreement(mode, least, {name: Identity().public for name in THREE}, listed)


def test_two_members_with_one_identity_are_refused() -> None:
    with pytest.raises(ConfigError, match="the same identity"):
        Agreement("union", 2, dict.fromkeys(THREE, Identity().public))


@pytest.mark.parametrize(("item", "reason"), [("a\nb", "control characters"), ("x" * 201, "1 to 200 characters")])
def test_an_own_id_that_cannot_travel_is_refused_at_home(item: str, reason: str) -> None:
    with pytest.raises(DataError, match=reason):
        Party("union", {"a": plain(item), "b": plain("1"), "c": plain("1")}).agree()
