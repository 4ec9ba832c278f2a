"""The contract of a recommender (`coterie.types.Recommender`) as tests that a class per model inherits."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import numba
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.federation.checkpoint import load_state, save_state
from coterie.federation.localstore import UserStore
from coterie.models.base import Model
from coterie.privacy.plan import Plan
from coterie.ring import Accumulator
from coterie.testing.logs import CLIPS, Log, block_of, checkerboard, logs, timed, trained, zipf_log
from coterie.testing.private import HISTORY, N_ITEMS, NoiseContract, law
from coterie.types import History, Integers, Known, Query, Ragged, RoundSpec, Scores, State, Total, UserBlock

MOMENTS = st.sampled_from([0, 1, 3])
"""How many times of the day the log knows; 0: it has no times."""


class RecommenderContract(NoiseContract):
    """Inherit, and return a model from `model`: with few rounds, so that the tests stay quick."""

    exact_pooled: ClassVar[bool] = True
    """Whether `pooled` is the same model, to `tolerance`; models that draw at random while they train say False."""
    tolerance: ClassVar[float] = 1e-4
    separates_kinds: ClassVar[bool] = True
    """Whether items that only ever go together score above all others (False for popularity)."""

    @abstractmethod
    def model(self) -> Model:
        """The model under test."""

    @pytest.fixture
    def all_threads(self) -> Iterator[int]:
        """The number of threads numba may use; the setting is put back afterwards."""
        before = numba.get_num_threads()
        yield int(numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
        numba.set_num_threads(before)

    # --- the sum ------------------------------------------------------------------------------------------------------

    @law
    @given(users=logs(N_ITEMS, min_users=2), clip=st.sampled_from(CLIPS), moments=MOMENTS, data=st.data())
    def test_the_sum_depends_on_neither_partition_nor_block_nor_order(
        self, users: Log, clip: float | None, moments: int, data: st.DataObject
    ) -> None:
        state, spec = self.any_round(clip)
        whole = self.summed(spec, state, _block(users, moments))
        shuffled = data.draw(st.permutations(users))
        cut = data.draw(st.integers(0, len(users)))
        interactions = data.draw(st.integers(1, 40))
        total = Accumulator(spec)
        for client in (shuffled[:cut], shuffled[cut:]):
            for block in _block(client, moments).blocks(interactions):
                self.add(spec, state, block, total)
        assert_same(total.parts, whole)

    def test_the_sum_does_not_depend_on_threads(self, all_threads: int) -> None:
        if all_threads < 2:
            pytest.skip("this machine gives numba one thread")
        state, spec = self.any_round(3.0, 50)
        block = block_of(zipf_log(200, 50), 50)
        numba.set_num_threads(1)
        one = self.summed(spec, state, block)
        numba.set_num_threads(2)
        assert_same(self.summed(spec, state, block), one)

    @law
    @given(users=logs(N_ITEMS), clip=st.sampled_from(CLIPS), moments=MOMENTS, data=st.data())
    def test_removing_a_user_moves_each_part_by_at_most_its_bounds(
        self, users: Log, clip: float | None, moments: int, data: st.DataObject
    ) -> None:
        state, spec = self.any_round(clip)
        removed = data.draw(st.integers(0, len(users) - 1))
        whole = self.summed(spec, state, _block(users, moments))
        rest = self.summed(spec, state, _block([*users[:removed], *users[removed + 1 :]], moments))
        for part in spec.parts:
            moved = [int(a) - int(b) for a, b in zip(whole[part.name], rest[part.name], strict=True)]
            assert max(map(abs, moved), default=0) <= Fraction(part.linf) * part.scale, part.name
            if math.isfinite(part.l2):
                # Exact integers and fractions: a bound that holds up to rounding does not hold.
                assert sum(value * value for value in moved) <= (Fraction(part.l2) * part.scale) ** 2, part.name

    def test_a_sum_over_two_million_users_fits_the_ring(self) -> None:
        for clip in CLIPS:
            state: State | None = self.start(N_ITEMS)
            while state is not None:
                spec = self.model().next_round(state)
                if spec is None:
                    break
                bound = Plan(clip_norm=clip).bind(spec, users=2_000_000, clients=1)
                state = self.model().apply(bound.spec, state, _nothing(bound.spec))

    def test_the_sum_of_nobody_is_zero(self) -> None:
        state, spec = self.any_round(1.0)
        assert all(not values.any() for values in self.summed(spec, state, block_of([], N_ITEMS)).values())

    # --- rounds -------------------------------------------------------------------------------------------------------

    def test_rounds_come_one_after_the_other_and_end(self) -> None:
        model, state = self.model(), self.start(8)
        for expected in range(1000):
            spec = model.next_round(state)
            if spec is None:
                break
            assert spec.index == state.round == expected
            state = trained_on(model, zipf_log(10, 8), 8, rounds=expected + 1)
        assert 0 < state.round < 1000
        assert model.next_round(state) is None

    def test_equal_sums_give_equal_bytes(self, tmp_path: Path, all_threads: int) -> None:
        users = zipf_log(90, 40)
        devices = [[user] for user in users]
        ways = [(devices, 1, 10**6), (devices[::-1], all_threads, 7), (devices, 0, 1)]
        if self.sums_over_users():
            ways += [([users], 1, 10**6), ([users[:20], users[20:]], all_threads, 7)]
        written = set()
        for at, (clients, threads, block) in enumerate(ways):
            path = tmp_path / f"{at}.safetensors"
            save_state(path, trained(self.model(), clients, 40, threads=threads, block=block))
            written.add(path.read_bytes())
        assert len(written) == 1

    def test_a_training_that_was_interrupted_ends_with_the_same_bytes(self, tmp_path: Path) -> None:
        users = [[user] for user in zipf_log(20, 9)]
        whole = trained(self.model(), users, 9)
        for stop in range(1, min(whole.round, 4)):
            store = UserStore(len(users))
            half = trained(self.model(), users, 9, rounds=stop, store=store)
            save_state(tmp_path / "half.safetensors", half)
            again = UserStore(len(users))
            again.restore(store.arrays())
            start = load_state(tmp_path / "half.safetensors")
            assert _bytes(trained(self.model(), users, 9, start=start, store=again)) == _bytes(whole)

    def test_it_can_be_asked_after_every_round(self) -> None:
        users = [[user] for user in zipf_log(12, 8)]
        for done in range(1, min(trained(self.model(), users, 8).round, 6) + 1):
            state = trained(self.model(), users, 8, rounds=done)
            assert np.isfinite(self.scores(state, [*carts(8), []])).all()
            assert state["popularity"].shape == (8,)

    def test_no_more_rounds_than_it_is_cut_to(self) -> None:
        users = [[user] for user in zipf_log(12, 8)]
        whole = trained(self.model(), users, 8).round
        for most in (2, whole, whole + 1):
            assert trained(self.model().at_most(most), users, 8).round <= max(min(most, whole), 1)

    def test_federated_equals_pooled(self) -> None:
        if not self.exact_pooled:
            pytest.skip("the pooled model draws at random in another order")
        users, n_items = zipf_log(60, 25), 25
        pooled = self.scores(self.model().pooled(block_of(users, n_items), {}, 0), carts(n_items))
        for clients in (1, 4, 60):
            federated = trained(self.model(), [users[at::clients] for at in range(clients)], n_items)
            ours = self.scores(federated, carts(n_items))
            np.testing.assert_allclose(ours, pooled, rtol=self.tolerance, atol=self.tolerance * np.abs(pooled).max())

    # --- scores -------------------------------------------------------------------------------------------------------

    def test_the_state_knows_how_popular_items_are(self) -> None:
        users = zipf_log(40, 10)
        state = self.state(users, 10)
        assert int(state["n_items"]) == 10
        popularity = state["popularity"]
        assert popularity.dtype == np.float64
        assert popularity.shape == (10,)
        assert (popularity >= 0).all()
        assert (popularity <= 1 + 1e-9).all()
        rows = [set(basket) for user in users for basket in user]
        if getattr(self.model(), "row_unit", getattr(self.model(), "row", "basket")) == "basket":
            expected = [sum(i in row for row in rows) / len(rows) for i in range(10)]
            np.testing.assert_allclose(popularity, expected, rtol=1e-6)

    def test_restricting_to_all_items_changes_nothing(self) -> None:
        state = self.state(zipf_log(20, 9), 9)
        restricted = self.model().restrict(state, np.arange(9, dtype=np.int32))
        np.testing.assert_allclose(
            self.scores(restricted, carts(9)), self.scores(state, carts(9)), rtol=1e-5, atol=1e-6
        )

    def test_restricting_ranks_the_sub_catalogue(self) -> None:
        items = np.array([0, 2, 3, 7, 11, 19], np.int32)
        state = self.state(zipf_log(80, 20, seed=2), 20)
        restricted = self.model().restrict(state, items)
        assert int(restricted["n_items"]) == len(items)
        np.testing.assert_allclose(restricted["popularity"], state["popularity"][items])
        scores = self.scores(restricted, carts(len(items)))
        assert scores.shape == (4, len(items))
        assert np.isfinite(scores).all()

    def test_the_mix_is_linear_between_its_ends(self) -> None:
        together, own = self.state(zipf_log(40, 10), 10), self.state(zipf_log(5, 10, seed=3), 10)
        asked = [*carts(10), []]
        ends = self.scores(together, asked), self.scores(own, asked)
        for weight in (0.0, 1.0):
            mixed = self.model().personalise(together, own, weight)
            assert np.array_equal(self.scores(mixed, asked), ends[int(weight)])
        middle = self.scores(self.model().personalise(together, own, 0.25), asked)
        np.testing.assert_allclose(middle, 0.75 * ends[0] + 0.25 * ends[1], rtol=1e-5, atol=1e-6)

    def test_an_empty_cart_is_scored_whoever_asks(self) -> None:
        state = self.state(zipf_log(40, 10), 10)
        scores = self.scores(state, [[], [0], []])
        assert scores.dtype == np.float32
        assert scores.shape == (3, 10)
        assert np.array_equal(scores[0], scores[2])
        if not self.model().predicts_values(state):
            np.testing.assert_allclose(scores[0], state["popularity"], rtol=1e-6)

    def test_scores_are_finite_where_items_have_no_interaction(self) -> None:
        state = self.state([[[0, 1]], [[1]], []], 5)
        assert np.isfinite(self.scores(state, [[], [0], [4], [0, 4, 3]])).all()

    def test_a_log_without_any_interaction_gives_finite_scores(self) -> None:
        assert np.isfinite(self.scores(self.state([[], []], 3), [[], [0, 2]])).all()

    def test_queries_do_not_influence_one_another(self) -> None:
        state, asked = self.state(zipf_log(40, 10), 10), [*carts(10), []]
        together = self.scores(state, asked)
        alone = np.vstack([self.scores(state, [cart]) for cart in asked])
        np.testing.assert_allclose(together, alone, rtol=1e-5, atol=1e-6)

    def test_items_of_one_kind_go_together(self) -> None:
        scores = self.scores(self.state(checkerboard(), 12), [[at] for at in range(12)])
        for at, row in enumerate(scores):
            same = [j for j in range(12) if j % 2 == at % 2 and j != at]
            other = [j for j in range(12) if j % 2 != at % 2]
            assert (row[same].min() > row[other].max()) == self.separates_kinds

    def test_evidence_adds_up_to_the_item_part_of_the_score(self) -> None:
        state, model = self.state(zipf_log(40, 6), 6), self.model()
        step, amount = np.array([2, 0, 1], np.int32), np.array([0.5, 1.0, 0.25])
        for known in (
            Known(Ragged.of([[0, 2]])),
            Known(Ragged.of([[4, 1, 3]]), amount, None, step),
            Known(Ragged.of([[5, 1, 2]]), None, np.array([1.0, np.nan, 3.0], np.float32), step),
            Known(Ragged.of([[]])),
        ):
            out = np.zeros((1, 6), np.float32)
            model.related(state, known, out)
            for item in range(6):
                parts = model.evidence(state, known, item)
                assert parts.shape == (len(known.items.item),)
                assert parts.sum() == pytest.approx(float(out[0, item]), rel=1e-4, abs=1e-5)

    def test_reasons_are_positive_and_come_in_order(self) -> None:
        state = self.state(zipf_log(40, 6), 6)
        for query in (_query([[0, 2]]), _query([[]]), _query([[0, 2]], HISTORY), _query([[]], HISTORY)):
            for item in range(6):
                amounts = [amount for _, _, amount in self.model().explain(state, query, item)]
                assert amounts == sorted(amounts, reverse=True)
                assert all(amount > 0 for amount in amounts)

    # --- bytes --------------------------------------------------------------------------------------------------------

    def test_a_state_that_was_saved_scores_the_same(self, tmp_path: Path) -> None:
        state = self.state(zipf_log(30, 10), 10)
        save_state(tmp_path / "model.safetensors", state)
        loaded = load_state(tmp_path / "model.safetensors")
        assert loaded.round == state.round
        assert np.array_equal(self.scores(loaded, carts(10)), self.scores(state, carts(10)))

    def test_nothing_writes_to_a_state_or_to_the_data(self) -> None:
        model, block = self.model(), block_of(zipf_log(30, 10), 10)
        state, own = self.state(zipf_log(30, 10), 10), self.state(zipf_log(4, 10, seed=5), 10)
        early, spec = self.any_round(1.0, 10)
        before = _bytes(state), _bytes(own), _bytes(early), block.item.tobytes(), block.basket_ptr.tobytes()
        self.summed(spec, early, block)
        model.score(state, _query([[1, 2], []]))
        model.explain(state, _query([[1, 2]]), 3)
        model.restrict(state, np.array([1, 4, 5], np.int32))
        model.personalise(state, own, 0.5)
        model.pooled(block, {}, 0)
        after = _bytes(state), _bytes(own), _bytes(early), block.item.tobytes(), block.basket_ptr.tobytes()
        assert after == before

    # --- helpers ------------------------------------------------------------------------------------------------------

    def start(self, n_items: int) -> State:
        """The state before round 0."""
        return self.model().init(n_items, {}, 0)

    def sums_over_users(self) -> bool:
        """Whether no round depends on who is with whom at one client."""
        model, state = self.model(), self.start(8)
        while (spec := model.next_round(state)) is not None:
            if spec.kind != "user_sum":
                return False
            state = model.apply(spec, state, _nothing(spec))
        return True

    def any_round(self, clip: float | None, n_items: int = N_ITEMS) -> tuple[State, RoundSpec]:
        """The last round of a training on a small log, under a plan: its state and its bounds."""
        model, rounds = self.model(), 0
        users = zipf_log(12, n_items, seed=4)
        state = self.start(n_items)
        last = state
        while model.next_round(state) is not None and rounds < 3:
            last, rounds = state, rounds + 1
            state = trained_on(model, users, n_items, rounds=rounds)
        spec = model.next_round(last)
        assert spec is not None
        return last, Plan(clip_norm=clip).bind(spec, users=100, clients=1).spec

    def summed(self, spec: RoundSpec, state: State, users: UserBlock) -> dict[str, Integers]:
        """The sum of one call over `users`, each a client of its own."""
        out = Accumulator(spec)
        self.add(spec, state, users, out)
        return out.parts

    def add(self, spec: RoundSpec, state: State, users: UserBlock, out: Accumulator) -> None:
        """Let `users`, each a client of its own, contribute to `out`."""
        devices = UserBlock(
            users.n_items, users.user_ptr, users.basket_ptr, users.item, users.time, users.value, one_client=False
        )
        self.model().contribute(spec, state, devices, UserStore(users.n_users).view(0, users.n_users), out)

    def state(self, users: Log, n_items: int) -> State:
        """The model trained on `users`, each a client of its own."""
        return trained(self.model(), [[user] for user in users], n_items)

    def scores(self, state: State, asked: list[list[int]]) -> Scores:
        """Scores of carts."""
        return self.model().score(state, _query(asked))


def trained_on(model: Model, users: Log, n_items: int, rounds: int) -> State:
    """The state after `rounds` rounds over `users`, each a client of its own."""
    return trained(model, [[user] for user in users], n_items, rounds=rounds)


def carts(n_items: int) -> list[list[int]]:
    """Four carts over `n_items` items."""
    return [[0], [n_items - 1], [1, 3], list(range(0, n_items, 2))]


def assert_same(got: dict[str, Integers], expected: dict[str, Integers]) -> None:
    """Equal integers in every part."""
    assert got.keys() == expected.keys()
    for name, values in expected.items():
        assert got[name].dtype == np.int64
        assert got[name].tolist() == values.tolist(), name


def _block(users: Log, moments: int) -> UserBlock:
    block = block_of(users, N_ITEMS)
    return timed(block, moments) if moments else block


def _nothing(spec: RoundSpec) -> Total:
    """The sum of a round to which nobody added anything."""
    integers = {part.name: np.zeros(part.size, np.int64) for part in spec.parts}
    return Total(spec, integers, dict.fromkeys(integers, 0.0), 0, 0)


def _query(asked: list[list[int]], history: History | None = None) -> Query:
    return Query(Ragged.of(asked), history)


def _bytes(state: State) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in state.arrays.items()}
