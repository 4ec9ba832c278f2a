"""What a coordinator's operator sees of a federation, whether or not its daemon runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from coterie.federation.authority import ServerFiles, server_certificate
from coterie.federation.config import FederationConfig
from coterie.federation.identity import Identities
from coterie.federation.journal import FederationJournal, JobRecord
from coterie.federation.members import Members
from coterie.federation.progress import Progress


def standing(
    config: FederationConfig, identities: Identities, members: Members, journal: FederationJournal
) -> dict[str, Any]:
    """What is known of a federation whether or not its daemon runs."""
    return {
        "federation": config.federation.name,
        "fingerprint": identities.fingerprint,
        "address": config.federation.address,
        "running": False,
        "since": None,
        "pid": None,
        "roster_version": members.roster().version,
        "progress": Progress().snapshot(),
        "members": members_now(members, Progress(), {}),
        "jobs": [_job_row(record) for record in journal.all()],
        "children": [],
        "gains": _gains(journal),
        "last_error": "",
    }


def members_now(members: Members, progress: Progress, troubles: Mapping[str, str]) -> list[dict[str, Any]]:
    """Each member and open invitation, as operators see it."""
    seen = {one["name"]: one for one in progress.snapshot()["members"]}
    rows = []
    for record in members.members():
        one = seen.get(record.name, {})
        rows.append({
            "name": record.name,
            "fingerprint": record.fingerprint,
            "state": record.state,
            "since": None if record.approved_at is None else record.approved_at.timestamp(),
            "online_since": one.get("since"),
            "sent_bytes": one.get("sent_bytes", 0),
            "received_bytes": one.get("received_bytes", 0),
            "dropouts": one.get("dropouts", 0),
            "last_error": one.get("last_error") or troubles.get(record.name, ""),
        })  # fmt: skip
    return rows


def server_files(folder: Path, config: FederationConfig) -> ServerFiles:
    """The certificate to serve with: the operator's own, or the one that was made, anew where it soon ends."""
    tls = config.tls
    if tls.certificate is not None and tls.key is not None and tls.ca is not None:
        return ServerFiles(Path(tls.certificate), Path(tls.key), Path(tls.ca))
    return server_certificate(folder, [config.federation.host, "localhost", "127.0.0.1"])


def _job_row(record: JobRecord) -> dict[str, Any]:
    times = {key: getattr(record, key) for key in ("started_at", "finished_at")}
    return {
        "id": record.id,
        "name": record.name,
        "model": record.spec.get("model", {}).get("name"),
        "state": record.state,
        "reason": record.reason,
        "round": record.round,
        "folder": record.folder,
        **{key: None if value is None else value / 1e6 for key, value in times.items()},
    }


def _gains(journal: FederationJournal) -> dict[str, Any] | None:
    """What members reported of the last finished job, as a sum over them."""
    for record in reversed(journal.all()):
        result = Path(record.folder) / "result.json"
        if record.state == "done" and result.exists():
            found = json.loads(result.read_bytes()).get("gains")
            return dict(found) if found else None
    return None
