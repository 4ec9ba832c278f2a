"""The run folder that a node keeps of a job: the scheme that served it best, signed with the node's own key."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from coterie.data.cleaning import CleaningReport
from coterie.data.splits import Split
from coterie.errors import ConfigError, EnvironmentFault
from coterie.evaluation.metrics import Measured
from coterie.evaluation.significance import Paired
from coterie.experiment.compare import Comparison, client_gain, summarise
from coterie.experiment.deskfacts import JobFacts
from coterie.experiment.desklog import Inputs
from coterie.experiment.deskresult import NodeResult
from coterie.experiment.deskrows import Rows
from coterie.experiment.deskserved import Scheme
from coterie.experiment.outputs import write_reports
from coterie.experiment.request import write_request
from coterie.experiment.run import Run
from coterie.experiment.signing import MANIFEST
from coterie.experiment.tidy import finite
from coterie.settings import EvaluationSettings, RunSettings, Settings

OWN_ROWS = (
    "What this folder serves was made with the organisation's own rows, without noise: no epsilon covers it, so it is "
    "for the organisation alone. What others may have is the federation's model."
)


@dataclass(frozen=True)
class Learned:
    """Everything that a run folder states of a job, besides the model."""

    name: str
    facts: JobFacts
    rows: Rows
    split: Split
    report: CleaningReport
    measured: Mapping[str, Measured]
    unreachable: int
    gain: Paired | None
    result: NodeResult


def write_kept(
    folder: Path, kept: Scheme, learned: Learned, settings: Settings, inputs: Inputs, job: Mapping[str, Any]
) -> None:
    """Write the run folder whole and signed, in place of an earlier one of the same job; `job` goes into its result.

    ``coterie recommend`` serves it as it stands. Reports are written where `job` holds the ``privacy`` facts that they
    must state.

    Raises:
        ConfigError: the folder holds something else.
        EnvironmentFault: it cannot be written.
    """
    if folder.exists() and not (folder / MANIFEST).exists():
        raise ConfigError(f"{folder}: exists and is no run folder; move it away, the run of this job goes there")
    building = folder.with_name(f".{folder.name}.unfinished")
    _removed(building)
    asked = _request(settings, learned.facts)
    write_request(building, asked, inputs.log, accept_proposal=False, name=folder.name)
    run = Run(kept.model, kept.state, kept.catalogue, _content(folder, kept, learned, asked.evaluation, job))
    run.write_model(building)
    if run.result.get("privacy"):
        write_reports(building, run.result, learned.result.metric)
    run.sign(building)
    _removed(folder)
    try:
        building.rename(folder)
    except OSError as error:
        raise EnvironmentFault(f"{folder}: cannot be written: {error.strerror or error}") from None


def _request(settings: Settings, facts: JobFacts) -> Settings:
    """What was asked for, as far as a node knows it: enough to read logs as it did."""
    return settings.model_copy(
        update={
            "model": dict(facts.model),
            "evaluation": EvaluationSettings(at=facts.evaluate_at),
            "run": RunSettings(seed=facts.seed),
        }
    )


def _content(
    folder: Path, kept: Scheme, learned: Learned, evaluation: EvaluationSettings, job: Mapping[str, Any]
) -> dict[str, Any]:
    """The run's result, fit for any JSON reader; what `job` states of the same stands in its place."""
    result, facts = learned.result, learned.facts
    content = {
        "run": str(folder),
        "model": kept.model.name,
        "hyper_parameters": kept.model.model_dump(),
        "engine": "flower",
        "seed": facts.seed,
        "scope": "federation",
        "client": learned.name,
        "data": _data(learned),
        **_measured(learned, evaluation),
        "kept": result.kept,
        "mix": {"weight": result.mix_weight, "reason": result.mix_reason},
        "coverage": dict(result.coverage),
        "split": {"method": learned.split.method, "note": learned.split.note},
        "cleaning": learned.report.as_dicts(),
        **job,
        "caveats": [OWN_ROWS, *(job.get("caveats") or [])],
    }
    tidy: dict[str, Any] = finite(content)
    return tidy


def _data(learned: Learned) -> dict[str, int]:
    fit = learned.rows.whole
    return {
        "users": fit.population.block.n_users - fit.guests_of(0),
        "guests": fit.guests_of(0),
        "items": len(fit.catalogue),
        "interactions": len(fit.population.block.item),
        "baskets": fit.population.block.n_baskets,
    }


def _measured(learned: Learned, evaluation: EvaluationSettings) -> dict[str, Any]:
    """Metrics and their intervals, the node's row, and the sentence; empty where nothing was held out."""
    measured, result = learned.measured, learned.result
    if not measured or learned.gain is None:
        return {"metrics": {}, "per_client": [], "comparison": None}
    row = {
        "client": learned.name,
        "users": _data(learned)["users"],
        "cases": result.cases,
        **result.metrics,
        "gain": {"metric": result.metric, **asdict(learned.gain)},
        "mix_weight": result.mix_weight,
    }
    gains = [client_gain(learned.name, measured, result.metric, learned.gain)]
    comparison = Comparison(measured, [row], gains, {}, [], learned.unreachable)
    content = summarise(comparison, evaluation, learned.facts.seed, silos=True)
    content["comparison"] = {**(content["comparison"] or {}), "sentence": result.sentence}
    return content


def _removed(folder: Path) -> None:
    """Take away an earlier folder, if there is one."""
    try:
        if folder.exists():
            shutil.rmtree(folder)
    except OSError as error:
        raise EnvironmentFault(f"{folder}: cannot be removed: {error.strerror or error}") from None
