"""`coterie plan`: before training, what will a plan cost, what does its noise do, and what is to be expected of it?"""

from __future__ import annotations

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coterie.cli.ledger import opened_ledger, place
from coterie.cli.options import Flag, SettingsCommand, at_least, model_flags, setting_flags, settings_of
from coterie.cli.output import JsonFlag, Output
from coterie.cli.progress import Listener

if TYPE_CHECKING:
    from coterie.privacy.ledger import Ledger


PAID = ("evaluation", "metrics_share")  # what is set aside of the plan's budget


class PlanCommand(SettingsCommand):
    """The settings of the plan, the ledger and the model."""

    @classmethod
    @functools.cache
    def flags(cls) -> tuple[Flag, ...]:
        """All of them but ``--tune``, which looks at logs."""
        models = (flag for flag in model_flags() if flag.key != "tune")
        wanted = (f for f in setting_flags() if f.section in ("plan", "ledger") or (f.section, f.key) == PAID)
        return (*models, *wanted)


def _count(option: str, default: int, least: int, text: str) -> Any:
    return typer.Option(option, parser=at_least(least), metavar="INTEGER", help=f"{text} Default: {default}.")


def plan(
    ctx: typer.Context,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="Settings file; flags override it (`coterie init`).")
    ] = None,
    users: Annotated[int, _count("--users", 5_000, 1, "Users of all clients together.")] = 5_000,
    clients: Annotated[int, _count("--clients", 8, 0, "Organisations; 0: every user is a client.")] = 8,
    items: Annotated[int, _count("--items", 1_000, 4, "Items that they choose from.")] = 1_000,
    titles: Annotated[
        bool,
        typer.Option(
            "--titles/--no-titles", help="Whether items have titles that tell what goes together. Default: yes."
        ),
    ] = True,
    runs: Annotated[
        int,
        typer.Option(
            "--runs-per-year",
            "--weeks",
            parser=at_least(1),
            metavar="INTEGER",
            help="How often such a run is made in a year. Default: 52.",
        ),
    ] = 52,
    simulated: Annotated[
        bool,
        typer.Option(
            "--simulate/--no-simulate",
            help="Train on synthetic data of this size, to see what quality to expect: about a minute. Default: yes.",
        ),
    ] = True,
    seed: Annotated[int, _count("--seed", 0, 0, "Seed of the simulation.")] = 0,
    json: JsonFlag = False,
) -> None:
    """Before training: what will epsilon be, what does the noise do, from how many customers does joining pay?

    No log is read and nothing is charged. Quality comes from a simulation on synthetic data.
    """
    from coterie.experiment.planning import foresee
    from coterie.experiment.planning_market import People
    from coterie.report.plan_tables import plan_report

    out = Output(json)
    settings = settings_of(config, ctx.obj)
    with Listener(out) as listener:
        content = foresee(
            settings,
            People(users, clients, items, titles),
            runs_per_year=runs,
            ledger=_ledger(settings.ledger.ledger),
            seed=seed,
            simulated=simulated,
            notify=listener,
        )
    content["ledger"] = place(settings.ledger.ledger) if content["private"] else None
    out.result(content, *plan_report(content))


def _ledger(where: str | None) -> Ledger | None:
    """The ledger, where there is one: a file that a first run would make is none yet.

    Raises:
        CoterieError: the ledger that was named cannot be opened.
    """
    from coterie.storage import is_path

    if where is not None and is_path(where) and not Path(where).exists():
        return None
    return opened_ledger(where)
