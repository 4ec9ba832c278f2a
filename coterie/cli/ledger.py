"""`coterie ledger`: what privacy has been spent on whom, what may be spent, and the record of it."""

from __future__ import annotations

import csv
import io
import json as jsonlib
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coterie.cli.output import JsonFlag, Output, plain
from coterie.errors import ConfigError, DataError

if TYPE_CHECKING:
    from rich.table import Table

    from coterie.privacy.ledger import Ledger
    from coterie.privacy.ledger_statement import Statement

app = typer.Typer(suggest_commands=False)

Where = Annotated[
    str | None,
    typer.Option(
        "--ledger",
        metavar="FILE|URL",
        help="A file, a postgresql:// URL, or env:NAME for a URL in a variable; by default this installation's own.",
    ),
]
OneAccount = Annotated[str | None, typer.Option("--account", metavar="NAME", help="This account alone.")]

TIMES = ("reserved_at", "lapses_at", "spent_at", "returned_at")


@app.callback(invoke_without_command=True)
def ledger(ctx: typer.Context) -> None:
    """What privacy has been spent on whom, what may be spent, and the record of it."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def show(account: OneAccount = None, where: Where = None, json: JsonFlag = False) -> None:
    """Show what was spent on each account, of which limit, and what remains; with --account, by which runs."""
    opened = opened_ledger(where)
    found: Sequence[Statement] = ()
    if opened is not None:
        found = opened.statements() if account is None else (opened.statement(account),)
    elif account is not None:
        raise DataError(
            f"there is no account '{account}': nothing has been charged, and there is no {place(where)} yet"
        )
    content = {"ledger": place(where), "accounts": [one.as_dict() for one in found]}
    if not found:
        Output(json).result(content, f"nothing has been charged: {place(where)} has no account")
        return
    tables = [accounts_table(found)]
    if account is not None:
        tables += [runs_table(found[0])] if found[0].runs else []
        tables += [reservations_table(found[0])] if found[0].reservations else []
    Output(json).result(content, *tables)


def export(
    account: OneAccount = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="File to write: .csv or .json; by default CSV on stdout."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the file if it exists.")] = False,
    where: Where = None,
    json: JsonFlag = False,
) -> None:
    """Write every charge that was ever reserved, returned ones too, with its events: the record for an auditor."""
    from coterie.files import write_text

    if output is not None:
        check_target(output, force)
    opened = opened_ledger(where)
    if opened is None:
        raise DataError(f"nothing has been charged: there is no {place(where)} yet")
    charges = [readable(row) for row in opened.charges(account)]
    out = Output(json)
    if output is None:
        out.result({"ledger": place(where), "charges": charges}, as_csv(charges).rstrip("\n"))
        return
    write_text(output, as_csv(charges) if output.suffix.casefold() == ".csv" else as_json(charges))
    out.result({"output": output, "charges": len(charges)}, f"wrote {len(charges):,} charges to {output}")


def limit(
    account: Annotated[str, typer.Argument(metavar="ACCOUNT", help="The account.")],
    epsilon: Annotated[
        str | None,
        typer.Option("--epsilon", metavar="NUMBER|none", help="Most that may ever be spent; none lifts the limit."),
    ] = None,
    period_epsilon: Annotated[
        str | None,
        typer.Option(
            "--period-epsilon",
            metavar="NUMBER|none",
            help="Most that may be spent in any period; none lifts the limit.",
        ),
    ] = None,
    period_days: Annotated[
        str | None, typer.Option("--period-days", metavar="NUMBER", help="Length of the rolling period in days.")
    ] = None,
    delta: Annotated[
        str | None,
        typer.Option(
            "--delta", metavar="NUMBER", help="Delta at which the account counts; opens the account if there is none."
        ),
    ] = None,
    where: Where = None,
    json: JsonFlag = False,
) -> None:
    """Set what may be spent on an account; what is not named stays as it is."""
    from coterie.privacy.ledger import Ledger

    if (epsilon, period_epsilon, period_days, delta) == (None, None, None, None):
        raise ConfigError(f"what may be spent on '{account}'? Give --epsilon, --period-epsilon or --delta")
    asked = {
        "epsilon": number("--epsilon", epsilon, liftable=True),
        "period_epsilon": number("--period-epsilon", period_epsilon, liftable=True),
        "period_days": number("--period-days", period_days),
        "delta": number("--delta", delta),
    }
    if delta is None and opened_ledger(where) is None:
        raise DataError(f"there is no account '{account}', nor a {place(where)}; --delta opens both")
    out = Output(json)
    found = Ledger.open(where).limit(account, **asked)
    for sentence in warnings(found):
        out.warn(sentence)
    out.result({"ledger": place(where), **found.as_dict(), "warnings": warnings(found)}, accounts_table([found]))


def opened_ledger(where: str | None) -> Ledger | None:
    """The ledger, only if it is there; None where the installation has none of its own yet.

    Raises:
        CoterieError: the ledger that was named is not there, or cannot be opened.
    """
    from coterie.privacy.ledger import Ledger

    if where is None and not Path(place(None)).exists():
        return None
    return Ledger.open(where, create=False)


def place(where: str | None) -> str:
    """Where the ledger is, as it may be shown."""
    from coterie.files import home
    from coterie.privacy.ledger import FILE
    from coterie.storage import is_path, named

    if where is None:
        return str(home() / FILE)
    return where if is_path(where) else named(where)


def check_target(path: Path, force: bool) -> None:
    """Refuse a file that cannot or should not be written.

    Raises:
        ConfigError: another suffix than .csv or .json, a folder, or a file that exists without --force.
    """
    if path.suffix.casefold() not in (".csv", ".json"):
        raise ConfigError(f"--output {path}: the name must end in .csv or .json")
    if path.is_dir():
        raise ConfigError(f"--output {path}: is a folder; name a file in it")
    if path.exists() and not force:
        raise ConfigError(f"--output {path}: exists already; --force replaces it")


def readable(row: Mapping[str, Any]) -> dict[str, Any]:
    """A charge with its times in ISO 8601 and its events as values."""
    from coterie.privacy.ledger_statement import moment

    times = {key: None if row[key] is None else moment(row[key]).isoformat() for key in TIMES}
    return {**row, **times, "events": jsonlib.loads(row["events"])}


def as_json(charges: Iterable[Mapping[str, Any]]) -> str:
    """The charges as one JSON list."""
    return jsonlib.dumps(plain(list(charges)), indent=2) + "\n"


def as_csv(charges: Sequence[Mapping[str, Any]]) -> str:
    """The charges as CSV; a charge's events are one cell of JSON."""
    from coterie.privacy.ledger_tables import charges as table

    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, [column.name for column in table.columns], lineterminator="\n")
    writer.writeheader()
    writer.writerows({**row, "events": jsonlib.dumps(row["events"])} for row in charges)
    return buffer.getvalue()


def number(option: str, text: str | None, liftable: bool = False) -> Any:
    """The number that an option was given, or "none" where that is allowed.

    Raises:
        ConfigError: it is no number.
    """
    if text is None or (liftable and text == "none"):
        return text
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise ConfigError(f"{option} must be a number{' or none' if liftable else ''}, got '{text}'")
    return value


def warnings(statement: Statement) -> list[str]:
    """What a person who has just set limits should know."""
    account, sentences = statement.account, []
    if account.limit is not None and statement.counted > account.limit:
        sentences.append(
            f"epsilon {figure(statement.counted)} is spent or reserved already, more than the limit of "
            f"{figure(account.limit)}: nothing more can be reserved"
        )
    counted, period = statement.period_counted, account.period_limit
    if counted is not None and period is not None and counted > period:
        sentences.append(
            f"epsilon {figure(counted)} is spent or reserved in the last {account.period_days:g} days, more than the "
            f"limit of {figure(period)}: nothing more can be reserved for now"
        )
    return sentences


def accounts_table(statements: Iterable[Statement]) -> Table:
    """One row per account, and one for its period if it has one."""
    from coterie.report.printable import cell

    table = _table("Privacy spent, as epsilon at the account's delta", "account", 24)
    for name in ("delta", "span", "spent", "reserved", "limit", "remains", "runs"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in statements:
        account, waiting = one.account, str(len(one.reservations) or "")
        spent = (figure(one.spent), waiting, figure(account.limit), figure(one.remaining), f"{len(one.runs):,}")
        table.add_row(cell(account.name), f"{account.delta:.3g}", "life", *spent)
        if account.period_days is not None:
            limits = figure(account.period_limit), figure(one.period_remaining)
            table.add_row("", "", f"{account.period_days:g} days", figure(one.period_spent), "", *limits, "")
    return table


def runs_table(statement: Statement) -> Table:
    """One row per run: what it has spent by itself."""
    from coterie.report.printable import cell

    table = _table("By run; composed, they make less than their sum", "run", 28)
    table.add_column("model", overflow="fold")
    for name in ("epsilon", "rounds", "first", "last"):
        table.add_column(name, justify="right", no_wrap=True)
    for run in statement.runs:
        days = f"{run.first:%Y-%m-%d}", f"{run.last:%Y-%m-%d}"
        table.add_row(cell(run.run), cell(run.model), figure(run.epsilon), f"{run.rounds:,}", *days)
    return table


def reservations_table(statement: Statement) -> Table:
    """One row per charge that counts although nothing of it was released yet."""
    from coterie.report.printable import cell

    table = _table("Reserved", "run", 28)
    table.add_column("job", overflow="fold")
    for name in ("round", "attempt", "since (UTC)", "until"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in statement.reservations:
        times = f"{one.since:%Y-%m-%d %H:%M}", f"{one.lapses:%Y-%m-%d %H:%M}"
        table.add_row(cell(one.run), cell(one.job), str(one.round), str(one.attempt), *times)
    return table


def figure(value: float | None) -> str:
    """An epsilon as it is shown.

    >>> figure(None), figure(4.0), figure(float("inf"))
    ('none', '4', 'unbounded')
    """
    if value is None:
        return "none"
    return "unbounded" if math.isinf(value) else f"{value:.4g}"


def _table(title: str, first: str, width: int) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(first, overflow="fold", max_width=width)
    return table
