"""`coterie keys`: API keys of a deployment, made, listed and revoked; a running service heeds it within a second."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from coterie.cli.output import JsonFlag, Output
from coterie.cli.serving import ConfigOption, StoreOption, config_of, opened_store, place
from coterie.errors import ConfigError, DataError, closest

if TYPE_CHECKING:
    from rich.table import Table

    from coterie.serving.store import ServingStore
    from coterie.serving.words import ApiKey

app = typer.Typer(suggest_commands=False)

DAY = 86_400_000_000  # microseconds

_TEXT = re.compile(r"c[sp]k_([0-9a-f]{12})[A-Za-z0-9_-]{51}")


@app.callback(invoke_without_command=True)
def keys(ctx: typer.Context) -> None:
    """Keys for the API of a deployment: who may ask what."""
    if ctx.invoked_subcommand is None:
        typer.echo(ctx.get_help())


def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="What the key is for, as people call it.")],
    scope: Annotated[
        list[str] | None,
        typer.Option(
            "--scope",
            metavar="SCOPE",
            help="What it may do: recommend, events, items, users, model, dashboard, admin; once for each.",
        ),
    ] = None,
    publishable: Annotated[
        bool,
        typer.Option("--publishable", help="For pages, where everybody can read it: recommend, events, model alone."),
    ] = False,
    origin: Annotated[
        list[str] | None,
        typer.Option(
            "--origin", metavar="ORIGIN", help="Whose pages may use a publishable key, as https://shop.example.org."
        ),
    ] = None,
    days: Annotated[
        float | None, typer.Option("--days", metavar="NUMBER", help="Days until it expires; without, it does not.")
    ] = None,
    where: StoreOption = None,
    config: ConfigOption = None,
    json: JsonFlag = False,
) -> None:
    """Make a key and print it, once: what is stored is a hash, from which nobody can read it again."""
    from coterie.serving.security.keys import make_key

    now = _now()
    made, text = make_key(name, publishable, scope or (), origin or (), _end(now, days), now=now)
    with _store(where, config, create=True) as (store, address):
        store.add_key(made)
    out = Output(json)
    out.result({"key": text, **shown(made), "store": address}, text)
    out.note(f"key {made.id} is in {address}; it is shown this once: keep it where secrets are kept")


def list_keys(where: StoreOption = None, config: ConfigOption = None, json: JsonFlag = False) -> None:
    """List the keys that were made, revoked and expired ones too; the keys themselves are nowhere."""
    with _store(where, config) as (store, address):
        found = store.keys()
    content = {"store": address, "keys": [shown(one) for one in found]}
    if not found:
        Output(json).result(
            content, f"no key was made yet in {address}; `coterie keys create NAME --scope ...` makes one"
        )
        return
    Output(json).result(content, table_of(found, _now()))


def revoke(
    key: Annotated[str, typer.Argument(metavar="ID", help="The key's id, as `coterie keys list` shows it.")],
    where: StoreOption = None,
    config: ConfigOption = None,
    json: JsonFlag = False,
) -> None:
    """Revoke a key for good: requests with it are refused, and logins made with it end."""
    asked = _TEXT.sub(r"\1", key)  # whoever has a leaked key at hand need not take it apart
    with _store(where, config) as (store, address):
        every = store.keys()
        found = {one.id: one for one in every}
        if asked not in found:
            raise DataError(f"{address}: has no key '{asked}'{closest(asked, found)}; `coterie keys list` shows all")
        before = found[asked].revoked_at
        if before is None:
            store.revoke_key(asked, _now())
    name = found[asked].name
    told = f"key {asked} ('{name}') was revoked already" if before is not None else f"revoked key {asked} ('{name}')"
    Output(json).result({"store": address, "id": asked, "name": name, "already": before is not None}, told)


def shown(key: ApiKey) -> dict[str, Any]:
    """A key as people see it: without its hash."""
    return {
        "id": key.id,
        "name": key.name,
        "kind": "publishable" if key.publishable else "secret",
        "scopes": sorted(key.scopes),
        "origins": list(key.origins),
        "created_at": _moment(key.created_at),
        "expires_at": _moment(key.expires_at),
        "revoked_at": _moment(key.revoked_at),
    }


def table_of(keys: Sequence[ApiKey], now: int) -> Table:
    """One row a key, in the order in which they were made; `now` says which have expired."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from coterie.report.printable import cell

    table = Table(title="API keys", title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("id", "name", "kind, origins", "scopes", "state (UTC)"):
        table.add_column(name, overflow="fold", no_wrap=name in ("id", "scopes", "state (UTC)"))
    for key in sorted(keys, key=lambda one: (one.created_at, one.id)):
        kind = Text("\n".join([shown(key)["kind"], *key.origins]))  # origins are ASCII, as `make_key` keeps them
        table.add_row(key.id, cell(key.name), kind, "\n".join(sorted(key.scopes)), state(key, now))
    return table


def state(key: ApiKey, now: int) -> str:
    """Since when a key is there, whether it holds, and until when."""
    since = f"since {_day(key.created_at)}"
    if key.revoked_at is not None:
        return f"{since}\nrevoked {_day(key.revoked_at)}"
    if key.expires_at is None:
        return f"{since}\nholds"
    return f"{since}\n{'expired' if key.expires_at <= now else 'until'} {_day(key.expires_at)}"


@contextmanager
def _store(where: str | None, config: Path | None, create: bool = False) -> Iterator[tuple[ServingStore, str]]:
    """The deployment's store and its address as it may be shown; only `create` makes one that is not there."""
    settings = config_of(config, where)
    with closing(opened_store(settings, create=create)) as opened:
        yield opened, place(settings)


def _end(now: int, days: float | None) -> int | None:
    if days is None:
        return None
    if not 0 < days <= 36_500:  # NaN is neither
        raise ConfigError(f"--days must be more than 0 and at most 36,500, got {days:g}")
    return now + int(days * DAY)


def _moment(time: int | None) -> str | None:
    return None if time is None else datetime.fromtimestamp(time / 1_000_000, UTC).isoformat(timespec="seconds")


def _day(time: int) -> str:
    return f"{datetime.fromtimestamp(time / 1_000_000, UTC):%Y-%m-%d}"


def _now() -> int:
    return time.time_ns() // 1000
