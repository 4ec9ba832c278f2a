"""A node's own log: read by its own columns and ids, cleaned and divided by its own settings.

The whole log is one client, whatever parts it came in: a customer of two of its shops is one person, whose rows are
bounded together. What is held out is chosen with a seed that no job can set, so that the rows that one job must not see
are not those that another one trains on.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Protocol

import polars as pl

from coterie.data.log import InteractionLog
from coterie.data.splits import Given
from coterie.errors import ConfigError, DataError, EnvironmentFault, PlanError
from coterie.experiment.itemsfile import listed_items
from coterie.experiment.prepare import Prepared, prepare, read_inputs
from coterie.privacy.plan import Plan
from coterie.settings import (
    AugmentSettings,
    CleanSettings,
    ClientSettings,
    DataSettings,
    Settings,
    SplitSettings,
    fields,
    is_database,
)

Stamp = tuple[tuple[str, int, int], ...]


class DeskConfig(Protocol):
    """What a desk needs of a node's configuration (`coterie.federation.config.NodeConfig`)."""

    @property
    def name(self) -> str:
        """What the federation calls this node."""

    @property
    def data(self) -> DataSettings:
        """Its log, and which column means what."""

    @property
    def clean(self) -> CleanSettings:
        """How it is cleaned."""

    @property
    def split(self) -> SplitSettings:
        """What is held out of it."""

    @property
    def augment(self) -> AugmentSettings:
        """Which rows are added to what is trained on."""

    @property
    def engine(self) -> str:
        """Where contributions are computed: "local" or "ray"."""

    @property
    def identifier(self) -> str | None:
        """Column of the items file with a GTIN or ISBN; None: by name."""

    @property
    def shared_attributes(self) -> tuple[str, ...]:
        """Columns of the items file that may leave besides the title."""

    @property
    def ray_address(self) -> str | None:
        """Address of the Ray cluster; None: one on this machine."""


@dataclass(frozen=True)
class Inputs:
    """A node's files, read: all rows are of the one client that it is."""

    log: InteractionLog
    given: dict[str, Given]
    candidates: pl.DataFrame | None


class DeskLog:
    """A node's log, read when it is needed, and again once one of its files has changed. Threads may share it."""

    def __init__(self, config: DeskConfig) -> None:
        self.name = config.name
        self.settings = Settings(
            data=config.data,
            clean=config.clean,
            split=config.split,
            augment=config.augment,
            clients=ClientSettings(clients="column"),
        )
        self._lock = threading.Lock()
        self._stamp: Stamp | None = None
        self._inputs: Inputs | None = None
        self._prepared: dict[bool, Prepared] = {}

    def prepared(self, plan: Plan, *, anew: bool = False) -> tuple[Prepared, Inputs]:
        """The log cleaned row by row and divided as `plan` demands, and what was read; `anew` asks a database again.

        Raises:
            DataError: a file cannot be used, or there is too little in it to hold anything out.
            ConfigError: no log is named, or a setting does not go with it or with the plan.
        """
        with self._lock, _by_keys():
            inputs = self._read(anew=anew)
            if plan.private not in self._prepared:
                found = prepare(inputs.log, self.settings, inputs.given, inputs.candidates, plan)
                self._prepared[plan.private] = found
            return replace(self._prepared[plan.private], plan=plan), inputs

    def listed(self) -> pl.DataFrame:
        """The items file alone: ``item``, ``title`` and its other columns, ids written as in the cleaned log.

        Nothing in it comes from a row of the log: not an item, and not a title that the file lacks.

        Raises:
            PlanError: no items file is named.
            DataError: it cannot be used.
        """
        if self.settings.data.items is None:
            raise PlanError(
                "under a plan with noise the list of items must not come from the log, because one customer's purchase "
                "would show in it; name an items file ([data] items)"
            )
        with self._lock, _by_keys():
            return listed_items(self.settings, self._read(anew=False).log)

    def forget(self) -> None:
        """Let go of what was read; it is read again when it is needed."""
        with self._lock:
            self._inputs, self._stamp, self._prepared = None, None, {}

    def _read(self, *, anew: bool) -> Inputs:
        stamp = self._stamped()
        if self._inputs is not None and stamp == self._stamp and not (anew and stamp is None):
            return self._inputs
        log, given, candidates = read_inputs(self.settings, accept_proposal=False)
        mine = {name: self._as_mine(part) for name, part in given.items()}
        self._inputs = Inputs(log.with_frame(one_client(log.frame, self.name)), mine, candidates)
        self._stamp, self._prepared = stamp, {}
        return self._inputs

    def _as_mine(self, part: Given) -> Given:
        if part.log is not None:
            return Given(log=part.log.with_frame(one_client(part.log.frame, self.name)))
        return Given(cases=None if part.cases is None else one_client(part.cases, self.name))

    def _stamped(self) -> Stamp | None:
        """Name, time and size of every file; None where rows come from a database, which tells neither."""
        data, split = self.settings.data, self.settings.split
        if not data.logs:
            raise ConfigError('the node\'s configuration names no log; set logs = ["orders.csv"] in [data]')
        if any(is_database(log) for log in data.logs):
            return None
        names = (*data.logs, data.items, data.users, split.test, split.valid, split.candidates)
        return tuple(_stamp_of(Path(name)) for name in names if name is not None)


def one_client(frame: pl.DataFrame, name: str) -> pl.DataFrame:
    """Rows or cases as those of the client `name`; baskets of two parts of a log that bear one number stay two."""
    if {"client", "basket"} <= set(frame.columns):
        frame = frame.with_columns(basket=pl.concat_str(pl.col("client").fill_null(""), "basket", separator="/"))
    return frame.with_columns(client=pl.lit(name))


def _stamp_of(path: Path) -> tuple[str, int, int]:
    try:
        found = path.stat()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; correct its name in node.toml, or put the file there") from None
    except OSError as error:
        raise EnvironmentFault(f"{path}: cannot be read: {error.strerror or error}") from None
    return str(path), found.st_mtime_ns, found.st_size


@contextmanager
def _by_keys() -> Iterator[None]:
    """Errors that name flags of `coterie train` name the keys of ``node.toml`` instead, which are called the same."""
    try:
        yield
    except (ConfigError, DataError) as error:
        raise type(error)(_with_keys(str(error))) from error


def _with_keys(message: str) -> str:
    keys = {f"--{key.replace('_', '-')}": key for _, key, _ in fields()}
    message = message.replace("take it with --yes or name ", "set in [data] ")
    return re.sub(r"--[a-z][a-z-]*", lambda flag: keys.get(flag.group(), flag.group()), message)
