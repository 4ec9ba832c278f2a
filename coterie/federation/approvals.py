"""What a person has decided at a node, kept in ``approvals.json`` beside the hand-written policy.

Pinned identities, approved and stopped jobs, approved rosters; each with who decided and when. The daemon and the
commands change the file in turn: every change is made under a lock, on what the file says then, and is durable when the
call returns. What the node has been shown (the newest roster, the limits it set in its ledger) is kept here too, since
forgetting it would let a coordinator show an older roster again.
"""

from __future__ import annotations

import getpass
import json
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from coterie.errors import ConfigError, DataError, PeerError
from coterie.federation.filelock import locked
from coterie.federation.roster import Roster, check_name
from coterie.files import read_bytes, write_private
from coterie.settings import describe

FILE = "approvals.json"
_FINGERPRINT = re.compile(r"[0-9a-f]{32}")


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Pin(_Record):
    """An identity that somebody compared with what its owner said, out of band."""

    fingerprint: str
    by: str
    at: str


class Decision(_Record):
    """What was decided about a job or a roster, by whom and when (rosters are approved, or nothing is said)."""

    verdict: Literal["approved", "stopped"]
    by: str
    at: str
    reason: str = ""


class Shown(_Record):
    """The newest roster that this node has seen of a federation."""

    version: int
    digest: str
    members: dict[str, str]


class Limits(_Record):
    """What this node's policy has set in its ledger."""

    total: float | None
    month: float | None


class _Content(_Record):
    pins: dict[str, Pin] = Field(default_factory=dict)
    jobs: dict[str, Decision] = Field(default_factory=dict)
    rosters: dict[str, Decision] = Field(default_factory=dict)
    shown: dict[str, Shown] = Field(default_factory=dict)
    offered: dict[str, str] = Field(default_factory=dict)
    limits: dict[str, Limits] = Field(default_factory=dict)


class Approvals:
    """The decisions in a file; without a path they last as long as the object (for tests and trials)."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._content = _Content()

    @classmethod
    def load(cls, path: Path) -> Approvals:
        """The decisions in a file; none where there is no file yet.

        Raises:
            DataError: the file is not one of approvals.
            EnvironmentFault: it cannot be read.
        """
        loaded = cls(path)
        loaded.refresh()
        return loaded

    def refresh(self) -> None:
        """Take note of what others (a command beside the daemon) have decided since."""
        if self.path is not None:
            self._content = _read(self.path)

    @property
    def pins(self) -> dict[str, str]:
        """Fingerprints of pinned identities by name."""
        return {name: pin.fingerprint for name, pin in self._content.pins.items()}

    @property
    def approved_jobs(self) -> tuple[str, ...]:
        """Ids of the jobs that a person approved and nobody stopped."""
        return tuple(id for id, one in self._content.jobs.items() if one.verdict == "approved")

    @property
    def stopped_jobs(self) -> tuple[str, ...]:
        """Ids of the jobs that a person stopped."""
        return tuple(id for id, one in self._content.jobs.items() if one.verdict == "stopped")

    def job(self, id: str) -> Decision | None:
        """What was decided about a job, with who and when; None while nothing was."""
        return self._content.jobs.get(id)

    def roster(self, digest: str) -> Decision | None:
        """What was decided about a roster, by its digest; None while nothing was."""
        return self._content.rosters.get(digest)

    def shown(self, federation: str) -> Shown | None:
        """The newest roster of a federation that this node has seen."""
        return self._content.shown.get(federation)

    def limits(self, account: str) -> Limits | None:
        """What this node's policy has last set on an account of its ledger."""
        return self._content.limits.get(account)

    def pin(self, name: str, fingerprint: str, by: str | None = None, replace: bool = False) -> None:
        """Pin an identity to a name.

        Raises:
            ConfigError: no such name or fingerprint can be; or the name is pinned to another identity, and `replace` is
                false.
        """
        check_name(name)
        with self._change() as content:
            known = content.pins.get(name)
            if known is not None and known.fingerprint != check_fingerprint(fingerprint) and not replace:
                raise ConfigError(
                    f"'{name}' is pinned to {known.fingerprint} since {known.at} (by {known.by}), got {fingerprint}; "
                    "if its owner confirms the new one, unpin the old one first"
                )
            content.pins[name] = Pin(fingerprint=check_fingerprint(fingerprint), by=by or person(), at=_now())

    def unpin(self, name: str) -> None:
        """Forget the identity of a name; it then counts for nothing.

        Raises:
            ConfigError: it is not pinned here.
        """
        with self._change() as content:
            if content.pins.pop(name, None) is None:
                raise ConfigError(f"'{name}' is not pinned in {self.path or 'memory'}; pins in policy.toml stay there")

    def approve(self, id: str, by: str | None = None) -> None:
        """Let a job run; a job that was stopped before may then run again."""
        self._decide(id, "approved", by, "")

    def stop(self, id: str, reason: str = "", by: str | None = None) -> None:
        """Stop a job, in all its rounds and recurrences to come, until somebody approves it again."""
        self._decide(id, "stopped", by, reason)

    def approve_roster(self, roster: Roster, by: str | None = None) -> None:
        """Accept the members of a roster, pinned or not; only pinned ones count where members are counted."""
        with self._change() as content:
            content.rosters[roster.digest] = Decision(verdict="approved", by=by or person(), at=_now())

    def note_job(self, id: str, digest: str) -> None:
        """Remember what was offered under an id, so that what a person approves by its id is what runs.

        Args:
            id: the job's.
            digest: SHA-256 of its signed content, in hexadecimal.

        Raises:
            PeerError: another job was offered under this id before.
        """
        known = self._content.offered.get(id)
        if known == digest:
            return
        if known is not None:
            raise PeerError(
                f"the coordinator has signed two jobs as '{id}': the first may have been approved and this is another; "
                "ask its operator for one under a new id"
            )
        with self._change() as content:
            content.offered.setdefault(id, digest)
        self.note_job(id, digest)  # whoever was first, this one or another process

    def note_roster(self, roster: Roster) -> None:
        """Remember a roster that was shown, if it is the newest; whoever is not in it is out of older ones too.

        Raises:
            PeerError: it cannot be, given what was shown before; see `objection`.
        """
        if reason := self.objection(roster):
            raise PeerError(reason)
        known = self.shown(roster.federation)
        if known is None or roster.version > known.version:
            members = {one.name: one.fingerprint for one in roster.members}
            with self._change() as content:
                content.shown[roster.federation] = Shown(version=roster.version, digest=roster.digest, members=members)

    def objection(self, roster: Roster) -> str:
        """Why a roster cannot be, given the newest that was shown; empty where it can.

        An older one may still be that of a job which is running, as long as nobody in it has been revoked since.
        """
        known = self.shown(roster.federation)
        if known is None or roster.version > known.version:
            return ""
        if roster.version == known.version:
            same = roster.digest == known.digest
            return (
                ""
                if same
                else (
                    f"the coordinator shows a second roster under version {roster.version}: it tells members different "
                    "things; do not take part until its operator explains that"
                )
            )
        gone = [one for one in roster.members if known.members.get(one.name) != one.fingerprint]
        if not gone:
            return ""
        return (
            f"roster {roster.version} has {', '.join(map(str, gone))}, not in roster {known.version} any more: who was "
            "revoked takes part in nothing; ask the coordinator's operator to sign the job anew"
        )

    def note_limits(self, account: str, total: float | None, month: float | None) -> None:
        """Remember what the policy has set on an account."""
        with self._change() as content:
            content.limits[account] = Limits(total=total, month=month)

    def _decide(self, id: str, verdict: Literal["approved", "stopped"], by: str | None, reason: str) -> None:
        if not id or not id.isprintable():
            raise ConfigError(f"a job's id must be one that can be printed, got {id!r}")
        with self._change() as content:
            content.jobs[id] = Decision(verdict=verdict, by=by or person(), at=_now(), reason=reason)

    @contextmanager
    def _change(self) -> Iterator[_Content]:
        """A change that is made on what the file says now, by one process at a time, and durable afterwards."""
        with _alone(self.path):
            self.refresh()
            content = self._content.model_copy(deep=True)
            yield content
            if self.path is not None:
                text = json.dumps(content.model_dump(), indent=2, sort_keys=True)
                write_private(self.path, f"{text}\n".encode())
            self._content = content


def check_fingerprint(text: str) -> str:
    """A fingerprint as it is compared: 32 hexadecimal characters, whatever spaces, colons and case it was told with.

    >>> check_fingerprint("6668 7AAD F862 BD77:6C8F C18B 8E9F 8E20")
    '66687aadf862bd776c8fc18b8e9f8e20'

    Raises:
        ConfigError: it is none.
    """
    bare = re.sub(r"[\s:]", "", text).lower()
    if not _FINGERPRINT.fullmatch(bare):
        raise ConfigError(f"a fingerprint must be 32 hexadecimal characters, got {text!r}")
    return bare


def person() -> str:
    """Who decides: the name of the user who runs this process."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a container may have no such user
        return f"user {os.getuid()}"


def _read(path: Path) -> _Content:
    if not path.exists():
        return _Content()
    try:
        return _Content.model_validate_json(read_bytes(path))
    except ValidationError as error:
        raise DataError(f"{path}: not a file of approvals ({describe(error)}); restore it from a backup") from None


def _alone(path: Path | None) -> AbstractContextManager[None]:
    """One process at a time; the lock lies beside the file, which itself is replaced at every change."""
    return nullcontext() if path is None else locked(path.with_name(f".{path.name}.lock"), str(path))


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
