"""The coordinator's daemon: it enrols members, offers jobs when they are due, conducts them, and says what it does.

One process of ours; Flower's run beneath it (`coterie.engines.flower`). What must not be forgotten is in the database
and in the jobs' folders, so that a daemon that was killed goes on where it was.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coterie.data.catalogue import Catalogue
from coterie.data.sidefiles import read_items
from coterie.engines.flower.network import CoordinatorNet, Limits, TlsFiles
from coterie.errors import ConfigError, CoterieError, PeerError
from coterie.experiment.conductor import Conductor
from coterie.experiment.coordinator_status import members_now, server_files, standing
from coterie.federation import enrolment
from coterie.federation.certificate import check_certificate
from coterie.federation.config import FederationConfig
from coterie.federation.filelock import locked
from coterie.federation.identity import Identities
from coterie.federation.job import DAY, Job, read_job, sign_job
from coterie.federation.jobsettings import JobSettings
from coterie.federation.journal import OPEN, FederationJournal, JobRecord, JobState
from coterie.federation.leaving import read_leaving
from coterie.federation.link import LinkServer
from coterie.federation.members import Members
from coterie.federation.policy import MIB
from coterie.federation.progress import Progress
from coterie.federation.roster import Roster
from coterie.federation.tables import APPROVED, PENDING
from coterie.federation.talk import Talk
from coterie.files import sha256_of
from coterie.report.federation_metrics import serve_metrics
from coterie.settings import DataSettings
from coterie.storage import Storage

SOCKET = Path("run") / "control.sock"
PAUSE = 0.5  # seconds between looks at what is due
UP_WITHIN = 90.0  # seconds for Flower's processes to come up
FEWEST = 2  # members of a job
LIFE_DAYS = 30  # how long a job may be run after it was signed, beyond its last recurrence
PATHS = ("/coterie/v1/enrol", "/coterie/v1/leave", "/coterie/v1/roster")
_VARYING = ("id", "created", "expires")  # what differs between two signatures of one wish
_OF_ROSTER = ("roster_sha256", "members", "min_nodes")  # what differs where members came or went

_log = logging.getLogger(__name__)


def quietly(text: str) -> None:
    """The listener of a daemon that nobody watches."""


@dataclass
class Coordinator:
    """The daemon in the folder of `file` (``federation.toml``).

    `wanted` names jobs to start besides those that start by themselves; with `once` it ends when no job is left to do.
    """

    file: Path
    wanted: Sequence[str] = ()
    once: bool = False
    notify: Callable[[str], None] = quietly
    progress: Progress = field(default_factory=Progress)
    since: float = field(default_factory=time.time)
    _stop: threading.Event = field(default_factory=threading.Event)
    _stopped_jobs: set[str] = field(default_factory=set)
    _failed: list[str] = field(default_factory=list)
    _last_error: str = ""

    def __post_init__(self) -> None:
        self.folder = self.file.resolve().parent
        self.config = FederationConfig.load(self.file)
        self.identities = Identities.open(self.folder)
        storage = Storage.open(self.config.federation.database, "federation")
        self.members = Members(storage, self.identities.fingerprint)
        self.journal = FederationJournal(storage)
        self._asked = list(self.wanted)
        for name in self.wanted:
            self._settings(name)

    def run(self) -> bool:
        """Serve until it is stopped; with `once` until nothing is left to do, and then whether no job failed.

        Raises:
            CoterieError: it cannot start: the certificate, the port, another daemon in the folder, Flower.
        """
        files = server_files(self.folder, self.config)
        facts = check_certificate(files, self.config.federation.host)
        self.notify(f"certificate of {self.config.federation.address}: {facts.days_left} days left")
        settings = self.config.federation
        self.net = CoordinatorNet(
            self.folder / "flower",
            settings.listen,
            TlsFiles(files.certificate, files.key),
            self.folder / "flower" / "superlink.sqlite",
            self._request,
            Limits(settings.requests_per_minute, settings.max_message_mb * MIB),
        )
        alone = locked(self.folder / "daemon.lock", "this coordinator's folder", 0.0)
        with alone, LinkServer(self.folder / SOCKET, self._control), self._metrics():
            self.net.start()
            try:
                self.net.ready(UP_WITHIN)
                self.notify(f"serving {settings.name} at {settings.address}; fingerprint {self.identities.fingerprint}")
                threading.Thread(target=self._keep_members, name="members", daemon=True).start()
                self._work()
            finally:
                self._stop.set()
                self.net.stop()
        return not (self.once and self._failed)

    @contextmanager
    def _metrics(self) -> Iterator[None]:
        """Serve Prometheus metrics on this machine, where the configuration names a port for them."""
        if (port := self.config.federation.metrics_port) is None:
            yield
            return
        stop = serve_metrics(self.status, "127.0.0.1", port)
        try:
            yield
        finally:
            stop()

    def stop(self) -> None:
        """Stop soon; a job that is under way goes on at the next start."""
        self._stop.set()

    # --- jobs -------------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while not self._stop.is_set():
            record = self._next()
            if record is not None:
                self._conduct(record)
            elif self.once and not self._pending():
                return
            else:
                self._stop.wait(PAUSE)

    def _pending(self) -> bool:
        """Whether something is to come that `once` waits for."""
        by_themselves = {name: job for name, job in self.config.jobs.items() if job.start == "ready"}
        return bool(self._asked) or any(self._due(name, job, now=None) for name, job in by_themselves.items())

    def _next(self) -> JobRecord | None:
        """A job that was begun, else one that somebody asked for, else one that is due by itself."""
        for record in self.journal.all():
            if record.state in OPEN:
                return record
        for name in [name for name in self._asked if self._enough(self._settings(name))]:
            self._asked.remove(name)
            return self._new(name, self._settings(name), occurrence=0, again=None)
        for name, settings in self.config.jobs.items():
            if (due := self._due(name, settings, time.time())) is not None and self._enough(settings):
                return self._new(name, settings, *due)
        return None

    def _due(self, name: str, settings: JobSettings, now: float | None) -> tuple[int, JobRecord | None] | None:
        """The occurrence that is due, and of which signed job (None: a new one); `now` None: at whatever time."""
        past = [record for record in self.journal.all() if record.name == name]
        if not past:
            return (0, None) if settings.start == "ready" else None
        last = past[-1]
        if not self._same(last, settings, _VARYING + _OF_ROSTER):
            return (0, None) if settings.start == "ready" else None
        if last.state == "stopped" or last.occurrence + 1 >= settings.times or settings.every_days is None:
            return None
        if now is not None and now < (last.started_at or last.created_at) / 1e6 + settings.every_days * DAY:
            return None
        # Members that came or went make another job of it, at its own time: nobody's leaving trains all anew.
        return (last.occurrence + 1, last) if self._same(last, settings, _VARYING) else (0, None)

    def _enough(self, settings: JobSettings) -> bool:
        """Whether as many approved members are connected as the job waits for."""
        online = set(self.net.online()) & set(self.members.roster().names)
        if len(online) >= settings.min_nodes:
            return True
        missing = sorted(set(self.members.roster().names) - online)
        self.progress.phase(f"waiting for {settings.min_nodes} members to connect ({len(online)} are)", missing)
        return False

    def _new(self, name: str, settings: JobSettings, occurrence: int, again: JobRecord | None) -> JobRecord:
        """Sign a job, or take up the next occurrence of one that was signed, and record it."""
        if again is not None:
            id, statement = f"{again.id.rpartition('.')[0]}.{occurrence}", again.spec
        else:
            job = self._job(name, settings)
            id, statement = job.name_of(occurrence), sign_job(job, self.identities.identity)
        return self.journal.add(id, name, statement, str(self.folder / "runs" / id))

    def _job(self, name: str, settings: JobSettings) -> Job:
        roster, now = self.members.roster(), int(time.time())
        content = settings.model_dump(exclude={"start", "items"}, mode="json")
        days = (settings.every_days or 0) * settings.times + LIFE_DAYS
        return Job.model_validate({
            **content,
            "id": f"{name}-{secrets.token_hex(4)}",
            "federation": self.identities.fingerprint,
            "given_sha256": None if settings.items is None else sha256_of(Path(settings.items)),
            "roster_sha256": roster.digest,
            "members": roster.names,
            "min_nodes": min(settings.min_nodes, max(len(roster), 2)),
            "created": now,
            "expires": now + int(days * DAY),
        })  # fmt: skip

    def _same(self, record: JobRecord, settings: JobSettings, but: tuple[str, ...]) -> bool:
        """Whether a signed job says what settings and roster say now, `but` for some keys; none is for one member."""
        if len(self.members.roster()) < FEWEST:
            return True
        wanted = self._job(record.name, settings).model_dump(mode="json")
        try:
            signed = read_job(record.spec, self.identities.public).model_dump(mode="json")
        except PeerError:
            return False  # of another release, or another identity's
        return all(wanted[key] == signed[key] for key in wanted if key not in but)

    def _conduct(self, record: JobRecord) -> None:
        try:
            conductor = self._conductor(record, read_job(record.spec, self.identities.public))
        except CoterieError as error:
            self._note_failed(record.id, "failed", str(error))
            return
        self.journal.become(record.id, "running")
        self.notify(f"{record.id}: {'goes on' if record.state == 'running' else 'begins'}")
        try:
            run = conductor.conduct()
        except CoterieError as error:
            if self._stop.is_set():
                return  # it is still running: the next start takes it up
            state: JobState = "stopped" if record.id in self._stopped_jobs else "failed"
            self._note_failed(record.id, state, str(error))
            conductor.end(state, str(error))
            return
        except Exception as error:  # noqa: BLE001 - whatever a member made of our fault, the jobs of others go on
            _log.exception("%s: failed", record.id)
            self._note_failed(record.id, "failed", f"{type(error).__name__}: {error}; the log has more")
            conductor.end("failed", "a fault at the coordinator")
            return
        self.journal.become(record.id, "done")
        conductor.end("done")
        self.notify(f"{record.id}: done: {run.path}")

    def _note_failed(self, id: str, state: JobState, reason: str) -> None:
        self._failed.append(id)
        self._last_error = reason
        self.journal.become(id, state, reason)
        self.notify(f"{id}: {state}: {reason}")

    def _stop_job(self, id: str) -> None:
        """Stop a job that runs or waits; of one that comes again, the next occurrence is over before it begins."""
        record = self.journal.job(id)
        self._stopped_jobs.add(id)
        settings = self.config.jobs.get(record.name)
        if record.state in OPEN or settings is None or (due := self._due(record.name, settings, now=None)) is None:
            return
        if due[1] is not None and due[1].id == id:
            following = self._new(record.name, settings, *due)
            self.journal.become(following.id, "stopped", "stopped by the coordinator's operator before it began")

    def _conductor(self, record: JobRecord, job: Job) -> Conductor:
        roster = self.members.roster(job.roster_sha256)
        publics = roster.publics
        talk = Talk(
            self.net.transport(),
            self.identities.identity,
            self.identities.fingerprint,
            record.id,
            {name: publics[name] for name in job.members},
            self.progress,
            stopping=lambda: self._stop.is_set() or record.id in self._stopped_jobs,
        )
        return Conductor(
            job,
            record.spec,
            record.occurrence,
            roster.seal(self.identities.identity),
            talk,
            self.journal,
            Path(record.folder),
            self._given(record.name, job),
        )

    def _given(self, name: str, job: Job) -> Catalogue | None:
        """The list of items of a job with a given catalogue: the file that was signed for, and no other."""
        settings = self.config.jobs.get(name)
        if job.catalogue != "given" or settings is None or settings.items is None:
            return None
        if sha256_of(Path(settings.items)) != job.given_sha256:
            raise ConfigError(f"{settings.items}: changed since job '{job.id}' was signed; put it back, or start anew")
        return Catalogue.listed(read_items(settings.items, {}, DataSettings(), []))

    def _settings(self, name: str) -> JobSettings:
        if name not in self.config.jobs:
            known = ", ".join(self.config.jobs) or "none"
            raise ConfigError(f"{self.file} has no [jobs.{name}]; it has: {known}")
        return self.config.jobs[name]

    # --- members ----------------------------------------------------------------------------------------------------

    def _keep_members(self) -> None:
        """Let approved members connect, and revoked ones no more, as soon as somebody has decided."""
        known: Roster | None = None
        while not self._stop.wait(PAUSE):
            try:
                roster = self.members.roster()
                if known is None or roster.digest != known.digest:
                    self._admit(roster)
                    known = roster
                self.progress.online(self.net.online())
            except CoterieError as error:
                self._last_error = str(error)

    def _admit(self, roster: Roster) -> None:
        for one in roster.members:
            self.net.register(one.name, one.transport)
        for record in self.members.members():
            if record.state not in (APPROVED, PENDING) and record.name not in roster.names:
                self.net.unregister(record.name)

    def _request(self, path: str, body: bytes) -> bytes:
        """What nodes ask over HTTPS outside of Flower."""
        identity, own = self.identities.identity, self.identities.fingerprint
        if path == PATHS[2]:
            return self.members.roster().seal(identity)
        try:
            if path == PATHS[1]:
                name = read_leaving(body, own, self.members.roster())
                self.members.revoke(name, "left")
                self.progress.event(f"{name} left")
                return enrolment.answer(name, "revoked", identity)
            asked = enrolment.Enrolment.read(body, own)
            standing = self.members.enrol(asked)
            self.progress.event(f"{asked.name} asks to join: fingerprint {asked.fingerprint}")
            self.notify(f"{asked.name} ({asked.fingerprint}) is {standing}")
            return enrolment.answer(asked.name, standing, identity)
        except (PeerError, ConfigError) as error:
            self.progress.event(f"an enrolment was refused: {error}")
            return enrolment.refusal(str(error), identity)

    # --- control ----------------------------------------------------------------------------------------------------

    def _control(self, message: bytes) -> bytes:
        """What `coterie coordinator` asks on this machine."""
        asked = json.loads(message)
        match asked.get("do"):
            case "status":
                return json.dumps(self.status()).encode()
            case "stop":
                self.stop()
            case "stop-job":
                self._stop_job(asked["job"])
            case "start-job":
                self._settings(asked["job"])
                self._asked.append(asked["job"])
            case other:
                raise ConfigError(f"the daemon does not know '{other}'; is it of the same version?")
        return b"{}"

    def status(self) -> dict[str, Any]:
        """Everything that operators may see."""
        return {
            **standing(self.config, self.identities, self.members, self.journal),
            "running": True,
            "since": self.since,
            "pid": os.getpid(),
            "progress": self.progress.snapshot(),
            "members": members_now(self.members, self.progress, self.net.troubles()),
            "children": self.net.children(),
            "last_error": self._last_error,
        }
