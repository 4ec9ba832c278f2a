"""A round under a plan: final bounds, ring units, the noise of each share, and what the accountant is told.

Everything here follows from public facts: the plan, what the model asks for, and how many clients and users there are
at most. A round that could not keep the promise is refused before anybody is asked for anything.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from coterie.errors import PlanError
from coterie.privacy.bounds import final_bound
from coterie.privacy.discrete import LEAST_SHARE_STD, concentrated_multiplier, least_std, total_variation
from coterie.privacy.events import Event
from coterie.ring import check_capacity
from coterie.types import PartSpec, RoundSpec

if TYPE_CHECKING:
    from coterie.privacy.plan import Plan

CLIPPED_SCALE = 1 << 20  # ring units per 1 where clipping makes weights fractional
REAL_MASKS = 50  # up to so many clients masks are always real
TAILS = 16.0  # noise beyond so many standard deviations has a probability below 2^-180


@dataclass(frozen=True, slots=True)
class Roster:
    """Who is there at most: `users` at `clients` clients, each of them one person's device or not."""

    users: int
    clients: int
    one_user_each: bool = False


@dataclass(frozen=True, slots=True)
class BoundRound:
    """A round under a plan: the parts with their final bounds and scales, and how their sum is made private.

    `variance` holds, by part, the variance of one share of noise in squared ring units (empty: no noise); `shares` how
    many shares a sum surely has. `event` is what the accountant is told, None without noise.
    """

    spec: RoundSpec
    ring_bits: int
    clients: int
    aggregation: str = "plain"
    noise: str = "none"
    min_clients: int = 1
    threshold: int | None = None
    real_masks: bool = False
    simulated_noise: bool = False
    variance: Mapping[str, int] = field(default_factory=dict)
    shares: int = 1
    sampler: str = "all"
    sampling_rate: float = 1.0
    event: Event | None = None
    plan_digest: bytes = b""

    @property
    def upload_bytes(self) -> int:
        """What one client sends, headers aside."""
        return sum(part.size for part in self.spec.parts) * self.ring_bits // 8

    def noise_std(self, shares: int) -> dict[str, float]:
        """Standard deviation of the noise of each part in real units, when a sum holds so many shares of it."""
        return {part.name: math.sqrt(self.variance.get(part.name, 0) * shares) / part.scale for part in self.spec.parts}


def bind_round(plan: Plan, spec: RoundSpec, roster: Roster, shares: tuple[float, ...]) -> BoundRound:
    """See `coterie.privacy.plan.Plan.bind`; `shares` are those of the schedule."""
    least = least_clients(plan, roster)
    if roster.clients < least:
        raise PlanError(f"{roster.clients} clients take part, fewer than min_clients = {least}")
    parts = tuple(_bounded(plan, part) for part in spec.parts)
    _refuse_unbounded(plan, spec, roster, parts)
    common = BoundRound(
        replace(spec, parts=parts),
        plan.ring_bits,
        roster.clients,
        aggregation=str(plan.aggregation),
        noise=str(plan.noise),
        min_clients=least,
        threshold=plan.threshold,
        real_masks=_real_masks(plan, roster),
        sampler=plan.sampler,
        sampling_rate=plan.sampling_rate,
        simulated_noise=plan.simulated_noise,
        plan_digest=digest(plan),
    )
    if not plan.private:
        for part in parts:
            check_capacity(part, roster.users, plan.ring_bits)
        return common
    return _with_noise(plan, common, roster, shares)


def digest(plan: Plan) -> bytes:
    """SHA-256 of the plan printed in full: what clients agree on before they take part."""
    return hashlib.sha256(json.dumps(plan.as_dict(), sort_keys=True).encode()).digest()


def _with_noise(plan: Plan, bound: BoundRound, roster: Roster, shares: tuple[float, ...]) -> BoundRound:
    """The round with the variance of each share of noise, in units that are fine enough for the proof."""
    honest = plan.honest(bound.min_clients) if plan.noise == "distributed" else 1
    _refuse_unmasking(plan, roster)
    adders = {"central": 1, "distributed": roster.clients, "local": roster.users}[str(plan.noise)]
    multiplier = plan.total_multiplier(shares) / math.sqrt(shares[bound.spec.index])
    weights = [_weight(plan, part) for part in bound.spec.parts]
    # In a narrow ring units follow from the number of users, and everybody sees them: the public bound decides.
    users = plan.max_users if plan.ring_bits == 32 else roster.users
    allowed = plan.closeness / (len(shares) * len(weights))
    parts, variance, precision = list[PartSpec](), dict[str, int](), 0.0
    for part, weight in zip(bound.spec.parts, weights, strict=True):
        l2 = _final(plan, part.l2)
        std = multiplier * math.sqrt(sum(weights) / weight) * l2
        fine = _scaled(part, std, allowed, users, math.sqrt(adders / honest), plan.ring_bits)
        share = math.ceil((std * fine.scale) ** 2 / honest)
        _refuse_coarse(plan, fine, std, share, adders, allowed)
        precision += concentrated_multiplier(l2 * fine.scale, part.size, honest, math.sqrt(share)) ** -2
        parts.append(fine)
        variance[part.name] = share
    if precision**-0.5 < multiplier * (1 - 1e-9):
        raise PlanError(
            f"round {bound.spec.index}: noise of so few ring units does not add up to the multiplier {multiplier:.4g} "
            "that was promised; use ring_bits = 64"
        )
    spec, event = replace(bound.spec, parts=tuple(parts)), plan.events_of(shares)[bound.spec.index]
    return replace(bound, spec=spec, variance=variance, shares=honest, event=event)


def _refuse_unmasking(plan: Plan, roster: Roster) -> None:
    """Refuse so many colluders that they could rebuild a client's masks: it would show under one share of noise."""
    threshold = plan.threshold or 2 * roster.clients // 3 + 1
    if roster.clients > REAL_MASKS:  # a random graph is made for a tenth of corrupt clients
        threshold = roster.clients // 10 + 1
    if plan.noise == "distributed" and plan.max_colluding >= max(threshold, 2):
        raise PlanError(
            f"max_colluding = {plan.max_colluding} of {roster.clients} clients could rebuild the masks of another, "
            "whose share of the noise alone hides nobody; use fewer, or noise = 'local'"
        )


def _refuse_coarse(plan: Plan, part: PartSpec, std: float, share: int, adders: int, allowed: float) -> None:
    """Refuse noise of so few ring units that it is not what it is accounted for as."""
    if math.sqrt(share) < LEAST_SHARE_STD:
        raise PlanError(
            f"part '{part.name}': a share of the noise would be {math.sqrt(share):.2g} ring units; below "
            f"{LEAST_SHARE_STD:g} a sum of them has no proof; use ring_bits = 64 or fewer clients"
        )
    if plan.closeness and total_variation(std * part.scale, part.size, adders, math.sqrt(share)) > allowed:
        raise PlanError(
            f"part '{part.name}': integer noise of {std * part.scale:.3g} ring units is too far from a Gaussian for "
            f"delta = {plan.delta:g}; use a larger epsilon or delta, or fewer users"
        )


def _scaled(part: PartSpec, std: float, allowed: float, users: int, spread: float, ring_bits: int) -> PartSpec:
    """The part with a power of two as scale for which the noise has enough ring units, and the sum fits the ring.

    In a wide ring it is the smallest at which integer noise is as good as real noise; in a narrow one the largest that
    fits. `spread` says how much more noise than `std` a sum can hold.
    """
    if ring_bits == 32:
        room = 2.0**31 / (users * part.linf + TAILS * std * spread)
        fine = replace(part, scale=2 ** max(math.floor(math.log2(room * 0.999)), 0))
    else:
        scale = max(part.scale, 1.01 * least_std(allowed, part.size) / std, LEAST_SHARE_STD * spread / std)
        fine = replace(part, scale=2 ** math.ceil(math.log2(scale)))
    check_capacity(fine, users, ring_bits, TAILS * std * spread * fine.scale)
    return fine


def _bounded(plan: Plan, part: PartSpec) -> PartSpec:
    """The part with the plan's clip norm, or with the model's own where there is noise and nobody chose."""
    norm = plan.clip_norm.get(part.name) if isinstance(plan.clip_norm, Mapping) else plan.clip_norm
    if norm is None and plan.private:
        norm = part.clip
    if norm is None:
        return part
    return replace(part, l2=min(part.l2, norm), linf=min(part.linf, norm), scale=max(part.scale, CLIPPED_SCALE))


def _refuse_unbounded(plan: Plan, spec: RoundSpec, roster: Roster, parts: tuple[PartSpec, ...]) -> None:
    if not plan.private:
        return
    if roster.users > plan.max_users:
        raise PlanError(
            f"there are more users than max_users = {plan.max_users:,}, the public bound that delta rests on; state a "
            "larger one (--max-users)"
        )
    if spec.kind == "client_update" and not roster.one_user_each:
        raise PlanError(
            "an update of a whole client is bounded per client, not per user: with several users at a client it "
            "protects none of them; let every user be a client (--clients users), or use a model of sums"
        )
    if plan.sampler == "fixed" and not (roster.one_user_each and plan.sampling_rate * roster.clients >= 1):
        raise PlanError(
            f"sampler = 'fixed' draws {plan.sampling_rate:g} of {roster.clients} clients: it needs clients that are "
            "one user each (of an organisation that is drawn as a whole, its other users tell whether it was), and "
            "one to draw"
        )
    for part in parts:
        if not math.isfinite(part.l2):
            raise PlanError(
                f"part '{part.name}' has no bound on what one user adds, so no noise can hide it; set a clip norm"
            )


def least_clients(plan: Plan, roster: Roster) -> int:
    """Fewest clients in a sum of this plan."""
    if plan.min_clients is not None:
        return plan.min_clients
    if plan.aggregation != "secure":
        return 1
    expected = roster.clients
    if plan.sampler != "all" and roster.one_user_each:  # as many as `coterie.federation.cohort` draws
        expected = max(math.floor(plan.sampling_rate * roster.clients), 1)
    if plan.sampler == "poisson" and roster.one_user_each:  # below this a drawn cohort is once in 30,000 rounds
        expected = max(math.floor(expected - 4 * math.sqrt(expected)), 1)
    if plan.noise != "distributed":
        return max(2 * expected // 3 + 1, 2)
    return max(expected, 3)


def _real_masks(plan: Plan, roster: Roster) -> bool:
    if plan.aggregation != "secure":
        return False
    if roster.clients < 3:
        raise PlanError(
            f"secure aggregation needs three clients at least, got {roster.clients}: of two, each learns what the "
            "other sent by subtracting its own; use aggregation = 'plain' (with noise = 'central'), or more clients"
        )
    if plan.masks == "elided" and not roster.one_user_each:
        raise PlanError("masks = 'elided' is for simulated devices; organisations always run the real protocol")
    return plan.masks == "real" or (plan.masks == "auto" and (roster.clients <= REAL_MASKS or not roster.one_user_each))


def _weight(plan: Plan, part: PartSpec) -> float:
    return float((plan.budget or {}).get(part.name, part.budget_share))


def _final(plan: Plan, l2: float) -> float:
    return final_bound(l2, max_clients_per_user=plan.max_clients_per_user, neighbours=plan.neighbours)
