"""What a federation does at this moment, in sentences: for the live view and for the log alike.

Everything is read from the two objects that ``coterie coordinator status --json`` and ``coterie node status --json``
print. Names, reasons and errors in them are texts of others: they come out printable.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, TypeAlias

from coterie.report.printable import printable
from coterie.report.reading import known

Status: TypeAlias = Mapping[str, Any]

LEAST = 3
"""Fewest members in a sum whose quality is shown: of two, each could subtract itself and read the other."""
REFUSED = "refused"  # what a node says of a job that its policy does not allow
NAMED = 4  # names in a sentence
LONGEST = 400  # characters of one error
WAITING, WAITING_IN_A_JOB = "waiting for", "waiting for members"
ENDED = {"done": "is done", "stopped": "was stopped", "failed": "failed"}
"""What a job ends as; its progress says so until the next one begins."""
ROUND_PHASES: Mapping[str, str] = {
    "exchanging keys": "keys",
    "sharing secrets": "shares",
    "summing": "sum",
    "agreeing on who is in the sum": "survivors",
    "unmasking the sum": "unmask",
}
"""Steps of a round, as `coterie.federation.network` says them, and one word for each."""
PHASES: Mapping[str, str] = {
    "idle": "idle",
    "starting": "start",
    "offering the job": "offer",
    WAITING: "wait",  # for members to connect, or to accept a job
    "agreeing on items": "agree",
    "preparing": "prepare",
    **ROUND_PHASES,
    "delivering the model": "deliver",
    "ending": "end",
    **{state: state for state in ENDED},
}
"""Everything that a coordinator may be doing, in the order in which it comes, and one word for each."""
_OF_WHAT = {"metrics": "the reported metrics", "comparison": "the reported gains", "carriers": "who carries what"}
_UNITS = ((86_400, "d"), (3_600, "h"), (60, "min"), (1, "s"))


def doing(status: Status, now: float) -> str:
    """One sentence on a coordinator: what it does, who is waited for, and for how long still."""
    if not status.get("running"):
        return "The coordinator is not running: coterie coordinator start starts it"
    progress = status.get("progress") or {}
    phase = str(progress.get("phase") or "idle")
    if phase in ("idle", *ENDED):
        return _between_jobs(status, progress, phase)
    if not in_a_job(progress):
        away = [printable(str(name)) for name in progress.get("waiting_for") or ()]
        return f"Nothing is being trained: {printable(phase)}{f'; away: {listed(away)}' if away else ''}"
    head = f"{_job(progress)}{_where(progress, phase)}"
    waits = _waits(progress, now, phase)
    if phase.startswith(WAITING_IN_A_JOB):
        return f"{head}: {waits or 'enough members are there'}"
    return f"{head}: {printable(phase)}; {waits or 'all that were asked have answered'}"


def in_a_job(progress: Mapping[str, Any]) -> bool:
    """Whether what is done belongs to the job that the progress names: between jobs it still names the last one."""
    phase = str(progress.get("phase") or "idle")
    return bool(progress.get("job")) and (not phase.startswith(WAITING) or phase.startswith(WAITING_IN_A_JOB))


def node_doing(status: Status) -> str:
    """One sentence on a node: whether it is connected, what it takes part in, and which jobs wait."""
    if not status.get("running"):
        return "This node is not running: coterie node start starts it"
    connection = printable(str(status.get("connection") or "not connected"))
    jobs = status.get("jobs") or []
    refused = [one for one in jobs if one.get("state") == REFUSED]
    waiting = [one for one in jobs if one.get("waiting") and one not in refused]
    active = [one for one in jobs if one not in waiting and one.get("state") not in (*ENDED, REFUSED)]
    said = [f"takes part in {listed(_job(one) + _round(one) for one in active)}"] if active else []
    said += [f"{listed(_job(one) for one in waiting)} {'wait' if len(waiting) > 1 else 'waits'}"] if waiting else []
    said += [f"refuses {listed(map(_job, refused))}"] if refused else []
    return f"{connection[:1].upper()}{connection[1:]}; {'; '.join(said) or 'no job at present: waits for an offer'}"


def dropped(status: Status) -> str:
    """One sentence on who dropped out since the coordinator was started, the most often first."""
    counts = {str(one["name"]): int(one.get("dropouts") or 0) for one in members(status)}
    left = sorted((name for name in counts if counts[name]), key=lambda name: (-counts[name], name))
    if not left:
        return "Nobody has dropped out."
    return f"Dropped out: {listed(f'{printable(n)} ({times(counts[n])})' for n in left)}."


def errors(status: Status) -> Iterator[tuple[str, str]]:
    """(whose, the error with its remedy) of a coordinator or a node, the most important first."""
    if text := status.get("last_error"):
        yield "last error", _cut(str(text))
    told = {str(one["name"]): str(one["last_error"]) for one in members(status) if one.get("last_error")}
    for name, text in told.items():
        yield printable(name), _with_remedy(text, "at that node, coterie node status says more")
    for child in status.get("children") or []:
        if (text := child.get("last_error")) and (child.get("pid") is None or child.get("restarts")):
            name = printable(str(child["name"]))
            remedy = f"its log is flower/logs/{name}.log"
            yield f"{name} ({_restarted(child)})", _with_remedy(str(text), remedy)


def asked_of_us(status: Status) -> Iterator[str]:
    """What a coordinator's operator has to do before certain members can take part: a sentence each."""
    for member in members(status):
        name = printable(str(member["name"]))
        if member.get("state") == "pending":
            mark = printable(str(member.get("fingerprint") or "unknown"))
            yield (
                f"{name} asks to be admitted as {mark}; compare, with what its operator reads out as FINGERPRINT: "
                f"coterie coordinator approve {name} --fingerprint FINGERPRINT"
            )


def members(status: Status) -> Sequence[Mapping[str, Any]]:
    """The members of a coordinator's status; none in a node's."""
    found: Sequence[Mapping[str, Any]] = status.get("members") or ()
    return found


def waited_for(status: Status) -> frozenset[str]:
    """Names of the members that the coordinator waits for."""
    return frozenset((status.get("progress") or {}).get("waiting_for") or ())


def shared_figures(record: Mapping[str, Any], least: int = LEAST) -> dict[str, float]:
    """The figures of quality in a reported sum or a round's record: none where it is over fewer than `least` members.

    `record` has ``values`` (or, of a round, ``metrics``) by name, and says in ``of`` (``clients``) over how many.
    """
    of = known(record.get("of", record.get("clients")))
    if of is None or of < least - 0.5:  # a count that was noised is no whole number
        return {}
    values = record.get("values") or record.get("metrics") or {}
    return {str(name): found for name, value in values.items() if (found := known(value)) is not None}


def duration(seconds: float) -> str:
    """A time span in at most two units.

    >>> duration(9.4), duration(130), duration(3600), duration(7805), duration(200000)
    ('9 s', '2 min 10 s', '1 h', '2 h 10 min', '2 d 7 h')
    """
    left, parts = round(max(seconds, 0.0)), list[tuple[int, str]]()
    for length, unit in _UNITS:
        parts.append((left // length, unit))
        left %= length
    first = next((at for at, (number, _) in enumerate(parts) if number), len(parts))
    return " ".join(f"{number} {unit}" for number, unit in parts[first : first + 2] if number) or "0 s"


def moment(when: Any) -> float | None:
    """Seconds since 1970 of a moment that is given so, or in ISO 8601; None where there is none.

    >>> moment("1970-01-01T00:01:00Z"), moment(60), moment(None)
    (60.0, 60.0, None)
    """
    return datetime.fromisoformat(when).timestamp() if isinstance(when, str) and when else known(when)


def listed(names: Iterable[str], most: int = NAMED) -> str:
    """Names in a sentence, the first `most` of them.

    >>> listed(["a", "b", "c"]), listed("abcdefg")
    ('a, b and c', 'a, b, c, d and 3 more')
    """
    found = list(names)
    shown, more = found[:most], len(found) - most
    parts = [*shown, f"{more} more"] if more > 0 else shown
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def times(number: int) -> str:
    """How often.

    >>> times(1), times(2), times(5)
    ('once', 'twice', '5 times')
    """
    return {1: "once", 2: "twice"}.get(number, f"{number} times")


def _between_jobs(status: Status, progress: Mapping[str, Any], phase: str) -> str:
    """Nothing is being trained: how the last job ended, and what the next one waits for."""
    jobs = status.get("jobs") or []
    ended = "Nothing is being trained"
    if phase in ENDED and progress.get("job"):
        why = next((str(one["reason"]) for one in jobs if one.get("id") == progress["job"] and one.get("reason")), "")
        ended = f"{_job(progress)} {ENDED[phase]}{f': {printable(why)}' if why else ''}"
    waiting = [one for one in jobs if one.get("state") == "waiting"]
    if not waiting:
        return f"{ended}; no job is waiting"
    reason = waiting[0].get("reason")
    names = f"{listed(_job(one) for one in waiting)} {'wait' if len(waiting) > 1 else 'waits'}"
    return f"{ended}; {names}{f': {printable(str(reason))}' if reason else ' to be started'}"


def _waits(progress: Mapping[str, Any], now: float, phase: str) -> str:
    """Who is waited for, to do what, and for how long still; empty where it is nobody."""
    names = [printable(str(name)) for name in progress.get("waiting_for") or ()]
    if not names:
        return ""
    to_do = {f"{WAITING_IN_A_JOB} to accept the job": " to accept the job"}.get(phase, "")
    to_do = to_do or (" to connect" if phase.startswith(WAITING_IN_A_JOB) else "")
    deadline = known(progress.get("deadline"))
    if deadline is None:
        left = ""
    elif deadline > now:
        left = f", {duration(deadline - now)} at most"
    else:
        left = f", whose time was over {duration(now - deadline)} ago"
    return f"waits for {listed(names)}{to_do}{left}"


def _where(progress: Mapping[str, Any], phase: str) -> str:
    """Which round, or which other sum; what is known of the last one is not said of a phase that is none."""
    if phase.startswith(f"{WAITING_IN_A_JOB}: "):
        return f", {printable(phase.removeprefix(f'{WAITING_IN_A_JOB}: '))}"
    if phase not in ROUND_PHASES:
        return ""
    what = str(progress.get("what") or "model")
    where = _round(progress) if what == "model" else f", {_OF_WHAT.get(what, printable(what))}"
    attempt = progress.get("attempt")
    return f"{where}, tried again (attempt {attempt})" if attempt else where


def _job(one: Mapping[str, Any]) -> str:
    name = printable(str(one.get("id") or one.get("job") or "a job"))
    return f"{name} ({printable(str(one['model']))})" if one.get("model") else name


def _round(one: Mapping[str, Any]) -> str:
    return "" if one.get("round") is None else f", round {one['round']}"


def _restarted(child: Mapping[str, Any]) -> str:
    runs = "running" if child.get("pid") is not None else "not running"
    return f"{runs}, started again {times(int(child['restarts']))}" if child.get("restarts") else runs


def _with_remedy(text: str, remedy: str) -> str:
    """An error says after a semicolon what to do; to one that does not, where to look is added."""
    return _cut(text if ";" in text else f"{text}; {remedy}")


def _cut(text: str) -> str:
    """A text of others at a length that a screen bears; its end, where the remedy stands, is kept."""
    safe = printable(text)
    return safe if len(safe) <= LONGEST else f"{safe[: LONGEST // 2]} … {safe[-LONGEST // 2 :]}"
