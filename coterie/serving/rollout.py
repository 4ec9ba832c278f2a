"""Between two runs: a challenger on a share of the traffic, more of it, all of it, or back to what was before.

Everything here is a change of one row in the store; servers on that store follow within a second. A run that would be
refused is refused before anything is written.
"""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coterie.errors import ConfigError, RunError
from coterie.serving.acceptance import accept, not_older
from coterie.serving.config import ModelSettings
from coterie.serving.versions import add, known_version, now, version_of
from coterie.serving.words import Rollout, Version

if TYPE_CHECKING:
    from coterie.serving.store import ServingStore


def start(store: ServingStore, settings: ModelSettings, run: str | Path, share: float) -> Rollout:
    """Let a run answer `share` of the traffic, beside the champion.

    Raises:
        ConfigError: the share is not between 0 and 1, another challenger answers already, or there is no champion yet.
        RunError: the run is refused, or is the champion itself.
    """
    share, before = _share(share), _rollout(store)
    if before.challenger is not None:
        raise ConfigError(
            f"version {before.challenger} is the challenger already; `coterie rollout finish` or `coterie rollout back`"
        )
    version = _accepted(store, settings, run, before)
    return _set(store, replace(before, challenger=version.id, share=share))


def change_share(store: ServingStore, share: float) -> Rollout:
    """Give the challenger another share of the traffic; whoever it answered before, it still answers if that grows.

    Raises:
        ConfigError: the share is not between 0 and 1, or there is no challenger.
    """
    share, before = _share(share), _rollout(store)
    _challenger(before)
    return _set(store, replace(before, share=share))


def finish(store: ServingStore) -> Rollout:
    """The challenger becomes the champion and answers everything; the champion becomes what a roll-back returns to.

    Raises:
        ConfigError: there is no challenger.
    """
    before = _rollout(store)
    return _set(store, Rollout(_challenger(before), previous=before.champion))


def back(store: ServingStore) -> Rollout:
    """Drop the challenger; where there is none, the previous champion answers again.

    Raises:
        ConfigError: there is neither.
    """
    before = _rollout(store)
    if before.challenger is not None:
        return _set(store, replace(before, challenger=None, share=0.0))
    if before.previous is None:
        raise ConfigError(
            f"there is nothing to go back to: version {before.champion} has neither a challenger nor a predecessor; "
            "`coterie rollout swap RUN` serves another run"
        )
    return _set(store, Rollout(before.previous))


def swap(store: ServingStore, settings: ModelSettings, run: str | Path) -> Rollout:
    """Let a run answer everybody at once; a challenger is dropped, and the champion is what a roll-back returns to.

    Raises:
        RunError: the run is refused, or is the champion itself.
    """
    before = store.rollout()
    version = _accepted(store, settings, run, before)
    return _set(store, Rollout(version.id, previous=None if before is None else before.champion))


def show(store: ServingStore) -> dict[str, Any]:
    """What answers and every version that the store knows, fit for JSON; `champion` is None before the first run."""
    rollout = store.rollout()
    return {
        "champion": None if rollout is None else rollout.champion,
        "challenger": None if rollout is None else rollout.challenger,
        "share": 0.0 if rollout is None else rollout.share,
        "previous": None if rollout is None else rollout.previous,
        "changed_at": None if rollout is None else iso(rollout.changed_at),
        "versions": [
            {
                "version": one.id,
                "run": one.run,
                "model": one.model,
                "fingerprint": one.fingerprint,
                "signed_at": iso(one.signed_at),
                "loaded_at": iso(one.loaded_at),
                "allowed": list(one.allowed),
                "role": _role(one.id, rollout),
            }
            for one in store.versions()
        ],
    }


def iso(time: int | None) -> str | None:
    """Microseconds since 1970 in ISO 8601.

    >>> iso(1_700_000_000_000_000)
    '2023-11-14T22:13:20+00:00'
    """
    return None if time is None else datetime.fromtimestamp(time / 1e6, UTC).isoformat()


def _accepted(store: ServingStore, settings: ModelSettings, run: str | Path, before: Rollout | None) -> Version:
    """The version of a run that may answer beside or instead of the champion."""
    champion = None if before is None else version_of(store, before.champion)
    candidate = accept(run, settings)
    known = known_version(store, candidate)
    if champion is not None and known is not None and known.id == champion.id:
        raise RunError(f"{candidate.path}: is version {champion.id}, which answers already; name another run")
    return add(store, not_older(candidate, champion, settings)).version


def _set(store: ServingStore, rollout: Rollout) -> Rollout:
    changed = replace(rollout, changed_at=now())
    store.set_rollout(changed)
    return changed


def _rollout(store: ServingStore) -> Rollout:
    found = store.rollout()
    if found is None:
        raise ConfigError(
            "nothing is served from this store yet; begin with `coterie serve RUN` or `coterie rollout swap`"
        )
    return found


def _challenger(rollout: Rollout) -> int:
    if rollout.challenger is None:
        raise ConfigError("there is no challenger; begin with `coterie rollout start RUN --share 0.1`")
    return rollout.challenger


def _share(share: float) -> float:
    if not (math.isfinite(share) and 0 <= share <= 1):
        raise ConfigError(f"share must be between 0 and 1, got {share:g}")
    return float(share)


def _role(version: int, rollout: Rollout | None) -> str | None:
    if rollout is None:
        return None
    roles = {rollout.previous: "previous", rollout.challenger: "challenger", rollout.champion: "champion"}
    return roles.get(version)
