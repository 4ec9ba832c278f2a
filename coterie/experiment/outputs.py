"""What a run folder shows people: plots, the report, the privacy card."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coterie.experiment.tidy import finite
from coterie.files import write_text
from coterie.privacy.plan import BoundRound
from coterie.report.card import privacy_card
from coterie.report.html import render_report
from coterie.report.plots import gain_by_client, metric_by_round
from coterie.report.rounds import ROUNDS_FILE, round_records
from coterie.types import Total

__all__ = ["ROUNDS_FILE", "round_record", "round_records", "write_reports"]


def write_reports(folder: Path, result: Mapping[str, Any], metric: str) -> None:
    """Write ``plots/*.svg``, ``report.html`` and ``privacy-card.md`` for a result; plots only of what was measured."""
    plots: dict[str, Path] = {}
    (folder / "plots").mkdir(exist_ok=True)
    validation = f"validation {metric}"
    records = [
        {"round": r["round"], validation: r["validation"][metric]} for r in round_records(folder) if r["validation"]
    ]
    if records:
        plots["Metric by round"] = folder / "plots" / "metric-by-round.svg"
        metric_by_round(records, validation, plots["Metric by round"])
    gains = [_gain(row, metric) for row in result.get("per_client") or [] if row.get("alone")]
    if gains:
        plots["Gain by client"] = folder / "plots" / "gain-by-client.svg"
        gain_by_client(gains, metric, plots["Gain by client"])
    write_text(folder / "privacy-card.md", privacy_card(result))
    render_report(result, folder / "report.html", plots)


def round_record(
    stage: str, bound: BoundRound, total: Total, measured: Mapping[str, float] | None = None
) -> dict[str, Any]:
    """What ``metrics.jsonl`` says of one round: who was in the sum, its parts and noise, what was measured on it."""
    record: dict[str, Any] = finite({
        "stage": stage,
        "round": bound.spec.index,
        "clients": total.finishers,
        "min_clients": bound.min_clients,
        "real_masks": bound.real_masks,
        "event": None if bound.event is None else bound.event.to_json(),
        "upload_bytes_per_client": total.upload_bytes,
        "parts": [
            {
                "name": part.name,
                "size": part.size,
                "l2": part.l2,
                "linf": part.linf,
                "scale": part.scale,
                "noise_std": total.noise_std[part.name],
            }
            for part in bound.spec.parts
        ],
        "validation": measured,
    })  # fmt: skip
    return record


def _gain(row: Mapping[str, Any], metric: str) -> dict[str, Any]:
    values = {scheme: row[scheme][metric] for scheme in ("alone", "federated", "mix") if row.get(scheme)}
    gain = row.get("gain") or {}
    return {"client": row["client"], **values, "low": gain.get("low"), "high": gain.get("high")}
