"""What the commands around a running service share: which store, which settings."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeAlias

import typer

from coterie.errors import ConfigError, DataError

if TYPE_CHECKING:
    from coterie.serving.config import ServeConfig
    from coterie.serving.store import ServingStore

StoreOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--store",
        metavar="FILE|URL",
        help="The store: a file, a postgresql:// URL, or env:NAME for a URL in a variable. Default: that of the "
        "configuration, else coterie-serving.sqlite.",
    ),
]
ConfigOption: TypeAlias = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="The deployment's serve.toml.")
]
SinceOption: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--since", metavar="TIME", help="Leave out what happened before (ISO 8601, in UTC if it has no zone)."
    ),
]


def config_of(config: Path | None, store: str | None) -> ServeConfig:
    """The deployment's configuration, with another store where one is named.

    Raises:
        ConfigError: the file is missing or wrong.
    """
    from coterie.serving.config import ServeConfig

    found = ServeConfig() if config is None else ServeConfig.read(config)
    if store is None:
        return found
    return found.model_copy(update={"store": found.store.model_copy(update={"address": store})})


def opened_store(config: ServeConfig, *, create: bool = False) -> ServingStore:
    """The store of a deployment.

    Raises:
        DataError: it is a file that is not there, and is not to be made.
        EnvironmentFault: it cannot be reached, read or written.
    """
    from coterie.serving.store import ServingStore
    from coterie.storage import is_path

    address = config.store.address
    if not create and is_path(address) and not Path(address).expanduser().exists():
        raise DataError(f"{address}: there is no such store; name that of the service with --store or --config")
    return ServingStore.open(address, config.people, config.store)


def place(config: ServeConfig) -> str:
    """Where the store is, as it may be shown."""
    from coterie.storage import is_path, named

    address = config.store.address
    return address if is_path(address) else named(address)


def microseconds(option: str, text: str | None) -> int | None:
    """A time in microseconds since 1970; None for None.

    Raises:
        ConfigError: it is no time.
    """
    from datetime import UTC, datetime

    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"{option} must be a date or time such as 2025-03-01, got '{text}'") from None
    moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
    return round(moment.timestamp() * 1_000_000)
