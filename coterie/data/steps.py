"""What a step of cleaning is: a frozen dataclass that says what it does and does it.

A step takes and gives a frame with the columns of an `InteractionLog` (other columns are carried along), and never
changes the order of rows. Its `scope` is ``row`` where what happens to a row depends on that row and constants alone,
so that the step may run before data are split, and ``log`` where it depends on other rows, so that it must run on
training rows alone. "Rows of a user" are rows of the log of one user at one client; guests are not users.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, TypeAlias

import polars as pl

Scope: TypeAlias = Literal["row", "log"]
Table: TypeAlias = Literal["rows", "texts"]


@dataclass(frozen=True)
class Step(ABC):
    """One step: `name` for reports, `tables` it rewrites, `rewrites` the columns in which a kept row may change.

    Steps that match returns with purchases (`cancels`) also run on held-out rows, by themselves.
    """

    name: ClassVar[str]
    scope: ClassVar[Scope]
    tables: ClassVar[tuple[Table, ...]] = ("rows",)
    rewrites: ClassVar[tuple[str, ...]] = ()
    cancels: ClassVar[bool] = False

    @abstractmethod
    def describe(self) -> str:
        """What the step does and why, in one sentence."""

    @abstractmethod
    def apply(self, frame: pl.DataFrame) -> pl.DataFrame:
        """The rows that are left, in their order."""
