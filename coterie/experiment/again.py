"""What a finished run was trained on, read and prepared once more: for whoever trains beside it, such as an audit."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from coterie.errors import RunError
from coterie.experiment.fitting import Bench, Notify, silent
from coterie.experiment.prepare import prepare, read_inputs
from coterie.experiment.private import plan_of
from coterie.experiment.request import check_rows, read_finished
from coterie.experiment.run import Run, load
from coterie.experiment.work import Work


@dataclass(frozen=True)
class Again:
    """A finished run, and the bench on which its final training ran: the same users, plan and rounds.

    Nothing on it is charged or written.
    """

    run: Run
    bench: Bench


def bench_of(folder: Path, trust: str | None = None, notify: Notify = silent) -> Again:
    """Read the inputs of a finished run again, clean and split them as it did.

    Args:
        folder: the run folder.
        trust: fingerprint of a signer to trust besides this installation's own key, or "any".
        notify: told of progress.

    Raises:
        RunError: the run cannot be opened or was trained in memory, or its inputs are gone or have changed.
    """
    run = load(folder, trust)
    if run.result.get("scope") == "federation":
        raise RunError(
            f"{folder}: was trained by a federation, whose other logs are not here; use a run of this log alone"
        )
    settings, accept_proposal = read_finished(folder)
    log, given, candidates = read_inputs(settings, accept_proposal=accept_proposal)
    check_rows(folder, log)
    plan = plan_of(settings.plan)
    notify("step", {"text": "cleaning and splitting", "done": 0, "total": None})
    work = Work(settings, plan, prepare(log, settings, given, candidates, plan), None, notify)
    bench, _ = work.bench(run.model, with_validation=True)
    apart = work.kept_apart(run.model, bench)
    if apart is not None:
        bench = replace(bench, summed=apart.fit.training)
    if bench.fit.catalogue.items != run.catalogue.items:
        raise RunError(f"{folder}: its inputs lead to other items now than when it was trained; they have changed")
    return Again(run, bench)
