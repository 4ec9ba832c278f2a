"""The coordinator's side of every exchange: seal for each member, send, verify what comes back."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from coterie.errors import PeerError
from coterie.federation.envelope import PROTOCOLS, Envelope, open_envelope
from coterie.federation.progress import Progress
from coterie.federation.roster import COORDINATOR
from coterie.federation.transport import Transport, never
from coterie.secure.keys import Identity

FAILED, REFUSED = "failed", "refused"  # kinds of answers that say no, and why
POLL = 0.25  # seconds between looks at who is there

Content: TypeAlias = tuple[Mapping[str, Any], Mapping[str, bytes | bytearray | memoryview]]


@dataclass
class Talk:
    """Exchanges of one occurrence of a job.

    `members` are the roster's identities (public keys) by name; `versions` has the protocol version of each that has
    accepted the job; others are spoken to in the oldest. `stopping` is asked while waiting: a coordinator that is told
    to stop stops there.
    """

    transport: Transport
    identity: Identity
    federation: str
    job: str
    members: Mapping[str, bytes]
    progress: Progress
    versions: dict[str, int] = field(default_factory=dict)
    stopping: Callable[[], bool] = lambda: False
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    _number: Iterator[int] = field(default_factory=lambda: itertools.count(time.time_ns()))

    def ask(
        self,
        kind: str,
        contents: Mapping[str, Content],
        seconds: float,
        enough: Callable[[frozenset[str]], bool] = never,
    ) -> Iterator[tuple[str, Envelope]]:
        """Send each member its message; yield the answers that are really theirs.

        An answer that is forged, malformed or astray is a fault of that member, and it counts as not having answered.
        """
        sealed = {name: self._seal(kind, name, *content) for name, content in contents.items()}
        numbers = {name: one.number for name, (one, _) in sealed.items()}
        for name, (_, message) in sealed.items():
            self.progress.moved(name, sent=len(message))
        messages = {name: message for name, (_, message) in sealed.items()}
        for name, reply in self.transport.exchange(messages, seconds, enough):
            self.check_stop()
            self.progress.moved(name, received=len(reply))
            self.progress.answered(name)
            try:
                answer = open_envelope(reply, self.members[name], name, COORDINATOR, self.federation)
                if answer.kind == FAILED and not answer.job:
                    raise PeerError(f"could not read its message: {str(answer.header.get('reason'))[:500]}")
                if (answer.number, answer.job) != (numbers[name], self.job):
                    raise PeerError(f"{name}: answered another message than it was sent")
            except PeerError as error:
                self.progress.fault(name, str(error).removeprefix(f"{name}: "))
                continue
            yield name, answer

    def wait_for(self, least: int, among: Collection[str], seconds: float, what: str) -> frozenset[str]:
        """Wait until at least `least` of `among` are connected; who is.

        Raises:
            PeerError: too few within `seconds`; names who is missing.
        """
        end = self.clock() + seconds
        while True:
            self.check_stop()
            online = dict(self.transport.online())
            self.progress.online(online)
            there = frozenset(among) & set(online)
            if len(there) >= least:
                return there
            missing = sorted(set(among) - there)
            self.progress.phase(f"waiting for members: {what}", missing, max(end - self.clock(), 0.0))
            if self.clock() >= end:
                raise PeerError(
                    f"{what}: {len(there)} of the {least} members that are needed are connected after {seconds:g} s; "
                    f"missing: {', '.join(missing)}; start them, or lower min_clients"
                )
            self.sleep(POLL)

    def check_stop(self) -> None:
        """Leave where the coordinator was told to stop.

        Raises:
            PeerError: it was.
        """
        if self.stopping():
            raise PeerError(f"{self.job}: stopped by the coordinator's operator")

    def _seal(
        self, kind: str, name: str, header: Mapping[str, Any], blobs: Mapping[str, Any]
    ) -> tuple[Envelope, bytes]:
        version = self.versions.get(name, PROTOCOLS[0])
        envelope = Envelope(
            kind, self.job, COORDINATOR, name, self.federation, next(self._number), header, blobs, version
        )
        return envelope, envelope.seal(self.identity)
