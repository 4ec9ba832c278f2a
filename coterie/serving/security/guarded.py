"""What these layers need of a deployment, and nothing else of it."""

from __future__ import annotations

from typing import Protocol

from coterie.serving.config import ServeConfig
from coterie.serving.security.keys import Keyring


class Secretive(Protocol):
    """A store with a secret of its own: 32 random bytes that every process of the deployment shares."""

    @property
    def secret(self) -> bytes: ...


class Counting(Protocol):
    """Metrics. `route` is a template, `reason` one of `refusals.REASONS`."""

    def request(self, route: str, method: str, status: int, seconds: float) -> None: ...

    def refused(self, reason: str) -> None: ...


class Guarded(Protocol):
    """A deployment."""

    @property
    def config(self) -> ServeConfig: ...

    @property
    def store(self) -> Secretive: ...

    @property
    def metrics(self) -> Counting: ...

    @property
    def keys(self) -> Keyring: ...

    @property
    def open_access(self) -> bool: ...
