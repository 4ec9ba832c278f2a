"""What was released, as accounting must know it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, TypeAlias, get_args

from coterie.errors import PlanError
from coterie.privacy.checks import check_number, check_whole, check_word

Sampler: TypeAlias = Literal["all", "poisson", "fixed"]
Neighbours: TypeAlias = Literal["add-or-remove-one", "replace-one"]
Mechanism: TypeAlias = Literal["gaussian", "laplace", "discrete-gaussian", "discrete-laplace", "concentrated", "pure"]
View: TypeAlias = Literal["outside", "coordinator"]

PURE: tuple[Mechanism, ...] = ("laplace", "discrete-laplace", "pure")
SCALAR: tuple[Mechanism, ...] = ("discrete-gaussian", "discrete-laplace")
LARGEST_SCALAR = 100_000  # ring units; a scalar discrete mechanism is accounted for by its whole table of probabilities


@dataclass(frozen=True, slots=True)
class Event:
    """`count` releases by one mechanism: all that accounting needs to know of them.

    Args:
        noise_multiplier: standard deviation of the noise (Laplace: its scale) over the most that one user can move the
            sum under the stated neighbours: in L2 for Gaussians, in L1 for Laplace. Replacing a user moves a sum twice
            as far as leaving it out, and whoever makes the event has doubled the bound. "concentrated" stands for any
            mechanism with ``1 / (2 z^2)`` zCDP, "pure" for any that is ``1 / z`` differentially private.
        count: how many such releases there were.
        sampler: who took part: "all" users; each with probability `rate`, independently ("poisson"); or exactly
            `sample_size` of `population`, drawn without replacement ("fixed").
        neighbours: which data sets must look alike.
        mechanism: what noise was added. The two discrete ones are for scalars. A vector of discrete Gaussians is
            "gaussian" with its `total_variation`, or "concentrated" (see `coterie.privacy.discrete`).
        total_variation: how far each release may be from the mechanism that it is accounted as.
        sensitivity: of the discrete scalar mechanisms, in ring units.

    Raises:
        PlanError: a value that is unknown or out of range, or a combination that nobody has a bound for.
    """

    noise_multiplier: float
    count: int = 1
    sampler: Sampler = "all"
    rate: float = 1.0
    sample_size: int = 0
    population: int = 0
    neighbours: Neighbours = "add-or-remove-one"
    mechanism: Mechanism = "gaussian"
    total_variation: float = 0.0
    sensitivity: int = 1

    def __post_init__(self) -> None:
        check_word("sampler", self.sampler, get_args(Sampler))
        check_word("neighbours", self.neighbours, get_args(Neighbours))
        check_word("mechanism", self.mechanism, get_args(Mechanism))
        check_number("noise_multiplier", self.noise_multiplier)
        check_number("total_variation", self.total_variation, most=1.0, open=False)
        check_whole("count", self.count, least=1)
        check_whole("sensitivity", self.sensitivity, least=1)
        _check_sampling(self)
        _check_mechanism(self)

    def towards(self, view: View) -> Event:
        """The same releases as a party sees them.

        Sampling hides only from those who cannot know who took part. The coordinator knows; towards it every round
        counts in full, as if each user had been drawn every time.
        """
        check_word("view", view, get_args(View))
        return self if view == "outside" else replace(self, sampler="all", rate=1.0, sample_size=0, population=0)

    @property
    def rho(self) -> float:
        """Zero-concentrated loss of all `count` releases, without amplification (Bun & Steinke 2016).

        Propositions 1.6 (Gaussians) and 1.4 (pure mechanisms) there; of discrete Gaussians Canonne, Kamath & Steinke
        2020. Total variation is not part of it.
        """
        return self.count / (2 * self.noise_multiplier**2)

    def to_json(self) -> dict[str, Any]:
        """Plain values, complete: `from_json` makes an equal event of them."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: object) -> Event:
        """Read what `to_json` wrote; names that are missing or unknown are refused, since their cost is unknown."""
        known = [field.name for field in fields(cls)]
        if not isinstance(values, Mapping) or set(values) != set(known):
            raise PlanError(f"a privacy event has exactly the fields {', '.join(known)}, got {values!r}")
        return cls(**values)


def _check_sampling(event: Event) -> None:
    check_number("rate", event.rate, most=1.0, open=False)
    check_whole("sample_size", event.sample_size, least=0)
    check_whole("population", event.population, least=0)
    if event.rate == 0 or (event.sampler != "poisson" and event.rate != 1):
        raise PlanError(f"rate = {event.rate!r} cannot be with sampler = '{event.sampler}'; it must be 1, or above 0")
    if event.sampler == "fixed":
        _check_fixed(event)
    elif event.sample_size or event.population:
        raise PlanError(f"sample_size and population belong to sampler = 'fixed', not to '{event.sampler}'")


def _check_fixed(event: Event) -> None:
    if not 1 <= event.sample_size <= event.population:
        raise PlanError(f"sample_size = {event.sample_size} must be between 1 and population = {event.population}")
    if event.neighbours != "replace-one":
        raise PlanError(
            "sampler = 'fixed' makes the number of users public, so that adding or removing one shows; "
            "use neighbours = 'replace-one' or sampler = 'poisson'"
        )


def _check_mechanism(event: Event) -> None:
    if event.sampler != "all" and event.mechanism != "gaussian":
        bounded = (event.sampler, event.mechanism, event.neighbours) == ("poisson", "laplace", "add-or-remove-one")
        if not bounded:
            raise PlanError(
                f"mechanism = '{event.mechanism}' under sampler = '{event.sampler}' with neighbours = "
                f"'{event.neighbours}' has no known bound; use sampler = 'all' or mechanism = 'gaussian'"
            )
    if event.mechanism not in SCALAR and event.sensitivity != 1:
        raise PlanError(f"sensitivity belongs to {' and '.join(SCALAR)} alone, not to '{event.mechanism}'")
    if event.mechanism in SCALAR and event.sensitivity * max(1.0, event.noise_multiplier) > LARGEST_SCALAR:
        raise PlanError(
            f"mechanism = '{event.mechanism}' is for noise and sensitivity of at most {LARGEST_SCALAR} ring units; "
            "use 'gaussian' with its total variation, or 'pure'"
        )
