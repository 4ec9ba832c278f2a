"""The coordinator's own record of the sums that it asked for: what a job has cost, whoever was killed meanwhile.

Members keep the ledgers that count. This is what the coordinator's own card and screen say of the same.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from coterie.files import append_line, read_bytes
from coterie.privacy.accountant import Event


@dataclass(frozen=True)
class JointBooks:
    """`coterie.federation.release.Books` of one occurrence: a line in `path` for each sum that was asked for."""

    path: Path

    def prepare(self, what: str, events: Mapping[int, Event]) -> None:
        """Members set budget aside; here is none."""

    def reserve(self, what: str, round: int, event: Event) -> Asked:
        """A sum that may be asked for."""
        return Asked(self.path, what, round, event)

    def settle(self, what: str) -> None:
        """Nothing was set aside."""

    def spent(self) -> list[Event]:
        """All that was asked for so far, by whatever process; a torn last line is of a sum that was not."""
        if not self.path.exists():
            return []
        lines = read_bytes(self.path).splitlines(keepends=True)
        return [Event.from_json(json.loads(line)["event"]) for line in lines if line.endswith(b"\n")]


@dataclass(frozen=True)
class Asked:
    """`coterie.federation.release.Ticket`: one sum."""

    path: Path
    what: str
    round: int
    event: Event

    def spend(self) -> None:
        """It is written down when this returns, and asked for after that."""
        said = {"what": self.what, "round": self.round, "event": self.event.to_json()}
        append_line(self.path, json.dumps(said))

    def give_back(self, reason: str) -> None:
        """Nothing was set aside."""
