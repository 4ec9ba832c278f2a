"""What of a run may be told to others: all of it, or under a plan with noise what was released and no more.

Without noise nothing is promised, and whoever sends a run elsewhere decides that. Under a plan with noise metrics are
either sums that were paid for, or raw figures of a simulation, outside epsilon: these stay where the run is, and so do
raw counts, figures by client, and reports on cleaning. Where a run states no privacy facts, nothing of the kind leaves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

_PUBLIC = ("model", "hyper_parameters", "engine", "seed", "scope", "catalogue", "privacy", "traffic", "early_stopping")
_PUBLIC_COUNTS = ("items", "clients", "one_user_each")


def all_was_released(result: Mapping[str, Any]) -> bool:
    """Whether every figure of the result may be told: no noise was asked for, or the metrics were paid for."""
    noise = (result.get("privacy") or {}).get("noise")
    return noise == "none" or (noise is not None and "metrics_noise" in result)


def released(result: Mapping[str, Any], name: str) -> dict[str, Any]:
    """The result as it may be told, under the run's name in place of its path; never example rows of a log.

    >>> told = released({"privacy": {"noise": "central"}, "metrics": {"federated": {"ndcg@10": 0.2}}}, "first")
    >>> told["run"], told["metrics"]
    ('first', {})
    """
    if all_was_released(result):
        steps = [{k: v for k, v in step.items() if k != "examples"} for step in result.get("cleaning") or []]
        return {**result, "run": name, "cleaning": steps}
    data, split = result.get("data") or {}, result.get("split") or {}
    return {
        "run": name,
        **{key: result[key] for key in _PUBLIC if key in result},
        "data": {key: data[key] for key in _PUBLIC_COUNTS if key in data},
        "split": {"method": split.get("method"), "note": None},
        "metrics": {},
        "per_client": [],
        "cleaning": [],
        "caveats": ["Figures that no epsilon covers are left out here; they are in the run folder."],
    }
