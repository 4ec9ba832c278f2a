"""The rounds that a training would take, their noise, and what that noise means for what is counted.

A model says round by round what it sums, and a later round may depend on an earlier sum. So models of several rounds
are walked through with made-up users; only the shape of what they ask for is kept.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from coterie.data.catalogue import Catalogue
from coterie.engines.local import LocalEngine
from coterie.experiment.cases import FitData
from coterie.experiment.fitting import Bench, public_of
from coterie.experiment.planning_market import People, made_up
from coterie.federation.loop import pinned
from coterie.models.base import Model
from coterie.privacy.plan import BoundRound, Plan
from coterie.types import PartSpec, State

DROWNS = 3.0  # standard deviations of noise: what is counted less often than that cannot be told from nothing
MOST_USERS = 20_000  # at most so many users are made up
FAINT = 64**2  # variance in ring units of the noise on made-up sums: enough to be noise, too little to change anything

ITEMS = "how often an item was taken", "items taken fewer than about {least} times drown in it"
PAIRS = "how often two items go together", "pairs below about {least} drown in it"
ONE = {"rows": "how many baskets (or users) there are in all", "users": "how many users there are in all"}

WHO_ADDS = {
    "none": "nobody adds noise: sums are exact",
    "central": "the server adds it to the sum, once, and is trusted to",
    "local": "each user's own contribution carries all of it, so nobody is trusted; the sum carries it {adders} times",
}


def foreseen_rounds(
    model: Model, plan: Plan, people: People, seed: int = 0
) -> tuple[tuple[float, ...], tuple[BoundRound, ...]]:
    """The model's shares of the budget over the rounds, and the rounds under the plan; it may end before the last one.

    Raises:
        PlanError: the plan refuses a round of so many users at so many clients.
    """
    users = min(people.users, MOST_USERS)
    log = made_up(replace(people, users=users, clients=0 if people.devices else 1), seed)
    made = FitData.of(log, catalogue=Catalogue.listed(log.texts))
    bench = Bench(made, plan, 1, 2_000_000, seed, own_catalogues=False, public=public_of(model, made))
    state = bench.start(model)
    shares = model.budget(state)
    engine, found = LocalEngine(made.population, 1), list[BoundRound]()
    while (spec := model.next_round(state)) is not None:
        found.append(plan.bind(spec, people.users, people.parties, shares=shares, one_user_each=people.devices))
        if len(found) == len(shares):
            break
        state = _walked(model, state, engine, found[-1])
    return shares, tuple(found)


def assumption(bounds: Sequence[BoundRound], people: People) -> str | None:
    """What the sizes of later rounds rest on; None where there is no later one."""
    if len(bounds) < 2:
        return None
    users = min(people.users, MOST_USERS)
    return f"what later rounds sum depends on earlier sums: here on those of {users:,} made-up users"


def noise_facts(plan: Plan, bound: BoundRound, people: People) -> dict[str, Any]:
    """Who adds the noise of a sum, how many shares of it there are, and how many of them are counted on.

    ``honest`` is h, the shares that are counted on; ``excess`` how much larger the noise is where everybody finishes.
    """
    adders, honest = noise_shares(plan, bound, people), bound.shares
    sentence = WHO_ADDS.get(bound.noise, "").format(adders=f"{adders:,}")
    if bound.noise == "distributed":
        sentence = (
            f"each client adds a share of 1/h of the variance, h = min_clients {bound.min_clients:,} - max_colluding "
            f"{plan.max_colluding:,} = {honest:,}: so many shares a sum surely has that the server cannot take off"
        )
    facts = {"noise": bound.noise, "who": sentence, "adders": adders, "honest": honest if bound.noise != "none" else 0}
    return facts | {"excess": math.sqrt(adders / honest) if bound.noise == "distributed" else 1.0}


def noise_shares(plan: Plan, bound: BoundRound, people: People) -> int:
    """How many shares of noise a sum is expected to hold where everybody who was asked finishes."""
    rate = plan.sampling_rate if plan.sampler != "all" else 1.0
    users = max(round(rate * people.users), 1)
    return {
        "none": 0,
        "central": 1,
        "distributed": users if people.devices else people.parties,
        "local": users,
    }[bound.noise]


def round_facts(
    plan: Plan, bounds: Sequence[BoundRound], shares: Sequence[float], people: People
) -> list[dict[str, Any]]:
    """Every round: what it sums, the bounds on one user, the noise, what it means, and the event that is charged."""
    facts, divided = [], plan.divided(None, tuple(shares))
    for bound in bounds:
        counted, expected = bound.noise_std(bound.shares), bound.noise_std(noise_shares(plan, bound, people))
        rate = plan.sampling_rate if plan.sampler != "all" else 1.0
        parts = [
            _part_facts(part, counted[part.name], expected[part.name])
            | {"means": meaning(part, people.items, expected[part.name], rate)}
            for part in bound.spec.parts
        ]
        facts.append({
            "round": bound.spec.index,
            "share": divided[bound.spec.index] if plan.private else None,
            "event": None if bound.event is None else bound.event.to_json(),
            "upload_bytes": bound.upload_bytes,
            "parts": parts,
        })  # fmt: skip
    return facts


def _part_facts(part: PartSpec, counted: float, expected: float) -> dict[str, Any]:
    """A part, its bounds, and its noise: what the promise counts on, and what is expected."""
    finite = {name: value if math.isfinite(value) else None for name, value in (("l2", part.l2), ("linf", part.linf))}
    return {
        "name": part.name,
        "shape": list(part.shape),
        "size": part.size,
        **finite,
        "scale": part.scale,
        "noise_std": expected,
        "noise_std_counted_on": counted,
    }


def meaning(part: PartSpec, items: int, noise_std: float, rate: float = 1.0) -> str:
    """What the noise on a part does, in words, of `items` items; `rate` is the share of users whose rows are in a sum.

    >>> counts = PartSpec("counts", (100,), "dense", 4.0, 4.0, 1)
    >>> meaning(counts, 100, 5.0)[:93]
    'how often an item was taken is known to ±5: items taken fewer than about 15 times drown in it'
    """
    what, lost = _counted(part, items)
    if not noise_std:
        return f"{what} is exact"
    text = f"{what} is known to ±{short(noise_std)}"
    if lost:
        return f"{text}: {lost.format(least=short(DROWNS * noise_std / rate))}; {_weight(part, lost)}"
    return text if part.size == 1 else f"{text}; a user moves all of them together by at most {short(part.l2)} (L2)"


def _counted(part: PartSpec, items: int) -> tuple[str, str]:
    """What the numbers of a part are, and what is lost in their noise where they count something."""
    if part.name in ("counts", "mass") and part.shape == (items,):
        return ITEMS
    if part.name == "pairs" or (part.name.startswith("gram") and part.shape == (items, items)):
        return PAIRS
    return ONE.get(part.name, f"each of its {part.size:,} numbers"), ""


def short(number: float) -> str:
    """Three figures, thousands apart.

    >>> short(1234.5), short(0.012345), short(15.0)
    ('1,230', '0.0123', '15')
    """
    if number == 0 or not math.isfinite(number):
        return f"{number:g}"
    digits = max(2 - math.floor(math.log10(abs(number))), 0)
    rounded = round(number, 2 - math.floor(math.log10(abs(number))))
    text = f"{rounded:,.{digits}f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def _weight(part: PartSpec, lost: str) -> str:
    """What one user adds: a vector of n ones has the norm n^(1/2), and is scaled down to the bound."""
    most, what = max(math.floor(part.l2**2 * (1 + 1e-9)), 1), lost.split(maxsplit=1)[0]
    if most == 1:
        return f"a user with n {what} adds about {short(part.l2)} / √n to each"
    return f"a user adds 1 to each, one with n > {most:,} {what} about {short(part.l2)} / √n"


# --- made-up users ---------------------------------------------------------------------------------------------------


def _walked(model: Model, state: State, engine: LocalEngine, bound: BoundRound) -> State:
    """The state after a round over made-up users, with noise that is faint."""
    variance = dict.fromkeys(bound.variance, FAINT)
    easy = replace(
        bound, aggregation="plain", noise="central" if variance else "none", real_masks=False, sampler="all",
        sampling_rate=1.0, simulated_noise=True, variance=variance, shares=1,
    )  # fmt: skip
    total = engine.collect(model, easy, state)
    with pinned():
        return model.apply(total.spec, state, total)
