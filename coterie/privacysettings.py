"""The settings of privacy: the plan of a training, and the ledger that it is charged to."""

from __future__ import annotations

import math
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator


class Section(BaseModel):
    """A table of `coterie.toml`."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, allow_inf_nan=False)


class PlanSettings(Section):
    """How a sum is made private. Without epsilon nothing is promised, and every output says so."""

    epsilon: float | Literal["none"] = Field(
        "none", description="How much the released sums may say about one user; none: no differential privacy."
    )
    delta: float | None = Field(
        None, gt=0, lt=1, description="Probability that epsilon does not bound. Default: 0.1 / max_users."
    )
    noise_multiplier: float | None = Field(
        None, gt=0, description="Noise over one user's bound, instead of epsilon, which then follows from it."
    )
    aggregation: Literal["plain", "secure"] | None = Field(
        None,
        description="plain: the server sees what each client sends; secure: only the sum. Default: secure with noise, "
        "plain without.",
    )
    noise: Literal["none", "central", "distributed", "local"] | None = Field(
        None,
        description="Who adds noise: the server (central), each client a share of it (distributed), or each user's own "
        "contribution carries it (local). Default: distributed where aggregation is secure, else central.",
    )
    clip_norm: float | dict[str, float] | None = Field(
        None,
        description="Bound on the L2 norm of one user's part: a number, or PART=NUMBER,... Default: the model's own "
        "with noise, none without.",
    )
    budget: dict[str, float] | None = Field(
        None, description="How a round's noise budget is shared between parts: PART=SHARE,... Default: the model's own."
    )
    schedule: Literal["model", "constant", "decaying"] = Field(
        "model", description="How the noise budget is divided over rounds; fixed in advance."
    )
    sampler: Literal["all", "poisson", "fixed"] = Field(
        "all", description="Who takes part in a round: all, each user by a coin (poisson), or so many clients (fixed)."
    )
    sampling_rate: float = Field(1.0, gt=0, le=1, description="The coin's probability, or the share of clients.")
    adjacency: Literal["add-or-remove-one", "replace-one"] = Field(
        "add-or-remove-one", description="What epsilon compares: a user more or less, or a user's data replaced."
    )
    min_clients: int | None = Field(
        None, ge=1, description="Fewest clients in a sum. Default: all of them with distributed noise, else 1."
    )
    max_colluding: int = Field(
        1, ge=0, description="Clients that may work with the server against others: their noise is not counted on."
    )
    threshold: int | None = Field(
        None, ge=2, description="Shares that recover a lost client's masks. Default: more than two thirds of clients."
    )
    max_clients_per_user: int = Field(
        1, ge=1, description="At how many clients one person may appear; bounds grow by it."
    )
    max_users: int = Field(100_000, ge=1, description="Public upper bound on the number of users.")
    guests: Literal["drop", "basket"] = Field(
        "drop", description="Under privacy, rows without a user: dropped, or each basket is a unit of its own."
    )
    accountant: Literal["pld", "rdp"] | None = Field(
        None, description="How epsilon is counted. Default: pld (tight), rdp where the sampler needs it."
    )
    masks: Literal["auto", "real", "elided"] = Field(
        "auto", description="Masks of secure aggregation; auto: real for up to 50 clients and all organisations."
    )
    simulated_noise: bool = Field(
        False, description="Draw noise from the seed: reproducible, no privacy, never to be released."
    )
    ring_bits: Literal[32, 64] = Field(64, description="Width of the integers that travel.")

    @field_validator("epsilon", mode="before")
    @classmethod
    def _epsilon(cls, value: Any) -> Any:
        if value == "none":
            return value
        number = _number(value)
        if number is None or not 0 < number < math.inf:
            raise ValueError(f"epsilon must be a positive number or 'none', got {value!r}")
        return number

    @field_validator("clip_norm", "budget", mode="before")
    @classmethod
    def _by_part(cls, value: Any, info: ValidationInfo) -> Any:
        if value is None or isinstance(value, dict):
            return value
        if (number := _number(value)) is not None and info.field_name == "clip_norm":
            if not 1e-6 <= number < math.inf:
                raise ValueError(f"clip_norm must be at least 1e-06, got {value!r}")
            return number
        pairs = [pair.partition("=") for pair in str(value).split(",")]
        if any(not part.strip() or _number(text) is None for part, _, text in pairs):
            what = "a number or PART=NUMBER,..." if info.field_name == "clip_norm" else "PART=SHARE,..."
            raise ValueError(f"{info.field_name} must be {what}, got {value!r}")
        return {part.strip(): _number(text) for part, _, text in pairs}


class LedgerSettings(Section):
    """Where spent privacy is written down, and whose account pays."""

    ledger: str | None = Field(
        None,
        description="The ledger: a file, or a database's URL or env:NAME for it. Default: ledger.sqlite beside this "
        "installation's key.",
    )
    account: str = Field(
        "default", min_length=1, description="The account that pays: one for all runs whose users may overlap."
    )


def _number(value: Any) -> float | None:
    """A number as it was given or written; None where it is none."""
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return None if math.isnan(number) else number
