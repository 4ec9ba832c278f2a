"""What a plan may not be: numbers out of range, and settings that together promise what they cannot hold."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

from coterie.errors import PlanError
from coterie.privacy.binding import CLIPPED_SCALE
from coterie.ring import RING_BITS

if TYPE_CHECKING:
    from coterie.privacy.plan import Plan

NARROW = 32  # bits of a ring in which integer noise is too coarse to be taken for rounded Gaussian noise
WHOLE = {"min_clients": 1, "threshold": 2, "rounds": 1, "max_colluding": 0, "max_clients_per_user": 1, "max_users": 1}
OPTIONAL = ("min_clients", "threshold", "rounds")

RULES: tuple[tuple[Callable[[Plan, bool], bool], str], ...] = (
    (
        lambda plan, private: private and plan.noise == "none",
        (
            "epsilon = {plan.epsilon!r} promises differential privacy, but noise = 'none'; leave noise out, or write "
            "epsilon = 'none'"
        ),
    ),
    (
        lambda plan, private: not private and plan.noise != "none",
        (
            "noise = '{plan.noise}' needs its size: give epsilon (such as 4), or noise_multiplier; without either "
            "write noise = 'none'"
        ),
    ),
    (
        lambda plan, private: not private and (plan.delta is not None or plan.budget is not None),
        "delta and budget belong to a plan with noise; give epsilon, or leave them out",
    ),
    (
        lambda plan, private: not private and (plan.sampler != "all" or plan.simulated_noise),
        "sampler and simulated_noise belong to a plan with noise; give epsilon, or leave them out",
    ),
    (
        lambda plan, _: plan.noise == "distributed" and plan.aggregation != "secure",
        (
            "noise = 'distributed' protects sums alone: a client's share of it is too little for the client; it needs "
            "aggregation = 'secure', which hides what each client sends"
        ),
    ),
    (
        lambda plan, _: plan.noise == "local" and plan.neighbours != "replace-one",
        (
            "noise = 'local' hides what a user's own contribution is, not whether there is one: it needs neighbours = "
            "'replace-one'"
        ),
    ),
    (
        lambda plan, _: plan.sampler == "fixed" and plan.neighbours != "replace-one",
        (
            "sampler = 'fixed' draws a public number of clients: nobody can be added or removed; it needs neighbours = "
            "'replace-one'"
        ),
    ),
    (
        lambda plan, _: plan.sampler == "fixed" and plan.accountant == "pld",
        "accountant = 'pld' has no proof for sampler = 'fixed' (without replacement); use accountant = 'rdp'",
    ),
    (
        lambda plan, _: plan.sampler != "all" and plan.ring_bits == NARROW,
        "ring_bits = 32 has no proof for sampler = '{plan.sampler}': its noise is too coarse; use ring_bits = 64",
    ),
    (
        lambda plan, _: plan.sampler != "all" and plan.max_clients_per_user > 1,
        (
            "sampler = '{plan.sampler}' draws a person's rows at several clients one by one, which no proof covers; "
            "use sampler = 'all', or max_clients_per_user = 1"
        ),
    ),
    (
        lambda plan, _: plan.sampler == "all" and plan.sampling_rate != 1,
        "sampling_rate = {plan.sampling_rate} needs a sampler: 'poisson' or 'fixed'",
    ),
    (
        lambda plan, _: plan.masks == "elided" and plan.aggregation != "secure",
        "masks = 'elided' only means something with aggregation = 'secure'",
    ),
)


def check_numbers(plan: Plan) -> None:
    """Refuse numbers that are none, or out of range."""
    if plan.epsilon != "none" and not _positive(plan.epsilon):
        raise PlanError(
            f"epsilon must be a positive number or 'none' (no differential privacy), got {plan.epsilon!r}; write "
            "epsilon = 'none' to train without it"
        )
    for name in ("delta", "noise_multiplier"):
        if (value := getattr(plan, name)) is not None and not _positive(value):
            raise PlanError(f"{name} must be a positive number or None, got {value!r}")
    _check_norms(plan.clip_norm)
    for part, share in (plan.budget or {}).items():
        if not _positive(share):
            raise PlanError(f"budget of part '{part}' must be a positive number, got {share!r}")
    if not (_is(plan.sampling_rate, Real) and 0 < plan.sampling_rate <= 1):
        raise PlanError(f"sampling_rate must be above 0 and at most 1, got {plan.sampling_rate!r}")
    for name, low in WHOLE.items():
        value = getattr(plan, name)
        if not (value is None and name in OPTIONAL) and not (_is(value, Integral) and value >= low):
            raise PlanError(f"{name} must be a whole number of at least {low}, got {value!r}")
    if plan.ring_bits not in RING_BITS or isinstance(plan.ring_bits, bool):
        raise PlanError(f"ring_bits must be one of {RING_BITS}, got {plan.ring_bits!r}")


def check_promise(plan: Plan, *, private: bool) -> None:
    """Refuse settings that together promise what they cannot hold."""
    for broken, message in RULES:
        if broken(plan, private):
            raise PlanError(message.format(plan=plan))
    if plan.min_clients is not None and plan.noise == "distributed":
        plan.honest(plan.min_clients)


def check_delta(delta: float, max_users: int) -> None:
    """Refuse a delta at which the rows of a whole user may leak."""
    if delta * max_users > 1 + 1e-9:
        raise PlanError(
            f"delta = {delta:g} is too large for max_users = {max_users:,}: above 1 / max_users the rows of a whole "
            "user may leak; use a smaller delta, or state a smaller max_users"
        )


def _check_norms(clip_norm: float | Mapping[str, float] | None) -> None:
    norms: Mapping[str, Any] = clip_norm if isinstance(clip_norm, Mapping) else {"": clip_norm}
    for part, norm in norms.items():
        of = f" of part '{part}'" if part else ""
        if norm is not None and not _positive(norm):
            raise PlanError(f"clip_norm{of} must be a positive number or None, got {norm!r}")
        if norm is not None and norm * CLIPPED_SCALE < 1:
            raise PlanError(f"clip_norm{of} = {norm!r} is below one ring unit: nobody could contribute anything")


def _positive(value: Any) -> bool:
    return _is(value, Real) and 0 < float(value) < math.inf


def _is(value: object, kind: type) -> bool:
    """Whether `value` is a number of this kind; True and False are not numbers here."""
    return isinstance(value, kind) and not isinstance(value, bool)
