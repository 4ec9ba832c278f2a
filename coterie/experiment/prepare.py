"""From files to what is trained and what is asked: read, clean, split, assign clients.

The order keeps held-out rows out of training in every form: steps that look at one row at a time clean the whole log;
then the log is split; steps that count or match rows run on the rows to be fitted, and returns also, apart from them,
on held-out rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from coterie.data.blocks import derive_baskets
from coterie.data.cases import with_text_ids
from coterie.data.cleaning import CleaningReport, Step, clean, require_rows, rewrite_items, steps_for
from coterie.data.clients import assign_clients
from coterie.data.log import InteractionLog
from coterie.data.readers import read_candidates, read_cases, read_log
from coterie.data.rowsteps import Guests
from coterie.data.splits import Given, Split, split
from coterie.data.sql import refuse_idle_query
from coterie.errors import ConfigError
from coterie.experiment.private import rows_that_count
from coterie.privacy.plan import Plan
from coterie.settings import Settings


@dataclass(frozen=True)
class Prepared:
    """A divided log with clients, and what cleaning did so far; the rows to fit still need the steps `counting`."""

    split: Split
    report: CleaningReport
    counting: tuple[Step, ...]
    plan: Plan

    def fit_log(self, *, with_validation: bool) -> tuple[InteractionLog, CleaningReport]:
        """The rows to fit, cleaned, those of units that the plan protects; and the whole report."""
        fitted, report = self.cleaned(with_validation=with_validation)
        return rows_that_count(fitted, self.plan), report

    def cleaned(self, *, with_validation: bool) -> tuple[InteractionLog, CleaningReport]:
        """The rows to fit, cleaned, whoever they are of (what stays at home may learn from all); and the report."""
        log = self.split.train
        if with_validation and self.split.valid is not None and len(self.split.valid.log):
            log = log.with_frame(pl.concat([log.frame, self.split.valid.log.frame], how="diagonal"))
        fitted, report = clean(log, self.counting)
        report = self.report.merged(report)
        require_rows(fitted, report)
        return fitted, report


def read_inputs(
    settings: Settings, *, accept_proposal: bool
) -> tuple[InteractionLog, dict[str, Given], pl.DataFrame | None]:
    """Read the logs and whatever held-out files the settings name."""
    if not settings.data.logs:
        raise ConfigError("no log was given; name one or more files, as in: coterie train orders.csv")
    refuse_idle_query(settings.data.logs, settings.data)
    log = read_log(
        settings.data.logs, settings.data, part_column=settings.split.part_column, accept_proposal=accept_proposal
    )
    given = {}
    for name in ("valid", "test"):
        if (path := getattr(settings.split, name)) is not None:
            given[name] = _read_given(Path(path), settings, accept_proposal)
    candidates = None
    if settings.split.candidates is not None:
        candidates = read_candidates(Path(settings.split.candidates), settings.data)
    return log, given, candidates


def prepare(
    log: InteractionLog,
    settings: Settings,
    given: dict[str, Given],
    candidates: pl.DataFrame | None = None,
    plan: Plan | None = None,
) -> Prepared:
    """Clean row by row, split, and assign clients; under a plan with noise by public constants alone."""
    plan = plan or Plan()
    steps = steps_for(settings.clean, log, constant=plan.private)
    by_row = tuple(step for step in steps if step.scope == "row")
    counting = tuple(step for step in steps if step.scope == "log")
    cleaned, report = clean(log, by_row)
    require_rows(cleaned, report)
    cleaned = derive_baskets(cleaned, settings.data.basket_from)  # once guests are known: they share no basket
    parts = {name: _clean_given(part, by_row, settings) for name, part in given.items()}
    on_held = list[CleaningReport]()
    if candidates is not None:
        candidates = candidates.with_columns(item=rewrite_items(candidates["item"], by_row))

    def clean_held(rows: InteractionLog) -> InteractionLog:
        kept, found = clean(rows, [step for step in counting if step.cancels])
        on_held.append(found)
        return kept

    divided = split(
        cleaned,
        settings.split,
        settings.run.seed,
        valid=parts.get("valid"),
        test=parts.get("test"),
        candidates=candidates,
        clean_held=clean_held,
        alone=plan.private,
    )
    report = report.merged(CleaningReport.summed(on_held, "held-out rows"))
    return Prepared(assign_clients(divided, settings.clients, settings.run.seed), report, counting, plan)


def _read_given(path: Path, settings: Settings, accept_proposal: bool) -> Given:
    cases = read_cases(path, settings.data)
    if cases is not None:
        return Given(cases=cases)
    return Given(log=read_log(path, settings.data, accept_proposal=accept_proposal))


def _clean_given(part: Given, steps: Sequence[Step], settings: Settings) -> Given:
    if part.cases is not None:
        return Given(cases=clean_cases(part.cases, steps))
    if part.log is not None:
        return Given(log=derive_baskets(clean(part.log, steps)[0], settings.data.basket_from))
    return part


def clean_cases(cases: pl.DataFrame, steps: Sequence[Step]) -> pl.DataFrame:
    """Ready-made cases with ids as the cleaned log writes them, and guests as guests; nothing is dropped."""
    cases = with_text_ids(cases)
    named = [column for column in ("cart", "targets") if cases.schema.get(column) == pl.List(pl.String)]
    if not named:
        return cases
    before = pl.concat([cases[column].explode() for column in named]).unique().drop_nulls()
    after = rewrite_items(before, steps)
    rewritten = {old: new for old, new in zip(before.to_list(), after.to_list(), strict=True) if old != new}
    if rewritten:
        cases = cases.with_columns(pl.col(named).list.eval(pl.element().replace(rewritten)))
    for step in steps:
        if isinstance(step, Guests) and "user" in cases.columns:
            cases = step.apply(cases)
    return cases
