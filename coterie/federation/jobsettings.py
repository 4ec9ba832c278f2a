"""A job as the coordinator's operator writes it down: one table [jobs.NAME] of ``federation.toml``."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from coterie.errors import ConfigError
from coterie.privacysettings import PlanSettings, Section

DAY_SECONDS = 86_400


class JobSettings(Section):
    """What is trained together, how, and when. A job that was signed does not change any more: edits make a new one."""

    start: Literal["ready", "manual"] = Field(
        "manual",
        description="ready: as soon as min_nodes nodes are connected; manual: when an operator starts it.",
    )
    seed: int = Field(0, ge=0, description="Seed of the model's public randomness. Noise and masks have none.")
    catalogue: Literal["union", "given", "hashed"] = Field(
        "union",
        description="Which items are learned about: union (of the nodes' item ids, which the coordinator sees), given "
        "(the file `items`), or hashed (keyed hashes of a GTIN or ISBN, so that the coordinator learns no ids; assumes "
        "that no node works with the coordinator).",
    )
    items: str | None = Field(
        None, examples=["items.csv"], description="File with one row per item: id, title and attributes; for given."
    )
    min_carriers: int = Field(
        3,
        ge=1,
        description="Fewest nodes that must carry an item for it to enter the sum: a partner can subtract its own.",
    )
    ratings: bool = Field(False, description="Whether the values of the logs are ratings, for models that use them.")
    timed: bool = Field(False, description="Whether all logs have times, for models that use them.")
    min_nodes: int = Field(3, ge=2, description="Fewest nodes that must be connected for the job to begin.")
    phase_seconds: float = Field(
        300.0, gt=0, le=7 * DAY_SECONDS, description="How long a step of a round waits for nodes before it goes on."
    )
    patience_seconds: float = Field(
        3600.0, gt=0, le=30 * DAY_SECONDS, description="How long the job waits for min_nodes nodes to come back."
    )
    attempts: int = Field(
        5, ge=1, le=100, description="How often a round is tried; every attempt has fresh noise and is paid for."
    )
    every_days: float | None = Field(
        None,
        gt=0,
        examples=[7.0],
        description="Train again after so many days, within the nodes' budgets. Default: once.",
    )
    times: int = Field(1, ge=1, le=1000, description="How often in all; needs every_days if more than once.")
    evaluate: bool = Field(
        True, description="Each node then measures on its own held-out data what it gains; it stays there by default."
    )
    at: tuple[int, ...] = Field((10,), description="Cut-offs k of the ranking metrics.")
    metrics_share: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the noise budget that pays for reporting the metrics back, as a noised sum; 0: they stay "
        "with the nodes.",
    )
    model: dict[str, Any] = Field(
        default_factory=lambda: {"name": "ease"},
        description="Its name, and its hyper-parameters as in coterie.toml.",
    )
    plan: PlanSettings = PlanSettings()

    @model_validator(mode="after")
    def _agree(self) -> JobSettings:
        if (self.catalogue == "given") != (self.items is not None):
            raise ValueError(
                f"catalogue = 'given' and items go together: got catalogue = '{self.catalogue}' "
                f"{'without' if self.items is None else 'with'} items"
            )
        if self.times > 1 and self.every_days is None:
            raise ValueError(f"times = {self.times} needs every_days: how many days lie between two trainings?")
        if self.metrics_share and not self.evaluate:
            raise ValueError(f"metrics_share = {self.metrics_share} pays for metrics, but evaluate = false")
        if self.plan.min_clients is not None and self.plan.min_clients > self.min_nodes:
            raise ValueError(
                f"plan.min_clients = {self.plan.min_clients} is more than min_nodes = {self.min_nodes}: the job would "
                "begin with too few nodes for a sum; raise min_nodes"
            )
        return self

    def check_model(self, source: str) -> None:
        """Check the model's name and hyper-parameters against the models that are installed.

        Raises:
            ConfigError: unknown, or out of range; `source` says where it stands.
        """
        from coterie.models import registry  # the models take a second to import

        try:
            registry.build(self.model)
        except ConfigError as error:
            raise ConfigError(f"{source}: {error}") from None
