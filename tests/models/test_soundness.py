"""States that came from somebody else: honest ones of every model pass, and none that a kernel would trip over."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from coterie.engines.local import LocalEngine
from coterie.errors import ModelError
from coterie.federation.job import opening
from coterie.federation.loop import run_rounds
from coterie.models.registry import build, names
from coterie.models.soundness import check_state
from coterie.privacy.plan import Plan
from coterie.testing.logs import population_of, zipf_log
from coterie.types import Array, State

ITEMS = 30
POPULATION = population_of([zipf_log(20, ITEMS, seed) for seed in range(3)], ITEMS)
NOISE = Plan(epsilon=8.0, max_users=1000)
SMALL: dict[str, dict[str, Any]] = {"ials": {"iterations": 2, "factors": 4}, "mf": {"rounds": 2, "factors": 4}}


@cache
def states(name: str, noise: bool = False, **settings: Any) -> tuple[State, ...]:
    """The states of a training, the first one before any round."""
    model, plan = build({"name": name, **SMALL.get(name, {}), **settings}), NOISE if noise else Plan()
    found = [opening(model, plan, ITEMS, {}, 0)]
    run_rounds(model, found[0], LocalEngine(POPULATION), plan, lambda bound, total, state: found.append(state))
    return tuple(found)


@pytest.mark.parametrize("name", names())
def test_every_honest_state_passes(name: str) -> None:
    trainings = [states(name)] + ([states(name, noise=True)] if name != "mf" else [])
    trainings += [states(name, exact_items=10)] if name == "cart" else []
    for start, *later in trainings:
        assert later
        for state in later:
            check_state(name, state, start)


def refused(name: str, states: tuple[State, ...], **lies: Array) -> str:
    """Why the newest of these states is refused with other arrays in it."""
    state = next(one for one in reversed(states) if all(key in one or key == "extra" for key in lies))
    with pytest.raises(ModelError) as error:
        check_state(name, state.updated(**lies), states[0])
    return str(error.value)


def test_lists_that_point_beyond_the_catalogue_are_refused() -> None:
    """With these a kernel would write into memory that is not its own."""
    honest = states("cart", noise=True)
    ptr, item = honest[1]["pair_ptr"], honest[1]["pair_item"]
    for lie in (ptr + 1, ptr[::-1].copy(), ptr * 1000, ptr[:-1], ptr.astype(np.float64)):
        assert "'pair_ptr'" in refused("cart", honest, pair_ptr=lie)
    for wrong in (item + ITEMS, item - ITEMS, item[:-1], item.astype(np.float32)):
        assert "pair_ptr" in refused("cart", honest, pair_item=wrong)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e300])
@pytest.mark.parametrize(("name", "array"), [("subspace", "level"), ("subspace", "basis"), ("ials", "factors")])
def test_values_that_pass_every_bound_are_refused(name: str, array: str, value: float) -> None:
    """A NaN is neither above nor below a clip norm, and as an integer it is the largest there is."""
    honest = states(name, noise=name == "subspace")
    state = next(one for one in reversed(honest) if array in one)
    lie = state[array].astype(np.float64) if name == "subspace" else state[array].copy()
    lie.flat[0] = min(value, 3e38) if lie.dtype == np.float32 else value
    assert f"'{array}' holds values" in refused(name, honest, **{array: lie})


@pytest.mark.parametrize(
    ("name", "array", "lie"),
    [
        ("ials", "n_items", np.array(ITEMS + 1)),
        ("ials", "factors", np.zeros((ITEMS - 1, 4), np.float32)),
        ("ials", "factors", np.zeros((ITEMS, 4), np.float64)),
        ("ease", "weights", np.zeros((ITEMS, ITEMS - 1), np.float32)),
        ("ease", "gram", np.zeros(ITEMS, np.int32)),
        ("ease", "popularity", np.zeros(ITEMS - 1)),
        ("spectral", "factors", np.zeros((ITEMS, 3), np.float32)),
        ("mf", "ground", np.zeros((2, 2))),
        ("mf", "pull", np.zeros(2)),
        ("subspace", "head", np.array([0, ITEMS])),
        ("subspace", "level", np.ones(1)),
        ("ease", "extra", np.array(["text"])),
    ],
)
def test_arrays_of_another_shape_or_kind_are_refused(name: str, array: str, lie: Array) -> None:
    assert f"'{array}'" in refused(name, states(name), **{array: lie})


def test_a_state_without_items_is_refused() -> None:
    start = states("ease")[0]
    with pytest.raises(ModelError, match="does not say how many items"):
        check_state("ease", State(1, {}), start)
