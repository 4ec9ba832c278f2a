"""`coterie train`: train across clients, compare, write a run folder."""

from __future__ import annotations

import shlex
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import RenderableType
from rich.markdown import Markdown
from rich.text import Text

from coterie.cli.options import settings_of
from coterie.cli.output import Interrupted, JsonFlag, Output
from coterie.cli.progress import Listener
from coterie.errors import ConfigError
from coterie.settings import Settings

if TYPE_CHECKING:
    from coterie.data.mapping import Proposal
    from coterie.experiment.tracking import Tracked
    from coterie.experiment.train import Trained

Logs = Annotated[
    list[str] | None,
    typer.Argument(metavar="LOG", help="Log files: Parquet, CSV, TSV, u.data, one basket a line; or databases."),
]


def train(
    ctx: typer.Context,
    logs: Logs = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="Settings file; flags override it (`coterie init`).")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Take the proposed column mapping without asking.")] = False,
    resume: Annotated[
        Path | None, typer.Option("--resume", metavar="RUN", help="Continue the interrupted run in this folder.")
    ] = None,
    json: JsonFlag = False,
) -> None:
    """Train a recommender across clients without pooling their logs, and compare it with training alone."""
    out = Output(json)
    flags: dict[str, dict[str, Any]] = ctx.obj
    if resume is not None and (logs or config or flags):
        raise ConfigError(
            f"--resume {resume} continues that run as it was asked for; leave out LOG, --config and other flags"
        )
    settings = settings_of(config, flags, logs)
    if resume is None:
        settings = with_columns(settings, accept=yes, out=out)
    done = follow(settings, out, resume)
    if done.tracked is None:
        out.result(done.result, *shown(done.result))
    else:
        sent = done.tracked
        out.result({**done.result, "tracked": sent.as_dict()}, *shown(done.result), told(sent))


def follow(settings: Settings, out: Output, resume: Path | None = None) -> Trained:
    """Train and show how it goes.

    Raises:
        Interrupted: a person stopped it, and what is in the run folder can be resumed.
    """
    from coterie.experiment.request import resumable
    from coterie.experiment.train import run_training

    with Listener(out) as listener:
        try:
            return run_training(settings, resume=resume, notify=listener)
        except KeyboardInterrupt:
            asked = None if settings.run.output is None else Path(settings.run.output)
            folder = listener.folder or resume or asked
            if folder is None or not resumable(folder):
                raise
            raise Interrupted(f"interrupted; `coterie train --resume {shlex.quote(str(folder))}` continues") from None


def with_columns(settings: Settings, *, accept: bool, out: Output) -> Settings:
    """The settings with the proposed column mapping, where the log needs one and the person agrees.

    Without agreement the settings come back unchanged, and reading the log says what is missing.
    """
    from coterie.data.mapping import adopt
    from coterie.data.readers import proposal

    if not settings.data.logs:
        raise ConfigError("no log was given; name one or more files, as in: coterie train orders.csv")
    guess = proposal(settings.data.logs, settings.data)
    if guess is None or not guess.complete:
        return settings
    if not (accept or _agreed(guess, out)):
        return settings
    out.note("columns: " + ", ".join(f"{role} = {column}" for role, column in guess.columns.items()))
    return settings.model_copy(update={"data": adopt(settings.data, guess)})


def shown(result: dict[str, Any]) -> list[RenderableType]:
    """What a person reads at the end of a training: the comparison, the clients, what to know, where it is."""
    from coterie.report.card import privacy_card
    from coterie.report.tables import clients_table, comparison_table

    parts: list[RenderableType] = []
    if result.get("metrics"):
        parts.append(comparison_table(result))
    if compared := result.get("comparison"):
        beyond = f"{compared['surely_helped']} helped, {compared['surely_hurt']} hurt"
        parts.append(Text(f"Beyond chance (paired test per client, Holm's correction): {beyond}."))
        parts.append(clients_table(result))
    parts += [Text(text) for text in (*(result.get("caveats") or []), result["privacy"]["statement"])]
    if result["privacy"]["noise"] != "none":
        parts.append(Markdown(privacy_card(result)))
    if result.get("run"):
        parts.append(f"run folder: {result['run']}    report: {Path(result['run']) / 'report.html'}")
        parts.append(f"next: coterie recommend {result['run']} --basket ITEM,ITEM")
    return parts


def told(sent: Tracked) -> str:
    """Where a run was sent to, in a sentence."""
    again = " (it was there already)" if sent.again else ""
    held = "; what no epsilon covers was not sent" if sent.withheld else ""
    return f"MLflow: run {sent.run_id} of experiment {sent.experiment} at {sent.uri}{again}{held}"


def _agreed(guess: Proposal, out: Output) -> bool:
    """Ask on a terminal; where nobody can answer, it is a no."""
    if out.as_json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    out.notes.print("The columns seem to mean:")
    for role, column in guess.columns.items():
        out.notes.print(f"  {role:<8}{column}  ({guess.reasons[role]})", markup=False)
    # polars installs an interrupt handler that restarts what was interrupted: Ctrl-C would wait for an answer.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    return typer.confirm("Use this mapping?", default=True, err=True)
