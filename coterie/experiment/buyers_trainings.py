"""The trainings of the buyer's table: what its columns share, whose rows each federation sums, and who pays.

Private sums leave out rows that others have: guests, and, of models that do not keep their sums, what mixes are chosen
with. So that this is not mistaken for the price of noise, one more federation sums the same rows without noise.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from coterie.data.log import InteractionLog
from coterie.data.splits import Given
from coterie.engines.spans import Workers
from coterie.errors import ConfigError
from coterie.experiment.books import LedgerBooks
from coterie.experiment.cases import CaseTable
from coterie.experiment.fitting import Bench, Notify
from coterie.experiment.prepare import Prepared, prepare
from coterie.experiment.private import assortment_of, books_of
from coterie.experiment.result import Choices
from coterie.experiment.work import Work
from coterie.models.base import Model
from coterie.models.registry import build
from coterie.privacy.plan import Plan
from coterie.report.buyers_table import NOISELESS, SAME_ROWS, column
from coterie.settings import Settings
from coterie.types import State

STAGE = "final"


@dataclass(frozen=True)
class Federation:
    """One training of the table: what its column is called, how its plan is kept, and whose rows it sums.

    `once`: it is trained once, and mixes are chosen by what it learned without an organisation's own validation rows.
    `books` pay for it, where anything is promised that must be paid for.
    """

    epsilon: str
    work: Work
    bench: Bench
    once: bool
    books: LedgerBooks | None = None

    @property
    def plan(self) -> Plan:
        return self.work.plan


@dataclass(frozen=True)
class Joined:
    """What a federation learned, how each organisation mixes it with its own, and how long that took."""

    federation: Federation
    state: State
    choices: Choices
    seconds: float


@dataclass(frozen=True)
class Market:
    """What all columns of the table share: rows, catalogue and cases.

    `bench` holds all rows, those of guests too: what an organisation may learn from at home, and a federation without
    noise. `home` holds them without the validation rows, on which mixes are chosen; None where nothing is held out.
    """

    settings: Settings
    model: Model
    prepared: Prepared
    work: Work
    bench: Bench
    home: Bench | None
    test: CaseTable
    cleaning: list[dict[str, Any]]


def market_of(
    log: InteractionLog,
    settings: Settings,
    plans: Mapping[str, Plan],
    given: dict[str, Given],
    candidates: pl.DataFrame | None,
    notify: Notify,
    workers: Workers,
) -> Market:
    """Clean by the rules of privacy where any plan has noise, split, and read the cases: once for all columns."""
    notify("step", {"text": "cleaning and splitting", "done": 0, "total": None})
    model, plan = build(settings.model), next((plan for plan in plans.values() if plan.private), Plan())
    prepared = prepare(log, settings, given, candidates, plan)
    work = Work(settings, Plan(), replace(prepared, plan=Plan()), None, notify, workers)
    assortment = assortment_of(prepared.split.train, settings, plan)
    bench, report = work.bench(model, with_validation=True, catalogue=assortment)
    notify("cleaning", {"entries": report.as_dicts()})
    if not bench.silos:
        raise ConfigError(
            f"the buyer's table is for several organisations with users of their own, and {log.source} has "
            f"{len(bench.people)} client(s) that are none; name a client column, give one log each, or simulate shops"
        )
    test, held, home = work.test_cases(bench), prepared.split.valid, None
    if test is None:
        raise ConfigError("the buyer's table needs a test, and nothing is held out for it; set --split or --test")
    if held is not None and len(held.cases):
        home = work.bench(model, with_validation=False, catalogue=bench.fit.catalogue)[0]
    return Market(settings, model, prepared, work, bench, home, test, report.as_dicts())


def federations_of(
    market: Market, log: InteractionLog, plans: Mapping[str, Plan], name: str, notify: Notify
) -> list[Federation]:
    """Every training with its plan checked and its charge set aside; of all of them or of none."""
    call, private = f"{name}-{secrets.token_hex(4)}", list[Federation]()
    try:
        for epsilon, plan in plans.items():
            if plan.private:
                work = Work(market.settings, plan, market.prepared, None, notify, market.work.workers)
                books = books_of(market.settings, plan, log, f"{call}-epsilon-{epsilon}", market.model.name)
                work.exit.books = books
                bench = replace(private[0].bench if private else _taught(market, work), plan=plan, exit=work.exit)
                private.append(Federation(epsilon, work, bench, once=True, books=books))
                _set_aside(market.model, private[-1])
        found = _in_order(market, tuple(plans), private, notify)
        found[0].work.announce(market.model, found[0].bench)
    except BaseException:
        _settle(market.model, private)
        raise
    return found


def trained(market: Market, federations: Sequence[Federation], notify: Notify) -> list[Joined]:
    """Train one after the other; what was set aside for trainings that did not come to be is given back."""
    joined = list[Joined]()
    try:
        for one in federations:
            notify("step", {"text": f"training: {column(one.epsilon)}", "done": 0, "total": None})
            started = time.perf_counter()
            choices, state = (_once if one.once else _twice)(market, one)
            joined.append(Joined(one, state, choices, time.perf_counter() - started))
    finally:
        _settle(market.model, federations)
    return joined


def _in_order(market: Market, names: Sequence[str], private: Sequence[Federation], notify: Notify) -> list[Federation]:
    """The federations as they were asked for; after that without noise one over the rows of private ones."""
    found, others = list[Federation](), {one.epsilon: one for one in private}
    for name in names:
        found.append(others[name] if name in others else Federation(name, market.work, market.bench, once=False))
        if name == NOISELESS and private and len(private[0].bench.fit.log) < len(market.bench.fit.log):
            work = Work(market.settings, Plan(), market.prepared, None, notify, market.work.workers)
            rows = replace(private[0].bench, plan=Plan(), exit=work.exit)
            found.append(Federation(SAME_ROWS, work, rows, once=True))
    return found


def _taught(market: Market, work: Work) -> Bench:
    """Whose rows a private federation sums: those of protected units, as `coterie.experiment.train` has them."""
    apart = work.kept_apart(market.model, market.bench)
    return apart or work.bench(market.model, with_validation=True, catalogue=market.bench.fit.catalogue)[0]


def _set_aside(model: Model, federation: Federation) -> None:
    """Refuse what the plan cannot hold or the account cannot pay, before any client works."""
    bench, start = federation.bench, federation.bench.start(model)
    shares, spec = model.budget(start), model.heaviest_round(start)
    if spec is not None:
        bench.plan.bind(spec, bench.people.block.n_users, len(bench.people), shares=shares)
    federation.work.exit.prepare(_charged_as(model), dict(enumerate(bench.plan.events(shares))))


def _settle(model: Model, federations: Sequence[Federation]) -> None:
    for one in federations:
        one.work.exit.settle(_charged_as(model))


def _charged_as(model: Model) -> str:
    """What `Bench.federated` calls the training on the ledger."""
    return f"{model.name}: {STAGE}"


def _twice(market: Market, federation: Federation) -> tuple[Choices, State]:
    """Mixes are chosen with another federation, that lacks the validation rows; what is served has them."""
    choices = federation.work.choose(market.model)
    return choices, federation.work.train(STAGE, market.model, federation.bench)


def _once(market: Market, federation: Federation) -> tuple[Choices, State]:
    """A second training would be a second charge: see `Work.chosen_apart` for how mixes are chosen without it."""
    state = federation.work.train(STAGE, market.model, federation.bench)
    choices = Choices(market.model, {}, [])
    return (choices, state) if market.home is None else federation.work.chosen_apart(choices, market.home, state)
