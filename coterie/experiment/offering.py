"""Offering a job: until enough members have accepted it, and with the reasons of those who do not."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from coterie.errors import PeerError
from coterie.federation.envelope import PROTOCOLS, Envelope, version_of
from coterie.federation.job import Job
from coterie.federation.talk import Content, Talk

RETRY, LONGEST = 2.0, 60.0  # seconds between offers to a member whose people have not yet decided: ever longer


@dataclass
class Offering:
    """One occurrence of a job, offered: `statement` is the signed job, `roster` the signed list of members."""

    job: Job
    statement: Mapping[str, Any]
    occurrence: int
    roster: bytes
    talk: Talk
    sleep: Callable[[float], None] = time.sleep
    accepted: set[str] = field(default_factory=set)
    refused: dict[str, str] = field(default_factory=dict)

    def offer(self) -> None:
        """Offer the job until enough members have accepted it, and all that are there have decided."""
        end, pause = self.talk.clock() + self.job.patience_seconds, RETRY
        while True:
            waiting = self.ask()
            enough = len(self.accepted) >= self.needed
            if enough and not waiting:
                return
            if len(self.job.members) - len(self.refused) < self.needed:
                raise PeerError(f"{self.talk.job}: too few members accept the job; {self.reasons()}")
            if self.talk.clock() >= end:
                if enough:
                    return
                raise PeerError(
                    f"{self.talk.job}: {len(self.accepted)} of the {self.needed} members that are needed accepted "
                    f"after {self.job.patience_seconds:g} s; {self.reasons()}"
                )
            missing = waiting | set(self.job.members) - self.accepted - set(self.refused)
            self.talk.progress.phase("waiting for members to accept the job", missing, end - self.talk.clock())
            self.talk.check_stop()
            self.sleep(min(pause, max(self.job.phase_seconds / 10, 0.05)))
            pause = min(2 * pause, LONGEST)

    def ask(self) -> set[str]:
        """Offer it to whoever is there and has not decided; who still has not."""
        online = self.talk.transport.online()
        self.talk.progress.online(dict(online))
        asked = [n for n in self.job.members if n in online and n not in self.accepted and n not in self.refused]
        header = {"job": dict(self.statement), "occurrence": self.occurrence, "versions": list(PROTOCOLS)}
        undecided = set(asked)
        contents: dict[str, Content] = {name: (header, {"roster": self.roster}) for name in asked}
        if asked:
            self.talk.progress.phase("offering the job", asked, self.job.phase_seconds)
        for name, answer in self.talk.ask("offer", contents, self.job.phase_seconds):
            if answer.kind == "accepted":
                try:
                    self.talk.versions[name] = version_of(_numbers(answer.header.get("versions")), name)
                except PeerError as error:
                    self.refuse(name, str(error))
                else:
                    self.accepted.add(name)
                    self.talk.progress.forgive(name)
                undecided.discard(name)
            elif answer.kind == "refused":
                self.refuse(name, words_of(answer))
                undecided.discard(name)
            else:
                self.talk.progress.fault(name, words_of(answer), dropped=False)
        return undecided

    @property
    def needed(self) -> int:
        """Fewest members with whom a round can succeed."""
        least = max(self.job.min_nodes, self.job.min_clients)
        if self.job.whole_plan.aggregation == "secure":
            least = max(least, self.job.threshold)
        return min(least, len(self.job.members))

    def refuse(self, name: str, reason: str) -> None:
        """A member does not take part."""
        self.accepted.discard(name)
        self.talk.versions.pop(name, None)
        self.refused[name] = reason
        self.talk.progress.fault(name, f"refuses the job: {reason}", dropped=False)

    def reasons(self) -> str:
        """Why it is not more members."""
        said = [f"{name} refuses: {reason}" for name, reason in sorted(self.refused.items())]
        silent = sorted(set(self.job.members) - self.accepted - set(self.refused))
        return "; ".join([*said, *([f"no word from {', '.join(silent)}"] if silent else [])]) or "nobody refused"


def words_of(answer: Envelope) -> str:
    """Why a member said no, in its words."""
    reasons = answer.header.get("reasons")
    if isinstance(reasons, list) and reasons:
        return "; ".join(str(one) for one in reasons)[:1000]
    return str(answer.header.get("reason") or f"answered '{answer.kind}'")[:1000]


def _numbers(values: Any) -> list[int]:
    """The whole numbers among what a member sent as a list."""
    return [one for one in values if isinstance(one, int)] if isinstance(values, list) else []
