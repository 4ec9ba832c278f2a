"""The egress page: what has left a site, for a person who was not there. As HTML, or as Markdown."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from coterie.federation.egress import Line, Verification, read, verify
from coterie.report import reading
from coterie.report.html import templates

MOST = 500
"""How many messages are shown one by one, the latest; the log itself has all."""
_OUTSIDE = "outside of jobs"
_MARKS = re.compile(r"([\\`*_{}\[\]<>#|~&])")


def egress_html(path: Path, member: str) -> str:
    """The log at `path` of the node `member` as one HTML page: no script, no reference to anything outside.

    Of a log that is not as it was written, the page says so first, and shows the lines before the first bad one.

    Raises:
        DataError: there is no log.
        EnvironmentFault: it cannot be read.
    """
    return templates().get_template("egress.html.j2").render(_view(path, member))


def egress_markdown(path: Path, member: str) -> str:
    """The same as Markdown. Raises as `egress_html`."""
    environment = templates()
    environment.filters["plain"] = plain
    return environment.get_template("egress.md.j2").render(_view(path, member)) + "\n"


def plain(text: Any) -> str:
    r"""A value that Markdown shows as it is.

    >>> print(plain("a|b *c*"))
    a\|b \*c\*
    """
    return _MARKS.sub(r"\\\1", str(text))


@dataclass
class _Share:
    """The messages that have something in common: of one job, or of one kind."""

    messages: int = 0
    bytes: int = 0
    masked: int = 0
    epsilon: float | None = None
    """The most that one of them was charged for."""
    rounds: set[int] = field(default_factory=set)
    first: str = ""
    last: str = ""

    def add(self, line: Line) -> None:
        self.messages += 1
        self.bytes += line.bytes
        self.masked += line.masked
        if line.epsilon is not None:
            self.epsilon = max(self.epsilon or 0.0, line.epsilon)
        if line.round is not None:
            self.rounds.add(line.round)
        self.first, self.last = self.first or line.time, line.time

    @property
    def how_masked(self) -> str:
        """Which of them can be read only in a sum with the other members'."""
        if self.masked in (0, self.messages):
            return "yes" if self.masked else "no"
        return f"{self.masked:,} of {self.messages:,}"


def _view(path: Path, member: str) -> dict[str, Any]:
    """What the templates show."""
    said = verify(path)
    lines = islice(read(path), said.lines if said.line is None else min(said.line - 1, said.lines))
    total, jobs, kinds, latest = _shares(lines)
    return {
        "member": member,
        "log": path.name,
        "verified": said,
        "sentence": _sentence(total, len([name for name in jobs if name != _OUTSIDE])),
        "finding": _finding(said),
        "total": total,
        "jobs": jobs,
        "kinds": kinds,
        "latest": [(line, _moment(line.time), charge(line.epsilon)) for line in reversed(latest)],
        "left_out": total.messages - len(latest),
        "moment": _moment,
        "charge": charge,
    }


def _shares(
    lines: Iterable[Line],
) -> tuple[_Share, dict[str, _Share], dict[tuple[str, str], _Share], deque[Line]]:
    """All messages, by job, by kind and content, and the latest ones."""
    total, latest = _Share(), deque[Line](maxlen=MOST)
    jobs, kinds = dict[str, _Share](), dict[tuple[str, str], _Share]()
    for line in lines:
        latest.append(line)
        for share in (
            total,
            jobs.setdefault(line.job or _OUTSIDE, _Share()),
            kinds.setdefault((line.kind, line.contains), _Share()),
        ):
            share.add(line)
    return total, jobs, kinds, latest


def _sentence(total: _Share, jobs: int) -> str:
    if not total.messages:
        return "Nothing has left."
    one = total.messages == 1
    span = f"on {_moment(total.first)}" if one else f"between {_moment(total.first)} and {_moment(total.last)}"
    what = f"{reading.count(total.messages)} message{'' if one else 's'} of {reading.size(total.bytes)}"
    return f"{what} left {span}, for {reading.count(jobs)} job{'' if jobs == 1 else 's'}."


def _finding(said: Verification) -> str:
    if said.ok:
        return f"Verified: {said}."
    shown = "All lines before it are shown." if said.mendable else "Only the lines before it are shown."
    return f"This log is not as it was written. {str(said)[0].upper()}{str(said)[1:]}. {shown}"


def _moment(time: str) -> str:
    """A time of the log to the second, for reading."""
    return time[:19].replace("T", " ") + " UTC"


def charge(epsilon: float | None) -> str:
    """What a message cost each user, in words.

    >>> charge(0.25), charge(None), charge(math.inf)
    ('0.25', 'none', 'unbounded')
    """
    if epsilon is None:
        return "none"
    return "unbounded" if math.isinf(epsilon) else f"{epsilon:.4g}"
