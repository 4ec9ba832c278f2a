"""What every privacy claim rests on: no user moves a sum by more than its bounds, whatever the user's data are.

For every model of the registry, every round of it under noise, and several plans: contributions are integers, so a
bound either holds to the last one or does not hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coterie.federation.localstore import UserStore
from coterie.models import registry
from coterie.models.base import Model
from coterie.privacy.binding import CLIPPED_SCALE
from coterie.privacy.plan import Plan
from coterie.ring import Accumulator
from coterie.testing.logs import Log, block_of, timed, zipf_log
from coterie.testing.private import begun, noisy_plan, trained_under_noise
from coterie.types import Array, Integers, PartSpec, RoundSpec, State, UserBlock

ITEMS = 40
EVERYTHING = list(range(ITEMS))
FINE = 1 << 44  # ring units per 1 in which a norm that is too large by the rounding of a float64 is seen
MANY = 1_000  # interactions of which one plan is enough
WILD = np.array([np.nan, np.inf, -np.inf, 1e38, -3.4e38, 1e-45, 0.0, -0.0, 3.0], np.float32)

# More than the defaults, where a model has another way of summing; a model that is not named here has its defaults.
VARIANTS: Mapping[str, tuple[Mapping[str, Any], ...]] = {
    "ease": ({}, {"row": "user"}),
    "spectral": ({"factors": 5}, {"method": "subspace", "factors": 5}, {"method": "subspace", "row": "user"}),
    "ials": ({"factors": 6}, {"factors": 20, "row": "user", "noised_iterations": 3}),
    "sequence": ({}, {"row": "user", "window": 3, "time_scale": 1.0}, {"basket_exponent": 0.0}),
    "mf": ({"factors": 4, "noised_rounds": 2}, {"factors": 4, "feedback": "explicit", "client_weight": "interactions"}),
    "user-similarity": ({}, {"similarity": "euclidean", "row": "user"}, {"shrinkage": 5.0, "size_nodes": 4}),
}
CASES = [(name, dict(given)) for name in registry.BUILT_IN for given in VARIANTS.get(name, ({},))]

MORE_PLANS = (
    {},
    {"clip_norm": 1e-3},
    {"clip_norm": 37.5},
    {"ring_bits": 32, "max_users": 1_000},
    {"neighbours": "replace-one", "max_clients_per_user": 2},
)


def clipped(part: PartSpec, scale: int) -> PartSpec:
    """The part with its own clip norm, in units of at most 1 / `scale`."""
    clip = math.inf if part.clip is None else part.clip
    return replace(part, l2=min(part.l2, clip), linf=min(part.linf, clip), scale=max(part.scale, scale))


@dataclass(frozen=True)
class Asked:
    """A round that is asked of users: the state before it, and its bounds."""

    model: Model
    state: State
    spec: RoundSpec

    def sums(self, block: UserBlock) -> dict[str, Integers]:
        """What the users of a block, each a client of its own, send before noise."""
        out, devices = Accumulator(self.spec), replace(block, one_client=False)
        self.model.contribute(self.spec, self.state, devices, UserStore(block.n_users).view(0, block.n_users), out)
        return out.parts

    def check(self, block: UserBlock) -> None:
        """Hold what each user of a block sends against the bounds, and their sum against that of the block."""
        together = self.sums(block)
        if block.n_users == 1:
            for part in self.spec.parts:
                self.hold(part, together[part.name])
            return
        total = {part.name: np.zeros(part.size, np.int64) for part in self.spec.parts}
        for user in range(block.n_users):
            alone = self.sums(block.users(user, user + 1))
            for part in self.spec.parts:
                self.hold(part, alone[part.name])
                total[part.name] += alone[part.name]
        for part in self.spec.parts:
            assert np.array_equal(together[part.name], total[part.name]), part.name

    def hold(self, part: PartSpec, values: Integers) -> None:
        """Exact integers and fractions: a bound that holds up to rounding does not hold."""
        sent = [int(value) for value in values[values != 0]]
        where = f"{self.model.name}, round {self.spec.index}, part '{part.name}'"
        assert max(map(abs, sent), default=0) <= Fraction(part.linf) * part.scale, where
        assert sum(value * value for value in sent) <= (Fraction(part.l2) * part.scale) ** 2, where


@cache
def asked(name: str, given: tuple[tuple[str, Any], ...], n_items: int = ITEMS) -> tuple[Asked, ...]:
    """Every round of a model that trains under noise, under several plans."""
    model, public = registry.build({"name": name, **dict(given)}), public_of(name)
    plan, users = noisy_plan(30.0), zipf_log(60, n_items, seed=5)
    found = list[Asked]()
    for rounds in range(len(model.budget(begun(model, n_items, plan, public)))):
        state = state_of(model, users, n_items, rounds)
        spec = model.next_round(state)
        if spec is None:
            break
        for scale in (CLIPPED_SCALE, FINE):
            parts = tuple(clipped(part, scale) for part in spec.parts)
            found.append(Asked(model, state, replace(spec, parts=parts)))
        found += [Asked(model, state, bound) for bound in bounds_of(model, state, spec)]
    return tuple(found)


def state_of(model: Model, users: Log, n_items: int, rounds: int) -> State:
    """The state after some rounds; values cannot be told through a log of items, so that those of ratings start."""
    if model.predicts_values(model.init(n_items, {}, 0)):
        state = begun(model, n_items, noisy_plan(30.0))
        moments = {"mean": np.array(3.0), "deviation": np.array(1.0), "trains": np.array(1)}
        counted = state.updated(round=rounds, popularity=np.full(n_items, 0.1), **moments)
        return counted if rounds else state
    return trained_under_noise(model, users, n_items, 30.0, rounds=rounds)


def public_of(name: str) -> dict[str, Array]:
    return {} if name != "mf" else {"explicit": np.array(0, np.int64)}


def bounds_of(model: Model, state: State, spec: RoundSpec) -> list[RoundSpec]:
    base = {"epsilon": 4.0, "delta": 1e-6, "noise": "central", "aggregation": "plain", "simulated_noise": True}
    shares = model.budget(state)
    return [
        Plan(**{**base, **more}).bind(spec, 50, 50, shares=shares, one_user_each=True).spec  # type: ignore[arg-type]
        for more in MORE_PLANS
    ]


def ids(case: object) -> str:
    return "-".join(map(str, case.values())) if isinstance(case, dict) else str(case)


def valued(block: UserBlock, seed: int = 0) -> UserBlock:
    """With values that a broken client may hold: not a number, infinite, huge, tiny."""
    return replace(block, value=np.random.default_rng(seed).choice(WILD, size=len(block.item)))


def rare(users: int) -> Log:
    """Users of one item each."""
    return [[[at % ITEMS]] for at in range(users)]


ADVERSARIAL: Mapping[str, Log] = {
    "every item at once": [[EVERYTHING]],
    "every item, one at a time": [[[at] for at in EVERYTHING]],
    "thousands of baskets": [[[at % ITEMS, (at * 7 + 3) % ITEMS, (at * 11 + 1) % ITEMS] for at in range(1_500)]],
    "one basket a thousand times": [[[2, 3, 5, 7]] * 1_000],
    "one item a thousand times": [[[9]] * 1_000],
    "everything, over and over": [[EVERYTHING] * 170],
    "one item": [[[11]]],
    "nothing": [[], [[4, 8]], []],
    "growing baskets": [[EVERYTHING[:size] for size in range(1, ITEMS + 1)]],
    "many who have little, one who has it all": [*rare(30), [EVERYTHING] * 3, *zipf_log(5, ITEMS, seed=8)],
}


@pytest.mark.parametrize(("name", "given"), CASES, ids=ids)
def test_no_user_passes_a_bound_whatever_they_have(name: str, given: dict[str, Any]) -> None:
    for at, (what, users) in enumerate(ADVERSARIAL.items()):
        block = valued(block_of(users, ITEMS), at)
        many = len(block.item) > MANY
        for one in asked(name, tuple(given.items())):
            for log in [block] if many else [block, timed(block, 5)]:
                if many and one.spec.parts[0].scale < FINE:
                    continue
                try:
                    one.check(log)
                except AssertionError as error:
                    raise AssertionError(f"{what}: {error}") from error


basket = st.lists(st.sampled_from(EVERYTHING), min_size=1, max_size=12, unique=True)
user = st.one_of(
    st.lists(basket, max_size=5),
    st.builds(lambda one, times: [one] * times, basket, st.integers(2, 80)),
    st.builds(lambda size, times: [EVERYTHING[:size]] * times, st.integers(1, ITEMS), st.integers(1, 3)),
)


@pytest.mark.parametrize(("name", "given"), CASES, ids=ids)
@settings(max_examples=20, deadline=None)
@given(users=st.lists(user, min_size=1, max_size=4), seed=st.integers(0, 99), data=st.data())
def test_no_user_passes_a_bound(
    name: str, given: dict[str, Any], users: list[list[list[int]]], seed: int, data: st.DataObject
) -> None:
    block = valued(block_of(users, ITEMS), seed)
    if data.draw(st.booleans(), label="with times"):
        block = timed(block, data.draw(st.sampled_from([1, 3]), label="moments"))
    rounds = asked(name, tuple(given.items()))
    rounds[data.draw(st.integers(0, len(rounds) - 1), label="round and plan")].check(block)


@pytest.mark.parametrize(("name", "given"), CASES, ids=ids)
def test_every_part_of_every_round_is_bounded(name: str, given: dict[str, Any]) -> None:
    for one in asked(name, tuple(given.items())):
        assert all(math.isfinite(part.l2) for part in one.spec.parts)


@pytest.mark.parametrize(("name", "given"), CASES, ids=ids)
def test_real_users_stay_within_bounds(real_data: Path, name: str, given: dict[str, Any]) -> None:
    columns = np.loadtxt(real_data / "ml-100k" / "u.data", dtype=np.int64)
    users, items = columns[:, 0] - 1, np.unique(columns[:, 1], return_inverse=True)[1]
    chosen = np.argsort(-np.bincount(users), kind="stable")[[0, 1, 2, *range(10, 900, 90)]]
    block = rated(columns, users, items, chosen)
    model = registry.build({"name": name, **given})
    state = begun(model, block.n_items, noisy_plan(4.0), public_of(name))
    spec = model.next_round(state)
    assert spec is not None
    for bound in bounds_of(model, state, spec)[:2]:
        Asked(model, state, bound).check(block)


def rated(columns: Integers, users: Integers, items: Integers, chosen: Sequence[int] | Integers) -> UserBlock:
    """The ratings of some users: items ascending, with times and stars."""
    rows = [np.flatnonzero(users == one) for one in chosen]
    order = np.concatenate([row[np.argsort(items[row])] for row in rows])
    ptr = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return UserBlock(
        int(items.max()) + 1,
        ptr,
        ptr,
        items[order].astype(np.int32),
        columns[order, 3] * 1_000_000,
        columns[order, 2].astype(np.float32),
    )
