"""The object that a training over the network leaves: as ``coterie train --json``, of scope "federation"."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coterie.experiment.estimate import state_bytes
from coterie.experiment.privacyfacts import privacy_facts
from coterie.experiment.run import Run
from coterie.experiment.tidy import finite
from coterie.federation.agreed import Agreed
from coterie.federation.carriers import partner_note
from coterie.federation.job import Job
from coterie.federation.release import Exit


@dataclass(frozen=True)
class JointFacts:
    """What a result states besides the model: the job, the records of its rounds, what left, what was reported."""

    job: Job
    name: str
    rounds: Sequence[Mapping[str, Any]]
    exit: Exit
    timing: Mapping[str, float]
    folder: Path
    engine: str
    agreed: Agreed | None = None
    reported: Mapping[str, Any] | None = None


def joint_result(run: Run, facts: JointFacts) -> dict[str, Any]:
    """Everything about one training over the network, fit for any JSON reader.

    Metrics are null but for those that members reported as a sum: per scheme the mean over users.
    """
    job, agreed = facts.job, facts.agreed
    sent = [record["upload_bytes_per_client"] for record in facts.rounds]
    result = {
        "run": facts.folder.name,  # members get this, too: no path of the coordinator is in it
        "job": facts.name,
        "model": run.model.name,
        "hyper_parameters": run.model.model_dump(),
        "tuning": [],
        "engine": facts.engine,
        "seed": job.seed,
        "scope": "federation",
        "data": {
            **dict.fromkeys(("users", "guests", "interactions", "baskets")),
            "items": len(run.items),
            "clients": len(job.members),
            "one_user_each": False,
        },
        "members": list(job.members),
        "catalogue": None if agreed is None else {"mode": agreed.mode, "min_carriers": agreed.min_carriers},
        **_measured(facts.reported),
        "split": {"method": "each member's own", "note": None},
        "cleaning": [],
        "caveats": _caveats(facts.reported),
        "early_stopping": {"patience": 0, "best_round": None},
        "privacy": privacy_facts(job.training_plan, facts.rounds, facts.exit)
        | {
            "account": None,
            "items_from": "the members' assortments",
            "partners": partner_note(len(job.members), private=job.whole_plan.private),
        },
        "traffic": {
            "upload_bytes_per_client": sum(sent),
            "upload_bytes_per_round": max(sent, default=0),
            "download_bytes_per_client": state_bytes(run.state),
        },
        "timing": dict(facts.timing),
    }
    tidy: dict[str, Any] = finite(result)
    return tidy


def _measured(reported: Mapping[str, Any] | None) -> dict[str, Any]:
    """The parts of a result that measurements fill."""
    empty: dict[str, Any] = {"metrics": {}, "intervals": {}, "macro": {}, "comparison": None, "per_client": []}
    empty["cases"] = {"evaluated": None, "groups": None, "unreachable": None}
    if not reported or "metrics" not in reported:
        return empty
    values, noise = dict[str, dict[str, float]](), dict[str, dict[str, float]]()
    for table, found in ((values, "values"), (noise, "noise")):
        for name, value in reported["metrics"][found].items():
            scheme, _, metric = name.partition(":")
            table.setdefault(scheme, {})[metric] = value
    schemes: dict[str, Any] = {"centralised": None, "alone": None, **values}
    return {
        **empty,
        "metrics": schemes,
        "metrics_noise": noise,
        "cases": {**empty["cases"], "groups": reported["metrics"]["of"]},
        "gains": reported.get("comparison"),
    }


def _caveats(reported: Mapping[str, Any] | None) -> list[str]:
    found = []
    if reported:
        found.append("Metrics are means over users of all members, which left them as sums alone.")
    else:
        found.append("What each member gains was measured at home and reported to nobody.")
    return found
