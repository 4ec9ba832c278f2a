"""A server that shows some clients one model and others another: all that it can get, tried on every set of vectors.

Here the server keeps no rule. It has every upload, every share that a client reveals to its lies, and the secrets of
clients who work for it. It rebuilds what can be rebuilt, and takes every mask off that it can compute.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, combinations

import numpy as np
import pytest

from coterie.errors import SecureAggregationError
from coterie.secure import messages as m
from coterie.secure.field import SHARE_BYTES, recover
from coterie.secure.keys import AgreementKey, mask_key, self_mask_key
from coterie.secure.masks import apply_masks
from coterie.secure.messages import Share
from coterie.secure.terms import Phase, Summed
from coterie.secure.wire import HEADER, Kind
from coterie.types import Integers
from tests.secure.parties import Parties, delivered, revealed, signed, survivors, terms_of

CLIENTS, THRESHOLD, SIZE = 7, 5, 2000
EVERYBODY = frozenset(range(CLIENTS))
MODELS = (Summed(bytes(32), SIZE), Summed(bytes([9] * 32), SIZE))


class Liar:
    """A server for whom `colluders` work; it shows the clients in `second` the second model, all others the first."""

    def __init__(self, second: Iterable[int], colluders: Iterable[int] = ()) -> None:
        self.second, self.colluders = frozenset(second), frozenset(colluders)
        values = np.random.default_rng(0).integers(-1000, 1000, (CLIENTS, SIZE))
        self.parties = Parties(terms_of(CLIENTS, threshold=THRESHOLD), values)
        self.shares: dict[tuple[int, Share], dict[int, bytes]] = {}  # (of whom, which) -> point -> share
        self.pairs: dict[frozenset[int], bytes] = {}  # two clients -> the secret that they share
        self.seeds: dict[int, bytearray] = {}
        self.signatures: dict[int, bytes] = {}
        self.refusals: dict[int, str] = {}
        inbox = self.parties.until(Phase.MASK)
        self.uploads = [self._upload(c, inbox[c]) for c in range(CLIENTS)]

    def model(self, c: int) -> Summed:
        return MODELS[c in self.second]

    def tell(self, first: Iterable[int], second: Iterable[int], mixed: bool = False) -> None:
        """Name the survivors to those who saw each model, and hand each client the signatures of those who saw the same
        one and of colluders, or (`mixed`) of all."""
        told, honest = [frozenset(first), frozenset(second)], sorted(EVERYBODY - self.colluders)
        for c in honest:
            self._ask_to_sign(c, survivors(self.parties, told[c in self.second]))
        for c in [c for c in honest if c in self.signatures]:
            self._ask_to_unmask(c, told[c in self.second], mixed)
        self._rebuild()

    def reads(self) -> set[frozenset[int]]:
        """Sets of clients whose sum it knows; the sums of all others must look like noise."""
        found = set()
        for who in chain.from_iterable(combinations(range(CLIENTS), n) for n in range(1, CLIENTS + 1)):
            rest = self._stripped(who) - self.parties.values[list(who)].sum(axis=0)
            if not rest.any():
                found.add(frozenset(who))
            else:
                counts = np.bincount(rest.view(np.uint8), minlength=256)
                assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 420  # 255 degrees of freedom, 127 looks
        return found

    # --- what it hears --------------------------------------------------------------------------------------------

    def _upload(self, c: int, message: bytes) -> Integers:
        client, shown = self.parties.clients[c], self.model(c)
        if c in self.colluders:
            self.seeds[c] = bytearray(client._seed)
            self.pairs |= {frozenset((c, peer)): secret for peer, secret in client._pair_secrets.items()}
        _, shares = delivered(message, CLIENTS)
        told = m.pack_delivered(m.pack_summed(shown), shares)
        client.accept(self.parties.lie(c, Kind.SHARES_DELIVERED, told), shown)
        if c in self.colluders:
            for peer, held in client._held.items():
                self._hear(c, peer, Share.SEED, bytes(held[:SHARE_BYTES]))
                self._hear(c, peer, Share.MASK_KEY, bytes(held[SHARE_BYTES:]))
        return np.frombuffer(client.mask(self.parties.values[c])[HEADER.size : -16], np.int64)

    def _ask_to_sign(self, c: int, told: bytes) -> None:
        try:
            answer = self.parties.clients[c].sign(self.parties.lie(c, Kind.SURVIVORS, told, self.model(c)))
        except SecureAggregationError as error:
            self.refusals[c] = str(error)
        else:
            self.signatures[c] = answer[HEADER.size : -16]

    def _ask_to_unmask(self, c: int, told: frozenset[int], mixed: bool) -> None:
        parties, shown = self.parties, self.model(c)
        given = {s: signature for s, signature in self.signatures.items() if mixed or self.model(s) == shown}
        for colluder in self.colluders:
            body = signed(parties, survivors(parties, told), [colluder], shown)
            given |= dict(m.read_signatures(memoryview(body), CLIENTS))
        packed = m.pack_signatures((s, given[s]) for s in sorted(given) if s in told)
        try:
            answer = parties.clients[c].unmask(parties.lie(c, Kind.SIGNATURES, packed, shown))
        except SecureAggregationError as error:
            self.refusals[c] = str(error)
            return
        for peer, kind, share in revealed(parties, answer):
            self._hear(c, peer, Share(kind), share)

    def _hear(self, c: int, peer: int, kind: Share, share: bytes) -> None:
        self.shares.setdefault((peer, kind), {})[c + 1] = share

    # --- what it makes of it --------------------------------------------------------------------------------------

    def _rebuild(self) -> None:
        advertised = self.parties.server._keys
        for (peer, kind), held in self.shares.items():
            if len(held) < THRESHOLD:
                continue
            secret = recover([held], THRESHOLD)[0]
            if kind is Share.SEED:
                self.seeds[peer] = secret
                continue
            key = AgreementKey(secret)
            assert key.public == advertised[peer].masking
            for other in EVERYBODY - {peer}:
                self.pairs[frozenset((peer, other))] = key.agree(advertised[other].masking)

    def _stripped(self, who: Iterable[int]) -> Integers:
        """The sum of these uploads without every mask that can be computed."""
        total = np.zeros(SIZE, np.uint64)
        plus: list[bytes] = []
        minus: list[bytes] = []
        for c in who:
            total += self.uploads[c].view(np.uint64)
            context = self.parties.summing(self.model(c))
            if c in self.seeds:
                minus.append(self_mask_key(self.seeds[c], context, c))
            for peer in EVERYBODY - {c}:
                if frozenset((c, peer)) in self.pairs:
                    key = mask_key(self.pairs[frozenset((c, peer))], context, c, peer)
                    (minus if peer > c else plus).append(key)
        apply_masks(total, plus, minus)
        return total.view(np.int64)


def test_a_server_that_tells_one_story_reads_the_sum_of_all_and_nothing_else() -> None:
    """What the rest is measured by: the same attack, with nothing to attack."""
    liar = Liar(second=())
    liar.tell(EVERYBODY, ())
    assert not liar.refusals
    assert liar.reads() == {EVERYBODY}


def test_vectors_of_two_models_that_are_said_to_be_in_one_sum_stay_masked() -> None:
    """Five of seven sign and reveal the seeds of all: masks between the five and the two still don't cancel."""
    liar = Liar(second={5, 6})
    liar.tell(EVERYBODY, EVERYBODY)
    assert liar.seeds.keys() == EVERYBODY
    assert liar.refusals.keys() == {5, 6}
    assert all("only 2 of the 5 share holders" in reason for reason in liar.refusals.values())
    assert liar.reads() == set()


@pytest.mark.parametrize("second", [EVERYBODY, {5, 6}])
def test_a_majority_that_saw_one_model_is_summed_as_if_the_others_had_dropped_out(second: Iterable[int]) -> None:
    """All that a split gives a server is what leaving the others out had given it."""
    liar = Liar(second={5, 6})
    liar.tell(range(5), second)
    assert liar.refusals.keys() == {5, 6}
    assert liar.reads() == {frozenset(range(5))}


@pytest.mark.parametrize(
    ("first", "second"), [(EVERYBODY, EVERYBODY), (range(4), range(4, 7)), (range(5), range(2, 7))]
)
def test_where_no_model_was_seen_by_as_many_as_the_threshold_nothing_is_unmasked(
    first: Iterable[int], second: Iterable[int]
) -> None:
    liar = Liar(second={4, 5, 6})
    liar.tell(first, second)
    assert liar.refusals.keys() == EVERYBODY
    assert not liar.seeds
    assert not liar.pairs
    assert liar.reads() == set()


def test_a_signature_of_a_survivor_set_counts_only_among_those_who_saw_the_same_model() -> None:
    """All seven sign that all seven survived: as many as anybody asks for, but not of one sum."""
    liar = Liar(second={4, 5, 6})
    liar.tell(EVERYBODY, EVERYBODY, mixed=True)
    assert liar.signatures.keys() == liar.refusals.keys() == EVERYBODY
    assert all("signature (survivors) is not that of the key" in reason for reason in liar.refusals.values())
    assert liar.reads() == set()


def test_a_single_client_that_was_shown_a_model_of_its_own_is_never_read() -> None:
    for told in (EVERYBODY, EVERYBODY - {6}):
        liar = Liar(second={6})
        liar.tell(told, EVERYBODY)
        assert liar.reads() == ({EVERYBODY - {6}} if 6 not in told else set())


@pytest.mark.parametrize("told", [EVERYBODY, frozenset({0, 1, 2, 5, 6})])
def test_two_of_seven_who_work_for_the_server_do_not_help_it_to_both_models(told: frozenset[int]) -> None:
    """As many as are claimed (2t - n - 1): they sign both stories and reveal all that they hold. Of the honest it reads
    the sum of those three who saw the model that gathered a threshold, or nothing."""
    liar = Liar(second={3, 4}, colluders={5, 6})
    liar.tell(told, EVERYBODY)
    assert liar.refusals.keys() == {3, 4}
    honest = {who - liar.colluders for who in liar.reads()} - {frozenset()}
    assert honest == ({frozenset({0, 1, 2})} if told != EVERYBODY else set())


def test_one_colluder_more_than_is_claimed_and_the_server_reads_single_vectors() -> None:
    """The claim is sharp: three of seven are enough to have both kinds of share revealed."""
    liar = Liar(second={2, 3}, colluders={4, 5, 6})
    liar.tell({0, 1, 4, 5, 6}, {2, 3, 4, 5, 6})
    assert not liar.refusals
    assert {frozenset({0}), frozenset({1}), frozenset({2}), frozenset({3})} <= liar.reads()
