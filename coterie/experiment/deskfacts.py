"""What a job says of itself that both sides compute with: the coordinator and every node's desk."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import polars as pl

from coterie.data.catalogue import Catalogue
from coterie.experiment.fitting import public_from
from coterie.federation.job import opening
from coterie.models.base import Model
from coterie.models.registry import build
from coterie.privacy.plan import BoundRound, Plan
from coterie.types import Array, State


@dataclass(frozen=True)
class JobFacts:
    """What a training is, from public facts alone: equal facts give equal states before the first round.

    `model` is the model's table (name and hyper-parameters), `plan` the part of the plan that pays for it, `items` the
    agreed ids (ascending; keyed hashes where these were agreed) and `texts` what is said of them (``item``, ``title``,
    attributes). `explicit` says whether the job learns ratings, `timed` whether logs have times. `evaluate_at` are the
    cut-offs of the ranking metrics, `members` how many organisations may be in a sum (0: not known).
    """

    model: Mapping[str, Any]
    plan: Plan
    seed: int
    items: tuple[str, ...]
    texts: pl.DataFrame
    explicit: bool = False
    timed: bool = False
    evaluate_at: tuple[int, ...] = (10,)
    members: int = 0

    def build(self) -> Model:
        """The model.

        Raises:
            ConfigError: this installation does not know it, or one of its hyper-parameters.
        """
        return build(self.model)

    @cached_property
    def catalogue(self) -> Catalogue:
        """The agreed items and what is said of them."""
        return Catalogue(self.items, self.texts)

    @cached_property
    def public(self) -> Mapping[str, Array]:
        """What the model knows without any log."""
        return public_from(self.build(), self.catalogue, explicit=self.explicit, timed=self.timed)

    def opening(self) -> State:
        """The state before the first round."""
        return opening(self.build(), self.plan, len(self.items), self.public, self.seed)

    def bound(self, state: State) -> BoundRound | None:
        """The round that follows `state`, under the plan and its public bound on users; None where there is none.

        Raises:
            PlanError: a round that cannot keep the plan's promise.
        """
        model = self.build()
        spec = model.next_round(state)
        shares = model.budget(state) if self.plan.private else (1.0,)
        return None if spec is None else self.plan.bind(spec, self.plan.max_users, self.members, shares=shares)
