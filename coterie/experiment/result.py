"""The object that ``coterie train --json`` prints, built from what was trained and measured."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coterie.data.splits import Split
from coterie.experiment.charged import Charged
from coterie.experiment.compare import Comparison, headline, summarise
from coterie.experiment.estimate import state_bytes
from coterie.experiment.fitting import Bench
from coterie.experiment.privacyfacts import privacy_facts
from coterie.experiment.private import ASSORTMENT
from coterie.experiment.run import Run
from coterie.experiment.tidy import finite
from coterie.federation.mix import DEFAULT_WEIGHT, MixChoice
from coterie.models.base import Model
from coterie.privacy.plan import Plan
from coterie.settings import Settings


@dataclass(frozen=True)
class Choices:
    """What validation decided: the model's hyper-parameters (and what was tried), each silo's mix, when to stop.

    `rounds` is how many rounds were best, with early stopping; None without.
    """

    model: Model
    mixes: Mapping[str, MixChoice]
    trials: list[dict[str, Any]]
    rounds: int | None = None

    def mix_weight(self, client: str) -> float:
        """Weight of the client's own model in what it serves; the default where validation could not choose."""
        return self.mixes[client].weight if client in self.mixes else DEFAULT_WEIGHT


@dataclass(frozen=True)
class Facts:
    """What a result states besides its measurements."""

    settings: Settings
    plan: Plan
    bench: Bench
    split: Split
    cleaning: list[dict[str, Any]]
    rounds: list[dict[str, Any]]
    """What each round of the training summed: records of ``metrics.jsonl``."""
    timing: dict[str, float]
    folder: Path | None
    sealed: bool = False
    """Whether nothing but noised sums is shown."""


def build_result(run: Run, choices: Choices, comparison: Comparison | Charged | None, facts: Facts) -> dict[str, Any]:
    """Everything about one training, fit for any JSON reader (NaN is null)."""
    settings, bench = facts.settings, facts.bench
    measured: dict[str, Any] = {"metrics": {}, "per_client": []}
    if isinstance(comparison, Charged):
        measured = comparison.as_result()
    elif comparison is not None:
        measured = summarise(comparison, settings.evaluation, settings.run.seed, bench.silos)
    for row in (row for row in measured["per_client"] if row.get("mix")):
        row["mix_weight"] = choices.mix_weight(row["client"])
    sent = [record["upload_bytes_per_client"] for record in facts.rounds]
    result = {
        "run": None if facts.folder is None else str(facts.folder),
        "model": run.model.name,
        "hyper_parameters": run.model.model_dump(),
        "tuning": choices.trials,
        "engine": settings.run.engine,
        "seed": settings.run.seed,
        "scope": "simulation",
        "data": _data(bench, sealed=facts.sealed),
        **measured,
        "split": {"method": facts.split.method, "note": None if facts.sealed else facts.split.note},
        "cleaning": facts.cleaning,
        "caveats": [
            *_caveats(settings, bench, measured.get("comparison"), sealed=facts.sealed),
            *([ASSORTMENT] if facts.plan.private and settings.data.items is None else []),
            *_of_model(run, measured["metrics"], headline(settings.evaluation.at)),
        ],
        "early_stopping": {"patience": settings.run.patience, "best_round": choices.rounds},
        "privacy": privacy_facts(facts.plan, facts.rounds, bench.exit),
        "traffic": {
            "upload_bytes_per_client": sum(sent),
            "upload_bytes_per_round": max(sent, default=0),
            "download_bytes_per_client": state_bytes(run.state),
        },
        "timing": facts.timing,
    }
    tidy: dict[str, Any] = finite(result)
    return tidy


def _data(bench: Bench, *, sealed: bool) -> dict[str, int | None]:
    if sealed:
        hidden = dict.fromkeys(("users", "guests", "interactions", "baskets"))
        public = {"clients": len(bench.people), "one_user_each": bench.people.one_user_each}
        return {**hidden, "items": len(bench.fit.catalogue), **public}
    guests = int(bench.fit.index.user.null_count())
    return {
        "users": len(bench.fit.index) - guests,
        "guests": guests,
        "items": len(bench.fit.catalogue),
        "interactions": len(bench.people.block.item),
        "baskets": bench.people.block.n_baskets,
        "clients": len(bench.people),
        "one_user_each": bench.people.one_user_each,
    }


def _caveats(settings: Settings, bench: Bench, compared: Any, *, sealed: bool) -> list[str]:
    found = ["Raw metrics of a simulation: one process held all logs, and the metrics are outside any epsilon."]
    if sealed:
        found = ["Metrics are means over users, released as one noised sum that epsilon covers."]
    if compared is not None and (len(settings.data.logs) < 2 or settings.clients.shops):
        found.append(
            "The clients are parts of one log: gains measured on one retailer's data, or on synthetic data, say little "
            "about others."
        )
    if not bench.silos and len(bench.people) > 1:
        found.append(
            "Nobody is compared with training alone: one person's log cannot rank what that person never touched."
        )
    return found


def _of_model(run: Run, metrics: Mapping[str, Any], name: str) -> list[str]:
    """What the figures say against the model itself."""
    found = []
    if run.model.predicts_values(run.state):
        found.append(
            "Items are ranked by the rating that is predicted, not by how likely they are to be taken: ranking metrics "
            "of such a model are low. --feedback implicit learns what is taken."
        )
    ours, floor = (metrics.get(scheme) or {} for scheme in ("federated", "popularity"))
    if not found and run.model.personal and name in ours and ours[name] < floor.get(name, -1.0):
        found.append(
            f"The model ranks worse than plain popularity here ({name} {ours[name]:.4f} against {floor[name]:.4f}): "
            "try --tune, fewer factors where it has any, or another model."
        )
    return found
