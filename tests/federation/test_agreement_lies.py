"""Agreement on items with a coordinator or members that lie: each is refused, by a sentence that names it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from coterie.errors import DataError, PeerError
from coterie.federation.sharedkey import OFFER_BYTES, Offer, in_order
from coterie.federation.steps import agreement_context
from coterie.secure.keys import AgreementKey, Identity
from tests.federation.agreeing import JOB, Content, Party, identified, plain

THREE = {"north": plain("a", "b", "c"), "south": plain("b", "c", "d"), "west": plain("b", "c", "e")}
BOOKS = {"north": identified("n", 1, 2, 3), "south": identified("s", 2, 3, 4), "west": identified("w", 3, 2, 5)}
FOUR = {**BOOKS, "east": identified("e", 2, 3, 9)}

# --- coordinators that lie --------------------------------------------------------------------------------------------


def refused_in(step: str, what: Any) -> dict[str, str]:
    """The refusals of nodes that are sent `what(member, header, blobs)` instead of the request of `step`."""
    party = Party("hashed", FOUR, 2)

    def lie(member: str, at: str, content: Content) -> Content:
        header, blobs = dict(content[0]), dict(content[1])
        return what(party, member, header, blobs) or (header, blobs) if at == step else content

    with pytest.raises(PeerError):
        party.agree(to_node=lie)
    return party.refusals


def test_a_key_of_the_coordinators_own_is_refused() -> None:
    """Neither an identity that nobody pinned, nor a key that its owner did not sign, gets at the shared key."""

    def puppet(party: Party, member: str, header: dict[str, Any], blobs: dict[str, bytes]) -> None:
        context = agreement_context(JOB, party.agreement.attempt)
        mine = Offer.of(Identity(), AgreementKey().public, context)
        blobs["offers"] = b"".join(one.pack() for one in in_order([*party.agreement._offers, mine]))

    def swapped(party: Party, member: str, header: dict[str, Any], blobs: dict[str, bytes]) -> None:
        offers = bytearray(blobs["offers"])
        offers[-OFFER_BYTES + 32 : -OFFER_BYTES + 64] = AgreementKey().public
        blobs["offers"] = bytes(offers)

    for step, lie, reason in (
        ("seal", puppet, "is not pinned"),
        ("seal", swapped, "not signed by the identity"),
        ("hashes", puppet, "is not pinned"),
        ("hashes", swapped, "not signed by the identity"),
    ):
        found = refused_in(step, lie)
        assert len(found) >= 3
        assert all(reason in said for said in found.values())


def test_an_offer_of_another_job_or_attempt_is_refused() -> None:
    def replayed(party: Party, member: str, header: dict[str, Any], blobs: dict[str, bytes]) -> None:
        keys = {one.identity: one.key for one in party.agreement._offers}
        context = agreement_context("another job", party.agreement.attempt)
        old = [Offer.of(one, keys[one.public], context) for one in party.identities.values() if one.public in keys]
        blobs["offers"] = b"".join(one.pack() for one in in_order(old))

    assert all("is of another agreement" in reason for reason in refused_in("seal", replayed).values())


def test_only_the_lowest_fingerprint_draws_the_key() -> None:
    party = Party("hashed", BOOKS, 2)
    requests = party.agreement.requests(0)
    assert requests is not None
    for member, (header, blobs) in requests.items():
        party.agreement.take(member, *party.nodes[member].answer(0, header, blobs))
    party.agreement.close_stage(set(requests))
    seal = party.agreement.requests(1)
    assert seal is not None
    assert list(seal) == [party.leader]
    other = next(name for name in BOOKS if name != party.leader)
    with pytest.raises(PeerError, match="not the lowest"):
        party.nodes[other].answer(1, *seal[party.leader])


def test_members_who_were_shown_different_lists_share_no_key() -> None:
    """The leader seals over four offers; a member that is shown three of them cannot open what was sealed."""

    def fewer(party: Party, member: str, header: dict[str, Any], blobs: dict[str, bytes]) -> None:
        if member == party.leader:
            return
        hidden = next(name for name in FOUR if name not in (party.leader, member))
        kept = [one for one in party.agreement._offers if one.identity != party.public[hidden]]
        blobs["offers"] = b"".join(one.pack() for one in kept)

    found = refused_in("hashes", fewer)
    assert len(found) == 3
    assert all("altered" in reason for reason in found.values())


def test_two_lists_in_one_attempt_are_refused() -> None:
    party = Party("hashed", FOUR, 2)
    party.agree()
    header = {"mode": "hashed", "attempt": party.agreement.attempt, "min_carriers": 2, "members": 4, "stage": 7}
    fewer = b"".join(one.pack() for one in party.agreement._offers[:3])
    for step in ("seal", "hashes"):
        with pytest.raises(PeerError, match="two different ones"):
            party.nodes[party.leader].answer(7, {**header, "step": step}, {"offers": fewer})


def test_a_list_of_members_must_name_the_node_and_each_once_in_order() -> None:
    def without_it(party: Party, member: str, header: dict[str, Any], blobs: dict[str, bytes]) -> None:
        others = [one.pack() for one in party.agreement._offers if one.identity != party.public[member]]
        blobs["offers"] = b"".join(others)

    def twice(party: Party, member: str, header: dict[str, Any], blobs: dict[str, bytes]) -> None:
        blobs["offers"] = blobs["offers"][:OFFER_BYTES] + blobs["offers"]

    def backwards(party: Party, member: str, header: dict[str, Any], blobs: dict[str, bytes]) -> None:
        blobs["offers"] = b"".join(one.pack() for one in reversed(party.agreement._offers))

    def torn(party: Party, member: str, header: dict[str, Any], blobs: dict[str, bytes]) -> None:
        blobs["offers"] = blobs["offers"][:-1]

    for lie, reason in ((without_it, "without it"), (twice, "one twice"), (backwards, "one twice"), (torn, "not 128")):
        found = refused_in("hashes", lie)
        assert len(found) == 4
        assert all(reason in said for said in found.values())


def test_a_new_attempt_forgets_the_hashes_of_the_one_before() -> None:
    party = Party("hashed", FOUR, 2)
    agreed = party.agree()
    header = {"mode": "hashed", "attempt": "0" * 32, "min_carriers": 2, "members": 4, "stage": 0, "step": "offer"}
    before = party.nodes["north"].answer(0, header, {})[1]["offer"]
    assert party.nodes["north"].answer(0, {**header, "attempt": "1" * 32}, {})[1]["offer"] != before
    with pytest.raises(PeerError, match="must be made again"):
        party.nodes["north"].align(agreed)


def test_a_replayed_sealed_key_cannot_be_opened() -> None:
    earlier: dict[str, bytes] = {}

    def keep(member: str, step: str, content: Content) -> Content:
        if "sealed" in content[1]:
            earlier[member] = content[1]["sealed"]
        return content

    Party("hashed", FOUR, 2).agree(to_node=keep)

    def replay(party: Party, member: str, header: dict[str, Any], blobs: dict[str, bytes]) -> None:
        if member != party.leader:
            blobs["sealed"] = next(iter(earlier.values()))

    found = refused_in("hashes", replay)
    assert len(found) == 3
    assert all("altered" in reason for reason in found.values())


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"step": "items"}, "agrees on items by 'hashed'"),
        ({"step": ["offer"]}, "agrees on items by 'hashed'"),
        ({"mode": "union"}, "agrees on items by 'hashed'"),
        ({"stage": 5}, "another stage"),
        ({"attempt": "x" * 32}, "without the number"),
        ({"attempt": 3}, "without the number"),
        ({"min_carriers": 1}, "asks for min_carriers = 2"),
        ({"min_carriers": True}, "without min_carriers"),
        ({"members": 1}, "only 1 members"),
        ({"members": None}, "number of members"),
        ({"min_carriers": 9}, "9 of them must carry"),
        ({"step": "hashes"}, "before it had asked"),
    ],
)
def test_a_request_that_is_not_what_was_agreed_is_refused(change: dict[str, Any], reason: str) -> None:
    header = {"step": "offer", "mode": "hashed", "stage": 0, "attempt": "0" * 32, "min_carriers": 2, "members": 3}
    node = Party("hashed", BOOKS, 2).nodes["north"]
    with pytest.raises(PeerError, match=reason):
        node.answer(0, {**header, **change}, {})


# --- members that lie -------------------------------------------------------------------------------------------------


def table(**change: Any) -> bytes:
    return json.dumps({"item": ["a", "b"], "title": ["A", None], "attributes": {}, **change}).encode()


@pytest.mark.parametrize(
    ("blob", "reason"),
    [
        (b"", "cannot be read"),
        (b"\xff\xfe{}", "cannot be read"),
        ('{"item": []}'.encode("utf-16"), "cannot be read"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"item": [], "item": [], "title": [], "attributes": {}}', "there twice"),
        (b"[]", "exactly the fields"),
        (b'{"item": []}', "exactly the fields"),
        (table(item={"a": 1}), "no list"),
        (table(item=["b", "a"]), "ascending order, or one twice"),
        (table(item=["a", "a"]), "ascending order, or one twice"),
        (table(item=["a", 2]), "no text"),
        (table(item=["a", ["b"]]), "no text"),
        (table(item=["", "b"]), "is empty"),
        (table(item=[None, "b"]), "is empty"),
        (table(item=["a", "x" * 201]), "longer than 200"),
        (table(item=["a\x1b[31m", "b"]), "no plain text"),
        (table(item=["a", "e\u0301"]), "no plain text"),
        (table(item=["a", "\ud800"]), "no Unicode"),
        (table(title=["A"]), "another length"),
        (table(title="AB"), "another length"),
        (table(title=["A", "x" * 1001]), "longer than 1000"),
        (table(title=["A", "x\ny"]), "control characters"),
        (table(title=["A", 3]), "no text"),
        (table(attributes=[]), "no list"),
        (table(attributes={str(at): [1, 2] for at in range(33)}), "more than 32"),
        (table(attributes={"item": ["x", "y"]}), "not allowed"),
        (table(attributes={"": ["x", "y"]}), "not allowed"),
        (table(attributes={"\ud800": ["x", "y"]}), "not allowed"),
        (table(attributes={"n": [1]}), "neither texts nor numbers"),
        (table(attributes={"n": [1, "x"]}), "neither texts nor numbers"),
        (table(attributes={"n": [True, False]}), "neither texts nor numbers"),
        (table(attributes={"n": [{}, 1]}), "neither texts nor numbers"),
        (table(attributes={"n": 7}), "another length"),
        (table(attributes={"n": [1, 2**60]}), "more than 53 bits"),
        (table(attributes={"n": [1, 0]}).replace(b"[1, 0]", b"[1, 1e999]"), "not finite"),
        (table(attributes={"n": [1, 0]}).replace(b"[1, 0]", b"[1, NaN]"), "NaN is no number"),
        (table(attributes={"n": [1, 0]}).replace(b"[1, 0]", b"[1, " + b"9" * 5000 + b"]"), "cannot be read"),
    ],
)
def test_a_malformed_list_of_items_is_refused_and_its_sender_named(blob: bytes, reason: str) -> None:
    party = Party("union", THREE, 2)

    def lie(member: str, step: str, content: Content) -> Content:
        return (content[0], {"items": blob}) if member == "west" else content

    assert party.agree(from_node=lie).members == 2
    assert party.refusals["west"].startswith("west: ")
    assert reason in party.refusals["west"]


def test_lists_that_are_too_long_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coterie.federation.itemtable.MAX_ITEMS", 3)
    party = Party("union", {"a": plain("1"), "b": plain("1"), "c": plain("1")})
    long = json.dumps({"item": ["1", "2", "3", "4"], "title": [None] * 4, "attributes": {}}).encode()
    party.agree(from_node=lambda name, step, content: (content[0], {"items": long}) if name == "c" else content)
    assert party.refusals["c"] == "c: sent 4 items, at most 3 are taken"
    with pytest.raises(DataError, match="4 items are more than a federation agrees on"):
        Party("union", {"a": plain("1", "2", "3", "4"), "b": plain("1"), "c": plain("1")}).agree()
    monkeypatch.setattr("coterie.federation.itemtable.MAX_BYTES", 60)
    party = Party("union", {"a": plain("1"), "b": plain("1"), "c": plain("1")})
    with pytest.raises(PeerError, match="0 members are left"):
        party.agree(from_node=lambda name, step, content: (content[0], {"items": long}))
    assert party.refusals["a"].startswith("a: sent a list of items of")
    with pytest.raises(DataError, match="share fewer attributes or shorter titles"):
        Party("union", {"a": plain("1", "2", "3"), "b": plain("1"), "c": plain("1")}).agree()


@pytest.mark.parametrize(
    ("step", "blobs", "reason"),
    [
        ("offer", {"offer": bytes(128)}, "not its own"),
        ("offer", {"offer": b""}, "not its own"),
        ("offer", {"offer": b"", "more": b""}, "exactly 'offer' is due"),
        ("offer", {}, "exactly 'offer' is due"),
        ("seal", {"sealed": bytes(47)}, "96 are due"),
        ("hashes", {"hashes": bytes(17)}, "bytes of hashes"),
        ("hashes", {"hashes": bytes(32)}, "ascending order, or one twice"),
        ("hashes", {"hashes": b"\1" * 16 + b"\0" * 16}, "ascending order, or one twice"),
    ],
)
def test_a_malformed_answer_under_hashes_is_refused(step: str, blobs: dict[str, bytes], reason: str) -> None:
    party = Party("hashed", BOOKS, 2)
    liar = party.leader if step == "seal" else "south"

    def lie(member: str, at: str, content: Content) -> Content:
        return (content[0], blobs) if (member, at) == (liar, step) else content

    assert party.agree(from_node=lie).members == 2
    assert party.refusals[liar].startswith(f"{liar}: ")
    assert reason in party.refusals[liar]


def test_hashes_with_zero_bytes_at_their_ends_are_told_apart() -> None:
    party = Party("hashed", BOOKS, 2)
    sent = sorted([bytes(16), bytes(15) + b"\1", b"\1" + bytes(15), b"\1" * 15 + b"\0", b"\1" * 16])

    def lie(member: str, step: str, content: Content) -> Content:
        return (content[0], {"hashes": b"".join(sent)}) if step == "hashes" else content

    agreed = party.agree(from_node=lie)
    assert agreed.items == tuple(one.hex() for one in sent)


def test_a_leader_who_seals_nonsense_is_named_by_those_who_open_it() -> None:
    party = Party("hashed", FOUR, 2)

    def lie(member: str, step: str, content: Content) -> Content:
        return (content[0], {"sealed": bytes(144)}) if step == "seal" else content

    with pytest.raises(PeerError, match="1 members are left"):
        party.agree(from_node=lie)
    assert len(party.refusals) == 3
    assert all(reason.startswith(f"{party.leader}: a sealed key was altered") for reason in party.refusals.values())


def test_a_member_answers_once_and_only_what_it_was_asked() -> None:
    party = Party("union", THREE, 2)
    requests = party.agreement.requests(0)
    assert requests is not None
    assert party.agreement.requests(0) is requests
    reply = party.nodes["north"].answer(0, *requests["north"])
    party.agreement.take("north", *reply)
    for member in ("north", "stranger"):
        with pytest.raises(PeerError, match=f"{member}: answered twice, or what it was not asked"):
            party.agreement.take(member, *reply)
    with pytest.raises(PeerError, match="south: answered 'offer' when it was asked for 'items'"):
        party.agreement.take("south", {"step": "offer"}, reply[1])
    header: Any = ["step"]  # of whatever type JSON has
    with pytest.raises(PeerError, match="south: answered 'None'"):
        party.agreement.take("south", header, reply[1])
    party.agreement.take("south", *party.nodes["south"].answer(0, *requests["south"]))
    party.agreement.close_stage({"north", "south", "west", "stranger"})  # west never answered
    assert party.agreement.result.members == 2
    assert party.agreement.requests(1) is None


def test_stages_come_in_order() -> None:
    agreement = Party("union", THREE, 2).agreement
    for misuse in (lambda: agreement.requests(1), lambda: agreement.close_stage(set()), lambda: agreement.result):
        with pytest.raises(ValueError, match="agreement"):
            misuse()
