"""The items file as an assortment: what is listed in it, and nothing that a log says."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from coterie.data.cleaning import clean, steps_for
from coterie.data.log import InteractionLog
from coterie.data.readers import known_roles
from coterie.data.sidefiles import read_items
from coterie.errors import ConfigError
from coterie.settings import Settings


def listed_items(settings: Settings, log: InteractionLog) -> pl.DataFrame:
    """The rows of the items file: ``item``, ``title`` and its other columns, ids written as in the cleaned `log`.

    Of the log no more than its columns are looked at. What was read with it (`InteractionLog.texts`) will not do for an
    assortment: items that the file lacks are in it with the titles that the log gives them, and so is a title that the
    file lacks, where the item was sold.

    Raises:
        ConfigError: no items file is named.
        DataError: it cannot be used.
    """
    data = settings.data
    if data.items is None:
        raise ConfigError("no items file is named; set items in [data]")
    texts = read_items(data.items, known_roles(data.logs, data) if data.logs else {}, data, [])
    steps = [step for step in steps_for(settings.clean, log, constant=True) if step.scope == "row"]
    return clean(replace(log, frame=log.frame.clear(), texts=texts), steps)[0].texts
