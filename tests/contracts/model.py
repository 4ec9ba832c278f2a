"""What every recommender promises; a test class per model inherits it and adds the paper's formula as the oracle."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import ClassVar

import numba
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from coterie.federation.checkpoint import load_state, save_state
from coterie.models.base import Model
from coterie.models.text import similarity
from coterie.privacy.plan import Plan
from coterie.ring import Accumulator
from coterie.types import Array, Floats, History, Integers, Query, Ragged, RoundSpec, Scores, State, UserBlock
from tests.contracts.reference import (
    CLIPS,
    Log,
    block_of,
    checkerboard,
    contribution,
    logs,
    real_sums,
    trained,
    zipf_log,
)

N_ITEMS = 7
# Each subclass is another system under test, so that hypothesis meets several executors is meant.
law = settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.differing_executors])


class ModelContract(ABC):
    """Inherit, return a model from `model`, and write its formula down in `formula`."""

    personal: ClassVar[bool] = True
    """Whether the scores depend on the cart."""

    @abstractmethod
    def model(self) -> Model:
        """The model under test."""

    @abstractmethod
    def formula(self, gram: Floats, counts: Floats, rows: float, cart: list[int]) -> Floats:
        """Scores of all items (float64 [items]) for a non-empty cart, straight from the paper, with plain numpy."""

    @pytest.fixture
    def all_threads(self) -> Iterator[int]:
        """The number of threads numba may use; the setting is put back afterwards."""
        before = numba.get_num_threads()
        yield int(numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
        numba.set_num_threads(before)

    # --- the sum ------------------------------------------------------------------------------------------------------

    @law
    @given(users=logs(N_ITEMS), clip=st.sampled_from(CLIPS))
    def test_the_sum_equals_the_slow_reference(self, users: Log, clip: float | None) -> None:
        spec = self._spec(N_ITEMS, clip)
        _assert_same(self._sum(spec, block_of(users, N_ITEMS)), contribution(self.model(), spec, users, N_ITEMS))

    def test_the_sum_of_a_larger_log_equals_the_slow_reference(self) -> None:
        users = zipf_log(60, 30)
        for clip in (None, 2.0):
            spec = self._spec(30, clip)
            _assert_same(self._sum(spec, block_of(users, 30)), contribution(self.model(), spec, users, 30))

    @law
    @given(users=logs(N_ITEMS, min_users=2), clip=st.sampled_from(CLIPS), data=st.data())
    def test_the_sum_depends_on_neither_partition_nor_block_nor_order(
        self, users: Log, clip: float | None, data: st.DataObject
    ) -> None:
        spec = self._spec(N_ITEMS, clip)
        whole = self._sum(spec, block_of(users, N_ITEMS))
        shuffled = data.draw(st.permutations(users))
        cut = data.draw(st.integers(0, len(users)))
        interactions = data.draw(st.integers(1, 40))
        out, state = Accumulator(spec), self._start(N_ITEMS)
        for client in (shuffled[:cut], shuffled[cut:]):
            for block in block_of(client, N_ITEMS).blocks(interactions):
                self.model().contribute(spec, state, block, None, out)
        _assert_same(out.parts, whole)

    def test_the_sum_does_not_depend_on_threads(self, all_threads: int) -> None:
        if all_threads < 2:
            pytest.skip("this machine gives numba one thread")
        block, spec = block_of(zipf_log(200, 50), 50), self._spec(50, 3.0)
        numba.set_num_threads(1)
        one = self._sum(spec, block)
        numba.set_num_threads(2)
        _assert_same(self._sum(spec, block), one)

    @law
    @given(users=logs(N_ITEMS), clip=st.sampled_from(CLIPS), data=st.data())
    def test_removing_a_user_moves_each_part_by_at_most_its_bounds(
        self, users: Log, clip: float | None, data: st.DataObject
    ) -> None:
        spec = self._spec(N_ITEMS, clip)
        removed = data.draw(st.integers(0, len(users) - 1))
        whole = self._sum(spec, block_of(users, N_ITEMS))
        rest = self._sum(spec, block_of([*users[:removed], *users[removed + 1 :]], N_ITEMS))
        for part in spec.parts:
            moved = [int(a) - int(b) for a, b in zip(whole[part.name], rest[part.name], strict=True)]
            assert max(map(abs, moved), default=0) <= part.linf * part.scale
            if math.isfinite(part.l2):
                # Exact integers and fractions: a bound that holds up to rounding does not hold.
                assert sum(value * value for value in moved) <= (Fraction(part.l2) * part.scale) ** 2

    def test_a_clipped_user_uses_most_of_the_bound(self) -> None:
        spec = self._spec(N_ITEMS, 0.5)
        total = self._sum(spec, block_of([[[0, 1, 2]] * 5], N_ITEMS))
        for part in spec.parts:
            assert np.linalg.norm(total[part.name] / part.scale) > 0.49

    def test_a_user_with_very_many_rows_is_not_lost(self) -> None:
        rows = 70_000
        ptr = np.arange(rows + 1, dtype=np.int64)
        block = UserBlock(2, np.array([0, rows], np.int64), ptr, np.zeros(rows, np.int32))
        spec, model = self._spec(2, None), self.model()
        out = self._sum(spec, block)
        expected = {"counts": 1.0, "rows": 1.0} if getattr(model, "row_unit", "basket") == "user" else {}
        for name in ("counts", "rows"):
            assert out[name][0] / spec.part(name).scale == expected.get(name, float(rows))

    def test_the_sum_of_nobody_is_zero(self) -> None:
        spec = self._spec(N_ITEMS, 1.0)
        assert all(not values.any() for values in self._sum(spec, block_of([], N_ITEMS)).values())

    # --- the model ----------------------------------------------------------------------------------------------------

    def test_one_round_is_enough(self) -> None:
        state = self._state(zipf_log(10, 8), 8)
        assert state.round == 1
        assert self.model().next_round(state) is None

    @pytest.mark.parametrize("clients", [1, 4, 60])
    def test_federated_equals_pooled(self, clients: int) -> None:
        users, n_items = zipf_log(60, 25), 25
        federated = trained(self.model(), [users[at::clients] for at in range(clients)], n_items)
        pooled = self.model().pooled(block_of(users, n_items), {})
        ours, theirs = self._scores(federated, _carts(n_items)), self._scores(pooled, _carts(n_items))
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())

    def test_scores_equal_the_formula(self) -> None:
        users, n_items = zipf_log(80, 20, seed=1), 20
        state = self._state(users, n_items)
        _assert_close(self._scores(state, _carts(n_items)), self._expected(users, n_items, np.arange(n_items)))

    def test_restricting_to_all_items_changes_nothing(self) -> None:
        state = self._state(zipf_log(20, 9), 9)
        restricted = self.model().restrict(state, np.arange(9, dtype=np.int32))
        assert np.array_equal(self._scores(restricted, _carts(9)), self._scores(state, _carts(9)))

    def test_restricting_solves_the_same_sums_on_fewer_items(self) -> None:
        users, items = zipf_log(80, 20, seed=2), np.array([0, 2, 3, 7, 11, 19], np.int32)
        restricted = self.model().restrict(self._state(users, 20), items)
        assert int(restricted["n_items"]) == len(items)
        _assert_close(self._scores(restricted, _carts(len(items))), self._expected(users, 20, items))

    def test_the_mix_is_linear_between_its_ends(self) -> None:
        together, own = self._state(zipf_log(40, 10), 10), self._state(zipf_log(5, 10, seed=3), 10)
        carts = _carts(10)
        ends = self._scores(together, carts), self._scores(own, carts)
        for weight in (0.0, 1.0):
            mixed = self.model().personalise(together, own, weight)
            assert np.array_equal(self._scores(mixed, carts), ends[int(weight)])
        middle = self._scores(self.model().personalise(together, own, 0.25), carts)
        np.testing.assert_allclose(middle, 0.75 * ends[0] + 0.25 * ends[1], rtol=1e-5, atol=1e-6)

    def test_an_empty_cart_is_scored_by_popularity(self) -> None:
        users = zipf_log(40, 10)
        sums = real_sums(self.model(), users, 10)
        scores = self._scores(self._state(users, 10), [[], [0], []])
        assert scores.dtype == np.float32
        assert scores.shape == (3, 10)
        np.testing.assert_allclose(scores[0], sums["counts"] / sums["rows"], rtol=1e-6)
        assert np.array_equal(scores[0], scores[2])

    def test_scores_are_finite_where_items_have_no_interaction(self) -> None:
        state = self._state([[[0, 1]], [[1]], []], 5)
        scores = self._scores(state, [[], [0], [4], [0, 4, 3]])
        assert np.isfinite(scores).all()
        assert (scores[:2, 3] <= scores[:2, 1]).all()

    def test_a_log_without_any_interaction_gives_finite_scores(self) -> None:
        assert np.isfinite(self._scores(self._state([[], []], 3), [[], [0, 2]])).all()

    def test_queries_do_not_influence_one_another(self) -> None:
        state, carts = self._state(zipf_log(40, 10), 10), _carts(10)
        together = self._scores(state, carts)
        alone = np.vstack([self._scores(state, [cart]) for cart in carts])
        assert np.array_equal(together, alone)

    def test_items_of_one_kind_go_together(self) -> None:
        scores = self._scores(self._state(checkerboard(), 12), [[at] for at in range(12)])
        for at, row in enumerate(scores):
            same = [j for j in range(12) if j % 2 == at % 2 and j != at]
            other = [j for j in range(12) if j % 2 != at % 2]
            assert (row[same].min() > row[other].max()) == self.personal

    def test_reasons_are_the_positive_parts_of_the_score(self) -> None:
        titles = ["red mug", "blue mug", "red mug large", None, "tin drum", "drum"]
        state = self._state(zipf_log(40, 6), 6, similarity(titles) if self.model().terms().text else {})
        for query in (_query([[0, 2]]), _query([[]]), _query([[0, 2]], _HISTORY), _query([[]], _HISTORY)):
            scores = self.model().score(state, query)[0]
            for item in range(6):
                reasons = self.model().explain(state, query, item)
                shares = [share for _, _, share in reasons]
                assert shares == sorted(shares, reverse=True)
                assert all(share > 0 for share in shares)
                against = self._negative_parts(state, query, item)
                assert sum(shares) + against == pytest.approx(float(scores[item]), abs=1e-5)

    # --- bytes --------------------------------------------------------------------------------------------------------

    def test_equal_sums_give_equal_bytes(self, tmp_path: Path, all_threads: int) -> None:
        users = zipf_log(90, 40)
        ways = [([users], 1, 10**6), ([users[:20], users[20:]], all_threads, 7), ([[user] for user in users], 0, 1)]
        written = set()
        for at, (clients, threads, block) in enumerate(ways):
            path = tmp_path / f"{at}.safetensors"
            save_state(path, trained(self.model(), clients, 40, threads=threads, block=block))
            written.add(path.read_bytes())
        assert len(written) == 1

    def test_a_state_that_was_saved_scores_the_same(self, tmp_path: Path) -> None:
        state = self._state(zipf_log(30, 10), 10)
        save_state(tmp_path / "model.safetensors", state)
        loaded = load_state(tmp_path / "model.safetensors")
        assert loaded.round == state.round
        assert np.array_equal(self._scores(loaded, _carts(10)), self._scores(state, _carts(10)))

    def test_nothing_writes_to_a_state_or_to_the_data(self) -> None:
        model, block = self.model(), block_of(zipf_log(30, 10), 10)
        state, own = self._state(zipf_log(30, 10), 10), self._state(zipf_log(4, 10, seed=5), 10)
        before = _bytes(state), _bytes(own), block.item.tobytes(), block.basket_ptr.tobytes()
        spec = self._spec(10, 1.0)
        model.contribute(spec, state, block, None, Accumulator(spec))
        model.score(state, _query([[1, 2], []]))
        model.explain(state, _query([[1, 2]]), 3)
        model.fit(state)
        model.restrict(state, np.array([1, 4, 5], np.int32))
        model.personalise(state, own, 0.5)
        model.pooled(block, {})
        assert (_bytes(state), _bytes(own), block.item.tobytes(), block.basket_ptr.tobytes()) == before

    # --- helpers ------------------------------------------------------------------------------------------------------

    def _spec(self, n_items: int, clip: float | None) -> RoundSpec:
        spec = self.model().next_round(self._start(n_items))
        assert spec is not None
        return Plan(clip_norm=clip).bind(spec, users=100, clients=1).spec

    def _start(self, n_items: int) -> State:
        return self.model().init(n_items, {}, 0)

    def _sum(self, spec: RoundSpec, users: UserBlock) -> dict[str, Integers]:
        out = Accumulator(spec)
        self.model().contribute(spec, self._start(users.n_items), users, None, out)
        return out.parts

    def _state(self, users: Log, n_items: int, public: dict[str, Array] | None = None) -> State:
        return trained(self.model(), [users], n_items, public=public)

    def _scores(self, state: State, carts: list[list[int]]) -> Scores:
        return self.model().score(state, _query(carts))

    def _expected(self, users: Log, n_items: int, items: Array) -> Floats:
        sums = real_sums(self.model(), users, n_items)
        gram, counts = sums["gram"][np.ix_(items, items)], sums["counts"][items]
        number = float(sums["rows"][0])
        return np.array([self.formula(gram.copy(), counts, number, cart) for cart in _carts(len(items))])

    def _negative_parts(self, state: State, query: Query, item: int) -> float:
        """What speaks against an item, which the reasons leave out."""
        if "weights" not in state:
            return 0.0
        text = self.model().terms().text * (_dense(state.arrays, 6) if "similarity" in state else np.zeros((6, 6)))
        cart = query.cart[0]
        against = np.minimum(state["weights"][cart, item] - text[cart, item], 0.0).sum()
        if len(cart) == 0 and query.history is not None and self.model().terms().history:
            decay = self.model().terms().history_decay
            share = np.zeros(6)
            np.add.at(share, query.history.item, decay**query.history.age / (decay ** np.arange(3)).sum())
            against += np.minimum(share * state["weights"][:, item], 0.0).sum()
        return float(against)


_HISTORY = History(np.array([0, 4], np.int64), np.array([1, 3, 1, 5], np.int32), np.array([0, 0, 1, 2], np.int32))


def _query(carts: list[list[int]], history: History | None = None) -> Query:
    return Query(Ragged.of(carts), history)


def _carts(n_items: int) -> list[list[int]]:
    return [[0], [n_items - 1], [1, 3], list(range(0, n_items, 2))]


def _assert_same(got: dict[str, Integers], expected: dict[str, Integers]) -> None:
    assert got.keys() == expected.keys()
    for name, values in expected.items():
        assert got[name].dtype == np.int64
        assert got[name].tolist() == values.tolist(), name


def _assert_close(got: Scores, expected: Floats) -> None:
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def _dense(arrays: object, n: int) -> Floats:
    full = np.zeros((n, n))
    ptr, item, value = (arrays[f"similarity{end}"] for end in ("_ptr", "_item", ""))  # type: ignore[index]
    for i in range(n):
        full[i, item[ptr[i] : ptr[i + 1]]] = value[ptr[i] : ptr[i + 1]]
    return full


def _bytes(state: State) -> dict[str, bytes]:
    return {name: array.tobytes() for name, array in state.arrays.items()}
