"""A plan refuses what it cannot hold when it is built, and what cannot be summed when it is bound."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coterie.errors import PlanError
from coterie.privacy.plan import CLIPPED_SCALE, Plan
from coterie.types import PartSpec, RoundSpec

PARTS = (
    PartSpec("gram", (10, 10), "triangle", math.inf, 100.0, 1, 0.8),
    PartSpec("rows", (1,), "dense", 2.0, 2.0, 1 << 22, 0.2),
)
SPEC = RoundSpec(3, "user_sum", PARTS)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"aggregation": "secure"},
            "aggregation = 'secure' cannot be run by this version; it has aggregation = 'plain'",
        ),
        ({"aggregation": "plane"}, "did you mean 'plain'?"),
        ({"noise": "central"}, "noise = 'central' cannot be run by this version; it has noise = 'none'"),
        ({"epsilon": 4.0}, "epsilon = 4.0 promises differential privacy, but this version adds no noise"),
        ({"epsilon": math.inf}, "write epsilon = 'none'"),
        ({"epsilon": None}, "write epsilon = 'none'"),
        ({"clip_norm": 0.0}, "clip_norm must be a positive number or None, got 0.0"),
        ({"clip_norm": -1}, "clip_norm must be a positive number or None, got -1"),
        ({"clip_norm": math.inf}, "clip_norm must be a positive number or None, got inf"),
        ({"clip_norm": math.nan}, "clip_norm must be a positive number or None, got nan"),
        ({"clip_norm": "3"}, "clip_norm must be a positive number or None, got '3'"),
        ({"clip_norm": True}, "clip_norm must be a positive number or None, got True"),
        ({"ring_bits": 16}, "ring_bits must be one of (32, 64), got 16"),
        ({"ring_bits": "64"}, "ring_bits must be one of (32, 64), got '64'"),
        ({"min_clients": 0}, "min_clients must be a whole number of at least 1, got 0"),
        ({"min_clients": 1.5}, "min_clients must be a whole number of at least 1, got 1.5"),
        ({"min_clients": "2"}, "min_clients must be a whole number of at least 1, got '2'"),
    ],
)
def test_a_plan_that_cannot_hold_is_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(PlanError, match=re.escape(message)):
        Plan(**values)


def test_without_a_clip_norm_bounds_stay() -> None:
    assert Plan().bind(SPEC, users=10, clients=2).spec == SPEC


@given(clip=st.floats(1e-6, 1e6))
def test_a_clip_norm_lowers_bounds_and_never_raises_them(clip: float) -> None:
    bound = Plan(clip_norm=clip).bind(SPEC, users=10, clients=2)
    assert (bound.spec.index, bound.spec.kind) == (3, "user_sum")
    for before, after in zip(PARTS, bound.spec.parts, strict=True):
        assert after.l2 == min(before.l2, clip)
        assert after.linf == min(before.linf, clip)
        assert after.scale == max(before.scale, CLIPPED_SCALE)
        assert (after.name, after.shape, after.layout, after.budget_share) == (
            before.name,
            before.shape,
            before.layout,
            before.budget_share,
        )


def test_a_sum_that_may_overflow_the_ring_is_refused() -> None:
    one = RoundSpec(0, "user_sum", (PartSpec("n", (4,), "dense", math.inf, 100.0, 1000),))
    largest = (2**31 - 1) // 100_000
    assert Plan(ring_bits=32).bind(one, users=largest, clients=1).ring_bits == 32
    with pytest.raises(PlanError, match=r"part 'n' can reach .* over 21475 users, more than a 32-bit ring holds"):
        Plan(ring_bits=32).bind(one, users=largest + 1, clients=1)
    assert Plan().bind(one, users=largest + 1, clients=1).ring_bits == 64


def test_a_part_without_a_bound_per_entry_needs_a_clip_norm() -> None:
    free = RoundSpec(0, "user_sum", (PartSpec("n", (4,), "dense", math.inf, math.inf, 1),))
    with pytest.raises(PlanError, match=r"part 'n' has no bound per entry \(linf = inf\); set a clip norm"):
        Plan().bind(free, users=1, clients=1)
    assert Plan(clip_norm=1.0).bind(free, users=1, clients=1).spec.parts[0].linf == 1.0


def test_too_few_clients_are_refused() -> None:
    plan = Plan(min_clients=3)
    assert plan.bind(SPEC, users=10, clients=3).clients == 3
    with pytest.raises(PlanError, match="2 clients take part, fewer than min_clients = 3"):
        plan.bind(SPEC, users=10, clients=2)


@pytest.mark.parametrize(("bits", "expected"), [(64, 8 * 56), (32, 4 * 56)])
def test_upload_counts_every_entry_that_travels(bits: int, expected: int) -> None:
    tame = RoundSpec(0, "user_sum", (PARTS[0], PartSpec("rows", (1,), "dense", 1.0, 1.0, 1)))
    assert Plan(ring_bits=bits).bind(tame, users=10, clients=1).upload_bytes == expected
