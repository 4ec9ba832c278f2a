"""`coterie report`: documents about a run, for those who answer for it; and the run itself for MLflow."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer
from rich.text import Text

from coterie.cli.evaluate import Folder, Trust
from coterie.cli.ledger import Where, opened_ledger, place
from coterie.cli.output import JsonFlag, Output
from coterie.errors import ConfigError, CoterieError, closest

if TYPE_CHECKING:
    from rich.table import Table

    from coterie.experiment.tracking import Tracked
    from coterie.federation.policy import Policy
    from coterie.privacy.ledger_statement import Statement
    from coterie.report.documents import Format, Stored, Written

DOCUMENTS = ("run", "model-card", "privacy-card", "gdpr-30", "gdpr-35", "gdpr-26", "privacy-notice", "pipl", "all")
FORMATS = ("html", "md", "json")
DEFAULT = Path("documents")


def report(
    run: Folder,
    document: Annotated[
        list[str] | None,
        typer.Option(
            "--document",
            metavar="NAME",
            help=f"Which: {', '.join(DOCUMENTS)}; may be given several times. Default: run.",
            autocompletion=lambda: list(DOCUMENTS),
        ),
    ] = None,
    format: Annotated[
        str,
        typer.Option(
            "--format", metavar="|".join(FORMATS), help="As what. Default: html.", autocompletion=lambda: list(FORMATS)
        ),
    ] = "html",
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="DIR", help="Folder to write to; by default documents/ and the run's name."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace documents that exist.")] = False,
    where: Where = None,
    policy: Annotated[
        Path | None,
        typer.Option("--policy", metavar="FILE", help="The policy.toml of your node: drafts then state its limits."),
    ] = None,
    track: Annotated[
        str | None,
        typer.Option(
            "--track", metavar="mlflow[:URI]", help="Send the run to MLflow, as `coterie train --track` does."
        ),
    ] = None,
    trust: Trust = None,
    json: JsonFlag = False,
) -> None:
    """Write documents about a run: report, model card, privacy card, and drafts for data protection."""
    from coterie.experiment.signing import verify_folder
    from coterie.report.documents import Stored

    out = Output(json)
    kinds = [] if track is not None and not document else _distinct(document or ["run"])
    _check(kinds, format)
    verify_folder(run, trust)
    written = _written(Stored.read(run), kinds, format, output, force, where, policy, out) if kinds else []
    sent = None if track is None else _sent(run, track)
    content = {
        "run": run,
        "documents": [
            {
                "document": one.kind,
                "format": one.format,
                "path": one.path,
                "draft": one.draft,
                "to_fill_in": one.to_fill_in,
            }
            for one in written
        ],
        "tracked": None if sent is None else sent.as_dict(),
    }
    out.result(content, *_shown(written, sent))


def statement_of(run: Stored, where: str | None, out: Output) -> Statement | None:
    """What the ledger says of the account that paid for a run.

    None where nothing was charged, or where no ledger was named and the one of the run is gone or does not know the
    account, which is said; documents then have the run's own record.

    Raises:
        CoterieError: the ledger that was named cannot be opened, or has no such account.
    """
    name = ((run.result.get("privacy") or {}).get("account") or {}).get("name")
    if name is None:
        if where is not None:
            out.note("nothing was charged for this run, so the ledger was not asked")
        return None
    asked = where or _ledger_of(run)
    try:
        opened = opened_ledger(asked)
        return None if opened is None else opened.statement(name)
    except CoterieError as error:
        if where is not None:
            raise
        out.note(f"{place(asked)}: {error}; the documents have the run's own record of the account")
        return None


def _written(
    run: Stored,
    kinds: list[str],
    format: str,
    output: Path | None,
    force: bool,
    where: str | None,
    policy: Path | None,
    out: Output,
) -> list[Written]:
    from coterie.report.documents import write

    folder = output or DEFAULT / run.path.resolve().name
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"--output {folder}: is a file; name a folder")
    account, rules = statement_of(run, where, out), _policy(policy)
    return write(run, kinds, _format(format), folder, account=account, policy=rules, force=force)


def _distinct(asked: list[str]) -> list[str]:
    """Each document once; all of them for "all"."""
    return list(DOCUMENTS[:-1]) if "all" in asked else list(dict.fromkeys(asked))


def _check(kinds: list[str], format: str) -> None:
    """Refuse what there is not, before anything is read.

    Raises:
        ConfigError: no such document or format.
    """
    for kind in kinds:
        if kind not in DOCUMENTS:
            raise ConfigError(
                f"--document must be one of {', '.join(DOCUMENTS)}, got '{kind}'{closest(kind, DOCUMENTS)}"
            )
    if format not in FORMATS:
        raise ConfigError(f"--format must be one of {', '.join(FORMATS)}, got '{format}'{closest(format, FORMATS)}")


def _format(name: str) -> Format:
    from coterie.report.documents import Format

    return next(one for one in get_args(Format) if one == name)


def _ledger_of(run: Stored) -> str | None:
    """The ledger that the run's settings name."""
    from coterie.settings import read_toml

    config = run.path / "config.toml"
    found: Any = (read_toml(config).get("ledger") or {}).get("ledger") if config.exists() else None
    return None if found is None else str(found)


def _policy(path: Path | None) -> Policy | None:
    from coterie.federation.policy import Policy

    return None if path is None else Policy.load(path)


def _sent(run: Path, track: str) -> Tracked:
    from coterie.experiment.tracking import send
    from coterie.settings import TrackingSettings, build_as

    return send(run, build_as(TrackingSettings, {"track": track}, "--track"))


def _shown(written: list[Written], sent: Tracked | None) -> list[Table | Text | str]:
    from coterie.cli.train import told

    parts: list[Table | Text | str] = []
    for one in written:
        blanks = len(one.to_fill_in)
        draft = (
            f"   draft, not legal advice; {blanks} place{'' if blanks == 1 else 's'} to fill in" if one.draft else ""
        )
        parts.append(f"wrote {one.path}{draft}")
    return [*parts, *([told(sent)] if sent is not None else [])]
