"""What has changed in a federation since the last look, a line each: for logs, where nothing can be drawn again."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from coterie.report.federation_words import (
    ENDED,
    LEAST,
    Status,
    asked_of_us,
    doing,
    errors,
    listed,
    members,
    moment,
    node_doing,
    shared_figures,
    times,
)
from coterie.report.printable import printable
from coterie.report.reading import known, size

_NOTHING: Status = {}


def line_of(previous: Status | None, status: Status, now: float | None = None) -> list[str]:
    """What happened between two looks at a coordinator's or a node's status, each line with its time in UTC.

    Without a `previous` look the lines say how things stand. Equal looks give no line: that a deadline comes nearer is
    nothing that happened. `now` is in seconds since 1970.
    """
    at = time.time() if now is None else now
    before = previous or _NOTHING
    coordinator = _is_coordinator(status)
    said = doing(status, at) if coordinator else node_doing(status)
    changes = [said] if not before or _situation(before) != _situation(status) else []
    changes += [text for part in (_COORDINATOR if coordinator else _NODE) for text in part(before, status)]
    events = [one for one in _events(before, status, at) if not any(text.startswith(one[1]) for text in changes)]
    found = [*events, *((at, text) for text in changes)]
    return [f"{datetime.fromtimestamp(when, UTC):%Y-%m-%dT%H:%M:%SZ} {text}" for when, text in found]


def _is_coordinator(status: Status) -> bool:
    return "progress" in status or "members" in status


def _situation(status: Status) -> tuple[Any, ...]:
    """What has changed where the one sentence says anything new: more than that time has passed."""
    if not _is_coordinator(status):
        return (node_doing(status),)
    progress = status.get("progress") or {}
    facts = [progress.get(key) for key in ("job", "phase", "what", "round", "attempt")]
    return bool(status.get("running")), *facts, tuple(progress.get("waiting_for") or ())


# --- what both have ---------------------------------------------------------------------------------------------------


def _events(before: Status, status: Status, now: float) -> Iterator[tuple[float, str]]:
    """Events that were not there before, with their own times."""
    seen = {(event.get("time"), event.get("text")) for event in _events_of(before)}
    for event in _events_of(status):
        if (event.get("time"), event.get("text")) not in seen:
            when = moment(event.get("time"))
            yield now if when is None else when, printable(str(event.get("text")))


def _events_of(status: Status) -> list[Mapping[str, Any]]:
    return list((status.get("progress") or status).get("events") or [])


def _children(before: Status, status: Status) -> Iterator[str]:
    """Processes that had to be started again."""
    known_ = {one["name"]: one.get("restarts") or 0 for one in before.get("children") or []}
    for one in status.get("children") or []:
        if (one.get("restarts") or 0) > known_.get(one["name"], 0):
            why = f": {one['last_error']}" if one.get("last_error") else ""
            yield printable(f"{one['name']} was started again ({times(one['restarts'])} by now){why}")


def _job_states(before: Status, status: Status) -> Iterator[str]:
    """Jobs that came, began, or ended; why, and what they wait for."""
    known_ = {_occurrence(one): _state(one) for one in before.get("jobs") or []}
    for one in status.get("jobs") or []:
        if not before and one.get("state") in ENDED:
            continue
        if (state := _state(one)) != known_.get(_occurrence(one)):
            said, *why = [str(part) for part in state if part]
            yield printable(f"{_occurrence(one)} is {said}{': ' if why else ''}{'; '.join(why)}")


def _occurrence(one: Mapping[str, Any]) -> str:
    return str(one.get("occurrence") or one["id"])


def _state(one: Mapping[str, Any]) -> tuple[Any, ...]:
    return one.get("state") or "known", one.get("reason"), *(one.get("waiting") or ())


# --- a coordinator ----------------------------------------------------------------------------------------------------


def _members(before: Status, status: Status) -> Iterator[str]:
    """Who came, went, dropped out, or asks to be admitted."""
    known_ = {_identity(one): one for one in members(before)}
    if before:
        for one in members(status):
            yield from _member(known_.get(_identity(one), _NOTHING), one)
    else:
        here = [printable(str(one["name"])) for one in members(status) if one.get("online_since") is not None]
        yield f"connected: {listed(here)}" if here else "no member is connected"
    asked = set(asked_of_us(before))
    yield from (sentence for sentence in asked_of_us(status) if sentence not in asked)


def _identity(one: Mapping[str, Any]) -> tuple[Any, Any]:
    """A revoked member's name may be another one's by now."""
    return one["name"], one.get("fingerprint")


def _member(last: Mapping[str, Any], one: Mapping[str, Any]) -> Iterator[str]:
    name = printable(str(one["name"]))
    if one.get("state") != last.get("state"):
        yield printable(f"{name} is {one.get('state')}")
    here, was_here = one.get("online_since") is not None, last.get("online_since") is not None
    if here != was_here:
        yield f"{name} is {'connected' if here else 'not connected any more'}"
    if (one.get("dropouts") or 0) > (last.get("dropouts") or 0):
        yield f"{name} dropped out ({times(one['dropouts'])} by now)"


def _member_errors(before: Status, status: Status) -> Iterator[str]:
    """New errors with their remedies; those of processes are said where they are started again."""
    seen, children = set(errors(before)), {str(one["name"]) for one in status.get("children") or []}
    for whose, text in errors(status):
        if (whose, text) not in seen and whose.partition(" ")[0] not in children:
            yield f"{whose}: {text}"


def _rounds(before: Status, status: Status) -> Iterator[str]:
    """Rounds that are done, and what they have cost."""
    last, progress = before.get("progress") or {}, status.get("progress") or {}
    done = list(progress.get("rounds") or [])
    same = last.get("job") == progress.get("job")
    for one in done[len(last.get("rounds") or []) if same else 0 :] if before else ():
        yield f"round {one.get('round')} is done: {one.get('clients')} members are in the sum{_figures(one)}"
    epsilon = known(progress.get("epsilon_spent"))
    if epsilon is not None and (not same or epsilon != known(last.get("epsilon_spent"))):
        yield printable(f"{progress.get('job')} has cost each user epsilon {epsilon:.4g} so far")


def _gains(before: Status, status: Status) -> Iterator[str]:
    gains = status.get("gains")
    if gains and gains != before.get("gains"):
        said = _figures(gains) or f" not shown: of fewer than {LEAST} members"
        yield f"members reported what joining is worth:{said.removeprefix(';')}"


def _figures(record: Mapping[str, Any]) -> str:
    return "".join(f"; {printable(name)} {value:.4f}" for name, value in shared_figures(record).items())


# --- a node -----------------------------------------------------------------------------------------------------------


def _spent(before: Status, status: Status) -> Iterator[str]:
    budget, last = status.get("budget") or {}, before.get("budget") or {}
    spent = known(budget.get("spent"))
    if spent is not None and spent != known(last.get("spent")):
        left = known(budget.get("remaining"))
        remains = "" if left is None else f", {left:.4g} remains"
        yield printable(f"account '{budget.get('account')}': epsilon {spent:.4g} spent per user{remains}")


def _left(before: Status, status: Status) -> Iterator[str]:
    """How much has left the site since; where the first look is, in all."""
    egress, last = status.get("egress") or {}, before.get("egress") or {}
    lines = (egress.get("lines") or 0) - (last.get("lines") or 0)
    if lines > 0:
        amount = size((egress.get("bytes") or 0) - (last.get("bytes") or 0))
        yield f"{lines:,} message{'' if lines == 1 else 's'} left this site, {amount}"


def _gain(before: Status, status: Status) -> Iterator[str]:
    if status.get("gain") and status.get("gain") != before.get("gain"):
        yield printable(str(status["gain"]))


_Part = Callable[[Status, Status], Iterator[str]]
_COORDINATOR: tuple[_Part, ...] = (_members, _member_errors, _job_states, _rounds, _gains, _children)
_NODE: tuple[_Part, ...] = (_job_states, _spent, _left, _gain, _children)
