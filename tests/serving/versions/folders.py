"""Run folders that are signed anew, or spoilt in one of the ways that acceptance knows."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from coterie.experiment.signing import MANIFEST, sign_folder


def manifest(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    return content


def resigned(folder: Path, **changes: Any) -> Path:
    """Sign it anew, now; a change of None leaves that fact out."""
    facts = {key: manifest(folder)[key] for key in ("coterie", "model", "clients", "releasable")}
    facts = {**facts, "signed_at": datetime.now(UTC).isoformat(), **changes}
    (folder / MANIFEST).unlink()
    sign_folder(folder, {key: value for key, value in facts.items() if value is not None})
    return folder


def without_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def with_changed_result(folder: Path) -> None:
    path = folder / "result.json"
    path.write_text(path.read_text().replace('"engine"', '"Engine"', 1))


def with_changed_manifest(folder: Path) -> None:
    content = manifest(folder)
    (folder / MANIFEST).write_text(json.dumps({**content, "releasable": not content["releasable"]}))


def with_a_truncated_manifest(folder: Path) -> None:
    text = (folder / MANIFEST).read_text()
    (folder / MANIFEST).write_text(text[: len(text) // 2])
