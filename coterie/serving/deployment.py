"""One deployment: its store, what is loaded, who may ask: all that routes and dashboard need, and nothing of HTTP."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from coterie.errors import CoterieError, ModelError
from coterie.serving import tokens
from coterie.serving.config import ServeConfig
from coterie.serving.engine import ServedModel, answer
from coterie.serving.live import LiveCatalogue
from coterie.serving.metrics import Metrics
from coterie.serving.private.noisy import noisy_answer
from coterie.serving.security.keys import Keyring
from coterie.serving.store import ServingStore
from coterie.serving.versions import Versions
from coterie.serving.words import Answer, Ask, Version

PRUNE_EVERY = 3600.0  # seconds between two enforcements of the retention limits

_log = logging.getLogger(__name__)


class Deployment:
    """What serves: opened on a store, following its changes on a thread of its own until `close`.

    Every process on the same store follows the others' changes within ``model.reload_seconds``.
    """

    def __init__(self, config: ServeConfig, store: ServingStore, versions: Versions, run_folder: Path) -> None:
        self.config, self.store, self.versions, self.run_folder = config, store, versions, run_folder
        self._seen = store.last_change()  # before anything is read: what changes meanwhile is read again
        self.keys = Keyring(store)
        self.metrics = Metrics()
        self.live = LiveCatalogue(store.items(), store.deleted_ids())
        for served, _ in versions.all_loaded():
            self._prepare(served)
        versions.prepare = self._prepare  # a model that comes later has its index before it answers
        self._applying = threading.Lock()
        self._random = random.SystemRandom()
        self._stopping = threading.Event()
        self._threads = [
            threading.Thread(target=self._every, args=args, name=name, daemon=True)
            for name, *args in (
                ("changes", config.model.reload_seconds, self.follow),
                ("retention", PRUNE_EVERY, self._prune),
            )
        ]

    @classmethod
    def open(cls, config: ServeConfig, run: Path | None = None) -> Deployment:
        """Open store and model; `run` becomes the champion if it is new, None serves what the store says.

        Raises:
            ConfigError: there is no run to serve, or it is refused.
            RunError: the run is missing, truncated, tampered with or not trusted.
            EnvironmentFault: the store cannot be reached or written.
        """
        store = ServingStore.open(config.store.address, config.people, config.store)
        try:
            versions = Versions(store, config.model)
            versions.open(run)
            served = Path(versions.current().version.run)
            return cls(config, store, versions, Path(config.model.runs or served.absolute().parent))
        except BaseException:
            store.close()
            raise

    def start(self) -> None:
        """Follow changes and enforce retention from now on."""
        self._prune()
        self.versions.follow()  # what changed between the opening of models and of this
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Stop following, and write what waits to be written."""
        self._stopping.set()
        for thread in self._threads:
            if thread.is_alive():
                thread.join()
        self.versions.close()
        self.store.close()

    @property
    def open_access(self) -> bool:
        """Whether everybody who can reach it may ask: on loopback, until the first key is made."""
        return self.keys.open_access(self.config)

    def not_ready(self) -> str | None:
        """Why it cannot answer now, in words that anybody may read; None where it can."""
        try:
            self.versions.current()
        except CoterieError:
            return "no model is loaded"
        try:
            self.store.last_change()
        except CoterieError as error:
            _log.warning("%s", error)
            return "the store cannot be used; the service's log says why"
        return None

    def ask(self, ask: Ask, *, user: str | None = None) -> tuple[Answer, Version, str]:
        """Answer a question: the answer, the version that gave it, and the id under which its effects are counted.

        Raises:
            ModelError, ConfigError: the question cannot be answered in this way.
        """
        settings = self.config.answers
        if ask.k > settings.max_k:
            raise ModelError(f"k may be {settings.max_k} at most here, got {ask.k}")
        served, arm = self.versions.choose(user)
        if settings.privacy == "noisy" and ask.kind != "popular":
            found = self._noisy(served, ask, user)
        else:
            found = answer(served, self.live, ask, rng=self._random, explore=settings.exploration)
        made = tokens.mint(self.store.secret, served.version.id, found.explored, arm)
        return found, served.version, made

    def _noisy(self, served: ServedModel, ask: Ask, user: str | None) -> Answer:
        """An answer drawn with noise, charged to the user; popular items once the user's budget is spent."""
        settings = self.config.answers
        since = time.time_ns() // 1000 - int(settings.epsilon_days * 86_400e6)
        if user is None or self.store.spend(
            self.store.hashed(user), settings.epsilon_per_answer, settings.epsilon_per_user, since
        ):
            return noisy_answer(served, self.live, ask, settings.epsilon_per_answer)
        popular = replace(ask, kind="popular", basket=(), history=(), explain=False, diversity=0.0)
        return replace(answer(served, self.live, popular), fallback="popularity")

    def items_changed(self, ids: Iterable[str]) -> None:
        """Answers heed these items as they stand in the store now, when this returns."""
        with self._applying:
            self._refresh(ids)

    def follow(self) -> None:
        """Take in what changed in the store since the last time, by whomever."""
        with self._applying:
            last = self.store.last_change()
            if last == self._seen:
                return
            changes = self.store.changes_since(self._seen)
            if changes is None:
                self.live.replace_all(self.store.items(), self.store.deleted_ids())
                kinds = {"rollout", "keys"}
            else:
                self._refresh(one.key for one in changes if one.kind == "item")
                kinds = {one.kind for one in changes}
                last = max((one.number for one in changes), default=last)
            if "keys" in kinds:
                self.keys.reload()
            if "rollout" in kinds:
                self.versions.follow()
            self._seen = last  # only now: where a step failed, all of it is tried again, so that no revocation is lost

    def _refresh(self, ids: Iterable[str]) -> None:
        changed = list(dict.fromkeys(ids))
        found = self.store.some_items(changed)
        self.live.update({id: found.get(id) for id in changed})

    def _prepare(self, served: ServedModel) -> None:
        self.live.index(served.items)

    def _prune(self) -> None:
        gone = self.store.prune(time.time_ns() // 1000)
        if any(gone.values()):
            _log.info("retention: %s", ", ".join(f"{rows} {kind}" for kind, rows in gone.items() if rows))

    def _every(self, seconds: float, what: Callable[[], Any]) -> None:
        failed = ""
        while not self._stopping.wait(seconds):
            try:
                what()
                failed = ""
            except CoterieError as error:  # the store may be away for a while: said once, and tried again
                if str(error) != failed:
                    _log.warning("%s", error)
                failed = str(error)
