"""A member of a federation: what it answers to each message of the coordinator, and what it refuses.

    offer    a signed job        -> accepted, waiting (a person must decide), or refused, with every reason
    agree    one exchange of the agreement on items
    begin    what was agreed     -> the own log is aligned with it, the budget set aside
    round    steps of rounds (`coterie.federation.node_rounds`)
    result   the signed model    -> checked, measured at home, kept where it is better
    end      the job is over     -> its secrets are erased

Nothing of an answer leaves before it stands in the egress log. What a job needs after a restart (never a secret) lies
in the vault.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coterie.errors import CoterieError, PeerError, PlanError
from coterie.experiment.conductor import facts_of
from coterie.experiment.desk import Desk
from coterie.experiment.node_job import (
    Carried,
    Egress,
    NodeVault,
    Taken,
    add_reports,
    check_agreed,
    check_covered,
    job_row,
    received,
    set_aside,
)
from coterie.experiment.node_offer import Objections, Self, objections
from coterie.federation.agreed import Agreed
from coterie.federation.carriers import Carriers
from coterie.federation.checkpoint import load_state, state_digest
from coterie.federation.envelope import PROTOCOLS, Envelope, canonical, open_envelope
from coterie.federation.job import Job, grounds, read_job
from coterie.federation.network import is_in
from coterie.federation.node_rounds import Leaving, NodeRounds, Sum, told
from coterie.federation.nodeagreement import NodeAgreement
from coterie.federation.policy import Policy
from coterie.federation.release import Books
from coterie.federation.roster import COORDINATOR, Roster
from coterie.privacy.plan import Plan
from coterie.secure.keys import Identity, fingerprint

MOST_WAITING = 100  # offers that are shown to a person at a time: the newest

_log = logging.getLogger(__name__)


def silently(text: str) -> None:
    """The listener of a member that nobody watches."""


@dataclass
class Node:
    """One member. `answer` is all that the outside can do with it; it is called by one message at a time.

    `policy` is asked anew for each offer, since a person may have changed it; `books` gives the ledger of an occurrence
    (its name, the plan, the model's name); `runs` is where run folders are kept.
    """

    name: str
    identity: Identity
    coordinator: bytes
    policy: Callable[[], Policy]
    desk: Desk
    vault: NodeVault
    egress: Egress
    books: Callable[[str, Plan, str], Books | None]
    runs: Path
    clock: Callable[[], datetime] = lambda: datetime.now(UTC)
    notify: Callable[[str], None] = silently
    versions: tuple[int, ...] = PROTOCOLS
    _jobs: dict[str, Taken] = field(default_factory=dict)
    _waiting: dict[str, tuple[Job, str, Sequence[str]]] = field(default_factory=dict)
    _last: tuple[bytes, bytes] | None = None
    _leaving: list[Leaving] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def gain(self) -> str | None:
        """What the last finished job brought, in a sentence."""
        found = self.vault.record("gain")
        return None if found is None else str(found["sentence"])

    def jobs(self) -> list[dict[str, Any]]:
        """The jobs that this member takes part in, or has to decide about."""
        taken = [job_row(one.job, one.name, "taking part", (), one) for one in list(self._jobs.values())]
        return taken + [job_row(job, name, kind, why) for name, (job, kind, why) in list(self._waiting.items())]

    @property
    def federation(self) -> str:
        """Fingerprint of the coordinator."""
        return fingerprint(self.coordinator)

    def answer(self, message: bytes) -> bytes:
        """The signed answer to a message; the same bytes again get the same answer."""
        digest = hashlib.sha256(message).digest()
        with self._lock:
            if self._last is not None and self._last[0] == digest:
                return self._last[1]
            reply = self._answered(message)
            self._last = digest, reply
            return reply

    def _answered(self, message: bytes) -> bytes:
        """The answer, sealed; it stands in the egress log when this returns, or nothing is returned."""
        self._leaving = []
        try:
            asked = open_envelope(message, self.coordinator, COORDINATOR, self.name, self.federation)
            answer = self._considered(asked, len(message))
        except PeerError as error:
            self.notify(f"a message was refused: {error}")
            astray = Envelope("failed", "", COORDINATOR, self.name, self.federation, 0)
            answer = self._failed(astray, str(error))
        reply = answer.seal(self.identity)
        self._write_down(answer, reply)
        return reply

    def _considered(self, asked: Envelope, size: int) -> Envelope:
        try:
            if size > self.policy().max_message:
                raise PeerError(
                    f"{COORDINATOR}: a message of {size} bytes is over max_message_mb of this member's policy"
                )
            return self._dispatch(asked)
        except CoterieError as error:
            self.notify(f"{asked.job}: {asked.kind} failed: {error}")
            return self._failed(asked, told(error))
        except Exception as error:  # noqa: BLE001 - no message, however malformed, leaves the coordinator without a word
            _log.exception("%s: a message '%s' could not be answered", asked.job, asked.kind)
            self.notify(f"{asked.job}: {asked.kind} failed: {type(error).__name__}: {error}")
            return self._failed(asked, told(error))

    def _failed(self, asked: Envelope, reason: str) -> Envelope:
        self._leaving = [Leaving("failed", "why this organisation could not answer")]
        return asked.answer("failed", {"reason": reason})

    def _write_down(self, answer: Envelope, reply: bytes) -> None:
        held = self._leaving or [Leaving(answer.kind, "that this organisation could not do what was asked")]
        costs = [one.epsilon for one in held if one.epsilon is not None]
        self.egress.append(
            answer.job or None,
            next((one.round for one in held if one.round is not None), None),
            "-and-".join(dict.fromkeys(one.kind for one in held)),
            len(reply),
            hashlib.sha256(reply).hexdigest(),
            "; ".join(one.contains for one in held),
            any(one.masked for one in held),
            sum(costs) if costs else None,
            vault=self.vault.changes,
        )

    def _dispatch(self, asked: Envelope) -> Envelope:
        match asked.kind:
            case "offer":
                return self._offer(asked)
            case "end":
                return self._end(asked)
            case "agree":
                return self._agree(asked, self._allowed(self._taken(asked.job)))
            case "begin":
                return self._begin(asked, self._allowed(self._taken(asked.job)))
            case "round":
                return self._round(asked, self._allowed(self._taken(asked.job)))
            case "result":
                return self._result(asked, self._taken(asked.job))
        raise PeerError(f"{COORDINATOR}: sent a message of the unknown kind '{asked.kind[:40]}'")

    # --- the offer --------------------------------------------------------------------------------------------------

    def _offer(self, asked: Envelope) -> Envelope:
        """Check a job against the policy; what is accepted is kept, so that a restart does not forget it."""
        job = read_job(asked.header.get("job"), self.coordinator)
        roster = Roster.open(bytes(asked.blobs.get("roster", b"")), self.coordinator)
        occurrence = asked.header.get("occurrence")
        self.policy().approvals.note_job(job.id, hashlib.sha256(canonical(asked.header["job"])).hexdigest())
        found = self._objections(job, roster, occurrence, asked.job)
        if not found.never and not set(self.versions) & set(asked.header.get("versions") or ()):
            found = Objections((f"it speaks versions {list(self.versions)} of the protocol alone; upgrade the older",))
        found = found or self._unlisted(job)
        if found:
            kind, reasons = ("refused", found.never) if found.never else ("waiting", found.now)
            self._waiting[asked.job] = (job, kind, reasons)
            self.notify(f"{asked.job}: {kind}: {'; '.join(reasons)}")
            return self._left(asked, kind, {"reasons": list(reasons)}, "why this organisation does not take part")
        self._waiting.pop(asked.job, None)
        self.policy().approvals.note_roster(roster)
        record = {"job": dict(asked.header["job"]), "roster": bytes(asked.blobs["roster"]).decode(), "of": occurrence}
        known = self.vault.record(f"job/{asked.job}")
        if known is None or {key: known[key] for key in record} != record:
            at = int(self.clock().timestamp())
            self.vault.put_record(f"job/{asked.job}", {**record, "accepted": at, "agreed": False})
            self.vault.put_record(f"last/{job.id}", {"occurrence": occurrence, "at": at})
        self._taken(asked.job)
        self._forget(asked.job, job.id)
        self.notify(f"{asked.job}: accepted: {job.kind} with {len(job.members)} members")
        return self._left(asked, "accepted", {"versions": list(self.versions)}, "that this organisation takes part")

    def _unlisted(self, job: Job) -> Objections:
        """A plan with noise needs an assortment that does not come from the log: said at once, not in the middle."""
        try:
            self.desk.assortment(private=job.whole_plan.private)
        except PlanError as error:
            return Objections(now=(str(error),))
        return Objections()

    def _objections(self, job: Job, roster: Roster, occurrence: Any, name: str, users: int | None = None) -> Objections:
        """Why the job is not taken up, now or at all; `users` of its own the member has, where they were counted."""
        if not isinstance(occurrence, int) or not 0 <= occurrence < job.times or name != job.name_of(occurrence):
            return Objections((f"occurrence {occurrence} is none of the {job.times} of this job",))
        last = self.vault.record(f"last/{job.id}")
        own = Self(self.name, self.identity.public, self.desk.own_users if users is None else users)
        return objections(job, roster, occurrence, last, self.policy(), own, self.clock())

    def _new(self, job: Job, name: str, roster: Roster) -> Taken:
        """A job with its rounds, before anything is agreed. Only pinned identities may be in its sums."""
        pinned = {**self.policy().pinned, self.name: fingerprint(self.identity.public)}
        members = {one.name: one for one in roster.members if one.name in job.members}
        enrolled = {one.public for one in members.values() if pinned.get(one.name) == one.fingerprint}

        rounds = NodeRounds(name, job, self.identity, self.coordinator, frozenset(enrolled), self.vault, self._leave)
        return Taken(job, name, roster, rounds, self.desk.own_users)

    def _taken(self, name: str) -> Taken:
        """An accepted job; after a restart it is read back, with the items that were agreed."""
        if name in self._jobs:
            return self._jobs[name]
        record = self.vault.record(f"job/{name}")
        if record is None:
            raise PeerError(f"{name}: was not offered to this member, or is over; offer it again")
        roster = Roster.open(record["roster"].encode(), self.coordinator)
        taken = self._new(read_job(record["job"], self.coordinator), name, roster)
        taken.statement = record["job"]
        if (packed := self.vault.get(f"agreed/{name}")) is not None:
            blobs = {key: bytes.fromhex(blob) for key, blob in json.loads(packed).items()}
            self._open(taken, Agreed.from_blobs(blobs), final=record["agreed"], again=True)
        self._jobs[name] = taken
        return taken

    def _forget(self, name: str, id: str) -> None:
        """Let go of jobs whose coordinator never said that they ended: expired, or come again as `name`."""
        now = self.clock().timestamp()
        for other, one in list(self._jobs.items()):
            if other != name and (one.job.id == id or one.job.expires < now):
                self._jobs.pop(other).close()
        for other in [other for other, (job, _, _) in self._waiting.items() if job.expires < now or job.id == id]:
            del self._waiting[other]
        while len(self._waiting) > MOST_WAITING:
            del self._waiting[next(iter(self._waiting))]

    def _allowed(self, taken: Taken) -> Taken:
        """The same, if nothing that was decided or has happened since it was accepted stands against it."""
        occurrence = int(taken.name.rpartition(".")[2])
        if found := self._objections(taken.job, taken.roster, occurrence, taken.name, taken.users):
            raise PeerError(f"{taken.name}: is refused now: {'; '.join([*found.never, *found.now])}")
        return taken

    # --- items ------------------------------------------------------------------------------------------------------

    def _agree(self, asked: Envelope, taken: Taken) -> Envelope:
        stage, request = asked.header.get("stage"), asked.header.get("request")
        if not isinstance(stage, int) or not isinstance(request, dict):
            raise PeerError(f"{COORDINATOR}: sent a stage of the agreement on items that is none")
        agreement = self._agreement(taken)
        reply, blobs = agreement.answer(stage, request, {k: bytes(v) for k, v in asked.blobs.items()})
        self.vault.put(f"agreement/{taken.name}", agreement.kept)
        contains = {
            "union": "item ids and texts of this organisation's assortment",
            "hashed": "keyed hashes of this organisation's assortment, or keys for them",
            "given": "that the list of items was received",
        }[taken.job.catalogue]
        return self._left(asked, "agree", {"reply": reply}, contains, blobs)

    def _agreement(self, taken: Taken) -> NodeAgreement:
        if taken.agreement is None:
            job, policy = taken.job, self.policy()
            taken.agreement = NodeAgreement(
                self.desk.assortment(private=job.whole_plan.private),
                self.identity,
                {one.name: one.public for one in taken.roster.members if one.name in job.members},
                mode=job.catalogue,
                min_carriers=job.min_carriers,
                job=taken.name,
                private=job.whole_plan.private,
                two_party=policy.two_party == "consent",
            )
            if (kept := self.vault.get(f"agreement/{taken.name}")) is not None:
                taken.agreement.restore(kept)
        return taken.agreement

    def _begin(self, asked: Envelope, taken: Taken) -> Envelope:
        """Align the own log with what was agreed, and set aside what the job will cost."""
        agreed, final = (
            Agreed.from_blobs({k: bytes(v) for k, v in asked.blobs.items()}),
            asked.header.get("final") is True,
        )
        if taken.agreed is not None and taken.agreed.digest != agreed.digest:
            raise PeerError(f"{COORDINATOR}: sent other items than it had sent for this job before")
        check_agreed(taken.job, agreed, final=final)
        if taken.work is None or not final:
            self._open(taken, agreed, final=final)
        # What is agreed comes first: where the record says that it is final, it is there.
        packed = json.dumps({name: blob.hex() for name, blob in agreed.to_blobs().items()}).encode()
        self.vault.put(f"agreed/{taken.name}", packed)
        if final:
            record = self.vault.record(f"job/{taken.name}") or {}
            self.vault.put_record(f"job/{taken.name}", {**record, "agreed": True})
        return self._left(asked, "begun", {}, "that this organisation is ready")

    def _open(self, taken: Taken, agreed: Agreed, *, final: bool, again: bool = False) -> None:
        """Align the own log; what the rounds will cost is set aside at once, but `again` only round by round."""
        job, alike = taken.job, grounds(taken.statement, agreed.digest)
        alignment = self._agreement(taken).align(agreed)
        if not final:
            self.vault.put(f"agreement/{taken.name}", self._agreement(taken).kept)
            start, carried = state_digest(Carriers().start(len(agreed.items))), Carried(alignment.assortment())
            taken.rounds.sums["carriers"] = Sum(Carriers(), job.counting_plan, start, carried, alike=alike)
            return
        facts = facts_of(job, agreed)
        work = self.desk.open(facts, alignment)
        check_covered(work.coverage.get("users", 1.0), taken.users, self.policy().min_own_users)
        books = self.books(taken.name, job.whole_plan, job.kind)
        model, opening = facts.build(), facts.opening()
        if books is not None and not again:
            set_aside(books, job, model, opening)
        taken.agreed, taken.work = agreed, work
        start = state_digest(opening)
        taken.rounds.sums = {"model": Sum(model, job.training_plan, start, work, books, alike, opening)}
        covered = ", ".join(f"{share:.0%} of its {what}" for what, share in work.coverage.items())
        self.notify(f"{taken.name}: {len(agreed.items):,} items were agreed; they cover {covered}")

    # --- rounds and result ------------------------------------------------------------------------------------------

    def _round(self, asked: Envelope, taken: Taken) -> Envelope:
        errors, answers = taken.rounds.answer(asked.header, asked.blobs)
        for error in filter(None, errors):
            self.notify(f"{taken.name}: {error}")
        return asked.answer("round", {"tasks": errors}, answers)

    def _result(self, asked: Envelope, taken: Taken) -> Envelope:
        """Check the signed model, measure it at home, keep what is better."""
        if taken.work is None:
            raise PeerError(
                f"{taken.name}: has not begun at this member, so there is nothing to compare its model with"
            )
        taken.rounds.settle(asked.header.get("done"))
        folder = self.runs / taken.name
        joint = received(folder, asked.blobs, self.federation, taken.rounds.sums["model"])
        state = load_state(joint / "model.safetensors")
        model = facts_of(taken.job, taken.agreed).build() if taken.agreed is not None else taken.job.build()
        own = folder / "own"
        if own.exists():
            shutil.rmtree(own)
        if taken.job.evaluate:
            facts = {"job": taken.name, "scope": "federation"}  # of the coordinator's own words nothing is signed here
            counted = is_in(asked.header.get("done"), state.round - 1)
            taken.result = taken.work.evaluate(model, state, own, in_sum=counted, facts=facts)
            self.vault.put_record("gain", {"job": taken.name, "sentence": taken.result.sentence})
            self.notify(f"{taken.name}: {taken.result.sentence}")
            add_reports(taken, state)
        return self._left(asked, "kept", {}, "that the model arrived and its signature holds")

    def _end(self, asked: Envelope) -> Envelope:
        self._waiting.pop(asked.job, None)
        if (taken := self._jobs.pop(asked.job, None)) is not None:
            taken.close()
        if not self._jobs:
            self.desk.close()
        state, reason = str(asked.header.get("state", ""))[:40], str(asked.header.get("reason", ""))[:500]
        self.notify(f"{asked.job}: {state}{f': {reason}' if reason else ''}")
        return self._left(asked, "ended", {}, "that the end was heard")

    def _left(
        self,
        asked: Envelope,
        kind: str,
        header: Mapping[str, Any],
        contains: str,
        blobs: Mapping[str, bytes] | None = None,
    ) -> Envelope:
        """An answer, and what it holds in words."""
        self._leave(Leaving(kind, contains))
        return asked.answer(kind, header, blobs or {})

    def _leave(self, what: Leaving) -> None:
        self._leaving.append(what)
