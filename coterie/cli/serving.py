"""What the commands around a running service share: which store, which settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

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


def config_of(
    config: Path | None, store: str | None, flags: Mapping[tuple[str, str], Any] = MappingProxyType({})
) -> ServeConfig:
    """The deployment's configuration, with another store where one is named, and what further flags say instead.

    Raises:
        ConfigError: no such file, no TOML, an unknown key or a value out of range.
    """
    from coterie.serving.config import ServeConfig
    from coterie.settingscheck import build_as, read_toml

    values: dict[str, Any] = {} if config is None else read_toml(config)
    named = {("store", "address"): "--store"}
    for (section, key), value in {("store", "address"): store, **flags}.items():
        if value is None:
            continue
        if not isinstance(values.setdefault(section, {}), dict):
            raise ConfigError(f"{config}: [{section}] must be a table")
        values[section][key] = value
        named.setdefault((section, key), "--" + key.replace("_", "-"))
    return build_as(ServeConfig, values, "serve" if config is None else str(config), named)


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
