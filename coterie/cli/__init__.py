"""The command line: `coterie COMMAND ...`, one file per command.

A command collects what was asked, calls the library, and hands one result to `coterie.cli.output`: a table for a person
or one JSON object. What is heavy to import (numba, polars, matplotlib) is imported when a command needs it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Annotated

import typer

from coterie import __version__
from coterie.cli import (
    audit,
    compare,
    coordinator,
    data,
    demo,
    evaluate,
    export,
    feedback,
    from_store,
    get,
    init,
    keys,
    ledger,
    node,
    plan,
    recommend,
    report,
    rollout,
    serve,
    train,
)
from coterie.cli.options import CleanCommand, DescribeCommand, EvaluateCommand, PlainCommand, TrainCommand
from coterie.cli.output import guarded

app = typer.Typer(
    name="coterie",
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    suggest_commands=False,
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"coterie {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    ctx: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback has shown it by then
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Train recommenders across organisations and devices that may not share their data."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def _add(group: typer.Typer, *commands: tuple[str, Callable[..., None], str]) -> None:
    """Add commands to a group: name, function, what a list of commands says of it."""
    for name, command, short in commands:
        group.command(name, cls=PlainCommand, short_help=short)(command)


app.command("demo", cls=PlainCommand, short_help="Synthetic shops train together: what does each gain?")(demo.demo)
app.command("init", cls=PlainCommand, short_help="Write a settings file that explains every option.")(init.init)
app.add_typer(data.app, name="data", short_help="Get a data set, look at a log, clean one, make one.")
app.command("plan", cls=plan.PlanCommand, short_help="Before training: epsilon, noise, what to expect.")(plan.plan)
app.command("train", cls=TrainCommand, short_help="Train across clients and compare.")(train.train)
app.command("compare", cls=compare.CompareCommand, short_help="What joining is worth at each epsilon.")(compare.compare)
app.command("evaluate", cls=EvaluateCommand, short_help="Measure a run on another log.")(evaluate.evaluate)
app.command("recommend", cls=PlainCommand, short_help="What completes a basket, and why.")(recommend.recommend)
app.command("serve", cls=PlainCommand, short_help="An API and a dashboard for a run.")(serve.serve)
app.add_typer(keys.app, name="keys", short_help="API keys of a service.")
_add(
    keys.app,
    ("create", keys.create, "Make a key; it is shown once."),
    ("list", keys.list_keys, "All keys, and what they open."),
    ("revoke", keys.revoke, "A key opens nothing from then on."),
)
app.add_typer(rollout.app, name="rollout", short_help="Which models a service answers with.")
_add(
    rollout.app,
    ("show", rollout.show, "Versions, and their share of the traffic."),
    ("start", rollout.start, "Give another model a share."),
    ("share", rollout.share, "Change that share."),
    ("finish", rollout.finish, "The challenger answers everybody."),
    ("back", rollout.back, "As it was before."),
    ("swap", rollout.swap, "Another model for everybody."),
)
app.command("feedback", cls=PlainCommand, short_help="What each served version is worth.")(feedback.feedback)
app.command("export", cls=PlainCommand, short_help="The model, for browsers and apps.")(export.export)
app.command("report", cls=PlainCommand, short_help="Reports, cards, drafts of documents.")(report.report)
app.command("audit", cls=PlainCommand, short_help="Is what a run promises contradicted?")(audit.audit)
app.add_typer(ledger.app, name="ledger", short_help="What privacy was spent on whom, and what may be.")
ledger.app.command("show", cls=PlainCommand, short_help="What was spent, and what remains.")(ledger.show)
ledger.app.command("export", cls=PlainCommand, short_help="Write every charge, for an auditor.")(ledger.export)
ledger.app.command("limit", cls=PlainCommand, short_help="Set what may be spent on an account.")(ledger.limit)
app.add_typer(coordinator.app, name="coordinator", short_help="Real federation: whoever sums.")
_add(
    coordinator.app,
    ("init", coordinator.init, "Make a coordinator's folder, keys and certificates."),
    ("start", coordinator.start, "Serve the federation and conduct its jobs."),
    ("status", coordinator.status, "Nodes, jobs, phase and round, drop-outs, errors."),
    ("invite", coordinator.invite, "Write an invitation for one node."),
    ("approve", coordinator.approve, "Take an enrolled node into the roster."),
    ("revoke", coordinator.revoke, "Put a node out for good."),
    ("stop", coordinator.stop, "Stop the coordinator, or one job."),
)
app.add_typer(node.app, name="node", short_help="Real federation: one organisation.")
_add(
    node.app,
    ("join", node.join, "Join with an invitation."),
    ("start", node.start, "Serve the federation's rounds from this node's log."),
    ("stop", node.stop, "Stop the running node."),
    ("status", node.status, "Connection, jobs, budget, what left, the gain."),
    ("leave", node.leave, "Leave the federation for good."),
)
node.app.add_typer(node.policy_app, name="policy", short_help="What this node takes part in.")
_add(
    node.policy_app,
    ("show", node.policy_show, "What is allowed, pinned, decided."),
    ("pin", node.policy_pin, "Pin another node's identity."),
    ("unpin", node.policy_unpin, "Forget a pinned identity."),
    ("approve", node.policy_approve, "Let a job run."),
    ("stop", node.policy_stop, "Stop a job here."),
    ("roster", node.policy_roster, "Members, and what stands against them."),
)
node.app.add_typer(node.egress_app, name="egress", short_help="What has left this site.")
_add(
    node.egress_app,
    ("show", node.egress_show, "The last messages."),
    ("verify", node.egress_verify, "Is the log as it was written?"),
    ("page", node.egress_page, "One readable page about it."),
)
data.app.command("get", cls=PlainCommand, short_help="Get a public data set.")(get.get)
data.app.command("describe", cls=DescribeCommand, short_help="Columns, their meaning, counts.")(data.describe)
data.app.command("clean", cls=CleanCommand, short_help="Clean a log and say what was dropped.")(data.clean)
data.app.command("from-store", cls=PlainCommand, short_help="The next log, from a service's store.")(
    from_store.from_store
)
data.app.command("market", cls=PlainCommand, short_help="Write the log of a synthetic market.")(data.market)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit code: 0 done, 1 the environment failed, 2 wrong usage or input."""
    asked = list(sys.argv[1:] if arguments is None else arguments)
    if hasattr(sys.stdout, "reconfigure"):  # an id that the terminal cannot show is no reason to stop
        sys.stdout.reconfigure(errors="replace")
    sys.exit(guarded(lambda: app(args=asked, prog_name="coterie", standalone_mode=False), as_json="--json" in asked))
