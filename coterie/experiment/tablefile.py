"""Tables that are too long for memory: written block by block, and there whole or not at all."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl

from coterie.errors import ConfigError, EnvironmentFault
from coterie.files import put_in_place


@contextmanager
def growing_table(path: Path) -> Iterator[Callable[[pl.DataFrame], int]]:
    """What adds a block of rows to the table at `path` (``.csv`` or ``.parquet``), and returns how many they are.

    Blocks wait beside the file; it is written when all have been added, and is as it was before if anything fails.

    Raises:
        ConfigError: the file has another ending.
        EnvironmentFault: it cannot be written.
    """
    kind = path.suffix.casefold()
    if kind not in (".csv", ".parquet"):
        raise ConfigError(f"{path}: the name must end in .csv or .parquet")
    work = path.with_name(f".{path.name}.{secrets.token_hex(6)}")
    blocks = list[Path]()

    def add(rows: pl.DataFrame) -> int:
        blocks.append(work / f"{len(blocks):06d}.parquet")
        rows.write_parquet(blocks[-1])
        return len(rows)

    try:
        work.mkdir(parents=True)
        yield add
        whole = work / "whole"
        rows = pl.scan_parquet(blocks)
        rows.sink_csv(whole) if kind == ".csv" else rows.sink_parquet(whole)
        put_in_place(whole, path)
    except (OSError, pl.exceptions.ComputeError) as error:
        reason = getattr(error, "strerror", None) or str(error).split("\n", 1)[0]
        raise EnvironmentFault(f"{path}: cannot be written: {reason}") from None
    finally:
        with contextlib.suppress(OSError):  # it may never have been made
            shutil.rmtree(work)
