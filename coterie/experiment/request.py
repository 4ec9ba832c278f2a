"""What was asked of a run, kept in its folder so that an interrupted one can go on as the same run."""

from __future__ import annotations

import json
import secrets
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import tomli_w

from coterie.data.log import InteractionLog
from coterie.data.sql import Database, digest_of, source_of
from coterie.errors import ConfigError, RunError
from coterie.experiment.signing import MANIFEST
from coterie.files import read_bytes, sha256_of, write_text
from coterie.settings import Settings, build, read_toml

CONFIG_FILE, INPUTS_FILE = "config.toml", "inputs.json"


def new_folder(settings: Settings) -> Path:
    """A run folder that does not exist yet (or is empty); nothing is made.

    Raises:
        ConfigError: the folder that was asked for holds something.
    """
    if settings.run.output is not None:
        folder = Path(settings.run.output)
        require_empty(folder)
        return folder
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S")
    base = Path("runs") / f"{stamp}-{settings.model.get('name', 'cart')}"
    folder, n = base, 1
    while folder.exists():
        folder, n = base.with_name(f"{base.name}-{n}"), n + 1
    return folder


def require_empty(folder: Path) -> None:
    """Refuse a folder that holds something: a run never mixes with another.

    Raises:
        ConfigError: it does, or it is a file.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        hint = f"; continue it with --resume {folder}, or" if resumable(folder) else ";"
        raise ConfigError(f"output {folder}: exists and is not empty{hint} choose another folder")


def resumable(folder: Path) -> bool:
    """Whether the folder holds an interrupted run."""
    return (folder / CONFIG_FILE).exists() and not (folder / MANIFEST).exists()


def run_name(folder: Path | None) -> str:
    """What the ledger calls a run: that of the folder where it was begun before, else a new name, like no other."""
    if folder is not None and (folder / INPUTS_FILE).exists():
        return str(read_json(folder / INPUTS_FILE).get("run") or folder.name)
    return f"{'run' if folder is None else folder.name}-{secrets.token_hex(4)}"


def write_request(folder: Path, settings: Settings, log: InteractionLog, *, accept_proposal: bool, name: str) -> None:
    """Write the digests of the input files, then ``config.toml``, complete: where it is, the run can be resumed.

    Of databases the rows as they were read are digested. Their passwords are not written.
    """
    split, sources = settings.split, [source_of(log) for log in settings.data.logs]
    data = settings.data.model_copy(update={"logs": tuple(str(source) for source in sources)})
    settings = settings.model_copy(update={"data": data})
    files = [*(str(source) for source in sources if isinstance(source, Path)), data.items, data.users]
    paths = [path for path in (*files, split.test, split.valid, split.candidates) if path is not None]
    digests = {path: sha256_of(Path(path)) for path in paths}
    content: dict[str, Any] = {"run": name, "accept_proposal": accept_proposal, "sha256": digests}
    if any(isinstance(source, Database) for source in sources):
        content["rows_sha256"] = digest_of(log.frame, log.texts)
    write_text(folder / INPUTS_FILE, json.dumps(content, indent=2) + "\n")
    write_text(folder / CONFIG_FILE, tomli_w.dumps(settings.model_dump(exclude_none=True)))


def read_request(folder: Path) -> tuple[Settings, bool]:
    """What an interrupted run was asked for: its settings, and whether the proposed mapping was accepted.

    Raises:
        RunError: not an interrupted run, or an input file has changed since.
    """
    if (folder / MANIFEST).exists():
        raise RunError(f"{folder}: this run is finished; there is nothing to resume")
    if not (folder / CONFIG_FILE).exists():
        raise RunError(f"{folder}: not an interrupted run (it has no {CONFIG_FILE})")
    return _request(folder)


def read_finished(folder: Path) -> tuple[Settings, bool]:
    """What a finished run was asked for, where its inputs are still there and the same; as `read_request`.

    Raises:
        RunError: the run was made in memory, or an input file has changed since.
    """
    if not (folder / CONFIG_FILE).exists():
        raise RunError(f"{folder}: was trained in memory, so its logs are not known (it has no {CONFIG_FILE})")
    return _request(folder)


def _request(folder: Path) -> tuple[Settings, bool]:
    settings = build(read_toml(folder / CONFIG_FILE), str(folder / CONFIG_FILE))
    request = read_json(folder / INPUTS_FILE)
    for path, digest in request.get("sha256", {}).items():
        if not Path(path).exists():
            raise RunError(f"{path}: is gone; {folder} was started with it, from the same working directory")
        if sha256_of(Path(path)) != digest:
            raise RunError(f"{path}: changed since {folder} was started; start a new run")
    return settings, bool(request.get("accept_proposal", False))


def forget_inputs(folder: Path) -> None:
    """Drop the digests of the inputs: of a run that shows nothing but noised sums, they would show something else."""
    content = {key: value for key, value in read_json(folder / INPUTS_FILE).items() if not key.endswith("sha256")}
    write_text(folder / INPUTS_FILE, json.dumps(content, indent=2) + "\n")


def check_rows(folder: Path, log: InteractionLog) -> None:
    """Refuse to resume with other rows than the run was started with, where these came from a database.

    Raises:
        RunError: the query returns other rows, or the same in another order.
    """
    digest = read_json(folder / INPUTS_FILE).get("rows_sha256")
    if digest is not None and digest != digest_of(log.frame, log.texts):
        raise RunError(
            f"{log.source}: the query returns other rows, or the same in another order, than when {folder} was "
            "started; give it an ORDER BY and a last time, and start a new run"
        )


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object of a run folder.

    Raises:
        RunError: it is missing, truncated or no object.
    """
    if not path.exists():
        raise RunError(f"{path}: missing; the run cannot be resumed, start a new one")
    try:
        content = json.loads(read_bytes(path))
    except ValueError as error:
        raise RunError(f"{path}: truncated or not JSON ({error}); start a new run") from None
    if not isinstance(content, dict):
        raise RunError(f"{path}: holds {type(content).__name__}, not an object; start a new run")
    return content
