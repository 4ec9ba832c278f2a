"""Traffic in numbers that a person reads, from the counters that Prometheus gets: since the service started."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from prometheus_client.parser import text_string_to_metric_families

from coterie.report.reading import MISSING, count

if TYPE_CHECKING:
    from prometheus_client.samples import Sample

    from coterie.serving.deployment import Deployment

NO_TRAFFIC: Mapping[str, Any] = {"tiles": [], "answers": []}
_API = "/v1/"
_KINDS = {"basket": "completes a basket", "user": "for a user", "similar": "similar items", "popular": "popular items"}


def traffic(deployment: Deployment) -> dict[str, Any]:
    """``tiles`` (name, value, more) and ``answers`` by kind."""
    samples = _samples(deployment)
    requests = [one for one in samples["coterie_requests_total"] if str(one.labels["route"]).startswith(_API)]
    failed = _sum(one for one in requests if one.labels["status"].startswith("5"))
    outcomes = _by(samples["coterie_events_total"], "outcome")
    tiles = [
        _tile("API requests", count(_sum(requests)), f"{count(failed)} failed (5xx)"),
        _tile("half answered within", *_latency(samples["coterie_request_seconds_bucket"])),
        _tile("events stored", count(outcomes.get("stored", 0)), _left_out(outcomes)),
        _tile("items put by the shop", count(len(deployment.live)), ""),
        _tile("turned away", count(_sum(samples["coterie_refusals_total"])), "wrong keys, limits, sizes"),
    ]
    return {"tiles": tiles, "answers": _answers(samples["coterie_answers_total"])}


def _samples(deployment: Deployment) -> Mapping[str, list[Sample]]:
    """What Prometheus would read now, of all processes of the service, by name."""
    found: dict[str, list[Sample]] = defaultdict(list)
    content, _ = deployment.metrics.page("text/plain", deployment.versions.all_loaded(), len(deployment.live))
    for metric in text_string_to_metric_families(content.decode()):
        for sample in metric.samples:
            found[sample.name].append(sample)
    return found


def _tile(name: str, value: str, more: str) -> dict[str, str]:
    return {"name": name, "value": value, "more": more}


def _left_out(outcomes: Mapping[str, float]) -> str:
    return f"{count(outcomes.get('declined', 0))} declined, {count(outcomes.get('duplicates', 0))} sent twice"


def _latency(buckets: Iterable[Sample]) -> tuple[str, str]:
    """Within which time half of the API's requests were answered, and 99 in 100: upper ends of the buckets."""
    below: dict[float, float] = defaultdict(float)
    for one in buckets:
        if str(one.labels["route"]).startswith(_API):
            below[float(one.labels["le"])] += one.value
    ends = sorted(below)
    if not ends or not below[ends[-1]]:
        return MISSING, "no request yet"
    half, most = (next(end for end in ends if below[end] >= part * below[ends[-1]]) for part in (0.5, 0.99))
    return _duration(half), f"99 of 100 within {_duration(most)}"


def _duration(seconds: float) -> str:
    """A bucket's end.

    >>> _duration(0.0025), _duration(2.5), _duration(float("inf"))
    ('2.5 ms', '2.5 s', 'more than 10 s')
    """
    if seconds == float("inf"):
        return "more than 10 s"
    return f"{seconds:g} s" if seconds >= 1 else f"{1000 * seconds:g} ms"


def _answers(samples: Iterable[Sample]) -> list[dict[str, Any]]:
    asked, fell_back = defaultdict[str, float](float), defaultdict[str, float](float)
    for one in samples:
        asked[one.labels["kind"]] += one.value
        fell_back[one.labels["kind"]] += one.value if one.labels["fallback"] != "none" else 0.0
    return [
        {"kind": _KINDS.get(kind, kind), "count": asked[kind], "fallback": fell_back[kind]} for kind in sorted(asked)
    ]


def _by(samples: Iterable[Sample], label: str) -> dict[str, float]:
    found = defaultdict[str, float](float)
    for one in samples:
        found[one.labels[label]] += one.value
    return found


def _sum(samples: Iterable[Sample]) -> float:
    return sum(one.value for one in samples)
