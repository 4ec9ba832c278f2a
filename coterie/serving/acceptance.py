"""Which runs may be served: signed by whom we trust, as they were signed, and not older than what answers now.

Whoever can write into a run folder could else put another model, or last year's, in the place of a good one. What is
wrong with a run can be allowed by name (`ModelSettings.allow`); it is then kept with its version, and shown.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coterie.errors import RunError
from coterie.experiment.run import Run, open_examined
from coterie.experiment.signing import MANIFEST, Examined, examine_folder
from coterie.files import sha256_of
from coterie.report.reading import known
from coterie.serving.config import ModelSettings
from coterie.serving.words import Version

OLDER, UNSIGNED, TAMPERED = "older", "unsigned", "tampered"
MIXES = ("mix", "alone")  # what a node keeps of a job, where its own rows are in it

SIMULATED = "its noise was drawn from the seed: it protects nobody, and the run must not be released"
PEERS_ONLY = (
    "it mixes in statistics of single organisations without noise: its epsilon protects against peers only, and what "
    "is mixed must not go to browsers or partners"
)


@dataclass(frozen=True)
class Candidate:
    """A run folder that may be served.

    `fingerprint` is the SHA-256 of its manifest; of a folder that nobody vouches for, that of the files as they are.
    `signed_at` is in microseconds, None where nobody who is trusted says it; `allowed` what was wrong and allowed by
    name.
    """

    path: Path
    fingerprint: str
    model: str
    signed_at: int | None
    signer: str | None
    allowed: tuple[str, ...]
    examined: Examined

    def open(self) -> Run:
        """The run itself.

        Raises:
            RunError: a file is missing, truncated or of another version.
        """
        return open_examined(self.path, self.examined)


def accept(path: str | Path, settings: ModelSettings) -> Candidate:
    """Examine a run folder; every file of it is read once.

    Raises:
        RunError: there is no such folder, or it is unsigned or tampered with and that is not allowed.
    """
    folder = Path(path).resolve()
    examined = examine_folder(folder, settings.trust, despite=settings.allow)
    for fault, sentence in examined.faults.items():
        if fault not in settings.allow:
            raise RunError(f"{sentence}; a run that is {fault} is not served unless `allow` names it ('{fault}')")
    manifest = examined.manifest
    model = manifest.get("model")
    return Candidate(
        path=folder,
        fingerprint=_fingerprint(folder, examined),
        model=str(model.get("name", "unknown")) if isinstance(model, Mapping) else "unknown",
        signed_at=None if examined.faults else _microseconds(manifest.get("signed_at")),
        signer=examined.signer,
        allowed=tuple(sorted(examined.faults)),
        examined=examined,
    )


def not_older(candidate: Candidate, champion: Version | None, settings: ModelSettings) -> Candidate:
    """The candidate, with "older" among what was allowed if it is.

    A run whose time of signing is unknown is older than every other.

    Raises:
        RunError: it was signed before the champion, and that is not allowed.
    """
    if champion is None or champion.fingerprint == candidate.fingerprint or not _older(candidate, champion):
        return candidate
    if OLDER not in settings.allow:
        raise RunError(
            f"{candidate.path}: signed {_moment(candidate.signed_at)}, before version {champion.id} that answers now "
            f"({_moment(champion.signed_at)}); roll back with `coterie rollout back`, or allow it by name ('older')"
        )
    return replace(candidate, allowed=tuple(sorted({*candidate.allowed, OLDER})))


def protects_peers_only(run: Run) -> bool:
    """Whether an epsilon is claimed, and models or mixes made of single organisations' rows without noise lie beside.

    Such a run is never exported to browsers or partners.
    """
    privacy = run.result.get("privacy") or {}
    claimed = known(privacy.get("epsilon")) is not None and privacy.get("noise") not in (None, "none")
    return claimed and (len(run.clients) > 0 or run.result.get("kept") in MIXES)


def version_notes(run: Run) -> list[str]:
    """What must be said wherever the privacy of a served run is stated; empty where there is nothing to say."""
    simulated = (run.result.get("privacy") or {}).get("releasable", True) is False
    return [SIMULATED] * simulated + [PEERS_ONLY] * protects_peers_only(run)


def _fingerprint(folder: Path, examined: Examined) -> str:
    """Equal for equal content only: of a folder that is not as it was signed, the files count as they are."""
    if not _doubtful(examined):
        return sha256_of(folder / MANIFEST)
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{path.relative_to(folder).as_posix()}\0{sha256_of(path)}\n".encode())
    return digest.hexdigest()


def _doubtful(examined: Examined) -> bool:
    """Whether the manifest says nothing that can be relied on about the files."""
    return examined.signer is None or TAMPERED in examined.faults


def _older(candidate: Candidate, champion: Version) -> bool:
    if candidate.signed_at is None:
        return True
    return champion.signed_at is not None and candidate.signed_at < champion.signed_at


def _microseconds(text: Any) -> int | None:
    """An ISO 8601 time with its offset in microseconds since 1970; None for anything else."""
    try:
        moment = datetime.fromisoformat(text)
        return None if moment.tzinfo is None else round(moment.timestamp() * 1_000_000)
    except (TypeError, ValueError, OverflowError):
        return None


def _moment(time: int | None) -> str:
    return "at an unknown time" if time is None else f"{datetime.fromtimestamp(time / 1e6, UTC):%Y-%m-%d %H:%M:%S} UTC"
