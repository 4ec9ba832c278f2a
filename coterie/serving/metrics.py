"""What operators watch, for Prometheus. Labels hold routes, kinds and versions; never an id of a user or an item."""

from __future__ import annotations

import os
from collections.abc import Iterable
from functools import lru_cache
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from coterie.serving.words import AskKind, Event, EventReceipt, Fallback

if TYPE_CHECKING:
    from coterie.serving.engine import ServedModel

SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

SHARED = "PROMETHEUS_MULTIPROC_DIR"  # where several processes of one service count together; Prometheus's own name

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class Metrics:
    """The counters of one process, on a registry of their own; a page shows those of all processes of the service.

    Thread-safe.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._requests = self._counter("requests", "Requests answered.", "route", "method", "status")
        self._seconds = self._histogram("request_seconds", "From a request's first byte to its answer.", "route")
        self._answers = self._counter("answers", "Questions answered.", "kind", "version", "fallback")
        self._received = self._counter("events_received", "Events received, by what happened.", "kind")
        self._events = self._counter("events", "Events by what became of them.", "outcome")
        self._writing = self._histogram("store_write_seconds", "Until a write is durable.", "what")
        self._refusals = self._counter("refusals", "Requests that were refused before any route saw them.", "reason")
        self._several = SHARED in os.environ
        # `labels` takes longer than counting does.
        self._of_request = lru_cache(1000)(lambda *of: (self._requests.labels(*of), self._seconds.labels(of[0])))
        self._of_answer = lru_cache(1000)(self._answers.labels)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request was answered. `route` is the template (``/v1/items/{id}``), never the path."""
        requests, lasting = self._of_request(route, method if method in METHODS else "other", status)
        requests.inc()
        lasting.observe(seconds)

    def refused(self, reason: str) -> None:
        """A request was refused before any route saw it: `reason` is one of a few words, as "rate"."""
        self._refusals.labels(reason).inc()

    def answered(self, kind: AskKind, version: int, fallback: Fallback | None) -> None:
        """A question was answered."""
        self._of_answer(kind, version, fallback or "none").inc()

    def events(self, events: Iterable[Event], receipt: EventReceipt) -> None:
        """A batch of events was written."""
        for event in events:
            self._received.labels(event.kind).inc()
        for outcome in ("stored", "duplicates", "declined"):
            self._events.labels(outcome).inc(getattr(receipt, outcome))

    def written(self, what: str, seconds: float) -> None:
        """A write of `what` ("events", "items", "people") was durable after so many seconds."""
        self._writing.labels(what).observe(seconds)

    def page(self, accept: str, loaded: Iterable[tuple[ServedModel, float]], items: int) -> tuple[bytes, str]:
        """What Prometheus reads, and its content type, as it asks for it in its Accept header."""
        share = GaugeMetricFamily(
            "coterie_model_share", "Share of traffic that a version answers.", labels=("version", "model")
        )
        for served, part in loaded:
            share.add_metric([str(served.version.id), served.version.model], part)
        now = (share, GaugeMetricFamily("coterie_items", "Items that the shop has put.", items))
        registry = CollectorRegistry()
        registry.register(_Page(now if self._several else (*now, *self.registry.collect())))
        if self._several:  # the files in that folder hold what each of the processes has counted
            MultiProcessCollector(registry)
        encode, content_type = choose_encoder(accept)
        return encode(registry), content_type

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        return Counter(f"coterie_{name}", about, labels, registry=self.registry)

    def _histogram(self, name: str, about: str, *labels: str) -> Histogram:
        return Histogram(f"coterie_{name}", about, labels, registry=self.registry, buckets=SECONDS)


class _Page(Collector):
    """Metrics as they are at this moment."""

    def __init__(self, found: Iterable[Metric]) -> None:
        self._found = tuple(found)

    def collect(self) -> Iterable[Metric]:
        return self._found
