"""Train, compare, write a run: where the pieces meet.

    read -> clean -> split -> [selection: fit on train, choose on validation] -> final: fit on train + validation
         -> what each client serves -> compare on the test -> run folder, signed

A killed training continues from the last finished round (`resume`) and ends with the same model file.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import polars as pl

from coterie.data.log import InteractionLog
from coterie.data.splits import Given
from coterie.engines.spans import Workers
from coterie.experiment.compare import (
    headline,
)
from coterie.experiment.fitting import Notify, silent
from coterie.experiment.outputs import write_reports
from coterie.experiment.prepare import prepare, read_inputs
from coterie.experiment.private import (
    RAW,
    WHY,
    books_of,
    is_sealed,
    plan_of,
    quietly,
    refuse_free_decisions,
)
from coterie.experiment.request import (
    check_rows,
    forget_inputs,
    new_folder,
    read_request,
    require_empty,
    run_name,
    write_request,
)
from coterie.experiment.result import Facts, build_result
from coterie.experiment.run import Run
from coterie.experiment.signing import own_key
from coterie.experiment.tidy import finite
from coterie.experiment.tracking import Tracked, check_tracking, send
from coterie.experiment.work import Work
from coterie.experiment.workers import workers_of
from coterie.federation.release import disclose
from coterie.models.registry import build
from coterie.privacy.plan import Plan
from coterie.settings import Settings


@dataclass(frozen=True)
class Trained:
    """A finished training: the run, its folder (None in memory) and the object that ``--json`` prints.

    `tracked` is where the run was sent to, where that was asked for.
    """

    run: Run
    path: Path | None
    result: dict[str, Any]
    tracked: Tracked | None = None


def run_training(
    settings: Settings, *, accept_proposal: bool = False, resume: Path | None = None, notify: Notify = silent
) -> Trained:
    """Train as `settings` say, from files to a signed run folder.

    Args:
        settings: what to do; with `resume` those of the interrupted run are used instead.
        accept_proposal: take the proposed column mapping where none is given.
        resume: folder of an interrupted run.
        notify: told of progress: "step", "estimate", "cleaning", "note", "warning", "folder" (it can be resumed).

    Raises:
        CoterieError: bad input or settings (nothing is written then), or a fault of the machine (resume later).
    """
    if resume is not None:
        settings, accept_proposal = read_request(resume)
    build(settings.model)
    plan_of(settings.plan)  # a plan that cannot hold is refused before anything is read
    folder = resume or new_folder(settings)
    log, given, candidates = read_inputs(settings, accept_proposal=accept_proposal)
    if resume is not None:
        check_rows(resume, log)
    name = run_name(folder)

    def accepted() -> None:
        if resume is None:
            write_request(folder, settings, log, accept_proposal=accept_proposal, name=name)
        notify("folder", {"path": str(folder), "text": f"run folder: {folder}"})

    return train_log(
        log,
        settings,
        given=given,
        candidates=candidates,
        folder=folder,
        name=name,
        resume=resume is not None,
        accepted=accepted,
        notify=notify,
    )


def train_log(
    log: InteractionLog,
    settings: Settings,
    *,
    plan: Plan | None = None,
    given: dict[str, Given] | None = None,
    candidates: pl.DataFrame | None = None,
    folder: Path | None = None,
    name: str | None = None,
    resume: bool = False,
    accepted: Callable[[], None] = lambda: None,
    notify: Notify = silent,
) -> Trained:
    """Train on a log that is in memory; with `folder` the run is written there and signed.

    `accepted` is called once all input has proved usable and before any work that lasts. With `resume` the folder holds
    an interrupted training of the same log and settings; else it must be empty. A run that is to be tracked is sent
    once it is signed.

    Raises:
        EnvironmentFault: among others, the tracking server failed; the run is whole in its folder all the same.
    """
    check_tracking(settings.tracking, folder)
    if folder is not None:
        if not resume:
            require_empty(folder)
        own_key()  # whoever cannot sign should hear it before the work
    name = name or run_name(folder)
    with workers_of(settings.run, notify) as workers:
        done = _train(log, settings, plan, given or {}, candidates, folder, name, accepted, notify, workers)
    if settings.tracking.track is None or folder is None:
        return done
    notify("step", {"text": "sending the run to MLflow", "done": 0, "total": None})
    return replace(done, tracked=send(folder, settings.tracking))


def _train(
    log: InteractionLog,
    settings: Settings,
    plan: Plan | None,
    given: dict[str, Given],
    candidates: pl.DataFrame | None,
    folder: Path | None,
    name: str,
    accepted: Callable[[], None],
    notify: Notify,
    workers: Workers,
) -> Trained:
    started = time.perf_counter()
    model, plan = build(settings.model), plan or plan_of(settings.plan)
    refuse_free_decisions(settings, plan)
    sealed = is_sealed(settings, plan)
    notify = quietly(notify) if sealed else notify
    for note in log.notes:
        notify("note", {"text": note})
    notify("step", {"text": "cleaning and splitting", "done": 0, "total": None})
    prepared = prepare(log, settings, given, candidates, plan)
    work = Work(settings, plan, prepared, folder, notify, workers)
    books = work.exit.books = books_of(settings, plan, log, name, model.name)
    bench, report = work.bench(model, with_validation=True)
    notify("cleaning", {"entries": report.as_dicts()})
    test = work.test_cases(bench)
    work.announce(model, bench)
    accepted()
    work.set_aside(test)
    choices = work.choose(model)
    bench = replace(bench, rounds=choices.rounds)
    apart = work.kept_apart(model, bench)
    if apart is not None:
        bench = replace(bench, summed=apart.fit.training)
    home = apart or work.at_home(model, bench)
    state = work.train("final", choices.model, bench)
    if home is not None:
        choices, state = work.chosen_apart(choices, home, state)
    trained_at = time.perf_counter()
    comparison, clients = work.compare(choices, bench, state, test)
    if plan.private and not sealed:
        comparison, clients = disclose((comparison, clients), RAW, work.exit, WHY)
    run = Run(choices.model, state, bench.fit.catalogue, {}, {} if sealed else clients)
    timing = {"train_s": trained_at - started, "evaluate_s": time.perf_counter() - trained_at}
    cleaning = [] if sealed else report.as_dicts()
    facts = Facts(settings, plan, bench, prepared.split, cleaning, work.rounds["final"], timing, folder, sealed)
    run.result = build_result(run, choices, comparison, facts)
    run.result["privacy"] |= {
        "account": None if books is None else finite(books.balance()),
        "items_from": "the log" if settings.data.items is None or not plan.private else "the items file",
    }
    if folder is not None:
        notify("step", {"text": "writing the run folder", "done": 0, "total": None})
        run.write_model(folder)
        write_reports(folder, run.result, headline(settings.evaluation.at))
        if sealed:
            forget_inputs(folder)
        run.sign(folder)
        work.checkpoints.clear()
    return Trained(run, folder, run.result)
