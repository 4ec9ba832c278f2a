"""Which runs answer: the champion, a challenger on a share of the traffic, and how new ones are taken in.

What answers is one immutable `Lineup`, replaced as a whole: a question sees the old one or the new one, and whoever
still works with an old model keeps it alive until then. New runs are read in a thread of their own; a run that cannot
be served leaves in place what answers, and is tried again.
"""

from __future__ import annotations

import hmac
import logging
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coterie.errors import ConfigError, CoterieError, DataError, RunError
from coterie.serving.acceptance import Candidate, accept, not_older
from coterie.serving.config import ModelSettings
from coterie.serving.tokens import Arm
from coterie.serving.words import Rollout, Version

if TYPE_CHECKING:
    from coterie.experiment.run import Run
    from coterie.serving.served import ServedModel
    from coterie.serving.store import ServingStore

RETRY = 10.0  # seconds after which a version that could not be served is tried again
_BITS = 53

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Lineup:
    """What answers, and to which share of the traffic the challenger does; `rollout` is what it was made from."""

    champion: ServedModel
    challenger: ServedModel | None
    rollout: Rollout

    def loaded(self) -> dict[int, ServedModel]:
        """The models by version."""
        return {one.version.id: one for one in (self.champion, self.challenger) if one is not None}


@dataclass(frozen=True)
class Failure:
    """A version that could not be served, why, and when that was (microseconds)."""

    version: int | None
    reason: str
    at: int = field(default_factory=lambda: time.time_ns() // 1000)


@dataclass(frozen=True)
class Registered:
    """A version, the folder that it is in, and its run where that was opened on the way."""

    version: Version
    candidate: Candidate
    run: Run | None


class Versions:
    """The served versions of one process. `open` comes first; `follow` takes in what others changed in the store.

    `prepare` is called with each new model before it answers its first question (to warm up what depends on it).
    """

    def __init__(
        self,
        store: ServingStore,
        settings: ModelSettings,
        prepare: Callable[[ServedModel], None] = lambda _: None,
    ) -> None:
        self.prepare = prepare
        self._store, self._settings = store, settings
        self._secret = store.secret
        self._lineup: Lineup | None = None
        self._signers: dict[int, str | None] = {}
        self._loading: int | None = None
        self._failure: Failure | None = None
        self._opened: Registered | None = None
        self._asked, self._done, self._closed = 0, 0, False
        self._turn, self._taking = threading.Condition(), threading.Lock()
        self._thread: threading.Thread | None = None

    # --- what answers -----------------------------------------------------------------------------------------------

    def current(self) -> ServedModel:
        """The champion.

        Raises:
            RunError: nothing is loaded.
        """
        return self._serving().champion

    def choose(self, unit: str | None) -> tuple[ServedModel, Arm]:
        """Who answers this question.

        A `unit` (a user) stays with one arm as long as the challenger does, also when its share grows; a question
        without one is dealt by chance.
        """
        lineup = self._serving()
        if lineup.challenger is None:
            return lineup.champion, "champion"
        point = _chance() if unit is None else _point(self._secret, lineup.challenger.version.id, unit)
        if point < lineup.rollout.share:
            return lineup.challenger, "challenger"
        return lineup.champion, "champion"

    def all_loaded(self) -> list[tuple[ServedModel, float]]:
        """Every model that answers, the champion first, with its share of the traffic."""
        lineup = self._serving()
        if lineup.challenger is None:
            return [(lineup.champion, 1.0)]
        share = lineup.rollout.share
        return [(lineup.champion, 1.0 - share), (lineup.challenger, share)]

    def signer(self, version: int) -> str | None:
        """The fingerprint of the key that signed a loaded version; None where no signature holds."""
        return self._signers.get(version)

    def status(self) -> dict[str, Any]:
        """What answers, what is being loaded, and what could not be (None where all is well)."""
        lineup, failure = self._lineup, self._failure
        return {
            "champion": None if lineup is None else lineup.champion.version.id,
            "challenger": None if lineup is None or lineup.challenger is None else lineup.challenger.version.id,
            "share": 0.0 if lineup is None or lineup.challenger is None else lineup.rollout.share,
            "previous": None if lineup is None else lineup.rollout.previous,
            "loading": self._loading,
            "failed": None
            if failure is None
            else {"version": failure.version, "reason": failure.reason, "at": failure.at},
        }

    # --- taking in --------------------------------------------------------------------------------------------------

    def open(self, run: str | Path | None = None) -> None:
        """Load what the store says; a `run` that it does not know yet becomes the champion first.

        A run that it knows changes nothing: after a roll-back or a swap, a restart goes on with what answered before.

        Raises:
            ConfigError: there is neither a run nor a champion in the store.
            RunError: the run, or the champion, is missing, damaged, or refused (see `acceptance`).
        """
        if run is not None:
            self._opened = register(self._store, self._settings, run)
        rollout = self._store.rollout()
        if rollout is None:
            raise ConfigError(
                "there is nothing to serve in this store yet; name a run, as in: coterie serve runs/first"
            )
        self._failure = self._take_in(rollout)
        self._opened = None
        if self._lineup is None:
            failure = self._failure
            raise RunError("no version could be loaded" if failure is None else failure.reason)
        with self._turn:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="versions", daemon=True)
                self._thread.start()

    def follow(self) -> None:
        """Take in what the store says now; returns at once, and what is new answers when it is loaded."""
        with self._turn:
            self._asked += 1
            self._turn.notify_all()

    def wait(self, timeout: float) -> bool:
        """Wait until what `follow` was asked for so far is done (or has failed): whether it is, within `timeout` s."""
        with self._turn:
            asked = self._asked
            return self._turn.wait_for(lambda: self._done >= asked, timeout)

    def close(self) -> None:
        """Stop following; what is loaded goes on answering."""
        with self._turn:
            self._closed = True
            self._turn.notify_all()
        if self._thread is not None:
            self._thread.join()

    def _work(self) -> None:
        while True:
            with self._turn:
                self._turn.wait_for(
                    lambda: self._closed or self._done < self._asked, None if self._failure is None else RETRY
                )
                if self._closed:
                    return
                asked = self._asked
            self._failure = self._followed()
            with self._turn:
                self._done = asked
                self._turn.notify_all()

    def _followed(self) -> Failure | None:
        try:
            rollout = self._store.rollout()
            return None if rollout is None else self._take_in(rollout)
        except Exception as error:  # noqa: BLE001 - a store that is away for a while ends nothing
            return self._failed(None, error)

    def _take_in(self, rollout: Rollout) -> Failure | None:
        """Let the versions of `rollout` answer: the whole of it, or as much as can be loaded."""
        with self._taking:
            there = {} if self._lineup is None else self._lineup.loaded()
            champion = self._loaded(rollout.champion, there)
            if isinstance(champion, Failure):
                return champion
            challenger = None if rollout.challenger is None else self._loaded(rollout.challenger, there)
            failure = challenger if isinstance(challenger, Failure) else None
            found = None if isinstance(challenger, Failure) else challenger
            self._lineup = Lineup(champion, found, rollout)
            self._signers = {id: self._signers.get(id) for id in self._lineup.loaded()}
            return failure

    def _loaded(self, id: int, there: dict[int, ServedModel]) -> ServedModel | Failure:
        """The model of a version, as it is loaded already or else from its folder."""
        if id in there:
            return there[id]
        self._loading = id
        try:
            served = self._load(version_of(self._store, id))
            self.prepare(served)
        except Exception as error:  # noqa: BLE001 - whatever a folder holds, what answers goes on answering
            return self._failed(id, error)
        finally:
            self._loading = None
        return served

    def _load(self, version: Version) -> ServedModel:
        from coterie.serving.served import ServedModel

        known = self._opened
        if known is not None and known.version.id == version.id and known.run is not None:
            candidate, run = known.candidate, known.run
        else:
            candidate = accept(version.run, self._settings)
            run = None
        if candidate.fingerprint != version.fingerprint:
            raise RunError(
                f"{version.run}: is another run than the one that became version {version.id}; to serve what is there "
                f"now: coterie rollout swap {version.run}"
            )
        served = ServedModel.of(candidate.open() if run is None else run, version)
        self._signers[version.id] = candidate.signer
        return served

    def _failed(self, version: int | None, error: Exception) -> Failure:
        told = str(error) if isinstance(error, CoterieError) else f"unexpected {type(error).__name__}: {error}"
        before = self._failure
        if before is None or (before.version, before.reason) != (version, told):  # tried often, said once
            _log.warning("version %s is not served: %s", "unknown" if version is None else version, told)
        return Failure(version, told)

    def _serving(self) -> Lineup:
        lineup = self._lineup
        if lineup is None:
            raise RunError("no run is loaded yet; open one first")
        return lineup


def register(store: ServingStore, settings: ModelSettings, path: str | Path) -> Registered:
    """The version of a run, which becomes the champion if the store did not know it; the old champion is `previous`.

    Raises:
        RunError: the run is refused; nothing is written then.
    """
    candidate, rollout = accept(path, settings), store.rollout()
    version = None if rollout is None else known_version(store, candidate)
    if version is not None:
        return Registered(version, candidate, None)
    champion = None if rollout is None else version_of(store, rollout.champion)
    registered = add(store, not_older(candidate, champion, settings))
    if rollout is None or rollout.champion != registered.version.id:
        previous = None if rollout is None else rollout.champion
        store.set_rollout(Rollout(registered.version.id, previous=previous, changed_at=now()))
    return registered


def add(store: ServingStore, candidate: Candidate) -> Registered:
    """Write a candidate down as a version, once it has proved that it can be opened.

    Raises:
        RunError: it cannot.
    """
    run = candidate.open()
    version = store.add_version(
        str(candidate.path), candidate.fingerprint, candidate.model, candidate.signed_at, candidate.allowed
    )
    return Registered(version, candidate, run)


def known_version(store: ServingStore, candidate: Candidate) -> Version | None:
    """The version that a candidate is already; None where it is none."""
    found = (str(candidate.path), candidate.fingerprint)
    return next((one for one in store.versions() if (one.run, one.fingerprint) == found), None)


def version_of(store: ServingStore, id: int) -> Version:
    """A version by its number.

    Raises:
        DataError: the store has none of this number.
    """
    for version in store.versions():
        if version.id == id:
            return version
    raise DataError(f"this store knows no version {id}; `coterie rollout show` lists those that it knows")


def now() -> int:
    """The time in microseconds since 1970."""
    return time.time_ns() // 1000


def _point(secret: bytes, challenger: int, unit: str) -> float:
    """Where a unit stands in [0, 1): a keyed hash, which nobody can choose; another challenger deals anew."""
    digest = hmac.digest(secret, f"arm\0{challenger}\0{unit}".encode(errors="surrogatepass"), "sha256")
    return (int.from_bytes(digest[:8], "big") >> (64 - _BITS)) / 2**_BITS


def _chance() -> float:
    return secrets.randbits(_BITS) / 2**_BITS
