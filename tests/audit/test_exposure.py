"""What real users give away, with noise and without."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from coterie.audit.exposure import Exposure, expose
from coterie.audit.kernels import STRETCH, drained
from coterie.errors import DataError
from coterie.models.base import Model
from coterie.models.ease import Ease
from coterie.models.mf import Mf
from coterie.models.popularity import Popularity
from coterie.privacy.plan import Plan
from coterie.testing.logs import population_of, zipf_log

N_ITEMS = 80
USERS = population_of([[user] for user in zipf_log(120, N_ITEMS, seed=4)], N_ITEMS)


def exposed(model: Model, plan: Plan, **asked: Any) -> Exposure:
    return expose(model, USERS, plan, model.init(N_ITEMS, {}, 0), users=40, threads=1, **asked)


@pytest.mark.parametrize("model", [Popularity(), Ease()], ids=lambda model: model.name)
def test_without_noise_everything_shows(model: Model) -> None:
    found = exposed(model, Plan())
    assert {part.part: (part.alone, part.noised) for part in found.parts}["counts"] == (1.0, 1.0)
    assert found.membership == found.membership_most == 1.0
    assert 0.6 < found.popularity < 0.95
    assert json.loads(json.dumps(found.as_dict()))["users"] == 40


@pytest.mark.parametrize("model", [Popularity(), Ease(regularisation=1e5)], ids=lambda model: model.name)
def test_noise_hides_items_and_presence(model: Model) -> None:
    plan = Plan(epsilon=1.0, delta=1e-5, aggregation="plain", noise="central", clip_norm=2.0, simulated_noise=True)
    found = exposed(model, plan)
    for part in found.parts:
        assert part.alone == 1.0
        assert 0.4 < part.noised < 0.62
    # Nobody is easier to tell than by a shift of 1 / 3.73 standard deviations: what epsilon 1 allows.
    assert 0.5 < found.membership <= found.membership_most <= norm.cdf(1 / 3.730631634816 / np.sqrt(2)) + 1e-4


def test_local_training_shows_items_too() -> None:
    found = exposed(Mf(factors=4, rounds=3), Plan())
    assert {part.part for part in found.parts} == {"counts", "delta", "weight"}
    assert {part.part: part.alone for part in found.parts}["delta"] > 0.8


def test_who_has_nothing_is_not_attacked() -> None:
    with pytest.raises(DataError, match="nobody here"):
        expose(Popularity(), population_of([[[]]], 3), Plan(), Popularity().init(3, {}, 0))


def test_draining_finds_every_entry_and_leaves_nothing() -> None:
    rng = np.random.default_rng(0)
    for size, filled in ((0, 0), (1, 1), (STRETCH + 1, 3), (10 * STRETCH, 4000), (5 * STRETCH - 7, 5 * STRETCH - 7)):
        values = np.zeros(size, np.int64)
        at = rng.choice(size, filled, replace=False) if size else np.zeros(0, np.int64)
        values[at] = rng.integers(1, 2**62, filled) * rng.choice([-1, 1], filled)
        expected = values.copy()
        where, found = drained(values)
        assert np.array_equal(where, np.flatnonzero(expected))
        assert np.array_equal(found, expected[where])
        assert not values.any()
