"""What a coordinator tells Prometheus: whether the work goes on, who is there, what travels, and what it costs.

Labels name members for facts of operating them alone. How good a model is is told only as a sum over enough members,
and never of one of them. Every family is made from the object that ``coterie coordinator status --json`` prints.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from coterie.errors import MissingExtra
from coterie.report.federation_words import ENDED, LEAST, PHASES, WAITING, Status, members, shared_figures, waited_for
from coterie.report.metrics_server import MetricsServer
from coterie.report.reading import SCHEMES, known

if TYPE_CHECKING:
    from prometheus_client import Metric

Sample: TypeAlias = tuple[tuple[str, ...], float]  # values of the labels, and the number

OTHER = "other"  # a phase that this version has no word for
MEMBER_STATES = ("invited", "pending", "approved", "revoked")
JOB_STATES = ("waiting", "running", *ENDED)
_OF, _MEMBER = ("federation", "fingerprint", "address"), ("member",)
_QUALITY = re.compile(rf"gained|gain|(?:{'|'.join(SCHEMES)}):[a-z_]+@\d+")
"""Names that a reported sum may have: whatever else stands beside them is not told."""


@dataclass(frozen=True)
class Look:
    """A status at a time (seconds since 1970), and what several families read of it."""

    status: Status
    now: float

    @property
    def progress(self) -> Mapping[str, Any]:
        return self.status.get("progress") or {}

    @property
    def rounds(self) -> Sequence[Mapping[str, Any]]:
        return self.progress.get("rounds") or ()

    @property
    def members(self) -> Sequence[Mapping[str, Any]]:
        """One of each name: a name that was revoked may be another member's by now."""
        ranked = sorted(members(self.status), key=lambda one: one.get("state") == "approved")
        return list({str(one["name"]): one for one in ranked}.values())

    @property
    def approved(self) -> list[Mapping[str, Any]]:
        return [one for one in self.members if one.get("state") == "approved"]

    @property
    def processes(self) -> Sequence[Mapping[str, Any]]:
        return self.status.get("children") or ()

    @property
    def reported(self) -> Mapping[str, Any]:
        return self.status.get("gains") or {}


@dataclass(frozen=True)
class Family:
    """One family of metrics: `samples` are its numbers, each with the values of its `labels`."""

    name: str
    kind: Literal["gauge", "counter"]
    help: str
    samples: Callable[[Look], Iterable[Sample]]
    labels: tuple[str, ...] = ()


class FederationCollector:
    """A collector for `prometheus_client`: each scrape asks `status`, which must bear being called from any thread.

    `least` is the fewest members over which a figure of quality is told.
    """

    def __init__(
        self, status: Callable[[], Status], least: int = LEAST, clock: Callable[[], float] = time.time
    ) -> None:
        self._status, self._least, self._clock = status, least, clock

    def collect(self) -> Iterator[Metric]:
        """The families, from one look at the status.

        Raises:
            MissingExtra: `prometheus_client` is not installed.
        """
        try:
            from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
        except ImportError:
            raise MissingExtra("Prometheus metrics", "flower") from None
        look = Look(self._status(), self._clock())
        for family in (*FAMILIES, *quality(self._least)):
            make = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
            metric = make(family.name, family.help, labels=family.labels)
            for labels, value in family.samples(look):
                metric.add_metric(labels, value)
            yield metric


def serve_metrics(status: Callable[[], Status], host: str, port: int, least: int = LEAST) -> MetricsServer:
    """Serve the metrics at http://host:port/metrics until what is returned is called; port 0: a free one.

    Raises:
        MissingExtra: `prometheus_client` is not installed.
        EnvironmentFault: host and port cannot be listened on.
    """
    return MetricsServer(FederationCollector(status, least), host, port)


# --- the families -----------------------------------------------------------------------------------------------------


FAMILIES: tuple[Family, ...] = (
    Family(
        "coterie_federation_info",
        "gauge",
        "Which federation this coordinator is of; always 1.",
        lambda look: [(tuple(str(look.status.get(key) or "") for key in _OF), 1.0)],
        _OF,
    ),
    Family(
        "coterie_running",
        "gauge",
        "Whether the coordinator runs.",
        lambda look: _one(bool(look.status.get("running"))),
    ),
    Family(
        "coterie_start_time_seconds",
        "gauge",
        "When the coordinator was started, in seconds since 1970.",
        lambda look: _one(look.status.get("since")),
    ),
    Family(
        "coterie_roster_version",
        "gauge",
        "Version of the signed list of members.",
        lambda look: _one(look.status.get("roster_version")),
    ),
    Family(
        "coterie_phase",
        "gauge",
        "1 for what is done at this moment, 0 for everything else.",
        lambda look: [((phase,), float(phase == _phase(look))) for phase in (*PHASES.values(), OTHER)],
        ("phase",),
    ),
    Family(
        "coterie_round",
        "gauge",
        "Round of the training that is worked on, from 0; absent where another sum is.",
        lambda look: _one(look.progress.get("round") if look.progress.get("what", "model") == "model" else None),
    ),
    Family(
        "coterie_attempt",
        "gauge",
        "Attempt at the round or other sum, from 0: more where one was lost.",
        lambda look: _one(look.progress.get("attempt")),
    ),
    Family(
        "coterie_rounds_done",
        "gauge",
        "Rounds of the job that are done.",
        lambda look: _one(len(look.rounds)),
    ),
    Family(
        "coterie_round_members",
        "gauge",
        "Members in the sum of the last round that is done.",
        lambda look: _one(look.rounds[-1].get("clients") if look.rounds else None),
    ),
    Family(
        "coterie_deadline_seconds_left",
        "gauge",
        "Seconds for which members are still waited for; absent where nobody is.",
        lambda look: _one(_seconds_left(look)),
    ),
    Family(
        "coterie_epsilon_spent",
        "gauge",
        "Epsilon that the job has cost each user so far; absent without differential privacy.",
        lambda look: _one(look.progress.get("epsilon_spent")),
    ),
    Family(
        "coterie_jobs",
        "gauge",
        "Jobs by state.",
        lambda look: _by_state(look.status.get("jobs") or (), JOB_STATES),
        ("state",),
    ),
    Family(
        "coterie_members",
        "gauge",
        "Members by state.",
        lambda look: _by_state(members(look.status), MEMBER_STATES),
        ("state",),
    ),
    Family(
        "coterie_members_online",
        "gauge",
        "Members that are connected.",
        lambda look: _one(sum(one.get("online_since") is not None for one in look.members)),
    ),
    Family(
        "coterie_member_online",
        "gauge",
        "Whether an approved member is connected.",
        lambda look: _each(look.approved, lambda one: one.get("online_since") is not None),
        _MEMBER,
    ),
    Family(
        "coterie_member_online_since_seconds",
        "gauge",
        "Since when a member is connected, in seconds since 1970; absent while it is not.",
        lambda look: _each(look.approved, lambda one: one.get("online_since")),
        _MEMBER,
    ),
    Family(
        "coterie_member_waited_for",
        "gauge",
        "Whether an approved member is waited for.",
        lambda look: _each(look.approved, lambda one: one["name"] in waited_for(look.status)),
        _MEMBER,
    ),
    Family(
        "coterie_sent_bytes",
        "counter",
        "Bytes that were sent to a member.",
        lambda look: _each(look.members, lambda one: one.get("sent_bytes")),
        _MEMBER,
    ),
    Family(
        "coterie_received_bytes",
        "counter",
        "Bytes that were received from a member.",
        lambda look: _each(look.members, lambda one: one.get("received_bytes")),
        _MEMBER,
    ),
    Family(
        "coterie_dropouts",
        "counter",
        "How often a member dropped out of an attempt at a round.",
        lambda look: _each(look.members, lambda one: one.get("dropouts")),
        _MEMBER,
    ),
    Family(
        "coterie_process_up",
        "gauge",
        "Whether a process of the coordinator runs.",
        lambda look: _each(look.processes, lambda one: one.get("pid") is not None),
        ("process",),
    ),
    Family(
        "coterie_process_restarts",
        "counter",
        "How often a process of the coordinator was started again.",
        lambda look: _each(look.processes, lambda one: one.get("restarts")),
        ("process",),
    ),
)
"""All families but those of quality; names of counters end in ``_total`` where they are read."""


def quality(least: int) -> tuple[Family, ...]:
    """What members reported together, where it is a sum over at least `least` of them."""

    def samples(look: Look, values: Mapping[str, Any]) -> Iterator[Sample]:
        for name in shared_figures(look.reported, least):
            if _QUALITY.fullmatch(name) and (value := known(values.get(name))) is not None:
                yield (name,), value

    return (
        Family(
            "coterie_reported",
            "gauge",
            f"What members reported of the last model, as means over at least {least} of them.",
            lambda look: samples(look, look.reported.get("values") or {}),
            ("metric",),
        ),
        Family(
            "coterie_reported_noise",
            "gauge",
            "Standard deviation of the noise in what members reported.",
            lambda look: samples(look, look.reported.get("noise") or {}),
            ("metric",),
        ),
    )


# --- reading ----------------------------------------------------------------------------------------------------------


def _phase(look: Look) -> str:
    """The one word for what is done."""
    said = str(look.progress.get("phase") or "idle")
    return PHASES.get(WAITING if said.startswith(WAITING) else said, OTHER)


def _seconds_left(look: Look) -> float | None:
    deadline = known(look.progress.get("deadline"))
    return max(deadline - look.now, 0.0) if deadline is not None and waited_for(look.status) else None


def _one(value: Any) -> Iterator[Sample]:
    """The one sample of a family without labels; none where nothing is known."""
    if (number := known(value)) is not None:
        yield (), number


def _each(things: Iterable[Mapping[str, Any]], value: Callable[[Mapping[str, Any]], Any]) -> Iterator[Sample]:
    """A sample for each thing by its name; none for those of which nothing is known."""
    return (((str(one["name"]),), number) for one in things if (number := known(value(one))) is not None)


def _by_state(things: Iterable[Mapping[str, Any]], states: Iterable[str]) -> Iterator[Sample]:
    present = [str(one.get("state")) for one in things]
    return (((state,), float(present.count(state))) for state in states)
